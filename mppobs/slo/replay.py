"""
What SLOs would have been over jobs that are past: the same judgement as the aggregator's, on what it archived.

Jobs and their shards can be replayed. Minutes, money and queries cannot: what they look at leaves no record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mppobs.slo.budget import burn_rate
from mppobs.slo.evaluate import Evaluator
from mppobs.slo.history import SLOTS_PER_DAY, begin_of, slot_of
from mppobs.slo.indicators import JobFacts, ShardFacts
from mppobs.slo.model import Counts, EventUnit, Slo
from mppobs.slo.standing import Period, current_period


@dataclass(frozen=True, slots=True)
class Past:
    """A job that was judged, with its shards by stage."""

    time_ns: int
    """When it was judged."""
    job: JobFacts
    shards: tuple[ShardFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one SLO would have been."""

    slo: Slo
    counts: Counts
    """Over all of the history."""
    period: Period
    """The budget at its end."""
    worst_day_ns: int
    """Begin of the day (UTC) that burnt fastest; 0 where there was no event."""
    worst_burn: Fraction


def can_replay(slo: Slo) -> bool:
    """Return whether an SLO is about what is archived."""
    return slo.unit in (EventUnit.JOB, EventUnit.SHARD)


def replay(slos: Sequence[Slo], history: Iterable[Past], now_ns: int) -> list[Replayed]:
    """
    Return what each SLO that can be replayed would have been by now.

    >>> from fractions import Fraction
    >>> from mppobs.model import JobOutcome, RunKind
    >>> from mppobs.slo.model import IndicatorKind
    >>> slo = Slo("t", "ok", IndicatorKind.JOB_SUCCESS, Fraction(1, 2), 30, "nightly")
    >>> run = JobFacts("nightly", "default", RunKind.SCHEDULED, JobOutcome.FAILURE, 0, 1)
    >>> replay([slo], [Past(5, run)], 10)[0].counts
    Counts(total=1, bad=1)
    """
    ordered = sorted(history, key=lambda past: past.time_ns)
    evaluator = Evaluator()
    chosen = [slo for slo in slos if can_replay(slo)]
    evaluator.watch(chosen, ordered[0].time_ns if ordered else now_ns)
    days: dict[int, dict[str, Counts]] = {}
    for past in ordered:
        evaluator.job(past.job, past.time_ns)
        for facts in past.shards:
            evaluator.shards(facts, past.time_ns)
        day = slot_of(past.time_ns) // SLOTS_PER_DAY
        days[day] = {slo.full_name: evaluator.tally(slo).counts for slo in chosen}
    return [_replayed(slo, evaluator, days, now_ns) for slo in chosen]


def _replayed(slo: Slo, evaluator: Evaluator, days: dict[int, dict[str, Counts]], now_ns: int) -> Replayed:
    """Return the outcome for one SLO, from its counts at the end of each day."""
    before, worst, fastest = Counts(0, 0), 0, Fraction(0)
    for day, counts in days.items():
        now = counts[slo.full_name]
        burn = burn_rate(Counts(now.total - before.total, now.bad - before.bad), slo.objective) if slo.budget else 0
        if burn > fastest:
            worst, fastest = begin_of(day * SLOTS_PER_DAY), Fraction(burn)
        before = now
    tally = evaluator.tally(slo)
    return Replayed(slo, tally.counts, current_period(slo, tally, now_ns), worst, fastest)
