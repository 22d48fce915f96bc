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
from typing import Any, Final, NamedTuple

from mppobs.executor.plan import Plan
from mppobs.executor.result import ShardFailure, Takeover
from mppobs.executor.stages import Part
from mppobs.model import Context

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
    speculative: bool


class Started(NamedTuple):
    """The first attempt of a shard began."""

    stage: int
    shard: int
    start_ns: int


class Faulted(NamedTuple):
    """An attempt ended badly by its shard's doing: another one costs a retry."""

    stage: int
    shard: int


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


class Replaced(NamedTuple):
    """A shard is replaced by smaller ones."""

    stage: int
    shard: int
    parts: tuple[Part, ...]


class Lost(NamedTuple):
    """The output of a committed shard is damaged or gone."""

    stage: int
    shard: int


Decision = Begun | Takeover | Opened | Dispatched | Started | Faulted | Committed | GaveUp | Replaced | Lost


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


_KINDS: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (Begun, Takeover, Opened, Dispatched, Started, Faulted, Committed, GaveUp, Replaced, Lost)
}


@dataclass
class RecoveredStage:
    """What is known of one stage of a job whose coordinator died."""

    opened: bool = False
    next_numbers: dict[int, int] = field(default_factory=dict)
    first_starts: dict[int, int] = field(default_factory=dict)
    committed: dict[int, Committed] = field(default_factory=dict)
    replaced: list[Replaced] = field(default_factory=list)


@dataclass
class Recovered:
    """A job whose coordinator died, as its decisions tell."""

    begun: Begun
    stages: dict[int, RecoveredStage] = field(default_factory=dict)
    takeovers: list[Takeover] = field(default_factory=list)
    failures: list[ShardFailure] = field(default_factory=list)
    retries: int = 0
    """Retries and copies that were taken from the job's budget."""

    def stage(self, index: int) -> RecoveredStage:
        """Return what is known of a stage."""
        return self.stages.setdefault(index, RecoveredStage())


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
        case Dispatched(stage, shard, number, speculative):
            numbers = job.stage(stage).next_numbers
            # The number of an attempt that never started is given again.
            numbers[shard] = max(numbers.get(shard, 0), number + 1)
            job.retries += speculative
        case Faulted():
            job.retries += 1
        case Started(stage, shard, start_ns):
            job.stage(stage).first_starts.setdefault(shard, start_ns)
        case Committed(stage, shard):
            job.stage(stage).committed[shard] = decision
        case GaveUp(_, _, failure):
            job.failures.append(failure)
        case Replaced(stage):
            job.stage(stage).replaced.append(decision)
        case Lost(stage, shard):
            job.stage(stage).committed.pop(shard, None)
