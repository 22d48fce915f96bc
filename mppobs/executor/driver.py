"""
The executor, as people call it: plans run on the workers of a backend, recorded from end to end.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import mppobs
from mppobs.clock import Clock, SystemClock
from mppobs.errors import ConfigError
from mppobs.executor.backends.base import Backend
from mppobs.executor.backends.local import LocalBackend
from mppobs.executor.backends.recording import recording, worker_prefix
from mppobs.executor.coordinator import JobRun
from mppobs.executor.events import BudgetSpent
from mppobs.executor.faults import ArmedFault
from mppobs.executor.handle import JobHandle, LoopThread
from mppobs.executor.loop import Loop
from mppobs.executor.plan import Plan, ShardPlan, Stage, path_of
from mppobs.executor.policies import Policy
from mppobs.executor.result import JobResult, Progress
from mppobs.executor.scheduler import Scheduler
from mppobs.executor.takeover import Jobs, OpenJob
from mppobs.executor.workspace import LeaseLostError
from mppobs.instrument.outcomes import ending_of, job_outcome
from mppobs.instrument.recorder import RECORDER
from mppobs.model import JobOutcome, Reason

DEFAULT_LEASE_SECONDS: Final = 60.0
"""How long a job whose coordinator died can be gone on with."""
_STANDBY_SECONDS: Final = 0.1
"""How often a standby looks whether somebody has died."""


class Executor:
    """
    Workers, and the coordinator that gives them work. Any number of jobs run at a time. Use it as a context manager.

    Workers start with the first job and stay warm until `close`. Safe to use from any thread.
    """

    def __init__(
        self,
        workers: int = 2,
        directory: str | os.PathLike[str] | None = None,
        *,
        backend: Backend | None = None,
        policy: Policy | None = None,
        seed: int = 0,
        journal: str | os.PathLike[str] | None = None,
        exchange: str = "",
        lease: float = DEFAULT_LEASE_SECONDS,
        faults: Sequence[ArmedFault] = (),
        clock: Clock | None = None,
    ) -> None:
        """
        Set up without starting any process.

        `directory` is for exchanged data and for what another coordinator needs to go on; without it both are
        temporary, and nobody can. What dead executors left there that nobody can go on with is removed. `exchange` is a
        URL that `fsspec` knows, for data that is to lie elsewhere. `lease` is how many seconds a job outlives its
        coordinator. `backend` has the workers (by default, `workers` processes of this machine), `policy` says how they
        are used, `seed` makes the jitter of retries repeatable, `faults` go wrong on purpose. `journal` is where this
        process and its workers record: as `mppobs.configure` says where it is not given, and with its effect where it
        is.

        Raises `ConfigError` where there is no worker, or a directory cannot be used.
        """
        if workers < 1:
            raise ConfigError(f"an executor needs at least one worker, not {workers}")
        if journal is not None and Path(journal) != RECORDER.settings().directory:
            mppobs.configure(directory=journal)
        settings = RECORDER.settings()
        self._clock = clock or SystemClock()
        self._jobs = Jobs(directory, exchange, lease, self._clock, faults)
        self._backend = backend or LocalBackend(workers, recording(), worker_prefix())
        scheduler = Scheduler(random.Random(seed), policy or Policy())
        loop = Loop(scheduler, self._backend, settings.worker_info(), RECORDER.journal, self._clock)
        loop.on_end = self._on_end
        loop.on_beat = self._on_beat
        self._thread = LoopThread(loop, self._on_failure)
        self._handles: dict[str, JobHandle] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def backend(self) -> Backend:
        """Return what has the workers."""
        return self._backend

    @property
    def worker_pids(self) -> dict[str, int]:
        """Return the process IDs of local workers that are up, by name: for whoever wants to watch or kill one."""
        return self._backend.pids if isinstance(self._backend, LocalBackend) else {}

    def submit(self, plan: Plan) -> JobHandle:
        """Begin a job and return a handle of it, without waiting. Raises `ConfigError` once the executor is closed."""
        with self._lock:
            self._require_open()
            opened = self._jobs.new(plan)
            return self._begin(opened, announce=True)

    def run(self, plan: Plan, on_progress: Callable[[Progress], None] | None = None) -> JobResult:
        """
        Run a job to its end and return how it ended; a failed job is a result too, see `JobResult.check`.

        `on_progress` is called in the calling thread, some times a second and once at the end; when it raises, the
        executor is closed. An interrupt of the main thread (Ctrl-C) cancels the job, and comes out as
        `KeyboardInterrupt` when its attempts have stopped. Raises what `JobHandle.result` raises.
        """
        handle = self.submit(plan)
        try:
            handle.wait(None, on_progress)
        except Exception as error:
            self._shut(error)
            raise
        except BaseException:
            handle.cancel()
            handle.wait()
            handle.remove()
            raise
        try:
            return handle.result()
        finally:
            handle.remove()

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, chunk: int = 1, pipeline: str = "map"
    ) -> list[Any]:
        """
        Return `[function(item) for item in items]`, computed by the workers, `chunk` items to a shard.

        `function` must be importable by a worker. Raises `JobFailedError` if a shard fails for good.
        """
        everything = list(items)
        if not everything:
            return []
        starts = range(0, len(everything), max(chunk, 1))
        shards = tuple(
            ShardPlan(number, {"items": everything[start : start + max(chunk, 1)]})
            for number, start in enumerate(starts)
        )
        arguments = {"function": path_of(function)}
        stage = Stage(name="map", task="mppobs.executor.attempt:apply_chunk", shards=shards, arguments=arguments)
        chunks: list[list[Any]] = self.run(Plan(pipeline=pipeline, stages=(stage,))).check().answer
        return [value for values in chunks for value in values]

    def resume(self, job_id: str = "") -> list[JobHandle]:
        """
        Go on with jobs of this directory whose coordinator is dead, from their committed shards; do not wait.

        All of them, or the one of that identifier. Raises `ConfigError` once the executor is closed.
        """
        with self._lock:
            self._require_open()
            return [self._begin(opened, announce=False) for opened in self._jobs.dead(job_id)]

    def stand_by(self, job_id: str = "", timeout: float | None = None) -> JobHandle | None:
        """
        Wait with warm workers until a coordinator of this directory dies, and take its job over.

        Of any job, or the one of that identifier. `None` when the jobs that were there have ended without help, or
        after so many seconds.
        """
        self._thread.start()
        self._thread.loop.post(self._backend.start)
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = False
        while deadline is None or time.monotonic() < deadline:
            handles = self.resume(job_id)
            if handles:
                return handles[0]
            there = self._jobs.alive(job_id)
            if seen and not there:
                return None
            seen = seen or there
            time.sleep(_STANDBY_SECONDS)
        return None

    def spend(self, tenant: str, spent: bool = True) -> None:
        """
        Say that a tenant's budget is spent, or that there is some again.

        Its jobs that are not critical begin no attempt while it is spent; what runs goes on. It holds for this
        executor: whoever watches the budgets tells each one (`mppobs.executor.budgets`).
        """
        loop = self._thread.loop
        loop.post(lambda: loop.tell(BudgetSpent(tenant, spent)))

    def close(self) -> None:
        """Stop the workers and remove exchanged data. May be called twice. Jobs that still run end as cancelled."""
        self._shut(None)

    def __enter__(self) -> Self:
        """Return the executor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the executor."""
        self._shut(error)

    # Jobs

    def _begin(self, opened: OpenJob, *, announce: bool) -> JobHandle:
        """Have a job run by the loop; the caller holds the lock."""
        job, loop = opened.job, self._thread.loop
        for key in [key for key, old in self._handles.items() if old.removed]:
            del self._handles[key]
        handle = JobHandle(opened, lambda: self._backend.size, lambda: loop.post(lambda: loop.cancel(job.key)))
        self._handles[job.key] = handle

        def submit() -> None:
            self._backend.start()
            loop.submit(job, announce=announce)

        loop.post(submit)
        self._thread.start()
        return handle

    def _on_beat(self, job: JobRun) -> None:
        """Renew a job's lease, or let go of the job where another coordinator has it. In the loop's thread."""
        handle = self._handles[job.key]
        try:
            handle.opened.place.renew(time.time_ns())  # leases are the machine's, whatever time the job lives in
        except LeaseLostError as error:
            job.abandon()
            handle.end(error)
            handle.opened.place.release()
            self._thread.loop.cancel(job.key)

    def _on_end(self, job: JobRun) -> None:
        """Tell whoever waits for a job. In the loop's thread."""
        opened = self._handles[job.key].opened
        opened.end()
        opened.place.mark_ended()
        self._handles[job.key].end()

    def _on_failure(self, error: BaseException) -> None:
        """Break everything off. In the loop's thread, which ends."""
        self._closed = True
        self._break_off(error)

    def _shut(self, error: BaseException | None) -> None:
        """Stop and remove everything, once; jobs that still run are recorded as ended by this error."""
        with self._lock:
            self._closed = True
            self._thread.stop()
            self._break_off(error)
            self._backend.close()
            for handle in self._handles.values():
                handle.remove()
            self._handles.clear()
            self._jobs.close()

    def _break_off(self, error: BaseException | None) -> None:
        if error is None:
            outcome, reason, error_type = JobOutcome.CANCELLED, Reason.SHUTDOWN, ""
        else:
            ending = ending_of(error)
            outcome, reason, error_type = job_outcome(ending), ending.reason, ending.error_type
        for handle in list(self._handles.values()):
            if not handle.done():
                handle.opened.break_off(outcome, reason, error_type)
                handle.end(error or ConfigError(f"the executor of job {handle.job_id} was closed while it ran"))

    def _require_open(self) -> None:
        if self._closed:
            raise ConfigError("this executor is closed")
