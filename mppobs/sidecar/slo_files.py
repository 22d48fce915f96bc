"""
The files of SLOs, and when they change. A change that does not parse is refused whole: the SLOs before stay in force.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mppobs.errors import ConfigError
from mppobs.slo.model import Slo
from mppobs.slo.spec import load_slos

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int] | None, ...]
"""Modification time and size of each file; `None` for one that is not there."""


class SloFiles:
    """
    SLOs from some files, which may change at any time.

    Raises ConfigError where the files cannot be understood at the start: there is nothing to keep then.
    """

    def __init__(self, paths: Sequence[Path] = (), *, most: int = 1000) -> None:
        self._paths = tuple(paths)
        self._most = most
        self._stamp = self._look()
        self.slos = self._load()
        self.errors = 0
        """Changes that were refused."""
        self.problem = ""
        """Why the newest change was refused; empty where it was not."""

    @property
    def status(self) -> str:
        """Return in words what is in force, and whether it is what the files say; nothing of what is in them."""
        refused = "; the newest change of their files is refused, and the log says why" if self.problem else ""
        return f"{len(self.slos)} SLOs{refused}"

    def changed(self) -> bool:
        """Return whether there are other SLOs now. Costs one `stat` per file where nothing changed."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            slos = self._load()
        except ConfigError as error:
            self.errors += 1
            self.problem = str(error)
            _log.error("SLOs were changed and are refused, those before stay in force:\n%s", error)
            return False
        self.problem = ""
        before, self.slos = self.slos, slos
        return slos != before

    def _look(self) -> _Stamp:
        return tuple(map(_stamp, self._paths))

    def _load(self) -> tuple[Slo, ...]:
        """Return the SLOs of all files. Names are unique over them, and there are not too many."""
        found = load_slos(self._paths)
        if len(found) > self._most:
            raise ConfigError(f"{len(found):,} SLOs are more than the {self._most:,} that max_slos allows")
        return tuple(found)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # a file that is not there is seen as such; loading it says so
    return found.st_mtime_ns, found.st_size
