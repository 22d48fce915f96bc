"""
How an SLO stands: budget left, burn per window, how long it lasts, and what a month was. Arithmetic on its tally.

The period rolls, or follows the calendar month (UTC) where the SLO says so. Nothing here needs Prometheus, and what
Prometheus computes from the counters must come to the same: both subtract counts at two moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from mppobs.errors import ConfigError
from mppobs.slo.budget import allowed_bad, burn_rate, seconds_to_exhaustion
from mppobs.slo.evaluate import Tally
from mppobs.slo.history import begin_of, first_slot, minus, slot_of
from mppobs.slo.model import Counts, IndicatorKind, Slo
from mppobs.slo.windows import DAY, WINDOWS

PACE_WINDOWS: Final = (1 * DAY, 3 * DAY)
"""The forecast goes by the first of these that holds any event."""


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time with its budget."""

    start_ns: int
    """When it begins, or when counting began where that is later."""
    end_ns: int
    counts: Counts
    allowed: Fraction
    """How many events of it may be bad; of as many as are expected where more are to come."""

    @property
    def bad_left(self) -> Fraction:
        """Return how many more events may be bad; below 0 where too many were."""
        return self.allowed - self.counts.bad

    @property
    def budget_left(self) -> Fraction:
        """Return the share of the budget that is left; below 0 where it is overspent, 1 where there is no event."""
        if self.allowed:
            return 1 - self.counts.bad / self.allowed
        return Fraction(1 - self.counts.bad)


@dataclass(frozen=True, slots=True)
class Burn:
    """A window that ends now."""

    counts: Counts
    rate: Fraction


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that is said of an SLO at one moment."""

    period: Period
    burns: Mapping[int, Burn]
    """By window in seconds, the alerting ones, shortest first."""
    exhausted_in: float | None
    """Seconds until nothing is left, at the pace of the last day with events; `None` where it does not shrink."""


def standing(slo: Slo, tally: Tally, now_ns: int) -> Standing:
    """Return how an SLO stands."""
    burns = {seconds: _burn(slo, window(tally, now_ns, seconds)) for seconds in WINDOWS}
    period = current_period(slo, tally, now_ns)
    pace = next((burns[seconds].rate for seconds in PACE_WINDOWS if burns[seconds].counts.total), Fraction(0))
    left = seconds_to_exhaustion(period.budget_left, pace, slo.period_days * DAY)
    return Standing(period, burns, left)


def window(tally: Tally, now_ns: int, seconds: int) -> Counts:
    """Return the events of a window that ends now; see `mppobs.slo.history.first_slot` for where it begins."""
    return minus(tally.counts, tally.history.before(first_slot(now_ns, seconds)))


def current_period(slo: Slo, tally: Tally, now_ns: int) -> Period:
    """Return the period that the budget is for: the last `period_days`, or this month of the calendar."""
    if slo.calendar:
        return _month(slo, tally, datetime.fromtimestamp(now_ns // 10**9, UTC), now_ns)
    first = first_slot(now_ns, slo.period_days * DAY)
    counts = minus(tally.counts, tally.history.before(first))
    return Period(max(begin_of(first), tally.start_ns), now_ns, counts, _allowed(slo, counts, slo.period_days))


def month(slo: Slo, tally: Tally, name: str, now_ns: int) -> Period:
    """
    Return a month of the calendar (UTC), named `YYYY-MM`, up to now at the latest.

    Raises ConfigError for what is no month, or one that has not begun.
    """
    try:
        start = datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{name[:20]!r} is no month: write 2026-01") from None
    if _ns(start) > now_ns:
        raise ConfigError(f"{name} has not begun")
    return _month(slo, tally, start, now_ns)


def _month(slo: Slo, tally: Tally, inside: datetime, now_ns: int) -> Period:
    start = inside.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    counts = minus(_until(tally, _ns(end), now_ns), tally.history.before(slot_of(_ns(start))))
    allowed = _allowed(slo, counts, (end - start).days)
    last = min(_ns(end), now_ns)
    return Period(min(max(_ns(start), tally.start_ns), last), last, counts, allowed)


def _until(tally: Tally, end_ns: int, now_ns: int) -> Counts:
    return tally.counts if end_ns > now_ns else tally.history.before(slot_of(end_ns))


def _burn(slo: Slo, counts: Counts) -> Burn:
    return Burn(counts, burn_rate(counts, slo.objective) if slo.objective < 1 else Fraction(0))


def _allowed(slo: Slo, counts: Counts, days: int) -> Fraction:
    """Return how many events may be bad in so many days: of those that came, or of those expected if that is more."""
    expected = Fraction(slo.expected_events * days, slo.period_days)
    if slo.indicator is IndicatorKind.SPEND and slo.bounds.usd_per_period is not None:
        expected = Fraction(slo.bounds.usd_per_period) * 100 * days / slo.period_days / slo.budget
    return max(allowed_bad(counts.total, slo.objective), expected * (1 - slo.objective))


def _ns(time: datetime) -> int:
    return int(time.timestamp()) * 10**9
