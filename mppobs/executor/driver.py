"""
The executor, as people call it: plans run on worker processes of this machine, recorded from end to end.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import mppobs
from mppobs.errors import ConfigError
from mppobs.executor.backends.local import LocalBackend
from mppobs.executor.coordinator import JobRun
from mppobs.executor.files import Workspace
from mppobs.executor.loop import Loop
from mppobs.executor.plan import Plan, ShardPlan, Stage, path_of
from mppobs.executor.result import JobResult, Progress
from mppobs.executor.scheduler import Scheduler
from mppobs.instrument.job import JobScope
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.settings import Settings
from mppobs.model import JobOutcome, Reason


class Executor:
    """
    A pool of supervised worker processes and the coordinator that gives them work.

    Workers start with the first job and stay warm until `close`. One job runs at a time. Use it as a context manager.
    """

    def __init__(
        self,
        workers: int = 2,
        directory: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        journal: str | os.PathLike[str] | None = None,
    ) -> None:
        """
        Set up without starting any process.

        `directory` is for exchanged data (a temporary one by default); what earlier executors left there when they
        crashed is removed. `journal` is where this process and its workers record: as `mppobs.configure` says where it
        is not given, and with its effect where it is. `seed` makes the jitter of retries repeatable.
        Raises `ConfigError` where there is no worker, or a directory cannot be used.
        """
        if workers < 1:
            raise ConfigError(f"an executor needs at least one worker, not {workers}")
        if journal is not None and Path(journal) != RECORDER.settings().directory:
            mppobs.configure(directory=journal)
        self._workspace = Workspace(directory)
        settings = RECORDER.settings()
        self._backend = LocalBackend(workers, _recording_of(settings), f"{settings.worker_info().worker}-w")
        self._one_at_a_time = threading.Lock()
        self._jobs = 0
        self._closed = False
        self._loop = Loop(Scheduler(random.Random(seed)), self._backend, settings.worker_info())

    @property
    def worker_pids(self) -> dict[str, int]:
        """Return the process IDs of the workers that are up, by name: for whoever wants to watch or kill one."""
        return self._backend.pids

    def run(self, plan: Plan, on_progress: Callable[[Progress], None] | None = None) -> JobResult:
        """
        Run a job to its end and return how it ended; a failed job is a result too, see `JobResult.check`.

        `on_progress` is called in the calling thread, some times a second and once at the end. An interrupt of the
        main thread (Ctrl-C) cancels the job, and comes out as `KeyboardInterrupt` when its attempts have stopped.
        Raises `WorkersBrokenError` where no worker process can be started, and what `on_progress` raises: the executor
        is then closed. Raises `ExchangeError` where the answer is gone.
        """
        with self._one_at_a_time:
            if self._closed:
                raise ConfigError("this executor is closed")
            self._jobs += 1
            key = f"job-{self._jobs}"
            files = self._workspace.job(key, len(plan.stages))
            try:
                with _signals_held() as interrupted, _open(plan) as handle:
                    job = JobRun(key, plan, files, handle)
                    outcome, reason = self._go(job, on_progress, interrupted)
                    handle.end_as(outcome, reason=reason)
                    return job.result(outcome, reason)
            finally:
                files.remove()

    def _go(
        self, job: JobRun, on_progress: Callable[[Progress], None] | None, interrupted: threading.Event
    ) -> tuple[JobOutcome, Reason]:
        """Run a job to its end, or close the executor."""
        try:
            return self._loop.run(job, on_progress, interrupted)
        except BaseException:
            # Whatever it was, a broken callback or broken workers, it left the scheduler in the middle of something.
            self.close()
            raise

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

    def close(self) -> None:
        """Stop the workers and remove exchanged data. May be called twice."""
        self._closed = True
        self._backend.close()
        self._workspace.close()

    def __enter__(self) -> Self:
        """Return the executor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the executor."""
        self.close()


def _open(plan: Plan) -> JobScope:
    """Return the scope in which a plan's job is recorded."""
    return mppobs.job(
        pipeline=plan.pipeline,
        job_id=plan.job_id or None,
        tenant=plan.tenant or None,
        owner=plan.owner or None,
        tier=plan.tier,
        run_kind=plan.run_kind,
        deadline=plan.deadline or None,
        coordinated=True,
    )


def _recording_of(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `mppobs.configure` for worker processes: as here, but that they do nothing else."""
    return {
        "directory": settings.directory,
        "enabled": settings.enabled,
        "node": settings.worker_info().node,
        "zone": settings.zone,
        "node_type": settings.node_type,
        "spot": settings.spot,
        "dedicated": True,
        "lanes": 1,
        "cluster": settings.cluster,
        "sample_seconds": settings.sample_seconds,
        "budget_bytes": settings.budget_bytes,
    }


@contextmanager
def _signals_held() -> Iterator[threading.Event]:
    """
    Hold back, in the main thread, what SIGINT and SIGTERM would raise, until the block is done.

    The event says that one came. An exception in the middle of a decision would leave the scheduler half decided; a
    second signal is not held back.
    """
    came = threading.Event()
    held: dict[int, Any] = {}
    numbers: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            held[number](number, frame)
        numbers.append(number)
        came.set()

    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            handler = signal.getsignal(number)
            if callable(handler):
                held[number] = handler
                signal.signal(number, hold)
    try:
        yield came
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if numbers:
        held[numbers[0]](numbers[0], None)
