"""The scheduler in a simulated world: what holds whatever goes wrong, and that nothing depends on chance."""

from __future__ import annotations

from collections import Counter

import pytest

from mppobs.executor.faults import parse_faults
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Policy
from mppobs.executor.sim.model import Cluster, JobModel, StageModel
from mppobs.executor.sim.run import Simulation
from mppobs.model import AttemptOutcome, JobOutcome, Reason, Tier
from tests.executor.sim.worlds import Book, random_simulation

SMALL = Cluster(nodes=4, lanes=2)


def job(shards: int = 40, seconds: float = 10.0, name: str = "nightly", tenant: str = "default") -> JobModel:
    """Return a job of one stage."""
    return JobModel(name, f"{name}-1", (StageModel("map", shards, seconds),), tenant)


def run(
    *jobs: JobModel, faults: tuple[str, ...] = (), seed: int = 7, policy: Policy | None = None
) -> tuple[Simulation, Book]:
    """Run jobs on a small cluster to their ends."""
    book = Book()
    simulation = Simulation(SMALL, seed=seed, faults=parse_faults(faults), observer=book, policy=policy)
    for each in jobs:
        simulation.submit(each)
    simulation.run()
    for state in simulation.jobs:
        book.check(state)
    return simulation, book


@pytest.mark.parametrize("block", [0, 1, 2, *(pytest.param(block, marks=pytest.mark.slow) for block in range(3, 50))])
def test_whatever_goes_wrong_each_shard_is_decided_once(block: int) -> None:
    """Random jobs, clusters, policies and faults, dead coordinators too: nothing is lost, doubled or without an end."""
    for seed in range(50 * block, 50 * block + 50):
        book = Book()
        simulation = random_simulation(seed, book)
        try:
            simulation.run()
            for state in simulation.jobs:
                book.check(state)
        except (AssertionError, RuntimeError, ValueError, KeyError) as error:
            error.add_note(f"seed {seed}: {simulation.world.faults} {book.story}")
            raise


def test_the_same_seed_gives_the_same_history() -> None:
    """Two runs of a troubled simulation tell the same, attempt by attempt; another seed does not."""

    def history(seed: int) -> list[object]:
        _, book = run(job(), faults=("retry-storm:severity=0.1", "node-loss:at=20"), seed=seed)
        return [(tried.shard, tried.number, tried.worker, tried.start_ns, tried.end_ns) for tried in book.tries]

    assert history(7) == history(7)
    assert history(7) != history(8)


def test_a_policy_changes_no_draw() -> None:
    """The first attempt of a shard on a node takes as long with speculation as without: only decisions differ."""
    usual = {(t.shard, t.number, t.node.name): t.fate.seconds for t in run(job())[1].tries}
    plain = {(t.shard, t.number, t.node.name): t.fate.seconds for t in run(job(), policy=Policy.plain())[1].tries}
    both = usual.keys() & plain.keys()

    assert len(both) > 10
    assert all(usual[key] == plain[key] for key in both)


def test_a_standby_goes_on_from_what_is_there() -> None:
    """What was committed or in place when the coordinator died is not run again once the standby has the job."""
    simulation, book = run(job(), faults=("coordinator:at=25,for=10",))
    takeover = 35e9
    before = {t.shard for t in book.tries if t.outcome is AttemptOutcome.SUCCESS and t.end_ns < takeover}
    after = {t.shard for t in book.tries if t.assigned_ns >= takeover}

    assert book.story[:2] == ["killed", "takeover"]
    assert simulation.found > 0
    assert before
    assert not before & after


def test_a_standby_goes_on_without_what_was_given_up() -> None:
    """It neither tries such shards nor gives the others more tries than their limit: as the real executor has it."""
    stage = StageModel("map", 200, 10.0, sigma=0.0, limits=Limits(attempts=2, backoff=60.0))
    reader = StageModel("reduce", 1, 10.0, needs=(0,))
    failing = JobModel("nightly", "nightly-1", (stage, reader), on_failure=OnFailure.FINISH, retry_share=1.0)
    for faults in (("retry-storm:severity=0.5",), ("retry-storm:severity=0.5", "coordinator:at=105,for=1")):
        simulation, book = run(failing, faults=faults)
        end = simulation.jobs[0].end
        # What the dead one's workers go on with is their own affair.
        heard = [t for t in book.tries if len(faults) == 1 or not t.assigned_ns < 105e9 <= t.end_ns]
        failed = Counter(t.shard for t in heard if t.outcome is AttemptOutcome.ERROR)

        assert end is not None
        assert (end.outcome, end.reason) == (JobOutcome.ERROR, Reason.NETWORK)
        assert {key[2] for key in book.given_up} == {shard for shard, count in failed.items() if count == 2}
        assert max(failed.values()) == 2
        assert {t.stage for t in book.tries} == {0}
        assert len(book.given_up) > 20
        if len(faults) > 1:
            assert len([at for at in book.given_up.values() if at < 105e9]) > 5
            assert sum(any(had) for had in simulation.jobs[0].stages[0].setbacks.values()) > 5


def test_a_coordinator_may_be_replaced_that_lives() -> None:
    """Where two die at about the same time, the second standby takes the jobs over from the first."""
    _, book = run(job(), faults=("coordinator:at=15,for=10", "coordinator:at=20,for=20"))

    assert book.story[:5] == ["killed", "killed", "takeover", "killed", "takeover"]
    assert len(book.decided_as) == 40


def test_nothing_is_begun_while_nobody_decides() -> None:
    """Between the death of the coordinator and the takeover no attempt is given out."""
    _, book = run(job(), faults=("coordinator:at=25,for=10",))

    assert not [t for t in book.tries if 25e9 < t.assigned_ns < 35e9]


def test_a_stalled_coordinator_decides_nothing_and_then_everything() -> None:
    """Attempts end while it hangs, and are committed when it goes on."""
    simulation, book = run(job(), faults=("stalled-control:at=12,for=60",))

    assert not [t for t in book.tries if 12e9 < t.assigned_ns < 72e9]
    assert simulation.jobs[0].end_ns > 72e9


def test_a_node_that_dies_takes_its_attempts_with_it() -> None:
    """Their end is the node's, their loss is heard of when it is noticed, and others do the work."""
    simulation, book = run(job(), faults=("node-loss:at=12,severity=0.25",))
    lost = [t for t in book.tries if t.outcome is AttemptOutcome.ERROR]
    gone = [node for node in simulation.world.gone if node.down_ns >= 0]

    assert len(gone) == 1
    assert {t.node.name for t in lost} == {gone[0].name}
    assert {t.end_ns for t in lost} == {gone[0].down_ns}
    assert simulation.jobs[0].end is not None
    assert simulation.jobs[0].end.outcome is JobOutcome.SUCCESS


def test_an_eviction_gives_notice() -> None:
    """A node that is taken back gets nothing new after its notice, and what it ran counts as preempted."""
    long = job(16, 200.0)
    simulation, book = run(long, faults=("eviction:severity=0.25,at=10,for=1",))
    node = next(node for node in simulation.world.gone if node.leaving)
    notice = node.down_ns - 120e9

    assert not [t for t in book.tries if t.node is node and t.assigned_ns > notice]
    assert {t.outcome for t in book.tries if t.node is node and t.end_ns == node.down_ns} == {AttemptOutcome.PREEMPTED}


def test_the_outputs_of_a_dead_coordinators_workers_win() -> None:
    """A worker that outlives its coordinator puts its output in place; the standby's own attempt finds it there."""
    _, book = run(job(8, 60.0), faults=("coordinator:at=10,for=10",))
    superseded = [t for t in book.tries if t.outcome is AttemptOutcome.SUPERSEDED]

    assert superseded
    assert {t.shard for t in superseded} <= {t.shard for t in book.tries if t.outcome is AttemptOutcome.SUCCESS}


def test_a_spent_budget_holds_back_what_can_wait() -> None:
    """Jobs that are not critical start nothing while their tenant's budget is gone, critical ones go on."""
    simulation = Simulation(SMALL, observer=Book(), budgets={"risk": 0.0})
    critical = JobModel("must", "must-1", job().stages, "risk", tier=Tier.CRITICAL)
    simulation.grant("risk", 0.001)
    simulation.submit(job(name="may", tenant="risk"), 120.0)
    simulation.submit(critical)
    simulation.run(until=600.0)
    ended = {state.model.pipeline for state in simulation.jobs if state.end is not None}
    simulation.grant("risk", 100.0)
    simulation.run()

    assert ended == {"must"}
    assert all(state.end is not None for state in simulation.jobs)


def test_a_standby_knows_whose_budget_is_gone() -> None:
    """A tenant that has spent everything starts nothing after a takeover either."""
    simulation = Simulation(
        SMALL, budgets={"risk": 0.001}, faults=parse_faults(["coordinator:at=60,for=10"]), observer=Book()
    )
    simulation.submit(job(200, name="may", tenant="risk"))
    simulation.run(until=1200.0)

    assert simulation.jobs[0].end is None
    assert len(simulation.world.running) == 0
