"""
The head file of a journal as its owner holds it: lock, header, and the slots that show what runs now.

Every store is a single aligned word, made by assigning to a memory view of 64-bit words, so that a reader never sees
half of one. A slot's identity is stored last when it is taken and cleared first when it is freed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mppobs.journal import format as fmt
from mppobs.journal.format import HeadWord, SlotWord
from mppobs.journal.segments import create_mapped
from mppobs.model import AttemptOutcome

_OPEN_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """One slot: where it is, and when a holder last read its CPU time. Only who took it stores to it."""

    __slots__ = ("base", "cpu", "link", "read_at", "thread", "words")

    def __init__(self, words: memoryview, base: int, number: int) -> None:
        self.words = words
        """The words of its page."""
        self.base = base
        """Index of its first word in them."""
        self.link = fmt.link(0, number)
        """The link word of a first attempt that runs here; `| attempt` makes that of another."""
        self.thread = 0
        """The thread whose CPU time was read."""
        self.cpu = self.read_at = 0
        """What it was, and when, by the clock that measures."""


class Running(NamedTuple):
    """What an occupied slot says."""

    number: int
    identity: int
    shard_word: int
    start_ns: int


class Head:
    """
    A journal's lock and header. Made once; lives as long as the journal is open.

    The lock is taken before the head comes into view, so nobody takes a newborn journal for a dead one.
    """

    def __init__(self, directory: Path, uuid: int, created_ns: int, pid: int) -> None:
        name = f"{uuid:032x}"
        lock = directory / fmt.lock_name(name)
        self._lock = os.open(lock, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o660)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            start = fmt.RECORD.pack(
                fmt.HEAD_MAGIC, fmt.VERSION, uuid >> 64, uuid & (1 << 64) - 1, created_ns, pid, 0, 0, 0, 0, 0, 0
            )
            path = directory / fmt.head_name(name)
            size = fmt.HEAD_BYTES + fmt.SLOT_PAGE_BYTES
            self._map = create_mapped(path, size, fmt.HEAD_BYTES, start)
        except BaseException:
            lock.unlink(missing_ok=True)
            os.close(self._lock)
            raise
        self._words = memoryview(self._map).cast("Q")
        self.slots = SlotTable(path)

    def count(self, word: int, amount: int = 1) -> None:
        """Add to one of the header's running totals. The caller holds the writer's lock."""
        self._words[word] += amount

    def dropped(self) -> tuple[dict[AttemptOutcome, int], int]:
        """Return the attempts that were dropped, by outcome, and the other records."""
        first = HeadWord.DROPPED_ATTEMPTS
        attempts = {outcome: self._words[first + code] for outcome, code in fmt.ATTEMPT_CODES.items()}
        return {outcome: count for outcome, count in attempts.items() if count}, self._words[HeadWord.DROPPED_OTHER]

    def unslotted(self) -> int:
        """Return how many attempts ran without a slot because all were taken."""
        return int(self._words[HeadWord.UNSLOTTED])

    def release(self) -> None:
        """Unmap the head and let go of the lock. After a fork the parent still holds both."""
        self.slots.release()
        self._words.release()
        self._map.close()
        os.close(self._lock)


class SlotTable:
    """The slots of a journal. `free` is a stack that any thread may pop from and append to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._maps: list[mmap.mmap] = []
        self._pages: list[memoryview] = []
        self.free: list[Place] = []
        self._add_page()

    def grow(self) -> Place | None:
        """
        Add a page of slots and return one of them; `None` past `MAX_SLOTS` or where the page cannot be had.

        The caller holds the writer's lock.
        """
        try:
            if not self.free:
                self._add_page()
            return self.free.pop()
        except (OSError, IndexError):
            return None  # counted by the caller as an attempt without a slot

    def _add_page(self) -> None:
        first = len(self._pages) * fmt.SLOTS_PER_PAGE
        if first >= fmt.MAX_SLOTS:
            return
        words = self._map_page(fmt.HEAD_BYTES + len(self._pages) * fmt.SLOT_PAGE_BYTES)
        self._pages.append(words)
        places = [Place(words, i * fmt.SLOT_WORDS, first + i) for i in range(fmt.SLOTS_PER_PAGE)]
        self.free += reversed(places)

    def _map_page(self, offset: int) -> memoryview:
        descriptor = os.open(self._path, _OPEN_FLAGS)
        try:
            os.posix_fallocate(descriptor, offset, fmt.SLOT_PAGE_BYTES)
            self._maps.append(mmap.mmap(descriptor, fmt.SLOT_PAGE_BYTES, offset=offset))
        finally:
            os.close(descriptor)
        return memoryview(self._maps[-1]).cast("Q")

    def running(self) -> Iterator[Running]:
        """Yield what the occupied slots say."""
        for page, words in enumerate(self._pages):
            for i in range(fmt.SLOTS_PER_PAGE):
                base = i * fmt.SLOT_WORDS
                if words[base]:
                    number = page * fmt.SLOTS_PER_PAGE + i
                    yield Running(number, words[base], words[base + SlotWord.SHARD], words[base + SlotWord.START])

    def release(self) -> None:
        """Unmap every page. Whoever still holds a `Place` gets `ValueError` from it."""
        self.free.clear()
        for words in self._pages:
            words.release()
        for page in self._maps:
            page.close()


def occupy(place: Place, identity: int, shard_word: int, start_ns: int) -> None:
    """Show in a free slot what runs; the identity comes last, so that it never shows half of it."""
    words, base = place.words, place.base
    words[base + 1] = shard_word
    words[base + 2] = start_ns
    words[base + 3] = identity ^ shard_word ^ start_ns ^ fmt.SLOT_SALT
    words[base] = identity


def vacate(place: Place) -> None:
    """Show that nothing runs here any more, and forget what was reported. Giving it back to `free` is the caller's."""
    words, base = place.words, place.base
    words[base] = 0
    words[base + SlotWord.PROGRESS] = words[base + SlotWord.PROGRESSED_NS] = words[base + SlotWord.CHECKPOINT_NS] = 0
