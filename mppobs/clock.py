"""Clocks as values, so that whatever waits or stamps can be tested in simulated time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a part that needs the time is given: wall time to stamp, monotonic time to measure."""

    def time_ns(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds of a clock that never steps; only differences mean something."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def time_ns(self) -> int:
        """Return the wall clock in nanoseconds."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return the monotonic clock in nanoseconds."""
        return time.monotonic_ns()


class ManualClock:
    """
    A clock that stands still until it is moved. For tests and simulations.

    Wall and monotonic time move together.

    >>> clock = ManualClock(1_000)
    >>> clock.advance(seconds=2)
    >>> clock.time_ns()
    2000001000
    """

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now = start_ns

    def time_ns(self) -> int:
        """Return the simulated wall clock in nanoseconds."""
        return self._now

    def monotonic_ns(self) -> int:
        """Return the simulated monotonic clock in nanoseconds."""
        return self._now

    def advance(self, seconds: float = 0.0, *, nanoseconds: int = 0) -> None:
        """Move time forward; it never goes back."""
        step = round(seconds * 1e9) + nanoseconds
        if step < 0:
            raise ValueError(f"a clock does not go back: {seconds} s")
        self._now += step
