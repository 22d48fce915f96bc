"""Worker processes as their supervisor holds them: seats, the processes on them, and the pipes between."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Final

from mppobs.executor.backends import worker as inside
from mppobs.executor.backends.base import Place
from mppobs.executor.backends.wire import Inbox, Outbox, frame
from mppobs.executor.events import AttemptId
from mppobs.model import Reason

_FORKS: Final = 10
"""Tries at starting one process: a fork server that dies ten times in a row will not live."""
_FORK_PAUSE: Final = 0.02
_LONGEST_DIRECTORY: Final = 70
"""Characters: `multiprocessing` adds `/pymp-12345678/listener-12345678`, and some more in later versions."""
_SHORT_DIRECTORIES: Final = ("/tmp", "/var/tmp", "/dev/shm")
"""Only where the usual one cannot be used."""


@dataclass(slots=True)
class Child:
    """A worker process and what it has been given."""

    process: ForkServerProcess
    pid: int
    inbox: Inbox
    outbox: Outbox
    stops: Connection
    pipes: tuple[Connection, ...]
    generation: int
    """Deaths at the start that were counted before it was started."""
    name: str = ""
    """Empty while it is a spare that no seat has needed yet."""
    seat: Seat | None = None
    ready: bool = False
    held: dict[int, AttemptId] = field(default_factory=dict)
    """Attempts by their tickets, in the order in which they run."""
    stages: set[int] = field(default_factory=set)
    """Stages that the process knows."""
    orders: list[tuple[Any, ...]] = field(default_factory=list)
    """Attempts that go out with the next `flush`."""
    journal: Path | None = None
    """Head file of its journal, once it is ready and where it has one."""
    running: AttemptId | None = None
    """The attempt that it began last and has not ended."""
    told: float = -1.0
    """The progress that was last heard of the running attempt."""
    end: Reason | None = None
    """Why it is about to end, where that is this side's doing."""
    away: float = 0.0
    """Seconds that its seat is to stay empty after it."""
    draining: bool = False

    def assign(self, name: str, seat: Seat, setup: inside.WorkerSetup) -> None:
        """Give the process a name, its seat and what it needs to begin."""
        self.name, self.seat = name, seat
        seat.child = self
        self.outbox.put(frame(setup))

    def flush(self) -> bool:
        """Write what waits; return whether all is written. After the last order of one that drains, orders end."""
        if self.orders:
            # In one message: what they have in common is pickled once.
            self.outbox.put(frame(("attempts", self.orders)))
            self.orders = []
        written = self.outbox.flush()
        if written and self.draining:
            self.pipes[0].close()
        return written

    def close(self) -> None:
        """Close this side of the pipes, which ends the process if it lives."""
        for pipe in self.pipes:
            if not pipe.closed:
                pipe.close()


@dataclass(slots=True)
class Seat:
    """A place for one worker process after the other."""

    place: Place
    child: Child | None = None
    closed: bool = False
    """Whether nobody is to take it any more."""


@contextmanager
def _short_paths() -> Iterator[None]:
    """
    Have temporary files in a short directory meanwhile, where the usual one is too long for the path of a socket.

    The fork server listens on one there, and the kernel takes 107 characters.
    """
    usual = tempfile.gettempdir()
    if len(usual) <= _LONGEST_DIRECTORY:
        yield
        return
    with suppress(StopIteration):
        tempfile.tempdir = next(place for place in _SHORT_DIRECTORIES if os.access(place, os.W_OK | os.X_OK))
    try:
        yield
    finally:
        tempfile.tempdir = usual


def fork(context: ForkServerContext, generation: int) -> Child:
    """
    Start one process with pipes of its own; it waits for its `WorkerSetup`.

    The fork server may be killed at any moment, also while it forks: another one is started then.
    """
    for left in range(_FORKS, 0, -1):
        pairs = [Pipe(duplex=False) for _ in range(3)]
        (orders_in, orders_out), (results_in, results_out), (stops_in, stops_out) = pairs
        process = context.Process(target=inside.main, args=(orders_in, results_out, stops_in), daemon=True)
        try:
            with _short_paths():
                process.start()
        except (EOFError, OSError):
            for pipe in (end for pair in pairs for end in pair):
                pipe.close()
            if left == 1:
                raise
            # It takes a moment from the end of its connections to its being a process that has ended.
            time.sleep(_FORK_PAUSE)
            continue
        for theirs in (orders_in, results_out, stops_in):
            theirs.close()
        break
    os.set_blocking(results_in.fileno(), False)
    inbox, outbox = Inbox(results_in.fileno()), Outbox(orders_out.fileno())
    pipes = (orders_out, results_in, stops_out)
    return Child(process, process.pid or 0, inbox, outbox, stops_out, pipes, generation)
