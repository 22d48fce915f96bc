"""
The alerting windows, in one table with their source, and the arithmetic on them.

Multi-window, multi-burn-rate alerting as in the Google SRE Workbook, chapter 5, table 5-8: a leg fires when both its
long and its short window burn faster than its factor. The factor is not typed but follows from the share of the
period's budget that the long window may consume: `factor = share × period ÷ long window`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from mppobs.model import Severity, Tier

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Leg:
    """One pair of windows."""

    name: str
    """The value of the `leg` label."""
    long_seconds: int
    short_seconds: int
    """A twelfth of the long one, so that the alert resets soon after the burn stops."""
    severity: Severity
    share: Fraction | None
    """Of the period's budget, consumed in the long window when the leg fires; `None` where `pace` is given instead."""
    pace: Fraction | None = None
    """A burn rate that is wanted as such."""
    min_bad: int = 2
    """Bad events that the long window must hold: one failure is no trend."""
    tiers: tuple[Tier, ...] = (Tier.CRITICAL, Tier.STANDARD, Tier.BESTEFFORT)

    def factor(self, period_days: int) -> Fraction:
        """
        Return the burn rate at which the leg fires, for a budget period in days.

        >>> [str(leg.factor(30)) for leg in LEGS]
        ['72/5', '6', '3', '2', '1']
        >>> LEGS[0].factor(28)
        Fraction(336, 25)
        """
        if self.pace is not None:
            return self.pace
        if self.share is None:
            raise ValueError(f"leg {self.name!r} has neither share nor pace")
        return self.share * period_days * DAY / self.long_seconds

    def consumed(self, period_days: int) -> Fraction:
        """
        Return the share of the period's budget that is gone when the long window burns at just this leg's factor.

        >>> LEGS[3].consumed(30)
        Fraction(1, 15)
        """
        return self.factor(period_days) * self.long_seconds / (period_days * DAY)

    def reachable(self, objective: Fraction, period_days: int) -> bool:
        """
        Return whether any error rate can fire the leg: a rate above 1 does not exist.

        >>> LEGS[0].reachable(Fraction("0.999"), 30), LEGS[0].reachable(Fraction("0.9"), 30)
        (True, False)
        """
        return self.factor(period_days) * (1 - objective) < 1


LEGS: Final[tuple[Leg, ...]] = (
    Leg("fast", 1 * HOUR, 5 * MINUTE, Severity.PAGE, Fraction(2, 100)),
    Leg("medium", 6 * HOUR, 30 * MINUTE, Severity.PAGE, Fraction(5, 100)),
    Leg("slow", 1 * DAY, 2 * HOUR, Severity.TICKET, Fraction(10, 100)),
    Leg("pace", 1 * DAY, 2 * HOUR, Severity.PAGE, None, pace=Fraction(2), tiers=(Tier.CRITICAL,)),
    Leg("steady", 3 * DAY, 6 * HOUR, Severity.TICKET, Fraction(10, 100)),
)
"""Rows 1, 2, 3 and 5: SRE Workbook, table 5-8. Row 4: a critical budget that burns at twice its pace pages."""

WINDOWS: Final[tuple[int, ...]] = tuple(sorted({w for leg in LEGS for w in (leg.short_seconds, leg.long_seconds)}))
"""Every window in seconds, shortest first."""


def window_name(seconds: int) -> str:
    """
    Return a window as Prometheus writes it.

    >>> [window_name(w) for w in WINDOWS]
    ['5m', '30m', '1h', '2h', '6h', '1d', '3d']
    """
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
