"""
The backend in simulated time: real tasks, in this process, on machines that do not exist.

A task is called when its simulated attempt ends well, so that its output is in place at that moment and not before; how
long it took, and whether anything happened to it or its machine, is the simulated world's to say. Time passes in `poll`
alone, so hours take as long as the tasks' own work does. The same seed, plan and faults give the same history.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from mppobs.executor.attempt import AttemptOrder, Report, StageOrder, run_attempt
from mppobs.executor.backends.base import Capabilities, Down, Draining, Ended, News, Place, Progress, Started, Up
from mppobs.executor.backends.sim_records import SimAttempt, record_attempt
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
from mppobs.executor.faults import Fault, Layer
from mppobs.executor.sim.fate import Demand
from mppobs.executor.sim.model import Cluster
from mppobs.executor.sim.world import World
from mppobs.model import AttemptOutcome, Reason

START_NS: Final = 1_760_000_000_000_000_000
"""When simulated time begins: in October 2025, so that a sidecar takes what it reads for the past."""
SHARD_SECONDS: Final = 10.0
"""What a shard takes where nobody says."""
_SIGMA: Final = 0.3


class WorldClock:
    """The clock of a simulated world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time_ns(self) -> int:
        """Return the simulated wall clock in nanoseconds."""
        return self._world.now_ns

    def monotonic_ns(self) -> int:
        """Return the same: simulated time never steps."""
        return self._world.now_ns


class SimBackend:
    """
    Simulated workers that run real tasks. Not thread-safe: everything happens in the calls of one thread.

    `clock` is the time in which they live: whoever runs jobs on them has to go by it.
    """

    name: Final = "sim"
    capabilities: Final = Capabilities(
        kill_one=True, interrupt=True, progress=True, resize=True, replaces=True, memory_limit=True, placement=True,
        eviction=True, virtual_time=True,
    )  # fmt: skip

    def __init__(
        self,
        workers: int = 2,
        *,
        cluster: Cluster | None = None,
        seed: int = 0,
        faults: Sequence[Fault] = (),
        seconds: float = SHARD_SECONDS,
    ) -> None:
        """
        Set up without starting: `workers` nodes of one worker each, or a cluster as given.

        `faults` are counted from now; those of the coordinator and of the load are not for a backend and are left out.
        A shard takes about so many `seconds`.
        """
        cluster = cluster or Cluster(nodes=workers, lanes=1, cold_start=0.0)
        mine = [fault for fault in faults if fault.about.layer in (Layer.TASK, Layer.MACHINE)]
        self._world = World(cluster, seed, mine, START_NS)
        self.clock = WorldClock(self._world)
        self._size = cluster.workers
        self._seconds = seconds
        self._orders: dict[AttemptId, tuple[StageOrder, AttemptOrder]] = {}
        self._up: dict[str, Place] = {}
        self._jobs: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return self._size

    @property
    def places(self) -> Mapping[str, Place]:
        """Return the workers that are up, and where each is."""
        return self._up

    def start(self) -> None:
        """Do nothing: the machines boot by themselves as time passes, and report as `Up`."""

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker, which may be gone by now. Never waits."""
        if worker not in self._world.workers:
            return
        root = order.partition if order.partition >= 0 else order.shard
        # By its place in the order of jobs: their names are made by chance and by the clock.
        job = self._jobs.setdefault(attempt.job, len(self._jobs))
        demand = Demand(
            job, stage.index, order.shard, stage.name, self._seconds / order.portion.of, _SIGMA,
            root=root,
        )  # fmt: skip
        self._orders[attempt] = (stage, order)
        self._world.submit(worker, attempt, demand, order.speculative)

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`, if it has not ended. It is told by `Ended`, or by `Down`."""
        self._world.stop(attempt, outcome)

    def poll(self, seconds: float) -> list[News]:
        """Let time pass until there is news, as long as told at most, and return it."""
        world = self._world
        event = world.next(world.now_ns + max(int(seconds * 1e9), 0))
        news: list[News] = []
        while event is not None:
            told = self._news_of(event)
            if told is not None:
                news.append(told)
            event = world.next(world.now_ns)
        return news

    def resize(self, workers: int) -> None:
        """Have so many workers from now on, in whole nodes."""
        self._size = workers
        self._world.resize(workers)

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        """Kill a worker: `Down` with this reason follows, and another one comes, no sooner than `away` seconds on."""
        self._world.kill_worker(worker, reason, away)

    def evict(self, worker: str, notice: float) -> None:
        """Tell that a worker is about to go, and kill it as preempted after so many seconds."""
        self._world.evict_worker(worker, notice)

    def forget(self, job: str) -> None:
        """Forget what is kept for a job that has ended."""
        for attempt in [attempt for attempt in self._orders if attempt.job == job]:
            del self._orders[attempt]

    def close(self) -> None:
        """End all workers. May be called twice."""
        self._orders.clear()
        self._up.clear()

    def _news_of(self, event: Event) -> News | None:
        """Return what happened, as news; the task of an attempt that ends well is run first."""
        match event:
            case WorkerUp(worker, node, zone, spot, memory_bytes):
                self._up[worker] = Place(node, zone, spot, memory_bytes)
                return Up(worker, node, zone, spot, memory_bytes)
            case WorkerDraining(worker):
                return Draining(worker)
            case WorkerLost(worker, reason):
                self._up.pop(worker, None)
                return Down(worker, reason)
            case AttemptStarted(attempt):
                running = self._world.running[attempt]
                return Started(attempt, running.worker.name, running.started_ns)
            case AttemptProgress(attempt, ratio):
                return Progress(attempt, ratio)
            case AttemptEnded():
                return Ended(event.attempt, self._report(event))
        return None

    def _report(self, event: AttemptEnded) -> Report:
        """Return how an attempt ended and what it left."""
        running = self._world.last
        assert running is not None
        counted = SimAttempt()
        stage, order = self._orders.pop(event.attempt)
        report = Report(
            event.outcome, event.reason, message=f"simulated {event.reason}" if event.reason else "",
            throttled=event.throttled, retry_after_ns=event.retry_after_ns, peak_memory_bytes=event.peak_memory_bytes,
        )  # fmt: skip
        if event.outcome is AttemptOutcome.SUCCESS:
            # What is done on purpose is the world's to do, once.
            report = counted.run(
                lambda attempt: run_attempt(dataclasses.replace(stage, faults=()), order, attempt, _no)
            )
        report = report._replace(duration_ns=event.duration_ns)
        record_attempt(stage, order, report, running, counted)
        return report


def _no(allowed: bool) -> None:
    """Stop nothing: an attempt that is to be stopped is never called."""
