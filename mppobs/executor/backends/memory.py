"""A limit of the memory that one attempt may take, enforced by the kernel on the worker's own process."""

from __future__ import annotations

import resource
from pathlib import Path
from types import TracebackType
from typing import Final

_PAGE: Final = resource.getpagesize()
_DATA_FIELD: Final = 5
"""Of `/proc/self/statm`: pages of data and stack, which is what `RLIMIT_DATA` is held against."""


class MemoryLimit:
    """
    A block that may allocate so many bytes on top of what the process holds at its start; 0 for no limit.

    What goes beyond raises `MemoryError` where it is asked for, so the task that asks for too much ends alone, with
    reason `memory`, and its worker goes on. It is the soft `RLIMIT_DATA`, which counts private memory that can be
    written, touched or not, and is lifted again at the end of the block. May be entered again and again, not nested.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    def __enter__(self) -> None:
        """Set the limit."""
        if self._limit:
            self._before = resource.getrlimit(resource.RLIMIT_DATA)
            held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[_DATA_FIELD]) * _PAGE
            resource.setrlimit(resource.RLIMIT_DATA, (held + self._limit, self._before[1]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lift it."""
        if self._limit:
            resource.setrlimit(resource.RLIMIT_DATA, self._before)
