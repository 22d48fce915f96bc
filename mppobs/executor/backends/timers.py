"""What a backend is to do later, in the thread that polls it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

_NEVER = 3600.0


class Timers:
    """Calls to be made at a time of the monotonic clock; those of the same time in the order in which they were set."""

    def __init__(self) -> None:
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something called after so many seconds."""
        self._serial += 1
        heapq.heappush(self._calls, (time.monotonic_ns() + int(seconds * 1e9), self._serial, call))

    def run(self) -> float:
        """Make the calls that are due; return in how many seconds to come again."""
        calls = self._calls
        if not calls:
            return _NEVER
        now = time.monotonic_ns()
        while calls and calls[0][0] <= now:
            heapq.heappop(calls)[2]()
        return max((calls[0][0] - now) / 1e9, 0.0) if calls else _NEVER
