"""Keeps the book of SLOs in step with the store: back to the last commit, new files, a minute that has passed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from mppobs.model import JobKey, JobOutcome
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.foresee import Onlooker, uid_of
from mppobs.sidecar.live import LiveSettings, live_view
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_minutes import MINUTE_NS
from mppobs.sidecar.store import Store
from mppobs.sidecar.store_jobs import JobQuery, JobSummary
from mppobs.sidecar.store_schema import StoreFull
from mppobs.sidecar.store_slos import SloRows
from mppobs.sidecar.view import LiveAttempt
from mppobs.slo.foresight import Who
from mppobs.slo.history import slot_of
from mppobs.slo.past import RUNS

_log = logging.getLogger(__name__)

THIN_PARTS: Final = 60
"""Histories are thinned in so many parts, one a minute, so that no round waits for all of them."""


class SloKeeper:
    """The book of SLOs and the store that makes it durable. The engine calls it under its lock."""

    def __init__(self, store: Store, book: SloBook) -> None:
        self.book = book
        self._store = store
        self._thinned = 0
        self._onlooker = Onlooker(self._past_runs)

    @property
    def failed_predictions(self) -> int:
        """Return how many predictions could not be made because the code itself failed."""
        return self._onlooker.failed

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
        rows = self.book.round(jobs, fold.ledger.take(), now_ns)
        self._onlooker.decided(jobs)
        return rows

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
        self._foresee(fold, live, now_ns)
        minute = now_ns // MINUTE_NS
        if minute != self._thinned:
            self._thinned = minute
            if gone := self.book.thin(now_ns, minute % THIN_PARTS, THIN_PARTS):
                self._store.thin_slos(gone)

    def prune(self, before_ns: int) -> None:
        """Forget SLOs that no file has had since a time. Raises `StoreFull`."""
        gone, rows = self.book.prune(before_ns)
        self._store.prune_slos(gone, slot_of(before_ns), rows if gone else SloRows())
        if gone:
            self.book.committed()

    def _foresee(self, fold: Fold, live: Sequence[LiveJournal], now_ns: int) -> None:
        """Predict when running jobs end, those whose turn it is, and make durable what that charges."""
        due = self._onlooker.due(fold.running, now_ns)
        if not due and not self.book.foretells:
            return
        attempts: dict[JobKey, list[LiveAttempt]] = {}
        if any(not job.end_ns for job in due):
            for attempt in live_view(fold, live, now_ns, LiveSettings()).attempts:
                attempts.setdefault(attempt.job, []).append(attempt)
        seen = [self._onlooker.look(job, attempts.get(job.key, ()), now_ns) for job in due]
        self._write(self.book.foresee(seen, map(uid_of, fold.running), now_ns))

    def _past_runs(self, who: Who) -> list[JobSummary]:
        """Return the newest successful runs of a pipeline."""
        query = JobQuery(
            pipeline=who.pipeline, tenant=who.tenant, cluster=who.cluster, outcome=JobOutcome.SUCCESS, limit=RUNS
        )  # fmt: skip
        return self._store.jobs(query).jobs

    def _write(self, rows: SloRows | None) -> None:
        if rows is not None:
            self._store.commit_slos(rows)
            self.book.committed()
