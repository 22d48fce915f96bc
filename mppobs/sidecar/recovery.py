"""
From the store and the journals back to the state of the last commit, exactly.

Totals come from the store. What runs comes from the last checkpoint and from folding the rounds after it once more:
the same ranges, in the same order, at the same times. What that adds to the totals is thrown away by loading them
again, so a replay needs no mode of its own and cannot count twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mppobs.errors import JournalError
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.follow import Block
from mppobs.sidecar.store import Loaded, LoadedTotals, Range, Store

_log = logging.getLogger(__name__)


class RangeReader(Protocol):
    """Reads records that were read before. Raises `JournalError` or `OSError` where they are gone."""

    def __call__(self, journal: str, segment: int, first: int, count: int) -> Block:
        """Return exactly `count` records of a segment, from number `first`."""
        ...


@dataclass(frozen=True, slots=True)
class Recovered:
    """The state after the last commit."""

    fold: Fold
    loaded: Loaded
    unreadable: int
    """Records that were folded once and are gone. Totals have them; what runs now does not."""


class _Replay:
    """Reads ranges and counts those that are gone."""

    def __init__(self, read: RangeReader) -> None:
        self._read = read
        self.unreadable = 0

    def block(self, wanted: Range) -> Block | None:
        """Return a range as it was folded, or `None` where its file is gone or cut."""
        try:
            return self._read(*wanted)
        except (JournalError, OSError) as error:
            self.unreadable += wanted.count
            _log.error("%d records of journal %s are gone: %s", wanted.count, wanted.journal, error)
            return None


def recover(store: Store, make_fold: Callable[[], Fold], read: RangeReader) -> Recovered:
    """Return the state after the last commit. Raises `StoreError` where the store cannot be trusted."""
    loaded = store.load()
    fold = make_fold()
    _load_totals(fold, store.totals())
    replay = _Replay(read)
    if loaded.checkpoint is not None:
        fold.load_running(loaded.checkpoint.parts)
        for journal, cursor in loaded.checkpoint.cursors.items():
            if not cursor.ended and cursor.record:
                block = replay.block(Range(journal, cursor.segment, 0, cursor.record))
                if block is not None:
                    fold.prime(journal, block.words)
    for each in loaded.rounds:
        blocks = [block for block in map(replay.block, each.ranges) if block is not None]
        fold.round(blocks, each.time_ns)
    fold.take_decided()
    fold.take_dirty()
    _load_totals(fold, store.totals())
    return Recovered(fold, loaded, replay.unreadable)


def _load_totals(fold: Fold, totals: LoadedTotals) -> None:
    fold.load_totals(totals.pipelines, totals.stages, totals.clusters, totals.own)
