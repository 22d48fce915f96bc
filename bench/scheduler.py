"""
What decisions cost: the pure scheduler over a trivial world, in CPU time and with a simulated clock.

The busy estate has every policy on and something for each to do: tenants with weights, quotas and deadlines, inputs on
nodes, skew, slow nodes, spot workers, faults, throttling. Its peer is the same world under `Policy.plain()`. It is
run once, and timed when what the scheduler was told is told to another one. The large job is a million shards on ten
thousand workers, whose times are lognormal; there the world's own time is counted too.
"""

from __future__ import annotations

import heapq
import random
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import Figure, options, report

from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptStarted,
    Event,
    JobSubmitted,
    ShardSplit,
    Split,
    StageOpened,
    StageReady,
    StageSpec,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerUp,
)
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Autoscale, Policy, Share
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, Reason

SECOND = 1_000_000_000
DECISIONS_PER_SECOND = 50_000.0
LARGE_SECONDS = 60.0
LARGE_SHARDS = 1_000_000
LARGE_WORKERS = 10_000
MEMORY_MIB = 4096.0
NODES = 100
EVERYTHING = Policy(
    tenants={"ads": Share(3.0), "maps": Share(1.0, quota=300), "search": Share(2.0, jobs=3)},
    autoscale=Autoscale(100, 2000),
)


class World:
    """Does what the scheduler says, at once, and makes up what becomes of it."""

    def __init__(self, policy: Policy, faults: float) -> None:
        self.decided = 0
        self._scheduler = Scheduler(random.Random(1), policy)
        self._chance = random.Random(2)
        self._faults = faults
        self.history: list[tuple[Event, int]] = []
        """What the scheduler was told, and when; kept only where there are faults."""
        self._queue: list[tuple[int, int, Event]] = []
        self._serial = 0
        self._nodes: dict[str, str] = {}
        self._shards: dict[tuple[str, int], int] = {}

    def later(self, at: int, event: Event) -> None:
        """Have something happen."""
        self._serial += 1
        heapq.heappush(self._queue, (at, self._serial, event))
        if isinstance(event, WorkerUp):
            self._nodes[event.worker] = event.node
        elif isinstance(event, JobSubmitted):
            self._shards.update({(event.job, index): spec.shards for index, spec in enumerate(event.stages)})

    def run(self) -> float:
        """Let everything happen; return the CPU seconds that it took."""
        began = time.process_time()
        while self._queue:
            now, _, event = heapq.heappop(self._queue)
            if self._faults:
                self.history.append((event, now))
            for action in self._scheduler.on(event, now):
                self.decided += 1
                for at, then in self._answer(action, now):
                    self.later(at, then)
        return time.process_time() - began

    def _answer(self, action: Action, now: int) -> Iterator[tuple[int, Event]]:
        """Yield what follows from a decision."""
        chance = self._chance
        if isinstance(action, Submit):
            slow = 8.0 if self._faults and self._nodes[action.worker] in ("n3", "n4") else 1.0
            took = int(chance.lognormvariate(0, 1) * SECOND * slow)
            ended = AttemptEnded(action.attempt, AttemptOutcome.SUCCESS, duration_ns=took)
            if chance.random() < self._faults:
                ended = AttemptEnded(action.attempt, AttemptOutcome.FAILURE, Reason.EXCEPTION)
            elif chance.random() < self._faults / 10:
                ended = AttemptEnded(action.attempt, AttemptOutcome.ERROR, Reason.STORAGE, throttled=True)
            yield now, AttemptStarted(action.attempt)
            yield now + took, ended
        elif isinstance(action, StageReady):
            shards = self._shards[action.job, action.stage]
            if self._faults:
                sizes = [chance.choice((100, 120, 140, 1000)) << 20 for _ in range(shards)]
                places = [f"n{chance.randrange(NODES)}" for _ in range(shards)]
                yield now, StageOpened(action.job, action.stage, sizes, places)
            else:
                yield now, StageOpened(action.job, action.stage)
        elif isinstance(action, Split):
            self._shards[action.job, action.stage] += action.parts
            yield now, ShardSplit(action.job, action.stage, action.shard, [100 << 20] * action.parts)
        elif isinstance(action, Stop):
            yield now, AttemptEnded(action.attempt, action.outcome)
        elif isinstance(action, WaitUntil):
            yield max(action.time_ns, now), Tick()


def large_job(shards: int, workers: int) -> tuple[float, int]:
    """Run one job without trouble; return CPU seconds and decisions."""
    world = World(Policy(), 0.0)
    for number in range(workers):
        world.later(0, WorkerUp(f"w{number}"))
    world.later(0, JobSubmitted("large", (StageSpec(shards),)))
    return world.run(), world.decided


def busy_estate(policy: Policy, shards: int) -> tuple[float, int]:
    """
    Run forty jobs of two stages for four tenants on a thousand workers.

    Returns the CPU seconds in which another scheduler decides the same when it is told the same, and the decisions.
    """
    world = World(policy, 0.02)
    for number in range(1000):
        memory = (8 << 30, 32 << 30)[number % 2]
        world.later(0, WorkerUp(f"w{number}", f"n{number % NODES}", spot=number % 3 == 0, memory_bytes=memory))
    for number in range(40):
        size = max(shards // 80, 1)
        first = StageSpec(size, (), Limits(timeout=600.0), splittable=True, priority=number % 3 - 1)
        job = JobSubmitted(
            f"job-{number}", (first, StageSpec(size, (0,), memory_bytes=16 << 30)), OnFailure.FINISH, retry_share=0.2,
            tenant=("ads", "maps", "search", "web")[number % 4], deadline_ns=(number % 2) * 1000 * SECOND,
        )  # fmt: skip
        world.later(number * SECOND, job)
    world.run()
    scheduler = Scheduler(random.Random(1), policy)
    began, decided = time.process_time(), 0
    for event, now in world.history:
        decided += len(scheduler.on(event, now))
    assert decided == world.decided, "the same events, times and seed give the same decisions"
    return time.process_time() - began, decided


def measure(rounds: int, shards: int) -> Iterator[Figure]:
    """Yield the figures; rounds with the policies on and off take turns."""
    seconds, decided = large_job(shards, LARGE_WORKERS)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    allowed = LARGE_SECONDS * shards / LARGE_SHARDS
    speed = decided / seconds
    yield Figure("scheduler: decisions, large job", speed, "per s", target=DECISIONS_PER_SECOND, must="at least")
    yield Figure(f"scheduler: {shards:,} shards, {LARGE_WORKERS:,} workers", seconds, "s", target=allowed)
    yield Figure("scheduler: memory of the process after that", memory, "MiB", target=MEMORY_MIB)
    speeds: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(rounds):
        for name, policy in (("on", EVERYTHING), ("off", replace(Policy.plain(), tenants=EVERYTHING.tenants))):
            took, decisions = busy_estate(policy, max(shards // 10, 80))
            speeds[name].append(decisions / took)
    on, off = statistics.median(speeds["on"]), statistics.median(speeds["off"])
    yield Figure("scheduler: decisions, every policy on", on, "per s", off, DECISIONS_PER_SECOND, "at least")


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=LARGE_SHARDS, help="of the large job; the estate has a tenth")
    given = parser.parse_args()
    return report(measure(given.rounds, given.shards), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
