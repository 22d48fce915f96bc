"""The aggregator's own journal: what it decides from the passing of time is a record like any other."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Final

from mppobs.clock import Clock
from mppobs.journal.writer import JournalWriter
from mppobs.model import JobEvent, JobKey, JobRecord
from mppobs.sidecar.decide import Decision

REPEAT_SECONDS: Final = 10.0
"""After which a decision that has not come back through the journal is written again: the disk may have been full."""


class OwnJournal:
    """Writes decisions once each. The engine follows the journal like any other; a repeat in it changes nothing."""

    def __init__(self, writer: JournalWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._said: dict[JobKey, tuple[JobEvent, int]] = {}

    def say(self, found: Sequence[Decision], running: Container[JobKey]) -> int:
        """Write the decisions that are not on their way already. Return how many."""
        now = self._clock.monotonic_ns()
        self._said = {key: said for key, said in self._said.items() if key in running}
        new = [each for each in found if not self._is_said(each, now)]
        for each in new:
            context = replace(each.context, incarnation=each.key.incarnation, stage="", task="")
            number = self._writer.context_id(context)
            self._writer.append(JobRecord(each.event, number, each.time_ns, each.outcome, each.reason))
            self._said[each.key] = (each.event, now)
        return len(new)

    def close(self) -> None:
        """Write END; nothing can be decided any more."""
        self._writer.close()

    def _is_said(self, decision: Decision, now_ns: int) -> bool:
        event, at = self._said.get(decision.key, (None, 0))
        return event is decision.event and now_ns - at < REPEAT_SECONDS * 1e9
