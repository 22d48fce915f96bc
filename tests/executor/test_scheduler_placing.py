"""What runs where: beside its data, with enough memory, on workers that stay; and how many workers there are to be."""

from __future__ import annotations

import pytest

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    Cancel,
    JobSubmitted,
    Scale,
    StageOpened,
    StageSpec,
    Tick,
    WaitUntil,
    WorkerDraining,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.plan import Limits
from mppobs.executor.policies import Autoscale, Policy
from mppobs.model import AttemptOutcome, Reason
from tests.executor.stand import SECOND, Stand, job, submits, workers

PATIENT = Limits(attempts=10, losses=10, backoff=0.0)


def nodes_of(stand: Stand) -> dict[int, str]:
    """Return where each shard is held."""
    return {attempt.shard: worker.split(".")[0] for attempt, worker in stand.held.items()}


# Beside the data


def test_shards_run_beside_their_data() -> None:
    """Each shard goes to the node that holds its input, in whatever order the workers are free."""
    stand = Stand(Policy(), *workers("a", "b", "c"))
    stand.begin(job(3), StageOpened("j", 0, (), ("c", "a", "b")))
    assert nodes_of(stand) == {0: "c", 1: "a", 2: "b"}


def test_a_stage_waits_for_its_data_and_not_for_ever() -> None:
    """A free worker elsewhere is passed on for three seconds, then taken."""
    stand = Stand(Policy(), *workers("a", "b"))
    actions = stand.begin(job(3), StageOpened("j", 0, (), ("a", "a", "a")))
    assert nodes_of(stand) == {0: "a"}
    (wait,) = [action for action in actions if isinstance(action, WaitUntil)]
    assert wait.time_ns == 3 * SECOND
    assert stand.tell(Tick(), at=2.9) == []
    stand.tell(Tick(), at=3)
    assert nodes_of(stand) == {0: "a", 1: "b"}


def test_a_worker_beside_the_data_ends_the_wait() -> None:
    """As soon as the node that is waited for has room, the next shard goes there."""
    stand = Stand(Policy(), *workers("a", "b"))
    stand.begin(job(3), StageOpened("j", 0, (), ("a", "a", "a")))
    stand.start()
    (given,) = submits(stand.finish(AttemptId("j", 0, 0, 0), took=10.0))
    assert given == (AttemptId("j", 0, 1, 0), "a.0", False)


def test_others_use_what_a_stage_passes_on() -> None:
    """While one stage waits for its data, another job runs on the free worker."""
    stand = Stand(Policy(), *workers("a", "b"))
    stand.begin(job(2), StageOpened("j", 0, (), ("a", "a")))
    (given,) = submits(stand.begin(job(1, "other")))
    assert given.worker == "b.1"


def test_data_on_unknown_nodes_is_not_waited_for() -> None:
    """Where no worker is beside the data, and with the policy off, shards go anywhere at once."""
    for policy, where in ((Policy(), "storage"), (Policy(locality_wait=0.0), "a")):
        stand = Stand(policy, *workers("a", "b"))
        stand.begin(job(2), StageOpened("j", 0, (), (where, where)))
        assert len(stand.held) == 2


# Memory


def test_after_running_out_of_memory_a_shard_gets_more() -> None:
    """The next attempt waits for a worker with more memory, although smaller ones are free."""
    stand = Stand(Policy(), *workers("a", "b", memory=4), *workers("big", memory=16))
    stand.begin(job(3, limits=PATIENT))
    small, large = ([a for a, w in stand.held.items() if w.startswith("big") is big] for big in (False, True))
    assert submits(stand.tell(AttemptStarted(small[0]))) == []
    assert submits(stand.fail(small[0], Reason.OOM_KILLED)) == []
    (given,) = submits(stand.finish(large[0], took=10.0))
    assert (given.attempt.shard, given.worker) == (small[0].shard, "big.0")


def test_where_there_is_no_more_memory_a_shard_has_its_node_alone() -> None:
    """The node is emptied for it, nothing else starts there while it runs, and others have it back after that."""
    stand = Stand(Policy(), *workers("a", "a", "a", memory=4))
    stand.begin(job(9, limits=PATIENT))
    stand.start()
    first, second, third = list(stand.held)
    assert submits(stand.fail(first, Reason.OOM_KILLED)) == []
    assert submits(stand.finish(second, took=10.0)) == []
    (alone,) = submits(stand.finish(third, took=10.0))
    assert alone.attempt == first._replace(number=1)
    stand.start()
    assert submits(stand.tell(Tick())) == []
    assert len(submits(stand.finish(alone.attempt, took=10.0))) == 3


def test_without_the_policy_memory_is_not_looked_at() -> None:
    """With the policy off the shard goes back to whatever worker is free."""
    stand = Stand(Policy(memory_retry=False), *workers("a", memory=4), *workers("big", memory=16))
    stand.begin(job(2, limits=PATIENT))
    (small,) = [attempt for attempt, worker in stand.held.items() if worker == "a.0"]
    stand.start()
    (again,) = submits(stand.fail(small, Reason.OOM_KILLED))
    assert again.worker == "a.0"


def test_a_stage_gets_the_memory_that_it_asks_for() -> None:
    """A stage that needs much waits for large workers, and takes the largest where none is large enough."""
    stand = Stand(Policy(), *workers("a", "b", memory=4), *workers("big", memory=16))
    stand.begin(job(5, memory_bytes=8))
    assert list(stand.held.values()) == ["big.0"]
    stand = Stand(Policy(), *workers("a", "b", memory=4))
    stand.begin(job(5, memory_bytes=8))
    assert len(stand.held) == 2


# Workers that may go


def test_priority_decides_who_may_be_evicted() -> None:
    """High priority waits for a worker that stays, low priority takes those first that may go."""
    mixed = (*workers("spot", "spot", spot=True), *workers("own"))
    stand = Stand(Policy(), *mixed)
    stand.begin(job(5, priority=1))
    assert list(stand.held.values()) == ["own.0"]
    stand = Stand(Policy(), *mixed)
    stand.begin(job(1, priority=-1))
    assert list(stand.held.values()) == ["spot.0"]
    stand = Stand(Policy(spot=None), *mixed)
    stand.begin(job(5, priority=1))
    assert len(stand.held) == 3


def test_high_priority_runs_somewhere() -> None:
    """Where all workers may be evicted, high priority runs there too; also when the last other one goes."""
    stand = Stand(Policy(), *workers("spot", spot=True))
    stand.begin(job(5, priority=1))
    assert len(stand.held) == 1
    stand = Stand(Policy(), *workers("spot", spot=True), *workers("own"))
    stand.begin(job(5, priority=1))
    stand.start()
    actions = stand.tell(WorkerLost("own.0"))
    assert [given.worker for given in submits(actions)] == ["spot.0"]


def test_a_shard_that_was_evicted_twice_goes_where_it_stays() -> None:
    """After two evictions a shard waits for a worker that is not taken away, without a fault being counted."""
    stand = Stand(Policy(), WorkerUp("s0", "spot", spot=True))
    stand.begin(job(1, limits=Limits(attempts=1))._replace(retry_floor=0))
    for n in range(2):
        stand.start()
        stand.held.clear()
        stand.tell(WorkerUp(f"s{n + 1}", "spot", spot=True), *([WorkerUp("own")] if n else []))
        (again,) = submits(stand.tell(WorkerLost(f"s{n}", Reason.PREEMPTED)))
        assert again.worker == ("s1" if n == 0 else "own")


def test_a_worker_that_will_be_taken_away_gets_nothing_more() -> None:
    """After the notice what runs there may end, and nothing new goes there."""
    stand = Stand(Policy(), *workers("a", "b"))
    stand.begin(job(9))
    stand.start()
    assert stand.tell(WorkerDraining("a.0")) == []
    assert stand.scheduler.load().draining_workers == 1
    (held,) = [attempt for attempt, worker in stand.held.items() if worker == "a.0"]
    assert submits(stand.finish(held, took=10.0)) == []


# How many workers


def scales(actions: list[object]) -> list[int]:
    """Return the numbers of workers asked for."""
    return [action.workers for action in actions if isinstance(action, Scale)]


def test_workers_follow_the_work() -> None:
    """Many shards raise their number at once, up to the most; when all is done it falls to the least, later."""
    stand = Stand(Policy(autoscale=Autoscale(1, 10, down_after=60)), *workers("a"))
    assert scales(stand.begin(job(50))) == [10]
    stand.start()
    stand.tell(Cancel("j"))
    stand.tell(AttemptEnded(next(iter(stand.held)), AttemptOutcome.CANCELLED))
    found = {second: scales(stand.tell(Tick(), at=second)) for second in range(1, 200)}
    assert [workers for workers in found.values() if workers] == [[1]]
    assert min(second for second in found if found[second]) >= 60, "not before it has been enough for that long"


def test_a_little_more_work_changes_nothing() -> None:
    """A difference within the tolerance, and a dip that does not last, leave the workers as they are."""
    stand = Stand(Policy(autoscale=Autoscale(1, 100, drain=10.0, up_after=1.0)), *workers("a"))
    assert scales(stand.begin(job(100))) == [100]
    stand.start()
    stand.finish(next(iter(stand.held)), took=1.0)
    found: list[int] = []
    for second in range(2, 200):
        found += scales(stand.tell(Tick(), at=second))
    assert found == []


# Jobs that go on


def test_a_resumed_job_runs_what_is_left() -> None:
    """Shards that are in place are neither run nor told again, and stages that are complete are not opened."""
    stages = (StageSpec(3), StageSpec(4, (0,)), StageSpec(1, (1,)))
    stand = Stand(Policy(), *workers(*["n"] * 9))
    resumed = JobSubmitted("j", stages, committed={0: (0, 1, 2), 1: (1, 3)})
    assert [type(action).__name__ for action in stand.tell(resumed)] == ["StageReady"]
    stand.tell(StageOpened("j", 1))
    assert sorted(attempt[1:3] for attempt in stand.held) == [(1, 0), (1, 2)]


def test_a_resumed_job_without_anything_left_is_over() -> None:
    """A job that was complete when its coordinator died ends at once."""
    stand = Stand(Policy())
    (ended,) = stand.tell(JobSubmitted("j", (StageSpec(2),), committed={0: (0, 1)}))
    assert type(ended).__name__ == "JobEnded"


@pytest.mark.parametrize("policy", [Policy(), Policy.plain()])
def test_a_job_runs_to_its_end_under_any_policy(policy: Policy) -> None:
    """With everything on or everything off, two stages run one after the other."""
    stand = Stand(policy, *workers("a", "b"))
    stand.begin(JobSubmitted("j", (StageSpec(5), StageSpec(3, (0,)))))
    kinds: list[str] = []
    while stand.held:
        stand.start()
        for action in stand.finish(next(iter(stand.held))):
            kinds.append(type(action).__name__)
            if kinds[-1] == "StageReady":
                stand.tell(StageOpened("j", 1))
    assert kinds.count("Commit") == 8
    assert kinds[-1] == "JobEnded"
