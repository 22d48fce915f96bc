"""When a job is judged and when it is given up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.model import Context, JobEvent, JobOutcome, Reason
from mppobs.sidecar.decide import DecideSettings, Decision, JobSigns, decisions

SECOND = 1_000_000_000
SETTINGS = DecideSettings(settle_seconds=5, lease_seconds=60, idle_seconds=30)
CONTEXT = Context("nightly", "nightly-1", incarnation=7)
BEGUN = 1000 * SECOND

QUIET = JobSigns(
    key=CONTEXT.job_key, context=CONTEXT, implicit=False, coordinated=True, start_ns=BEGUN, ended_ns=0, orphaned_ns=0,
    heartbeat_ns=0, last_record_ns=0, lease_ns=0, planned=0, seen=0, decided=0, committed=0, dispatched=0, recorded=0,
    live_attempts=0, live_jobs=0,
)  # fmt: skip
"""A coordinated job that started and was not heard of again."""


def after(job: JobSigns, seconds: float, up_since_ns: int = 0) -> Decision | None:
    """Return what is decided so many seconds after the job began."""
    found = decisions([job], BEGUN + round(seconds * SECOND), SETTINGS, up_since_ns=up_since_ns)
    return found[0] if found else None


times = st.integers(0, 200).map(lambda seconds: BEGUN + seconds * SECOND)
maybe = st.one_of(st.just(0), times)
counts = st.integers(0, 4)
jobs = st.builds(
    JobSigns, key=st.just(CONTEXT.job_key), context=st.just(CONTEXT), implicit=st.booleans(), coordinated=st.booleans(),
    start_ns=st.just(BEGUN), ended_ns=maybe, orphaned_ns=maybe, heartbeat_ns=maybe, last_record_ns=maybe,
    lease_ns=st.sampled_from([0, SECOND, 90 * SECOND]), planned=counts, seen=counts, decided=counts, committed=counts,
    dispatched=counts, recorded=counts, live_attempts=counts, live_jobs=counts,
)  # fmt: skip


def naive(job: JobSigns, now: int, up: int) -> tuple[JobEvent, JobOutcome | None, Reason] | None:
    """Return the decision as a table of conditions, written apart from the code under test."""
    lease = job.lease_ns or 60 * SECOND
    if job.ended_ns > 0:
        if job.coordinated:
            due = job.recorded >= job.dispatched or now >= job.ended_ns + 5 * SECOND
        else:
            nothing_pending = job.planned > 0 and job.decided >= job.planned
            wait = 5 * SECOND if job.live_attempts == 0 else max(5 * SECOND, lease)
            due = (nothing_pending and job.live_attempts == 0) or now >= job.ended_ns + wait
        return (JobEvent.SETTLED, None, Reason.NONE) if due else None
    if job.implicit:
        if job.live_attempts > 0 or now < max(job.last_record_ns, job.start_ns, up) + 30 * SECOND:
            return None
        good = max(job.planned, job.seen) > 0 and job.committed >= max(job.planned, job.seen)
        return (JobEvent.END, JobOutcome.SUCCESS if good else JobOutcome.FAILURE, Reason.IDLE)
    lost = job.orphaned_ns > 0 and now >= job.orphaned_ns + lease
    if job.coordinated:
        lost = lost or now >= max(job.heartbeat_ns, job.start_ns, up) + lease
    elif job.live_attempts + job.live_jobs == 0:
        lost = lost or now >= max(job.last_record_ns, job.start_ns, up) + lease
    return (JobEvent.END, JobOutcome.ERROR, Reason.COORDINATOR_LOST) if lost else None


@given(jobs, times, maybe)
@settings(deadline=None)
def test_decisions_agree_with_a_table_of_conditions(job: JobSigns, now: int, up: int) -> None:
    """Every combination of signs leads to what the table says, with the job's own key and the time of deciding."""
    found = decisions([job], now, SETTINGS, up_since_ns=up)

    expected = naive(job, now, up)
    assert [(each.event, each.outcome, each.reason) for each in found] == ([expected] if expected else [])
    assert all((each.key, each.context, each.time_ns) == (job.key, job.context, now) for each in found)


@given(jobs, times, st.integers(0, 500))
@settings(deadline=None)
def test_what_is_due_stays_due(job: JobSigns, now: int, later: int) -> None:
    """A decision that is due is still due later if nothing more is heard, and is the same one."""
    early = decisions([job], now, SETTINGS)
    late = decisions([job], now + later * SECOND, SETTINGS)

    assert not early or [replace(each, time_ns=now) for each in late] == early


@given(jobs)
@settings(deadline=None)
def test_every_job_whose_attempts_are_over_ends_and_settles(job: JobSigns) -> None:
    """No combination of signs keeps a job for ever, once no slot of it is occupied."""
    still = replace(job, live_attempts=0, live_jobs=0)

    assert decisions([still], BEGUN + 10_000 * SECOND, SETTINGS)


def test_a_coordinated_job_settles_as_soon_as_every_dispatched_attempt_is_recorded() -> None:
    """It waits for the last record, and for settle_seconds at the longest."""
    ended = replace(QUIET, ended_ns=BEGUN + 10 * SECOND, dispatched=3, recorded=2)

    assert after(ended, 14.9) is None
    assert after(ended, 15) is not None
    recorded = after(replace(ended, recorded=3), 10)
    assert recorded is not None
    assert recorded.event is JobEvent.SETTLED


def test_a_job_without_coordinator_waits_while_its_attempts_run() -> None:
    """An attempt that still runs holds the judgement back beyond settle_seconds, up to a lease."""
    ended = replace(QUIET, coordinated=False, ended_ns=BEGUN, planned=2, decided=2, live_attempts=1)

    assert after(ended, 59) is None
    assert after(ended, 60) is not None
    assert after(replace(ended, live_attempts=0), 0) is not None


def test_an_unplanned_job_without_coordinator_waits_for_what_it_cannot_know() -> None:
    """Without a plan nothing says that all has arrived, so settle_seconds pass first."""
    ended = replace(QUIET, coordinated=False, ended_ns=BEGUN)

    assert after(ended, 4.9) is None
    assert after(ended, 5) is not None


@pytest.mark.parametrize("lease_seconds", [10, 90])
def test_a_dead_coordinator_is_given_its_lease(lease_seconds: int) -> None:
    """Orphaned jobs end as coordinator_lost when the lease that they name has passed, not earlier."""
    orphan = replace(QUIET, orphaned_ns=BEGUN, heartbeat_ns=BEGUN + 500 * SECOND, lease_ns=lease_seconds * SECOND)

    assert after(orphan, lease_seconds - 0.1) is None
    lost = after(orphan, lease_seconds)
    assert lost is not None
    assert (lost.event, lost.outcome, lost.reason) == (JobEvent.END, JobOutcome.ERROR, Reason.COORDINATOR_LOST)


def test_silence_before_the_aggregator_listened_is_not_the_coordinators() -> None:
    """After an hour's outage of the aggregator, a coordinator has a whole lease to be heard again."""
    up = BEGUN + 3600 * SECOND

    assert after(QUIET, 3600 + 59, up) is None
    assert after(QUIET, 3600 + 60, up) is not None


def test_a_job_that_nobody_started_ends_when_it_has_been_quiet() -> None:
    """It is a success if every shard that was seen is committed, a failure otherwise; running is not quiet."""
    quiet = replace(QUIET, implicit=True, coordinated=False, last_record_ns=BEGUN + 5 * SECOND, seen=2, committed=2)

    assert after(quiet, 34) is None
    good = after(quiet, 35)
    bad = after(replace(quiet, committed=1), 35)
    assert good is not None
    assert bad is not None
    assert (good.outcome, bad.outcome) == (JobOutcome.SUCCESS, JobOutcome.FAILURE)
    assert after(replace(quiet, live_attempts=1), 1000) is None
