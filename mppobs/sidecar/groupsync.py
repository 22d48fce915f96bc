"""One `fsync` for many: whoever renames files into a directory waits for the next, and shares it."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class GroupSync:
    """
    Makes the names in a directory durable. Safe to call from any thread.

    While one call is syncing, others gather; one of them then syncs for all. Raises `OSError` where the directory
    cannot be opened or synced.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._is_syncing = False
        self._sync()

    def sync(self) -> None:
        """Return when all names that were there at the call are durable."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            while self._done < mine and self._is_syncing:
                self._changed.wait()
            if self._done >= mine:
                return
            self._is_syncing, upto = True, self._asked
        try:
            self._sync()
        except OSError:
            upto = 0  # nothing is durable: those who wait try for themselves
            raise
        finally:
            with self._changed:
                self._is_syncing, self._done = False, max(self._done, upto)
                self._changed.notify_all()

    def _sync(self) -> None:
        file = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
