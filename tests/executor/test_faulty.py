"""Faults of machines and of the control plane on any backend: who is hit, when, and what everybody else sees."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mppobs.clock import ManualClock
from mppobs.executor.attempt import AttemptOrder, StageOrder
from mppobs.executor.backends.base import Capabilities, Down, News, Place, UnsupportedError, Up
from mppobs.executor.backends.faulty import NOTICE, FaultyBackend
from mppobs.executor.events import AttemptId
from mppobs.executor.faults import parse_faults
from mppobs.model import AttemptOutcome, Reason

NODES = {f"w-{number}": Place(f"node-{number % 4}", f"zone-{'ab'[number % 2]}") for number in range(8)}
EVERYTHING = Capabilities(kill_one=True, eviction=True)


class Machines:
    """A backend of eight workers on four nodes that keeps what is asked of it."""

    name = "machines"

    def __init__(self, clock: ManualClock, places: Mapping[str, Place], abilities: Capabilities = EVERYTHING) -> None:
        self.clock = clock
        self.capabilities = abilities
        self.places = dict(places)
        self.news: list[News] = []
        self.asked: list[tuple[float, str, str]] = []
        self.polls = 0

    @property
    def size(self) -> int:
        """Return how many there are to be."""
        return len(self.places)

    def _note(self, what: str, whom: str) -> None:
        self.asked.append(((self.clock.monotonic_ns() - BEGAN) / 1e9, what, whom))

    def start(self) -> None:
        """Have all workers report."""
        self.news = [Up(name) for name in self.places]

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Keep it."""
        self._note("submit", worker)

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Keep it."""
        self._note("stop", attempt.job)

    def poll(self, seconds: float) -> list[News]:
        """Let time pass, and return the news."""
        self.polls += 1
        self.clock.advance(seconds)
        news, self.news = self.news, []
        return news

    def resize(self, workers: int) -> None:
        """Keep it."""
        self._note("resize", str(workers))

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        """Keep it, and tell of it."""
        self._note(f"kill {reason} {away:g}", worker)
        del self.places[worker]
        self.news.append(Down(worker, reason))

    def evict(self, worker: str, notice: float) -> None:
        """Keep it."""
        self._note(f"evict {notice:g}", worker)

    def forget(self, job: str) -> None:
        """Keep it."""
        self._note("forget", job)

    def close(self) -> None:
        """Keep it."""
        self._note("close", "")


BEGAN = ManualClock().monotonic_ns()


def rig(*faults: str, places: Mapping[str, Place] = NODES, seed: int = 0) -> tuple[FaultyBackend, Machines, list[str]]:
    """Return a backend with faults whose workers are up, what is below it, and what became of its coordinator."""
    clock = ManualClock()
    below = Machines(clock, places)
    fate: list[str] = []

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        fate.append("slept")

    faulty = FaultyBackend(below, parse_faults(faults), clock, seed=seed, die=lambda: fate.append("died"), sleep=sleep)
    faulty.start()
    faulty.poll(0.0)
    return faulty, below, fate


def let_pass(faulty: FaultyBackend, below: Machines, seconds: float) -> list[News]:
    """Poll until so much time has passed; return the news."""
    news: list[News] = []
    until = below.clock.monotonic_ns() + int(seconds * 1e9)
    while below.clock.monotonic_ns() < until:
        news += faulty.poll(min(0.5, (until - below.clock.monotonic_ns()) / 1e9))
    return news


def test_nodes_die_whole_and_on_time() -> None:
    """Half of the nodes is two of four, with both workers of each, at the fault's time and away for as long."""
    faulty, below, _ = rig("node-loss:severity=0.5,at=5,for=30")
    news = let_pass(faulty, below, 10)
    killed = [whom for _, what, whom in below.asked if what == "kill node_lost 30"]

    assert {time for time, _, _ in below.asked} == {5.0}
    assert len(killed) == 4
    assert len({NODES[whom].node for whom in killed}) == 2
    assert {each.worker for each in news if isinstance(each, Down)} == set(killed)


def test_a_zone_dies() -> None:
    """All workers of one zone, by its name or the first one, and no other."""
    for text, zone in (("zone-loss:at=1", "zone-a"), ("zone-loss:at=1,target=zone-b", "zone-b")):
        faulty, below, _ = rig(text)
        let_pass(faulty, below, 2)
        assert {whom for _, _, whom in below.asked} == {name for name, place in NODES.items() if place.zone == zone}


def test_evictions_come_one_by_one_with_notice() -> None:
    """Each victim gets its notice at a time of its own, within the fault's time."""
    faulty, below, _ = rig("eviction:severity=1,at=2,for=20")
    let_pass(faulty, below, 30)
    times = [time for time, what, _ in below.asked if what == f"evict {NOTICE:g}"]

    assert len(times) == 8
    assert len(set(times)) > 4
    assert all(2 <= time <= 22.5 for time in times)


def test_on_one_machine_each_worker_stands_for_a_node() -> None:
    """Where all workers are on one node, a share of them dies, and not the node."""
    alone = {f"w-{number}": Place("here") for number in range(8)}
    faulty, below, _ = rig("node-loss:severity=0.25", places=alone)
    let_pass(faulty, below, 1)

    assert len(below.asked) == 2


def test_a_worker_can_be_named() -> None:
    """A target is a worker, a node or a zone."""
    for target, whom in (("w-3", {"w-3"}), ("node-1", {"w-1", "w-5"})):
        faulty, below, _ = rig(f"node-loss:target={target}")
        let_pass(faulty, below, 1)
        assert {victim for _, _, victim in below.asked} == whom


def test_the_seed_chooses_the_victims() -> None:
    """The same seed hits the same nodes; not all seeds do."""

    def victims(seed: int) -> frozenset[str]:
        faulty, below, _ = rig("node-loss:severity=0.25", seed=seed)
        let_pass(faulty, below, 1)
        return frozenset(whom for _, _, whom in below.asked)

    assert victims(1) == victims(1)
    assert len({victims(seed) for seed in range(10)}) > 1


def test_the_coordinator_dies_once_at_its_time() -> None:
    """Not before, and not again."""
    faulty, below, fate = rig("coordinator:at=3")
    let_pass(faulty, below, 2.9)
    assert fate == []
    let_pass(faulty, below, 5)
    assert fate == ["died"]


def test_a_stalled_control_plane_hears_nothing_until_it_goes_on() -> None:
    """While it hangs no news comes through and nobody is asked; afterwards all of it does."""
    faulty, below, fate = rig("stalled-control:at=1,for=4")
    let_pass(faulty, below, 1)
    polls = below.polls
    below.news.append(Down("w-1", Reason.WORKER_LOST))
    assert let_pass(faulty, below, 3.5) == []
    assert below.polls == polls
    assert "slept" in fate
    assert let_pass(faulty, below, 1) == [Down("w-1", Reason.WORKER_LOST)]


def test_faults_of_tasks_are_not_its_business() -> None:
    """A skew or a retry storm does nothing here: workers see to those."""
    faulty, below, fate = rig("skew", "retry-storm", "runaway")
    let_pass(faulty, below, 60)

    assert below.asked == []
    assert fate == []


def test_what_a_backend_cannot_do_is_refused_at_once() -> None:
    """Not in the middle of the run."""
    clock = ManualClock()
    for text, ability in (("node-loss", "kill_one"), ("eviction", "eviction")):
        with pytest.raises(UnsupportedError, match=ability):
            FaultyBackend(Machines(clock, NODES, Capabilities()), parse_faults([text]), clock)


def test_everything_else_goes_through() -> None:
    """Calls and figures are those of the backend below."""
    faulty, below, _ = rig("skew")
    faulty.stop(AttemptId("job", 0, 0, 0), AttemptOutcome.TIMEOUT)
    faulty.resize(5)
    faulty.kill("w-0")
    faulty.evict("w-1", 7.0)
    faulty.forget("job")
    faulty.close()

    assert (faulty.name, faulty.size, faulty.capabilities) == ("machines", 7, EVERYTHING)
    assert faulty.places is below.places
    assert [what for _, what, _ in below.asked] == [
        "stop",
        "resize",
        "kill worker_lost 0",
        "evict 7",
        "forget",
        "close",
    ]
