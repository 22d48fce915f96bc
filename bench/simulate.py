"""
What a simulation costs: a million shards over ten thousand workers, the scheduler alone, an estate for a day.

The million is recorded, one row of 32 bytes for each attempt, and two runs of the same seed must leave the same rows.
CPU time; the cyclic garbage collector is off, since nothing here makes cycles worth its looking at every object.
"""

from __future__ import annotations

import gc
import hashlib
import heapq
import multiprocessing
import random
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import Figure, options, report

from mppobs.executor.events import (
    AttemptEnded,
    AttemptStarted,
    JobSubmitted,
    StageOpened,
    StageReady,
    StageSpec,
    Submit,
    WorkerUp,
)
from mppobs.executor.scheduler import Scheduler
from mppobs.executor.sim.estate import enough_nodes, pipelines, simulate_estate
from mppobs.executor.sim.model import Cluster, JobModel, StageModel
from mppobs.executor.sim.observe import Observer, Tried
from mppobs.executor.sim.run import Simulation
from mppobs.model import AttemptOutcome

SHARDS: Final = 1_000_000
WORKERS: Final = 10_000
_LANES: Final = 8
_ROW: Final = struct.Struct("<QQIIHBx4x")


class Rows(Observer):
    """Keeps the digest of a row for every attempt: start, end, shard, node, number, outcome."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._block = bytearray()

    def tried(self, tried: Tried) -> None:
        """Add a row."""
        self.count += 1
        outcome = _OUTCOMES[tried.outcome]
        self._block += _ROW.pack(tried.start_ns, tried.end_ns, tried.shard, tried.node.number, tried.number, outcome)
        if len(self._block) > 1 << 20:
            self._digest.update(self._block)
            self._block.clear()

    def digest(self) -> str:
        """Return the digest of all rows."""
        self._digest.update(self._block)
        self._block.clear()
        return self._digest.hexdigest()


_OUTCOMES: Final = {outcome: number for number, outcome in enumerate(AttemptOutcome)}


def million(shards: int, workers: int) -> dict[str, Any]:
    """Simulate so many shards; return CPU seconds, peak memory, events and the digest of what was recorded."""
    gc.disable()
    rows = Rows()
    began = time.process_time()
    simulation = Simulation(Cluster(nodes=workers // _LANES, lanes=_LANES), seed=7, observer=rows)
    simulation.submit(JobModel("million", "million-1", (StageModel("map", shards, 60.0),)))
    simulation.run()
    return {
        "seconds": time.process_time() - began,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "events": simulation.events,
        "attempts": rows.count,
        "digest": rows.digest(),
        "simulated": simulation.world.now_ns / 1e9,
    }


def scheduler_alone(shards: int, workers: int) -> dict[str, Any]:
    """Drive the scheduler with next to nothing around it; return CPU seconds and decisions: submits and commits."""
    gc.disable()
    scheduler, chance = Scheduler(random.Random(0)), random.Random(1)
    heap: list[tuple[int, int, Any]] = []
    seconds, decisions, serial, now = 0.0, 0, 0, 0

    def tell(event: Any) -> None:
        nonlocal seconds, decisions, serial
        began = time.process_time()
        actions = scheduler.on(event, now)
        seconds += time.process_time() - began
        for action in actions:
            if isinstance(action, Submit):
                serial += 2
                took = int(chance.lognormvariate(0, 0.3) * 60e9)
                heapq.heappush(heap, (now + 1, serial, AttemptStarted(action.attempt)))
                end = AttemptEnded(action.attempt, AttemptOutcome.SUCCESS, duration_ns=took)
                heapq.heappush(heap, (now + took, serial + 1, end))
                decisions += 2
            elif isinstance(action, StageReady):
                tell(StageOpened(action.job, action.stage))

    for worker in range(workers):
        tell(WorkerUp(f"w{worker}"))
    seconds = 0.0
    tell(JobSubmitted("job", (StageSpec(shards),)))
    while heap:
        now, _, event = heapq.heappop(heap)
        tell(event)
    return {"seconds": seconds, "decisions": decisions}


def estate_day(count: int) -> dict[str, Any]:
    """Simulate an estate for a day; return CPU seconds."""
    estate = pipelines(count, 7)
    cluster = Cluster(nodes=enough_nodes(estate, _LANES), lanes=_LANES)
    began = time.process_time()
    summary = simulate_estate(estate, days=1, seed=7, cluster=cluster)
    return {"seconds": time.process_time() - began, "shards": summary.shards}


def apart(work: Callable[..., dict[str, Any]], *arguments: int) -> dict[str, Any]:
    """Do something in a process of its own, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def figures(shards: int, workers: int) -> Iterator[Figure]:
    """Yield what was measured."""
    name = f"{shards:,} shards over {workers:,} workers"
    first = apart(million, shards, workers)
    yield Figure(name, first["seconds"], "s", target=60 * shards / SHARDS)
    yield Figure(f"{name}, peak memory", first["peak"] / 2**30, "GiB", target=4)
    yield Figure(f"{name}, events a second", first["events"] / first["seconds"], "1/s")
    yield Figure(f"{name}, simulated over real time", first["simulated"] / first["seconds"], "ratio")
    small = max(shards // 10, 1000), max(workers // 10, _LANES)
    same = apart(million, *small)["digest"] == apart(million, *small)["digest"]
    yield Figure(f"{small[0]:,} shards twice, same bytes", int(same), "", target=1, must="exactly")
    alone = apart(scheduler_alone, *small)
    rate = alone["decisions"] / alone["seconds"]
    yield Figure("scheduler alone, decisions a second", rate, "1/s", target=50_000, must="at least")
    day = apart(estate_day, 50)
    yield Figure("estate of 50 pipelines, a day", day["seconds"], "s", target=4)


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--workers", type=int, default=WORKERS)
    given = parser.parse_args()
    return report(figures(given.shards, given.workers), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
