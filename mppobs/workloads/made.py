"""What workloads keep on disk: data that is made once, complete where it is there at all, and what jobs leave."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mppobs.errors import ConfigError

_KEPT_SECONDS: Final = 24 * 3600.0
"""How long what a job left stays, should somebody look at it or go on with it."""


def make_once(final: Path, make: Callable[[Path], None]) -> Path:
    """
    Return a directory that `make` fills, making it unless it is there.

    `make` is given a directory that is there and empty, beside the place that it is then renamed to. Two processes
    may ask at once: the first rename wins, and both get the same complete directory. Raises `ConfigError` where there
    is no room for it.
    """
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{final.name}-", dir=final.parent) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            make(made)
            _put(made, final)
    except OSError as error:
        raise ConfigError(f"{final.parent} cannot hold the data: {error.strerror or error}") from error
    return final


def _put(made: Path, final: Path) -> None:
    """Give a directory its place, unless another process was faster: its data is the same."""
    try:
        made.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def sweep(home: Path) -> None:
    """Remove what jobs left in a directory that nobody has touched for a day."""
    for path in home.iterdir() if home.is_dir() else ():
        try:
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # its owner, or another sweep, was faster
            continue
