"""The simulated machines by themselves: nodes come and go, attempts take what they take, and everything is billed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptProgress,
    AttemptStarted,
    Event,
    WorkerDraining,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.faults import parse_faults
from mppobs.executor.sim.fate import Demand
from mppobs.executor.sim.model import GIB, Cluster
from mppobs.executor.sim.world import World
from mppobs.model import AttemptOutcome, Reason

EVEN = Cluster(nodes=4, lanes=2, speed_sigma=0.0, cold_start=5.0, dispatch=0.0)
USUAL = Demand(0, 0, 0, "map", 10.0, 0.0)
Found = list[tuple[float, Event]]


def attempt(shard: int, number: int = 0) -> AttemptId:
    """Return an attempt of the one job."""
    return AttemptId("job", 0, shard, number)


def events(world: World, seconds: float) -> Found:
    """Let time pass and return what happened, with the times in seconds."""
    until = world.now_ns + int(seconds * 1e9)
    found: Found = []
    while (event := world.next(until)) is not None:
        found.append((world.now_ns / 1e9, event))
    return found


def ends(found: Found) -> list[tuple[float, AttemptOutcome, Reason]]:
    """Return the ends of attempts: when, and how."""
    return [(at, event.outcome, event.reason) for at, event in found if isinstance(event, AttemptEnded)]


def workers(found: Found) -> list[str]:
    """Return the workers that came up."""
    return [event.worker for _, event in found if isinstance(event, WorkerUp)]


def test_workers_are_up_after_their_cold_start() -> None:
    """All lanes of all nodes, in the zones in turns, with their share of the memory."""
    found = events(World(EVEN, 1), 10)
    up = [event for _, event in found if isinstance(event, WorkerUp)]

    assert {at for at, _ in found} == {5.0}
    assert len({event.worker for event in up}) == 8
    assert {event.zone for event in up} == {"zone-a", "zone-b", "zone-c"}
    assert {event.memory_bytes for event in up} == {16 * GIB}


def test_attempts_run_in_their_order_and_take_their_time() -> None:
    """A worker runs one after the other; a progress is told of what takes more than twice its usual time alone."""
    world = World(EVEN, 1, parse_faults(["cpu:severity=3,at=14"]))
    worker = workers(events(world, 5))[0]
    world.submit(worker, attempt(0), USUAL)
    world.submit(worker, attempt(1), replace_shard(1))
    found = events(world, 100)

    assert [(at, type(event)) for at, event in found] == [
        (5.0, AttemptStarted), (15.0, AttemptEnded), (15.0, AttemptStarted), (35.0, AttemptProgress),
        (45.0, AttemptEnded),
    ]  # fmt: skip
    progress = next(event for _, event in found if isinstance(event, AttemptProgress))
    assert progress.ratio == pytest.approx(2 / 3)


def replace_shard(shard: int) -> Demand:
    """Return the usual demand of another shard."""
    return USUAL._replace(shard=shard, root=shard)


def test_a_node_dies_once() -> None:
    """Evicted, lost and lost with its zone, it is gone once, noticed once, and one other comes for it."""
    faults = ["eviction:at=12,for=1,target=node-1", "node-loss:at=20,target=node-1", "zone-loss:at=20,target=zone-b"]
    world = World(EVEN, 1, parse_faults(faults))
    events(world, 10)
    found = events(world, 300)
    lost = [event.worker for _, event in found if isinstance(event, WorkerLost)]

    assert len(lost) == len(set(lost)) == 4  # node-1 and node-4 are in zone-b
    assert {at for at, event in found if isinstance(event, WorkerLost)} == {30.0}
    assert len(workers(found)) == 4
    assert len(world.nodes) == 4
    assert len(world.gone) == 2


def test_an_attempt_dies_with_its_worker() -> None:
    """Nothing is heard of it but the loss of the worker, and what is given to a dead worker goes nowhere."""
    world = World(EVEN, 1)
    worker = workers(events(world, 5))[0]
    world.submit(worker, attempt(0), USUAL)
    events(world, 1)
    world.kill_worker(worker, Reason.OOM_KILLED, 30.0)
    world.submit(worker, attempt(1), replace_shard(1))
    found = events(world, 60)

    assert ends(found) == []
    assert [(at, event.reason) for at, event in found if isinstance(event, WorkerLost)] == [(6.0, Reason.OOM_KILLED)]
    assert [at for at, event in found if isinstance(event, WorkerUp)] == [36.0]


def test_a_stopped_attempt_ends_as_it_is_told() -> None:
    """And its worker goes on with the next."""
    world = World(EVEN, 1)
    worker = workers(events(world, 5))[0]
    world.submit(worker, attempt(0), USUAL)
    world.submit(worker, attempt(1), replace_shard(1))
    events(world, 1)
    world.stop(attempt(0), AttemptOutcome.TIMEOUT)
    found = events(world, 60)

    assert ends(found)[0] == (6.05, AttemptOutcome.TIMEOUT, Reason.NONE)
    assert ends(found)[1][0] == 16.05


def test_memory_is_shared_by_neighbours() -> None:
    """What is too large beside a busy neighbour ends as killed, and has room where the neighbour is idle."""
    large, neighbour = USUAL._replace(memory_bytes=24 * GIB), replace_shard(1)._replace(memory_bytes=12 * GIB)
    for beside, outcome in ((neighbour, AttemptOutcome.ERROR), (None, AttemptOutcome.SUCCESS)):
        world = World(EVEN, 1)
        first, second = workers(events(world, 5))[:2]
        if beside is not None:
            world.submit(second, attempt(1), beside)
            events(world, 1)
        world.submit(first, attempt(0), large)
        (found,) = [each for _, each in events(world, 30) if isinstance(each, AttemptEnded) and each.attempt[2] == 0]
        assert found.outcome is outcome
        assert found.reason is (Reason.OOM_KILLED if beside is not None else Reason.NONE)


def test_a_prefix_serves_so_many_requests() -> None:
    """Beyond its rate requests are turned away, and told when to come again; after a second there is room."""
    world = World(replace(EVEN, storage_requests_per_second=2.0), 1)
    names = workers(events(world, 5))
    for shard, worker in enumerate(names[:4]):
        world.submit(worker, attempt(shard), replace_shard(shard)._replace(requests=1))
    found = [event for _, event in events(world, 1) if isinstance(event, AttemptEnded)]
    world.submit(names[4], attempt(4), replace_shard(4)._replace(requests=1))
    later = events(world, 30)

    assert [event.attempt.shard for event in found] == [2, 3]
    assert all(event.throttled and event.retry_after_ns > 0 for event in found)
    assert {outcome for _, outcome, _ in ends(later)} == {AttemptOutcome.SUCCESS}


def test_readers_share_the_fabric() -> None:
    """Two that read at a time take longer than one, as long as the fabric is what limits them."""
    world = World(replace(EVEN, fabric_bytes_per_second=1e8), 1)
    names = workers(events(world, 5))
    for shard, worker in enumerate(names[:2]):
        world.submit(worker, attempt(shard), replace_shard(shard)._replace(read_bytes=10**9))
    (first, _, _), (second, _, _) = ends(events(world, 100))

    assert (first - 5, second - 5) == (20.0, 30.0)


def test_a_cluster_is_resized_in_whole_nodes() -> None:
    """More come after a while, asked for once or twice; of fewer, idle ones go first, with a notice."""
    world = World(EVEN, 1)
    names = workers(events(world, 5))
    for shard, worker in enumerate(names[:2]):
        world.submit(worker, attempt(shard), replace_shard(shard)._replace(seconds=1000.0))
    world.resize(11)
    world.resize(12)
    more = events(world, 200)
    world.resize(4)
    fewer = events(world, 200)
    drained = {event.worker for _, event in fewer if isinstance(event, WorkerDraining)}

    assert len(workers(more)) == 4
    assert len(drained) == 8
    assert not drained & set(names[:2])
    assert {event.worker for _, event in fewer if isinstance(event, WorkerLost)} == drained
    assert len(world.workers) == 4


def test_nodes_are_billed_from_boot_to_end() -> None:
    """On demand and spot at their prices, the dead ones until they died."""
    half = replace(EVEN, spot_share=0.5, usd_per_hour=1.0, spot_usd_per_hour=0.25)
    world = World(half, 1, parse_faults(["node-loss:at=1800,target=node-1,for=2h"]))
    events(world, 3600)

    assert [node.spot for node in world.nodes.values()] == [True, False, True]
    assert world.bill(world.now_ns) == pytest.approx(1.0 * 0.5 + 1.0 + 2 * 0.25)


def test_the_first_worlds_nodes_are_in_larger_ones() -> None:
    """A node's speed follows from its number and the seed alone."""
    speeds = [
        [node.speed for node in world.nodes.values()]
        for world in (World(replace(EVEN, nodes=nodes, speed_sigma=0.2), 1) for nodes in (3, 6))
        if events(world, 1) is not None
    ]

    assert speeds[0] == speeds[1][:3]
    assert len(set(speeds[1])) == 6
