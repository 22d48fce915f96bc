"""What the scheduler remembers: jobs, stages, workers and running attempts. A shard costs about eight bytes."""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Final

from mppobs.executor.events import AttemptId, JobSubmitted, StageSpec
from mppobs.executor.plan import OnFailure
from mppobs.executor.policies import MAX_WINDOW, Blame, order_largest_first, retry_budget
from mppobs.model import AttemptOutcome, JobOutcome, Reason

UNDECIDED: Final = 0
COMMITTED: Final = 1
FAILED: Final = 2

_MEAN_WEIGHT: Final = 0.1
"""Of the newest duration in a stage's mean, which is to follow the last ten or so."""
_OUTLIER: Final = 4.0
"""A duration counts as so many times the mean at most: one attempt that lost its core for a while says little."""


class Stage:
    """The shards of one stage of a job: which are decided, which are to be tried, and what they went through."""

    __slots__ = (
        "again", "closed", "counts", "decided", "dependents", "failed", "index", "job", "limits", "listed", "mean_ns",
        "needs", "numbers", "order", "position", "running", "shards", "status",
    )  # fmt: skip

    def __init__(self, job: Job, index: int, spec: StageSpec) -> None:
        self.job = job
        self.index = index
        self.shards = spec.shards
        self.limits = spec.limits
        self.needs = len(set(spec.needs))
        self.dependents: list[Stage] = []
        self.status = bytearray(spec.shards)
        self.numbers = array("H", bytes(2 * spec.shards))
        self.counts = {blame: bytearray(spec.shards) for blame in Blame}
        """How often an attempt of each shard ended badly, by blame."""
        self.order: Sequence[int] = ()
        """Shards in the order of their first attempts; empty until the stage is opened."""
        self.position = 0
        self.again: deque[int] = deque()
        """Shards to be tried again now. They go first: theirs is the longest delay."""
        self.decided = 0
        self.failed = 0
        self.running = 0
        self.mean_ns = 0.0
        self.listed = False
        """Whether the job's heap of stages with work holds this one."""
        self.closed = False
        """Whether nothing of it is to be started any more."""

    def open(self, sizes: Sequence[int]) -> None:
        """Line up the first attempts of all shards."""
        self.order = order_largest_first(sizes) if sizes else range(self.shards)

    def pop(self) -> int:
        """Return the next shard to be tried, or -1 where there is none."""
        while not self.closed:
            if self.again:
                shard = self.again.popleft()
            elif self.position < len(self.order):
                shard = self.order[self.position]
                self.position += 1
            else:
                return -1
            # A shard may have been decided while it waited, by an attempt that was given up for lost.
            if self.status[shard] == UNDECIDED:
                return shard
        return -1

    def learn(self, duration_ns: int) -> None:
        """Take the duration of a successful attempt into the mean."""
        if self.mean_ns > 0:
            self.mean_ns += _MEAN_WEIGHT * (min(duration_ns, _OUTLIER * self.mean_ns) - self.mean_ns)
        else:
            self.mean_ns = float(duration_ns)

    @property
    def done(self) -> bool:
        """Return whether every shard is decided."""
        return self.decided == self.shards


class Job:
    """A job and what is left of it."""

    __slots__ = (
        "key",
        "left",
        "listed",
        "number",
        "outcome",
        "ready",
        "reason",
        "retries",
        "running",
        "stages",
        "stops",
    )

    def __init__(self, event: JobSubmitted, number: int) -> None:
        self.key = event.job
        self.number = number
        """Its place in the order of submission."""
        self.stages = [Stage(self, index, spec) for index, spec in enumerate(event.stages)]
        for stage, spec in zip(self.stages, event.stages, strict=True):
            for need in set(spec.needs):
                self.stages[need].dependents.append(stage)
        self.ready: list[int] = []
        """A heap of the stages that have something to start."""
        self.listed = False
        """Whether the scheduler's heap of jobs with work holds this one."""
        self.left = len(self.stages)
        """Stages that are neither done nor closed."""
        self.running = 0
        """Attempts that workers hold."""
        self.retries = retry_budget(sum(spec.shards for spec in event.stages), event.retry_share, event.retry_floor)
        self.stops = event.on_failure is OnFailure.STOP
        self.outcome = JobOutcome.SUCCESS
        self.reason = Reason.NONE

    def next_shard(self) -> tuple[Stage, int] | None:
        """Return what to start next: of the earliest stage that has something."""
        while self.ready:
            stage = self.stages[self.ready[0]]
            shard = stage.pop()
            if shard >= 0:
                return stage, shard
            heapq.heappop(self.ready)
            stage.listed = False
        return None

    def blame(self, outcome: JobOutcome, reason: Reason) -> None:
        """Keep the first thing that went wrong as the job's end."""
        if self.outcome is JobOutcome.SUCCESS:
            self.outcome, self.reason = outcome, reason


class Worker:
    """A worker and the attempts that it holds, in the order in which it runs them."""

    __slots__ = ("held", "listed", "name", "up")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: dict[AttemptId, Running] = {}
        self.up = True
        self.listed = 0
        """Bit n is set while the list of workers that hold n attempts has an entry for this one."""


class Running:
    """An attempt that a worker holds."""

    __slots__ = ("attempt", "stage", "started", "stop", "worker")

    def __init__(self, attempt: AttemptId, stage: Stage, worker: Worker) -> None:
        self.attempt = attempt
        self.stage = stage
        self.worker = worker
        self.started = False
        self.stop: AttemptOutcome | None = None
        """As what it was told to end."""


class Pool:
    """The workers that are up, by how many attempts they hold; finds the least busy one in constant time."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.freed = False
        """Whether a worker has got room since `take` last found none."""
        self._filled = 0
        """Bit n is set while the list of workers that hold n attempts is not empty."""
        self._by_load: list[deque[Worker]] = [deque() for _ in range(MAX_WINDOW)]

    def add(self, name: str) -> None:
        """Take in a worker that holds nothing."""
        if name in self.workers:
            raise ValueError(f"worker {name!r} is up already")
        worker = self.workers[name] = Worker(name)
        self.list(worker)

    def list(self, worker: Worker) -> None:
        """Make a worker findable after what it holds has changed."""
        load = len(worker.held)
        self.freed = True
        # Entries are not removed when the load changes, only skipped; the bit keeps them to one per load.
        if load < MAX_WINDOW and not worker.listed >> load & 1:
            worker.listed |= 1 << load
            self._filled |= 1 << load
            self._by_load[load].append(worker)

    def take(self, window: int) -> Worker | None:
        """Return the worker that holds least, if that is less than `window`. The caller lists it again."""
        while filled := self._filled & ((1 << window) - 1):
            bit = filled & -filled
            load = bit.bit_length() - 1
            queue = self._by_load[load]
            worker = queue.popleft()
            worker.listed ^= bit
            if not queue:
                self._filled ^= bit
            if worker.up and len(worker.held) == load:
                return worker
        self.freed = False
        return None

    def remove(self, name: str) -> Worker | None:
        """Take out a worker that is gone; `None` for one that is not known."""
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.up = False
        return worker

    @property
    def busy(self) -> int:
        """Return how many workers hold attempts."""
        return sum(1 for worker in self.workers.values() if worker.held)
