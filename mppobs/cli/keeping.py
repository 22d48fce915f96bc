"""Keeping the raw records of a demo, although the sidecar deletes journals once they are durable elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mppobs.errors import ConfigError

_LOOK_SECONDS: Final = 0.25
"""Far below the minute or so between two checkpoints of the sidecar, which deletes nothing before one."""
_PATTERNS: Final = ("*.journal", "*.segment")


class Keeper:
    """
    A thread that gives every file of every journal a second name in `directory`, which a deletion leaves alone.

    Use it as a context manager. All directories must be on one file system.
    """

    def __init__(self, sources: Sequence[Path], directory: Path) -> None:
        self._sources = sources
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="mppobs-demo-keeper", daemon=True)

    def __enter__(self) -> Self:
        """Start to look for files. Raises `ConfigError` where something is there that a demo would mix with."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if any(self._directory.iterdir()):
            raise ConfigError(f"{self._directory} is not empty: what is kept must be of one demo")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look once more and stop."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        for source in self._sources:
            # Unlike Path.rglob, it does not mind a directory that is gone since its parent was listed.
            for directory, _, names in os.walk(source):
                for name in (name for name in names if any(fnmatch(name, pattern) for pattern in _PATTERNS)):
                    # There already, or gone since the listing, in which case it was linked at an earlier look.
                    with suppress(FileExistsError, FileNotFoundError):
                        os.link(os.path.join(directory, name), self._directory / name)
