"""
SLOs and what they have counted: facts in, new counts out. Pure: no clock and no file, time is an argument.

The aggregator feeds it what it commits; `mppobs slo replay` feeds it what was archived. Each fact is judged once, by
`mppobs.slo.indicators`, and is counted at the time it became known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from mppobs.slo.history import History, slot_of
from mppobs.slo.indicators import (
    NOTHING,
    JobFacts,
    MinuteFacts,
    ShardFacts,
    judge_job,
    judge_minute,
    judge_shards,
)
from mppobs.slo.model import Counts, IndicatorKind, Slo

MAX_MARKS: Final = 50
"""Changes of an objective that are remembered; the oldest is forgotten first."""


class Mark(NamedTuple):
    """A change of an objective: the counts go on, the budget is another."""

    time_ns: int
    before: Fraction
    after: Fraction


@dataclass(slots=True, eq=False)
class Tally:
    """What one SLO has counted. It outlives the SLO: one that comes back goes on where it was."""

    name: str
    definition: str
    """See `definition`."""
    objective: Fraction
    start_ns: int
    """When this revision began to count, at 0."""
    revision: int = 1
    """How many definitions of its events there have been."""
    counts: Counts = NOTHING
    latched: bool = False
    """Whether its newest event was bad."""
    retired_ns: int = 0
    """Since when no file has had it; 0 while one does."""
    marks: list[Mark] = field(default_factory=list)
    history: History = field(default_factory=History)

    def add(self, events: Counts, time_ns: int) -> None:
        """Count events that became known at a time."""
        self.counts += events
        self.latched = events.bad > 0
        newest = self.history.newest
        # A clock that was set back must not stop the counting.
        slot = slot_of(time_ns) if newest is None else max(slot_of(time_ns), newest.slot)
        self.history.put(slot, self.counts)


def definition(slo: Slo) -> str:
    """
    Return a name for what an SLO's events are: whatever it is hashed from changes what is counted, nothing else does.

    >>> one = Slo("t", "n", IndicatorKind.ON_TIME, Fraction(99, 100), 30, "p")
    >>> two = Slo("t", "n", IndicatorKind.ON_TIME, Fraction(95, 100), 28, "p", owner="o")
    >>> definition(one) == definition(two), definition(one) == definition(Slo("t", "n", one.indicator, 0, 30, "q"))
    (True, False)
    """
    parts: list[object] = [slo.indicator, slo.pipeline, slo.tenant, slo.stage, sorted(slo.exclude)]
    for bound in fields(slo.bounds):
        value = getattr(slo.bounds, bound.name)
        parts.append(f"{value.normalize():f}" if isinstance(value, Decimal) else value)
    if slo.indicator is IndicatorKind.SPEND:
        parts += [slo.period_days, str(slo.objective)]  # a minute's share of the events depends on them
    text = json.dumps(parts, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Evaluator:
    """
    SLOs with their tallies. `tallies` also holds those of SLOs that are not watched any more.

    >>> from mppobs.model import JobOutcome, RunKind
    >>> evaluator = Evaluator()
    >>> evaluator.watch([Slo("t", "ok", IndicatorKind.JOB_SUCCESS, Fraction(99, 100), 30, "nightly")], 0)
    >>> evaluator.job(JobFacts("nightly", "default", RunKind.SCHEDULED, JobOutcome.FAILURE, 0, 1), 1)
    >>> [(tally.name, tally.counts) for tally in evaluator.changed()]
    [('t/ok', Counts(total=1, bad=1))]
    """

    def __init__(self, tallies: Iterable[Tally] = ()) -> None:
        self.tallies = {tally.name: tally for tally in tallies}
        self.slos: tuple[Slo, ...] = ()
        self._by_pipeline: dict[str, list[Slo]] = {}
        self._changed: set[str] = set()

    def watch(self, slos: Iterable[Slo], now_ns: int) -> None:
        """
        Watch these SLOs from now on, and no others.

        A new one begins at 0. One whose objective changed keeps its counts and gets a mark; one whose events are
        defined anew begins again at 0, as a new revision.
        """
        self.slos = tuple(slos)
        self._by_pipeline = {}
        for slo in self.slos:
            self._by_pipeline.setdefault(slo.pipeline, []).append(slo)
            self._take_up(slo, now_ns)
        watched = {slo.full_name for slo in self.slos}
        for tally in self.tallies.values():
            if (tally.name in watched) == bool(tally.retired_ns):
                tally.retired_ns = 0 if tally.name in watched else now_ns
                self._changed.add(tally.name)

    def prune(self, before_ns: int) -> list[str]:
        """Forget SLOs that no file has had since a time, and return their names. One that comes back begins anew."""
        gone = [tally.name for tally in self.tallies.values() if 0 < tally.retired_ns < before_ns]
        for name in gone:
            del self.tallies[name]
            self._changed.discard(name)
        return gone

    def watching(self, pipeline: str) -> list[Slo]:
        """Return the watched SLOs on a pipeline."""
        return self._by_pipeline.get(pipeline, [])

    def tally(self, slo: Slo) -> Tally:
        """Return what a watched SLO has counted."""
        return self.tallies[slo.full_name]

    def job(self, facts: JobFacts, time_ns: int) -> None:
        """Judge a finished job."""
        for slo in self._by_pipeline.get(facts.pipeline, ()):
            self._count(slo, judge_job(slo, facts), time_ns)

    def shards(self, facts: ShardFacts, time_ns: int) -> None:
        """Judge decided shards."""
        for slo in self._by_pipeline.get(facts.pipeline, ()):
            self._count(slo, judge_shards(slo, facts), time_ns)

    def minute(self, facts: MinuteFacts, time_ns: int) -> None:
        """Judge a minute that has passed. Its tenant is that of the SLO: empty for the sum over all of them."""
        for slo in self._by_pipeline.get(facts.pipeline, ()):
            if slo.tenant == facts.tenant:
                self._count(slo, judge_minute(slo, facts), time_ns)

    def changed(self) -> list[Tally]:
        """Return the tallies that changed since `saved` was called last, by name."""
        return [self.tallies[name] for name in sorted(self._changed)]

    def saved(self) -> None:
        """Take it that everything that changed has been written down."""
        self._changed = set()

    def thin(self, now_ns: int, *, part: int = 0, parts: int = 1) -> Mapping[str, list[int]]:
        """Thin every history, or one part of them; return the slots that are gone, by name."""
        chosen = list(self.tallies.items())[part::parts]
        gone = {name: tally.history.thin(slot_of(now_ns)) for name, tally in chosen}
        return {name: slots for name, slots in gone.items() if slots}

    def _count(self, slo: Slo, events: Counts, time_ns: int) -> None:
        if events.total:
            self.tallies[slo.full_name].add(events, time_ns)
            self._changed.add(slo.full_name)

    def _take_up(self, slo: Slo, now_ns: int) -> None:
        """Give an SLO its tally: a new one, the one it had, or the next revision."""
        name, events = slo.full_name, definition(slo)
        known = self.tallies.get(name)
        if known is None or known.definition != events:
            revision = known.revision + 1 if known else 1
            self.tallies[name] = Tally(name, events, slo.objective, now_ns, revision)
        elif known.objective != slo.objective:
            known.marks = [*known.marks, Mark(now_ns, known.objective, slo.objective)][-MAX_MARKS:]
            known.objective = slo.objective
        else:
            return
        self._changed.add(name)
