"""What the loop asks of any backend, and what a backend tells it. Policy is above this line, mechanism below."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.events import AttemptId
from mppobs.model import AttemptOutcome, Reason


class Up(NamedTuple):
    """A worker is ready."""

    worker: str


class Down(NamedTuple):
    """A worker is gone. What it held and did not report is lost."""

    worker: str
    reason: Reason


class Started(NamedTuple):
    """A task has been called."""

    attempt: AttemptId
    worker: str
    start_ns: int
    """Wall time, by the worker's clock."""


class Ended(NamedTuple):
    """A task has returned, and its output is in place."""

    attempt: AttemptId
    report: Report


News = Up | Down | Started | Ended


class Backend(Protocol):
    """
    Something that runs attempts on workers. It retries nothing and decides nothing.

    Every worker name is new; a worker runs what it is given in that order. All calls come from one thread.
    """

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        ...

    def start(self) -> None:
        """Start the workers that are missing; they report as `Up`."""
        ...

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker, which may be gone by now. Never waits."""
        ...

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`, if it has not ended. It is told by `Ended`, or by `Down`."""
        ...

    def poll(self, seconds: float) -> list[News]:
        """Wait for news, as long as told at most, and return it."""
        ...

    def forget(self, job: str) -> None:
        """Forget what is kept for a job that has ended."""
        ...

    def close(self) -> None:
        """End all workers. May be called twice."""
        ...
