"""
The decisions of a coordinator, kept in a file as they are made, so that another can go on where it died.

Each coordinator of a job appends to a file of its own, so one that was taken for dead and is not can do no harm. An
entry is a length, a checksum and a pickled tuple; what a dying coordinator wrote in half ends the file. Entries are
written before the deeds that follow from them, many at a time: once for each turn of the loop.

Tables are not in it. What is committed is what is in its place among the exchanged data, whoever heard of it.
"""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from mppobs.executor.events import Earlier, Setbacks
from mppobs.executor.plan import Plan
from mppobs.executor.result import ShardFailure, Takeover
from mppobs.executor.stages import Part
from mppobs.model import Context, JobOutcome, Reason

_HEAD: Final = struct.Struct("<II")


class Begun(NamedTuple):
    """The job, as it was submitted. The first entry of the first file."""

    plan: Plan
    context: Context
    root: str
    """Where its exchanged data is."""
    submitted_ns: int
    """Wall time."""


class Opened(NamedTuple):
    """What a stage reads is known, and was recorded."""

    stage: int


class Dispatched(NamedTuple):
    """An attempt is about to be given to a worker. Its number is used up."""

    stage: int
    shard: int
    number: int


class Started(NamedTuple):
    """The first attempt of a shard began."""

    stage: int
    shard: int
    start_ns: int


class Charged(NamedTuple):
    """
    What the scheduler holds against a shard and its job, after something went wrong or a copy was begun.

    Totals, not differences: the last one counts.
    """

    stage: int
    shard: int
    faults: int
    losses: int
    preemptions: int
    retries: int
    """What is left of the job's budget."""


class Committed(NamedTuple):
    """A shard is decided for an attempt."""

    stage: int
    shard: int
    number: int
    value: bytes | None
    """What the task returned, pickled; `None` where it was a table."""
    bytes_read: int


class GaveUp(NamedTuple):
    """A shard is given up."""

    stage: int
    shard: int
    failure: ShardFailure
    outcome: JobOutcome
    """As what the job ends, if this was the first thing that went wrong."""


class Cancelled(NamedTuple):
    """The job is wanted no longer."""


class Replaced(NamedTuple):
    """A shard is replaced by smaller ones."""

    stage: int
    shard: int
    parts: tuple[Part, ...]


class Lost(NamedTuple):
    """The output of a committed shard is damaged or gone."""

    stage: int
    shard: int


Decision = (
    Begun | Takeover | Opened | Dispatched | Started | Charged | Committed | GaveUp | Cancelled | Replaced | Lost
)  # fmt: skip


class DecisionLog:
    """The file of one coordinator, and what is to be written to it next."""

    def __init__(self, path: Path) -> None:
        """Create the file. Raises `OSError`."""
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._waiting: list[tuple[Any, ...]] = []
        self._unwritten = b""

    def add(self, decision: Decision) -> None:
        """Keep a decision until `flush`."""
        # By its name and as a plain tuple: half the size and the time of a pickled class.
        self._waiting.append((type(decision).__name__, *decision))

    def flush(self) -> None:
        """Write what waits, in one piece. Raises `OSError`; what was not written is tried again with the next."""
        if self._waiting:
            data = pickle.dumps(self._waiting, pickle.HIGHEST_PROTOCOL)
            self._waiting = []
            self._unwritten += _HEAD.pack(len(data), zlib.crc32(data)) + data
        if self._unwritten:
            self._unwritten = self._unwritten[os.write(self._handle, self._unwritten) :]

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def read_decisions(path: Path) -> Iterator[Decision]:
    """Yield the decisions in a file, up to where its writer died."""
    data = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(body) < length or zlib.crc32(body) != check:
            return
        for name, *fields in pickle.loads(body):
            yield _KINDS[name](*fields)
        at += _HEAD.size + length


_KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in get_args(Decision)}


@dataclass
class RecoveredStage:
    """What is known of one stage of a job whose coordinator died."""

    opened: bool = False
    next_numbers: dict[int, int] = field(default_factory=dict)
    first_starts: dict[int, int] = field(default_factory=dict)
    committed: dict[int, Committed] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    replaced: list[Replaced] = field(default_factory=list)
    setbacks: dict[int, Setbacks] = field(default_factory=dict)


@dataclass
class Recovered:
    """A job whose coordinator died, as its decisions tell."""

    begun: Begun
    stages: dict[int, RecoveredStage] = field(default_factory=dict)
    takeovers: list[Takeover] = field(default_factory=list)
    failures: list[ShardFailure] = field(default_factory=list)
    retries: int | None = None
    """What is left of the budget of retries; `None` where nothing was taken from it."""
    outcome: JobOutcome = JobOutcome.SUCCESS
    reason: Reason = Reason.NONE
    """With `outcome`: what went wrong first."""
    cancelled: bool = False

    def stage(self, index: int) -> RecoveredStage:
        """Return what is known of a stage."""
        return self.stages.setdefault(index, RecoveredStage())

    def blame(self, outcome: JobOutcome, reason: Reason) -> None:
        """Keep the first thing that went wrong, which is what the job ends as."""
        if self.outcome is JobOutcome.SUCCESS:
            self.outcome, self.reason = outcome, reason

    def earlier(self) -> Earlier:
        """Return what a scheduler needs to know of it."""
        given_up = {index: sorted(stage.given_up) for index, stage in self.stages.items() if stage.given_up}
        setbacks = {index: stage.setbacks for index, stage in self.stages.items() if stage.setbacks}
        return Earlier(self.outcome, self.reason, self.cancelled, given_up, setbacks)


def recover(files: Iterable[Path]) -> Recovered | None:
    """Return the job that some files of decisions tell of, oldest first; `None` where none has begun."""
    job: Recovered | None = None
    for path in files:
        for decision in read_decisions(path):
            if isinstance(decision, Begun):
                job = Recovered(decision)
            elif job is not None:
                _replay(job, decision)
    return job


def _replay(job: Recovered, decision: Decision) -> None:
    match decision:
        case Takeover():
            job.takeovers.append(decision)
        case Opened(stage):
            job.stage(stage).opened = True
        case Dispatched(stage, shard, number):
            numbers = job.stage(stage).next_numbers
            # The number of an attempt that never started is given again.
            numbers[shard] = max(numbers.get(shard, 0), number + 1)
        case Charged(stage, shard, faults, losses, preemptions, retries):
            job.stage(stage).setbacks[shard] = Setbacks(faults, losses, preemptions)
            job.retries = retries
        case Started(stage, shard, start_ns):
            job.stage(stage).first_starts.setdefault(shard, start_ns)
        case Committed(stage, shard):
            job.stage(stage).committed[shard] = decision
        case GaveUp(stage, shard, failure, outcome):
            job.stage(stage).given_up.add(shard)
            job.failures.append(failure)
            job.blame(outcome, failure.reason)
        case Cancelled():
            job.cancelled = True
            job.blame(JobOutcome.CANCELLED, Reason.NONE)
        case Replaced(stage):
            job.stage(stage).replaced.append(decision)
        case Lost(stage, shard):
            job.stage(stage).committed.pop(shard, None)
