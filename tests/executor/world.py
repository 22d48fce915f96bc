"""A seeded world for the scheduler: workers come and go, attempts end in every way, and everything is checked."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    Cancel,
    Commit,
    Event,
    JobEnded,
    JobSubmitted,
    ShardFailed,
    StageDone,
    StageOpened,
    StageReady,
    StageSpec,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import MAX_WINDOW
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, JobOutcome, Reason

MS = 1_000_000


@dataclass
class Chances:
    """How likely things are to go wrong in a world."""

    failure: float = 0.0
    throttled: float = 0.0
    permanent: float = 0.0
    hang: float = 0.0
    """An attempt that never ends by itself."""
    loss: float = 0.0
    """That a worker dies while it runs an attempt."""
    ghost: float = 0.0
    """That an attempt whose worker was declared lost succeeds all the same, later."""
    eviction: float = 0.0
    cancel: float = 0.0


@dataclass
class Book:
    """What the observer knows of one job, from what it saw alone."""

    submitted: JobSubmitted
    ready: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    committed: dict[tuple[int, int], int] = field(default_factory=dict)
    failed: dict[tuple[int, int], Reason] = field(default_factory=dict)
    started: Counter[tuple[int, int]] = field(default_factory=Counter)
    bad: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Attempts that ended by the shard's fault."""
    submits: int = 0
    cancelled: bool = False
    ended: JobEnded | None = None


class World:
    """Feeds a scheduler with events of its own making and checks every action. Same seed, same history."""

    def __init__(self, seed: int, chances: Chances, workers: int = 3) -> None:
        self.chance = random.Random(seed)
        self.chances = chances
        self.scheduler = Scheduler(random.Random(seed + 1))
        self.books: dict[str, Book] = {}
        self.held: dict[str, dict[AttemptId, bool]] = {}
        """By worker that is up: its attempts, and whether they have started."""
        self.where: dict[AttemptId, str] = {}
        self.seen: set[AttemptId] = set()
        self.log: list[Action] = []
        self.now = 0
        self._queue: list[tuple[int, int, Event, str]] = []
        self._serial = 0
        self._names = 0
        for _ in range(workers):
            self._hire(0)

    def submit(self, job: JobSubmitted, at: int = 0) -> None:
        """Have a job submitted at some time, and perhaps cancelled later."""
        self._later(at, job)
        if self.chance.random() < self.chances.cancel:
            self._later(at + self.chance.randrange(200 * MS), Cancel(job.job))

    def run(self, most: int = 200_000) -> None:
        """Let everything happen. Fails where it does not come to an end."""
        for _ in range(most):
            if not self._queue:
                break
            self.now, _, event, worker = heapq.heappop(self._queue)
            if self._happens(event, worker):
                for action in self.scheduler.on(event, self.now):
                    self.log.append(action)
                    self._check(action)
        assert not self._queue, "the world goes on for ever"
        for key, book in self.books.items():
            assert book.ended is not None, f"{key} never ended"
        assert not self.where, "attempts run although every job has ended"

    # What happens

    def _later(self, at: int, event: Event, worker: str = "") -> None:
        """Have something happen at some time; with `worker`, only if it still holds the attempt then."""
        self._serial += 1
        heapq.heappush(self._queue, (at, self._serial, event, worker))

    def _hire(self, at: int) -> None:
        self._names += 1
        self._later(at, WorkerUp(f"w{self._names}"))

    def _happens(self, event: Event, worker: str) -> bool:
        """Keep the books of an event; return whether it still can happen."""
        match event:
            case JobSubmitted():
                self.books[event.job] = Book(event)
            case Cancel():
                self.books[event.job].cancelled = self.books[event.job].ended is None
            case WorkerUp():
                self.held[event.worker] = {}
            case WorkerLost():
                if event.worker not in self.held:
                    return False
                self._lose(event)
            case AttemptStarted(attempt):
                if self.where.get(attempt) != worker:
                    return False
                self.held[worker][attempt] = True
                self.books[attempt.job].started[attempt[1:3]] += 1
            case AttemptEnded(attempt):
                if worker and self.where.get(attempt) != worker:
                    return False
                if worker:
                    self._end(event)
        return True

    def _lose(self, event: WorkerLost) -> None:
        """A worker goes; one of its attempts may turn out to have gone on. Another worker comes."""
        for attempt, started in self.held.pop(event.worker).items():
            del self.where[attempt]
            if started and self.chance.random() < self.chances.ghost:
                at = self.now + self.chance.randrange(50 * MS)
                self._later(at, AttemptEnded(attempt, AttemptOutcome.SUCCESS, duration_ns=MS))  # of no worker
        self._hire(self.now + self.chance.randrange(20 * MS))

    def _end(self, event: AttemptEnded) -> None:
        worker = self.where.pop(event.attempt)
        held = self.held[worker]
        first = next(iter(held)) == event.attempt
        del held[event.attempt]
        if event.outcome in (AttemptOutcome.FAILURE, AttemptOutcome.TIMEOUT) or event.reason is Reason.STORAGE:
            self.books[event.attempt.job].bad[event.attempt[1:3]] += 1
        if held and first:
            self._begin(next(iter(held)), self.now)

    def _begin(self, attempt: AttemptId, at: int) -> None:
        """The first attempt that a worker holds begins, and something will become of it."""
        worker = self.where[attempt]
        self._later(at, AttemptStarted(attempt), worker)
        roll, ends = self.chance.random(), at + 1 + int(self.chance.expovariate(1 / (5 * MS)))
        chances = self.chances
        for likely, event in (
            (chances.failure, AttemptEnded(attempt, AttemptOutcome.FAILURE, Reason.EXCEPTION)),
            (chances.throttled, AttemptEnded(attempt, AttemptOutcome.ERROR, Reason.STORAGE, throttled=True)),
            (chances.permanent, AttemptEnded(attempt, AttemptOutcome.FAILURE, Reason.EXCEPTION, permanent=True)),
            (chances.loss, WorkerLost(worker)),
            (chances.eviction, WorkerLost(worker, Reason.PREEMPTED)),
            (chances.hang, None),
            (1.0, AttemptEnded(attempt, AttemptOutcome.SUCCESS, duration_ns=ends - at)),
        ):
            if roll < likely:
                if event is not None:
                    self._later(ends, event, worker)
                return
            roll -= likely

    # What the scheduler may and may not do

    def _check(self, action: Action) -> None:
        match action:
            case Submit(attempt, worker):
                self._check_submit(attempt, worker)
            case StageReady(job, stage):
                book = self.books[job]
                assert stage not in book.ready, "a stage is opened once"
                assert set(book.submitted.stages[stage].needs) <= book.done, "a stage waits for those that it needs"
                book.ready.add(stage)
                sizes = [self.chance.randrange(100) for _ in range(book.submitted.stages[stage].shards)]
                self._later(self.now + self.chance.choice((0, 3 * MS)), StageOpened(job, stage, sizes))
            case Stop(attempt, outcome):
                assert attempt in self.where, "only what a worker holds can be stopped"
                worker = self.where[attempt]
                dies = self.chance.random() < 0.3
                event = WorkerLost(worker) if dies else AttemptEnded(attempt, outcome)
                self._later(self.now + self.chance.randrange(5 * MS), event, worker)
            case Commit(attempt):
                book, shard = self.books[attempt.job], attempt[1:3]
                assert book.ended is None
                assert shard not in book.committed, "a shard is committed once"
                assert shard not in book.failed, "a shard that was given up stays so"
                book.committed[shard] = attempt.number
            case ShardFailed(attempt, reason):
                book, shard = self.books[attempt.job], attempt[1:3]
                assert shard not in book.committed
                assert shard not in book.failed, "a shard is given up once"
                book.failed[shard] = reason
            case StageDone(job, stage):
                self.books[job].done.add(stage)
                shards = {shard for number, shard in self.books[job].committed if number == stage}
                assert len(shards) == self.books[job].submitted.stages[stage].shards
            case JobEnded(job):
                self._check_end(self.books[job], action)
            case WaitUntil(at):
                self._later(max(at, self.now), Tick())

    def _check_submit(self, attempt: AttemptId, worker: str) -> None:
        book, shard = self.books[attempt.job], attempt[1:3]
        assert book.ended is None, "nothing is started for a job that has ended"
        assert attempt.stage in book.ready
        assert shard not in book.committed, "nothing is started for a shard that is decided"
        assert shard not in book.failed
        assert worker in self.held, "nothing goes to a worker that is gone"
        assert len(self.held[worker]) < MAX_WINDOW, "nothing goes to a worker that is full"
        assert attempt not in self.seen or attempt.number == book.started[shard], (
            "a number that was used is not given again"
        )
        self.seen.add(attempt)
        book.submits += 1
        self.where[attempt] = worker
        self.held[worker][attempt] = False
        if len(self.held[worker]) == 1:
            self._begin(attempt, self.now)

    def _check_end(self, book: Book, end: JobEnded) -> None:
        assert book.ended is None, "a job ends once"
        book.ended = end
        assert not [attempt for attempt in self.where if attempt.job == end.job], "a job ends when nothing of it runs"
        stages = book.submitted.stages
        everything = {(number, shard) for number, spec in enumerate(stages) for shard in range(spec.shards)}
        assert (end.outcome is JobOutcome.SUCCESS) == (set(book.committed) == everything and not book.cancelled)
        assert (end.outcome in (JobOutcome.FAILURE, JobOutcome.ERROR)) == bool(book.failed) or book.cancelled
        retries = 0
        for (number, shard), started in book.started.items():
            limits = stages[number].limits
            assert started <= limits.attempts + limits.losses + limits.preemptions
            retries += min(book.bad[(number, shard)], started - 1)
        planned = sum(spec.shards for spec in stages)
        assert retries <= int(planned * book.submitted.retry_share) + book.submitted.retry_floor + len(
            everything - set(book.committed)
        )


def random_job(chance: random.Random, key: str) -> JobSubmitted:
    """Return a job of one to four stages that need some of those before them."""
    stages: list[StageSpec] = []
    for index in range(chance.randint(1, 4)):
        needs = tuple(n for n in range(index) if chance.random() < 0.6)
        limits = Limits(attempts=chance.randint(1, 4), losses=chance.randint(0, 3), timeout=0.05, backoff=0.01)
        stages.append(StageSpec(chance.randint(1, 30), needs, limits))
    return JobSubmitted(
        key,
        tuple(stages),
        chance.choice(list(OnFailure)),
        retry_share=chance.choice((0.0, 0.1, 1.0)),
        retry_floor=chance.randint(0, 5),
    )


def random_world(seed: int) -> World:
    """Return a world with one to three jobs in which anything may go wrong, more or less often."""
    chance = random.Random(seed)
    scale = chance.choice((0.0, 0.02, 0.1, 0.3))
    rates = [chance.random() * scale for _ in range(6)]
    world = World(
        seed, Chances(*rates[:4], loss=rates[4], eviction=rates[5], ghost=0.5, cancel=0.1), chance.randint(1, 6)
    )
    for number in range(chance.randint(1, 3)):
        world.submit(random_job(chance, f"job-{number}"), chance.randrange(50 * MS))
    return world


def outcomes(world: World) -> dict[str, Counter[JobOutcome]]:
    """Return how the jobs of a world ended."""
    found: dict[str, Counter[JobOutcome]] = defaultdict(Counter)
    for key, book in world.books.items():
        if book.ended is not None:
            found[key][book.ended.outcome] += 1
    return found
