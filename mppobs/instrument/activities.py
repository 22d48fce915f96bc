"""Where an attempt's time goes: nested timers whose parts and `other` sum exactly to the attempt's wall time."""

from __future__ import annotations

import threading
from time import monotonic_ns
from types import TracebackType
from typing import Final, Self

OTHER: Final = "other"
"""What no activity covers."""
MAX_ACTIVITIES: Final = 32
"""How many names an attempt may use; the time of further ones counts as `other`."""


class Ledger:
    """
    The time of one attempt by activity. Time belongs to the innermost activity that is open; to `other` where none is.

    Safe to use from several threads or tasks of the attempt: time is charged once, whichever opened last.

    >>> ledger = Ledger(100)
    >>> ledger.enter("read", 110); ledger.enter("decode", 150); ledger.leave("decode", 170); ledger.leave("read", 200)
    >>> ledger.close(210)
    {'other': 20, 'read': 70, 'decode': 20}
    """

    __slots__ = ("_lock", "_mark", "_open", "_spent")

    def __init__(self, start_ns: int) -> None:
        self._lock = threading.RLock()  # re-entrant: a finaliser may close an activity of its own in the middle
        self._mark = start_ns
        self._open: list[str] = [OTHER]
        self._spent: dict[str, int] = {OTHER: 0}

    def enter(self, name: str, now_ns: int) -> None:
        """Open an activity; the one around it stands still."""
        with self._lock:
            if name not in self._spent:
                name = name if len(self._spent) < MAX_ACTIVITIES else OTHER
                self._spent.setdefault(name, 0)
            self._charge(now_ns)
            self._open.append(name)

    def leave(self, name: str, now_ns: int) -> None:
        """Close the innermost open activity of that name."""
        with self._lock:
            self._charge(now_ns)
            name = name if name in self._spent or len(self._spent) < MAX_ACTIVITIES else OTHER
            for place in range(len(self._open) - 1, 0, -1):
                if self._open[place] == name:
                    del self._open[place]
                    break

    def close(self, now_ns: int) -> dict[str, int]:
        """Return the nanoseconds of every activity; what is still open ends now."""
        with self._lock:
            self._charge(now_ns)
            return dict(self._spent)

    def _charge(self, now_ns: int) -> None:
        # Whoever read the clock before another thread did, and comes after it, charges nothing.
        if now_ns > self._mark:
            self._spent[self._open[-1]] += now_ns - self._mark
            self._mark = now_ns


class Activity:
    """A timer of one activity; see `Attempt.activity`. Use it with `with`, once or again."""

    __slots__ = ("_ledger", "_name")

    def __init__(self, ledger: Ledger | None, name: str) -> None:
        self._ledger = ledger
        self._name = name

    def __enter__(self) -> Self:
        if self._ledger is not None:
            self._ledger.enter(self._name, monotonic_ns())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ledger is not None:
            self._ledger.leave(self._name, monotonic_ns())
