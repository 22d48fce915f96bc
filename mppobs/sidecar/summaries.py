"""From jobs as the fold holds them to what the store keeps, the API lists and the rules of deciding look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mppobs.model import AttemptOutcome, Context, JobKey
from mppobs.sidecar.decide import JobSigns
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.running import DecidedJob, JobStage, RunningJob
from mppobs.sidecar.store_jobs import JobSummary, StageSummary

Resolve = Callable[[str, int], Context | None]
"""From a journal and a context's number to the context."""


def decided_summary(job: DecidedJob) -> JobSummary:
    """Return what stays of a judged job."""
    stages = job.stages.values()
    return JobSummary(
        key=job.key, pipeline=job.context.pipeline, state="settled", owner=job.context.owner, tier=job.context.tier,
        run_kind=job.context.run_kind, outcome=job.outcome, reason=job.reason, error_type=job.error_type,
        submit_ns=job.submit_ns, start_ns=job.start_ns, end_ns=job.end_ns, settled_ns=job.settled_ns,
        deadline_ns=job.deadline_ns, planned=sum(stage.planned for stage in stages), dispatched=job.dispatched,
        recorded=job.recorded, shards=job.shards, attempts=_attempts(stages),
        retries=sum(stage.retries for stage in stages), cost_pusd=dict(job.cost_pusd),
        shuffle_read=sum(stage.shuffle_read for stage in stages),
        shuffle_written=sum(stage.shuffle_written for stage in stages),
        stages=tuple(stage_summary(stage, exact=True) for stage in stages), aliases=job.aliases,
    )  # fmt: skip


def running_summary(job: RunningJob) -> JobSummary:
    """Return a job as it stands. Durations of its shards are left out: they are still changing, and dear to sort."""
    stages = job.stages.values()
    shards = sum((Counter(stage.shards) for stage in stages), Counter())
    return JobSummary(
        key=job.key, pipeline=job.context.pipeline, state="ended" if job.end_ns else "running",
        owner=job.context.owner, tier=job.context.tier, run_kind=job.context.run_kind, outcome=job.outcome,
        reason=job.reason, error_type=job.error_type, submit_ns=job.submit_ns or job.start_ns, start_ns=job.start_ns,
        end_ns=job.end_ns, deadline_ns=job.deadline_ns, planned=job.planned, dispatched=job.dispatched,
        recorded=job.recorded, shards=dict(shards), attempts=_attempts(stages),
        retries=sum(stage.retries for stage in stages), cost_pusd=dict(job.cost_pusd),
        shuffle_read=sum(stage.shuffle_read for stage in stages),
        shuffle_written=sum(stage.shuffle_written for stage in stages),
        stages=tuple(stage_summary(stage, exact=False) for stage in stages),
        aliases=tuple(job.aliases),
    )  # fmt: skip


def stage_summary(stage: JobStage, *, exact: bool) -> StageSummary:
    """Return a stage's figures; with `exact` the median, p99 and maximum of its shards' durations too."""
    median, p99, longest = _quantiles(stage) if exact else (None, None, None)
    return StageSummary(
        stage=stage.name, planned=stage.planned, shards=dict(stage.shards), attempts=dict(stage.attempts),
        retries=stage.retries, rows=stage.rows, shuffle_read=stage.shuffle_read,
        shuffle_written=stage.shuffle_written, wall_ns=stage.wall_ns, cpu_ns=stage.cpu_ns,
        median_ns=median, p99_ns=p99, max_ns=longest,
        first_start_ns=stage.first_start_ns, last_end_ns=stage.last_end_ns,
    )  # fmt: skip


def job_signs(running: Mapping[JobKey, RunningJob], live: Iterable[LiveJournal], resolve: Resolve) -> list[JobSigns]:
    """Return the signs of life of every job that is not settled."""
    slots = _slots_by_job(running, live, resolve)
    return [_signs(job, slots.get(key, _Slots(0, 0))) for key, job in running.items()]


class _Slots(NamedTuple):
    """Occupied slots of one job, in journals whose owner lives."""

    attempts: int
    jobs: int


def _signs(job: RunningJob, slots: _Slots) -> JobSigns:
    return JobSigns(
        key=job.key, context=job.context, implicit=job.implicit, coordinated=job.coordinated, start_ns=job.start_ns,
        ended_ns=job.ended_ns, orphaned_ns=job.orphaned_ns, heartbeat_ns=job.heartbeat_ns,
        last_record_ns=job.last_record_ns, lease_ns=job.lease_ns, planned=job.planned, seen=job.seen,
        decided=job.decided, committed=job.committed, dispatched=job.dispatched, recorded=job.recorded,
        live_attempts=slots.attempts, live_jobs=slots.jobs,
    )  # fmt: skip


def _slots_by_job(
    running: Mapping[JobKey, RunningJob], live: Iterable[LiveJournal], resolve: Resolve
) -> dict[JobKey, _Slots]:
    """Count the slots of each job. A slot may name its job by an alias, or by no incarnation at all."""
    names = {_name(key, incarnation): key for key, job in running.items() for incarnation in (0, *job.aliases)}
    found: dict[JobKey, _Slots] = {}
    for journal in live:
        for slot in journal.slots if journal.alive else ():
            context = resolve(journal.journal, slot.context_id)
            if context is None:
                continue  # its definition has not been folded yet, so neither has anything of the job from here
            key = context.job_key
            key = key if key in running else names.get(key, key)
            before = found.get(key, _Slots(0, 0))
            found[key] = _Slots(before.attempts + (not slot.is_job), before.jobs + slot.is_job)
    return found


def _name(key: JobKey, incarnation: int) -> JobKey:
    return JobKey(key.cluster, key.tenant, key.job_id, incarnation)


def _attempts(stages: Iterable[JobStage]) -> dict[AttemptOutcome, int]:
    return {outcome: sum(stage.attempts[outcome] for stage in stages) for outcome in AttemptOutcome}


def _quantiles(stage: JobStage) -> tuple[int | None, int | None, int | None]:
    """Return median, p99 and maximum of the durations of committed shards: the smallest value that so many reach."""
    durations = np.sort(stage.columns().durations())
    if len(durations) == 0:
        return None, None, None
    places = [-(-len(durations) * percent // 100) - 1 for percent in (50, 99, 100)]
    median, p99, longest = durations[places].tolist()
    return median, p99, longest
