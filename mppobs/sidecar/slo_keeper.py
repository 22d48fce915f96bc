"""Keeps the book of SLOs in step with the store: back to the last commit, new files, a minute that has passed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from mppobs.sidecar.fold import Fold
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.live import LiveSettings, live_view
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_minutes import MINUTE_NS
from mppobs.sidecar.store import Store
from mppobs.sidecar.store_jobs import JobSummary
from mppobs.sidecar.store_schema import StoreFull
from mppobs.sidecar.store_slos import SloRows

_log = logging.getLogger(__name__)

THIN_PARTS: Final = 60
"""Histories are thinned in so many parts, one a minute, so that no round waits for all of them."""


class SloKeeper:
    """The book of SLOs and the store that makes it durable. The engine calls it under its lock."""

    def __init__(self, store: Store, book: SloBook) -> None:
        self.book = book
        self._store = store
        self._thinned = 0

    def recover(self, fold: Fold, now_ns: int) -> None:
        """Go back to the last commit, and take up SLOs that are new. Raises `StoreError` where the store is damaged."""
        rows = self.book.load(self._store.slos(), now_ns, fold.pipelines, self._store.last_success)
        fold.ledger.delays_of = self.book.delays_of
        try:
            self._write(rows)
        except StoreFull as error:
            # They are not shown yet, and go with the next round that finds room.
            _log.warning("new SLOs have to wait: %s", error)

    def round(self, fold: Fold, jobs: Sequence[JobSummary], now_ns: int) -> SloRows:
        """Judge what a round decided. The rows go into its commit; `committed` says that they did."""
        return self.book.round(jobs, fold.ledger.take(), now_ns)

    def committed(self) -> None:
        """Say that the round is durable."""
        self.book.committed()

    def tend(self, fold: Fold, live: Sequence[LiveJournal], now_ns: int) -> None:
        """Take up files that changed, and judge the minute that passed. Raises `StoreFull`: then recover."""
        self._write(self.book.reload(now_ns, fold.pipelines, self._store.last_success))
        fold.ledger.delays_of = self.book.delays_of
        if self.book.minute_due(now_ns):
            pipelines = live_view(fold, live, now_ns, LiveSettings()).pipelines if self.book.wants_lags else {}
            lags = {key: pipeline.checkpoint_lag for key, pipeline in pipelines.items()}
            self._write(self.book.minute(now_ns, fold.pipelines, lags))
        minute = now_ns // MINUTE_NS
        if minute != self._thinned:
            self._thinned = minute
            if gone := self.book.thin(now_ns, minute % THIN_PARTS, THIN_PARTS):
                self._store.thin_slos(gone)

    def _write(self, rows: SloRows | None) -> None:
        if rows is not None:
            self._store.commit_slos(rows)
            self.book.committed()
