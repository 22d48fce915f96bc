"""
The backend of this machine: supervised worker processes, each with pipes of its own, each replaced when it dies.

Processes are forked from a fork server that has imported everything: a replacement is up within some 20 ms, and
nothing is forked from the coordinator, which may have threads. (A plain fork of it could copy a lock that one of them
holds; a spawn would import Arrow each time, for half a second.)
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import selectors
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

from mppobs.errors import MppobsError
from mppobs.executor.attempt import AttemptOrder, StageOrder
from mppobs.executor.backends import worker as child
from mppobs.executor.backends.base import Down, Ended, News, Started, Up
from mppobs.executor.backends.wire import Inbox, Outbox, frame
from mppobs.executor.events import AttemptId
from mppobs.model import AttemptOutcome, Reason

STOP_GRACE_NS: Final = 1_000_000_000
"""How long a task that is told to stop may take about it before its process is killed."""
BOOT_DEATHS: Final = 3
"""So many processes in a row that die before they are ready mean that none ever will be."""
_CLOSE_SECONDS: Final = 2.0


class WorkersBrokenError(MppobsError):
    """Raised when worker processes die before they can take any work."""


@dataclass(slots=True)
class _Child:
    """A worker process as its supervisor sees it."""

    name: str
    process: ForkServerProcess
    pid: int
    inbox: Inbox
    outbox: Outbox
    stops: Connection
    pipes: tuple[Connection, ...]
    ready: bool = False
    held: dict[int, AttemptId] = field(default_factory=dict)
    """Attempts by their tickets."""
    stages: set[int] = field(default_factory=set)
    """Stages that the process knows."""
    told_to_stop: bool = False
    """Whether it was told to stop an attempt, and so may end."""


class LocalBackend:
    """
    Worker processes on this machine. Not thread-safe: everything happens in the calls of one thread.

    `recording` holds arguments of `mppobs.configure` for the workers; each adds its own name to them.
    """

    def __init__(self, workers: int, recording: Mapping[str, Any], name: str) -> None:
        """Set up without starting; workers are called `<name>-<number>`."""
        self._size = workers
        self._recording = recording
        self._name = name
        self._context = multiprocessing.get_context("forkserver")
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, _Child] = {}
        self._places: dict[AttemptId, tuple[_Child, int]] = {}
        self._stages: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._to_write: dict[str, _Child] = {}
        self._kills: list[tuple[int, int, _Child]] = []
        self._started = 0
        self._tickets = 0
        self._boot_deaths = 0
        self._defined = 0

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return self._size

    @property
    def pids(self) -> dict[str, int]:
        """Return the process IDs of the workers that are up, by name."""
        return {target.name: target.pid for target in list(self._children.values()) if target.ready}

    def start(self) -> None:
        """Start the processes that are missing; they report as `Up`."""
        self._context.set_forkserver_preload([child.__name__])
        while len(self._children) < self._size:
            self._spawn()

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker that is up; it goes out with the next `poll`. Never waits."""
        target = self._children.get(worker)
        if target is None:
            return  # it has died, and the news is on its way
        number, definition = self._stage(attempt, stage)
        self._tickets += 1
        target.held[self._tickets] = attempt
        self._places[attempt] = (target, self._tickets)
        data = frame(("attempt", self._tickets, number, *order))
        if number not in target.stages:
            target.stages.add(number)
            data = definition + data
        target.outbox.put(data)
        self._to_write[worker] = target

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`, and its worker with it: when it is told to, or else when it is killed."""
        place = self._places.get(attempt)
        if place is None:
            return
        target, ticket = place
        target.told_to_stop = True
        try:
            os.write(target.stops.fileno(), child.STOP.pack(ticket, child.STOP_OUTCOMES.index(outcome)))
        except BrokenPipeError:
            return  # it is dead already, as its sentinel will tell
        heapq.heappush(self._kills, (time.monotonic_ns() + STOP_GRACE_NS, ticket, target))

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
        seconds = min(seconds, self._kill_overdue())
        news: list[News] = []
        for key, _ in self._selector.select(max(seconds, 0.0)):
            if isinstance(key.data, _Child):
                self._flush(key.data)
            elif isinstance(key.data, str):
                self._bury(key.data, news)
            else:
                self._hear(key.data[0], news)
        return news

    def close(self) -> None:
        """End all processes, kindly and then not. May be called twice."""
        children = list(self._children.values())
        self._children.clear()
        for target in children:
            self._drop(target)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for target in children:
            target.process.join(max(deadline - time.monotonic(), 0.0))
            if target.process.is_alive():
                target.process.kill()
                target.process.join()
            target.process.close()
        self._selector.close()

    def _spawn(self) -> None:
        """Start one process with pipes of its own."""
        self._started += 1
        name = f"{self._name}-{self._started}"
        orders_in, orders_out = Pipe(duplex=False)
        results_in, results_out = Pipe(duplex=False)
        stops_in, stops_out = Pipe(duplex=False)
        setup = child.WorkerSetup({**self._recording, "worker": name})
        process = self._context.Process(
            target=child.main, args=(setup, orders_in, results_out, stops_in), name=name, daemon=True
        )
        process.start()
        for theirs in (orders_in, results_out, stops_in):
            theirs.close()
        os.set_blocking(results_in.fileno(), False)
        inbox, outbox = Inbox(results_in.fileno()), Outbox(orders_out.fileno())
        target = _Child(name, process, process.pid or 0, inbox, outbox, stops_out, (orders_out, results_in, stops_out))
        self._children[name] = target
        self._selector.register(inbox.handle, selectors.EVENT_READ, (target,))
        self._selector.register(process.sentinel, selectors.EVENT_READ, name)

    def _stage(self, attempt: AttemptId, stage: StageOrder) -> tuple[int, bytes]:
        """Return the number of a stage on the pipes, and the frame that defines it."""
        known = self._stages.get(attempt[:2])
        if known is None:
            self._defined += 1
            known = self._stages[attempt[:2]] = (self._defined, frame(("stage", self._defined, stage)))
        return known

    def _write(self) -> None:
        """Write what was submitted since the last time, in one piece for each worker."""
        for target in self._to_write.values():
            if not target.outbox.flush() and target.outbox.handle not in self._selector.get_map():
                self._selector.register(target.outbox.handle, selectors.EVENT_WRITE, target)
        self._to_write.clear()

    def _flush(self, target: _Child) -> None:
        """Write what waited for room in a worker's pipe."""
        if target.outbox.flush():
            self._selector.unregister(target.outbox.handle)

    def _hear(self, target: _Child, news: list[News]) -> None:
        """Take in what a worker says."""
        for message in target.inbox.read():
            match message[0]:
                case child.STARTED:
                    news.append(Started(target.held[message[1]], target.name, message[2]))
                case child.ENDED:
                    attempt = target.held.pop(message[1])
                    del self._places[attempt]
                    news.append(Ended(attempt, child.unpack_report(message)))
                case _:
                    self._boot_deaths = 0
                    target.ready = True
                    news.append(Up(target.name))
        if target.inbox.closed:
            # It says nothing more, whatever it does: its sentinel tells the rest.
            self._selector.unregister(target.inbox.handle)
            target.process.kill()

    def _bury(self, name: str, news: list[News]) -> None:
        """Take in a worker's death: first what it still said, then that it is gone; and start another."""
        target = self._children[name]
        target.inbox.drained = False
        while not target.inbox.closed and not target.inbox.drained:
            self._hear(target, news)
        del self._children[name]
        self._drop(target)
        target.process.join()
        target.process.close()
        if target.ready:
            news.append(Down(name, Reason.SHUTDOWN if target.told_to_stop else Reason.WORKER_LOST))
        else:
            self._boot_deaths += 1
            if self._boot_deaths >= BOOT_DEATHS:
                raise WorkersBrokenError(f"{self._boot_deaths} worker processes in a row died before they were ready")
        self._spawn()

    def _drop(self, target: _Child) -> None:
        """Close a worker's pipes, which ends it if it lives, and forget what it held."""
        self._to_write.pop(target.name, None)
        for attempt in target.held.values():
            del self._places[attempt]
        target.held.clear()
        watched = self._selector.get_map()
        for handle in (target.inbox.handle, target.outbox.handle, target.process.sentinel):
            if handle in watched:
                self._selector.unregister(handle)
        for pipe in target.pipes:
            pipe.close()

    def _kill_overdue(self) -> float:
        """Kill workers that do not stop when they are told to; return in how many seconds to look again."""
        now = time.monotonic_ns()
        while self._kills and self._kills[0][0] <= now:
            _, ticket, target = heapq.heappop(self._kills)
            if next(iter(target.held), None) == ticket:
                target.process.kill()
            elif ticket in target.held:
                # Its turn has not come: it ends then, at once.
                heapq.heappush(self._kills, (now + STOP_GRACE_NS, ticket, target))
        return (self._kills[0][0] - now) / 1e9 if self._kills else 3600.0
