"""A seeded world for the scheduler: machines come and go, attempts end in every way, and everything is observed."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator

from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptId,
    AttemptProgress,
    AttemptStarted,
    BudgetSpent,
    Cancel,
    Commit,
    Event,
    JobEnded,
    JobSubmitted,
    OutputLost,
    Scale,
    SetAside,
    ShardFailed,
    ShardSplit,
    Split,
    StageDone,
    StageOpened,
    StageReady,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerDraining,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.policies import Blame, Policy, blame_for
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, Reason
from tests.executor.fates import MS, Chances, Crash, Ghost, Machines, fate_of
from tests.executor.losses import Losses
from tests.executor.observer import Book, Observer

SOME_MACHINES = Machines()
USUAL = Policy()
UNIT = 1 << 20
"""The work of a shard that has not been split."""


class World:
    """Feeds a scheduler with events of its own making and has every action checked. Same seed, same history."""

    def __init__(self, seed: int, chances: Chances, machines: Machines = SOME_MACHINES, policy: Policy = USUAL) -> None:
        self.chance = random.Random(seed)
        self.chances = chances
        self.machines = machines
        self.observer = Observer(policy)
        self.scheduler = Scheduler(random.Random(seed + 1), policy)
        self.log: list[Action] = []
        self.told: Counter[type] = Counter()
        """Events, by kind."""
        self.now = 0
        self.crashes = 0
        self._seed = seed
        self._target = machines.workers
        self._coming = 0
        self._queue: list[tuple[int, int, Event | Crash | Ghost, str, int]] = []
        self._serial = 0
        self._names = 0
        self._innocent: set[AttemptId] = set()
        """Attempts that did not find what they should read."""
        self._slow = {f"n{n}" for n in range(machines.nodes) if self.chance.random() < chances.slow_node}
        self._hire(0)

    @property
    def books(self) -> dict[str, Book]:
        """Return what the observer knows of the jobs."""
        return self.observer.books

    def submit(self, job: JobSubmitted, at: int = 0) -> None:
        """Have a job submitted at some time, and perhaps cancelled later."""
        self.later(at, job)
        if self.chance.random() < self.chances.cancel:
            self.later(at + self.chance.randrange(200 * MS), Cancel(job.job))

    def run(self, most: int = 30_000) -> None:
        """Let everything happen. Fails where it does not come to an end."""
        for _ in range(most):
            if not self._queue:
                break
            self.now, _, event, worker, life = heapq.heappop(self._queue)
            if life not in (0, self.observer.life + 1):
                continue
            for fact in self._happens(event, worker):
                self.told[type(fact)] += 1
                for action in self.scheduler.on(fact, self.now):
                    self.log.append(action)
                    self._do(action)
            self.observer.check_waits(self.now)
        assert not self._queue, "the world goes on for ever"
        for key, book in self.books.items():
            assert book.ended is not None, f"{key} never ended"
        assert not self.observer.where, "attempts run although every job has ended"

    def later(self, at: int, event: Event | Crash | Ghost, worker: str = "", *, life: bool = False) -> None:
        """Have something happen: with `worker`, if it still holds the attempt; with `life`, to this coordinator."""
        self._serial += 1
        ends_with = self.observer.life + 1 if life or worker else 0
        heapq.heappush(self._queue, (at, self._serial, event, worker, ends_with))

    def _soon(self, most: int) -> int:
        return self.now + self.chance.randrange(most)

    def _hire(self, within: int) -> None:
        """Have as many workers come as are missing."""
        machines, chance = self.machines, self.chance
        missing = self._target - len(self.observer.workers) + len(self.observer.draining) - self._coming
        for _ in range(missing):
            self._names += 1
            self._coming += 1
            node, zone = machines.place(chance)
            spot, memory = chance.random() < machines.spot, chance.choice(machines.memory)
            up = WorkerUp(f"w{self._names}", node, zone, spot, memory)
            self.later(self._soon(within + 1), up, life=True)

    # What happens

    def _happens(self, event: Event | Crash | Ghost, worker: str) -> Iterator[Event]:
        """Keep the books of an event, and yield what the scheduler is told of it."""
        seen, where = self.observer, self.observer.where
        match event:
            case JobSubmitted(job):
                book = seen.books.setdefault(job, Book(event))
                for index, spec in enumerate(event.stages if not book.units else ()):
                    book.units.update({(index, shard): UNIT for shard in range(spec.shards)})
            case Cancel(job):
                if job not in seen.books:
                    return
                seen.books[job].cancel()
                if self.chance.random() < self.chances.crash_when_cancelled:
                    self.later(self._soon(2 * MS), Crash())
            case WorkerUp() | WorkerDraining() | WorkerLost():
                yield from self._machines_change(event)
                return
            case StageOpened(job, stage):
                seen.books[job].opened.add(stage)
            case ShardSplit(job):
                seen.books[job].split(event)
            case BudgetSpent(tenant, spent):
                (seen.spent.add if spent else seen.spent.discard)(tenant)
            case AttemptStarted(attempt):
                if where.get(attempt) != worker:
                    return
                seen.start(attempt, worker, self.now)
            case AttemptProgress(attempt) if where.get(attempt) != worker:
                return
            case AttemptEnded(attempt):
                if worker and where.get(attempt) != worker:
                    return
                event = self._end(event, worker)
            case OutputLost():
                if not self._damage(event):
                    return
            case Crash():
                yield from self._crash()
                return
            case Ghost(job, stage, shard, number):
                if seen.books[job].ended is None:
                    seen.outputs.setdefault((job, stage, shard), number)
                return
        yield event

    def _machines_change(self, event: WorkerUp | WorkerDraining | WorkerLost) -> Iterator[Event]:
        """A worker comes, is to be taken away, or is gone; what is told of one that is gone already is nothing."""
        seen = self.observer
        if isinstance(event, WorkerUp):
            self._coming -= 1
            seen.workers[event.worker] = event
            seen.losses.zones.add(event.zone)
            seen.held[event.worker] = {}
        elif event.worker not in seen.workers:
            return
        elif isinstance(event, WorkerDraining):
            seen.draining.add(event.worker)
            self._hire(20 * MS)
        elif event.reason is Reason.NODE_LOST:
            yield from self._lose_node(event)
            return
        else:
            self._lose(event)
        yield event

    def _lose_node(self, event: WorkerLost) -> Iterator[Event]:
        """All workers of a node go at once."""
        node = self.observer.workers[event.worker].node
        for up in [up for up in self.observer.workers.values() if up.node == node]:
            lost = WorkerLost(up.worker, Reason.NODE_LOST)
            self._lose(lost)
            yield lost

    def _lose(self, event: WorkerLost) -> None:
        """A worker goes; one of its attempts may turn out to have gone on. Another worker comes."""
        seen = self.observer
        up = seen.workers.pop(event.worker)
        seen.draining.discard(event.worker)
        outcome = AttemptOutcome.PREEMPTED if event.reason is Reason.PREEMPTED else AttemptOutcome.ERROR
        for attempt, started in seen.held.pop(event.worker).items():
            self._forget(attempt, up)
            if not started:
                seen.books[attempt.job].copies.discard(attempt)
                seen.books[attempt.job].retries.discard(attempt)
                continue
            self._blame(attempt, outcome, event.reason, up)
            if self.chance.random() < self.chances.ghost:
                self.later(
                    self._soon(50 * MS), AttemptEnded(attempt, AttemptOutcome.SUCCESS, duration_ns=MS), life=True
                )
        self._hire(20 * MS)

    def _forget(self, attempt: AttemptId, up: WorkerUp) -> None:
        """A worker does not hold an attempt any more."""
        del self.observer.where[attempt]
        if self.observer.alone.get(up.node) == attempt:
            del self.observer.alone[up.node]

    def _blame(self, attempt: AttemptId, outcome: AttemptOutcome, reason: Reason, up: WorkerUp) -> None:
        """Note whose doing the end of an attempt was."""
        seen, book = self.observer, self.books[attempt.job]
        told = book.stopped.get(attempt)
        if attempt in self._innocent:
            book.blamed.pop(attempt[1:3], None)
            return
        blame = book.blamed[attempt[1:3]] = blame_for(told or outcome, reason)
        if told in (None, AttemptOutcome.TIMEOUT) and book.is_open(attempt[1:3]):
            book.blame(attempt[1:3], blame, spare=int(seen.policy.speculation is not None))
            seen.lose(attempt, blame, Reason.DEADLINE if told else reason, up.zone, self.now)
        if book.blamed[attempt[1:3]] is Blame.EVICTION:
            seen.evicted.add(attempt[:3])
        if reason is Reason.OOM_KILLED and told is None:
            seen.short[attempt[:3]] = max(up.memory_bytes, seen.short.get(attempt[:3], 0))

    def _end(self, event: AttemptEnded, worker: str) -> AttemptEnded:
        """An attempt ends. The first one that succeeds puts its output in place, any other finds it there."""
        attempt, seen = event.attempt, self.observer
        if event.outcome is AttemptOutcome.SUCCESS and seen.books[attempt.job].ended is None:
            there = seen.outputs.setdefault(attempt[:3], seen.number(attempt))
            if there != seen.number(attempt):
                winner = there - seen.life * 1000
                event = AttemptEnded(attempt, AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED, winner=winner)
        if worker:
            self._forget(attempt, seen.workers[worker])
            held = seen.held[worker]
            first = next(iter(held)) == attempt
            del held[attempt]
            if event.outcome is AttemptOutcome.SUCCESS and seen.books[attempt.job].is_open(attempt[1:3]):
                seen.losses.learn(attempt, event.duration_ns)
            if event.outcome not in (AttemptOutcome.SUCCESS, AttemptOutcome.SUPERSEDED):
                self._blame(attempt, event.outcome, event.reason, seen.workers[worker])
            if held and first:
                self._begin(next(iter(held)))
        return event

    def _damage(self, event: OutputLost) -> bool:
        """Committed output goes, if it is there; return whether that was found out."""
        book, position = self.books[event.job], (event.stage, event.shard)
        if book.ended is not None or position not in book.committed:
            return False
        self.observer.outputs.pop((event.job, *position), None)
        readers = [n for n, spec in enumerate(book.submitted.stages) if event.stage in spec.needs]
        if readers and set(readers) <= book.done:
            return False  # nobody will look
        del book.committed[position]
        if book.failed:
            book.unread.add(position)
        book.blamed.pop(position, None)
        book.done.discard(event.stage)
        return True

    def _crash(self) -> Iterator[Event]:
        """The coordinator dies with its workers; the next one goes on from what was committed."""
        seen = self.observer
        self.crashes += 1
        for attempt in seen.where:
            if self.chance.random() < self.chances.ghost:
                self.later(self._soon(50 * MS), Ghost(*attempt[:3], seen.number(attempt)))
        for forgotten in (seen.workers, seen.draining, seen.aside, seen.held, seen.where, seen.seen, seen.alone):
            forgotten.clear()
        for also in (seen.short, self._innocent):
            also.clear()
        seen.losses = Losses()
        seen.life += 1
        self._coming = 0
        self.scheduler = Scheduler(random.Random(self._seed + 1 + seen.life), seen.policy)
        self._hire(5 * MS)
        yield from (BudgetSpent(tenant, True) for tenant in sorted(seen.spent))
        for book in seen.books.values():
            if book.ended is None:
                yield book.begin_life()

    # What becomes of an attempt

    def _begin(self, attempt: AttemptId) -> None:
        """The first attempt that a worker holds begins, and something will become of it."""
        worker, at = self.observer.where[attempt], self.now
        self.later(at, AttemptStarted(attempt), worker)
        lost = self.observer.missing(attempt)
        if lost:
            self._innocent.add(attempt)
            for event in lost:
                self.later(at, event, life=True)
            self.later(at, AttemptEnded(attempt, AttemptOutcome.ERROR, Reason.STORAGE), worker)
            return
        share = self.books[attempt.job].units[attempt[1:3]] / (UNIT)
        slow = 20 if self.observer.workers[worker].node in self._slow else 1
        took = 1 + int(self.chance.expovariate(1 / (5 * MS * slow * share)))
        if self.chance.random() < 0.3:
            self.later(at + took // 2, AttemptProgress(attempt, 0.5), worker)
        if self.chance.random() < self.chances.crash and self.crashes < 10:
            self.later(self._soon(took), Crash())
        odds = self.chances.at(self.observer.workers[worker].zone)
        fate = fate_of(self.chance.random(), odds, attempt, worker, took)
        if isinstance(fate, WorkerLost) and fate.reason is Reason.PREEMPTED:
            self.later(at + took // 2, WorkerDraining(worker), life=True)
        if fate is not None:
            self.later(at + took, fate, worker)

    # What the scheduler decides

    def _do(self, action: Action) -> None:
        """Have a decision checked, and do it."""
        seen = self.observer
        match action:
            case Submit(attempt, worker, speculative):
                seen.submit(attempt, worker, speculative, self.now)
                if len(seen.held[worker]) == 1:
                    self._begin(attempt)
            case StageReady(job, stage):
                seen.ready(job, stage)
                self._open(job, stage)
            case Split(job, stage, shard, parts):
                seen.split(action)
                sizes = [10] * parts if self.chance.random() < 0.8 else []
                self.later(self._soon(5 * MS), ShardSplit(job, stage, shard, sizes), life=True)
            case Stop(attempt, outcome):
                assert attempt in seen.where, "only what a worker holds can be stopped"
                worker = seen.where[attempt]
                self.books[attempt.job].stopped[attempt] = outcome
                dies = self.chance.random() < 0.3
                event = WorkerLost(worker) if dies else AttemptEnded(attempt, outcome)
                self.later(self._soon(5 * MS), event, worker)
            case Commit(attempt):
                seen.commit(action)
                if self.chance.random() < self.chances.damage:
                    self.later(self._soon(50 * MS), OutputLost(*attempt[:3]), life=True)
            case ShardFailed():
                seen.fail(action)
            case StageDone(job, stage):
                seen.done(job, stage)
            case JobEnded():
                seen.end(action)
            case WaitUntil(at):
                self.later(max(at, self.now), Tick(), life=True)
            case Scale(workers):
                self._scale(workers)
            case SetAside(node, until):
                assert node, "only a node that is known can be set aside"
                seen.aside[node] = until

    def _open(self, job: str, stage: int) -> None:
        """The input of a stage is there; how large it is, and where, may be known or not."""
        shards, chance = self.books[job].shards(stage), self.chance
        units = [self.books[job].units[stage, shard] for shard in range(shards)]
        whole = [chance.choice((5, 10, 12, 200)) for _ in range(shards)]
        sizes = [size if unit == UNIT else 10 for size, unit in zip(whole, units, strict=True)]
        if chance.random() < 0.3:
            sizes = []
        nodes: list[str | None] = []
        if self.machines.nodes and chance.random() < 0.5:
            nodes = [f"n{chance.randrange(self.machines.nodes + 1)}" for _ in range(shards)]
        self.later(self.now + chance.choice((0, 3 * MS)), StageOpened(job, stage, sizes, nodes), life=True)

    def _scale(self, workers: int) -> None:
        """Hire, or let those go that came last."""
        rules = self.observer.policy.autoscale
        assert rules is not None
        assert rules.lowest <= workers <= rules.highest
        self._target = workers
        staying = [name for name in self.observer.workers if name not in self.observer.draining]
        for name in staying[workers:]:
            self.later(self.now, WorkerDraining(name), life=True)
            self.later(self._soon(20 * MS), WorkerLost(name, Reason.PREEMPTED), life=True)
        self._hire(20 * MS)
