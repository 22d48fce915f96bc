"""A backend under test, and what its tests ask of it again and again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mppobs.executor.attempt import AttemptOrder, StageOrder
from mppobs.executor.backends.base import Backend, Ended, News, Started
from mppobs.executor.events import AttemptId
from mppobs.executor.files import open_files
from mppobs.journal.reader import scan
from mppobs.model import AttemptRecord, ContextRecord, WorkerEvent, WorkerRecord
from mppobs.testing import Captured

SECONDS = 60.0
"""How long a test waits for news before it fails: engines on a busy machine take their time."""
N = TypeVar("N", bound=News)
_JOBS = itertools.count()
ENGINES = ("dask", "ray")


def on_every_backend(*kinds: str) -> pytest.MarkDecorator:
    """Run a test on these backends, or on all; those of one engine all run in one process (`tests/conftest.py`)."""
    return pytest.mark.parametrize("kind", kinds or ("local", "sim", *ENGINES))


@dataclass
class Rig:
    """A started backend."""

    backend: Backend
    journals: Path
    heard: list[News] = field(default_factory=list)
    """Everything since `fresh`."""

    def __post_init__(self) -> None:
        self.backend.start()

    @property
    def kind(self) -> str:
        """Return the backend's name."""
        return self.backend.name

    def fresh(self) -> None:
        """Forget what was heard."""
        self.heard.clear()

    def until(self, done: Callable[[], object], what: str) -> None:
        """Poll until something is so; fail, naming it, when time is up."""
        deadline = time.monotonic() + SECONDS
        while not done():
            assert time.monotonic() < deadline, f"waited for {what}; heard {self.heard}"
            self.heard += self.backend.poll(0.1)

    def poll_for(self, seconds: float) -> None:
        """Poll for so long, on the backend's own clock."""
        if self.backend.capabilities.virtual_time:
            for _ in range(int(seconds * 10)):
                self.heard += self.backend.poll(0.1)
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.heard += self.backend.poll(0.1)

    def wait_for_workers(self, count: int) -> list[str]:
        """Wait until so many workers are up; return their names."""
        self.until(lambda: len(self.backend.places) == count, f"{count} workers")
        return sorted(self.backend.places)

    def of(self, kind: type[N]) -> list[N]:
        """Return the news of one kind that was heard."""
        return [news for news in self.heard if isinstance(news, kind)]

    def started(self, attempt: AttemptId) -> None:
        """Wait until an attempt has begun."""
        self.until(lambda: any(news.attempt == attempt for news in self.of(Started)), f"the start of {attempt}")

    def ended(self, *attempts: AttemptId) -> list[Ended]:
        """Wait until attempts have ended; return how, in their order."""
        wanted = set(attempts)
        self.until(lambda: wanted <= {news.attempt for news in self.of(Ended)}, f"the end of {wanted}")
        found = {news.attempt: news for news in self.of(Ended)}
        return [found[attempt] for attempt in attempts]


class JobOnRig:
    """One job's stage on a rig: gives attempts out and knows where their records are."""

    def __init__(self, rig: Rig, root: Path, task: str = "tasks:value", **arguments: Any) -> None:
        """Prepare a stage of a new job whose shards all run this task, `module:function` below `tests.executor`."""
        self.rig = rig
        self.key = f"job-{next(_JOBS)}"
        self.root = root / self.key
        open_files(self.root).prepare(1)
        self.stage = StageOrder(
            job_id=self.key, root=self.root, index=0, name="only", task=f"tests.executor.{task}", combiner="",
            arguments=arguments, inputs={}, exchanged=False, partition_by=(), partitions=1, compression="none",
            context={"mppobs-pipeline": "p", "mppobs-job-id": self.key},
        )  # fmt: skip

    def give(self, worker: str, shard: int, number: int = 0, **arguments: Any) -> AttemptId:
        """Give a worker an attempt."""
        attempt = AttemptId(self.key, 0, shard, number)
        order = AttemptOrder(shard, shard, number, arguments or None, time.time_ns())
        self.rig.backend.submit(worker, attempt, self.stage, order)
        return attempt

    def records(self) -> dict[str, list[AttemptRecord]]:
        """Return the attempts of the job that are on record, by the worker whose journal has them."""
        found: dict[str, list[AttemptRecord]] = {}
        for files in scan(self.rig.journals):
            records = list(Captured._of(files.segments))
            worker = next(
                (r.info.worker for r in records if isinstance(r, WorkerRecord) and r.event is WorkerEvent.SELF), ""
            )
            mine = {r.context_id for r in records if isinstance(r, ContextRecord) and r.context.job_id == self.key}
            attempts = [r for r in records if isinstance(r, AttemptRecord) and r.context_id in mine]
            if attempts:
                found.setdefault(worker, []).extend(attempts)
        return found
