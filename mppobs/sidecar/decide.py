"""
What the passing of time means for a job: when it is judged, and when it is given up. Pure: time is an argument.

The aggregator writes every decision into its own journal and folds it like any record, so these rules are asked
once, and what they said then is what counts, however late or in what order the rest arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mppobs.model import Context, JobEvent, JobKey, JobOutcome, Reason


@dataclass(frozen=True, slots=True)
class DecideSettings:
    """How long to wait for what. Seconds."""

    settle_seconds: float = 5.0
    """After a job's end, for records that are still on their way."""
    lease_seconds: float = 60.0
    """For a coordinator that is gone, where the job does not name a lease of its own."""
    idle_seconds: float = 60.0
    """After the last sign of a job that nobody started or ended."""


@dataclass(frozen=True, slots=True)
class JobSigns:
    """What is known of one running job. Times in nanoseconds since the epoch, 0 for never."""

    key: JobKey
    context: Context
    implicit: bool
    """Opened by its first record, not by a start."""
    coordinated: bool
    start_ns: int
    ended_ns: int
    """When the end was folded; 0 while there is none."""
    orphaned_ns: int
    """When the coordinator's process was found dead; 0 while it lives, or once the job was resumed."""
    heartbeat_ns: int
    last_record_ns: int
    """When a record of it was folded last."""
    lease_ns: int
    planned: int
    seen: int
    """Shards of which there is any record."""
    decided: int
    committed: int
    dispatched: int
    recorded: int
    """Of the dispatched attempts, those whose record is there."""
    live_attempts: int
    """Occupied slots of attempts, in journals whose owner lives."""
    live_jobs: int
    """Occupied slots of the job itself, likewise."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step that the aggregator takes on a job's behalf."""

    key: JobKey
    context: Context
    event: JobEvent
    """`END` or `SETTLED`."""
    time_ns: int
    outcome: JobOutcome | None = None
    reason: Reason = Reason.NONE


def decisions(
    jobs: Iterable[JobSigns], now_ns: int, settings: DecideSettings, *, up_since_ns: int = 0
) -> list[Decision]:
    """
    Return what is to be decided now, at most one step per job.

    `up_since_ns` is when this aggregator began to listen: silence before that was its own.
    """
    return list(_steps(jobs, now_ns, settings, up_since_ns))


def _steps(jobs: Iterable[JobSigns], now_ns: int, settings: DecideSettings, up_since_ns: int) -> Iterator[Decision]:
    for job in jobs:
        if job.ended_ns:
            if _is_complete(job) or now_ns - job.ended_ns >= _patience(job, settings):
                yield Decision(job.key, job.context, JobEvent.SETTLED, now_ns)
        elif job.implicit:
            if _is_idle(job, now_ns, settings, up_since_ns):
                yield Decision(job.key, job.context, JobEvent.END, now_ns, _idle_outcome(job), Reason.IDLE)
        elif _is_lost(job, now_ns, settings, up_since_ns):
            yield Decision(job.key, job.context, JobEvent.END, now_ns, JobOutcome.ERROR, Reason.COORDINATOR_LOST)


def _is_complete(job: JobSigns) -> bool:
    """
    Return whether nothing more can come that counts.

    A coordinator says what it dispatched. Without one, only a plan whose every shard is decided, with no attempt
    running, says that nothing is on its way.
    """
    if job.coordinated:
        return job.recorded >= job.dispatched
    return job.live_attempts == 0 and 0 < job.planned <= job.decided


def _patience(job: JobSigns, settings: DecideSettings) -> int:
    """Return how long after its end a job waits for its records. Attempts that still run get as long as a lease."""
    settle = _ns(settings.settle_seconds)
    if job.coordinated or job.live_attempts == 0:
        return settle
    return max(settle, _lease(job, settings))


def _is_lost(job: JobSigns, now_ns: int, settings: DecideSettings, up_since_ns: int) -> bool:
    """
    Return whether a job has outlived its coordinator by its lease.

    A coordinator lives by its heartbeats; a job without one by its process: by its slot, by attempts, by records.
    """
    lease = _lease(job, settings)
    if job.orphaned_ns and now_ns - job.orphaned_ns >= lease:
        return True
    if not job.coordinated and (job.live_jobs or job.live_attempts):
        return False
    sign = max(job.heartbeat_ns, job.start_ns) if job.coordinated else max(job.last_record_ns, job.start_ns)
    return now_ns - max(sign, up_since_ns) >= lease


def _is_idle(job: JobSigns, now_ns: int, settings: DecideSettings, up_since_ns: int) -> bool:
    """Return whether a job that nobody started has neither an attempt running nor a record for long enough."""
    quiet_since = max(job.last_record_ns, job.start_ns, up_since_ns)
    return job.live_attempts == 0 and now_ns - quiet_since >= _ns(settings.idle_seconds)


def _idle_outcome(job: JobSigns) -> JobOutcome:
    """Return how a job went that nobody ended: well, if all that was seen or planned of it is committed."""
    shards = max(job.planned, job.seen)
    return JobOutcome.SUCCESS if 0 < shards <= job.committed else JobOutcome.FAILURE


def _lease(job: JobSigns, settings: DecideSettings) -> int:
    return job.lease_ns or _ns(settings.lease_seconds)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
