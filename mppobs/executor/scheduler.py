"""
The scheduler: a pure state machine that decides what runs where, what is tried again and what has ended.

`Scheduler.on` takes an event and the time and returns actions. No I/O, clock, thread or chance of its own: the same
events, times and seed give the same actions, on every backend and in simulation. Each event costs at most O(log n) in
the number of shards (but the opening of a stage, which looks at each of its shards once).

It promises, whatever the order of events: a shard is committed at most once and decided before its job ends unless the
job stops early; a worker that is lost or full gets nothing; attempts are bounded by `Limits` and the job's
retry budget; a job that is submitted ends, as long as workers come and attempts end.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any

from mppobs.executor import policies
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
    Load,
    ShardFailed,
    StageDone,
    StageOpened,
    StageReady,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerLost,
    WorkerUp,
)  # fmt: skip
from mppobs.executor.policies import SECOND, Blame, Policy
from mppobs.executor.state import COMMITTED, FAILED, UNDECIDED, Job, Pool, Running, Stage
from mppobs.model import AttemptOutcome, JobOutcome, Reason

_DEFAULT = Policy()
_FAILURES = frozenset({AttemptOutcome.FAILURE, AttemptOutcome.TIMEOUT})


class Scheduler:
    """Decides. Holds all jobs that are submitted and not ended, and all workers that are up. Not thread-safe."""

    def __init__(self, chance: random.Random, policy: Policy = _DEFAULT) -> None:
        """Begin with no jobs and no workers; `chance`, seeded by the caller, makes the jitter of retries."""
        self._chance = chance
        self._policy = policy
        self._jobs: dict[str, Job] = {}
        self._submitted = 0
        self._with_work: list[tuple[int, Job]] = []
        self._pool = Pool()
        self._running: dict[AttemptId, Running] = {}
        self._delayed: list[tuple[int, int, Stage, int]] = []
        self._timeouts: list[tuple[int, int, Running]] = []
        self._serial = 0
        self._waiting_for = -1
        self._out: list[Action] = []
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            JobSubmitted: self._on_submitted,
            StageOpened: self._on_opened,
            WorkerUp: self._on_worker_up,
            WorkerLost: self._on_worker_lost,
            AttemptStarted: self._on_started,
            AttemptEnded: self._on_ended,
            Tick: self._on_tick,
            Cancel: self._on_cancel,
        }

    def on(self, event: Event, now_ns: int) -> list[Action]:
        """Return what is to be done about an event. Time must not go back from call to call."""
        out = self._out = []
        self._advance(now_ns)
        self._handlers[type(event)](event, now_ns)
        self._fill()
        self._wait()
        return out

    def load(self) -> Load:
        """Return what is pending and running now."""
        running_jobs = sum(1 for job in self._jobs.values() if job.running)
        open_shards = sum(s.shards - s.decided for job in self._jobs.values() for s in job.stages if not s.closed)
        running, busy = len(self._running), self._pool.busy
        idle = len(self._pool.workers) - busy
        return Load(len(self._jobs) - running_jobs, running_jobs, max(open_shards - running, 0), running, idle, busy)

    # Events

    def _on_submitted(self, event: JobSubmitted, now_ns: int) -> None:
        if event.job in self._jobs:
            raise ValueError(f"job {event.job!r} is submitted already")
        if any(spec.shards < 1 for spec in event.stages):
            raise ValueError(f"job {event.job!r} has a stage without shards")
        job = self._jobs[event.job] = Job(event, self._submitted)
        self._submitted += 1
        for stage in job.stages:
            if stage.needs == 0:
                self._ready(stage)
        self._end_if_over(job)

    def _on_opened(self, event: StageOpened, now_ns: int) -> None:
        job = self._jobs.get(event.job)
        if job is None or job.stages[event.stage].closed:
            return
        stage = job.stages[event.stage]
        if stage.needs or len(stage.order):
            raise ValueError(f"stage {event.stage} of job {event.job!r} is not waiting to be opened")
        stage.open(event.sizes)
        self._list(stage)

    def _on_worker_up(self, event: WorkerUp, now_ns: int) -> None:
        self._pool.add(event.worker)

    def _on_worker_lost(self, event: WorkerLost, now_ns: int) -> None:
        worker = self._pool.remove(event.worker)
        if worker is None:
            return
        started = [running for running in worker.held.values() if running.started]
        for running in reversed(list(worker.held.values())):
            if not running.started:
                self._take_back(running)
        outcome = AttemptOutcome.PREEMPTED if event.reason is Reason.PREEMPTED else AttemptOutcome.ERROR
        for running in started:
            self._on_ended(AttemptEnded(running.attempt, outcome, event.reason), now_ns)

    def _on_started(self, event: AttemptStarted, now_ns: int) -> None:
        running = self._running.get(event.attempt)
        if running is None or running.started:
            return
        running.started = True
        timeout = running.stage.limits.timeout
        if timeout > 0:
            heapq.heappush(self._timeouts, (now_ns + int(timeout * SECOND), self._next_serial(), running))

    def _on_ended(self, event: AttemptEnded, now_ns: int) -> None:
        attempt = event.attempt
        running = self._running.get(attempt)
        if running is not None:
            self._release(running)
        job = self._jobs.get(attempt.job)
        if job is None:
            return
        stage = job.stages[attempt.stage]
        if stage.status[attempt.shard] == UNDECIDED:
            if event.outcome is AttemptOutcome.SUCCESS:
                stage.learn(event.duration_ns)
                self._commit(stage, attempt)
            elif event.outcome is AttemptOutcome.SUPERSEDED and event.winner is not None:
                self._commit(stage, attempt._replace(number=event.winner))
            elif running is not None:
                self._try_again(running, event, now_ns)
        self._end_if_over(job)

    def _on_tick(self, event: Tick, now_ns: int) -> None:
        """Nothing beyond what every event does: see `_advance`."""

    def _on_cancel(self, event: Cancel, now_ns: int) -> None:
        job = self._jobs.get(event.job)
        if job is not None:
            job.blame(JobOutcome.CANCELLED, Reason.NONE)
            self._stop_job(job)
            self._end_if_over(job)

    # Shards

    def _commit(self, stage: Stage, winner: AttemptId) -> None:
        """Decide a shard for an attempt, and stop the others that are at it."""
        self._out.append(Commit(winner))
        stage.status[winner.shard] = COMMITTED
        for rival in self._copies(stage, winner.shard):
            self._stop(rival, AttemptOutcome.SUPERSEDED)
        self._decided(stage)

    def _try_again(self, running: Running, event: AttemptEnded, now_ns: int) -> None:
        """Count an attempt that came to nothing against its limit; retry the shard, now or later, or give it up."""
        stage, shard = running.stage, event.attempt.shard
        outcome = running.stop if running.stop is not None else event.outcome
        blame = policies.blame_for(outcome, event.reason)
        counts = stage.counts[blame]
        counts[shard] += 1
        if stage.closed:
            return
        if outcome is AttemptOutcome.TIMEOUT:
            # A worker that had to be killed for it looks lost; the attempt was late first.
            event = event._replace(reason=Reason.DEADLINE)
        reason = self._why_not(stage, event, blame, counts[shard])
        if reason is not None:
            self._give_up(stage, event.attempt, outcome, reason)
            return
        delay = self._backoff(stage, event, blame, counts[shard])
        if delay > 0:
            heapq.heappush(self._delayed, (now_ns + delay, self._next_serial(), stage, shard))
        else:
            stage.again.append(shard)
            self._list(stage)

    def _why_not(self, stage: Stage, event: AttemptEnded, blame: Blame, count: int) -> Reason | None:
        """Return why a shard may not be tried again, or `None` where it may; a retry is then taken from the budget."""
        limits = stage.limits
        if blame is Blame.WORKER:
            return event.reason if count > limits.losses else None
        if blame is Blame.EVICTION:
            return Reason.PREEMPTED if count > limits.preemptions else None
        if event.permanent:
            return event.reason
        if count >= limits.attempts:
            # What the platform did is worth more than the fact that it did it four times.
            return Reason.RETRIES_EXHAUSTED if event.reason in (Reason.NONE, Reason.EXCEPTION) else event.reason
        if stage.job.retries <= 0:
            return Reason.RETRIES_EXHAUSTED
        stage.job.retries -= 1
        return None

    def _backoff(self, stage: Stage, event: AttemptEnded, blame: Blame, count: int) -> int:
        """Return how long a shard waits before its next attempt."""
        if blame is Blame.EVICTION:
            return 0
        if blame is Blame.WORKER:
            return policies.backoff_after_loss(stage.limits, count, self._chance)
        if event.throttled:
            return policies.backoff_half_jitter(stage.limits, count, event.retry_after_ns, self._chance)
        return policies.backoff_full_jitter(stage.limits, count, self._chance)

    def _give_up(self, stage: Stage, attempt: AttemptId, outcome: AttemptOutcome, reason: Reason) -> None:
        """Decide a shard as failed, and do with the job what it asked for in that case."""
        self._out.append(ShardFailed(attempt, reason))
        stage.status[attempt.shard] = FAILED
        stage.failed += 1
        stage.job.blame(JobOutcome.FAILURE if outcome in _FAILURES else JobOutcome.ERROR, reason)
        if stage.job.stops:
            self._stop_job(stage.job)
        self._decided(stage)

    def _decided(self, stage: Stage) -> None:
        """Count a decided shard; at the last one, go on to the stages that waited for this one."""
        stage.decided += 1
        if not stage.done or stage.closed:
            return
        stage.job.left -= 1
        stage.closed = True
        if stage.failed:
            for dependent in stage.dependents:
                self._close(dependent)
            return
        self._out.append(StageDone(stage.job.key, stage.index))
        for dependent in stage.dependents:
            dependent.needs -= 1
            if dependent.needs == 0 and not dependent.closed:
                self._ready(dependent)

    def _ready(self, stage: Stage) -> None:
        """Ask for a stage to be opened."""
        self._out.append(StageReady(stage.job.key, stage.index))

    # Attempts and jobs

    def _fill(self) -> None:
        """Give attempts to workers while there are both."""
        # Most events free no worker: then there is nothing to look for.
        while self._pool.freed and self._with_work:
            job = self._with_work[0][1]
            found = job.next_shard()
            if found is None:
                heapq.heappop(self._with_work)
                job.listed = False
                continue
            stage, shard = found
            worker = self._pool.take(policies.window_by_duration(stage.mean_ns))
            if worker is None:
                stage.again.appendleft(shard)
                return
            number = stage.numbers[shard]
            stage.numbers[shard] = number + 1
            attempt = AttemptId(job.key, stage.index, shard, number)
            worker.held[attempt] = self._running[attempt] = Running(attempt, stage, worker)
            self._pool.list(worker)
            stage.running += 1
            job.running += 1
            self._out.append(Submit(attempt, worker.name))

    def _release(self, running: Running) -> None:
        """Forget a running attempt; its worker has room again."""
        del self._running[running.attempt]
        del running.worker.held[running.attempt]
        running.stage.running -= 1
        running.stage.job.running -= 1
        if running.worker.up:
            self._pool.list(running.worker)

    def _take_back(self, running: Running) -> None:
        """Line up a shard again whose attempt never started: nobody is to blame, and its number is given again."""
        self._release(running)
        stage, shard, number = running.stage, running.attempt.shard, running.attempt.number
        if stage.numbers[shard] == number + 1:
            stage.numbers[shard] = number
        if stage.status[shard] == UNDECIDED:
            stage.again.appendleft(shard)
            self._list(stage)
        self._end_if_over(stage.job)

    def _copies(self, stage: Stage, shard: int) -> Iterator[Running]:
        """Yield the running attempts of a shard."""
        for number in range(stage.numbers[shard]):
            running = self._running.get(AttemptId(stage.job.key, stage.index, shard, number))
            if running is not None:
                yield running

    def _stop(self, running: Running, outcome: AttemptOutcome) -> None:
        """Have a running attempt ended, once."""
        if running.stop is None:
            running.stop = outcome
            self._out.append(Stop(running.attempt, outcome))

    def _stop_job(self, job: Job) -> None:
        """Start nothing more of a job and stop what runs."""
        for stage in job.stages:
            self._close(stage)
        for running in list(self._running.values()):
            if running.stage.job is job:
                self._stop(running, AttemptOutcome.CANCELLED)

    def _close(self, stage: Stage) -> None:
        """Start nothing more of a stage, nor of those that need it."""
        if stage.closed:
            return
        stage.closed = True
        stage.again.clear()
        stage.job.left -= 1
        for dependent in stage.dependents:
            self._close(dependent)

    def _end_if_over(self, job: Job) -> None:
        """End a job when nothing is left to start and nothing runs."""
        if job.left == 0 and job.running == 0 and self._jobs.pop(job.key, None) is not None:
            self._out.append(JobEnded(job.key, job.outcome, job.reason))

    # Time

    def _advance(self, now_ns: int) -> None:
        """Line up the retries that are due and stop the attempts that ran too long."""
        delayed, timeouts = self._delayed, self._timeouts
        while delayed and delayed[0][0] <= now_ns:
            _, _, stage, shard = heapq.heappop(delayed)
            if not stage.closed:
                stage.again.append(shard)
                self._list(stage)
        while timeouts and timeouts[0][0] <= now_ns:
            running = heapq.heappop(timeouts)[2]
            if self._running.get(running.attempt) is running:
                self._stop(running, AttemptOutcome.TIMEOUT)
        if len(timeouts) > 2 * len(self._running) + 1000:
            # Most are of attempts that ended long ago.
            timeouts[:] = [entry for entry in timeouts if self._running.get(entry[2].attempt) is entry[2]]
            heapq.heapify(timeouts)

    def _wait(self) -> None:
        """Ask for a tick when the next retry or timeout is due, where that has changed."""
        nearest = self._delayed[0][0] if self._delayed else -1
        if self._timeouts and not 0 <= nearest <= self._timeouts[0][0]:
            nearest = self._timeouts[0][0]
        if nearest != self._waiting_for:
            self._waiting_for = nearest
            if nearest >= 0:
                self._out.append(WaitUntil(nearest))

    def _list(self, stage: Stage) -> None:
        """Make a stage findable that has something to start."""
        job = stage.job
        if not stage.listed:
            stage.listed = True
            heapq.heappush(job.ready, stage.index)
        if not job.listed:
            job.listed = True
            heapq.heappush(self._with_work, (job.number, job))

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial
