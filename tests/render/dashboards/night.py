"""
A night of a small estate, in fast motion: pipelines on the executor, each with its own trouble, over and over.

Run as a program with the name of a pipeline, the directory of journals and how many seconds it may begin new runs for;
each pipeline is a process of its own, with its own workers. What its tasks do is wait: the trouble is real.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
from rich.console import Console

import mppobs
from mppobs.cli.demo_jobs import Findings, run_queries
from mppobs.cli.progress import Board
from mppobs.executor import Executor
from mppobs.executor.faults import Fault, FaultKind, arm
from mppobs.executor.plan import Limits, Plan, ShardPlan, Stage
from mppobs.executor.task import TaskInput
from mppobs.instrument.recorder import RECORDER
from mppobs.model import HeartbeatRecord, Tier
from mppobs.workloads.data import make_dataset

_SLICES: Final = 10
"""Into so many a task's time is cut, with its progress told after each."""


@dataclass(frozen=True)
class Pipeline:
    """One pipeline of the estate."""

    name: str
    owner: str
    tier: Tier = Tier.STANDARD
    shards: int = 24
    seconds: float = 0.15
    """That a shard takes, more or less."""
    deadline: float = 0.0
    faults: tuple[Fault, ...] = ()
    pause: float = 1.0
    """Between two runs."""
    checkpoints: bool = False
    workers: int = 2
    retry_share: float = 0.6
    """Retries that a run may spend, as a share of its shards."""
    slow: Mapping[int, float] = field(default_factory=dict)
    """Shards that take so many seconds longer."""


_ALL_AT_ONCE: Final = (
    Fault(FaultKind.SHUFFLE, severity=0.3), Fault(FaultKind.HOT_PREFIX, severity=0.2),
    Fault(FaultKind.RETRY_STORM, severity=0.3),
)  # fmt: skip
NIGHT: Final = {
    each.name: each
    for each in (
        Pipeline("nightly-scoring", "risk", Tier.CRITICAL, 40, 0.25, 10.0, pause=4.0, workers=4,
                 slow={17: 14.0, 31: 11.0}),
        Pipeline("hourly-features", "growth", shards=24, faults=(Fault(FaultKind.SHUFFLE, severity=0.2),), pause=3.0,
                 retry_share=5.0),
        Pipeline("reindex", "search", Tier.BESTEFFORT, faults=(Fault(FaultKind.HOT_PREFIX, severity=0.3),), pause=2.0,
                 retry_share=5.0),
        Pipeline("ingest", "data", faults=(Fault(FaultKind.RETRY_STORM, severity=0.35),), shards=18, pause=2.0,
                 retry_share=5.0),
        Pipeline("training", "ml", shards=8, seconds=1.2, deadline=60.0, checkpoints=True, pause=6.0),
        Pipeline("everything", "sre", Tier.CRITICAL, 24, 0.1, 5.0, _ALL_AT_ONCE, 0.5, checkpoints=True,
                 retry_share=5.0, slow={3: 9.0}),
        Pipeline("thumbnails", "media", Tier.BESTEFFORT, shards=16, seconds=0.1, deadline=30.0),
    )
}  # fmt: skip
"""By name."""


def read(task: TaskInput) -> pa.Table:
    """Take the shard's time, as a reader of input does, and return rows to exchange."""
    _take_time(task)
    rows = 4000
    mppobs.current().add(rows=rows)
    return pa.table({"key": pa.array(range(rows), pa.int64()), "value": pa.array([float(rows)] * rows)})


def write(task: TaskInput) -> pa.Table:
    """Read the shard's partition and return how much there was."""
    table = task.read("read")
    _take_time(task)
    return pa.table({"rows": [table.num_rows]})


def _take_time(task: TaskInput) -> None:
    """Wait as long as the plan says, busy for a little of it."""
    attempt = mppobs.current()
    seconds = float(task.arguments["seconds"])
    for part in range(_SLICES):
        with attempt.activity("compute" if part < 6 else "read" if part < 9 else "write"):
            busy = time.monotonic() + seconds / _SLICES / 40
            while time.monotonic() < busy:
                pass
            time.sleep(seconds / _SLICES * 0.975)
        attempt.progress((part + 1) / _SLICES)
        if task.arguments.get("checkpoints") and part % 4 == 3:
            attempt.checkpoint()


def plan_of(pipeline: Pipeline, number: int) -> Plan:
    """Return the plan of a pipeline's run; every third one has its slow shards."""
    chance = random.Random(f"{pipeline.name}/{number}")
    slow = pipeline.slow if number % 3 == 0 else {}

    def shard(place: int, factor: float) -> ShardPlan:
        seconds = pipeline.seconds * chance.lognormvariate(0, 0.35) * factor + slow.get(place, 0.0)
        return ShardPlan(place, {"seconds": seconds, "checkpoints": pipeline.checkpoints}, round(seconds * 1e8))

    limits = Limits(attempts=9, backoff=0.05)
    return Plan(
        pipeline.name,
        (
            Stage("read", f"{__name__}:read", tuple(shard(place, 1.0) for place in range(pipeline.shards)),
                  partition_by=("key",), partitions=8, limits=limits),
            Stage("write", f"{__name__}:write", tuple(shard(100 + place, 0.5) for place in range(8)), reads=("read",),
                  limits=limits),
        ),
        job_id=f"{pipeline.name}-{number:03}", owner=pipeline.owner, tier=pipeline.tier, deadline=pipeline.deadline,
        retry_share=pipeline.retry_share,
    )  # fmt: skip


def main() -> None:
    """Run one pipeline again and again until time is up, or the queries of the demo twice."""
    name, journals, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    mppobs.configure(directory=journals, node_type="demo-core", sample_seconds=0.5, node=f"node-{name}")
    if name == "demo":
        run_demo(journals, seconds)
    else:
        run_night(NIGHT[name], journals, seconds)


def run_demo(journals: Path, seconds: float) -> None:
    """Run the demo's queries on little data, twice each, the second time with its faults; again until time is up."""
    until = time.monotonic() + seconds
    dataset = make_dataset(journals.parent / "data", 0.01, 24)
    with Executor(2, journals.parent / "exchange-demo", journal=journals) as executor:
        while True:
            findings = Findings()
            with Board(Console(quiet=True)) as board:
                run_queries(executor, dataset, 2, board, findings)
            if not findings.ok:
                raise SystemExit(f"wrong answers: {findings.verdicts}")
            if time.monotonic() > until:
                return


def run_night(pipeline: Pipeline, journals: Path, seconds: float) -> None:
    """Run one pipeline again and again; where everything is to happen, say something without sense once."""
    journal = RECORDER.journal()
    if journal is not None and pipeline.name == "everything":
        journal.append(HeartbeatRecord(987_654, time.time_ns()))
    until = time.monotonic() + seconds
    faults = arm(pipeline.faults, time.time_ns())
    with Executor(
        pipeline.workers, journals.parent / f"exchange-{pipeline.name}", journal=journals, faults=faults
    ) as executor:
        number = 0
        while time.monotonic() < until:
            executor.run(plan_of(pipeline, number))
            number += 1
            time.sleep(pipeline.pause)


if __name__ == "__main__":
    from tests.render.dashboards.night import main as run  # so that workers find the tasks under the module's name

    run()
