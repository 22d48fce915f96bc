"""
Helpers for testing instrumented code: what was recorded, read back; records to feed to others; scripted failures.

Public: the tests of mppobs itself use them too.
"""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from mppobs.clock import ManualClock as ManualClock
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.settings import Settings, from_environment
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode_all
from mppobs.journal.format import shard_key
from mppobs.journal.reader import read_head, read_records, scan
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    ContextRecord,
    DetailKind,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobEvent,
    JobRecord,
    PlanRecord,
    Record,
    SampleRecord,
    Shard,
    ShardOutcome,
    TextRecord,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)

R = TypeVar(
    "R", AttemptRecord, CommitRecord, ContextRecord, DetailRecord, DispatchRecord, DropRecord, EndRecord,
    HeartbeatRecord, JobRecord, PlanRecord, SampleRecord, TextRecord, WorkerRecord,
)  # fmt: skip

_BLOCK = 4096


class Captured:
    """What was recorded in a directory, by every process that wrote there. Read anew each time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._kept: tuple[list[Record], dict[AttemptOutcome, int]] | None = None

    @property
    def records(self) -> list[Record]:
        """Return all records, journal by journal, each in the order of its file."""
        if self._kept is not None:
            return self._kept[0]
        return [record for files in scan(self.directory) for record in self._of(files.segments)]

    def keep(self) -> None:
        """Read everything for the last time: the directory is about to go."""
        self._kept = self.records, self.dropped()

    @property
    def attempts(self) -> list[AttemptRecord]:
        """Return the attempts."""
        return self.of(AttemptRecord)

    @property
    def details(self) -> list[DetailRecord]:
        """Return the named amounts of attempts."""
        return self.of(DetailRecord)

    @property
    def jobs(self) -> list[JobRecord]:
        """Return the steps in the lives of jobs."""
        return self.of(JobRecord)

    @property
    def commits(self) -> list[CommitRecord]:
        """Return the shards that were decided."""
        return self.of(CommitRecord)

    @property
    def samples(self) -> list[SampleRecord]:
        """Return the samples."""
        return self.of(SampleRecord)

    def of(self, kind: type[R]) -> list[R]:
        """Return the records of one kind."""
        return [record for record in self.records if isinstance(record, kind)]

    def context(self, record: AttemptRecord | JobRecord | CommitRecord | DetailRecord | SampleRecord) -> Context:
        """Return the context that a record names; only where one process recorded: numbers are a journal's own."""
        contexts = {known.context_id: known.context for known in self.of(ContextRecord)}
        return contexts[record.context_id]

    def shard_names(self) -> dict[int, str]:
        """Return the names behind the keys of shards that are named by text."""
        return {record.shard_key: record.text for record in self.of(TextRecord) if record.shard_key}

    def dropped(self) -> dict[AttemptOutcome, int]:
        """Return the attempts that could not be recorded, by outcome."""
        if self._kept is not None:
            return self._kept[1]
        totals: dict[AttemptOutcome, int] = {}
        for files in scan(self.directory):
            if files.head is not None:
                for outcome, count in read_head(files.head).dropped.items():
                    totals[outcome] = totals.get(outcome, 0) + count
        return totals

    @staticmethod
    def _of(segments: Mapping[int, Path]) -> Iterator[Record]:
        for _, path in sorted(segments.items()):
            data = b""
            while block := read_records(path, len(data) // fmt.RECORD_BYTES, _BLOCK):
                data += block
            yield from decode_all(fmt.RECORD.iter_unpack(data))


@contextmanager
def capture(settings: Settings | None = None) -> Iterator[Captured]:
    """
    Record into a directory of its own for the length of a `with`; read back what was recorded, then or later.

    What was configured before comes back afterwards. Not for several threads at once: a process has one recorder.

    >>> with capture() as captured:
    ...     pass
    >>> captured.attempts
    []
    """
    with tempfile.TemporaryDirectory(prefix="mppobs-test-") as temporary:
        base = from_environment({}) if settings is None else settings
        captured = Captured(Path(temporary))
        old = RECORDER.reset(base._replace(directory=captured.directory))
        try:
            yield captured
        finally:
            RECORDER.reset(old)
            captured.keep()


_DEFAULTS: Final[Mapping[str, object]] = {
    "context_id": 1,
    "shard_key": 0,
    "attempt": 0,
    "time_ns": 1_700_000_000_000_000_000,
    "start_ns": 1_700_000_000_000_000_000,
    "duration_ns": 1_000_000_000,
    "added": 1,
    "cpu_ns": 0,
    "rss": 0,
    "peak_rss": 0,
    "memory_limit": 0,
    "throttled_ns": 0,
    "oom_kills": 0,
    "in_flight_ns": 0,
    "amounts": (),
    "what": DetailKind.ACTIVITY,
    "sealed": False,
    "context": Context("pipeline", "job"),
    "info": WorkerInfo("worker"),
    "text": "",
}


def make_record(kind: type[R], **values: Any) -> R:
    """
    Return a record with what a test does not care about filled in. `outcome` and `event` are the first of their kind.

    >>> make_record(AttemptRecord, shard_key=7, rows=3).duration_ns
    1000000000
    """
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            values[field.name] = _FIRST.get(f"{kind.__name__}.{field.name}", _DEFAULTS.get(field.name))
    return kind(**values)


_FIRST: Final[Mapping[str, object]] = {
    "AttemptRecord.outcome": AttemptOutcome.SUCCESS,
    "CommitRecord.outcome": ShardOutcome.COMMITTED,
    "JobRecord.event": JobEvent.START,
    "WorkerRecord.event": WorkerEvent.SELF,
}


class ScriptedFailure(Exception):  # a condition that a script asks for
    """Raised by `Script.run` where the script says that the attempt fails."""


class Script:
    """
    Attempts that run and fail by a script: for each shard the seconds of each attempt, negative where it fails.

    What is not in the script succeeds at once. Attempts are counted in files, so they count across processes; give
    every test its own directory.

    >>> script = Script(Path(tempfile.mkdtemp()), {3: [-0.0, 0]})
    >>> try: script.run(3)
    ... except ScriptedFailure as error: print(error)
    shard 3 fails at attempt 0
    >>> script.run(3), script.attempts(3)
    (1, 2)
    """

    def __init__(self, directory: Path, seconds: Mapping[Shard, Sequence[float]]) -> None:
        self._directory = directory
        self._seconds = {str(shard): tuple(plan) for shard, plan in seconds.items()}

    def run(self, shard: Shard) -> int:
        """Run one attempt as the script says; return its number, from 0. Raises `ScriptedFailure`."""
        number = self._begin(shard)
        plan = self._seconds.get(str(shard), ())
        length = plan[number] if number < len(plan) else 0.0
        if length:
            time.sleep(abs(length))
        if math.copysign(1.0, length) < 0:
            raise ScriptedFailure(f"shard {shard} fails at attempt {number}")
        return number

    def attempts(self, shard: Shard) -> int:
        """Return how many attempts of a shard have begun."""
        try:
            return self._path(shard).stat().st_size
        except FileNotFoundError:
            return 0

    def _begin(self, shard: Shard) -> int:
        descriptor = os.open(self._path(shard), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            number = os.fstat(descriptor).st_size
            os.write(descriptor, b".")
            return number
        finally:
            os.close(descriptor)

    def _path(self, shard: Shard) -> Path:
        return self._directory / f"attempts-{shard_key(shard)}"
