"""Error budgets as arithmetic on counts: exact, and free of clocks and files."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from mppobs.slo.model import Counts, EventUnit, Slo

SPARSE_EVENTS: Final = 3
"""A period's budget of fewer events is no rate: such an SLO alerts on a latched state instead."""


def burn_rate(counts: Counts, objective: Fraction) -> Fraction:
    """
    Return how many times faster than allowed the budget is being spent.

    1 spends exactly the whole budget by the end of the period. No events is a burn rate of 0: silence is the
    absence alert's business, not this one's.

    >>> burn_rate(Counts(1000, 2), Fraction("0.999"))
    Fraction(2, 1)
    """
    if counts.total == 0:
        return Fraction(0)
    return Fraction(counts.bad, counts.total) / (1 - objective)


def allowed_bad(total: int, objective: Fraction) -> Fraction:
    """
    Return how many of `total` events may be bad.

    >>> allowed_bad(30, Fraction("0.95"))
    Fraction(3, 2)
    """
    return total * (1 - objective)


def budget_left(counts: Counts, objective: Fraction) -> Fraction:
    """
    Return the share of the budget that is left of a period with these events; negative where it is overspent.

    A period without events has its whole budget.

    >>> budget_left(Counts(1000, 1), Fraction("0.998"))
    Fraction(1, 2)
    """
    if counts.total == 0:
        return Fraction(1)
    return 1 - burn_rate(counts, objective)


def bad_events_left(counts: Counts, objective: Fraction, expected_total: int) -> Fraction:
    """
    Return how many more events may be bad in a period that is expected to see `expected_total` of them.

    This is the figure to say to people: "you may miss 3 more nightly loads this quarter".

    >>> bad_events_left(Counts(60, 1), Fraction("0.95"), expected_total=90)
    Fraction(7, 2)
    """
    return allowed_bad(max(expected_total, counts.total), objective) - counts.bad


def seconds_to_exhaustion(left: Fraction, rate: Fraction, period_seconds: int) -> float | None:
    """
    Return how long the budget lasts at a burn rate; `None` where it does not shrink.

    >>> seconds_to_exhaustion(Fraction(1, 2), Fraction(10), 30 * 86400)
    129600.0
    """
    if left <= 0:
        return 0.0
    if rate <= 0:
        return None
    return float(left * period_seconds / rate)


def is_sparse(slo: Slo) -> bool:
    """
    Return whether the budget of a period is too few events for a rate to mean anything.

    Jobs whose number nobody stated count as one a day.
    """
    expected = slo.expected_events or (slo.period_days if slo.unit is EventUnit.JOB else 0)
    return bool(expected) and allowed_bad(expected, slo.objective) < SPARSE_EVENTS
