"""
An attempt in a worker process that belongs to an engine (Dask, Ray): what happens there, whatever the engine.

The engine calls `Host.attempt` in a thread of its own; `Host.hear` tells the coordinator what began, how far it is and
how it ended. Each worker process records in its own journal, like a local one.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa

import mppobs
from mppobs.executor.attempt import AttemptOrder, Report, StageOrder, StoppedError, run_attempt
from mppobs.instrument.recorder import RECORDER
from mppobs.journal.format import head_name
from mppobs.journal.reader import read_slots
from mppobs.model import AttemptOutcome

STARTED: Final = "started"
PROGRESS: Final = "progress"
ENDED: Final = "ended"
"""What a message of a host says: its first item. The ticket of the attempt follows."""

HEAR_SECONDS: Final = 1.0
"""How long a host waits for something to say before it answers that there is nothing, but for how far it is."""
_MOST_STAGES: Final = 1024


class _LateError(StoppedError):
    def __init__(self) -> None:
        super().__init__(AttemptOutcome.TIMEOUT)


class _CancelledError(StoppedError):
    def __init__(self) -> None:
        super().__init__(AttemptOutcome.CANCELLED)


class _SupersededError(StoppedError):
    def __init__(self) -> None:
        super().__init__(AttemptOutcome.SUPERSEDED)


_RAISED: Final[dict[AttemptOutcome, type[StoppedError]]] = {
    AttemptOutcome.TIMEOUT: _LateError,
    AttemptOutcome.CANCELLED: _CancelledError,
    AttemptOutcome.SUPERSEDED: _SupersededError,
}
"""Classes without arguments, since Python raises a class, not an exception, in another thread."""


@dataclass(frozen=True, slots=True)
class HostSetup:
    """What a host is told at its start."""

    recording: Mapping[str, Any]
    """Arguments of `mppobs.configure`."""
    dedicated: bool
    """Whether the process is there for this alone, so that Arrow's threads in it may be taken away."""


class HostInfo(NamedTuple):
    """What a host says of itself."""

    pid: int
    node: str


class ThreadStop:
    """Raises `StoppedError` in the thread that makes an attempt, as long as the attempt allows it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = 0
        self._allowed = False
        self._asked: AttemptOutcome | None = None
        self._struck = False

    def ask(self, outcome: AttemptOutcome) -> None:
        """Have the attempt end: now, or where that is not allowed yet, as soon as it is. From any thread."""
        with self._lock:
            self._asked = self._asked or outcome
            if self._allowed and not self._struck:
                self._struck = True
                _raise_in(self._thread, _RAISED[self._asked])

    def allow(self, allowed: bool) -> None:
        """Say whether the attempt, which runs in this thread, may be stopped from now on. May raise `StoppedError`."""
        with self._lock:
            self._thread = threading.get_ident()
            self._allowed = allowed
            if self._struck:
                # Whether it has come yet or not, it is over with the raise below.
                _raise_in(self._thread, None)
            self._struck = self._struck or (allowed and self._asked is not None)
            outcome = self._asked if self._struck else None
        if outcome is not None:
            raise _RAISED[outcome]


class Host:
    """
    One worker process of an engine, seen from inside. Made in that process; thread-safe.

    `wake` is called, from any thread, when there is something to hear.
    """

    def __init__(self, setup: HostSetup, wake: Callable[[], None] = lambda: None) -> None:
        if setup.dedicated:
            pa.set_cpu_count(1)
        mppobs.configure(**setup.recording)
        # Opened before there is anything to record: an attempt that is killed as it begins is then in the journal.
        RECORDER.journal()
        self._wake = wake
        self._changed = threading.Condition()
        self._said: list[tuple[Any, ...]] = []
        self._stops: dict[int, ThreadStop] = {}
        self._running: dict[int, AttemptOrder] = {}
        self._stages: dict[int, StageOrder] = {}
        self._closed = False

    def info(self) -> HostInfo:
        """Return who and where it is."""
        return HostInfo(os.getpid(), RECORDER.settings().worker_info().node)

    def attempt(self, ticket: int, number: int, stage: bytes, order: AttemptOrder) -> None:
        """Make an attempt in this thread; what came of it is to be heard. `stage` is the pickled `StageOrder`."""
        stop = self._stop_of(ticket)
        known = self._stage(number, stage)
        with self._changed:
            self._running[ticket] = order
        self._say((STARTED, ticket, time.time_ns()))
        with (
            mppobs.attach(known.context),
            mppobs.attempt(
                stage=known.name, shard=order.name, attempt=order.number, assigned_ns=order.assigned_ns
            ) as attempt,
        ):
            report = run_attempt(known, order, attempt, stop.allow)
        with self._changed:
            del self._running[ticket]
            del self._stops[ticket]
        self._say((ENDED, ticket, report))

    def stop(self, ticket: int, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`; one that has not begun ends when it would."""
        self._stop_of(ticket).ask(outcome)

    def hear(self, seconds: float = HEAR_SECONDS) -> list[tuple[Any, ...]]:
        """Return what there is to say, as soon as there is something; at last, how far the running attempts are."""
        with self._changed:
            self._changed.wait_for(lambda: self._said or self._closed, seconds)
        return self.take()

    def take(self) -> list[tuple[Any, ...]]:
        """Return what there is to say now; where nothing has happened, how far the running attempts are."""
        with self._changed:
            said, self._said = self._said, []
        return said or self._progress()

    @property
    def says(self) -> bool:
        """Return whether there is something to hear, or will never be."""
        return bool(self._said) or self._closed

    def close(self) -> None:
        """Close the journal. Who listens is let go."""
        RECORDER.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    def _say(self, message: tuple[Any, ...]) -> None:
        with self._changed:
            self._said.append(message)
            self._changed.notify_all()
        self._wake()

    def _stop_of(self, ticket: int) -> ThreadStop:
        with self._changed:
            return self._stops.setdefault(ticket, ThreadStop())

    def _stage(self, number: int, data: bytes) -> StageOrder:
        """Return a stage, unpickled once."""
        with self._changed:
            known = self._stages.get(number)
            if known is None:
                if len(self._stages) >= _MOST_STAGES:
                    self._stages.clear()
                known = self._stages[number] = pickle.loads(data)
            return known

    def _progress(self) -> list[tuple[Any, ...]]:
        """Return how far the running attempts say that they are, from their slots."""
        journal = RECORDER.journal()
        with self._changed:
            running = dict(self._running)
        if journal is None or not running:
            return []
        by_slot = {(journal.name_shard(order.name), order.number): ticket for ticket, order in running.items()}
        found = []
        for slot in read_slots(journal.directory / head_name(journal.journal)):
            ticket = by_slot.get((slot.shard_key, slot.attempt))
            if ticket is not None and slot.progress is not None and not slot.is_job:
                found.append((PROGRESS, ticket, slot.progress))
        return found


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have a class of exceptions raised in a thread as it executes its next bytecode, or take that back."""
    argument = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)


def report_of(message: tuple[Any, ...]) -> Report:
    """Return the report of an `ENDED` message."""
    report: Report = message[2]
    return report
