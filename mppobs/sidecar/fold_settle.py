"""Judging a job: what was never decided is failed or lost, what never came is an error, and the job's totals count."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.journal.format import ATTEMPT_CODES, REASON_CODES
from mppobs.model import AttemptOutcome, JobOutcome, Reason, ShardOutcome
from mppobs.sidecar.aggregates import Exemplar, PipelineTotals
from mppobs.sidecar.fold_labels import Labels
from mppobs.sidecar.running import DecidedJob, JobStage, RunningJob
from mppobs.sidecar.tables import FAILED, LOST, PENDING
from mppobs.trace_ids import trace_id

_WORK_FAILED: Final = (ATTEMPT_CODES[AttemptOutcome.FAILURE], ATTEMPT_CODES[AttemptOutcome.TIMEOUT])
_NODE_LOST: Final = REASON_CODES[Reason.NODE_LOST]


def settle(job: RunningJob, labels: Labels, now_ns: int) -> DecidedJob:
    """Count a job that has ended, and return what is left of it."""
    for stage in job.stages.values():
        job.vanished += _close_stage(stage, labels, job.end_ns)
    _count_job(job, labels.pipeline(job.pipeline), now_ns)
    return DecidedJob(
        key=job.key,
        context=job.context,
        pipeline=job.pipeline,
        start_ns=job.start_ns,
        submit_ns=job.submit_ns or job.start_ns,
        end_ns=job.end_ns,
        settled_ns=now_ns,
        outcome=job.outcome or JobOutcome.ERROR,
        reason=job.reason,
        error_type=job.error_type,
        implicit=job.implicit,
        coordinated=job.coordinated,
        deadline_ns=job.deadline_ns,
        traceparent=job.traceparent,
        aliases=tuple(job.aliases),
        stages=job.stages,
        cost_pusd=job.cost_pusd,
        network_errors=job.network_errors,
        storage_throttled=job.storage_throttled,
        dispatched=job.dispatched,
        recorded=job.recorded,
        vanished=job.vanished,
        workers=tuple(job.workers),
        errors=tuple(job.errors),
        kept=tuple(replace(kept, shard=job.shard(kept.stage, kept.shard_key)) for kept in job.kept.all()),
        kept_dropped=job.kept.dropped,
    )


def _close_stage(stage: JobStage, labels: Labels, end_ns: int) -> int:
    """Decide what is undecided in a stage; return how many of its attempts vanished."""
    table, count = stage.table, len(stage.table)
    totals = labels.stage(stage.key)
    missing = table.dispatched[:count] & ~table.own[:count]
    vanished = int(np.bitwise_count(missing).sum())
    for counts in (stage.attempts, totals.attempts):
        counts[AttemptOutcome.ERROR] += vanished
    undecided = np.flatnonzero(table.state[:count] == PENDING)
    # The masks share no bit, so the larger one has the highest attempt: one that vanished after all others is the
    # last sign of its shard, and that is not the work's fault.
    by_work = np.isin(table.last_outcome[undecided], _WORK_FAILED) & (table.own[undecided] > missing[undecided])
    table.state[undecided] = np.where(by_work, FAILED, LOST)
    table.decided[undecided] = end_ns
    table.reason[undecided[missing[undecided] > table.own[undecided]]] = _NODE_LOST
    failed = int(np.count_nonzero(by_work))
    unseen = max(0, stage.planned - stage.seen)
    for shards in (stage.shards, totals.shards):
        shards[ShardOutcome.FAILED] += failed
        shards[ShardOutcome.LOST] += len(undecided) - failed + unseen
    durations = stage.columns().durations()
    if len(durations):
        stage.skew_idle_ratio = totals.skew_idle_ratio = idle_ratio(durations)
    return vanished


def idle_ratio(durations: NDArray[np.int64]) -> float:
    """
    Return the idle fraction (max − mean) ÷ max: how much of the time of one worker per shard is spent waiting.

    >>> idle_ratio(np.array([1, 1, 4]))
    0.5
    """
    longest = int(durations.max())
    return 1.0 - int(durations.sum()) / (len(durations) * longest) if longest else 0.0


def _count_job(job: RunningJob, totals: PipelineTotals, now_ns: int) -> None:
    """Add a job to the totals of its pipeline: M1, M4, M9, M12 and the completeness of its telemetry."""
    submit = job.submit_ns or job.start_ns
    duration, queue = max(0, job.end_ns - submit), max(0, job.start_ns - submit)
    trace = trace_id(job.key)
    totals.jobs[job.outcome or JobOutcome.ERROR] += 1
    totals.durations.observe(duration, Exemplar(job.key.job_id, "", trace, duration / 1e9, now_ns))
    totals.queue.observe(queue, Exemplar(job.key.job_id, "", trace, queue / 1e9, now_ns))
    shuffled = job.shuffle_bytes
    totals.job_shuffle.observe(shuffled)
    usual = median(totals.baseline) if totals.baseline else 0
    totals.baseline_ratio = shuffled / usual if usual else None
    if job.outcome is JobOutcome.SUCCESS:
        totals.baseline.append(shuffled)
    totals.job_cost.observe(job.total_cost_pusd)
    if job.coordinated:
        totals.recorded += job.recorded
        totals.dispatched += job.dispatched
