"""What the scheduler remembers of jobs: tenants, jobs, stages, shards and running attempts."""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from mppobs.executor import policies
from mppobs.executor.events import AttemptId, JobSubmitted, Setbacks, StageSpec
from mppobs.executor.plan import OnFailure
from mppobs.executor.policies import Blame, Share, order_largest_first, retry_budget
from mppobs.executor.scheduling.locality import Local
from mppobs.executor.scheduling.pool import Node, Worker
from mppobs.executor.scheduling.sketch import Sketch
from mppobs.model import AttemptOutcome, JobOutcome, Reason, Tier

UNDECIDED: Final = 0
COMMITTED: Final = 1
FAILED: Final = 2
REPLACED: Final = 3
"""By the smaller shards that it was split into."""

UNLIMITED: Final = 1 << 60
_MEAN_WEIGHT: Final = 0.1
"""Of the newest duration in a stage's mean, which is to follow the last ten or so."""
_OUTLIER: Final = 4.0
"""A duration counts as so many times the mean at most: one attempt that lost its core for a while says little."""
_MIB_BITS: Final = 20


class Running:
    """An attempt that a worker holds."""

    __slots__ = ("attempt", "judged", "progress", "speculative", "stage", "started_ns", "stop", "struck", "worker")

    def __init__(self, attempt: AttemptId, stage: Stage, worker: Worker, speculative: bool) -> None:
        self.attempt = attempt
        self.stage = stage
        self.worker = worker
        self.speculative = speculative
        self.started_ns = -1
        """When it began; negative while it waits at the worker."""
        self.progress = 0.0
        self.stop: AttemptOutcome | None = None
        """As what it was told to end."""
        self.judged = False
        """Whether what can be done about its running long has been done."""
        self.struck = False
        """Whether its running long has been counted against its node."""


class Special:
    """What a shard needs of a worker that others of its stage do not."""

    __slots__ = ("memory", "node", "on_demand", "out_of_memory", "wait_ns", "zones")

    def __init__(self) -> None:
        self.out_of_memory = False
        self.memory = 0
        """The worker must have more than this, or the shard has a node to itself."""
        self.on_demand = False
        """The worker should not be evicted."""
        self.node: Node | None = None
        """What is kept for it, while that empties and while it runs there."""
        self.zones = 0
        """Those in which it was lost with its worker, a bit for each."""
        self.wait_ns = 0
        """For how long it passes on workers in those; 0 for not at all."""

    @property
    def is_bound(self) -> bool:
        """Return whether it needs something of its worker; else it only prefers a zone."""
        return self.out_of_memory or self.on_demand


class Timing:
    """How long a stage's attempts take: the mean of late, the quartiles of all, and how that goes with their input."""

    __slots__ = ("durations", "mean_ns", "paces")

    def __init__(self) -> None:
        self.mean_ns = 0.0
        self.durations = Sketch()
        self.paces = Sketch()
        """Nanoseconds for a MiB of input."""

    def learn(self, duration_ns: int, size: int) -> None:
        """Take in the duration of a successful attempt, and its input where that is known."""
        if self.mean_ns > 0:
            self.mean_ns += _MEAN_WEIGHT * (min(duration_ns, _OUTLIER * self.mean_ns) - self.mean_ns)
        else:
            self.mean_ns = float(duration_ns)
        self.durations.add(duration_ns)
        if size:
            self.paces.add((duration_ns << _MIB_BITS) // size)

    def expected_ns(self, size: int, median_ns: float, median_pace: float) -> float:
        """Return how long a shard should take by its size, and no less than the median."""
        return max(median_ns, median_pace * size / (1 << _MIB_BITS))


class Pressure:
    """How many attempts of a stage there may be at a time, which is fewer while they are throttled."""

    __slots__ = ("_cap", "_since_ns", "_successes", "limit", "on_from")

    def __init__(self, cap: int) -> None:
        self._cap = cap or UNLIMITED
        self.limit = self._cap
        """Most attempts at a time."""
        self.on_from = 0
        """How many attempts there were at a time when the first was throttled; 0 while there is no pressure."""
        self._since_ns = 0
        self._successes = 0

    def rise(self, held: int, started_ns: int, now_ns: int) -> None:
        """Allow fewer, since one of so many was throttled that began then."""
        if self.on_from and started_ns < self._since_ns:
            return  # it was begun before the limit took hold
        self.on_from = max(self.on_from, held)
        self.limit = min(self.limit, policies.fewer_at_a_time(held))
        self._since_ns, self._successes = now_ns, 0

    def ease(self) -> bool:
        """Count a success, and allow one more after a round of them; return whether that was so."""
        self._successes += 1
        if not policies.more_at_a_time(self.limit, self._successes):
            return False
        self._successes = 0
        self.limit += 1
        if self.limit >= self.on_from:
            self.on_from, self.limit = 0, self._cap
        return True


class Splits:
    """What has been asked about splitting a stage's shards."""

    __slots__ = ("apart", "asked", "asking")

    def __init__(self) -> None:
        self.apart: dict[int, None] = {}
        """Shards that are not begun before it is known whether they are split."""
        self.asked: dict[int, None] = {}
        """Shards that are not asked about again, nor their parts."""
        self.asking: dict[int, AttemptId | None] = {}
        """Shards that are perhaps being split, with the attempt that has succeeded meanwhile."""


class Stage:
    """The shards of one stage of a job: which are decided, which are to be tried, and what they went through."""

    __slots__ = (
        "again", "backups", "closed", "counts", "decided", "dependents", "failed", "held", "index", "job", "limits",
        "listed", "local", "needs", "numbers", "opened", "order", "pending_backups", "position", "pressure", "ready",
        "shards", "sizes", "spec", "special", "splits", "status", "timing", "watched",
    )  # fmt: skip

    def __init__(self, job: Job, index: int, spec: StageSpec, committed: Sequence[int]) -> None:
        self.job = job
        self.index = index
        self.spec = spec
        self.shards = spec.shards
        self.limits = spec.limits
        self.needs = len(set(spec.needs))
        """Stages that it needs and that are not done."""
        self.dependents: list[Stage] = []
        self.status = bytearray(spec.shards)
        for shard in committed:
            self.status[shard] = COMMITTED
        self.decided = sum(1 for status in self.status if status) if committed else 0
        self.failed = 0
        self.numbers = array("H", bytes(2 * spec.shards))
        """Of each shard's next attempt."""
        self.counts = {blame: bytearray(spec.shards) for blame in Blame}
        """How often an attempt of each shard ended badly, by blame."""
        self.order: Sequence[int] = ()
        """Shards in the order of their first attempts; empty until the stage is opened."""
        self.position = 0
        self.again: deque[int] = deque()
        """Shards to be tried now out of order. They go first: theirs is the longest delay."""
        self.backups: deque[Running] = deque()
        """Attempts beside which another is to be begun."""
        self.pending_backups: dict[int, None] = {}
        """The shards of those, for as long as the copy is neither begun nor given up."""
        self.special: dict[int, Special] = {}
        self.splits = Splits()
        self.pressure = Pressure(spec.cap)
        self.timing = Timing()
        self.held: dict[AttemptId, Running] = {}
        """Attempts that workers hold, in the order in which they were handed out."""
        self.local: Local | None = None
        self.sizes = array("Q")
        self.watched = False
        """Whether it is looked at for stragglers from time to time."""
        self.listed = False
        """Whether the job's heap of stages with work holds this one."""
        self.ready = False
        """Whether it was asked for to be opened."""
        self.opened = False
        self.closed = self.decided == self.shards
        """Whether nothing of it is to be started any more."""

    def recall(self, given_up: Sequence[int], setbacks: Mapping[int, Setbacks]) -> None:
        """Take in which shards earlier coordinators gave up, and what attempts at others came to."""
        for shard in given_up:
            self.status[shard] = FAILED
        self.failed = len(given_up)
        self.decided = sum(1 for status in self.status if status)
        self.closed = self.done
        for shard, had in setbacks.items():
            for counts, count in zip(self.counts.values(), had, strict=True):
                counts[shard] = count

    def open(self, sizes: Sequence[int]) -> None:
        """Take in that the stage's input is there, and how much it is for each shard."""
        self.opened = True
        if any(sizes):
            self.sizes = array("Q", sizes)

    def line_up(self) -> None:
        """Line up the first attempts of all shards that are not decided, but those that are kept apart."""
        order = order_largest_first(self.sizes) if self.sizes else range(self.shards)
        if self.decided or self.splits.apart:
            status, apart = self.status, self.splits.apart
            order = array("L", [shard for shard in order if status[shard] == UNDECIDED and shard not in apart])
        self.order = order

    @property
    def has_work(self) -> bool:
        """Return whether there may be something to start."""
        return bool(self.position < len(self.order) or self.again or self.backups)

    @property
    def is_full(self) -> bool:
        """Return whether as many of its attempts are held as may be at a time."""
        return len(self.held) >= self.pressure.limit

    def pop(self) -> int:
        """Return the next shard to be tried, or -1 where there is none."""
        while not self.closed and not self.needs:
            if self.again:
                shard = self.again.popleft()
            elif self.position < len(self.order):
                shard = self.order[self.position]
                self.position += 1
                if self.local is not None and not self.local.claim(shard):
                    continue
            else:
                return -1
            # A shard may have been decided while it waited, by an attempt that was given up for lost; and it may be
            # wanted once more after that, and so have been lined up twice.
            if self.status[shard] == UNDECIDED and not (self.numbers[shard] and self.copies(shard)):
                return shard
        return -1

    def skip_claimed(self) -> None:
        """Go past first attempts that were begun out of order, beside their data."""
        local, order = self.local, self.order
        while local is not None and self.position < len(order) and local.is_claimed(order[self.position]):
            self.position += 1

    def size_of(self, shard: int) -> int:
        """Return a shard's input bytes; 0 where they are not known."""
        return self.sizes[shard] if self.sizes else 0

    def add(self, sizes: Sequence[int], status: int) -> range:
        """Append shards and return their positions."""
        first = self.shards
        self.shards += len(sizes)
        self.status.extend(bytes([status]) * len(sizes))
        self.numbers.extend([0] * len(sizes))
        for counts in self.counts.values():
            counts.extend(bytes(len(sizes)))
        if self.sizes:
            self.sizes.extend(sizes)
        if status != UNDECIDED:
            self.decided += len(sizes)
        return range(first, self.shards)

    def copies(self, shard: int) -> list[Running]:
        """Return the attempts of a shard that workers hold."""
        found = []
        for number in range(self.numbers[shard]):
            running = self.held.get(AttemptId(self.job.key, self.index, shard, number))
            if running is not None:
                found.append(running)
        return found

    @property
    def done(self) -> bool:
        """Return whether every shard is decided."""
        return self.decided == self.shards


class Tenant:
    """A tenant, what it has of the workers, and its jobs that want some."""

    __slots__ = ("active", "held", "jobs", "listed", "name", "number", "share", "spent", "waiting")

    def __init__(self, name: str, number: int, share: Share) -> None:
        self.name = name
        self.number = number
        """Its place in the order in which tenants came."""
        self.share = share
        self.jobs: list[tuple[int, int, Job]] = []
        """A heap of the jobs that have something to start, by when they are due."""
        self.waiting: dict[Job, None] = {}
        """Jobs that have something to start and may not."""
        self.held = 0
        """Attempts that workers hold."""
        self.active = 0
        """Jobs that have begun."""
        self.spent = False
        """Whether its budget is gone."""
        self.listed = False
        """Whether it is among the tenants that take turns."""

    @property
    def is_full(self) -> bool:
        """Return whether workers hold as many attempts for it as they may."""
        return 0 < self.share.quota <= self.held


class Job:
    """A job and what is left of it."""

    __slots__ = (
        "begun", "cap", "critical", "due", "key", "left", "listed", "number", "outcome", "ready", "reason", "retries",
        "running", "stages", "stopping", "stops", "tenant",
    )  # fmt: skip

    def __init__(self, event: JobSubmitted, number: int, tenant: Tenant, due: int) -> None:
        self.key = event.job
        self.number = number
        """Its place in the order of submission."""
        self.tenant = tenant
        self.due = due
        self.critical = event.tier is Tier.CRITICAL
        self.cap = event.cap or UNLIMITED
        self.stages = [
            Stage(self, index, spec, event.committed.get(index, ())) for index, spec in enumerate(event.stages)
        ]
        for stage, spec in zip(self.stages, event.stages, strict=True):
            for need in set(spec.needs):
                self.stages[need].dependents.append(stage)
        self.ready: list[int] = []
        """A heap of the stages that have something to start."""
        self.listed = False
        """Whether the tenant's heap of jobs with work, or those that wait, hold this one."""
        self.begun = False
        self.left = len(self.stages)
        """Stages that are neither done nor closed."""
        self.running = 0
        """Attempts that workers hold."""
        self.retries = retry_budget(sum(spec.shards for spec in event.stages), event.retry_share, event.retry_floor)
        self.stops = event.on_failure is OnFailure.STOP
        self.stopping = False
        self.outcome = event.earlier.outcome
        self.reason = event.earlier.reason

    def next_stage(self) -> Stage | None:
        """Return the earliest stage that may start something; those before it are taken off the list."""
        while self.ready:
            stage = self.stages[self.ready[0]]
            if stage.has_work and not stage.is_full and not stage.closed and not stage.needs:
                return stage
            heapq.heappop(self.ready)
            stage.listed = False
        return None

    def blame(self, outcome: JobOutcome, reason: Reason) -> None:
        """Keep the first thing that went wrong as the job's end."""
        if self.outcome is JobOutcome.SUCCESS:
            self.outcome, self.reason = outcome, reason
