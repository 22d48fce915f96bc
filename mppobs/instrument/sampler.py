"""What the process uses, sampled on a timer rather than per attempt: CPU, memory, throttling, attempts in flight."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from mppobs.instrument.process import ProcessReader
from mppobs.journal import format as fmt
from mppobs.journal.writer import JournalWriter
from mppobs.model import SampleRecord

_log = logging.getLogger("mppobs")

_STOP_SECONDS: Final = 1.0
OVERLAP: Final = 2
"""How many times its lanes a process may run attempts at once before it is told that the lanes are wrong."""


class Sampler:
    """
    Writes a SAMPLE when it starts, every few seconds, and when it stops. A forked child starts its own.
    """

    def __init__(self, journal: JournalWriter, seconds: float, watchers: Sequence[Callable[[], None]] = ()) -> None:
        """Take what to sample into, how often, and what to call each time."""
        self.watchers = watchers
        self._journal = journal
        self._seconds = seconds
        self._reader = ProcessReader()
        self._warned = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take the first sample and start the timer; with an interval of 0 there is none."""
        self.sample()
        if self._seconds > 0:
            thread = threading.Thread(target=self._run, name="mppobs-sampler", daemon=True)
            with suppress(RuntimeError):  # no thread to be had: the first and the last sample must do
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        """Stop the timer and take the last sample."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)
        self.sample()

    def sample(self) -> None:
        """Write what the process has used so far."""
        journal = self._journal
        if journal.closed:
            return
        usage = self._reader.read()
        now = time.time_ns()
        starts = [slot.start_ns for slot in journal.running() if slot.identity & 0xFF == fmt.SLOT_ATTEMPT]
        self._compare(len(starts))
        in_flight = sum(max(now - start_ns, 0) for start_ns in starts)
        journal.peak_word = usage.peak_rss + 1
        journal.append(
            SampleRecord(
                context_id=journal.last_context,
                time_ns=now,
                cpu_ns=time.process_time_ns(),
                rss=usage.rss,
                peak_rss=usage.peak_rss,
                memory_limit=usage.memory_limit,
                throttled_ns=usage.throttled_ns,
                oom_kills=usage.oom_kills,
                in_flight_ns=in_flight,
            )
        )

    def _compare(self, running: int) -> None:
        """Warn once where attempts overlap so much more than was said that what they cost is far too high."""
        info = self._journal.info
        if running > OVERLAP * info.lanes and (info.dedicated or info.node_type) and not self._warned:
            self._warned = True
            _log.warning(
                "mppobs: %d attempts run at once and each is billed 1/%d of the node: set MPPOBS_LANES "
                "or configure(lanes=...) to how many run at once",
                running,
                info.lanes,
            )

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.sample()
            for advance in self.watchers:
                advance()
