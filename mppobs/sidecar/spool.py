"""
Where an aggregator keeps what agents ship: a directory of segments that grow from their start, as the agent sends them.

An answer of `ok` means that the bytes are on the disk. Bytes once received are never overwritten, so a request may
come twice or late. A segment has no holes but one: where a dead owner's records end, the agent goes on at the places
of the sealer, and nothing is sent for what lies between.

Whatever comes from the network, files are written in the spool's directory only, under names made from a checked
UUID and index, and no further than the header of the segment says.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mppobs.clock import Clock, SystemClock
from mppobs.errors import ConfigError, JournalError
from mppobs.journal import format as fmt
from mppobs.journal.reader import SegmentHeader, parse_segment_header
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.groupsync import GroupSync
from mppobs.sidecar.removal import done_below
from mppobs.sidecar.schemas import LiveReport
from mppobs.sidecar.spool_live import LiveReports
from mppobs.sidecar.spool_usage import SpoolUsage

MAX_SEGMENT_INDEX: Final = 10**9 - 1

_JOURNAL: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LOCKS: Final = 64
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How much a spool takes."""

    spool_bytes: int = 4 * 2**30
    """Disk space of all segments together."""
    journals: int = 20_000


@dataclass(frozen=True, slots=True)
class SpoolReply:
    """What became of bytes that were sent."""

    status: Literal["ok", "conflict", "invalid", "too_large", "full", "refused"]
    """
    `conflict`: the bytes do not begin where the segment ends; `invalid`: they are no segment's; `too_large`: they
    pass its end; `full`: no room now; `refused`: too many journals. Nothing was written but with `ok`.
    """
    size: int
    """How many bytes of the segment are durable; from there the agent goes on."""


@dataclass(slots=True)
class SpoolFigures:
    """What a spool counts of itself."""

    received_bytes: int = 0
    """Bytes made durable; repeats do not count."""
    repeated_bytes: int = 0


class Spool:
    """
    Takes segments from agents. Safe to call from any thread; calls for different journals run side by side.

    Raises `ConfigError` where the directory cannot be made.
    """

    def __init__(self, directory: Path, limits: SpoolLimits, *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._names = GroupSync(directory)
            self._usage = SpoolUsage(directory, clock)
        except OSError as error:
            raise ConfigError(f"{directory} cannot hold what agents ship: {error}") from error
        self.figures = SpoolFigures()
        self.live = LiveReports(clock, limits.journals)
        self._directory = directory
        self._limits = limits
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._counting = threading.Lock()

    def append(self, journal: str, segment: int, offset: int, data: bytes) -> SpoolReply:
        """
        Make bytes durable at an offset of a segment, and answer how far it is durable.

        Raises `OSError` where the disk fails otherwise than for want of room.
        """
        if _JOURNAL.fullmatch(journal) is None or not 0 <= segment <= MAX_SEGMENT_INDEX:
            return SpoolReply("invalid", 0)
        if offset < 0 or offset % fmt.WORD or len(data) % fmt.WORD:
            return SpoolReply("invalid", 0)
        path = self._directory / fmt.segment_name(journal, segment)
        with self._locks[int(journal, 16) % _LOCKS]:
            try:
                if not path.exists():
                    return self._begin(path, journal, segment, offset, data)
                with _opened(path) as file:
                    return self._extend(file, path, offset, data)
            except JournalError:
                return SpoolReply("invalid", 0)
            except FileNotFoundError:
                return SpoolReply("conflict", 0)  # deleted this very moment: the agent asks again
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return SpoolReply("full", 0)
                raise

    def report(self, report: LiveReport) -> None:
        """Replace what an agent said runs below it."""
        self.live.report(report)

    def running(self) -> list[LiveJournal]:
        """Return what agents say runs."""
        return self.live.journals()

    def _begin(self, path: Path, journal: str, segment: int, offset: int, data: bytes) -> SpoolReply:
        """Take the first bytes of a segment, which comes into view when they are durable."""
        if segment < done_below(self._directory, journal):
            return SpoolReply("ok", offset + len(data))  # received, folded and deleted
        if offset or not data:
            return SpoolReply("conflict", 0)
        if len(data) > parse_segment_header(data, path.name).size:
            return SpoolReply("too_large", 0)
        if not self._usage.has_journal(journal) and self._usage.journals >= self._limits.journals:
            return SpoolReply("refused", 0)
        hidden = path.with_name(f".{path.name}")
        with _opened(hidden, os.O_CREAT | os.O_TRUNC) as file:
            if not self._write(file, data, 0):
                hidden.unlink(missing_ok=True)
                return SpoolReply("full", 0)
        hidden.rename(path)
        self._names.sync()
        self._usage.add_journal(journal)
        return SpoolReply("ok", len(data))

    def _extend(self, file: int, path: Path, offset: int, data: bytes) -> SpoolReply:
        """Take more bytes of a segment."""
        size = os.fstat(file).st_size
        size -= size % fmt.WORD  # a crash may have left part of a word, which nobody was told of
        header = parse_segment_header(os.pread(file, fmt.RECORD_BYTES, 0), path.name)
        if offset > size and not (data and _is_sealers(header, offset)):
            return SpoolReply("conflict", size)
        new = data[max(0, size - offset) :]
        start = max(size, offset)
        with self._counting:
            self.figures.repeated_bytes += len(data) - len(new)
        if not new:
            return SpoolReply("ok", size)
        if start + len(new) > header.size:
            return SpoolReply("too_large", size)
        if not self._write(file, new, start):
            os.ftruncate(file, size)
            return SpoolReply("full", size)
        return SpoolReply("ok", start + len(new))

    def _write(self, file: int, data: bytes, offset: int) -> bool:
        """Make bytes durable. Returns whether there was room for them."""
        if self._usage.used + len(data) > self._limits.spool_bytes:
            return False
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(file, memoryview(data)[written:], offset + written)
            os.fdatasync(file)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise
        self._usage.add_bytes(len(data))
        with self._counting:
            self.figures.received_bytes += len(data)
        return True


def _is_sealers(header: SegmentHeader, offset: int) -> bool:
    """Return whether a record of the sealer may begin at an offset."""
    return offset % fmt.RECORD_BYTES == 0 and offset // fmt.RECORD_BYTES - 1 >= header.owner_places


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)
