"""
The aggregator's SLOs: what rounds and minutes decide is judged here and committed with them.

Not for several threads at once: the engine calls it under its lock. What it returns as rows must become durable before
anything else happens, or the book be loaded anew; `figures` shows only SLOs that are durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from mppobs.catalog.foresight import Weight
from mppobs.model import JobOutcome, ShardOutcome
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals
from mppobs.sidecar.fold_ledger import RoundFacts
from mppobs.sidecar.foresee import Seen
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.slo_minutes import Lags, Minutes
from mppobs.sidecar.store_foresight import rows_of
from mppobs.sidecar.store_jobs import JobSummary, StageSummary
from mppobs.sidecar.store_slos import SloRows, StoredSlos
from mppobs.sidecar.view import Foreseen, ForesightFigures, SloFigures
from mppobs.slo.budget import is_sparse
from mppobs.slo.evaluate import Evaluator, definition
from mppobs.slo.foresight import Account, Foreteller, Who, calibration_of
from mppobs.slo.indicators import FORETOLD, JobFacts, ShardFacts, StageFacts
from mppobs.slo.model import IndicatorKind, Slo
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
        self._foreteller = Foreteller()
        self._shown: tuple[Slo, ...] = ()

    @property
    def delays_of(self) -> frozenset[str]:
        """Return the pipelines whose attempts' delays are wanted."""
        return self._minutes.waiting

    @property
    def wants_lags(self) -> bool:
        """Return whether any SLO is about checkpoints."""
        return bool(self._minutes.lagging)

    @property
    def queried(self) -> list[Slo]:
        """Return the SLOs of the files that Prometheus counts, and not this book."""
        return [slo for slo in self.files.slos if slo.indicator is IndicatorKind.PROMQL]

    def load(self, stored: StoredSlos, now_ns: int, totals: Totals, last_success: LastSuccess) -> SloRows | None:
        """Go back to what was committed. Return what the SLOs of the files change of it, if anything."""
        self._evaluator = Evaluator(stored.tallies)
        self._minutes = Minutes.restored(stored.minutes)
        self._foreteller = Foreteller(stored.foresight)
        return self._watch(now_ns, totals, last_success)

    def reload(self, now_ns: int, totals: Totals, last_success: LastSuccess) -> SloRows | None:
        """Take up the files where they changed. Return what that changes, if anything."""
        return self._watch(now_ns, totals, last_success) if self.files.changed() else None

    def round(self, jobs: Sequence[JobSummary], facts: RoundFacts, now_ns: int) -> SloRows:
        """Judge what a round decided."""
        for summary in jobs:
            job = job_facts(summary)
            self._evaluator.job(job, now_ns)
            who = Who(summary.key.cluster, summary.key.tenant, summary.pipeline)
            self._foreteller.settle(summary.uid, who, job, self._evaluator.watching(summary.pipeline))
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

    @property
    def foretells(self) -> bool:
        """Return whether anything is foretold of any job."""
        return bool(self._foreteller.due or self._foreteller.state.jobs)

    def foresee(self, seen: Iterable[Seen], running: Iterable[str], now_ns: int) -> SloRows | None:
        """Take in another look at running jobs, of which `running` names all. Return what that changes, if anything."""
        for job, prediction in seen:
            self._foreteller.look(job, prediction, now_ns, self._evaluator.watching(job.who.pipeline))
        self._foreteller.keep_only(running)
        return self._rows() if self._foreteller.changed else None

    def foreseen(self, uid: str) -> Foreseen:
        """Return what is foretold of a running job, by its name."""
        told = self._foreteller
        return Foreseen(told.outlooks.get(uid), told.weight(uid), told.due.get(uid, 0))

    def prune(self, before_ns: int) -> tuple[list[str], SloRows]:
        """Forget SLOs that no file has had since a time. Return their names, and what else that changes."""
        gone = self._evaluator.prune(before_ns)
        self._foreteller.prune(gone)
        return gone, self._rows()

    def committed(self) -> None:
        """Say that the rows returned last are durable. Until then every later rows contain them."""
        self._evaluator.saved()
        self._foreteller.saved()
        self._minutes.changed = False
        self._shown = self._evaluator.slos

    def thin(self, now_ns: int, part: int, parts: int) -> Mapping[str, list[int]]:
        """Thin one part of the histories; return the slots that are gone, by name."""
        return self._evaluator.thin(now_ns, part=part, parts=parts)

    def figures(self, now_ns: int) -> list[SloFigures]:
        """Return how every SLO stands."""
        return [self._figures(slo, now_ns) for slo in self._shown]

    def _watch(self, now_ns: int, totals: Totals, last_success: LastSuccess) -> SloRows | None:
        """Watch the SLOs of the files. What need not be written is shown at once, the rest once it is durable."""
        # What Prometheus counts by queries of its own is not known here, and 0 would be a figure.
        slos = [slo for slo in self.files.slos if slo.indicator is not IndicatorKind.PROMQL]
        before = {tally.name: tally.definition for tally in self._evaluator.tallies.values()}
        self._evaluator.watch(slos, now_ns)
        self._foreteller.watch({slo.full_name: definition(slo) for slo in slos}, before)
        self._minutes.watch(slos, now_ns, last_success, totals)
        changed = {tally.name for tally in self._evaluator.changed()}
        self._shown = tuple(slo for slo in slos if slo.full_name not in changed)
        return self._rows() if changed or self._minutes.changed or self._foreteller.changed else None

    def _rows(self) -> SloRows:
        return SloRows(
            self._evaluator.changed(), self._minutes.saved() if self._minutes.changed else None,
            rows_of(self._foreteller.state, self._foreteller.changed),
        )  # fmt: skip

    def _figures(self, slo: Slo, now_ns: int) -> SloFigures:
        tally = self._evaluator.tally(slo)
        beyond = {*WINDOWS, slo.period_days * DAY}
        return SloFigures(
            slo=slo, tally=tally, budget_left=current_period(slo, tally, now_ns).budget_left,
            latched=tally.latched if is_sparse(slo) else None,
            windows={window_name(s): window(tally, now_ns, s) for s in sorted(beyond) if s > self._keeps_seconds},
            provisional=self._foreteller.standing(slo.full_name), foresight=self._foresight(slo),
        )  # fmt: skip

    def _foresight(self, slo: Slo) -> ForesightFigures | None:
        """Return how good the predictions of an SLO's jobs have been; `None` where none can be made."""
        if slo.indicator not in FORETOLD:
            return None
        state = self._foreteller.state
        account, calibration = state.accounts.get(slo.full_name, Account()), calibration_of(slo, state.calibrations)
        return ForesightFigures(
            settled=account.settled, verdicts=account.verdicts, runs=len(calibration.runs),
            coverage=calibration.coverage, warned=self._foreteller.standing(slo.full_name, Weight.WARNING),
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
