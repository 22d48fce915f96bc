"""
Each indicator as a pure function from facts to good or bad. Decided once, exactly, at the event.

Three kinds of facts exist: a job that has been judged, shards that were decided, a minute that has passed. An SLO
looks at one kind only, so that no event is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

from mppobs.model import JobOutcome, RunKind
from mppobs.slo.model import Counts, IndicatorKind, Slo

NOTHING: Final = Counts(0, 0)
GOOD: Final = Counts(1, 0)
BAD: Final = Counts(1, 1)
FORETOLD: Final = (IndicatorKind.ON_TIME, IndicatorKind.DURATION)
"""Indicators whose events are foretold from the predicted finish of a job that runs."""


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One stage of a judged job."""

    planned: int
    committed: int
    median_seconds: float | None = None
    p99_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A judged job, as far as SLOs care."""

    pipeline: str
    tenant: str
    run_kind: RunKind
    outcome: JobOutcome
    submit_ns: int
    end_ns: int
    deadline_ns: int = 0
    """The job's own deadline; 0 for none."""
    cost_usd: Decimal = Decimal(0)
    stages: Mapping[str, StageFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """Shards of one stage that were decided together: how many, and how."""

    pipeline: str
    tenant: str
    run_kind: RunKind
    stage: str
    committed: int = 0
    failed: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class MinuteFacts:
    """One whole minute of a pipeline, as the aggregator saw it."""

    pipeline: str
    tenant: str
    minute: int
    """Minutes since the Unix epoch."""
    last_success_ns: int = 0
    """End of the newest successful job; 0 where there never was one."""
    starts: int = 0
    """Attempts that started in the minute and whose assignment is known."""
    worst_delay_seconds: float = 0.0
    """The longest assignment-to-start among them."""
    checkpoint_lag_seconds: float | None = None
    """Of the running job that is worst off; `None` where none checkpoints."""
    spent_cents: int = 0
    """Whole cents spent in the minute; fractions are carried to the next."""


def judge_job(slo: Slo, job: JobFacts) -> Counts:
    """
    Return the event that a judged job is for an SLO: none, a good one, or a bad one.

    >>> from fractions import Fraction
    >>> nightly = Slo("risk", "ok", IndicatorKind.JOB_SUCCESS, Fraction(99, 100), 30, "nightly")
    >>> judge_job(nightly, JobFacts("nightly", "default", RunKind.SCHEDULED, JobOutcome.FAILURE, 0, 1))
    Counts(total=1, bad=1)
    """
    rule = _JOB_RULES.get(slo.indicator)
    if (
        rule is None
        or not _concerns(slo, job.pipeline, job.tenant, job.run_kind)
        or job.outcome is JobOutcome.CANCELLED
    ):
        return NOTHING
    verdict = rule(slo, job)
    return NOTHING if verdict is None else GOOD if verdict else BAD


def deadline_of(slo: Slo, job: JobFacts) -> int:
    """
    Return by when a job must have ended to be good, in nanoseconds since the epoch; 0 where that is not what counts.

    >>> from fractions import Fraction
    >>> from mppobs.slo.model import Bounds
    >>> minute = Bounds(at_most=Decimal(60))
    >>> quick = Slo("t", "quick", IndicatorKind.DURATION, Fraction(9, 10), 30, "nightly", bounds=minute)
    >>> deadline_of(quick, JobFacts("nightly", "default", RunKind.SCHEDULED, JobOutcome.SUCCESS, 5, 0))
    60000000005
    """
    if slo.indicator not in FORETOLD or not _concerns(slo, job.pipeline, job.tenant, job.run_kind):
        return 0
    allowed = slo.bounds.deadline_seconds if slo.indicator is IndicatorKind.ON_TIME else slo.bounds.at_most
    if allowed is not None:
        return job.submit_ns + int(allowed * 1_000_000_000)
    return job.deadline_ns if slo.indicator is IndicatorKind.ON_TIME else 0


def judge_shards(slo: Slo, shards: ShardFacts) -> Counts:
    """
    Return the events that decided shards are for a `shard-success` SLO: one per shard, attempts do not count.

    >>> from fractions import Fraction
    >>> whole = Slo("risk", "shards", IndicatorKind.SHARD_SUCCESS, Fraction(999, 1000), 30, "nightly")
    >>> judge_shards(whole, ShardFacts("nightly", "default", RunKind.SCHEDULED, "map", committed=8, failed=1, lost=1))
    Counts(total=10, bad=2)
    """
    if slo.indicator is not IndicatorKind.SHARD_SUCCESS or (slo.stage and slo.stage != shards.stage):
        return NOTHING
    if not _concerns(slo, shards.pipeline, shards.tenant, shards.run_kind):
        return NOTHING
    bad = shards.failed + shards.lost
    return Counts(shards.committed + bad, bad)


def judge_minute(slo: Slo, minute: MinuteFacts) -> Counts:
    """
    Return the event that a passed minute is for an SLO on minutes, or the cents that it cost for one on spend.

    A minute in which nothing could have gone wrong (nothing started, nothing checkpoints) is no event.
    """
    if slo.pipeline != minute.pipeline or (slo.tenant and slo.tenant != minute.tenant):
        return NOTHING
    if slo.indicator is IndicatorKind.SPEND:
        return _spend(slo, minute)
    rule = _MINUTE_RULES.get(slo.indicator)
    verdict = rule(slo, minute) if rule is not None else None
    return NOTHING if verdict is None else GOOD if verdict else BAD


def _concerns(slo: Slo, pipeline: str, tenant: str, run_kind: RunKind) -> bool:
    """Return whether an SLO is about this run at all."""
    return slo.pipeline == pipeline and (not slo.tenant or slo.tenant == tenant) and run_kind not in slo.exclude


def _success(slo: Slo, job: JobFacts) -> bool:
    return job.outcome is JobOutcome.SUCCESS


def _on_time(slo: Slo, job: JobFacts) -> bool | None:
    """Finished successfully before its deadline: the SLO's, or else the job's own. Without either it is no event."""
    deadline = deadline_of(slo, job)
    if deadline == 0:
        return None
    return job.outcome is JobOutcome.SUCCESS and job.end_ns <= deadline


def _duration(slo: Slo, job: JobFacts) -> bool | None:
    """Within the bound, and not suspiciously below: a job that ends early may have done nothing."""
    if job.outcome is not JobOutcome.SUCCESS:
        return None
    seconds = Decimal(job.end_ns - job.submit_ns) / 1_000_000_000
    low, high = slo.bounds.at_least, slo.bounds.at_most
    return (low is None or seconds >= low) and (high is None or seconds <= high)


def _tail(slo: Slo, job: JobFacts) -> bool | None:
    """p99 ÷ median of every stage (or of the one named) within the bound; one shard has no tail."""
    bound = slo.bounds.at_most
    ratios = [
        stage.p99_seconds / stage.median_seconds
        for name, stage in job.stages.items()
        if stage.p99_seconds is not None and stage.median_seconds and (not slo.stage or slo.stage == name)
    ]
    if not ratios or bound is None:
        return None
    return max(ratios) <= float(bound)


def _cost(slo: Slo, job: JobFacts) -> bool | None:
    return None if slo.bounds.at_most is None else job.cost_usd <= slo.bounds.at_most


def _coverage(slo: Slo, job: JobFacts) -> bool | None:
    """Committed ÷ planned shards, of all stages or of the one named."""
    stages = [stage for name, stage in job.stages.items() if not slo.stage or slo.stage == name]
    planned = sum(stage.planned for stage in stages)
    if planned == 0 or slo.bounds.at_least is None:
        return None
    return Decimal(sum(stage.committed for stage in stages)) >= slo.bounds.at_least * planned


def _freshness(slo: Slo, minute: MinuteFacts) -> bool | None:
    """The newest success is young enough. A pipeline that never succeeded has nothing that could be stale."""
    if minute.last_success_ns == 0 or slo.bounds.at_most is None:
        return None
    age = Decimal(minute.minute * 60) - Decimal(minute.last_success_ns) / 1_000_000_000
    return age <= slo.bounds.at_most


def _scheduler(slo: Slo, minute: MinuteFacts) -> bool | None:
    if minute.starts == 0 or slo.bounds.at_most is None:
        return None
    return minute.worst_delay_seconds <= float(slo.bounds.at_most)


def _checkpoint(slo: Slo, minute: MinuteFacts) -> bool | None:
    if minute.checkpoint_lag_seconds is None or slo.bounds.at_most is None:
        return None
    return minute.checkpoint_lag_seconds <= float(slo.bounds.at_most)


def _spend(slo: Slo, minute: MinuteFacts) -> Counts:
    """
    Return the minute's share of the period's events, and the cents that were spent as bad ones.

    There are as many events as make the allowed bad ones exactly the money that may be spent, so burn rate 1 is
    spending it evenly. What exceeds the minute's share is counted as events too: none is lost.
    """
    if slo.bounds.usd_per_period is None:
        return NOTHING
    whole = int(Fraction(slo.bounds.usd_per_period) * 100 / slo.budget) if slo.budget else 0
    minutes = slo.period_days * 1440
    share = (minute.minute + 1) * whole // minutes - minute.minute * whole // minutes
    return Counts(max(share, minute.spent_cents), minute.spent_cents)


_JOB_RULES: Final[Mapping[IndicatorKind, Callable[[Slo, JobFacts], bool | None]]] = {
    IndicatorKind.JOB_SUCCESS: _success,
    IndicatorKind.ON_TIME: _on_time,
    IndicatorKind.DURATION: _duration,
    IndicatorKind.TAIL: _tail,
    IndicatorKind.COST: _cost,
    IndicatorKind.COVERAGE: _coverage,
}
_MINUTE_RULES: Final[Mapping[IndicatorKind, Callable[[Slo, MinuteFacts], bool | None]]] = {
    IndicatorKind.FRESHNESS: _freshness,
    IndicatorKind.SCHEDULER_LATENCY: _scheduler,
    IndicatorKind.CHECKPOINT_LAG: _checkpoint,
}
