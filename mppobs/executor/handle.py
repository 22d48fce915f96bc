"""A submitted job, as whoever submitted it holds it; and the thread in which an executor's loop runs."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any, Final

from mppobs.executor.loop import Loop
from mppobs.executor.result import JobResult, Progress
from mppobs.executor.takeover import OpenJob
from mppobs.executor.task import together
from mppobs.model import JobOutcome

_PROGRESS_SECONDS: Final = 0.2
_IDLE_SECONDS: Final = 10.0


class JobHandle:
    """A job that was submitted: its progress, and its result when it has ended. Safe to use from any thread."""

    def __init__(self, opened: OpenJob, workers: Callable[[], int], cancel: Callable[[], None]) -> None:
        self.opened = opened
        """The job and where it is. For its executor."""
        self._workers = workers
        self._cancel = cancel
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._result: JobResult | None = None
        self._reading = threading.Lock()
        self.removed = False
        """Whether its data is gone, and nobody needs the handle but whoever has it."""

    @property
    def job_id(self) -> str:
        """Return the job's identifier."""
        return self.opened.job.records.context.job_id

    def done(self) -> bool:
        """Return whether the job has ended."""
        return self._ended.is_set()

    def progress(self) -> Progress:
        """Return how far it has come."""
        return self.opened.job.progress(self._workers())

    def cancel(self) -> None:
        """Stop the job, if it has not ended: it ends as cancelled when its attempts have stopped."""
        self._cancel()

    def wait(self, timeout: float | None = None, on_progress: Callable[[Progress], None] | None = None) -> bool:
        """
        Wait until the job has ended, or so many seconds; return whether it has.

        `on_progress` is called in this thread, some times a second and once at the end; what it raises comes out.
        """
        if on_progress is None:
            return self._ended.wait(timeout)
        left = float("inf") if timeout is None else timeout
        ended = False
        while not ended and left > 0:
            on_progress(self.progress())
            ended = self._ended.wait(min(_PROGRESS_SECONDS, left))
            left -= _PROGRESS_SECONDS
        on_progress(self.progress())
        return ended

    def result(self, timeout: float | None = None) -> JobResult:
        """
        Wait for the job's end and return how it ended, and its answer. A failed job is a result too.

        The job's data stays until `remove`, or until its executor is closed: whoever dies before it has made use of
        the answer can be followed by another coordinator, which gives it again.

        Raises `TimeoutError` after so many seconds, `ExchangeError` where the answer is gone, `TaskError` where its
        shards do not fit together, `WorkersBrokenError` where no worker could be started, and `LeaseLostError` where
        another coordinator has taken the job over.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"job {self.job_id} has not ended after {timeout} s")
        with self._reading:
            if self._error is not None:
                raise self._error
            if self._result is None:
                self._result = self._read_result()
        return self._result

    def end(self, error: BaseException | None = None) -> None:
        """Say that the job has ended: in its own way, or because of an error of its executor. For that one alone."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()

    def remove(self) -> None:
        """Remove the data of a job that has ended. May be called twice."""
        if self._result is None and self._error is None:
            self._error = LookupError(f"the answer of job {self.job_id} was not read before its data was removed")
        self.opened.remove()
        self.removed = True

    def _read_result(self) -> JobResult:
        job, end = self.opened.job, self.opened.job.end
        assert end is not None, "it has ended without an error"
        return JobResult(
            job_id=self.job_id,
            pipeline=job.plan.pipeline,
            outcome=end.outcome,
            reason=end.reason,
            answer=self._answer() if end.outcome is JobOutcome.SUCCESS else None,
            stages=job.stage_progress(),
            attempts=dict(job.outcomes),
            failures=tuple(job.failures),
            wall=job.wall,
            takeovers=self.opened.takeovers,
        )

    def _answer(self) -> Any:
        """Return what the last stage put out, in the order of its shards."""
        last, values = self.opened.job.stages[-1], self.opened.job.values
        parts: list[Any] = []
        for shard in last.positions():
            if shard in values:
                parts.append(pickle.loads(values[shard]) if values[shard] else None)
            else:
                with self.opened.files.opened(last.index, shard) as reader:
                    parts.append(reader.everything()[0])
        return parts if values else together(last.stage.name, parts)


class LoopThread:
    """Runs a loop for as long as it is open, whoever waits for its jobs."""

    def __init__(self, loop: Loop, on_failure: Callable[[BaseException], None]) -> None:
        """Set up; the thread begins with `start`. `on_failure` is told, in that thread, of what broke the loop."""
        self.loop = loop
        self._on_failure = on_failure
        self._open = True
        self._thread = threading.Thread(target=self._run, name="mppobs-executor", daemon=True)

    def start(self) -> None:
        """Begin. May be called twice."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """End after the current step, and wait for it. May be called twice, and from the thread itself."""
        self.loop.post(self._close)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _close(self) -> None:
        self._open = False

    def _run(self) -> None:
        loop = self.loop
        try:
            while self._open:
                if loop.jobs:
                    loop.step()
                else:
                    loop.idle(_IDLE_SECONDS)
        except BaseException as error:
            # Whatever it was, it left the scheduler in the middle of something. Whoever waits for a job is told.
            self._on_failure(error)
