"""
The backend of this machine: supervised worker processes, each with pipes of its own, each replaced when it dies.

Processes are forked from a fork server that has imported everything: a replacement is up within some 20 ms, and
nothing is forked from the coordinator, which may have threads. (A plain fork of it could copy a lock that one of them
holds; a spawn would import Arrow each time, for half a second.)

Seats make one machine look like several: each has a node, a zone, a limit of memory and whether it is spot, so that the
loss of a node or an eviction can be had here too.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mppobs.executor.attempt import AttemptOrder, StageOrder
from mppobs.executor.backends import worker as inside
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
from mppobs.executor.backends.children import Child, Seat, fork
from mppobs.executor.backends.timers import Timers
from mppobs.executor.backends.wire import frame
from mppobs.executor.events import AttemptId
from mppobs.journal.reader import read_slots
from mppobs.model import AttemptOutcome, Reason

STOP_GRACE: Final = 1.0
"""Seconds that a task which is told to stop may take about it before its process is killed."""
BOOT_DEATHS: Final = 3
"""So many processes in a row that die before they are ready mean that none ever will be."""
PROGRESS_SECONDS: Final = 0.5
"""How often the slots of running attempts are looked at. What is judged by progress runs for seconds at the least."""
_CLOSE_SECONDS: Final = 2.0
_ABILITIES: Final = Capabilities(
    kill_one=True,
    interrupt=True,
    progress=True,
    resize=True,
    replaces=True,
    memory_limit=True,
    placement=True,
    eviction=True,
)


@dataclass(frozen=True, slots=True)
class Pool:
    """What the worker processes of this machine are to be like."""

    places: tuple[Place, ...] = ()
    """Where the workers are said to be, in turns; empty for where they are."""
    spares: int = 0
    """Processes that wait for a worker to die: its place is then taken in a few milliseconds, not some 20."""
    preload: tuple[str, ...] = ()
    """Modules that are imported before processes are forked, so that no first task pays for them."""


class LocalBackend:
    """
    Worker processes on this machine. Not thread-safe: everything happens in the calls of one thread.

    `recording` holds arguments of `mppobs.configure` for the workers; each adds its own name and place to them.
    """

    def __init__(self, workers: int, recording: Mapping[str, Any], name: str, pool: Pool = Pool()) -> None:
        """Set up without starting; workers are called `<name>-<number>`."""
        self._recording = recording
        self._prefix = name
        self._pool = pool
        self._context = multiprocessing.get_context("forkserver")
        self._selector = selectors.DefaultSelector()
        self._seats = [Seat(self._place(number)) for number in range(workers)]
        self._spares: deque[Child] = deque()
        self._living: dict[int, Child] = {}
        """Every process by its ID, spares and those that boot included."""
        self._children: dict[str, Child] = {}
        """Those with a seat, by name."""
        self._owners: dict[AttemptId, tuple[Child, int]] = {}
        self._stages: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._to_write: dict[int, Child] = {}
        self._timers = Timers()
        self._news: list[News] = []
        self._started = self._tickets = self._boot_deaths = self._defined = 0

    @property
    def name(self) -> str:
        """Return `local`."""
        return "local"

    @property
    def capabilities(self) -> Capabilities:
        """Return what it can do: everything but virtual time."""
        return _ABILITIES

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return len(self._seats)

    @property
    def pids(self) -> dict[str, int]:
        """Return the process IDs of the workers that are up, by name."""
        return {child.name: child.pid for child in list(self._children.values()) if child.ready}

    @property
    def process_ids(self) -> list[int]:
        """Return the process IDs of all processes: workers that are up, those that are not yet, and spares."""
        return list(self._living)

    @property
    def places(self) -> dict[str, Place]:
        """Return the workers that are up, and where each is said to be."""
        return {name: child.seat.place for name, child in list(self._children.items()) if child.ready and child.seat}

    def start(self) -> None:
        """Start the processes that are missing; they report as `Up`."""
        if not self._started:
            self._context.set_forkserver_preload([inside.__name__, *self._pool.preload])
            self._look_at_slots()
        for seat in self._seats:
            self._fill(seat)
        self._hold_spares()

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker that is up; it goes out with the next `poll`. Never waits."""
        child = self._children.get(worker)
        if child is None or child.pipes[0].closed:
            return  # it has died or is leaving, and the news is on its way
        number, definition = self._stage(attempt, stage)
        self._tickets += 1
        child.held[self._tickets] = attempt
        self._owners[attempt] = (child, self._tickets)
        if number not in child.stages:
            child.stages.add(number)
            child.outbox.put(definition)
        child.orders.append((self._tickets, number, *order))
        self._to_write[child.pid] = child

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`, and its worker with it: when it is told to, or else when it is killed."""
        owner = self._owners.get(attempt)
        if owner is None:
            return
        child, ticket = owner
        child.end = child.end or Reason.SHUTDOWN
        try:
            os.write(child.stops.fileno(), inside.STOP.pack(ticket, inside.STOP_OUTCOMES.index(outcome)))
        except BrokenPipeError:
            return  # it is dead already, as its sentinel will tell
        self._timers.after(STOP_GRACE, lambda: self._kill_overdue(child, ticket))

    def resize(self, workers: int) -> None:
        """Have so many workers from now on; those that are too many finish what they hold and end."""
        while len(self._seats) < workers:
            self._seats.append(Seat(self._place(len(self._seats))))
            self._fill(self._seats[-1])
        surplus = sorted(self._seats, key=lambda seat: len(seat.child.held) if seat.child is not None else -1)
        for seat in surplus[: len(self._seats) - workers]:
            self._seats.remove(seat)
            seat.closed = True
            if seat.child is not None:
                self._drain(seat.child)

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        """Kill a worker now, to be replaced after `away` seconds; nothing happens where it is gone."""
        child = self._children.get(worker)
        if child is not None:
            child.end = reason
            child.away = away
            child.process.kill()

    def evict(self, worker: str, notice: float) -> None:
        """Tell that a worker is about to go, and kill it as preempted after so many seconds."""
        child = self._children.get(worker)
        if child is not None:
            self._news.insert(0, Draining(worker))
            self._timers.after(notice, lambda: self.kill(worker, Reason.PREEMPTED))

    def forget(self, job: str) -> None:
        """Forget the stages of a job that has ended."""
        for key in [key for key in self._stages if key[0] == job]:
            del self._stages[key]

    def poll(self, seconds: float) -> list[News]:
        """
        Wait for news, as long as told at most, and return it; replace processes that died.

        Raises `WorkersBrokenError` when several in a row die before they are ready.
        """
        self._write()
        seconds = min(seconds, self._timers.run())
        if self._news:
            seconds = 0.0
        for key, _ in self._selector.select(max(seconds, 0.0)):
            if self._selector.get_map().get(key.fileobj) is not key:
                continue  # buried in this round: its handle is closed, or somebody else's by now
            if isinstance(key.data, Child):
                self._flush(key.data)
            elif isinstance(key.data, int):
                self._bury(key.data)
            else:
                self._hear(key.data[0])
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """End all processes, kindly and then not. May be called twice."""
        children = [*self._living.values()]
        self._living.clear()
        self._children.clear()
        self._spares.clear()
        for child in children:
            self._drop(child)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for child in children:
            child.process.join(max(deadline - time.monotonic(), 0.0))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            child.process.close()
        self._selector.close()

    # Processes

    def _place(self, number: int) -> Place:
        """Return where the worker on a seat is said to be."""
        places = self._pool.places
        return places[number % len(places)] if places else Place()

    def _fill(self, seat: Seat) -> None:
        """Give a seat a process, a spare one where there is one."""
        if seat.child is not None or seat.closed:
            return
        child = self._spares.popleft() if self._spares else self._fork()
        self._started += 1
        name = f"{self._prefix}-{self._started}"
        place = seat.place
        told = {key: value for key, value in place._asdict().items() if value and key != "memory_bytes"}
        child.assign(name, seat, inside.WorkerSetup({**self._recording, **told, "worker": name}, place.memory_bytes))
        self._children[name] = child
        self._to_write[child.pid] = child

    def _hold_spares(self) -> None:
        while len(self._spares) < self._pool.spares:
            self._spares.append(self._fork())

    def _fork(self) -> Child:
        """Start one process."""
        child = fork(self._context, self._boot_deaths)
        self._living[child.pid] = child
        self._selector.register(child.inbox.handle, selectors.EVENT_READ, (child,))
        self._selector.register(child.process.sentinel, selectors.EVENT_READ, child.pid)
        return child

    def _drain(self, child: Child) -> None:
        """Let a worker finish what it holds and end."""
        child.draining = True
        child.end = child.end or Reason.IDLE
        self._news.insert(0, Draining(child.name))  # before what may bring it more work
        self._to_write[child.pid] = child

    def _bury(self, pid: int) -> None:
        """Take in a process's death: first what it still said, then that it is gone; and fill its seat again."""
        child = self._living.pop(pid)
        child.inbox.drained = False
        while not child.inbox.closed and not child.inbox.drained:
            self._hear(child)
        self._children.pop(child.name, None)
        self._drop(child)
        child.process.join()
        child.process.close()
        if child.ready:
            self._news.append(Down(child.name, child.end or Reason.WORKER_LOST))
        elif child.end is None:
            # Those that were started side by side, and died with their fork server, count once.
            self._boot_deaths = max(self._boot_deaths, child.generation + 1)
            if self._boot_deaths >= BOOT_DEATHS:
                raise WorkersBrokenError(f"{self._boot_deaths} worker processes in a row died before they were ready")
        self._replace(child)

    def _replace(self, child: Child) -> None:
        """Fill the seat of a process that is gone, now or when it may be."""
        seat = child.seat
        if seat is None:
            self._spares.remove(child)
        elif child.away > 0:
            self._timers.after(child.away, lambda: self._return(seat))
        else:
            self._return(seat)
        self._hold_spares()

    def _return(self, seat: Seat) -> None:
        seat.child = None
        self._fill(seat)

    def _drop(self, child: Child) -> None:
        """Close a worker's pipes, which ends it if it lives, and forget what it held."""
        self._to_write.pop(child.pid, None)
        for attempt in child.held.values():
            del self._owners[attempt]
        child.held.clear()
        watched = self._selector.get_map()
        for handle in (child.inbox.handle, child.outbox.handle, child.process.sentinel):
            if handle in watched:
                self._selector.unregister(handle)
        child.close()

    # Messages

    def _stage(self, attempt: AttemptId, stage: StageOrder) -> tuple[int, bytes]:
        """Return the number of a stage on the pipes, and the frame that defines it."""
        known = self._stages.get(attempt[:2])
        if known is None:
            self._defined += 1
            known = self._stages[attempt[:2]] = (self._defined, frame(("stage", self._defined, stage)))
        return known

    def _write(self) -> None:
        """Write what was submitted since the last time, in one piece for each worker."""
        for child in self._to_write.values():
            if not child.flush() and child.outbox.handle not in self._selector.get_map():
                self._selector.register(child.outbox.handle, selectors.EVENT_WRITE, child)
        self._to_write.clear()

    def _flush(self, child: Child) -> None:
        """Write what waited for room in a worker's pipe."""
        self._selector.unregister(child.outbox.handle)
        self._to_write[child.pid] = child
        self._write()

    def _hear(self, child: Child) -> None:
        """Take in what a worker says."""
        for messages in child.inbox.read():
            for message in messages:
                self._heard(child, message)
        if child.inbox.closed:
            # It says nothing more, whatever it does: its sentinel tells the rest.
            self._selector.unregister(child.inbox.handle)
            child.process.kill()

    def _heard(self, child: Child, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == inside.STARTED:
            child.running = child.held[message[1]]
            child.told = -1.0
            self._news.append(Started(child.running, child.name, message[2]))
        elif kind == inside.ENDED:
            child.running = None
            attempt = child.held.pop(message[1])
            del self._owners[attempt]
            self._news.append(Ended(attempt, inside.unpack_report(message)))
        else:
            self._ready(child, message[2])

    def _ready(self, child: Child, journal: str) -> None:
        self._boot_deaths = 0
        for other in self._living.values():
            other.generation = 0
        child.ready = True
        child.journal = Path(journal) if journal else None
        if child.seat is not None:
            self._news.append(Up(child.name, *child.seat.place))

    def _look_at_slots(self) -> None:
        """Tell how far the attempts have come that run, where that is more than was told."""
        for child in self._children.values():
            if child.running is None or child.journal is None:
                continue
            for slot in read_slots(child.journal):
                ratio = slot.progress
                if not slot.is_job and slot.attempt == child.running.number and ratio not in (None, child.told):
                    child.told = ratio
                    self._news.append(Progress(child.running, ratio))
        self._timers.after(PROGRESS_SECONDS, self._look_at_slots)

    def _kill_overdue(self, child: Child, ticket: int) -> None:
        """Kill a worker that has not stopped when it was told to."""
        if next(iter(child.held), None) == ticket:
            child.process.kill()
        elif ticket in child.held:
            # Its turn has not come: it ends then, at once.
            self._timers.after(STOP_GRACE, lambda: self._kill_overdue(child, ticket))
