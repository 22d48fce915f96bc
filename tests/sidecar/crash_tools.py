"""Processes that are killed, and the account that is taken afterwards: what workers noted against what was counted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mppobs.journal.writer import JournalWriter
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    DispatchRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    ShardOutcome,
    WorkerInfo,
)
from mppobs.sidecar.aggregates import StageKey
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.reading import ShardQuery, ShardRow
from mppobs.sidecar.store_jobs import JobQuery

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("crash_worker.py")
JOB = "crash-1"
STAGE = StageKey("default", "default", "crash", "map")
PATIENCE = 60.0
"""Seconds that anything may take on a loaded machine before a test gives up."""
EVERYTHING = 10**7
TOKEN = "a-token-for-tests"


def wait_for(what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds, or fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


@dataclass
class Worker:
    """One worker process and its notes."""

    process: subprocess.Popen[bytes]
    notes: Path

    def said(self, word: str) -> list[int]:
        """Return the shards of which the worker noted `begin`, `inside` or `end`, in its order."""
        text = self.notes.read_text() if self.notes.exists() else ""
        return [int(number) for verb, number in (line.split() for line in text.splitlines()) if verb == word]

    def work(self) -> None:
        """Wait until it has finished an attempt."""
        wait_for("a worker at work", lambda: bool(self.said("end")) or self.process.poll() is not None)
        assert self.process.poll() in (None, 0), "the worker failed"

    def kill(self) -> None:
        """Kill it, as the kernel would, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


class Fleet:
    """Workers that write into journal directories, and what they noted."""

    def __init__(self, directory: Path, *, seconds: float = 0.002) -> None:
        self.directory = directory
        self.workers: list[Worker] = []
        self._seconds = seconds
        directory.mkdir(parents=True, exist_ok=True)

    def start(self, journals: Path, *, count: int = 10**6, environ: Mapping[str, str] | None = None) -> Worker:
        """Start one more worker, at shards that no other has."""
        number = len(self.workers)
        notes = self.directory / f"notes-{number}"
        variables = {
            **os.environ, "PYTHONPATH": str(ROOT), "MPPOBS_DIR": str(journals), "MPPOBS_PIPELINE": "crash",
            "MPPOBS_JOB_ID": JOB, **(environ or {}),
        }  # fmt: skip
        command = [sys.executable, str(WORKER), str(notes), str(number * 1_000_000), str(count), str(self._seconds)]
        self.workers.append(Worker(subprocess.Popen(command, env=variables), notes))
        return self.workers[-1]

    def stop(self) -> None:
        """Kill whatever still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()

    def said(self, word: str) -> set[int]:
        """Return the shards of which any worker noted `begin`, `inside` or `end`."""
        return {shard for worker in self.workers for shard in worker.said(word)}


@contextmanager
def engine_on(state: Path, directories: Sequence[Path], settings: EngineSettings | None = None) -> Iterator[Engine]:
    """Open an engine, and close it again."""
    engine = open_engine(state, directories, settings)
    try:
        yield engine
    finally:
        engine.close()


def rows_of(engine: Engine) -> dict[int, ShardRow]:
    """Return every shard of every run of the job, each of which may be there once."""
    found: dict[int, ShardRow] = {}
    for job in engine.jobs(JobQuery(job_id=JOB, limit=1000)).jobs:
        for row in engine.shards(job.key, ShardQuery(limit=EVERYTHING)):
            assert isinstance(row.shard, int)
            assert row.shard not in found, f"shard {row.shard} is in two runs"
            found[row.shard] = row
    return found


def settle_accounts(engine: Engine, fleet: Fleet) -> tuple[int, int]:
    """
    Hold what was counted against what the workers noted; return finished attempts and those reported as lost.

    Every attempt that ended is a success, once. One that was inside when its worker was killed is there once, as a
    success if the kill came after its record, else as an error. One that had only begun may be there, as an error.
    """
    for _ in range(20):
        engine.tick()
    rows = rows_of(engine)
    begun, inside, ended = fleet.said("begin"), fleet.said("inside"), fleet.said("end")
    done = {shard for shard, row in rows.items() if row.outcome is ShardOutcome.COMMITTED}
    lost = {shard for shard, row in rows.items() if row.reason is Reason.WORKER_LOST}
    assert not ended - done, f"finished attempts lost: {sorted(ended - done)[:5]}"
    assert not inside - rows.keys(), f"attempts in flight not reported: {sorted(inside - rows.keys())[:5]}"
    assert not rows.keys() - begun, f"attempts that never were: {sorted(rows.keys() - begun)[:5]}"
    assert done | lost == rows.keys()
    assert all(row.attempts == 1 for row in rows.values())
    assert len(done - ended) + len(lost) <= len(fleet.workers)
    totals = engine.store.totals().stages[STAGE].attempts
    assert totals[AttemptOutcome.SUCCESS] == len(done)
    assert totals[AttemptOutcome.ERROR] == len(lost)
    assert sum(totals.values()) == len(rows)
    return len(done), len(lost)


class Sidecar:
    """A sidecar process, started and killed again and again with the same settings."""

    def __init__(self, directory: Path, *flags: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port_file = directory / "port"
        self.log = directory / "log"
        self._flags = flags
        self._port = "0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; the port that it finds is kept for the next time."""
        flags = [*self._flags, "--port", self._port, "--port-file", str(self.port_file)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mppobs.cli.main", "sidecar", *flags], env=environ, stderr=log, stdout=log
            )

    @property
    def url(self) -> str:
        """Return its address, once it listens."""
        wait_for("the sidecar's port", lambda: self.port_file.exists() and bool(self.port_file.read_text().strip()))
        self._port = self.port_file.read_text().strip()
        return f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """Kill it, as the kernel would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)


def aggregator(directory: Path, state: Path, *more: str) -> Sidecar:
    """Return an aggregator that follows nothing but what is shipped to it; `more` are flags."""
    unused = directory / "unused"
    unused.mkdir(parents=True, exist_ok=True)
    return Sidecar(
        directory, "--directory", str(unused), "--state-directory", str(state), "--write-token", TOKEN,
        "--idle-seconds", "1h", *more,
    )  # fmt: skip


def agent(directory: Path, journals: Path, url: str) -> Sidecar:
    """Return an agent that ships a directory of journals."""
    return Sidecar(directory, "--directory", str(journals), "--forward", url, "--forward-token", TOKEN)


def moments(count: int, longest: float, seed: int) -> Iterator[float]:
    """Yield so many random pauses, most of them short, since most that goes wrong goes wrong at once."""
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.random() ** 2 * longest


class Coordinator:
    """Writes what the coordinator of the job would, one shard at a time."""

    def __init__(self, journals: Path, job: str) -> None:
        self._writer = JournalWriter(journals, WorkerInfo("coordinator"))
        self._incarnation = time.time_ns()
        self._job = job

    def start(self, shards: int) -> None:
        """Write the start and the whole plan."""
        now = time.time_ns()
        self._writer.append(JobRecord(JobEvent.START, self._number(""), now, coordinated=True))
        self._writer.append(PlanRecord(self._number("map"), now, shards, final=True))

    def dispatch(self, shard: int) -> None:
        """Write that a shard's first attempt was handed out."""
        self._writer.append(DispatchRecord(self._number("map"), shard, 0, time.time_ns()))

    def attempt(self, shard: int) -> None:
        """Write a successful attempt, as a worker in the same process would."""
        now = time.time_ns()
        self._writer.append(AttemptRecord(self._number("map"), shard, 0, AttemptOutcome.SUCCESS, now - 1000, 1000))

    def commit(self, shard: int) -> None:
        """Write that a shard is committed."""
        committed = ShardOutcome.COMMITTED
        self._writer.append(CommitRecord(self._number("map"), shard, 0, committed, time.time_ns()))

    def end(self, outcome: JobOutcome) -> None:
        """Write the end of the job."""
        self._writer.append(JobRecord(JobEvent.END, self._number(""), time.time_ns(), outcome))

    def close(self) -> None:
        """End the journal."""
        self._writer.close()

    def _number(self, stage: str) -> int:
        return self._writer.context_id(Context("crash", self._job, self._incarnation, stage=stage))
