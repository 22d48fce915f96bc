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
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final

import pyarrow as pa

import mppobs
from mppobs.executor.attempt import AttemptOrder, Report, StageOrder, StoppedError, run_attempt
from mppobs.executor.backends.memory import MemoryLimit
from mppobs.executor.backends.wire import Inbox, frame, write_all
from mppobs.executor.shuffle import Output
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


def pack_report(ticket: int, report: Report) -> bytes:
    """Return a report as a frame of plain values, which are pickled several times as fast as enumerations."""
    output = None if report.output is None else tuple(report.output)
    plain = report._replace(output=None)[2:]
    return frame((ENDED, ticket, report.outcome.value, report.reason.value, output, *plain))


def unpack_report(message: tuple[Any, ...]) -> Report:
    """Return the report that `pack_report` packed, from its decoded frame."""
    _, _, outcome, reason, output, *plain = message
    report = Report(AttemptOutcome(outcome), Reason(reason), *plain)
    return report if output is None else report._replace(output=Output(*output))


class _StopGuard:
    """Raises `StoppedError` in the main thread when the attempt that runs there is to end early."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._ticket = 0
        self._allowed = False
        self._asked: dict[int, AttemptOutcome] = {}
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
            raise StoppedError(outcome)


class _Worker:
    """The loop of a worker process."""

    def __init__(
        self, inbox: Inbox, queue: deque[tuple[Any, ...]], results: int, guard: _StopGuard, limit: MemoryLimit
    ) -> None:
        self._inbox = inbox
        self._results = results
        self._guard = guard
        self._limit = limit
        self._queue = queue
        self._stages: dict[int, StageOrder] = {}
        self._context: Mapping[str, str] = {}
        self._attached = ExitStack()

    def run(self) -> None:
        """Make attempts until there is nobody to make them for."""
        journal = RECORDER.journal()
        head = str(journal.directory / head_name(journal.journal)) if journal is not None else ""
        write_all(self._results, frame((READY, os.getpid(), head)))
        told = b""
        while not self._guard.ends:
            if not self._queue:
                if told:
                    write_all(self._results, told)
                    told = b""
                self._queue.extend(self._inbox.read())
                if self._inbox.closed:
                    return
                continue
            kind, *rest = self._queue.popleft()
            if kind == "stage":
                self._stages[rest[0]] = rest[1]
            else:
                ticket, stage, *order = rest
                told = self._attempt(told, ticket, self._stages[stage], AttemptOrder(*order))
        write_all(self._results, told)

    def _attempt(self, told: bytes, ticket: int, stage: StageOrder, order: AttemptOrder) -> bytes:
        """Make one attempt; write `told` with the news that it begins, and return the news that it ended."""
        self._belong_to(stage.context)
        # One write for the end of the last attempt and the begin of this one. It comes before the attempt is recorded,
        # so that no attempt is in the journal which the coordinator takes for one that never began.
        write_all(self._results, told + frame((STARTED, ticket, time.time_ns())))
        self._guard.begin(ticket)
        with (
            mppobs.attempt(
                stage=stage.name, shard=order.name, attempt=order.number, assigned_ns=order.assigned_ns
            ) as attempt,
            self._limit,
        ):
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
    # An interrupt at the terminal reaches the whole group: what is to be stopped then is the coordinator's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One lane is one core: threads of Arrow's own would compete with the other workers.
    pa.set_cpu_count(1)
    inbox = Inbox(orders.fileno())
    queue: deque[Any] = deque()
    while not queue:
        queue.extend(inbox.read())
        if inbox.closed and not queue:
            return  # a spare that nobody needed
    setup: WorkerSetup = queue.popleft()
    mppobs.configure(**setup.recording)
    # Opened before there is anything to record: an attempt that is killed as it begins is then in the journal.
    RECORDER.journal()
    guard = _StopGuard(stops.fileno())
    try:
        # A broken pipe means that nobody is left to be told: the same as an end of the orders.
        with suppress(BrokenPipeError):
            _Worker(inbox, queue, results.fileno(), guard, MemoryLimit(setup.memory_bytes)).run()
    finally:
        RECORDER.close()
