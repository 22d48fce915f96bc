"""
The aggregator's SLOs: what rounds and minutes decide is judged here and committed with them.

Not for several threads at once: the engine calls it under its lock. What it returns as rows must become durable before
anything else happens, or the book be loaded anew; `figures` shows only SLOs that are durable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from mppobs.model import JobOutcome, ShardOutcome
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals
from mppobs.sidecar.fold_ledger import RoundFacts
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.slo_minutes import Lags, Minutes
from mppobs.sidecar.store_jobs import JobSummary, StageSummary
from mppobs.sidecar.store_slos import SloRows, StoredSlos
from mppobs.sidecar.view import SloFigures
from mppobs.slo.budget import is_sparse
from mppobs.slo.evaluate import Evaluator
from mppobs.slo.indicators import JobFacts, ShardFacts, StageFacts
from mppobs.slo.model import Slo
from mppobs.slo.standing import current_period, window
from mppobs.slo.windows import DAY, WINDOWS, window_name

Totals = Mapping[PipelineKey, PipelineTotals]
LastSuccess = Callable[[str, str], int]
"""From a pipeline and a tenant to the end of the newest successful job; 0 for never."""


class SloBook:
    """SLOs with their counts, and the minute that goes on. `prometheus_days` is how long Prometheus keeps samples."""

    def __init__(self, files: SloFiles | None = None, *, prometheus_days: float = 15.0) -> None:
        self.files = files or SloFiles()
        self._keeps_seconds = prometheus_days * DAY
        self._evaluator = Evaluator()
        self._minutes = Minutes()
        self._shown: tuple[Slo, ...] = ()

    @property
    def delays_of(self) -> frozenset[str]:
        """Return the pipelines whose attempts' delays are wanted."""
        return self._minutes.waiting

    @property
    def wants_lags(self) -> bool:
        """Return whether any SLO is about checkpoints."""
        return bool(self._minutes.lagging)

    def load(self, stored: StoredSlos, now_ns: int, totals: Totals, last_success: LastSuccess) -> SloRows | None:
        """Go back to what was committed. Return what the SLOs of the files change of it, if anything."""
        self._evaluator = Evaluator(stored.tallies)
        self._minutes = Minutes.restored(stored.minutes)
        return self._watch(now_ns, totals, last_success)

    def reload(self, now_ns: int, totals: Totals, last_success: LastSuccess) -> SloRows | None:
        """Take up the files where they changed. Return what that changes, if anything."""
        return self._watch(now_ns, totals, last_success) if self.files.changed() else None

    def round(self, jobs: Sequence[JobSummary], facts: RoundFacts, now_ns: int) -> SloRows:
        """Judge what a round decided."""
        for summary in jobs:
            self._evaluator.job(job_facts(summary), now_ns)
        for key, shards in facts.shards.items():
            counts = [shards[outcome] for outcome in (ShardOutcome.COMMITTED, ShardOutcome.FAILED, ShardOutcome.LOST)]
            self._evaluator.shards(ShardFacts(*key, *counts), now_ns)
        self._minutes.jobs(jobs)
        self._minutes.delays(facts.delays)
        return self._rows()

    def minute_due(self, now_ns: int) -> bool:
        """Return whether a minute has passed that is to be judged."""
        return self._minutes.is_due(now_ns)

    def minute(self, now_ns: int, totals: Totals, lags: Lags) -> SloRows:
        """Judge the minute that just passed."""
        for facts in self._minutes.close(now_ns, totals, lags):
            self._evaluator.minute(facts, now_ns)
        return self._rows()

    def committed(self) -> None:
        """Say that the rows returned last are durable. Until then every later rows contain them."""
        self._evaluator.saved()
        self._minutes.changed = False
        self._shown = self._evaluator.slos

    def thin(self, now_ns: int, part: int, parts: int) -> Mapping[str, list[int]]:
        """Thin one part of the histories; return the slots that are gone, by name."""
        return self._evaluator.thin(now_ns, part=part, parts=parts)

    def figures(self, now_ns: int, provisional: Mapping[str, int] | None = None) -> list[SloFigures]:
        """Return how every SLO stands; `provisional` counts running jobs that will be bad events, by name."""
        expected = provisional or {}
        return [self._figures(slo, now_ns, expected.get(slo.full_name, 0)) for slo in self._shown]

    def _watch(self, now_ns: int, totals: Totals, last_success: LastSuccess) -> SloRows | None:
        """Watch the SLOs of the files. What need not be written is shown at once, the rest once it is durable."""
        self._evaluator.watch(self.files.slos, now_ns)
        self._minutes.watch(self.files.slos, now_ns, last_success, totals)
        changed = {tally.name for tally in self._evaluator.changed()}
        self._shown = tuple(slo for slo in self.files.slos if slo.full_name not in changed)
        return self._rows() if changed or self._minutes.changed else None

    def _rows(self) -> SloRows:
        return SloRows(self._evaluator.changed(), self._minutes.saved() if self._minutes.changed else None)

    def _figures(self, slo: Slo, now_ns: int, provisional: int) -> SloFigures:
        tally = self._evaluator.tally(slo)
        beyond = {*WINDOWS, slo.period_days * DAY}
        return SloFigures(
            slo=slo, tally=tally, budget_left=current_period(slo, tally, now_ns).budget_left,
            latched=tally.latched if is_sparse(slo) else None,
            windows={window_name(s): window(tally, now_ns, s) for s in sorted(beyond) if s > self._keeps_seconds},
            provisional=provisional,
        )  # fmt: skip


def job_facts(job: JobSummary) -> JobFacts:
    """Return a decided job as SLOs look at it."""
    return JobFacts(
        pipeline=job.pipeline, tenant=job.key.tenant, run_kind=job.run_kind, outcome=job.outcome or JobOutcome.ERROR,
        submit_ns=job.submit_ns or job.start_ns, end_ns=job.end_ns, deadline_ns=job.deadline_ns,
        cost_usd=Decimal(sum(job.cost_pusd.values())).scaleb(-12),
        stages={stage.stage: _stage_facts(stage) for stage in job.stages},
    )  # fmt: skip


def _stage_facts(stage: StageSummary) -> StageFacts:
    median = None if stage.median_ns is None else stage.median_ns / 1e9
    p99 = None if stage.p99_ns is None else stage.p99_ns / 1e9
    return StageFacts(stage.planned, stage.shards.get(ShardOutcome.COMMITTED, 0), median, p99)
