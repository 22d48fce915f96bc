"""
Runs plans: the scheduler's decisions carried out on worker processes, with the real clock, and recorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from mppobs.executor.plan import Plan
from mppobs.executor.result import JobResult, Progress


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
        Set up without starting anything.

        `directory` is for exchanged data (a temporary one by default); what earlier executors left there when they
        crashed is removed. `journal` is where the coordinator and its workers record (default: as `mppobs.configure`
        says). `seed` makes the jitter of retries repeatable.
        """
        raise NotImplementedError(workers, directory, seed, journal)

    def run(self, plan: Plan, on_progress: Callable[[Progress], None] | None = None) -> JobResult:
        """
        Run a job to its end and return how it ended; a failed job is a result too, see `JobResult.check`.

        `on_progress` is called in the calling thread, some times a second and once at the end. An interrupt
        (`KeyboardInterrupt`) cancels the job, waits for its attempts to stop and goes on.
        """
        raise NotImplementedError(plan, on_progress)

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, chunk: int = 1, pipeline: str = "map"
    ) -> list[Any]:
        """
        Return `[function(item) for item in items]`, computed by the workers, `chunk` items to a shard.

        `function` must be importable by a worker. Raises `JobFailedError` if a shard fails for good.
        """
        raise NotImplementedError(function, items, chunk, pipeline)

    def close(self) -> None:
        """Stop the workers and remove exchanged data. May be called twice."""

    def __enter__(self) -> Self:
        """Return the executor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the executor."""
        self.close()
