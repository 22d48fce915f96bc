"""The scheduler: what it promises whatever happens, and its decisions one by one."""

from __future__ import annotations

import random

import pytest

from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    Cancel,
    Commit,
    Event,
    JobEnded,
    JobSubmitted,
    ShardFailed,
    StageOpened,
    StageReady,
    StageSpec,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import MAX_WINDOW
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, JobOutcome, Reason
from tests.executor.fates import Chances, Machines
from tests.executor.world import World

SECOND = 1_000_000_000


def scheduler(workers: int = 1) -> Scheduler:
    made = Scheduler(random.Random(0))
    for number in range(workers):
        made.on(WorkerUp(f"w{number}"), 0)
    return made


def begin(made: Scheduler, job: JobSubmitted, sizes: tuple[int, ...] = ()) -> list[Action]:
    """Submit a job of one stage and open it."""
    assert made.on(job, 0) == [StageReady(job.job, 0)]
    return made.on(StageOpened(job.job, 0, sizes), 0)


def tell(made: Scheduler, now: int, *events: Event) -> list[Action]:
    return [action for event in events for action in made.on(event, now)]


def job(shards: int, limits: Limits | None = None, **values: object) -> JobSubmitted:
    return JobSubmitted("j", (StageSpec(shards, (), limits or Limits()),), **values)  # type: ignore[arg-type]


def test_without_trouble_every_shard_takes_one_attempt() -> None:
    """Where nothing goes wrong there are as many submissions as shards."""
    world = World(1, Chances())
    world.submit(JobSubmitted("j", (StageSpec(100), StageSpec(10, (0,)), StageSpec(5), StageSpec(1, (1, 2)))))
    world.run()
    assert world.books["j"].submits == 116
    assert world.books["j"].ended == JobEnded("j", JobOutcome.SUCCESS)


def test_large_shards_go_first() -> None:
    """First attempts are started in the order of their sizes, so that the longest is not the last."""
    made = scheduler(workers=3)
    submitted = [action.attempt.shard for action in begin(made, job(4), (5, 50, 1, 20)) if isinstance(action, Submit)]
    assert submitted == [1, 3, 0]


def test_the_first_success_wins() -> None:
    """A shard whose lost worker finishes after all is committed once, and the copy begun meanwhile is stopped."""
    made = scheduler(workers=2)
    (first,) = begin(made, job(1))
    assert isinstance(first, Submit)
    actions = tell(made, 1, AttemptStarted(first.attempt), WorkerLost(first.worker))
    (second,) = [action for action in actions if isinstance(action, Submit)]
    assert second.attempt == AttemptId("j", 0, 0, 1)
    tell(made, 2, AttemptStarted(second.attempt))
    late = made.on(AttemptEnded(first.attempt, AttemptOutcome.SUCCESS), 3)
    assert late[:2] == [Commit(first.attempt), Stop(second.attempt, AttemptOutcome.SUPERSEDED)]
    assert made.on(AttemptEnded(second.attempt, AttemptOutcome.SUCCESS), 4) == [JobEnded("j", JobOutcome.SUCCESS)]


def test_a_superseded_attempt_commits_for_the_winner() -> None:
    """An attempt that finds another's output in place decides the shard for that one."""
    made = scheduler()
    (first,) = begin(made, job(1))
    assert isinstance(first, Submit)
    ended = AttemptEnded(first.attempt._replace(number=0), AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED, winner=5)
    assert made.on(ended, 1)[0] == Commit(AttemptId("j", 0, 0, 5))


def test_retries_wait_and_are_counted() -> None:
    """A shard that fails is tried again after a wait within the doubled limits, and given up at the fourth failure."""
    made = scheduler()
    (action,) = begin(made, job(1, Limits(backoff=1.0)))
    now = 0
    for failure in range(1, 5):
        assert isinstance(action, Submit)
        assert action.attempt.number == failure - 1
        tell(made, now, AttemptStarted(action.attempt))
        actions = made.on(AttemptEnded(action.attempt, AttemptOutcome.FAILURE, Reason.EXCEPTION), now)
        if failure == 4:
            break
        (wait,) = actions
        assert isinstance(wait, WaitUntil)
        assert 0 <= wait.time_ns - now <= SECOND << (failure - 1)
        assert made.on(Tick(), wait.time_ns - 1) == []
        now = wait.time_ns
        (action,) = made.on(Tick(), now)
    assert actions == [
        ShardFailed(action.attempt, Reason.RETRIES_EXHAUSTED),
        JobEnded("j", JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED),
    ]


def test_throttled_attempts_wait_at_least_half() -> None:
    """After throttling the wait never collapses: half the limit at least, and as long as the service asked for."""
    for asked in (0, 90 * SECOND):
        made = scheduler()
        (action,) = begin(made, job(1, Limits(backoff=10.0)))
        assert isinstance(action, Submit)
        event = AttemptEnded(action.attempt, AttemptOutcome.ERROR, Reason.STORAGE, throttled=True, retry_after_ns=asked)
        (wait,) = made.on(event, 0)
        assert isinstance(wait, WaitUntil)
        assert max(asked, 5 * SECOND) <= wait.time_ns <= max(asked, 10 * SECOND)


def test_what_cannot_succeed_is_not_tried_again() -> None:
    """A permanent failure gives the shard up at once, with its own reason."""
    made = scheduler()
    (action,) = begin(made, job(1))
    assert isinstance(action, Submit)
    event = AttemptEnded(action.attempt, AttemptOutcome.FAILURE, Reason.EXCEPTION, permanent=True)
    assert made.on(event, 0)[0] == ShardFailed(action.attempt, Reason.EXCEPTION)


def test_the_retry_budget_bounds_a_retry_storm() -> None:
    """Where everything fails, a job spends a tenth of its shards and three more retries, then it is over."""
    world = World(3, Chances(failure=1.0), Machines(8))
    world.submit(JobSubmitted("j", (StageSpec(200),), OnFailure.FINISH))
    world.run()
    assert world.books["j"].submits == 200 + 20 + 3
    assert world.books["j"].ended == JobEnded("j", JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED)


def test_lost_workers_do_not_count_as_failures_but_are_bounded() -> None:
    """Losing its worker three times costs a shard none of its tries; the fourth loss ends it, as an error."""
    made = scheduler()
    (action,) = begin(made, job(1, Limits(attempts=1, losses=3), retry_floor=0))
    now = 0
    for loss in range(4):
        assert isinstance(action, Submit)
        now += 60 * SECOND
        actions = tell(made, now, AttemptStarted(action.attempt), WorkerLost(action.worker))
        if loss < 3:
            ready = tell(made, now + 60 * SECOND, WorkerUp(f"again{loss}"))
            (action,) = [each for each in ready if isinstance(each, Submit)]
    assert ShardFailed(action.attempt, Reason.WORKER_LOST, JobOutcome.ERROR) in actions
    assert actions[-1] == JobEnded("j", JobOutcome.ERROR, Reason.WORKER_LOST)


def test_an_attempt_that_never_began_costs_nothing() -> None:
    """What waited at a worker that died goes elsewhere under the same number."""
    made = scheduler(workers=2)
    (first,) = begin(made, job(1, Limits(losses=0)))
    assert isinstance(first, Submit)
    assert made.on(WorkerLost(first.worker), 0) == [Submit(first.attempt, "w1")]


def test_an_attempt_that_runs_too_long_is_stopped() -> None:
    """The limit counts from the start, and it was a timeout even if the worker had to be killed for it."""
    made = scheduler()
    (first,) = begin(made, job(1, Limits(attempts=1, timeout=2.0)))
    assert isinstance(first, Submit)
    assert tell(made, 5 * SECOND, AttemptStarted(first.attempt)) == [WaitUntil(7 * SECOND)]
    assert made.on(Tick(), 7 * SECOND) == [Stop(first.attempt, AttemptOutcome.TIMEOUT)]
    actions = made.on(WorkerLost(first.worker), 8 * SECOND)
    assert actions == [
        ShardFailed(first.attempt, Reason.DEADLINE),
        JobEnded("j", JobOutcome.FAILURE, Reason.DEADLINE),
    ]


def test_a_failed_shard_stops_the_job_or_only_what_needs_it() -> None:
    """With STOP the rest is stopped and lost; with FINISH only the stages that need the failed one do not run."""
    stages = (StageSpec(1), StageSpec(2), StageSpec(1, (0,)))
    for policy, commits in ((OnFailure.STOP, 0), (OnFailure.FINISH, 2)):
        made = scheduler(workers=2)
        ready = made.on(JobSubmitted("j", stages, policy), 0)
        assert ready == [StageReady("j", 0), StageReady("j", 1)]
        tell(made, 0, StageOpened("j", 0), StageOpened("j", 1))
        bad, good = AttemptId("j", 0, 0, 0), AttemptId("j", 1, 0, 0)
        actions = tell(made, 1, AttemptEnded(bad, AttemptOutcome.FAILURE, Reason.EXCEPTION, permanent=True))
        assert (Stop(good, AttemptOutcome.CANCELLED) in actions) == (policy is OnFailure.STOP)
        outcome = AttemptOutcome.CANCELLED if policy is OnFailure.STOP else AttemptOutcome.SUCCESS
        actions = tell(
            made, 2, AttemptEnded(good, outcome), AttemptEnded(AttemptId("j", 1, 1, 0), AttemptOutcome.SUCCESS)
        )
        assert sum(isinstance(action, Commit) for action in actions) == commits
        assert actions[-1] == JobEnded("j", JobOutcome.FAILURE, Reason.EXCEPTION)


def test_cancelling_stops_what_runs_and_then_ends() -> None:
    """A cancelled job ends as such when its attempts have ended, whatever these came to."""
    made = scheduler(workers=2)
    begin(made, job(5))
    stops = made.on(Cancel("j"), 1)
    assert stops == [Stop(AttemptId("j", 0, shard, 0), AttemptOutcome.CANCELLED) for shard in (0, 1)]
    assert made.on(AttemptEnded(AttemptId("j", 0, 0, 0), AttemptOutcome.SUCCESS), 2) == [
        Commit(AttemptId("j", 0, 0, 0))
    ]
    ended = made.on(AttemptEnded(AttemptId("j", 0, 1, 0), AttemptOutcome.CANCELLED), 2)
    assert ended == [JobEnded("j", JobOutcome.CANCELLED)]


def test_short_tasks_are_given_out_ahead() -> None:
    """A worker holds several attempts once their stage is known to be of short ones, and one where it is not."""
    made = scheduler()
    assert len(begin(made, job(100))) == 1
    actions = made.on(AttemptEnded(AttemptId("j", 0, 0, 0), AttemptOutcome.SUCCESS, duration_ns=10_000), 1)
    assert sum(isinstance(action, Submit) for action in actions) == MAX_WINDOW


def test_the_load_is_what_is_pending_and_running() -> None:
    """The heartbeat's figures: jobs and shards that wait and run, workers that are idle and busy."""
    made = scheduler(workers=2)
    made.on(job(5), 0)
    assert made.load() == (1, 0, 5, 0, 2, 0, 0)
    made.on(StageOpened("j", 0), 0)
    assert made.load() == (0, 1, 3, 2, 0, 2, 0)


def test_misuse_is_refused() -> None:
    """A job or worker that is there already, and a stage that waits for nothing, are the caller's errors."""
    made = scheduler()
    begin(made, job(1))
    for event in (job(1), WorkerUp("w0"), StageOpened("j", 0), JobSubmitted("empty", (StageSpec(0),))):
        with pytest.raises(ValueError, match=r"already|waiting|without"):
            made.on(event, 0)
