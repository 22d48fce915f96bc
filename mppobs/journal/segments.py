"""The chain of segment files of one journal: how the owner allocates the next one, within its budget."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Final

from mppobs.journal import format as fmt

_FILE_MODE: Final = 0o660
"""Before the umask. The agent may run as another user of the same group."""
_GROWTH: Final = 4
PAD: Final = fmt.RECORD.pack(fmt.head_word(fmt.Kind.PAD), *(1,) * (fmt.RECORD_WORDS - 1))
"""What fills the places of a segment that is left before its end."""


def places(size: int) -> int:
    """
    Return how many records the owner may write into a segment of `size` bytes.

    Its header takes one place, and the last `SEALER_RECORDS` are left for whoever seals the journal.

    >>> places(fmt.FIRST_SEGMENT_BYTES)
    617
    """
    return size // fmt.RECORD_BYTES - 1 - fmt.SEALER_RECORDS


def refuse(data: bytes) -> int:
    """Stand in for `mmap.write` where there is no segment: the slow path decides what becomes of the data."""
    raise ValueError("the journal has no segment")


class SegmentChain:
    """
    Allocates the segments of a journal, each four times the one before, from 64 KiB up to 4 MiB.

    Not thread-safe: the writer calls it under its lock.
    """

    def __init__(self, directory: Path, uuid: int, budget_bytes: int) -> None:
        self._directory = directory
        self._uuid = uuid
        self._budget = budget_bytes
        self._index = 0
        self._size = fmt.FIRST_SEGMENT_BYTES
        self._held: list[tuple[Path, int]] = []

    def extend(self, created_ns: int, opening: bytes) -> mmap.mmap:
        """
        Return the mapping of a new segment that begins with the records `opening`, positioned after them.

        Raises `OSError` where there is no room: the disk is full, the budget is used up, the directory is gone.
        """
        wanted = self._size
        while places(wanted) * fmt.RECORD_BYTES < 2 * len(opening) and wanted < fmt.MAX_SEGMENT_BYTES:
            wanted *= _GROWTH
        smallest = fmt.FIRST_SEGMENT_BYTES
        while places(smallest) * fmt.RECORD_BYTES < 2 * len(opening) and smallest < wanted:
            smallest *= _GROWTH
        try:
            segment = self._allocate(wanted, created_ns, opening)
        except OSError:
            if smallest == wanted:
                raise
            segment = self._allocate(smallest, created_ns, opening)
        self._size = min(wanted * _GROWTH, fmt.MAX_SEGMENT_BYTES)
        return segment

    def _allocate(self, size: int, created_ns: int, opening: bytes) -> mmap.mmap:
        self._held = [(path, held) for path, held in self._held if path.exists()]
        if sum(held for _, held in self._held) + size > self._budget:
            raise OSError(errno.ENOSPC, "the journal's budget is used up")
        path = self._directory / fmt.segment_name(f"{self._uuid:032x}", self._index)
        header = fmt.RECORD.pack(
            fmt.SEGMENT_MAGIC, fmt.VERSION, self._uuid >> 64, self._uuid & (1 << 64) - 1, self._index, size, created_ns,
            0, 0, 0, 0, 0,
        )  # fmt: skip
        length = (1 + places(size)) * fmt.RECORD_BYTES
        segment = create_mapped(path, size, length, header + opening)
        self._index += 1
        self._held.append((path, size))
        return segment


def create_mapped(path: Path, size: int, length: int, start: bytes) -> mmap.mmap:
    """
    Create a file of `size` bytes with its blocks allocated, and map its first `length` bytes, positioned after `start`.

    The file comes into view, by renaming, when all of this is done. Allocation comes before mapping since a store
    to a hole on a full disk is SIGBUS. Raises `OSError` and leaves nothing behind where that is not possible.
    """
    hidden = path.with_name(f".{path.name}")
    descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, size)
        mapped = mmap.mmap(descriptor, length)
        mapped.write(start)
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return mapped
