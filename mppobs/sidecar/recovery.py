"""
From the store and the journals back to the state of the last commit, exactly.

Totals come from the store. What runs comes from the last checkpoint and from folding the rounds after it once more:
the same ranges, in the same order, at the same times. What that adds to the totals is thrown away by loading them
again, so a replay needs no mode of its own and cannot count twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mppobs.errors import JournalError
from mppobs.journal.columns import Words
from mppobs.journal.format import RECORD_WORDS, segment_name
from mppobs.sidecar.blocks import Block, Cursor, read_new, read_range
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.store import Loaded, LoadedTotals, Range, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """The state after the last commit."""

    fold: Fold
    loaded: Loaded
    unreadable: int
    """Records that were folded once and are gone. Totals have them; what runs now does not."""


def recover(store: Store, make_fold: Callable[[], Fold], directories: Sequence[Path]) -> Recovered:
    """Return the state after the last commit. Raises `StoreError` where the store cannot be trusted."""
    loaded = store.load()
    fold = make_fold()
    _load_totals(fold, store.totals())
    past = _Past(directories)
    if loaded.checkpoint is not None:
        fold.load_running(loaded.checkpoint.parts)
        for journal, cursor in loaded.checkpoint.cursors.items():
            if not cursor.ended and cursor.record:
                fold.prime(journal, past.opening(journal, cursor))
    for each in loaded.rounds:
        blocks = [block for block in map(past.block, each.ranges) if block is not None]
        fold.round(blocks, each.time_ns)
    fold.take_decided()
    fold.take_dirty()
    fold.ledger.take()
    _load_totals(fold, store.totals())
    return Recovered(fold, loaded, past.unreadable)


class _Past:
    """Reads what was read before, and counts what is gone: a journal may lie on a disk that did not survive."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories
        self.unreadable = 0

    def block(self, wanted: Range) -> Block | None:
        """Return a range as it was folded, or `None` where its file is gone or cut."""
        try:
            return read_range(self._directories, *wanted)
        except (JournalError, OSError) as error:
            self._miss(wanted.journal, wanted.records, error)
            return None

    def opening(self, journal: str, cursor: Cursor) -> Words:
        """Return a segment's records up to a cursor: what they define, later records name."""
        name = segment_name(journal, cursor.segment)
        paths = [directory / name for directory in self._directories]
        path = next(filter(Path.exists, paths), paths[0])
        try:
            words = read_new(path, 0, cursor.record, live=True).words[: cursor.record]
        except (JournalError, OSError) as error:
            self._miss(journal, cursor.record, error)
            return np.zeros((0, RECORD_WORDS), np.uint64)
        return words

    def _miss(self, journal: str, count: int, error: Exception) -> None:
        self.unreadable += count
        _log.error("%d records of journal %s are gone: %s", count, journal, error)


def _load_totals(fold: Fold, totals: LoadedTotals) -> None:
    fold.load_totals(totals.pipelines, totals.stages, totals.clusters, totals.own)
