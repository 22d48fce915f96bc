"""Data that is made once and kept: it is complete where it is there at all, however its making ended."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path


def make_once(final: Path, make: Callable[[Path], None]) -> Path:
    """
    Return a directory that `make` fills, making it unless it is there.

    `make` is given a directory that is there and empty, beside the place that it is then renamed to. Two processes
    may ask at once: the first rename wins, and both get the same complete directory.
    """
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{final.name}-", dir=final.parent) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        make(made)
        try:
            made.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was first, and its data is the same
                raise
    return final
