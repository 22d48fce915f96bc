"""Jobs that another scheduler began: what was given up or cancelled stays so, and what was counted counts."""

from __future__ import annotations

import pytest

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    Cancel,
    Earlier,
    JobEnded,
    JobSubmitted,
    Setbacks,
    ShardFailed,
    StageDone,
    StageOpened,
    StageReady,
    StageSpec,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Policy, Spot
from mppobs.model import AttemptOutcome, JobOutcome, Reason
from tests.executor.stand import Stand, job, submits, workers

EXHAUSTED = Earlier(JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED, given_up={0: (1,)})
PERMANENT = {"outcome": AttemptOutcome.FAILURE, "reason": Reason.EXCEPTION, "permanent": True}


def test_a_given_up_shard_is_not_tried_again() -> None:
    """With FINISH the others are done, and the job ends as what the given-up one made of it."""
    stand = Stand(Policy(), *workers("a", "b", "c"))
    stand.begin(job(3)._replace(on_failure=OnFailure.FINISH, earlier=EXHAUSTED))
    assert {attempt.shard for attempt in stand.held} == {0, 2}
    actions = stand.finish(*stand.held)
    assert actions[-1] == JobEnded("j", JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED)
    assert not any(isinstance(action, ShardFailed | StageDone) for action in actions)


def test_with_stop_the_job_ends_at_once() -> None:
    """Where nobody wants the rest, nothing is opened and the job ends as it was about to."""
    stand = Stand(Policy(), *workers("a"))
    ended = JobEnded("j", JobOutcome.ERROR, Reason.WORKER_LOST)
    earlier = Earlier(JobOutcome.ERROR, Reason.WORKER_LOST, given_up={0: (1,)})
    assert stand.tell(job(3)._replace(on_failure=OnFailure.STOP, earlier=earlier)) == [ended]


def test_what_reads_a_given_up_shard_is_not_run() -> None:
    """A stage that is decided with a given-up shard closes what needs it, directly or not, and nothing else."""
    stages = (StageSpec(2), StageSpec(1), StageSpec(1, (0, 1)), StageSpec(1, (2,)), StageSpec(1, (1,)))
    submitted = JobSubmitted("j", stages, OnFailure.FINISH, committed={0: (0,), 1: (0,)}, earlier=EXHAUSTED)
    stand = Stand(Policy(), *workers("a"))
    assert stand.tell(submitted) == [StageReady("j", 4)]
    stand.tell(StageOpened("j", 4))
    assert stand.finish(*stand.held)[-1] == JobEnded("j", JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED)


def test_a_job_of_which_nothing_else_is_left_ends() -> None:
    """All the other shards are committed: it ends without a word of the shard that was given up."""
    stand = Stand(Policy())
    submitted = job(2)._replace(on_failure=OnFailure.FINISH, committed={0: (0, 1)}, earlier=EXHAUSTED)
    assert stand.tell(submitted) == [JobEnded("j", JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED)]


def test_a_cancelled_job_starts_nothing() -> None:
    """It ends as cancelled, or as what had gone wrong before that; it can be cancelled no more."""
    for earlier, end in (
        (Earlier(JobOutcome.CANCELLED, cancelled=True), JobEnded("j", JobOutcome.CANCELLED)),
        (EXHAUSTED._replace(cancelled=True), JobEnded("j", JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED)),
    ):
        stand = Stand(Policy(), *workers("a"))
        assert stand.tell(job(3)._replace(on_failure=OnFailure.FINISH, earlier=earlier)) == [end]
        assert stand.tell(Cancel("j")) == []


@pytest.mark.parametrize(
    ("had", "event", "given_up"),
    [
        (Setbacks(faults=3), AttemptOutcome.FAILURE, True),
        (Setbacks(faults=2, losses=3, preemptions=9), AttemptOutcome.FAILURE, False),
        (Setbacks(losses=3), Reason.WORKER_LOST, True),
        (Setbacks(faults=3, losses=2), Reason.WORKER_LOST, False),
        (Setbacks(preemptions=20), Reason.PREEMPTED, True),
        (Setbacks(faults=3, losses=3, preemptions=19), Reason.PREEMPTED, False),
    ],
)
def test_limits_go_on_from_what_a_shard_has_had(had: Setbacks, event: AttemptOutcome | Reason, given_up: bool) -> None:
    """A shard that is at a limit is given up at the next setback of that kind, and of no other."""
    stand = Stand(Policy(), *workers("a"))
    limits = Limits(attempts=4, losses=3, preemptions=20)
    stand.begin(job(1, limits=limits)._replace(earlier=Earlier(setbacks={0: {0: had}})))
    assert stand.scheduler.setbacks("j", 0, 0) == had
    stand.start()
    (attempt,) = stand.held
    if isinstance(event, Reason):
        actions = stand.tell(WorkerLost("a.0", event))
    else:
        actions = stand.tell(AttemptEnded(attempt, event, Reason.EXCEPTION))
    assert any(isinstance(action, ShardFailed) for action in actions) == given_up
    if not given_up:
        assert sum(stand.scheduler.setbacks("j", 0, 0)) == sum(had) + 1


def test_what_a_job_can_still_pay_for_is_known() -> None:
    """Each retry takes from the budget, a shard that is given up does not; a resumed job has what was left."""
    stand = Stand(Policy(), *workers("a"))
    stand.begin(job(10, limits=Limits(attempts=9))._replace(on_failure=OnFailure.FINISH, retry_floor=3))
    assert stand.scheduler.retries("j") == 4
    (attempt,) = stand.held
    stand.fail(attempt)
    assert stand.scheduler.retries("j") == 3
    assert stand.scheduler.setbacks("j", 0, attempt.shard) == Setbacks(1)
    (attempt,) = stand.held
    assert stand.tell(AttemptEnded(attempt, **PERMANENT))  # type: ignore[arg-type]
    assert stand.scheduler.retries("j") == 3
    other = Stand(Policy())
    other.tell(job(10)._replace(retry_share=0.0, retry_floor=3))
    assert other.scheduler.retries("j") == 3


def test_a_shard_that_was_evicted_often_is_kept_from_spot_workers() -> None:
    """What it needs of its worker follows from what it has had, as it would have without a takeover."""
    stand = Stand(Policy(spot=Spot(evictions=2)), WorkerUp("s", spot=True), WorkerUp("d"))
    stand.begin(job(2)._replace(earlier=Earlier(setbacks={0: {0: Setbacks(preemptions=2)}})))
    assert stand.held == {AttemptId("j", 0, 0, 0): "d", AttemptId("j", 0, 1, 0): "s"}
    assert submits(stand.finish(*stand.held)) == []
