"""
Objectives that the history of a pipeline supports, with their budgets in events that people can picture.

What is suggested is the strictest step of a ladder that the history would have kept with half of its budget left: a
promise that is broken in its first month teaches nobody anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from mppobs.model import JobOutcome, RunKind
from mppobs.slo.budget import allowed_bad, is_sparse
from mppobs.slo.lint import legs_of
from mppobs.slo.model import Bounds, Counts, EventUnit, IndicatorKind, Slo
from mppobs.slo.replay import Past, replay

LADDER: Final = tuple(
    Fraction(step) / 100 for step in ("99.99", "99.95", "99.9", "99.5", "99", "98", "95", "90", "80", "50")
)
"""Objectives that are suggested, strictest first."""
MIN_RUNS: Final = 10
"""With fewer runs nothing is said of a pipeline."""
SLACK: Final = 2
"""The budget is so many times what the history spent."""
_ROUND: Final = (1, 2, 5, 10, 15, 20, 30, 45, 60)
_LEFT_OUT: Final = (RunKind.BACKFILL, RunKind.DRILL)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One objective that a pipeline could promise."""

    slo: Slo
    counts: Counts
    """What the history had."""
    days: float
    """How long it is."""

    @property
    def budget(self) -> Fraction:
        """Return how many events of a period may be bad, at the rate of the history."""
        return allowed_bad(_in_period(self.counts, self.days, self.slo.period_days), self.slo.objective)

    @property
    def can_alert(self) -> bool:
        """
        Return whether each of its alerts can fire; what cannot is refused by `mppobs generate`.

        An objective that is far below 100 % is not: even an outage burns its budget too slowly for the fast alerts.
        """
        legs = legs_of(self.slo)
        return is_sparse(self.slo) or all(leg.reachable(self.slo.objective, self.slo.period_days) for leg in legs)


def suggest(history: Sequence[Past], now_ns: int, *, team: str = "team", period_days: int = 30) -> list[Suggestion]:
    """Return what the pipelines of a history could promise, by pipeline; drills and backfills are left out."""
    pipelines: dict[str, list[Past]] = {}
    for past in history:
        if past.job.run_kind not in _LEFT_OUT and past.job.outcome is not JobOutcome.CANCELLED:
            pipelines.setdefault(past.job.pipeline, []).append(past)
    found: list[Suggestion] = []
    for pipeline, runs in sorted(pipelines.items()):
        if len(runs) >= MIN_RUNS:
            days = max(1.0, (now_ns - min(run.time_ns for run in runs)) / 86_400e9)
            for indicator, bounds in _candidates(runs):
                slo = Slo(team, f"{pipeline}-{indicator}", indicator, LADDER[0], period_days, pipeline, bounds=bounds)
                found += _strictest(slo, runs, now_ns, days)
    return found


def _candidates(runs: Iterable[Past]) -> list[tuple[IndicatorKind, Bounds]]:
    """Return the indicators that a pipeline can have, with a bound that nine in ten of its good runs keep well."""
    seconds = sorted(
        (run.job.end_ns - run.job.submit_ns) / 1e9 for run in runs if run.job.outcome is JobOutcome.SUCCESS
    )
    found = [(IndicatorKind.JOB_SUCCESS, Bounds()), (IndicatorKind.SHARD_SUCCESS, Bounds())]
    if seconds:
        usual = seconds[-(-len(seconds) * 9 // 10) - 1]
        found.append((IndicatorKind.ON_TIME, Bounds(deadline_seconds=Decimal(rounded_up(usual * 1.25)))))
    return found


def _strictest(slo: Slo, runs: Sequence[Past], now_ns: int, days: float) -> list[Suggestion]:
    """Return the strictest objective that the runs keep with room to spare, if there is one."""
    (replayed,) = replay([slo], runs, now_ns)
    counts = replayed.counts
    for objective in LADDER if counts.total else ():
        budget = allowed_bad(counts.total, objective)
        if counts.bad * SLACK <= budget and budget >= 1:
            chosen = Slo(
                slo.team, slo.name, slo.indicator, objective, slo.period_days, slo.pipeline, bounds=slo.bounds,
                exclude=_LEFT_OUT,
                expected_events=_in_period(counts, days, slo.period_days) if slo.unit is EventUnit.JOB else 0,
            )  # fmt: skip
            return [Suggestion(chosen, counts, days)]
    return []


def _in_period(counts: Counts, days: float, period_days: int) -> int:
    """Return how many events a period has at the rate of the history."""
    return round(counts.total / days * period_days)


def rounded_up(seconds: float) -> int:
    """
    Return a duration that people would write: the next of 1, 2, 5, 10, 15, 20, 30, 45 seconds, minutes, or an hour.

    >>> rounded_up(3.2), rounded_up(61), rounded_up(1300), rounded_up(8000)
    (5, 120, 1800, 10800)
    """
    for unit in (1, 60):
        for step in _ROUND:
            if seconds <= step * unit:
                return step * unit
    return -int(-seconds // 3600) * 3600
