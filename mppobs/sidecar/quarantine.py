"""
When a round fails for no reason that is known: which journal is to blame, and leaving that one alone.

The fold counts nonsense and raises for none of it. Should there be a record that it stumbles over all the same, one
journal must not keep all others from being counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mppobs.clock import Clock
from mppobs.sidecar.follow import Block

PAUSE_SECONDS: Final = 600.0
"""How long a journal that makes rounds fail is left alone before it is tried again."""
_NARROWER: Final = 8
_WIDER: Final = 2


class Quarantine:
    """
    Narrows rounds until one that fails reads a single journal, and names that one.

    Nothing of it is lost: it is read on from where it was when its pause is over.
    """

    def __init__(self, normal_bytes: int, clock: Clock) -> None:
        self._normal = self._limit = normal_bytes
        self._clock = clock
        self._until: dict[str, int] = {}

    @property
    def limit_bytes(self) -> int:
        """Return how much a round may read now."""
        return self._limit

    def passed(self) -> None:
        """Note a round that went well: the next may read more, up to the usual."""
        self._limit = min(self._normal, self._limit * _WIDER)

    def failed(self, blocks: Sequence[Block]) -> str | None:
        """Note a round that failed. Return the journal to blame, `None` where it may be one of several."""
        journals = {block.journal for block in blocks}
        if len(journals) != 1:
            self._limit = max(1, self._limit // _NARROWER)
            return None
        journal = journals.pop()
        self._until[journal] = self._clock.monotonic_ns() + round(PAUSE_SECONDS * 1e9)
        return journal

    def paused(self) -> dict[str, int]:
        """Return the journals to leave alone, and for how many nanoseconds more."""
        now = self._clock.monotonic_ns()
        self._until = {journal: until for journal, until in self._until.items() if until > now}
        return {journal: until - now for journal, until in self._until.items()}
