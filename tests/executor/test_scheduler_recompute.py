"""Output that is lost: it is computed again, once, and what reads it waits."""

from __future__ import annotations

from mppobs.executor.events import (
    AttemptId,
    Commit,
    JobEnded,
    JobSubmitted,
    OutputLost,
    ShardFailed,
    StageDone,
    StageOpened,
    StageReady,
    StageSpec,
    Stop,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Policy
from mppobs.model import AttemptOutcome, JobOutcome, Reason
from tests.executor.stand import Stand, submits, workers

FIRST, READER = AttemptId("j", 0, 0, 0), AttemptId("j", 1, 0, 0)


def reading(losses: int = 3, attempts: int = 1) -> Stand:
    """Return a job whose second stage reads what the first has committed; no retry is free."""
    stand = Stand(Policy(), *workers("a"))
    limits = Limits(attempts=attempts, losses=losses)
    stages = (StageSpec(1, (), limits), StageSpec(1, (0,), limits))
    stand.begin(JobSubmitted("j", stages, OnFailure.STOP, retry_floor=0))
    stand.start()
    assert stand.finish(FIRST) == [Commit(FIRST), StageDone("j", 0), StageReady("j", 1)]
    stand.tell(StageOpened("j", 1))
    stand.start()
    return stand


def test_lost_output_is_computed_again_and_the_reader_waits() -> None:
    """The reader that found it missing is not to blame: it goes again when the output is there once more."""
    stand = reading()
    assert submits(stand.tell(OutputLost("j", 0, 0))) == []
    (again,) = submits(stand.fail(READER, Reason.STORAGE))
    assert again.attempt == FIRST._replace(number=1)
    stand.start()
    actions = stand.finish(again.attempt)
    assert actions[:2] == [Commit(again.attempt), StageDone("j", 0)]
    assert [given.attempt for given in submits(actions)] == [READER._replace(number=1)]
    stand.start()
    assert stand.finish(READER._replace(number=1))[-1] == JobEnded("j", JobOutcome.SUCCESS)


def test_output_that_is_lost_again_and_again_ends_the_job() -> None:
    """It is computed as often as a shard may lose its worker, then the shard is given up, as the storage's error."""
    stand = reading(losses=0)
    actions = stand.tell(OutputLost("j", 0, 0))
    failed = ShardFailed(FIRST, Reason.STORAGE, JobOutcome.ERROR)
    assert actions == [failed, Stop(READER, AttemptOutcome.CANCELLED)]
    assert stand.fail(READER, Reason.STORAGE) == [JobEnded("j", JobOutcome.ERROR, Reason.STORAGE)]


def test_output_that_nobody_reads_any_more_is_not_computed() -> None:
    """When all readers are done the loss changes nothing; nor does one of a job or shard that is not there."""
    stand = Stand(Policy(), *workers("a"))
    stand.begin(JobSubmitted("j", (StageSpec(1), StageSpec(1, (0,)), StageSpec(1, (1,)))))
    stand.start()
    stand.finish(FIRST)
    stand.tell(StageOpened("j", 1))
    stand.start()
    assert stand.tell(OutputLost("j", 1, 0), OutputLost("other", 0, 0)) == []
    stand.finish(READER)
    assert stand.tell(OutputLost("j", 0, 0)) == []


def test_output_that_is_lost_before_its_stage_is_complete_is_one_shard_more() -> None:
    """The stage is told to be done once, when every shard is there again."""
    stand = Stand(Policy(), *workers("a", "b"))
    stand.begin(JobSubmitted("j", (StageSpec(2), StageSpec(1, (0,)))))
    stand.start()
    stand.finish(FIRST)
    (again,) = submits(stand.tell(OutputLost("j", 0, 0)))
    stand.start()
    assert StageDone("j", 0) not in stand.finish(AttemptId("j", 0, 1, 0))
    assert StageDone("j", 0) in stand.finish(again.attempt)


def test_a_resumed_job_computes_what_it_finds_missing() -> None:
    """Output of a stage that a resumed job took for complete is computed again when it turns out to be gone."""
    stand = Stand(Policy(), *workers("a"))
    stages = (StageSpec(2), StageSpec(1, (0,)))
    assert stand.tell(JobSubmitted("j", stages, committed={0: (0, 1)})) == [StageReady("j", 1)]
    stand.tell(StageOpened("j", 1))
    stand.start()
    assert stand.tell(OutputLost("j", 0, 1)) == [StageReady("j", 0)]
    stand.fail(READER, Reason.STORAGE)
    (again,) = submits(stand.tell(StageOpened("j", 0)))
    assert again.attempt == AttemptId("j", 0, 1, 0)
    stand.start()
    assert [given.attempt.stage for given in submits(stand.finish(again.attempt))] == [1]


def test_output_that_is_lost_twice_over_is_computed_by_one_attempt() -> None:
    """A retry that still waits when its shard commits after all, and is wanted once more, is not made twice."""
    stand = Stand(Policy(), *workers("a"))
    stand.begin(JobSubmitted("j", (StageSpec(1), StageSpec(1, (0,)))))
    stand.start()
    stand.tell(WorkerLost("a.0"))
    assert Commit(FIRST) in stand.finish(FIRST), "its worker was not dead after all"
    stand.tell(OutputLost("j", 0, 0))
    stand.tell(WorkerUp("b"), WorkerUp("c"))
    assert len(stand.held) == 1
