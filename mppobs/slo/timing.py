"""How fast each leg of an SLO notices errors, and how fast it lets go: by formula, for rates that people ask about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from mppobs.catalog.alerts import BY_NAME
from mppobs.model import Severity
from mppobs.slo.budget import is_sparse
from mppobs.slo.diff import detection_seconds, fires_at, latched_severity, spacing_seconds
from mppobs.slo.lint import legs_of
from mppobs.slo.model import Slo
from mppobs.slo.windows import Leg, window_name

KEPT_SECONDS: Final = BY_NAME["MppSloBurn"].keep_firing_seconds
"""How long an alert goes on after its last breach, so that it does not flap."""
MULTIPLES: Final = (10, 2)
"""Of the budget, beside a total outage."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One leg of one SLO at one error rate. Scrape and evaluation come on top of every figure."""

    slo: str
    leg: str
    severity: Severity
    window: str
    """Long and short, as `1h/5m`; empty for `latched`."""
    errors: str
    """What is going wrong: `outage`, or the multiple of the budget."""
    error_rate: float
    threshold: float
    """The error rate above which the leg fires."""
    detection_seconds: float | None
    """From the first bad event to the alert; `None` where this rate never fires the leg."""
    reset_seconds: float | None
    """From the last bad event to the end of the alert; `None` as above, and where it takes a good event."""


def timings(slos: Sequence[Slo]) -> Iterator[Timing]:
    """
    Yield every leg of every SLO for a total outage, and for 10 and 2 times the budget.

    >>> from mppobs.slo.model import IndicatorKind
    >>> slo = Slo("t", "n", IndicatorKind.ON_TIME, Fraction("0.999"), 30, "p", expected_events=10**6)
    >>> [(t.leg, t.detection_seconds, t.reset_seconds) for t in timings([slo]) if t.errors == "10 ×"][1]
    ('medium', 12960.0, 1020.0)
    """
    for slo in slos:
        if is_sparse(slo):
            yield _latched(slo)
            continue
        for leg in legs_of(slo):
            yield _timing(slo, leg, "outage", Fraction(1))
            for multiple in MULTIPLES:
                yield _timing(slo, leg, f"{multiple} ×", min(multiple * slo.budget, Fraction(1)))


def reset_seconds(slo: Slo, leg: Leg, error_rate: Fraction) -> float | None:
    """
    Return how long a leg goes on after errors at a steady rate have ended; `None` where it never fires.

    The short window empties linearly and falls below the threshold after `short × (1 − threshold ÷ error rate)`, long
    before the long one does; where events are further apart than that it holds the last bad one until it is too old.
    Then the alert is kept for a while.
    """
    if detection_seconds(slo, leg, error_rate) is None:
        return None
    alone = spacing_seconds(slo) >= leg.short_seconds
    emptied = Fraction(1) if alone else 1 - fires_at(slo, leg) / error_rate
    return float(leg.short_seconds * emptied + KEPT_SECONDS)


def _timing(slo: Slo, leg: Leg, errors: str, rate: Fraction) -> Timing:
    return Timing(
        slo.full_name, leg.name, leg.severity, f"{window_name(leg.long_seconds)}/{window_name(leg.short_seconds)}",
        errors, float(rate), float(fires_at(slo, leg)),
        detection_seconds(slo, leg, rate), reset_seconds(slo, leg, rate),
    )  # fmt: skip


def _latched(slo: Slo) -> Timing:
    """Return how an SLO alerts that sees too few events for a rate: at once, until the next good event."""
    return Timing(slo.full_name, "latched", latched_severity(slo), "", "one bad event", 1.0, 0.0, 0.0, None)
