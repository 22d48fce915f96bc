"""
Whether a process died because the kernel ran out of memory for it: its cgroup counts that.

The count is of the whole cgroup, so a kill explains one death, and only for a while: one of a process that
keeps no journal must not be laid at the door of a worker that dies much later.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mppobs.clock import Clock
from mppobs.errors import JournalError
from mppobs.journal.reader import JournalFiles, read_head

KEPT_NS: Final = 10_000_000_000
"""A kill explains a death for 10 to 20 seconds: a large process takes seconds to go."""

_CONTROLLERS: Final = re.compile(r"^(?:0:|\d+:(?:[\w,]*,)?memory(?:,[\w,]*)?):(/.*)$", re.MULTILINE)


@dataclass(slots=True)
class _Count:
    """The kills of one cgroup that are accounted for, as of some time ago and as of a while before that."""

    before: int
    since: int
    since_ns: int


class OomWatch:
    """Remembers the cgroup of every live owner, and how many kills it had. Finding none of this is no error."""

    def __init__(self, clock: Clock, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._clock = clock
        self._proc = proc
        self._cgroups = cgroups
        self._files: dict[str, Path | None] = {}
        self._counts: dict[Path, _Count] = {}

    def watch(self, files: JournalFiles) -> None:
        """Note the cgroup of a journal's owner, which is alive."""
        if files.journal not in self._files:
            self._files[files.journal] = self._find(files)
        path = self._files[files.journal]
        now = self._clock.monotonic_ns()
        if path is None:
            return
        count = self._counts.get(path)
        if count is None:
            kills = self._read(path)
            self._counts[path] = _Count(kills, kills, now)
        elif now - count.since_ns >= KEPT_NS:
            count.before, count.since, count.since_ns = max(count.before, count.since), self._read(path), now

    def kills(self, files: JournalFiles) -> int:
        """Return how many kills of a dead owner's cgroup no other death explains yet, and take one of them."""
        path = self._files.get(files.journal)
        count = self._counts.get(path) if path is not None else None
        if path is None or count is None:
            return 0
        kills = max(0, self._read(path) - count.before)
        count.before += kills > 0
        return kills

    def forget(self, journal: str) -> None:
        """Forget a journal that is gone."""
        path = self._files.pop(journal, None)
        if path is not None and path not in self._files.values():
            self._counts.pop(path, None)

    def _find(self, files: JournalFiles) -> Path | None:
        """Return the file in which the owner's cgroup counts kills, or `None` where that cannot be told."""
        if files.head is None or files.lock is None:
            return None
        try:
            process = self._proc / str(read_head(files.head).pid)
            if not _holds(process, files.lock):
                return None  # the number is of another namespace's process
            groups = (process / "cgroup").read_text(encoding="utf-8")
        except (JournalError, OSError, UnicodeDecodeError):
            return None  # another user's process, or gone already: deaths are then `worker_lost`
        for path in _CONTROLLERS.findall(groups):
            for name in (f".{path}/memory.events", f"memory{path}/memory.oom_control"):
                if (file := self._cgroups / name).is_file():
                    return file
        return None

    def _read(self, path: Path) -> int:
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            return 0  # the cgroup went with its last process
        return int(found[1]) if found else 0


def _holds(process: Path, lock: Path) -> bool:
    """Return whether a process has a journal's lock file open."""
    wanted = lock.stat()
    for link in (process / "fd").iterdir():
        try:
            if os.path.samestat(link.stat(), wanted):
                return True
        except OSError:
            continue  # closed since it was listed
    return False
