"""
The process that makes attempts, one at a time, in the order in which they come.

It reads orders from one pipe, writes what it begins and ends to another, and is told on a third to stop an attempt: the
kernel then sends it a signal (SIGIO), also when the coordinator dies and the pipe closes. When an attempt was stopped,
or the coordinator is gone, the process ends: a task that was interrupted anywhere leaves nothing that can be trusted.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final

import pyarrow as pa

import mppobs
from mppobs.executor.attempt import AttemptOrder, Report, StageOrder, StoppedError, run_attempt
from mppobs.executor.backends.memory import MemoryLimit
from mppobs.executor.backends.watchdog import die_with_parent, end_unless_stopped
from mppobs.executor.backends.wire import Inbox, frame, write_all
from mppobs.executor.shuffle import Output
from mppobs.instrument.attempt import NOTHING, Attempt
from mppobs.instrument.recorder import RECORDER
from mppobs.journal.format import head_name
from mppobs.model import AttemptOutcome, Reason

READY: Final = 0
STARTED: Final = 1
ENDED: Final = 2
"""What a message to the coordinator says: its first item."""

STOP: Final = struct.Struct("<QB")
"""A request on the third pipe: the attempt's ticket, and an index into `STOP_OUTCOMES`."""
STOP_OUTCOMES: Final = (AttemptOutcome.TIMEOUT, AttemptOutcome.CANCELLED, AttemptOutcome.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker process is told before it does anything: the first message of its orders."""

    recording: Mapping[str, Any]
    """Arguments of `mppobs.configure`."""
    memory_bytes: int = 0
    """How much memory an attempt may take on top of what the process holds by itself; 0 for no limit."""


def pack_report(ticket: int, report: Report) -> tuple[Any, ...]:
    """Return a report as a message of plain values, which are pickled several times as fast as enumerations."""
    output = None if report.output is None else tuple(report.output)
    return ENDED, ticket, report.outcome.value, report.reason.value, *report[2:_OUTPUT], output, *report[_OUTPUT + 1 :]


def unpack_report(message: tuple[Any, ...]) -> Report:
    """Return the report that `pack_report` packed."""
    report = Report(_OUTCOMES[message[2]], _REASONS[message[3]], *message[4:])
    return report if report.output is None else report._replace(output=Output(*report.output))


_OUTPUT: Final = Report._fields.index("output")
_OUTCOMES: Final = {outcome.value: outcome for outcome in AttemptOutcome}
_REASONS: Final = {reason.value: reason for reason in Reason}


class _StopGuard:
    """Raises `StoppedError` in the main thread when the attempt that runs there is to end early."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._ticket = 0
        self._allowed = False
        self._asked: dict[int, AttemptOutcome] = {}
        self._timer: threading.Timer | None = None
        self.attempt: Attempt = NOTHING
        """The attempt that runs, as it is recorded."""
        self.ends = False
        """Whether the process is to end: an attempt was stopped, or the coordinator is gone."""
        os.set_blocking(handle, False)
        signal.signal(signal.SIGIO, self._on_signal)
        fcntl.fcntl(handle, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_ASYNC)
        self._take()  # what came before the signal was asked for

    def begin(self, ticket: int) -> None:
        """Say which attempt runs from now on. Tickets grow."""
        self._ticket = ticket
        for old in [asked for asked in self._asked if asked < ticket]:
            del self._asked[old]

    def allow(self, allowed: bool) -> None:
        """Say whether the attempt may be stopped from now on; it is stopped at once where that was asked for before."""
        self._allowed = allowed
        if allowed:
            self._strike()
        elif self._timer is not None:
            self._timer.cancel()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._take()
        self._strike()

    def _take(self) -> None:
        """Read the requests. They are whole, since pipes keep small writes together."""
        try:
            data = os.read(self._handle, 64 * STOP.size)
        except BlockingIOError:
            return
        self.ends = self.ends or not data
        for ticket, outcome in STOP.iter_unpack(data):
            self._asked[ticket] = STOP_OUTCOMES[outcome]

    def _strike(self) -> None:
        outcome = AttemptOutcome.CANCELLED if self.ends else self._asked.get(self._ticket)
        if self._allowed and outcome is not None:
            self._allowed = False
            self.ends = True
            self._timer = end_unless_stopped(self.attempt, outcome)
            raise StoppedError(outcome)


class _Worker:
    """The loop of a worker process."""

    def __init__(self, inbox: Inbox, results: int, guard: _StopGuard, limit: MemoryLimit) -> None:
        self._inbox = inbox
        self._results = results
        self._guard = guard
        self._limit = limit
        self._queue: deque[tuple[Any, ...]] = deque()
        self._stages: dict[int, StageOrder] = {}
        self._context: Mapping[str, str] = {}
        self._attached = ExitStack()

    def run(self) -> None:
        """Make attempts until there is nobody to make them for."""
        journal = RECORDER.journal()
        head = str(journal.directory / head_name(journal.journal)) if journal is not None else ""
        self._tell((READY, os.getpid(), head))
        ended: tuple[Any, ...] | None = None
        while not self._guard.ends:
            if self._queue:
                ticket, stage, *order = self._queue.popleft()
                ended = self._attempt(ended, ticket, self._stages[stage], AttemptOrder(*order))
                continue
            if ended is not None:
                self._tell(ended)
                ended = None
            if self._inbox.closed:
                return
            self.take(self._inbox.read())
        if ended is not None:
            self._tell(ended)

    def take(self, messages: Iterable[tuple[Any, ...]]) -> None:
        """Take in what the coordinator says: stages, and attempts of them."""
        for kind, *rest in messages:
            if kind == "stage":
                self._stages[rest[0]] = rest[1]
            else:
                self._queue.extend(rest[0])

    def _tell(self, *messages: tuple[Any, ...]) -> None:
        write_all(self._results, frame(messages))

    def _attempt(
        self, ended: tuple[Any, ...] | None, ticket: int, stage: StageOrder, order: AttemptOrder
    ) -> tuple[Any, ...]:
        """Make one attempt; tell how the last one ended and that this one begins, and return how this one ended."""
        self._belong_to(stage.context)
        # One write for the end of the last attempt and the begin of this one. It comes before the attempt is recorded,
        # so that no attempt is in the journal which the coordinator takes for one that never began.
        begun = (STARTED, ticket, time.time_ns())
        self._tell(begun) if ended is None else self._tell(ended, begun)
        self._guard.begin(ticket)
        with (
            mppobs.attempt(
                stage=stage.name, shard=order.name, attempt=order.number, speculative=order.speculative,
                assigned_ns=order.assigned_ns,
            ) as attempt,
            self._limit,
        ):  # fmt: skip
            self._guard.attempt = attempt
            report = run_attempt(stage, order, attempt, self._guard.allow)
        return pack_report(ticket, report)

    def _belong_to(self, context: Mapping[str, str]) -> None:
        """Have what follows recorded as part of this job."""
        if context != self._context:
            self._attached.close()
            self._attached.enter_context(mppobs.attach(context))
            self._context = context


def main(orders: Connection, results: Connection, stops: Connection) -> None:
    """Run a worker process until its coordinator closes the pipes or dies. It waits for its `WorkerSetup` first."""
    die_with_parent()
    # An interrupt at the terminal reaches the whole group: what is to be stopped then is the coordinator's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One lane is one core: threads of Arrow's own would compete with the other workers.
    pa.set_cpu_count(1)
    inbox = Inbox(orders.fileno())
    messages: list[Any] = []
    while not messages and not inbox.closed:
        messages += inbox.read()
    if not messages:
        return  # a spare that nobody needed
    setup: WorkerSetup = messages[0]
    mppobs.configure(**setup.recording)
    # Opened before there is anything to record: an attempt that is killed as it begins is then in the journal.
    RECORDER.journal()
    guard = _StopGuard(stops.fileno())
    try:
        # A broken pipe means that nobody is left to be told: the same as an end of the orders.
        with suppress(BrokenPipeError):
            worker = _Worker(inbox, results.fileno(), guard, MemoryLimit(setup.memory_bytes))
            worker.take(messages[1:])
            worker.run()
    finally:
        RECORDER.close()
