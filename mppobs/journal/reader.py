"""
Journals as files: what there is in a directory, and what it says. Standard library only.

Every file may have been written by a stranger, or half written by a process that died. So files are opened
without following links, must be regular and of a possible size, and are read, never mapped: a file that is
cut short under a mapping kills who looks at it. What is no journal raises `JournalError`; what may be one but
cannot be read now (no permission, no descriptor left, a bad disk) raises the `OSError` of the moment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.format import HeadWord, SegmentWord, SlotWord
from mppobs.model import AttemptOutcome, Slot

MAX_HEAD_BYTES: Final = fmt.HEAD_BYTES + fmt.MAX_SLOTS * fmt.SLOT_BYTES
MIN_SEGMENT_BYTES: Final = (fmt.SEALER_RECORDS + 2) * fmt.RECORD_BYTES

_NOT_OURS: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR})
"""Errors of `open` that say that there is no such file of ours; others say that it cannot be read now."""

_NAME: Final = re.compile(r"([0-9a-f]{32})(?:\.(\d{6,9})\.segment|\.(journal|lock))", re.ASCII)
_HEAD: Final = struct.Struct("<26Q")
_SLOT: Final = struct.Struct("<8Q")


@dataclass(frozen=True, slots=True)
class JournalFiles:
    """The files of one journal, as a directory showed them."""

    journal: str
    """The journal's UUID: 32 hexadecimal digits."""
    directory: Path
    head: Path | None = None
    lock: Path | None = None
    segments: dict[int, Path] = field(default_factory=dict)

    @property
    def is_shipped(self) -> bool:
        """Return whether this is a copy that an agent sent: records alone, with no owner to ask after."""
        return self.head is None and self.lock is None


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a journal."""

    journal: str
    pid: int
    created_ns: int
    dropped: dict[AttemptOutcome, int]
    """Attempts that were not recorded, by outcome; only what is not 0."""
    dropped_other: int
    unslotted: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The header of a segment. Records are counted from 0, the place after the header."""

    journal: str
    index: int
    size: int
    """Bytes of the file when it was made."""
    created_ns: int

    @property
    def places(self) -> int:
        """Return how many records fit, the sealer's included."""
        return self.size // fmt.RECORD_BYTES - 1

    @property
    def owner_places(self) -> int:
        """Return how many records the owner may write; the sealer's places come after them."""
        return self.places - fmt.SEALER_RECORDS


def scan(directory: Path) -> list[JournalFiles]:
    """
    Return the journals of a directory, in the order of their names. A directory that is not there has none.

    A lock file alone is none yet: its owner is about to lock it, and nobody else must.
    """
    found: dict[str, JournalFiles] = {}
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return []
    parts: dict[str, tuple[dict[int, Path], dict[str, Path]]] = {}
    for name in sorted(names):
        if (match := _NAME.fullmatch(name)) is None:
            continue
        segments, others = parts.setdefault(match[1], ({}, {}))
        if match[3] is None:
            segments.setdefault(int(match[2]), directory / name)
        else:
            others[match[3]] = directory / name
    for journal, (segments, others) in parts.items():
        if not segments and "journal" not in others:
            continue
        ordered = dict(sorted(segments.items()))
        found[journal] = JournalFiles(journal, directory, others.get("journal"), others.get("lock"), ordered)
    return list(found.values())


@contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Open a file for plain reads; give its descriptor and size. Raises `JournalError` for what is no journal's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise JournalError(f"{path}: {error.strerror}") from error
        raise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise JournalError(f"{path}: not a regular file")
        if found.st_size > max_bytes:
            raise JournalError(f"{path}: {found.st_size} bytes are more than any journal has")
        yield file, found.st_size
    finally:
        os.close(file)


def read_head(path: Path) -> Head:
    """Return the header of a journal."""
    with opened(path, MAX_HEAD_BYTES) as (file, _):
        data = os.pread(file, _HEAD.size, 0)
    if len(data) < _HEAD.size:
        raise JournalError(f"{path}: too short for a head")
    words = _HEAD.unpack(data)
    if (words[HeadWord.MAGIC], words[HeadWord.VERSION]) != (fmt.HEAD_MAGIC, fmt.VERSION):
        raise JournalError(f"{path}: not the head of a journal of version {fmt.VERSION}")
    totals = zip(AttemptOutcome, words[HeadWord.DROPPED_ATTEMPTS + 1 :], strict=False)
    return Head(
        journal=_uuid(words[HeadWord.UUID_HIGH], words[HeadWord.UUID_LOW]),
        pid=words[HeadWord.PID],
        created_ns=words[HeadWord.CREATED_NS],
        dropped={outcome: total for outcome, total in totals if total},
        dropped_other=words[HeadWord.DROPPED_OTHER],
        unslotted=words[HeadWord.UNSLOTTED],
    )


def read_slots(path: Path) -> list[Slot]:
    """
    Return what runs, by the slots of a head file: those that add up and whose attempt is not known to have ended.

    Each slot is read as it is at some instant; a slot that was being taken or freed does not add up and is left out.
    """
    with opened(path, MAX_HEAD_BYTES) as (file, size):
        data = os.pread(file, size - fmt.HEAD_BYTES, fmt.HEAD_BYTES) if size > fmt.HEAD_BYTES else b""
    data = data[: len(data) // fmt.SLOT_BYTES * fmt.SLOT_BYTES]
    slots = []
    for index, words in enumerate(_SLOT.iter_unpack(data)):
        if words[0] and (slot := _slot(index, words)) is not None:
            slots.append(slot)
    return slots


def _slot(index: int, words: tuple[int, ...]) -> Slot | None:
    identity, shard, start = words[SlotWord.IDENTITY], words[SlotWord.SHARD], words[SlotWord.START]
    if words[SlotWord.CHECK] != identity ^ shard ^ start ^ fmt.SLOT_SALT or start == words[SlotWord.SETTLED_NS]:
        return None
    kind, progress = identity & 0xFF, words[SlotWord.PROGRESS]
    if kind not in (fmt.SLOT_ATTEMPT, fmt.SLOT_JOB):
        return None
    return Slot(
        index=index,
        context_id=identity >> 32 & 0x7FFFFFFF,
        start_ns=start,
        is_job=kind == fmt.SLOT_JOB,
        shard_key=shard >> 1 & (1 << 62) - 1 if kind == fmt.SLOT_ATTEMPT else 0,
        attempt=identity >> 16 & 0xFFFF,
        speculative=bool(identity >> 8 & 1),
        progress=min((progress - 1) / fmt.PROGRESS_ONE, 1.0) if progress else None,
        progressed_ns=words[SlotWord.PROGRESSED_NS],
        checkpoint_ns=words[SlotWord.CHECKPOINT_NS],
    )


def read_segment_header(path: Path) -> SegmentHeader:
    """Return the header of a segment, which its name must agree with."""
    with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, _):
        return parse_segment_header(os.pread(file, fmt.RECORD_BYTES, 0), path.name)


def parse_segment_header(data: bytes, name: str) -> SegmentHeader:
    """Return the header of a segment from its first bytes. Raises `JournalError` where the name disagrees."""
    if len(data) < fmt.RECORD_BYTES:
        raise JournalError(f"{name}: too short for a segment")
    words = fmt.RECORD.unpack_from(data)
    if (words[SegmentWord.MAGIC], words[SegmentWord.VERSION]) != (fmt.SEGMENT_MAGIC, fmt.VERSION):
        raise JournalError(f"{name}: not a segment of version {fmt.VERSION}")
    header = SegmentHeader(
        journal=_uuid(words[SegmentWord.UUID_HIGH], words[SegmentWord.UUID_LOW]),
        index=words[SegmentWord.INDEX],
        size=words[SegmentWord.BYTES],
        created_ns=words[SegmentWord.CREATED_NS],
    )
    match = _NAME.fullmatch(name)
    if match is None or match[2] is None or (match[1], int(match[2])) != (header.journal, header.index):
        raise JournalError(f"{name}: holds segment {header.index} of journal {header.journal}")
    if not MIN_SEGMENT_BYTES <= header.size <= fmt.MAX_SEGMENT_BYTES:
        raise JournalError(f"{name}: a segment does not have {header.size} bytes")
    return header


def read_records(path: Path, first: int, limit: int) -> bytes:
    """
    Return the complete records of a segment from number `first` on, `limit` at the most.

    They end before the first that is not complete. Records count from 0, after the segment's header. The
    records that a sealer added after an owner's death are a range of their own: see `SegmentHeader.owner_places`.
    """
    if first < 0 or limit <= 0:
        return b""
    with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, _):
        data = os.pread(file, limit * fmt.RECORD_BYTES, (first + 1) * fmt.RECORD_BYTES)
    data = data[: len(data) // fmt.RECORD_BYTES * fmt.RECORD_BYTES]
    words = memoryview(data).cast("Q").tolist()
    zero = words.index(0) if 0 in words else len(words)
    return data[: zero // fmt.RECORD_WORDS * fmt.RECORD_BYTES]


def owner_is_alive(files: JournalFiles) -> bool:
    """
    Return whether the process that writes this journal lives: the kernel keeps its lock until it has gone.

    A journal whose lock file was removed is judged by the process number in its head; one without either was
    shipped from elsewhere and has no owner here.
    """
    if files.lock is None:
        return files.head is not None and _process_exists(files.head)
    try:
        with opened(files.lock, MAX_HEAD_BYTES) as (file, _):
            return not try_lock(file)
    except JournalError:
        # The lock file went away since the directory was read, or is none: there is nobody to ask.
        return False


def try_lock(file: int) -> bool:
    """Return whether the lock was free; it is held from then on, until the descriptor is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process_exists(head: Path) -> bool:
    try:
        os.kill(read_head(head).pid, 0)
    except PermissionError:
        return True
    except (JournalError, OSError, OverflowError):
        return False
    return True


def _uuid(high: int, low: int) -> str:
    return f"{high:016x}{low:016x}"
