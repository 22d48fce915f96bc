"""
The scheduler: a pure state machine that decides what runs where, what is tried again and what has ended.

`Scheduler.on` takes an event and the time and returns actions. No I/O, clock, thread or chance of its own: the same
events, times and seed give the same actions, on every backend and in simulation. Each event costs at most O(log n) in
the number of shards (but the opening of a stage, which looks at each of its shards once).

It promises, whatever the order of events: a shard is committed at most once for each time that its output is wanted,
and decided before its job ends unless the job stops early; a worker that is lost, draining or full gets nothing, and a
tenant, job or stage at its limit neither; attempts are bounded by `Limits` and the job's retry budget; a job that is
submitted ends, as long as workers come, attempts end, `StageReady` and `Split` are answered and budgets come back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from mppobs.executor import policies
from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptProgress,
    AttemptStarted,
    BudgetSpent,
    Cancel,
    Event,
    JobSubmitted,
    Load,
    OutputLost,
    Setbacks,
    ShardSplit,
    StageOpened,
    Tick,
    WaitUntil,
    WorkerDraining,
    WorkerLost,
    WorkerUp,
)  # fmt: skip
from mppobs.executor.policies import Blame, Policy
from mppobs.executor.scheduling.book import Book, is_held
from mppobs.executor.scheduling.deciding import Decider
from mppobs.executor.scheduling.jobs import UNDECIDED, Job, Running
from mppobs.executor.scheduling.placing import Placer
from mppobs.executor.scheduling.scaling import Scaler
from mppobs.executor.scheduling.stragglers import Watch
from mppobs.executor.scheduling.tenants import Tenants
from mppobs.model import AttemptOutcome, JobOutcome, Reason

_DEFAULT: Final = Policy()


class Scheduler:
    """Decides. Holds all jobs that are submitted and not ended, and all workers that are up. Not thread-safe."""

    def __init__(self, chance: random.Random, policy: Policy = _DEFAULT) -> None:
        """Begin with no jobs and no workers; `chance`, seeded by the caller, makes the jitter of retries."""
        self._policy = policy
        self._book = Book(chance, policy, Tenants(policy))
        self._decider = Decider(self._book)
        self._placer = Placer(self._book)
        self._watch = Watch(self._book)
        self._scaler = Scaler(self._book, policy.autoscale) if policy.autoscale is not None else None
        self._submitted = 0
        self._waiting_for = -1
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            JobSubmitted: self._on_submitted,
            StageOpened: self._on_opened,
            WorkerUp: lambda event, now_ns: self._book.pool.add(event),
            WorkerDraining: self._on_draining,
            WorkerLost: self._on_worker_lost,
            AttemptStarted: self._on_started,
            AttemptProgress: self._on_progress,
            AttemptEnded: self._on_ended,
            ShardSplit: lambda event, now_ns: self._decider.split(event),
            OutputLost: lambda event, now_ns: self._decider.output_lost(event),
            BudgetSpent: self._on_budget,
            Tick: lambda event, now_ns: None,  # nothing beyond what every event does
            Cancel: self._on_cancel,
        }

    def on(self, event: Event, now_ns: int) -> list[Action]:
        """Return what is to be done about an event. Time must not go back from call to call."""
        book = self._book
        out = book.out = []
        if 0 <= self._waiting_for <= now_ns:
            for running in book.timers.advance(now_ns):
                if is_held(running):
                    book.stop(running, AttemptOutcome.TIMEOUT)
        self._handlers[type(event)](event, now_ns)
        self._placer.fill(now_ns)
        nearest = book.timers.next_ns()
        if nearest != self._waiting_for:
            self._waiting_for = nearest
            if nearest >= 0:
                out.append(WaitUntil(nearest))
        return out

    def load(self) -> Load:
        """Return what is pending and running now."""
        jobs, pool, running = self._book.jobs, self._book.pool, self._book.running
        running_jobs = sum(1 for job in jobs.values() if job.running)
        open_shards = sum(s.shards - s.decided for job in jobs.values() for s in job.stages if not s.closed)
        busy = pool.busy
        idle = len(pool.workers) - busy
        pending_shards = max(open_shards - running, 0)
        return Load(len(jobs) - running_jobs, running_jobs, pending_shards, running, idle, busy, pool.draining)

    def setbacks(self, job: str, stage: int, shard: int) -> Setbacks:
        """Return what counts against the limits of a shard of a job that has not ended."""
        counts = self._book.jobs[job].stages[stage].counts
        return Setbacks(*(counts[blame][shard] for blame in Blame))

    def retries(self, job: str) -> int:
        """Return how many retries and copies a job that has not ended can still pay for."""
        return self._book.jobs[job].retries

    # Jobs

    def _on_submitted(self, event: JobSubmitted, now_ns: int) -> None:
        if event.job in self._book.jobs:
            raise ValueError(f"job {event.job!r} is submitted already")
        if any(spec.shards < 1 for spec in event.stages):
            raise ValueError(f"job {event.job!r} has a stage without shards")
        due = policies.due_at(now_ns, event.deadline_ns, event.tier) if self._policy.deadlines else 0
        job = Job(event, self._submitted, self._book.tenants.of(event.tenant), due)
        self._book.jobs[event.job] = job
        self._submitted += 1
        self._decider.begin(job, event.earlier)

    def _on_opened(self, event: StageOpened, now_ns: int) -> None:
        job = self._book.jobs.get(event.job)
        if job is None or job.stages[event.stage].closed:
            return
        stage = job.stages[event.stage]
        if not stage.ready or stage.opened:
            raise ValueError(f"stage {event.stage} of job {event.job!r} is not waiting to be opened")
        stage.open(event.sizes)
        self._watch.ask_to_split(stage)
        stage.line_up()
        if event.nodes:
            self._placer.locate(stage, event.nodes, now_ns)
        self._book.enlist(stage)
        if self._scaler is not None:
            self._scaler.look_soon(now_ns)

    def _on_cancel(self, event: Cancel, now_ns: int) -> None:
        job = self._book.jobs.get(event.job)
        if job is not None:
            job.blame(JobOutcome.CANCELLED, Reason.NONE)
            self._decider.stop_job(job)
            self._decider.end_if_over(job)

    def _on_budget(self, event: BudgetSpent, now_ns: int) -> None:
        self._book.tenants.spend(event.tenant, event.spent)

    # Attempts

    def _on_started(self, event: AttemptStarted, now_ns: int) -> None:
        running = self._book.find(event.attempt)
        if running is not None and running.started_ns < 0:
            running.started_ns = now_ns
            self._book.timers.limit(running, now_ns, self._book.running)

    def _on_progress(self, event: AttemptProgress, now_ns: int) -> None:
        running = self._book.find(event.attempt)
        if running is not None:
            running.progress = min(max(event.ratio, 0.0), 1.0)

    def _on_ended(self, event: AttemptEnded, now_ns: int) -> None:
        attempt = event.attempt
        job: Job | None = self._book.jobs.get(attempt.job)
        if job is None:
            return
        stage = job.stages[attempt.stage]
        running = stage.held.get(attempt)
        if running is not None:
            self._book.release(running)
        if stage.status[attempt.shard] == UNDECIDED:
            if event.outcome is AttemptOutcome.SUCCESS:
                if running is not None:
                    self._watch.committed(running, event.duration_ns, now_ns)
                    if stage.pressure.on_from and stage.pressure.ease():
                        self._book.enlist(stage)
                self._decider.succeeded(stage, attempt)
            elif event.outcome is AttemptOutcome.SUPERSEDED and event.winner is not None:
                self._decider.succeeded(stage, attempt._replace(number=event.winner))
            elif running is not None:
                if event.throttled and self._policy.back_pressure:
                    stage.pressure.rise(len(stage.held) + 1, running.started_ns, now_ns)
                self._decider.try_again(running, event, now_ns)
        self._decider.end_if_over(job)

    def _on_draining(self, event: WorkerDraining, now_ns: int) -> None:
        self._book.pool.drain(event.worker)

    def _on_worker_lost(self, event: WorkerLost, now_ns: int) -> None:
        worker = self._book.pool.remove(event.worker)
        if worker is None:
            return
        started = [running for running in worker.held if running.started_ns >= 0]
        for running in reversed(list(worker.held)):
            if running.started_ns < 0:
                self._take_back(running)
        outcome = AttemptOutcome.PREEMPTED if event.reason is Reason.PREEMPTED else AttemptOutcome.ERROR
        for running in started:
            ran_ns = now_ns - running.started_ns
            self._on_ended(AttemptEnded(running.attempt, outcome, event.reason, ran_ns), now_ns)

    def _take_back(self, running: Running) -> None:
        """Line up a shard again whose attempt never started: nobody is to blame, and its number is given again."""
        self._book.release(running)
        stage, shard, number = running.stage, running.attempt.shard, running.attempt.number
        if stage.numbers[shard] == number + 1:
            stage.numbers[shard] = number
        if running.speculative:
            stage.job.retries += 1
        if not stage.closed and stage.status[shard] == UNDECIDED and not stage.copies(shard):
            stage.again.appendleft(shard)
            self._book.enlist(stage)
        self._decider.end_if_over(stage.job)
