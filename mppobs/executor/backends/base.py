"""What the loop asks of any backend, and what a backend tells it. Policy is above this line, mechanism below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

from mppobs.errors import MppobsError
from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.events import AttemptId
from mppobs.model import AttemptOutcome, Reason


class UnsupportedError(MppobsError):
    """Raised when a backend is asked for what its `Capabilities` say it cannot do. The message names the ability."""


class WorkersBrokenError(MppobsError):
    """Raised when workers die before they can take any work, or an engine can start none."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """
    What a backend can do. Whatever differs between backends is one of these: nothing differs in silence.

    What is `False` raises `UnsupportedError` where it is a request, and never comes where it is news.

    >>> Capabilities(kill_one=True).words()
    ['kill_one']
    """

    kill_one: bool = False
    """`kill` ends a worker at once, as SIGKILL does, whatever it is doing."""
    interrupt: bool = False
    """`stop` ends an attempt that runs, kindly or by force. Without it the task runs to its end and reports as ever."""
    survives_stop: bool = False
    """A worker whose attempt was stopped goes on, if the task ended when it was told to; else it is replaced."""
    progress: bool = False
    """`Progress` comes from tasks that tell how far they are."""
    resize: bool = False
    """`resize` changes the number of workers while they work."""
    replaces: bool = False
    """A worker that is gone is replaced by a new one of another name, until there are `size` of them."""
    memory_limit: bool = False
    """Workers can be given a limit of memory: a task that passes it ends alone, as `memory` or `oom_killed`."""
    placement: bool = False
    """Workers know their node, zone and whether they are spot: `Up` says so."""
    eviction: bool = False
    """`evict` gives notice (`Draining`) before it takes a worker away."""
    virtual_time: bool = False
    """Time is the backend's own and passes in `poll` alone."""

    def words(self) -> list[str]:
        """Return the names of the abilities that are there."""
        return [each.name for each in fields(self) if getattr(self, each.name)]

    def require(self, ability: str, backend: str) -> None:
        """Raise `UnsupportedError` unless the ability of that name is there."""
        if not getattr(self, ability):
            raise UnsupportedError(f"the {backend} backend has no {ability}, but {', '.join(self.words())}")


class Place(NamedTuple):
    """Where a worker runs, and what it has."""

    node: str = ""
    zone: str = ""
    spot: bool = False
    """Whether it may be taken away at short notice."""
    memory_bytes: int = 0
    """How much memory one attempt may use; 0 where there is no limit."""


class Up(NamedTuple):
    """A worker is ready."""

    worker: str
    node: str = ""
    zone: str = ""
    spot: bool = False
    memory_bytes: int = 0


class Draining(NamedTuple):
    """A worker is about to be taken away: it finishes what it can, and is to get nothing more."""

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


class Progress(NamedTuple):
    """How far a running task says that it is."""

    attempt: AttemptId
    ratio: float
    """In [0, 1]."""


class Ended(NamedTuple):
    """A task has returned, and its output is in place."""

    attempt: AttemptId
    report: Report


News = Up | Draining | Down | Started | Progress | Ended


class Backend(Protocol):
    """
    Something that runs attempts on workers. It retries nothing and decides nothing.

    Every worker name is new; a worker runs what it is given in that order. All calls come from one thread.
    """

    @property
    def name(self) -> str:
        """Return what it is called: `local`, `dask`, `ray` or `sim`."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Return what it can do."""
        ...

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        ...

    @property
    def places(self) -> Mapping[str, Place]:
        """Return the workers that are up, and where each is."""
        ...

    def start(self) -> None:
        """Start the workers that are missing; they report as `Up`."""
        ...

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker, which may be gone by now. Never waits."""
        ...

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """
        Have an attempt end as `outcome`, if it has not ended. It is told by `Ended`, or by `Down`.

        Without `interrupt` an attempt that runs goes on; one that has not begun ends without having been run.
        """
        ...

    def poll(self, seconds: float) -> list[News]:
        """Wait for news, as long as told at most, and return it."""
        ...

    def resize(self, workers: int) -> None:
        """Have so many workers from now on: more are started, idle and young ones first are drained. (`resize`)"""
        ...

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        """
        Kill a worker: `Down` with this reason follows. Nothing happens where it is gone already. (`kill_one`)

        Its replacement comes no sooner than `away` seconds from now: the loss of a node is this, for all its workers.
        """
        ...

    def evict(self, worker: str, notice: float) -> None:
        """Tell that a worker is about to go (`Draining`); kill it as preempted after `notice` seconds. (`eviction`)"""
        ...

    def forget(self, job: str) -> None:
        """Forget what is kept for a job that has ended."""
        ...

    def close(self) -> None:
        """End all workers. May be called twice."""
        ...
