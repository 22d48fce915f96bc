"""All that the scheduler knows, and the few steps that its parts have in common."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mppobs.executor.events import Action, AttemptId, Stop
from mppobs.executor.policies import SECOND, Policy
from mppobs.executor.scheduling.jobs import Job, Running, Special, Stage
from mppobs.executor.scheduling.pool import Pool
from mppobs.executor.scheduling.tenants import Tenants
from mppobs.model import AttemptOutcome

_MANY_STALE = 1000


@dataclass(slots=True, eq=False)
class Parked:
    """A shard that waits for a worker that suits it."""

    stage: Stage
    shard: int
    primary: Running | None = None
    """The attempt beside which another is wanted; `None` where none is running."""
    looked: int = -1
    """How often workers had changed (`Pool.frees`) when there was none for it; it is no use to look before the next."""


class Timers:
    """What is to be done later, and attempts that may not run for ever."""

    def __init__(self) -> None:
        self._serial = 0
        self._calls: list[tuple[int, int, Callable[[int], None]]] = []
        self._timeouts: list[tuple[int, int, Running]] = []

    def at(self, time_ns: int, call: Callable[[int], None]) -> None:
        """Have something called with the time, once it is due."""
        self._serial += 1
        heapq.heappush(self._calls, (time_ns, self._serial, call))

    def limit(self, running: Running, now_ns: int, count: int) -> None:
        """Have an attempt stopped when it has run for longer than it may. `count` is how many are running."""
        timeout, timeouts = running.stage.limits.timeout, self._timeouts
        if timeout > 0:
            self._serial += 1
            heapq.heappush(timeouts, (now_ns + int(timeout * SECOND), self._serial, running))
            if len(timeouts) > 2 * count + _MANY_STALE:
                # Most are of attempts that ended long ago.
                timeouts[:] = [entry for entry in timeouts if is_held(entry[2])]
                heapq.heapify(timeouts)

    def advance(self, now_ns: int) -> list[Running]:
        """Do what is due, and return the attempts that have run too long."""
        calls, timeouts = self._calls, self._timeouts
        while calls and calls[0][0] <= now_ns:
            heapq.heappop(calls)[2](now_ns)
        late: list[Running] = []
        while timeouts and timeouts[0][0] <= now_ns:
            late.append(heapq.heappop(timeouts)[2])
        return late

    def next_ns(self) -> int:
        """Return when something is due next; negative for never."""
        nearest = self._calls[0][0] if self._calls else -1
        if self._timeouts and not 0 <= nearest <= self._timeouts[0][0]:
            nearest = self._timeouts[0][0]
        return nearest


@dataclass(slots=True)
class Book:
    """What the parts of the scheduler share. Lives as long as the scheduler."""

    chance: random.Random
    policy: Policy
    tenants: Tenants
    jobs: dict[str, Job] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool)
    timers: Timers = field(default_factory=Timers)
    parked: deque[Parked] = field(default_factory=deque)
    """Shards that wait for a worker that suits them."""
    running: int = 0
    """Attempts that workers hold."""
    copies: int = 0
    """Speculative ones among those, and wanted ones."""
    out: list[Action] = field(default_factory=list)
    """What the scheduler has decided about the event at hand."""

    def find(self, attempt: AttemptId) -> Running | None:
        """Return a running attempt."""
        job = self.jobs.get(attempt.job)
        return job.stages[attempt.stage].held.get(attempt) if job is not None else None

    def enlist(self, stage: Stage) -> None:
        """Make a stage findable that has something to start."""
        if not stage.listed:
            stage.listed = True
            heapq.heappush(stage.job.ready, stage.index)
        if not stage.job.listed:
            self.tenants.enlist(stage.job)

    def release(self, running: Running) -> None:
        """Forget a running attempt; its worker has room again, and whoever was at a limit may go on."""
        worker, stage = running.worker, running.stage
        job = stage.job
        del stage.held[running.attempt]
        del worker.held[running]
        worker.node.held -= 1
        if not worker.held:
            self.pool.count_idle(worker.node, 1)
        self.running -= 1
        job.running -= 1
        self.tenants.count(job.tenant, -1)
        if running.speculative:
            self.copies -= 1
        if stage.special:
            special = stage.special.get(running.attempt.shard)
            if special is not None:
                self.give_node_back(special)
        if worker.open:
            self.pool.enlist(worker)
        if not (stage.listed and job.listed) and stage.has_work and stage not in self.pool.hoping:
            self.enlist(stage)
        elif not job.listed and job.ready:
            self.tenants.enlist(job)

    def stop(self, running: Running, outcome: AttemptOutcome) -> None:
        """Have a running attempt ended, once."""
        if running.stop is None:
            running.stop = outcome
            self.out.append(Stop(running.attempt, outcome))

    def give_node_back(self, special: Special) -> None:
        """Let others use the node again that was kept for a shard."""
        if special.node is not None:
            self.pool.keep(special.node, False)
            special.node = None

    def forget(self, parked: Parked) -> None:
        """Forget what a shard needed that is not to be tried any more, or that a copy was wanted."""
        stage, shard = parked.stage, parked.shard
        if parked.primary is not None:
            self.drop_copy(stage, shard)
        elif shard in stage.special and not stage.copies(shard):
            self.give_node_back(stage.special.pop(shard))

    def forget_all(self, job: Job) -> None:
        """Forget what waits for certain workers, of a job that starts nothing more."""
        for parked in self.parked:
            if parked.stage.job is job:
                self.forget(parked)
        self.parked = deque(parked for parked in self.parked if parked.stage.job is not job)

    def drop_copy(self, stage: Stage, shard: int) -> None:
        """Forget that a copy was wanted; what it would have cost is there for others."""
        if shard in stage.pending_backups:
            del stage.pending_backups[shard]
            self.copies -= 1
            stage.job.retries += 1


def is_held(running: Running) -> bool:
    """Return whether a worker still holds an attempt."""
    return running in running.worker.held
