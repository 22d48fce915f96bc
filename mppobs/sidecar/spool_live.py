"""What agents say runs below them: the newest word of each, for as long as it is fresh."""

from __future__ import annotations

import threading
from typing import Final

from mppobs.clock import Clock
from mppobs.model import Slot
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.schemas import JournalState, LiveReport

FRESH_NS: Final = 10_000_000_000
"""An agent reports every second; one that was silent for ten of them says nothing about now."""


class LiveReports:
    """Keeps the reports. Safe to use from any thread."""

    def __init__(self, clock: Clock, max_journals: int) -> None:
        self._clock = clock
        self._max_journals = max_journals
        self._lock = threading.Lock()
        self._reports: dict[str, tuple[int, list[LiveJournal]]] = {}
        self.refused = 0
        """Reports that were not kept since there are too many journals."""

    def report(self, report: LiveReport) -> None:
        """Replace what an agent said before."""
        journals = [_journal(state) for state in report.journals]
        now = self._clock.monotonic_ns()
        with self._lock:
            self._reports = {
                agent: kept
                for agent, kept in self._reports.items()
                if now - kept[0] < FRESH_NS and agent != report.agent
            }
            # An empty report takes room too, so each counts as one journal more.
            if sum(len(kept) + 1 for _, kept in self._reports.values()) + len(journals) >= self._max_journals:
                self.refused += 1
                return
            self._reports[report.agent] = (now, journals)

    def journals(self) -> list[LiveJournal]:
        """Return what runs, each journal once: the newest report that names it counts."""
        now = self._clock.monotonic_ns()
        with self._lock:
            # A report is put in anew each time, so the newest comes last.
            reports = [journals for told_ns, journals in self._reports.values() if now - told_ns < FRESH_NS]
        return list({journal.journal: journal for journals in reports for journal in journals}.values())


def _journal(state: JournalState) -> LiveJournal:
    slots = [Slot(**slot.model_dump()) for slot in state.slots]
    return LiveJournal(state.journal, state.alive, state.pid, slots)
