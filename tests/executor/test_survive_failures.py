"""What a coordinator gave up, counted or was told to stop holds for those that go on after its death."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mppobs.executor import Executor, Limits, OnFailure, Plan, ShardPlan, Stage
from mppobs.executor.attempt import WHOLE
from mppobs.executor.decisions import (
    Begun,
    Cancelled,
    Charged,
    Decision,
    DecisionLog,
    Dispatched,
    GaveUp,
    Replaced,
    read_decisions,
    recover,
)
from mppobs.executor.events import Earlier, JobEnded, Setbacks
from mppobs.executor.files import JobFiles
from mppobs.executor.policies import Policy
from mppobs.executor.result import ShardFailure
from mppobs.executor.stages import Part
from mppobs.executor.workspace import Workspace
from mppobs.model import AttemptOutcome, Context, JobOutcome, Reason, ShardOutcome
from mppobs.testing import Captured, capture
from tests.executor.lives import PATIENT, Life, lives
from tests.executor.plans import group_by

POISON = (2, 3, 7)
SHARDS = 12
ATTEMPTS = 4
NO_COPIES = Policy(speculation=None)


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


def poisoned(directory: Path, **given: object) -> Plan:
    """Return a plan of which some shards always fail; a second stage does not need them, a third does."""
    script = {number: [-0.0] * 99 for number in POISON}
    arguments = {"directory": str(directory), "script": script}
    shards = tuple(ShardPlan(number) for number in range(SHARDS))
    task, limits = "tests.executor.tasks:scripted", Limits(attempts=ATTEMPTS, losses=200, backoff=0.5)
    first = Stage("first", task, shards, limits=limits, arguments=arguments)
    other = Stage("other", "tests.executor.tasks:value", (ShardPlan(0, {"what": 0}),), limits=PATIENT)
    last = Stage("last", "tests.executor.tasks:value", (ShardPlan(0, {"what": 0}),), after=("first",))
    values: dict[str, object] = {"retry_floor": 100, "on_failure": OnFailure.FINISH, **given}
    return Plan("pipe", (first, other, last), **values)  # type: ignore[arg-type]


def told(life: Life) -> tuple[JobEnded, list[tuple[int, int, int]], list[tuple[object, Reason, str]]]:
    """Return all of a job's result that does not depend on chance."""
    assert life.job is not None
    assert life.job.end is not None
    progress = [(stage.done, stage.failed, stage.planned) for stage in life.job.stage_progress()]
    failures: list[tuple[object, Reason, str]] = [
        (each.shard, each.reason, each.error_type) for each in life.job.failures
    ]
    return life.job.end, progress, sorted(failures, key=str)


def faults(captured: Captured) -> Counter[object]:
    """Return how often attempts of each shard have failed."""
    return Counter(record.shard_key for record in captured.attempts if record.outcome is AttemptOutcome.FAILURE)


def died(directory: Path, plan: Plan, *decisions: Decision) -> Life:
    """Return the life of a job whose first coordinator had decided this, and nothing else, when it died."""
    directory.mkdir(exist_ok=True)
    life = Life(directory, plan, fence=1)
    log = DecisionLog(directory / "decisions-000001")
    for decision in (Begun(plan, life.context, str(directory), 0), *decisions):
        log.add(decision)
    log.flush()
    log.close()
    JobFiles(directory).prepare(len(plan.stages))
    return life


def gave_up(shard: int, stage: str = "only", outcome: JobOutcome = JobOutcome.FAILURE) -> GaveUp:
    """Return the decision that a shard of the first stage was given up."""
    return GaveUp(0, shard, ShardFailure(stage, shard, 4, Reason.EXCEPTION, "ValueError", "no"), outcome)


@pytest.mark.parametrize("seed", range(12))
def test_it_ends_as_if_no_coordinator_had_died(tmp_path: Path, captured: Captured, seed: int) -> None:
    """Given-up shards stay so, the rest is done, and no shard fails more than its limit, all lives together."""
    (tmp_path / "usual").mkdir()
    usual = Life(tmp_path / "usual", poisoned(tmp_path / "usual"), NO_COPIES)
    with capture():
        assert usual.live(10_000, 0)
    chance = random.Random(seed)
    life = lives(tmp_path / "job", poisoned(tmp_path / "job"), chance, NO_COPIES, writes=True)
    assert life.fence > 2
    assert told(life) == told(usual)
    assert faults(captured) == dict.fromkeys(POISON, ATTEMPTS)
    ends = Counter((record.context_id, record.shard_key, record.outcome) for record in captured.commits)
    assert set(ends.values()) == {1}, "a shard was told twice"
    assert {key for _, key, outcome in ends if outcome is ShardOutcome.FAILED} == set(POISON)
    assert len(ends) == SHARDS + 1


@pytest.mark.parametrize("seed", range(6))
def test_what_was_not_written_down_is_all_that_is_tried_again(tmp_path: Path, captured: Captured, seed: int) -> None:
    """A coordinator that dies in the middle of a turn costs a shard that failed in it one more attempt at most."""
    life = lives(tmp_path / "job", poisoned(tmp_path / "job"), random.Random(seed), NO_COPIES)
    assert life.job is not None
    assert sorted(failure.shard for failure in life.job.failures) == list(POISON)
    assert all(ATTEMPTS <= count < ATTEMPTS + life.fence for count in faults(captured).values())
    assert Counter(record.outcome for record in captured.commits)[ShardOutcome.FAILED] == len(POISON)


@pytest.mark.parametrize("outcome", [JobOutcome.FAILURE, JobOutcome.ERROR])
def test_where_nobody_wants_the_rest_the_job_is_ended(tmp_path: Path, captured: Captured, outcome: JobOutcome) -> None:
    """With STOP the next coordinator starts nothing and ends the job as the one before it was about to."""
    plan = poisoned(tmp_path, on_failure=OnFailure.STOP)
    life = died(tmp_path, plan, gave_up(5, "first", outcome))
    assert life.live(1, 0)
    assert told(life)[0] == ("job", outcome, Reason.EXCEPTION)
    assert told(life)[2] == [(5, Reason.EXCEPTION, "ValueError")]
    assert not captured.commits + captured.attempts
    assert [job.outcome for job in captured.jobs if job.outcome] == [outcome]


def test_retries_are_spent_once(tmp_path: Path, captured: Captured) -> None:
    """The budget of retries is the job's: what one coordinator spent of it the next one has not."""
    for seed in range(4):
        directory = tmp_path / f"job-{seed}"
        plan = poisoned(directory, retry_share=0.0, retry_floor=5)
        before = sum(faults(captured).values())
        life = lives(directory, plan, random.Random(seed), NO_COPIES, writes=True)
        assert life.fence > 1
        assert sum(faults(captured).values()) - before == len(POISON) + 5
        assert [failure[:2] for failure in told(life)[2]] == [(shard, Reason.RETRIES_EXHAUSTED) for shard in POISON]


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_cancelled_job_stays_cancelled(tmp_path: Path, captured: Captured, steps: int) -> None:
    """Whoever takes it over before it has ended gives out nothing more, and says that it was cancelled."""
    life = Life(tmp_path, group_by(shards=30, limits=PATIENT))
    assert not life.live(steps, 1)
    assert life.loop is not None
    assert life.job is not None
    life.loop.cancel("job")
    life.job.flush()
    begun = len(captured.attempts)
    assert life.live(1, 2)
    assert told(life)[0] == ("job", JobOutcome.CANCELLED, Reason.NONE)
    assert len(captured.attempts) == begun
    assert not [each for each in read_decisions(tmp_path / "decisions-000002") if isinstance(each, Dispatched)]


def test_nobody_wants_the_parts_of_a_shard_that_was_given_up(tmp_path: Path, captured: Captured) -> None:
    """It may have been given up while it was being split: neither it nor its parts run."""
    stage = Stage("only", "tests.executor.tasks:value", tuple(ShardPlan(n, {"what": n}) for n in range(3)))
    parts = tuple(Part(f"1.{n}", 1, WHOLE, {"what": n}, 5) for n in range(2))
    split, failed = Replaced(0, 1, parts), gave_up(1)
    orders: list[list[Decision]] = [[split, failed], [failed, split]]
    for number, decisions in enumerate(orders):
        plan = Plan("pipe", (stage,), on_failure=OnFailure.FINISH)
        life = died(tmp_path / f"job-{number}", plan, *decisions)
        assert life.live(1000, 1)
        assert told(life)[0] == ("job", JobOutcome.FAILURE, Reason.EXCEPTION)
        assert told(life)[1] == [(2, 1, 4)]
    assert sorted(record.shard_key for record in captured.commits) == [0, 0, 2, 2]


def test_output_of_a_given_up_shard_is_not_committed(tmp_path: Path, captured: Captured) -> None:
    """An attempt that nobody waited for any more may have put it there: the shard stays given up."""
    plan = group_by(shards=3, limits=PATIENT, on_failure=OnFailure.FINISH)
    with capture():
        first = Life(tmp_path, plan)
        assert first.live(1000, 1)
    (tmp_path / "decisions-000001").unlink()
    assert sorted(JobFiles(tmp_path).committed(0)) == [0, 1, 2]
    life = died(tmp_path, plan, gave_up(1, "numbers"))
    assert life.live(1000, 1)
    assert told(life)[0] == ("job", JobOutcome.FAILURE, Reason.EXCEPTION)
    assert told(life)[1][0] == (2, 1, 3)
    assert [record.shard_key for record in captured.commits if record.outcome is ShardOutcome.FAILED] == []


def test_decisions_say_what_a_scheduler_has_to_know(tmp_path: Path) -> None:
    """The last total counts, the first thing that went wrong is the job's end, and a cancelled job is one."""
    plan = poisoned(tmp_path)
    charged = (Charged(0, 4, 1, 0, 0, 99), Charged(0, 4, 2, 1, 0, 98), Charged(1, 0, 0, 0, 5, 98))
    first = gave_up(7, "first", JobOutcome.ERROR)
    died(tmp_path, plan, *charged, first, Cancelled(), gave_up(2, "first"))
    old = recover([tmp_path / "decisions-000001"])
    assert old is not None
    assert old.retries == 98
    assert old.earlier() == Earlier(
        JobOutcome.ERROR, Reason.EXCEPTION, True, {0: [2, 7]}, {0: {4: Setbacks(2, 1)}, 1: {0: Setbacks(preemptions=5)}}
    )
    died(tmp_path / "new", plan)
    new = recover([tmp_path / "new" / "decisions-000001"])
    assert new is not None
    assert new.earlier() == Earlier()
    assert new.retries is None


@pytest.mark.parametrize(
    ("on_failure", "decisions", "outcome", "done"),
    [
        (OnFailure.FINISH, (gave_up(1),), JobOutcome.FAILURE, 2),
        (OnFailure.STOP, (gave_up(1),), JobOutcome.FAILURE, 0),
        (OnFailure.FINISH, (Cancelled(),), JobOutcome.CANCELLED, 0),
    ],
)
def test_an_executor_goes_on_as_it_was_decided(
    tmp_path: Path,
    captured: Captured,
    on_failure: OnFailure,
    decisions: Sequence[Decision],
    outcome: JobOutcome,
    done: int,
) -> None:
    """On real workers too: what can be done is done, the job ends, and its result says why."""
    shards = tuple(ShardPlan(number, {"what": number}) for number in range(3))
    plan = Plan("pipe", (Stage("only", "tests.executor.tasks:value", shards),), on_failure=on_failure)
    place = Workspace(tmp_path, 60.0).create()
    context = Context("pipe", "job-1", incarnation=7)
    log = DecisionLog(place.decisions)
    for decision in (Begun(plan, context, str(place.directory), 0), *decisions):
        log.add(decision)
    log.flush()
    log.close()
    JobFiles(place.directory).prepare(1)
    place.release()
    with Executor(1, tmp_path) as executor:
        (handle,) = executor.resume()
        result = handle.result(60)
    assert (result.job_id, result.outcome, result.stages[0].done) == ("job-1", outcome, done)
    assert [failure.shard for failure in result.failures] == [1] * (outcome is JobOutcome.FAILURE)
    assert sorted(record.shard_key for record in captured.commits) == [0, 2][:done]
