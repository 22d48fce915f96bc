"""Someone who sees all that a scheduler is told and decides, keeps books of it, and objects to what must not be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mppobs.executor.events import (
    AttemptId,
    Commit,
    Earlier,
    JobEnded,
    JobSubmitted,
    OutputLost,
    Setbacks,
    ShardFailed,
    ShardSplit,
    Split,
    StageSpec,
    WorkerUp,
)
from mppobs.executor.plan import OnFailure
from mppobs.executor.policies import MAX_WINDOW, SECOND, Blame, Policy
from mppobs.model import AttemptOutcome, JobOutcome, Reason, Tier
from tests.executor.losses import Losses, Shard

Position = tuple[int, int]
"""A stage and a shard of it."""


@dataclass
class Book:
    """What the observer knows of one job, from what it saw alone."""

    submitted: JobSubmitted
    units: dict[Position, int] = field(default_factory=dict)
    """The work of every shard; what a shard is split into has as much as it had."""
    replaced: set[Position] = field(default_factory=set)
    void: set[Position] = field(default_factory=set)
    """Parts of a shard that was given up before it was split."""
    asked: set[Position] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    opened: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    committed: dict[Position, int] = field(default_factory=dict)
    failed: dict[Position, Reason] = field(default_factory=dict)
    started: Counter[Position] = field(default_factory=Counter)
    """Attempts in this life of the coordinator, and so for those below."""
    blamed: dict[Position, Blame] = field(default_factory=dict)
    """Whose doing the end of a shard's last attempt was."""
    retries: set[AttemptId] = field(default_factory=set)
    """Attempts that are paid from the retry budget."""
    copies: set[AttemptId] = field(default_factory=set)
    stopped: dict[AttemptId, AttemptOutcome] = field(default_factory=dict)
    setbacks: dict[Position, Counter[Blame]] = field(default_factory=dict)
    """What attempts at shards came to in all lives, by whose doing it was."""
    first: tuple[JobOutcome, Reason] | None = None
    """What went wrong first, in all lives."""
    submits: int = 0
    unread: set[Position] = field(default_factory=set)
    """Lost output of a job that fails anyway: whether it is computed again is the scheduler's affair."""
    begun: bool = False
    """Whether it has had an attempt in this life of the coordinator."""
    cancelled: bool = False
    ended: JobEnded | None = None

    def begin_life(self) -> JobSubmitted:
        """Forget what a coordinator forgets that died, and return what the next one is told."""
        left = self.budget - self.paid
        for forgotten in (self.asked, self.ready, self.opened, self.done, self.started, self.blamed):
            forgotten.clear()
        for also in (self.retries, self.copies, self.stopped):
            also.clear()
        self.begun = False
        there = self.replaced | self.void | set(self.committed)
        stages = tuple(spec._replace(shards=self.shards(index)) for index, spec in enumerate(self.submitted.stages))
        committed = {stage: [shard for at, shard in sorted(there) if at == stage] for stage, _ in there}
        self.done = {index for index in range(len(stages)) if len(committed.get(index, ())) == self.shards(index)}
        self.submitted = self.submitted._replace(
            stages=stages, committed=committed, retry_share=0.0, retry_floor=left, earlier=self._earlier()
        )
        return self.submitted

    def _earlier(self) -> Earlier:
        """Return what is told of the job's earlier lives."""
        outcome, reason = self.first or (JobOutcome.SUCCESS, Reason.NONE)
        given_up = {stage: [shard for at, shard in sorted(self.failed) if at == stage] for stage, _ in self.failed}
        setbacks: dict[int, dict[int, Setbacks]] = {}
        for (stage, shard), had in self.setbacks.items():
            setbacks.setdefault(stage, {})[shard] = Setbacks(*(had[blame] for blame in Blame))
        return Earlier(outcome, reason, self.cancelled, given_up, setbacks)

    def split(self, event: ShardSplit) -> None:
        """Give the parts of a shard positions of their own."""
        parent = (event.stage, event.shard)
        if self.ended is not None or not event.sizes:
            return
        first, units = self.shards(event.stage), self.units[parent]
        parts = [(event.stage, first + n) for n in range(len(event.sizes))]
        self.units.update(dict.fromkeys(parts, units // len(parts)))
        self.units[parts[0]] += units % len(parts)
        if parent in self.failed:
            self.void.update(parts)
        else:
            self.replaced.add(parent)

    def cancel(self) -> None:
        """Take in that the job is wanted no longer, unless it has ended."""
        if self.ended is None:
            self.cancelled = True
            self.first = self.first or (JobOutcome.CANCELLED, Reason.NONE)

    def is_open(self, position: Position) -> bool:
        """Return whether a shard is neither decided nor replaced."""
        decided = position in self.committed or position in self.failed
        return not (decided or position in self.replaced or position in self.void)

    def blame(self, position: Position, blame: Blame, spare: int) -> None:
        """
        Count a bad end of an attempt at a shard that is not decided; limits hold for all lives together.

        The attempt that reaches a limit may have a copy, which goes on: it is the `spare` one.
        """
        had = self.setbacks.setdefault(position, Counter())
        had[blame] += 1
        limits = self.submitted.stages[position[0]].limits
        assert had[Blame.SHARD] <= limits.attempts + spare, "no shard has more tries than its limit, in all lives"
        assert had[Blame.WORKER] <= limits.losses + 1 + spare, "nor takes more workers with it"
        assert had[Blame.EVICTION] <= limits.preemptions + 1 + spare

    def shards(self, stage: int) -> int:
        """Return how many positions a stage has."""
        return sum(1 for index, _ in self.units if index == stage)

    def wanted(self, stage: int) -> set[Position]:
        """Return the shards of a stage whose output counts."""
        return {position for position in self.units if position[0] == stage} - self.replaced - self.void

    @property
    def budget(self) -> int:
        """Return how many retries and copies the job may pay for in this life."""
        planned = sum(spec.shards for spec in self.submitted.stages)
        return int(planned * self.submitted.retry_share) + self.submitted.retry_floor

    @property
    def paid(self) -> int:
        """Return how many it has paid for in this life."""
        return len(self.retries) + len(self.copies)


class Observer:
    """Keeps the books and checks every decision."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.books: dict[str, Book] = {}
        self.workers: dict[str, WorkerUp] = {}
        self.draining: set[str] = set()
        self.aside: dict[str, int] = {}
        self.spent: set[str] = set()
        self.held: dict[str, dict[AttemptId, bool]] = {}
        """By worker that is up: its attempts, and whether they have started."""
        self.where: dict[AttemptId, str] = {}
        self.seen: set[AttemptId] = set()
        self.outputs: dict[tuple[str, int, int], int] = {}
        """What is in the place of each shard's output: the number of the attempt that put it there first."""
        self.life = 0
        self.short: dict[tuple[str, int, int], int] = {}
        """Shards that ran out of memory, and how much they had."""
        self.evicted: set[tuple[str, int, int]] = set()
        """Shards whose worker was taken away."""
        self.alone: dict[str, AttemptId] = {}
        """Nodes that an attempt has to itself."""
        self.losses = Losses()

    def number(self, attempt: AttemptId) -> int:
        """Return an attempt's number in all lives of the coordinator."""
        return self.life * 1000 + attempt.number

    def missing(self, attempt: AttemptId) -> list[OutputLost]:
        """Return the output that an attempt should read and does not find."""
        book = self.books[attempt.job]
        needs = book.submitted.stages[attempt.stage].needs
        wanted = [position for need in needs for position in sorted(book.wanted(need))]
        return [OutputLost(attempt.job, *pos) for pos in wanted if (attempt.job, *pos) not in self.outputs]

    # Decisions

    def submit(self, attempt: AttemptId, worker: str, speculative: bool, now: int) -> None:
        """Check that an attempt may be made, and there, and note it."""
        book, position = self.books[attempt.job], attempt[1:3]
        assert book.ended is None, "nothing is started for a job that has ended"
        assert not book.cancelled, "nor for one that is wanted no longer"
        assert attempt.stage in book.opened, "nothing is started before its input is known"
        assert position in book.units
        assert book.is_open(position), "nothing is started for a shard that is decided, in this life or another"
        twins = [other for other in self.where if other[:3] == attempt[:3]]
        assert bool(twins) == speculative, "a second attempt beside one that runs is a copy, and nothing else is"
        assert len(twins) <= 1, "there is one copy at most"
        again = attempt in self.seen and attempt not in self.where and attempt.number >= book.started[position]
        assert attempt not in self.seen or again, "a number that was used is not given again"
        self.seen.add(attempt)
        book.submits += 1
        book.begun = True
        self._check_worker(attempt, worker, now)
        if not speculative:
            self._check_zone(attempt, self.workers[worker].zone, now)
        self.where[attempt] = worker
        self.held[worker][attempt] = False
        self._check_limits(book, attempt)
        self._pay(book, attempt, speculative)

    def start(self, attempt: AttemptId, worker: str, now: int) -> None:
        """Note that an attempt has begun."""
        self.held[worker][attempt] = True
        self.losses.began[attempt] = now
        self.books[attempt.job].started[attempt[1:3]] += 1

    def _check_worker(self, attempt: AttemptId, worker: str, now: int) -> None:
        assert worker in self.workers, "nothing goes to a worker that is gone"
        up = self.workers[worker]
        assert worker not in self.draining, "nothing goes to a worker that will be taken away"
        assert len(self.held[worker]) < MAX_WINDOW, "nothing goes to a worker that is full"
        assert now >= self.aside.get(up.node, 0), "nothing goes to a node that is set aside"
        assert up.node not in self.alone, "who needs a node's memory has it alone"
        spec = self.books[attempt.job].submitted.stages[attempt.stage]
        usable = self._usable(attempt[:3])
        if self.policy.spot is not None and spec.priority >= self.policy.spot.on_demand_from:
            assert up in usable, "high priority is not evicted where there is another way"
        if self.policy.memory_retry and attempt[:3] in self.short:
            had = self.short[attempt[:3]]
            if up.memory_bytes <= had:
                assert not any(other.memory_bytes > had for other in usable)
                assert not any(self.held[each] for each in self.held if self.workers[each].node == up.node)
                self.alone[up.node] = attempt

    def _usable(self, shard: Shard) -> list[WorkerUp]:
        """Return the workers that stay up and are not spot where a shard should be on others."""
        usable = [up for up in self.workers.values() if up.worker not in self.draining]
        spot, spec = self.policy.spot, self.books[shard[0]].submitted.stages[shard[1]]
        if shard in self.evicted or (spot is not None and spec.priority >= spot.on_demand_from):
            return [up for up in usable if not up.spot] or usable
        return usable

    def _suiting(self, shard: Shard, now: int) -> list[WorkerUp]:
        """Return the workers that suit a shard for certain, whether they have room or not."""
        if self.policy.memory_retry and self.short:
            return []  # nodes may be kept, which nobody sees
        memory = self.books[shard[0]].submitted.stages[shard[1]].memory_bytes
        return [
            up
            for up in self._usable(shard)
            if up.memory_bytes >= (memory if up.memory_bytes else 0) and now >= self.aside.get(up.node, 0)
        ]

    def _check_zone(self, attempt: AttemptId, zone: str, now: int) -> None:
        """Check that a shard does not go back to a zone that it was lost in, while there are others."""
        loss = self.losses.of.get(attempt[:3])
        if loss is not None and zone in loss.zones and now < loss.at_ns + loss.ran_ns:
            elsewhere = [up for up in self._suiting(attempt[:3], now) if up.zone not in loss.zones]
            assert not elsewhere, "what was lost in a zone is tried in another, where there is one"

    def lose(self, attempt: AttemptId, blame: Blame, reason: Reason, zone: str, now: int) -> None:
        """Note that an attempt came to nothing at a shard that is not decided."""
        book = self.books[attempt.job]
        limits, had = book.submitted.stages[attempt.stage].limits, book.setbacks[attempt[1:3]][blame]
        doubled = {Blame.SHARD: had, Blame.WORKER: had - 1, Blame.EVICTION: 0}[blame]
        backoff = limits.backoff * 2 ** (doubled - 1) if doubled > 0 and self.policy.backoff else 0.0
        if self.policy.zones:
            self.losses.note(attempt, blame, reason, zone, int(backoff * SECOND), now)

    def check_waits(self, now: int) -> None:
        """Check that no shard that was lost waits for another zone for longer than that is worth."""
        for shard, loss in self.losses.of.items():
            free = self._could_run(shard, now)
            bound = free and not any(up.zone not in loss.zones for up in self.workers.values())
            loss.free_ns = -1 if not free else now if loss.free_ns < 0 else loss.free_ns
            loss.bound_ns = -1 if not bound else now if loss.bound_ns < 0 else loss.bound_ns
            last = now - loss.backoff_ns
            assert loss.free_ns < 0 or last <= loss.free_ns + loss.longest_ns, "no shard starves for its zones"
            assert loss.bound_ns < 0 or last <= loss.bound_ns, "none waits for a zone that is not there"

    def _could_run(self, shard: Shard, now: int) -> bool:
        """Return whether a lost shard is wanted, within all limits, and a worker that suits it has nothing to do."""
        book, position = self.books[shard[0]], shard[1:]
        job, spec = book.submitted, book.submitted.stages[shard[1]]
        stopped = book.cancelled or (book.failed and job.on_failure is OnFailure.STOP)
        if book.ended or stopped or not book.is_open(position) or position in book.asked:
            return False
        if shard[1] not in book.opened or not set(spec.needs) <= book.done or job.tenant in self.spent:
            return False
        of_tenant = [held for held in self.where if self.books[held.job].submitted.tenant == job.tenant]
        if any(held[:3] == shard for held in of_tenant):
            return False
        capped = job.cap or spec.cap or self.policy.share_of(job.tenant).quota or self.policy.back_pressure
        if of_tenant and capped:
            return False
        return any(not self.held[up.worker] and up.node not in self.alone for up in self._suiting(shard, now))

    def _check_limits(self, book: Book, attempt: AttemptId) -> None:
        tenant, policy = book.submitted.tenant, self.policy
        of_tenant = [other for other in self.where if self.books[other.job].submitted.tenant == tenant]
        share = policy.share_of(tenant)
        assert share.quota == 0 or len(of_tenant) <= share.quota, "a quota is never exceeded"
        of_job = [other for other in of_tenant if other.job == attempt.job]
        assert not book.submitted.cap or len(of_job) <= book.submitted.cap, "a job's cap is never exceeded"
        cap = book.submitted.stages[attempt.stage].cap
        assert not cap or sum(other.stage == attempt.stage for other in of_job) <= cap, "nor a stage's"
        if policy.budgets and tenant in self.spent:
            assert book.submitted.tier is Tier.CRITICAL, "who has spent its budget starts only what is critical"
        begun = {key for key, each in self.books.items() if each.begun and not each.ended}
        begun = {key for key in begun if self.books[key].submitted.tenant == tenant}
        assert share.jobs == 0 or len(begun) <= share.jobs, "no tenant has more jobs begun than it may"

    def _pay(self, book: Book, attempt: AttemptId, speculative: bool) -> None:
        """Count what the retry budget pays for: retries of what was the work's doing, and copies."""
        if speculative:
            book.copies.add(attempt)
        elif book.blamed.get(attempt[1:3]) is Blame.SHARD:
            book.retries.add(attempt)
        assert not self.policy.retry_budget or book.paid <= book.budget, "the retry budget is never exceeded"

    def commit(self, action: Commit) -> None:
        """Check that a shard may be decided for an attempt."""
        attempt = action.attempt
        book, position = self.books[attempt.job], attempt[1:3]
        assert book.ended is None
        assert position not in book.committed, "a shard is committed once"
        assert position not in book.failed, "a shard that was given up stays so"
        assert position not in book.replaced, "a shard and its parts are never both committed"
        assert position not in book.void
        assert self.outputs[attempt[:3]] == self.number(attempt), "what is committed is what is there"
        book.committed[position] = self.number(attempt)
        self.losses.of.pop(attempt[:3], None)

    def fail(self, action: ShardFailed) -> None:
        """Check that a shard may be given up."""
        book, position = self.books[action.attempt.job], action.attempt[1:3]
        assert position not in book.committed
        assert position not in book.failed, "a shard is given up once"
        assert position not in book.replaced
        book.failed[position] = action.reason
        book.first = book.first or (action.outcome, action.reason)

    def split(self, action: Split) -> None:
        """Check that a shard may be split."""
        book, position = self.books[action.job], (action.stage, action.shard)
        assert book.submitted.stages[action.stage].splittable
        assert position not in book.asked, "what cannot be split is not asked for again"
        assert position not in book.committed
        assert position not in book.failed
        assert action.parts >= 2
        book.asked.add(position)

    def done(self, job: str, stage: int) -> None:
        """Check that a stage is complete."""
        book = self.books[job]
        assert book.wanted(stage) <= set(book.committed) | book.unread
        book.done.add(stage)

    def ready(self, job: str, stage: int) -> StageSpec:
        """Check that a stage may be opened."""
        book = self.books[job]
        assert stage not in book.ready, "a stage is opened once"
        spec = book.submitted.stages[stage]
        assert set(spec.needs) <= book.done, "a stage waits for those that it needs"
        book.ready.add(stage)
        return spec

    def end(self, action: JobEnded) -> None:
        """Check that a job may end, and so: all of its work is done once, or it is said that it is not."""
        book = self.books[action.job]
        assert book.ended is None, "a job ends once"
        book.ended = action
        assert not [attempt for attempt in self.where if attempt.job == action.job], "it ends when nothing of it runs"
        wanted = set().union(*(book.wanted(stage) for stage in range(len(book.submitted.stages))))
        complete = wanted <= set(book.committed)
        assert (action.outcome, action.reason) == (book.first or (JobOutcome.SUCCESS, Reason.NONE))
        assert (action.outcome is JobOutcome.SUCCESS) == (complete and not book.cancelled and not book.failed)
        assert (action.outcome in (JobOutcome.FAILURE, JobOutcome.ERROR)) == bool(book.failed) or book.cancelled
        if action.outcome is JobOutcome.SUCCESS:
            needed = {need for spec in book.submitted.stages for need in spec.needs}
            for stage in set(range(len(book.submitted.stages))) - needed:
                for shard in book.wanted(stage):
                    assert self.outputs[(action.job, *shard)] == book.committed[shard], "the answer is there"
        for (stage, _), started in book.started.items():
            limits = book.submitted.stages[stage].limits
            most = limits.attempts + limits.losses + limits.preemptions
            assert started <= 2 * most + len(book.submitted.stages) * 10, "attempts are bounded"
