"""
The loop between the scheduler and a backend: news become events, decisions become deeds.

Everything happens in the thread that calls `Loop.run`. The scheduler's clock is the monotonic one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from mppobs.executor.attempt import Report
from mppobs.executor.backends.base import Backend, Down, Ended, Started, Up
from mppobs.executor.coordinator import JobRun
from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    Cancel,
    Commit,
    Event,
    JobEnded,
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
)
from mppobs.executor.result import Progress
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, JobOutcome, Reason, WorkerEvent, WorkerInfo

_HEARTBEAT_NS: Final = 1_000_000_000
"""A lease of a minute is then sixty missed beats, and an alert on the beat's age can be as fast as a few seconds."""
_PROGRESS_NS: Final = 200_000_000
_LONGEST_WAIT: Final = 0.1
"""Seconds that the loop sleeps at most, and so the delay of an interrupt."""
_NEVER: Final = 1 << 62


class Loop:
    """Runs jobs, one after the other, with one scheduler on one backend."""

    def __init__(self, scheduler: Scheduler, backend: Backend, node: WorkerInfo) -> None:
        """`node` says where the backend's workers run."""
        self._scheduler = scheduler
        self._backend = backend
        self._node = node
        self._events: deque[Event] = deque()
        self._running: dict[AttemptId, str] = {}
        self._stops: dict[AttemptId, AttemptOutcome] = {}
        self._wake_ns = _NEVER
        self._news: dict[type, Callable[[JobRun, Any], None]] = {
            Up: self._on_up,
            Down: self._on_down,
            Started: self._on_started,
            Ended: self._on_ended,
        }
        self._deeds: dict[type, Callable[[JobRun, Any], None]] = {
            StageReady: self._open_stage,
            Submit: self._submit,
            Stop: self._stop,
            Commit: lambda job, action: job.committed(action.attempt),
            ShardFailed: lambda job, action: job.gave_up(action.attempt, action.reason),
            # A stage whose shards are all committed is never done again: what came before it is safe.
            StageDone: lambda job, action: job.handle.checkpoint(),
            JobEnded: self._on_job_ended,
            WaitUntil: self._wait_until,
        }

    def run(
        self, job: JobRun, on_progress: Callable[[Progress], None] | None, interrupted: threading.Event
    ) -> tuple[JobOutcome, Reason]:
        """Run a job to its end; cancel it when `interrupted` is set. Raises `WorkersBrokenError`."""
        self._backend.start()
        job.announce()
        job.handle.checkpoint()  # the plan is safe; from here on the lag says how much work is at stake
        self._tell(job, job.submission())
        cancelled = False
        next_beat = next_progress = time.monotonic_ns()
        while job.end is None:
            if interrupted.is_set() and not cancelled:
                cancelled = True
                self._tell(job, Cancel(job.key))
                continue
            self._step(job)
            now = time.monotonic_ns()
            if now >= next_beat:
                next_beat = now + _HEARTBEAT_NS
                job.handle.heartbeat(**self._scheduler.load()._asdict())
            if on_progress is not None and now >= next_progress:
                next_progress = now + _PROGRESS_NS
                on_progress(job.progress(self._backend.size))
        self._backend.forget(job.key)
        if on_progress is not None:
            on_progress(job.progress(self._backend.size))
        return job.end.outcome, job.end.reason

    def _step(self, job: JobRun) -> None:
        """Wait for what comes next, news or time, and see to it."""
        now = time.monotonic_ns()
        for news in self._backend.poll(min(_LONGEST_WAIT, (self._wake_ns - now) / 1e9)):
            self._news[type(news)](job, news)
        if time.monotonic_ns() >= self._wake_ns:
            self._wake_ns = _NEVER
            self._tell(job, Tick())

    def _tell(self, job: JobRun, event: Event) -> None:
        """Tell the scheduler of an event and do what it decides, and what follows from that."""
        self._events.append(event)
        while self._events:
            for action in self._scheduler.on(self._events.popleft(), time.monotonic_ns()):
                self._deeds[type(action)](job, action)

    # News

    def _on_up(self, job: JobRun, news: Up) -> None:
        self._record_worker(job, news.worker, WorkerEvent.UP, Reason.NONE)
        self._tell(job, WorkerUp(news.worker))

    def _on_down(self, job: JobRun, news: Down) -> None:
        for attempt in [attempt for attempt, worker in self._running.items() if worker == news.worker]:
            del self._running[attempt]
            outcome = self._stops.pop(attempt, AttemptOutcome.ERROR)
            reason = Reason.DEADLINE if outcome is AttemptOutcome.TIMEOUT else news.reason
            job.ended(attempt, Report(outcome, reason))
        self._record_worker(job, news.worker, WorkerEvent.LOST, news.reason)
        self._tell(job, WorkerLost(news.worker, news.reason))

    def _on_started(self, job: JobRun, news: Started) -> None:
        self._running[news.attempt] = news.worker
        job.started(news.attempt, news.worker, news.start_ns)
        self._tell(job, AttemptStarted(news.attempt))

    def _on_ended(self, job: JobRun, news: Ended) -> None:
        attempt, report = news
        del self._running[attempt]
        self._stops.pop(attempt, None)
        job.ended(attempt, report)
        event = AttemptEnded(
            attempt,
            report.outcome,
            report.reason,
            report.duration_ns,
            report.permanent,
            report.throttled,
            report.retry_after_ns,
            report.output.attempt if report.output is not None else None,
        )
        self._tell(job, event)

    # Deeds

    def _open_stage(self, job: JobRun, action: StageReady) -> None:
        self._events.append(StageOpened(action.job, action.stage, job.open(action.stage)))

    def _submit(self, job: JobRun, action: Submit) -> None:
        self._backend.submit(action.worker, action.attempt, *job.order(action.attempt, time.time_ns()))

    def _stop(self, job: JobRun, action: Stop) -> None:
        self._stops[action.attempt] = action.outcome
        self._backend.stop(action.attempt, action.outcome)

    def _on_job_ended(self, job: JobRun, action: JobEnded) -> None:
        job.end = action

    def _wait_until(self, job: JobRun, action: WaitUntil) -> None:
        self._wake_ns = action.time_ns

    def _record_worker(self, job: JobRun, worker: str, event: WorkerEvent, reason: Reason) -> None:
        node = self._node
        job.handle.worker(worker, event, node=node.node, zone=node.zone, node_type=node.node_type, reason=reason)
