"""How much a spool holds: looked up on the disk now and then, since the follower deletes there, and counted between."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Final

from mppobs.clock import Clock
from mppobs.sidecar.removal import DONE_SUFFIX

LOOK_NS: Final = 2_000_000_000
MARK_SECONDS: Final = 7 * 86400
"""How long it stays known that a journal was received whole: far longer than an agent repeats a request."""
HIDDEN_SECONDS: Final = 3600
"""After which a file that never came into view is a crash's leftover."""

_SEGMENT: Final = re.compile(r"([0-9a-f]{32})\.\d+\.segment", re.ASCII)


class SpoolUsage:
    """The bytes and journals of a spool. Safe to use from any thread."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._journals: set[str] = set()
        self._bytes = 0
        self._looked_ns = 0
        with self._lock:
            self._look()

    @property
    def used(self) -> int:
        """Return the bytes on the disk."""
        with self._lock:
            self._refresh()
            return self._bytes

    @property
    def journals(self) -> int:
        """Return how many journals there are."""
        with self._lock:
            self._refresh()
            return len(self._journals)

    def has_journal(self, journal: str) -> bool:
        """Return whether a journal has segments here."""
        with self._lock:
            return journal in self._journals

    def add_bytes(self, count: int) -> None:
        """Count what was written since the last look."""
        with self._lock:
            self._bytes += count

    def add_journal(self, journal: str) -> None:
        """Count a journal that is new."""
        with self._lock:
            self._journals.add(journal)

    def _refresh(self) -> None:
        if self._clock.monotonic_ns() - self._looked_ns >= LOOK_NS:
            self._look()

    def _look(self) -> None:
        """Count what there is, and remove what nobody needs any more."""
        journals: set[str] = set()
        total = 0
        now = self._clock.time_ns() / 1e9
        for entry in os.scandir(self._directory):
            try:
                found = entry.stat(follow_symlinks=False)
                if match := _SEGMENT.fullmatch(entry.name):
                    journals.add(match[1])
                    total += found.st_blocks * 512
                elif _is_leftover(entry.name, now - found.st_mtime):
                    os.unlink(entry.path)
            except FileNotFoundError:
                continue  # deleted since it was listed
        self._journals, self._bytes, self._looked_ns = journals, total, self._clock.monotonic_ns()


def _is_leftover(name: str, age: float) -> bool:
    if name.endswith(DONE_SUFFIX):
        return age > MARK_SECONDS
    return name.startswith(".") and name.endswith(".segment") and age > HIDDEN_SECONDS
