"""
What the backends of engines have in common: who holds what, and how an engine's notices become news.

An `Engine` brings workers up, hands attempts to them and hears what their hosts say (see `hosted`).
It does so in threads of its own and leaves what it learns in a queue, which `EngineBackend.poll` empties.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.backends import hosted
from mppobs.executor.backends.base import (
    Capabilities,
    Down,
    Draining,
    Ended,
    News,
    Place,
    Progress,
    Started,
    Up,
    WorkersBrokenError,
)
from mppobs.executor.backends.timers import Timers
from mppobs.executor.events import AttemptId
from mppobs.model import AttemptOutcome, Reason

STOP_GRACE: Final = 2.0
"""Seconds that a stopped task may take to end: more than for a local worker, since the request goes its own way."""

MOST_UNFIT: Final = 3
"""So many workers in a row that cannot be used mean that none ever will be."""


class Joined(NamedTuple):
    """A worker of the engine is ready."""

    worker: str
    place: Place


class Said(NamedTuple):
    """What a worker's host had to say."""

    worker: str
    messages: list[tuple[Any, ...]]


class Gone(NamedTuple):
    """A worker of the engine is gone."""

    worker: str
    reason: Reason


class Refused(NamedTuple):
    """An engine would not run an attempt."""

    ticket: int
    message: str


class Unfit(NamedTuple):
    """A worker of the engine cannot be used at all."""

    worker: str
    message: str


Notice = Joined | Said | Gone | Refused | Unfit


class Order(NamedTuple):
    """An attempt on its way to a worker."""

    ticket: int
    title: str
    """What the engine's own tools may call it."""
    number: int
    stage: bytes
    """The pickled `StageOrder`, whose number `number` is."""
    order: AttemptOrder


class Engine(Protocol):
    """What an engine must be able to do. Nothing here waits, but for `open` and `close`."""

    name: str
    capabilities: Capabilities
    notices: SimpleQueue[Notice]

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        ...

    def open(self) -> None:
        """Connect to the engine and have its workers join. Raises `WorkersBrokenError` where it cannot be reached."""
        ...

    def give(self, worker: str, order: Order) -> None:
        """Hand an attempt to a worker, once: the engine must not try it again."""
        ...

    def heard(self, worker: str) -> None:
        """Go on listening to a worker that has said something."""
        ...

    def ended(self, ticket: int) -> None:
        """Let go of an attempt that has ended or is lost."""
        ...

    def halt(self, worker: str, ticket: int, outcome: AttemptOutcome) -> None:
        """Have a worker's host stop an attempt."""
        ...

    def kill(self, worker: str) -> None:
        """Kill a worker's process."""
        ...

    def dismiss(self, worker: str) -> None:
        """Let a worker go that holds nothing and is not needed any more."""
        ...

    def gone(self, worker: str) -> None:
        """Forget a worker that is gone or of no use, and have another one, if that is for this side to do."""
        ...

    def resize(self, workers: int, idle: list[str]) -> list[str]:
        """Have so many workers; return those that are to leave when they hold nothing, of `idle` first."""
        ...

    def close(self) -> None:
        """Let go of the engine, and end what was started for it."""
        ...


@dataclass(slots=True)
class _Worker:
    """A worker as the backend sees it."""

    place: Place
    held: dict[int, AttemptId] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    end: Reason | None = None
    """Why it is about to go, where that is this side's doing."""
    leaving: bool = False


class EngineBackend:
    """A backend on an engine's workers. Not thread-safe: everything happens in the calls of one thread."""

    def __init__(self, engine: Engine) -> None:
        """Set up without connecting to anything."""
        self._engine = engine
        self._workers: dict[str, _Worker] = {}
        self._owners: dict[AttemptId, tuple[str, int]] = {}
        self._holders: dict[int, str] = {}
        """Workers by ticket."""
        self._stages: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._timers = Timers()
        self._news: list[News] = []
        self._absences: deque[float] = deque()
        """Until when the next ones that join are held back, in monotonic seconds."""
        self._tickets = self._defined = self._unfit = 0
        self._open = False

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        """Return what it can do."""
        return self._engine.capabilities

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return self._engine.size

    @property
    def places(self) -> Mapping[str, Place]:
        """Return the workers that are up, and where each is."""
        return {name: worker.place for name, worker in self._workers.items()}

    def start(self) -> None:
        """Connect to the engine; its workers report as `Up`."""
        if not self._open:
            self._open = True
            self._engine.open()

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker, which may be gone by now. Never waits."""
        target = self._workers.get(worker)
        if target is None:
            return
        known = self._stages.get(attempt[:2])
        if known is None:
            self._defined += 1
            known = self._stages[attempt[:2]] = (self._defined, pickle.dumps(stage, pickle.HIGHEST_PROTOCOL))
        self._tickets += 1
        target.held[self._tickets] = attempt
        self._owners[attempt] = (worker, self._tickets)
        self._holders[self._tickets] = worker
        title = f"{stage.name}-{order.name}-{order.number}"
        self._engine.give(worker, Order(self._tickets, title, *known, order))

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`: when it is told to, or else with its worker."""
        owner = self._owners.get(attempt)
        if owner is not None:
            self._engine.halt(*owner, outcome)
            self._timers.after(STOP_GRACE, lambda: self._kill_overdue(*owner))

    def poll(self, seconds: float) -> list[News]:
        """Wait for news, as long as told at most, and return it. Raises `WorkersBrokenError` where no worker is fit."""
        deadline = time.monotonic() + seconds
        while True:
            wait = min(self._timers.run(), deadline - time.monotonic())
            self._take(0.0 if self._news else wait)
            if self._news or time.monotonic() >= deadline:
                news, self._news = self._news, []
                return news

    def resize(self, workers: int) -> None:
        """Have so many workers from now on; those that are too many finish what they hold and go."""
        self.capabilities.require("resize", self.name)
        idle = sorted(self._workers, key=lambda name: len(self._workers[name].held))
        for name in self._engine.resize(workers, idle):
            worker = self._workers[name]
            worker.leaving = True
            worker.end = Reason.IDLE
            self._news.insert(0, Draining(name))  # before what may bring it more work
            self._leave_if_idle(name, worker)

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        """Kill a worker; the next one to join is held back for `away` seconds."""
        self.capabilities.require("kill_one", self.name)
        target = self._workers.get(worker)
        if target is not None:
            target.end = reason
            if away > 0:
                self._absences.append(time.monotonic() + away)
            self._engine.kill(worker)

    def evict(self, worker: str, notice: float) -> None:
        """Tell that a worker is about to go, and kill it as preempted after so many seconds."""
        self.capabilities.require("eviction", self.name)
        if worker in self._workers:
            self._news.insert(0, Draining(worker))
            self._timers.after(notice, lambda: self.kill(worker, Reason.PREEMPTED))

    def forget(self, job: str) -> None:
        """Forget the stages of a job that has ended."""
        for key in [key for key in self._stages if key[0] == job]:
            del self._stages[key]

    def close(self) -> None:
        """End all workers. May be called twice."""
        if self._open:
            self._open = False
            self._engine.close()

    def _take(self, seconds: float) -> None:
        """Take in the next notice, waiting for it, and all those that are there behind it."""
        notices = self._engine.notices
        try:
            notice = notices.get(timeout=seconds) if seconds > 0 else notices.get_nowait()
            while True:
                self._notice(notice)
                notice = notices.get_nowait()
        except Empty:
            return

    def _notice(self, notice: Notice) -> None:
        match notice:
            case Joined(name, place):
                self._joined(name, place)
            case Said(name, messages):
                for message in messages:
                    self._said(message)
                if name in self._workers:
                    self._engine.heard(name)
            case Gone(name, reason):
                self._gone(name, reason)
            case Refused(ticket, text):
                self._refused(ticket, text)
            case Unfit(name, text):
                self._unfit += 1
                if self._unfit >= MOST_UNFIT:
                    raise WorkersBrokenError(f"{self._unfit} workers of {self.name} in a row are of no use: {text}")
                self._engine.gone(name)

    def _joined(self, name: str, place: Place) -> None:
        """Say that a worker is up, or later, where one is to be away for a while."""
        wait = self._absences.popleft() - time.monotonic() if self._absences else 0.0
        if wait > 0:
            self._timers.after(wait, lambda: self._joined(name, place))
            return
        self._unfit = 0
        self._workers[name] = _Worker(place)
        self._news.append(Up(name, *place))
        self._engine.heard(name)

    def _said(self, message: tuple[Any, ...]) -> None:
        """Turn what a host said into news. It may speak of attempts that are known to be over."""
        kind, ticket, told = message
        name = self._holders.get(ticket)
        if name is None:
            return
        worker = self._workers[name]
        if kind == hosted.PROGRESS:
            self._news.append(Progress(worker.held[ticket], told))
        elif kind == hosted.STARTED:
            self._begin(name, worker, ticket, told)
        else:
            self._end(name, worker, ticket, told)

    def _begin(self, name: str, worker: _Worker, ticket: int, start_ns: int) -> None:
        if ticket not in worker.begun:
            worker.begun.add(ticket)
            self._news.append(Started(worker.held[ticket], name, start_ns))

    def _end(self, name: str, worker: _Worker, ticket: int, report: Report) -> None:
        attempt = worker.held.pop(ticket)
        worker.begun.discard(ticket)
        del self._owners[attempt], self._holders[ticket]
        self._engine.ended(ticket)
        self._news.append(Ended(attempt, report))
        self._leave_if_idle(name, worker)

    def _refused(self, ticket: int, text: str) -> None:
        """End an attempt that the engine could not run: it was begun, as far as anybody can tell."""
        name = self._holders.get(ticket)
        if name is not None:
            worker = self._workers[name]
            self._begin(name, worker, ticket, time.time_ns())
            self._end(
                name, worker, ticket, Report(AttemptOutcome.ERROR, Reason.WORKER_LOST, "EngineError", text[-500:])
            )

    def _gone(self, name: str, reason: Reason) -> None:
        """Say that a worker is gone. What was next at it may have begun, and so counts as begun."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        if worker.held and not worker.begun:
            self._begin(name, worker, next(iter(worker.held)), time.time_ns())
        for ticket, attempt in worker.held.items():
            del self._owners[attempt], self._holders[ticket]
            self._engine.ended(ticket)
        self._news.append(Down(name, worker.end or reason))
        self._engine.gone(name)

    def _leave_if_idle(self, name: str, worker: _Worker) -> None:
        if worker.leaving and not worker.held:
            self._engine.dismiss(name)

    def _kill_overdue(self, name: str, ticket: int) -> None:
        """Kill a worker whose attempt has not stopped when it was told to."""
        worker = self._workers.get(name)
        if worker is None or ticket not in worker.held:
            return
        if ticket in worker.begun:
            worker.end = worker.end or Reason.SHUTDOWN
            self._engine.kill(name)
        else:
            # Its turn has not come: it ends then, at once.
            self._timers.after(STOP_GRACE, lambda: self._kill_overdue(name, ticket))
