"""
The end of a journal whose owner died: what was running becomes records, and END says that nothing will follow.

Whoever gets the owner's lock seals. The records go to the places that the owner left free for this at the end of
its last segment, so that a full disk does not hide a death; where those do not suffice, to new segments. What has
to be written is worked out from what is already there, so sealing may be interrupted anywhere and begun again.

How long a killed attempt ran is not known: it is recorded up to the last sign of life, which is the newest of its
progress and checkpoints, of any record of the process, and of the time at which the agent last saw the lock held.
So it is never more than the truth, and less by the time between two looks of the agent at most. File times are no
sign of life: a store to a mapped page does not move them, and copying does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import mppobs.journal.columns as col
from mppobs.clock import Clock
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import encode
from mppobs.journal.excerpt import opening_for
from mppobs.journal.format import Kind
from mppobs.journal.reader import (
    JournalFiles,
    SegmentHeader,
    opened,
    owner_is_alive,
    parse_segment_header,
    read_head,
    read_slots,
    try_lock,
)  # fmt: skip
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    DropRecord,
    EndRecord,
    JobEvent,
    JobRecord,
    Reason,
    Slot,
)  # fmt: skip

RECORDS_PER_SEGMENT: Final = 500
"""How many records a sealer puts into a segment of its own: few enough to fit with all the texts that they need."""

_TIMED: Final = (
    Kind.WORKER, Kind.JOB, Kind.PLAN, Kind.DISPATCH, Kind.COMMIT, Kind.SAMPLE, Kind.HEARTBEAT, Kind.DROP,
)  # fmt: skip
_OVER: Final = (fmt.JOB_EVENT_CODES[JobEvent.END], fmt.JOB_EVENT_CODES[JobEvent.ORPHANED])
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

SealRecord = AttemptRecord | JobRecord | DropRecord | EndRecord


class SealStatus(StrEnum):
    """What came of an attempt to seal."""

    ALIVE = "alive"
    """The owner lives, or somebody else is sealing."""
    SEALED = "sealed"
    """The journal ends in END, now or since earlier."""
    WAITING = "waiting"
    """There is no room on the disk for what must be said; nothing is lost, try again later."""


@dataclass(frozen=True, slots=True)
class SealReport:
    """What sealing found and did."""

    status: SealStatus
    attempts: int = 0
    """Attempts that were in flight, recorded by this call."""
    jobs: int = 0
    """Jobs that were orphaned, recorded by this call."""


@dataclass(slots=True)
class _Known:
    """What the journal says already, gathered segment by segment."""

    finished: set[tuple[int, int]] = field(default_factory=set)
    """Slot and start of attempts that have their record; only of those whose start is asked for."""
    jobs: dict[int, int] = field(default_factory=dict)
    """Context and time of the newest END or ORPHANED of each job."""
    newest_ns: int = 0
    dropped: list[int] | None = None
    """The totals of the newest DROP."""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Segment:
    """One segment, read whole."""

    path: Path
    header: SegmentHeader
    words: col.Words
    """The complete records of the owner."""
    sealed: col.Words
    """The complete records of a sealer."""
    next_place: int
    """Number of the first place that a sealer has not touched; `header.places` or more where none is left."""


def seal(
    files: JournalFiles,
    *,
    clock: Clock,
    oom_kills: Callable[[JournalFiles], int] | None = None,
    alive_ns: int = 0,
) -> SealReport:
    """
    End a journal if its owner is dead. Does nothing to one that is sealed or that its owner closed.

    `oom_kills` tells how many processes of the owner's cgroup the kernel has killed for want of memory since
    it was last seen alive, and `alive_ns` when that was; 0 for never. Raises `JournalError` where the files
    cannot be read or written.
    """
    try:
        with _owned(files) as owned:
            return _seal(files, clock, oom_kills, alive_ns) if owned else SealReport(SealStatus.ALIVE)
    except OSError as error:
        if error.errno in _NO_ROOM:
            return SealReport(SealStatus.WAITING)
        raise JournalError(f"{files.directory}/{files.journal}: cannot be sealed: {error.strerror}") from error


@contextmanager
def _owned(files: JournalFiles) -> Iterator[bool]:
    """Hold the journal's lock, if it can be had; a lock file that was removed is made again."""
    path = files.directory / fmt.lock_name(files.journal)
    if files.lock is None and owner_is_alive(files):
        yield False
        return
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = os.open(path, flags if files.lock else flags | os.O_CREAT, 0o660)
    except FileNotFoundError:
        yield False  # deleted since the directory was read
        return
    try:
        yield try_lock(file) and _is_file_at(file, path)
    finally:
        os.close(file)


def _is_file_at(file: int, path: Path) -> bool:
    """Return whether an open file is still the one of that name: the journal may be gone since."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _seal(
    files: JournalFiles, clock: Clock, oom_kills: Callable[[JournalFiles], int] | None, alive_ns: int
) -> SealReport:
    slots = _slots(files)
    known = _Known()
    last: _Segment | None = None
    starts = {slot.start_ns for slot in slots}
    # Backwards: the last segment tells at once whether there is anything to do.
    for path in reversed(files.segments.values()):
        segment = _read_segment(path)
        if segment is None:
            continue
        last = last or segment
        _learn(known, segment, starts)
        if known.ended:
            return SealReport(SealStatus.SEALED)
    now = clock.time_ns()
    alive_ns = min(max(alive_ns, known.newest_ns), now)
    killed = oom_kills is not None and oom_kills(files) > 0
    records = _missing(files, slots, known, alive_ns, now, Reason.OOM_KILLED if killed else Reason.WORKER_LOST)
    _write(files, last, records, now)
    attempts = sum(isinstance(record, AttemptRecord) for record in records)
    return SealReport(SealStatus.SEALED, attempts, sum(isinstance(record, JobRecord) for record in records))


def _slots(files: JournalFiles) -> list[Slot]:
    """Return what was running. A head that is damaged or gone tells of nothing."""
    try:
        return read_slots(files.head) if files.head else []
    except JournalError:
        return []


def _read_segment(path: Path) -> _Segment | None:
    """Return a segment, or `None` for one that is damaged so far that nothing in it counts."""
    try:
        with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, size):
            data = os.pread(file, size, 0)
        header = parse_segment_header(data, path.name)
    except JournalError:
        return None
    words = col.words_of(data)[1 : header.places + 1]
    owned, tail = words[: header.owner_places], words[header.owner_places :]
    touched = col.touched(tail)
    # A file that was cut short has no places at its end that could be relied upon.
    whole = len(words) == header.places
    return _Segment(
        path=path,
        header=header,
        words=owned[: col.complete_prefix(owned)],
        sealed=tail[col.complete(tail)],
        next_place=header.owner_places + touched if whole else header.places,
    )


def _learn(known: _Known, segment: _Segment, starts: set[int]) -> None:
    """Add what one segment says; segments come newest first."""
    known.newest_ns = max(known.newest_ns, *_times(segment.words))
    for words in (segment.sealed, segment.words):
        known.ended = known.ended or len(col.of_kind(words, Kind.END)) > 0
        attempts = col.of_kind(words, Kind.ATTEMPT)
        begun = col.value(attempts, 3)
        mine = attempts[col.is_in(begun, starts)]
        known.finished.update(zip(col.slot(mine).tolist(), col.value(mine, 3).tolist(), strict=True))
        jobs = col.of_kind(words, Kind.JOB)
        over = jobs[col.is_in(col.code(jobs), _OVER)]
        for context, time in zip(col.number(over).tolist(), col.value(over, 3).tolist(), strict=True):
            known.jobs[context] = max(time, known.jobs.get(context, 0))
        drops = col.of_kind(words, Kind.DROP)
        if known.dropped is None and len(drops):
            known.dropped = drops[-1, 4:].tolist()


def _times(words: col.Words) -> tuple[int, int]:
    """Return the newest time that any record tells, and the newest end of an attempt."""
    timed = col.value(col.of_kind(words, *_TIMED), 3)
    attempts = col.of_kind(words, Kind.ATTEMPT)
    ends = col.value(attempts, 3).astype(float) + col.value(attempts, 4).astype(float)
    newest = int(timed.max()) if len(timed) else 0
    if not len(ends):
        return newest, 0
    last = attempts[int(ends.argmax())]
    return newest, int(last[3]) + int(last[4]) - 2


def _missing(
    files: JournalFiles, slots: Sequence[Slot], known: _Known, alive_ns: int, now: int, reason: Reason
) -> list[SealRecord]:
    """Return the records that the journal lacks, in the order in which they are to be written."""
    records: list[SealRecord] = [
        _attempt(slot, max(alive_ns, _seen(slot, now)), reason)
        for slot in slots
        if not slot.is_job and (slot.index, slot.start_ns) not in known.finished
    ]
    records += [
        JobRecord(JobEvent.ORPHANED, slot.context_id, max(alive_ns, _seen(slot, now)), reason=reason)
        for slot in slots
        if slot.is_job and known.jobs.get(slot.context_id, -1) < slot.start_ns
    ]
    drop = _drop(files, now)
    if drop is not None and known.dropped != list(fmt.RECORD.unpack(encode(drop, _no_text)))[4:]:
        records.append(drop)
    return [*records, EndRecord(now, sealed=True)]


def _seen(slot: Slot, now: int) -> int:
    """Return the last sign of life that a slot tells of. What lies ahead of our clock is no sign."""
    return min(max(slot.start_ns, slot.progressed_ns, slot.checkpoint_ns), now)


def _attempt(slot: Slot, end_ns: int, reason: Reason) -> AttemptRecord:
    return AttemptRecord(
        context_id=slot.context_id,
        shard_key=slot.shard_key,
        attempt=slot.attempt,
        outcome=AttemptOutcome.ERROR,
        start_ns=slot.start_ns,
        duration_ns=max(0, end_ns - slot.start_ns),
        reason=reason,
        speculative=slot.speculative,
        slot=slot.index,
    )


def _drop(files: JournalFiles, now: int) -> DropRecord | None:
    if files.head is None:
        return None
    try:
        head = read_head(files.head)
    except JournalError:
        return None  # a damaged head: its totals are lost
    return DropRecord(now, head.dropped, head.dropped_other) if head.dropped or head.dropped_other else None


def _no_text(_text: str) -> int:
    """Give the number of the empty text: a sealer's records name no other."""
    return 0


def _write(files: JournalFiles, last: _Segment | None, records: Sequence[SealRecord], now: int) -> None:
    """Write the records in one go where the sealer's places suffice, else to segments of their own."""
    index = max(files.segments, default=-1) + 1
    # Of several segments only the newest is certain to be still before every reader.
    if last is not None and last.header.index == index - 1 and len(records) <= last.header.places - last.next_place:
        data = b"".join(encode(record, _no_text) for record in records)
        with _writable(last.path) as file:
            _write_all(file, data, (last.next_place + 1) * fmt.RECORD_BYTES)
        return
    for first in range(0, len(records), RECORDS_PER_SEGMENT):
        part = records[first : first + RECORDS_PER_SEGMENT]
        contexts = {getattr(record, "context_id", 0) for record in part}
        shards = {record.shard_key for record in part if isinstance(record, AttemptRecord)}
        opening = opening_for(last.words, contexts, shards) if last is not None else b""
        _write_segment(files, index, now, opening + b"".join(encode(record, _no_text) for record in part))
        index += 1


def _write_segment(files: JournalFiles, index: int, now: int, data: bytes) -> None:
    """Write a segment and bring it into view by renaming; an earlier sealer's unfinished one is overwritten."""
    size = len(data) + (1 + 1 + fmt.SEALER_RECORDS) * fmt.RECORD_BYTES
    uuid = int(files.journal, 16)
    high, low = uuid >> 64, uuid & (1 << 64) - 1
    header = fmt.RECORD.pack(fmt.SEGMENT_MAGIC, fmt.VERSION, high, low, index, size, now, 0, 0, 0, 0, 0)
    path = files.directory / fmt.segment_name(files.journal, index)
    hidden = path.with_name(f".{path.name}")
    try:
        with _writable(hidden, os.O_CREAT | os.O_TRUNC) as file:
            os.posix_fallocate(file, 0, size)
            _write_all(file, header + data, 0)
    except OSError:
        hidden.unlink(missing_ok=True)
        raise
    hidden.rename(path)


@contextmanager
def _writable(path: Path, flags: int = 0) -> Iterator[int]:
    file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o660)
    try:
        yield file
    finally:
        os.close(file)


def _write_all(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)
