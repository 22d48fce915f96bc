"""
From what the aggregator keeps to what the API shows. Pure: nanoseconds become times and seconds, picodollars dollars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from mppobs.catalog.metrics import QUANTILES
from mppobs.model import AttemptOutcome, JobKey, JobOutcome, ShardOutcome
from mppobs.sidecar import schemas, slis
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals, StageTotals
from mppobs.sidecar.reading import ShardRow
from mppobs.sidecar.slis import LiveFigures, ratio
from mppobs.sidecar.store_jobs import JobSummary, StageSummary
from mppobs.sidecar.view import LiveAttempt, LivePipeline, LiveRun, LiveStraggler, View

_NS: Final = 1e9
_PICO: Final = 1e12
_LAST_NS: Final = 253402300799 * 10**9
"""The end of the year 9999, beyond which no `datetime` reaches: a hostile journal may name any time."""


def moment(time_ns: int) -> datetime | None:
    """
    Return a time as UTC to the microsecond; `None` for 0, which stands for never.

    >>> moment(1_500_000_000_000_000_000).isoformat(), moment(0)
    ('2017-07-14T02:40:00+00:00', None)
    """
    if time_ns <= 0:
        return None
    seconds, rest = divmod(min(time_ns, _LAST_NS), 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def nanoseconds(time: datetime | None) -> int | None:
    """
    Return a time as nanoseconds since the epoch, exactly.

    >>> nanoseconds(moment(1_500_000_000_123_456_000))
    1500000000123456000
    """
    if time is None:
        return None
    passed = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((passed.days * 86400 + passed.seconds) * 10**6 + passed.microseconds) * 1000


def seconds_between(start_ns: int, end_ns: int) -> float | None:
    """Return how long something took; `None` where an end is not known, 0 where clocks disagree."""
    return max(0, end_ns - start_ns) / _NS if start_ns and end_ns else None


def seconds_late(deadline_ns: int, end_ns: int) -> float | None:
    """
    Return how far an end is past a deadline; `None` where it is not, or where either is unknown (0).

    >>> seconds_late(10**9, 3 * 10**9), seconds_late(3 * 10**9, 10**9), seconds_late(0, 10**9)
    (2.0, None, None)
    """
    return (end_ns - deadline_ns) / _NS if 0 < deadline_ns < end_ns else None


def runs_of(view: View) -> dict[JobKey, LiveRun]:
    """Return what is known of jobs that run now, or ended a moment ago."""
    return {run.job: run for run in view.live.runs}


def job(summary: JobSummary, run: LiveRun | None, now_ns: int) -> schemas.Job:
    """Return a run as a listing shows it; `run` says what is foretold of one that goes on."""
    asked_ns = summary.submit_ns or summary.start_ns
    told = run if summary.outcome is None else None
    deadline_ns = summary.deadline_ns or (told.deadline_ns if told else 0)
    predicted_ns = (told.predicted_finish_ns or 0) if told else 0
    earliest_ns, latest_ns = (told.finish_bounds_ns or (0, 0)) if told else (0, 0)
    shards = _shards(summary.planned, summary.shards)
    late = seconds_late(deadline_ns, summary.end_ns or now_ns)
    return schemas.Job(
        job_id=summary.key.job_id,
        incarnation=str(summary.key.incarnation),
        pipeline=summary.pipeline,
        cluster=summary.key.cluster,
        tenant=summary.key.tenant,
        owner=summary.owner,
        tier=summary.tier,
        run_kind=summary.run_kind,
        state="finished" if summary.state == "settled" else "running",
        outcome=summary.outcome,
        reason=summary.reason,
        error_type=summary.error_type,
        submitted=moment(asked_ns),
        started=moment(summary.start_ns),
        ended=moment(summary.end_ns),
        deadline=moment(deadline_ns),
        predicted_finish=moment(predicted_ns),
        predicted_earliest=moment(earliest_ns),
        predicted_latest=moment(latest_ns),
        predicted_late_seconds=seconds_late(deadline_ns, predicted_ns),
        at_risk=told.weight if told else None,
        late=late is not None,
        late_seconds=late,
        duration_seconds=seconds_between(asked_ns, summary.end_ns or now_ns),
        queue_seconds=seconds_between(asked_ns, summary.start_ns),
        progress_ratio=_progress(shards),
        shards=shards,
        attempts=_attempts(summary.attempts),
        retries=summary.retries,
        shuffle_read_bytes=summary.shuffle_read,
        shuffle_written_bytes=summary.shuffle_written,
        cost_usd=_cost(summary.cost_pusd.values(), (stage.wall_ns for stage in summary.stages)),
        completeness_ratio=_completeness(summary.recorded, summary.dispatched),
        trace_id=summary.uid,
    )


def _cost(amounts: Iterable[int], walls: Iterable[int]) -> float | None:
    """Return dollars; `None` where time was spent and nothing is to be paid for it, since it has no price then."""
    total = sum(amounts)
    return total / _PICO if total or not any(walls) else None


def _shards(planned: int, counts: Mapping[ShardOutcome, int]) -> schemas.Shards:
    return schemas.Shards(
        planned=planned,
        committed=counts.get(ShardOutcome.COMMITTED, 0),
        failed=counts.get(ShardOutcome.FAILED, 0),
        lost=counts.get(ShardOutcome.LOST, 0),
    )


def _progress(shards: schemas.Shards) -> float | None:
    decided = shards.committed + shards.failed + shards.lost
    return min(1.0, decided / shards.planned) if shards.planned else None


def _attempts(counts: Mapping[AttemptOutcome, int]) -> dict[AttemptOutcome, int]:
    return {outcome: counts.get(outcome, 0) for outcome in AttemptOutcome}


def _completeness(recorded: int, dispatched: int) -> float | None:
    return min(1.0, recorded / dispatched) if dispatched else None


def stage(summary: StageSummary) -> schemas.Stage:
    """Return one stage of a job."""
    return schemas.Stage(
        stage=summary.stage,
        shards=_shards(summary.planned, summary.shards),
        attempts=_attempts(summary.attempts),
        retries=summary.retries,
        rows=summary.rows,
        shuffle_read_bytes=summary.shuffle_read,
        shuffle_written_bytes=summary.shuffle_written,
        wall_seconds=summary.wall_ns / _NS,
        cpu_seconds=summary.cpu_ns / _NS,
        median_seconds=_seconds(summary.median_ns),
        p99_seconds=_seconds(summary.p99_ns),
        max_seconds=_seconds(summary.max_ns),
        tail_ratio=ratio(summary.p99_ns, summary.median_ns) if summary.p99_ns and summary.median_ns else None,
    )


def _seconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / _NS


def running_attempt(attempt: LiveAttempt, now_ns: int) -> schemas.RunningAttempt:
    """Return an attempt that runs now."""
    return schemas.RunningAttempt(
        stage=attempt.key.stage,
        shard=attempt.shard,
        attempt=attempt.attempt,
        speculative=attempt.speculative,
        worker=attempt.worker,
        node=attempt.node,
        started=moment(max(1, attempt.started_ns)) or datetime.fromtimestamp(0, UTC),
        elapsed_seconds=max(0, now_ns - attempt.started_ns) / _NS,
        progress_ratio=attempt.progress,
        checkpoint=moment(attempt.checkpoint_ns),
    )


def shard(row: ShardRow) -> schemas.Shard:
    """Return one shard of a job."""
    return schemas.Shard(
        stage=row.stage,
        shard=row.shard,
        outcome=row.outcome,
        attempts=row.attempts,
        started=moment(row.first_start_ns),
        decided=moment(row.decided_ns),
        duration_seconds=_took(row),
        reason=row.reason,
        error_type=row.error_type,
        worker=row.worker,
        node=row.node,
        wall_seconds=max(0.0, row.wall_seconds),
        cpu_seconds=max(0.0, row.cpu_seconds),
        input_bytes=row.input_bytes,
        shuffle_read_bytes=row.shuffle_read,
        shuffle_written_bytes=row.shuffle_written,
    )


def _took(row: ShardRow) -> float | None:
    """Return first start to decision; `None` where it is not known, as of a shard that was lost with its node."""
    if row.outcome is None or not row.first_start_ns:
        return None
    if row.outcome is ShardOutcome.COMMITTED:
        return max(0, row.duration_ns) / _NS
    return (row.decided_ns - row.first_start_ns) / _NS if row.decided_ns > row.first_start_ns else None


def straggler(found: LiveStraggler) -> schemas.Straggler:
    """Return an attempt that holds its stage."""
    return schemas.Straggler(
        stage=found.attempt.key.stage,
        shard=found.attempt.shard,
        attempt=found.attempt.attempt,
        elapsed_seconds=max(0.0, found.elapsed),
        left_seconds=max(0.0, found.left),
        cause=found.cause,
        evidence=found.evidence,
        node=found.attempt.node,
    )


def job_detail(
    summary: JobSummary, view: View, runs: Sequence[JobSummary], now_ns: int, *, limit: int
) -> schemas.JobDetail:
    """Return all that is known of a run; `limit` bounds the running attempts, longest first."""
    attempts = sorted(
        (each for each in view.live.attempts if each.job == summary.key), key=lambda each: each.started_ns
    )
    return schemas.JobDetail(
        **job(summary, runs_of(view).get(summary.key), now_ns).model_dump(),
        stages=[stage(each) for each in summary.stages],
        cost_by_kind_usd={kind: amount / _PICO for kind, amount in summary.cost_pusd.items()},
        dispatched=summary.dispatched,
        recorded=summary.recorded,
        running=[running_attempt(each, now_ns) for each in attempts[:limit]],
        stragglers=[straggler(each) for each in view.live.stragglers if each.attempt.job == summary.key][:limit],
        runs=[str(run.key.incarnation) for run in runs],
    )


def stages_by_pipeline(view: View) -> dict[PipelineKey, list[StageTotals]]:
    """Return the stages of each pipeline, by name."""
    found: dict[PipelineKey, list[StageTotals]] = {key: [] for key in view.pipelines}
    for key, totals in view.stages.items():
        found.setdefault(key.of_pipeline, []).append(totals)
    return {key: sorted(stages, key=lambda each: each.key.stage) for key, stages in found.items()}


def pipeline(
    totals: PipelineTotals, stages: Sequence[StageTotals], live: LivePipeline, now_ns: int
) -> schemas.Pipeline:
    """Return a pipeline's figures."""
    shards = {outcome: sum(each.shards[outcome] for each in stages) for outcome in ShardOutcome}
    committed = shards[ShardOutcome.COMMITTED]
    quantiles = slis.merged_sketch(stages)
    p50, p95, p99 = (quantiles.quantile(float(q), now_ns) for q in QUANTILES)
    return schemas.Pipeline(
        pipeline=totals.key.pipeline,
        cluster=totals.key.cluster,
        tenant=totals.key.tenant,
        owner=totals.owner,
        tier=totals.tier,
        stages=[each.key.stage for each in stages],
        jobs_running=live.jobs.get("running", 0),
        jobs={outcome: totals.jobs[outcome] for outcome in JobOutcome},
        shards=shards,
        shard_success_ratio=ratio(committed, sum(shards.values())),
        p50_seconds=p50,
        p95_seconds=p95,
        p99_seconds=p99,
        retry_ratio=ratio(sum(each.retries for each in stages), committed),
        cost_usd=_cost(totals.cost_pusd.values(), (each.wall_ns for each in stages)),
        cost_per_job_usd=ratio(totals.job_cost.total / _PICO, totals.job_cost.count) if totals.job_cost.total else None,
        completeness_ratio=_completeness(totals.recorded + live.recorded, totals.dispatched + live.dispatched),
    )


def sli_report(view: View, keys: Iterable[PipelineKey], now_ns: int) -> schemas.SliReport:
    """Return the indicators of some pipelines, in the order given."""
    stages = stages_by_pipeline(view)
    nothing = LivePipeline()
    reports = [
        slis.report(view.pipelines[key], stages[key], _live_figures(view.live.pipelines.get(key, nothing)), now_ns)
        for key in keys
    ]
    return schemas.SliReport(
        computed=moment(now_ns) or datetime.fromtimestamp(0, UTC), pipelines=[_pipeline_slis(each) for each in reports]
    )


def _live_figures(live: LivePipeline) -> LiveFigures:
    return LiveFigures(live.memory.get("1"), live.memory.get("0.9"), live.checkpoint_lag)


def _pipeline_slis(report: slis.Report) -> schemas.PipelineSlis:
    return schemas.PipelineSlis(
        pipeline=report.key.pipeline,
        cluster=report.key.cluster,
        tenant=report.key.tenant,
        indicators={key: _sli(value) for key, value in report.by_key().items()},
    )


def _sli(value: slis.Value) -> schemas.Sli:
    indicator = value.indicator
    return schemas.Sli(
        key=indicator.key,
        title=indicator.title,
        definition=indicator.definition,
        unit=indicator.unit,
        headline=value.headline,
        value=value.value,
        parts=[schemas.SliPart(name=part.name, value=part.value, unit=part.unit) for part in value.parts],
        metrics=list(indicator.metrics),
    )
