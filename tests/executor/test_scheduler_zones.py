"""Where a shard goes that was lost with its worker: to another zone if there is one, and else as if nothing were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.executor import policies
from mppobs.executor.events import AttemptId, Tick, WorkerDraining, WorkerLost, WorkerUp
from mppobs.executor.plan import Limits
from mppobs.executor.policies import Policy
from mppobs.model import Reason
from tests.executor.stand import SECOND, Stand, job, submits
from tests.executor.worlds import lossy_world

PATIENT = Limits(attempts=10, losses=10, backoff=0.0)


def up(name: str, zone: str, *, spot: bool = False, memory: int = 0) -> WorkerUp:
    """Return a worker on a node of its own."""
    return WorkerUp(name, f"node-of-{name}", zone, spot, memory)


def busy(policy: Policy | None = None) -> Stand:
    """Return a stand where a worker in each of two zones runs a shard: 0 in zone a, 1 in zone b."""
    stand = Stand(policy or Policy(), up("a", "za"), up("b", "zb"))
    stand.begin(job(2, limits=PATIENT))
    stand.start()
    assert list(stand.held.values()) == ["a", "b"]
    return stand


def lose(stand: Stand, worker: str, reason: Reason = Reason.WORKER_LOST, at: float | None = None) -> list[str]:
    """Have a worker die, and another come in its place; return who is given something."""
    zone = "z" + worker[0]
    for attempt in [attempt for attempt, where in stand.held.items() if where == worker]:
        del stand.held[attempt]
    given = stand.tell(WorkerLost(worker, reason), at=at)
    return [each.worker for each in submits([*given, *stand.tell(up(worker + "'", zone))])]


@pytest.mark.parametrize("reason", [Reason.WORKER_LOST, Reason.NODE_LOST, Reason.PREEMPTED])
def test_a_lost_shard_goes_to_another_zone(reason: Reason) -> None:
    """It does not take the worker that comes up where it was lost, but waits for one elsewhere."""
    stand = busy()
    assert lose(stand, "a", reason) == []
    (given,) = submits(stand.finish(AttemptId("j", 0, 1, 0)))
    assert given == (AttemptId("j", 0, 0, 1), "b", False)


@pytest.mark.parametrize("reason", [Reason.SHUTDOWN, Reason.OOM_KILLED])
def test_what_says_nothing_of_the_zone_changes_nothing(reason: Reason) -> None:
    """After a planned end, or running out of memory, the same zone will do."""
    assert lose(busy(policy=Policy(memory_retry=False)), "a", reason) == ["a'"]


def test_without_the_policy_zones_are_not_looked_at() -> None:
    """With the policy off the shard goes back to whatever worker is free."""
    assert lose(busy(policy=Policy(zones=False)), "a") == ["a'"]


def test_a_free_worker_elsewhere_is_taken_at_once() -> None:
    """Of two free workers the shard takes the one in the other zone, whichever was free first."""
    for names in (("a2", "b2"), ("b2", "a2")):
        stand = busy()
        stand.tell(*(up(name, "z" + name[0]) for name in names))
        assert lose(stand, "a") == ["b2"]


def test_others_use_what_a_lost_shard_passes_on() -> None:
    """A shard that has not been lost begins on the worker that came back."""
    stand = Stand(Policy(), up("a", "za"), up("b", "zb"))
    stand.begin(job(3, limits=PATIENT))
    stand.start()
    assert lose(stand, "a") == ["a'"]
    assert stand.held[AttemptId("j", 0, 2, 0)] == "a'"


def test_after_it_was_lost_in_every_zone_any_will_do() -> None:
    """Each zone is tried once, then the first worker is taken that is free; a new zone comes before those."""
    stand = busy(policy=Policy(backoff=False))
    lose(stand, "a")
    stand.finish(AttemptId("j", 0, 1, 0))
    stand.start()
    stand.tell(WorkerLost("a'"))
    assert lose(stand, "b", Reason.NODE_LOST) == ["b'"]
    stand.start()
    stand.tell(up("a2", "za"), up("b2", "zb"), up("c", "zc"))
    assert lose(stand, "b'") == ["c"]


def test_workers_without_a_zone_are_one_zone() -> None:
    """Where no zones are known nothing is waited for; beside known ones, the unknown is another."""
    stand = Stand(Policy(), WorkerUp("w0"), WorkerUp("w1"))
    stand.begin(job(2, limits=PATIENT))
    stand.start()
    stand.tell(WorkerUp("w2"))
    assert [given.worker for given in submits(stand.tell(WorkerLost("w0")))] == ["w2"]
    stand = Stand(Policy(), up("a", "za"), WorkerUp("unknown"))
    stand.begin(job(2, limits=PATIENT))
    stand.start()
    assert lose(stand, "a") == []
    assert [given.worker for given in submits(stand.finish(AttemptId("j", 0, 1, 0)))] == ["unknown"]


# Prefer, never starve


def test_the_wait_is_bounded() -> None:
    """When no worker elsewhere had room for as long as the lost attempt had run, any zone will do."""
    stand = busy()
    assert lose(stand, "a", at=100) == []
    assert submits(stand.tell(Tick(), at=199)) == []
    assert [given.worker for given in submits(stand.tell(Tick(), at=200))] == ["a'"]


def test_nobody_waits_for_workers_that_do_not_suit() -> None:
    """Where the workers elsewhere are too small, or may be evicted, the shard goes back at once."""
    spare = up("small", "zb", memory=2)
    stand = Stand(Policy(), up("a", "za", memory=8), spare)
    stand.begin(job(1, limits=PATIENT, memory_bytes=4))
    stand.start()
    stand.tell(up("a2", "za", memory=8))
    assert [given.worker for given in submits(stand.tell(WorkerLost("a")))] == ["a2"]
    stand = Stand(Policy(), up("a", "za"), up("spot", "zb", spot=True))
    stand.begin(job(1, limits=PATIENT, priority=1))
    stand.start()
    stand.tell(up("a2", "za"))
    assert [given.worker for given in submits(stand.tell(WorkerLost("a")))] == ["a2"]


@pytest.mark.parametrize("gone", [WorkerLost("b", Reason.SHUTDOWN), WorkerDraining("b")])
def test_nobody_waits_for_a_zone_that_is_gone(gone: WorkerLost | WorkerDraining) -> None:
    """As soon as the last worker elsewhere goes, or is to go, the shard takes the one that it had passed on."""
    stand = busy()
    assert lose(stand, "a") == []
    assert AttemptId("j", 0, 0, 1) in [given.attempt for given in submits(stand.tell(gone))]
    assert stand.held[AttemptId("j", 0, 0, 1)] == "a'"


def test_many_that_wait_are_all_let_go() -> None:
    """More lost shards than are looked at after one event all go on when their wait is over."""
    many = range(40)
    stand = Stand(Policy(), *(up(f"a{n}", "za") for n in many), up("b", "zb"))
    stand.begin(job(41, limits=PATIENT))
    stand.start()
    for n in many:
        assert lose(stand, f"a{n}") == []
    assert len(submits(stand.tell(Tick(), at=60))) == 40


def test_who_has_waited_is_not_behind_those_who_wait() -> None:
    """A shard whose wait is over goes on, however many wait that were parked before it."""
    stand = Stand(Policy(), *(up(f"a{n}", "za") for n in range(12)), up("b", "zb"))
    stand.begin(job(13, limits=PATIENT))
    shards = list(stand.held)
    stand.start(*shards[:10])
    stand.tell(Tick(), at=190)
    stand.start(*shards[10:12])
    assert [lose(stand, f"a{n}", at=200) for n in range(12)] == [[]] * 12
    assert {given.attempt.shard for given in submits(stand.tell(Tick(), at=260))} == {10, 11}
    assert len(submits(stand.tell(Tick(), at=400))) == 10


def test_a_shard_with_needs_keeps_them() -> None:
    """A shard evicted twice goes to a worker that stays, and of those to one in another zone."""
    stand = Stand(Policy(), up("a", "za", spot=True))
    stand.begin(job(1, limits=PATIENT))
    stand.start()
    stand.tell(up("b", "zb", spot=True), WorkerLost("a", Reason.PREEMPTED))
    stand.start(AttemptId("j", 0, 0, 1))
    stand.tell(up("b2", "zb"), up("c", "zc", spot=True), up("d", "zd"))
    assert [given.worker for given in submits(stand.tell(WorkerLost("b", Reason.PREEMPTED)))] == ["d"]


# Beside the other policies


def test_a_lost_shard_may_have_a_copy_and_the_copy_any_zone() -> None:
    """Which zones a shard avoids keeps nobody from copying it, on another node of its zone as well."""
    stand = Stand(Policy(), up("a", "za"), up("b", "zb"))
    stand.begin(job(8, limits=PATIENT))
    stand.start()
    assert lose(stand, "a") == ["a'"]
    slow = submits(stand.finish(AttemptId("j", 0, 1, 0)))[0].attempt
    assert (slow.shard, stand.held[slow]) == (0, "b")
    for _ in range(6):
        stand.start()
        stand.finish(*(attempt for attempt in stand.held if attempt != slow))
    stand.tell(WorkerDraining("a'"), up("b2", "zb"))
    copies = [copy for second in range(60) for copy in submits(stand.tell(Tick(), at=second))]
    assert [(copy.attempt.shard, copy.worker, copy.speculative) for copy in copies] == [(0, "b2", True)]


def test_what_is_decided_is_forgotten() -> None:
    """Nothing is kept of the zones of a shard that is decided."""
    stand = busy()
    lose(stand, "a")
    stage = stand.scheduler._book.jobs["j"].stages[0]
    assert list(stage.special) == [0]
    stand.finish(AttemptId("j", 0, 1, 0))
    stand.start()
    stand.finish(AttemptId("j", 0, 0, 1))
    assert stage.special == {}


def test_no_shard_starves_for_its_zones() -> None:
    """With workers to spare and a zone that loses shards, each goes elsewhere if there is elsewhere, and goes on."""
    lost = 0
    for seed in range(200):
        world = lossy_world(seed)
        world.run()
        lost += world.told[WorkerLost]
    assert lost > 1000


@given(st.integers(0, 10**15), st.floats(0, 1e15))
def test_the_wait_is_what_another_loss_would_cost(lost_ns: int, mean_ns: float) -> None:
    """Never less than what was lost or what is usual, never more than the larger, and a minute where nothing is."""
    wait = policies.wait_for_zone(lost_ns, mean_ns)
    usual = int(mean_ns) or 60 * SECOND
    assert wait >= lost_ns
    assert wait >= usual
    assert wait in (lost_ns, usual)
