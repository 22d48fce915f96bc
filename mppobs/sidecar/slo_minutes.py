"""
Minutes as SLOs see them: how fresh a pipeline's newest success is, how long attempts waited, what was spent.

What the minute that goes on has seen is kept with the counts, so that a restart in its middle changes nothing. Minutes
in which the aggregator did not run are no events, since nobody looked; only money has its share of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mppobs.model import JobOutcome
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals
from mppobs.sidecar.fold_ledger import Delays
from mppobs.sidecar.store_jobs import JobSummary
from mppobs.slo.indicators import MinuteFacts
from mppobs.slo.model import EventUnit, IndicatorKind, Slo

MINUTE_NS: Final = 60 * 10**9
MAX_MISSED: Final = 400 * 1440
"""Minutes that are made up for after a pause."""
_CENT: Final = 10**10
"""In picodollars."""


class Subject(NamedTuple):
    """Whose minutes: a pipeline's, of one tenant or, where that is empty, of all."""

    pipeline: str
    tenant: str


Lags = Mapping[PipelineKey, float | None]
"""Seconds since the last checkpoint of the running job that is worst off, by pipeline."""


@dataclass(slots=True)
class _Seen:
    """What is known of one subject."""

    success_ns: int
    """End of its newest successful job; 0 for never."""
    cents: int
    """Spent so far and counted."""
    starts: int = 0
    """In the minute that goes on, as the next."""
    worst_ns: int = 0


@dataclass(slots=True)
class Minutes:
    """The minutes of every subject that an SLO asks for."""

    closed: int = 0
    """The newest minute that was judged, since the epoch; 0 for none."""
    seen: dict[Subject, _Seen] = field(default_factory=dict)
    changed: bool = False
    """Whether there is anything that is not saved; whoever saves it says so here."""
    lagging: frozenset[str] = frozenset()
    """Pipelines whose checkpoints somebody asks for."""
    waiting: frozenset[str] = frozenset()
    """Pipelines whose scheduler somebody asks for."""

    @classmethod
    def restored(cls, text: str | None) -> Minutes:
        """Return what `saved` was made of; nothing where there is nothing. Raises `ValueError` for anything else."""
        if text is None:
            return cls()
        data = json.loads(text)
        return cls(data["closed"], {Subject(*subject): _Seen(*seen) for subject, seen in data["seen"]})

    def saved(self) -> str:
        """Return everything as text."""
        seen = [
            [subject, [each.success_ns, each.cents, each.starts, each.worst_ns]] for subject, each in self.seen.items()
        ]
        return json.dumps({"closed": self.closed, "seen": seen}, separators=(",", ":"), ensure_ascii=False)

    def watch(
        self,
        slos: Iterable[Slo],
        now_ns: int,
        last_success: Callable[[str, str], int],
        totals: Mapping[PipelineKey, PipelineTotals],
    ) -> None:
        """Keep minutes for these SLOs. A subject that is new begins with what is known of it."""
        timed = [slo for slo in slos if slo.unit in (EventUnit.MINUTE, EventUnit.CENT)]
        self.lagging = _asked(timed, IndicatorKind.CHECKPOINT_LAG)
        self.waiting = _asked(timed, IndicatorKind.SCHEDULER_LATENCY)
        subjects = dict.fromkeys(Subject(slo.pipeline, slo.tenant) for slo in timed)
        if not self.seen:
            self.closed = now_ns // MINUTE_NS - 1
        for subject in [subject for subject in self.seen if subject not in subjects]:
            del self.seen[subject]
            self.changed = True
        for subject in subjects:
            if subject not in self.seen:
                self.seen[subject] = _Seen(last_success(*subject), _cents(totals, subject))
                self.changed = True

    def jobs(self, jobs: Iterable[JobSummary]) -> None:
        """Note successes among jobs that were decided."""
        for job in jobs:
            if job.outcome is JobOutcome.SUCCESS:
                for seen in self._of(job.pipeline, job.key.tenant):
                    if job.end_ns > seen.success_ns:
                        seen.success_ns, self.changed = job.end_ns, True

    def delays(self, delays: Mapping[tuple[str, str], Delays]) -> None:
        """Note how long attempts waited for their start."""
        for (pipeline, tenant), found in delays.items():
            for seen in self._of(pipeline, tenant):
                seen.starts += found.starts
                seen.worst_ns = max(seen.worst_ns, found.worst_ns)
                self.changed = True

    def is_due(self, now_ns: int) -> bool:
        """Return whether a minute has passed that nobody has judged."""
        return bool(self.seen) and now_ns // MINUTE_NS - 1 > self.closed

    def close(self, now_ns: int, totals: Mapping[PipelineKey, PipelineTotals], lags: Lags) -> Iterator[MinuteFacts]:
        """Yield the facts of the minute that just passed, and before it the bare passing of those that were missed."""
        passed = now_ns // MINUTE_NS - 1
        first = max(self.closed + 1, passed - MAX_MISSED)
        for subject, seen in self.seen.items():
            for minute in range(first, passed):
                yield MinuteFacts(*subject, minute)
            cents = _cents(totals, subject)
            yield MinuteFacts(
                *subject, passed, seen.success_ns, seen.starts, seen.worst_ns / 1e9, _worst(lags, subject),
                max(0, cents - seen.cents),
            )  # fmt: skip
            seen.cents, seen.starts, seen.worst_ns = max(cents, seen.cents), 0, 0
        self.closed, self.changed = passed, True

    def _of(self, pipeline: str, tenant: str) -> Iterator[_Seen]:
        for subject in (Subject(pipeline, ""), Subject(pipeline, tenant)):
            if subject in self.seen:
                yield self.seen[subject]


def _asked(slos: Iterable[Slo], indicator: IndicatorKind) -> frozenset[str]:
    return frozenset(slo.pipeline for slo in slos if slo.indicator is indicator)


def _covers(subject: Subject, key: PipelineKey) -> bool:
    return subject.pipeline == key.pipeline and subject.tenant in ("", key.tenant)


def _cents(totals: Mapping[PipelineKey, PipelineTotals], subject: Subject) -> int:
    """Return what a subject has spent since the store was made, in whole cents."""
    return sum(sum(each.cost_pusd.values()) for key, each in totals.items() if _covers(subject, key)) // _CENT


def _worst(lags: Lags, subject: Subject) -> float | None:
    found = [lag for key, lag in lags.items() if lag is not None and _covers(subject, key)]
    return max(found, default=None)
