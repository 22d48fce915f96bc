"""A queue of actions that take turns, whichever thread or interruption they come from."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_log = logging.getLogger("mppobs")


class Turns:
    """
    Runs actions one at a time, under a lock that its owner may take for more.

    An action that comes while another runs in the same thread (from a signal handler or a finaliser that interrupts it)
    waits for its end instead of finding half-changed state or a deadlock. No action's failure reaches the caller.

    >>> turns, said = Turns(), []
    >>> def outer() -> None:
    ...     turns.take(lambda: said.append("inner"))
    ...     said.append("outer")
    >>> turns.take(outer)
    >>> said
    ['outer', 'inner']
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.errors = 0
        """Actions that failed: defects of this package, which must not become the user's."""
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False

    def take(self, action: Callable[[], None]) -> None:
        """Run an action after those that wait, at once unless it interrupts another."""
        with self.lock:
            self._waiting.append(action)
            if self._busy:
                return
            self._busy = True
            try:
                while self._waiting:
                    self._run(self._waiting.popleft())
            finally:
                self._busy = False

    def _run(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self.errors += 1
            if self.errors == 1:
                _log.warning("mppobs could not record something; further ones are only counted", exc_info=True)
