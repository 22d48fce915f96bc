"""
The loop between the scheduler and a backend: news become events, decisions become deeds.

One loop drives any number of jobs with one scheduler on one backend, on whatever clock it is given: the machine's, or
that of a simulated world, in which time passes in `Backend.poll` alone. Everything happens in the thread that calls
`Loop.step`, but `Loop.post`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from mppobs.clock import Clock
from mppobs.executor.attempt import Report
from mppobs.executor.backends.base import Backend, Down, Draining, Ended, Progress, Started, Up
from mppobs.executor.coordinator import JobRun
from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptProgress,
    AttemptStarted,
    Cancel,
    Commit,
    Event,
    JobEnded,
    OutputLost,
    Scale,
    SetAside,
    ShardFailed,
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
from mppobs.executor.records import Sink
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, Reason, WorkerEvent, WorkerInfo, WorkerRecord

HEARTBEAT_SECONDS: Final = 1.0
"""A lease of a minute is then sixty missed beats, and an alert on the beat's age can be as fast as a few seconds."""
_LONGEST_WAIT: Final = 0.1
"""Seconds that the loop sleeps at most on a real clock, and so the delay of what is posted."""
_NEVER: Final = 1 << 62


class Loop:
    """Runs jobs with one scheduler on one backend. Call `step` as long as there are `jobs`."""

    def __init__(
        self,
        scheduler: Scheduler,
        backend: Backend,
        node: WorkerInfo,
        sink: Sink,
        clock: Clock,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        """`node` says where workers run that do not say so themselves; `sink` gives the journal of the coordinator."""
        self.jobs: dict[str, JobRun] = {}
        """Those that have not ended, by their keys."""
        self.on_end: Callable[[JobRun], None] = lambda job: None
        """Called with each job that has ended."""
        self.on_beat: Callable[[JobRun], None] = lambda job: None
        """Called with each job at each heartbeat."""
        self.set_aside: dict[str, int] = {}
        """Nodes that the scheduler holds for slow, and until when, by the loop's clock."""
        self._scheduler = scheduler
        self._backend = backend
        self._node = node
        self._sink = sink
        self._clock = clock
        self._beat_ns = int(heartbeat * 1e9)
        self._next_beat = 0
        self._virtual = backend.capabilities.virtual_time
        self._events: deque[Event] = deque()
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._workers: dict[str, WorkerInfo] = {}
        self._running: dict[AttemptId, str] = {}
        self._held: dict[str, dict[AttemptId, None]] = {}
        self._stops: dict[AttemptId, AttemptOutcome] = {}
        self._wake_ns = _NEVER
        self._news = self._handlers_of_news()
        self._deeds = self._handlers_of_actions()

    def submit(self, job: JobRun, *, announce: bool = True) -> None:
        """Take in a job. Its plan is recorded, unless an earlier coordinator has done so."""
        self.jobs[job.key] = job
        if announce:
            job.announce()
        self._next_beat = 0
        self.tell(job.submission())

    def cancel(self, key: str) -> None:
        """Stop a job, if it has not ended."""
        if key in self.jobs:
            self.jobs[key].cancelled()
            self.tell(Cancel(key))

    def post(self, deed: Callable[[], None]) -> None:
        """Have something done between two steps. From any thread."""
        self._posted.put(deed)

    def idle(self, seconds: float) -> None:
        """Wait for something that is posted, and do it. For when there are no jobs."""
        try:
            deed = self._posted.get(timeout=seconds)
        except Empty:
            return
        deed()

    def step(self) -> None:
        """Wait for what comes next, news or time, and see to it. Raises what the backend raises."""
        while not self._posted.empty():
            self._posted.get()()
        for job in self.jobs.values():
            job.flush()
        now = self._clock.monotonic_ns()
        if now >= self._next_beat:
            self._next_beat = now + self._beat_ns
            self._beat()
        wait = (min(self._wake_ns, self._next_beat) - now) / 1e9
        handlers = self._news
        for news in self._backend.poll(wait if self._virtual else min(wait, _LONGEST_WAIT)):
            handlers[type(news)](news)
        if self._clock.monotonic_ns() >= self._wake_ns:
            self._wake_ns = _NEVER
            self.tell(Tick())

    def tell(self, event: Event) -> None:
        """Tell the scheduler of an event and do what it decides, and what follows from that."""
        self._events.append(event)
        events, deeds, clock = self._events, self._deeds, self._clock
        while events:
            for action in self._scheduler.on(events.popleft(), clock.monotonic_ns()):
                deeds[type(action)](action)

    def _handlers_of_news(self) -> dict[type, Callable[[Any], None]]:
        return {
            Up: self._on_up,
            Draining: self._on_draining,
            Down: self._on_down,
            Started: self._on_started,
            Progress: self._on_progress,
            Ended: self._on_ended,
        }

    def _handlers_of_actions(self) -> dict[type, Callable[[Any], None]]:
        return {
            StageReady: self._open_stage,
            Submit: self._submit,
            Stop: self._stop,
            Commit: lambda action: self.jobs[action.attempt.job].committed(action.attempt),
            ShardFailed: lambda action: self.jobs[action.attempt.job].gave_up(*action),
            Split: lambda action: self._events.append(self.jobs[action.job].split(action)),
            # A stage whose shards are all committed is never done again: what came before it is safe.
            StageDone: lambda action: self.jobs[action.job].records.checkpoint(),
            JobEnded: self._on_job_ended,
            WaitUntil: self._wait_until,
            Scale: self._scale,
            SetAside: self._set_aside,
        }

    def _beat(self) -> None:
        load = self._scheduler.load()
        for job in list(self.jobs.values()):
            job.records.heartbeat(load)
            self.on_beat(job)

    # News

    def _on_up(self, news: Up) -> None:
        node = self._node
        info = WorkerInfo(news.worker, news.node or node.node, news.zone or node.zone, node.node_type, news.spot)
        self._workers[news.worker] = info
        self._record_worker(info, WorkerEvent.UP, Reason.NONE)
        self.tell(WorkerUp(news.worker, info.node, info.zone, news.spot, news.memory_bytes))

    def _on_draining(self, news: Draining) -> None:
        info = self._workers.get(news.worker)
        if info is not None:
            self._record_worker(info, WorkerEvent.DRAINING, Reason.PREEMPTED)
        self.tell(WorkerDraining(news.worker))

    def _on_down(self, news: Down) -> None:
        held = self._held.pop(news.worker, {})
        for attempt in held:
            del self._running[attempt]
            outcome = self._stops.pop(attempt, None)
            if outcome is None:
                outcome = AttemptOutcome.PREEMPTED if news.reason is Reason.PREEMPTED else AttemptOutcome.ERROR
            reason = Reason.DEADLINE if outcome is AttemptOutcome.TIMEOUT else news.reason
            job = self.jobs.get(attempt.job)
            if job is not None:
                job.ended(attempt, Report(outcome, reason))
        info = self._workers.pop(news.worker, None)
        if info is not None:
            self._record_worker(info, WorkerEvent.LOST, news.reason)
        self.tell(WorkerLost(news.worker, news.reason))
        for attempt in held:
            self._charge(*attempt[:3])

    def _on_started(self, news: Started) -> None:
        attempt, worker = news.attempt, news.worker
        self._running[attempt] = worker
        self._held.setdefault(worker, {})[attempt] = None
        job = self.jobs.get(attempt.job)
        if job is not None:
            job.started(attempt, worker, news.start_ns)
        self.tell(AttemptStarted(attempt))

    def _on_progress(self, news: Progress) -> None:
        self.tell(AttemptProgress(news.attempt, news.ratio))

    def _on_ended(self, news: Ended) -> None:
        attempt, report = news
        worker = self._running.pop(attempt, None)
        if worker is not None:
            self._held[worker].pop(attempt, None)
        self._stops.pop(attempt, None)
        job = self.jobs.get(attempt.job)
        if job is None:
            return
        job.ended(attempt, report)
        if report.lost is not None and report.outcome is AttemptOutcome.ERROR and job.lost(*report.lost):
            self.tell(OutputLost(attempt.job, *report.lost))
            self._charge(attempt.job, *report.lost)
        output = report.output
        event = AttemptEnded(
            attempt,
            report.outcome,
            report.reason,
            report.duration_ns,
            report.permanent,
            report.throttled,
            report.retry_after_ns,
            job.winner(attempt, output) if output is not None else None,
            report.peak_memory_bytes,
        )
        self.tell(event)
        if report.outcome is not AttemptOutcome.SUCCESS:
            self._charge(*attempt[:3])

    def _charge(self, key: str, stage: int, shard: int) -> None:
        """Have a job that goes on note what is held against a shard, and against itself."""
        job = self.jobs.get(key)
        if job is not None:
            job.charged(stage, shard, self._scheduler.setbacks(key, stage, shard), self._scheduler.retries(key))

    # Deeds

    def _open_stage(self, action: StageReady) -> None:
        sizes, nodes = self.jobs[action.job].open(action.stage)
        self._events.append(StageOpened(action.job, action.stage, sizes, nodes))

    def _submit(self, action: Submit) -> None:
        attempt = action.attempt
        order = self.jobs[attempt.job].order(attempt, action.speculative)
        self._backend.submit(action.worker, attempt, *order)
        if action.speculative:
            self._charge(*attempt[:3])  # it is paid from the job's budget

    def _stop(self, action: Stop) -> None:
        self._stops[action.attempt] = action.outcome
        self._backend.stop(action.attempt, action.outcome)

    def _on_job_ended(self, action: JobEnded) -> None:
        job = self.jobs.pop(action.job)
        self._backend.forget(action.job)
        job.finish(action)
        self.on_end(job)

    def _wait_until(self, action: WaitUntil) -> None:
        self._wake_ns = action.time_ns

    def _scale(self, action: Scale) -> None:
        if self._backend.capabilities.resize:
            self._backend.resize(action.workers)

    def _set_aside(self, action: SetAside) -> None:
        self.set_aside[action.node] = action.until_ns

    def _record_worker(self, info: WorkerInfo, event: WorkerEvent, reason: Reason) -> None:
        journal = self._sink()
        if journal is not None:
            journal.append(WorkerRecord(event, self._clock.time_ns(), info, reason))
