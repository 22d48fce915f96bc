"""How many series an SLO adds to a Prometheus: those that an aggregator exposes, and those that rules make of them."""

from __future__ import annotations

from typing import Final

from mppobs.catalog.foresight import ChargeEnd, Foresight
from mppobs.slo.budget import is_sparse
from mppobs.slo.indicators import FORETOLD
from mppobs.slo.model import IndicatorKind, Slo
from mppobs.slo.windows import DAY, WINDOWS

EXPOSED: Final = 9
"""Of every SLO: events, bad events, provisional ones, objective, start, period, budget left, revision, info."""
FORETOLD_EXPOSED: Final = len(ChargeEnd) + len(Foresight) + 2
"""Of one whose events are foretold: charges, predictions, and over how many runs how many intervals held."""
PER_WINDOW: Final = 2
"""Good and bad events of a window that reaches beyond what Prometheus keeps."""
RECORDED: Final = 8 + 3 * len(WINDOWS)
"""By the rules: what twins are collapsed to, and for each window events, bad events and burn rate."""
QUERIED: Final = 15
"""Of an SLO by PromQL, by rules in the place of an aggregator: its queries, what they grew by, counts and budget."""

MAX_SERIES: Final = 60_000
"""
What SLOs may add where nobody says otherwise: a thousand of them, as many as an aggregator takes, with room to spare.

A thousand `on-time` SLOs in a Prometheus 2.42 were 42,000 series before their first event, at 3.2 kB of memory each.
"""


def series_of(slo: Slo, retention_days: float) -> int:
    """
    Return how many series an SLO has once it has seen events, in a Prometheus that keeps samples so long.

    Each further aggregator that counts the same SLO adds what it exposes once more; alerts that fire add two each.

    >>> from mppobs.slo.spec import parse_spec
    >>> text = "team: t\\npipelines: {p: {every: 1h, objectives: {job-success: 99%, on-time: 99%}}}"
    >>> [series_of(slo, 40) for slo in parse_spec(text).slos]
    [38, 48]
    """
    if slo.indicator is IndicatorKind.PROMQL:
        return QUERIED + RECORDED
    beyond = {seconds for seconds in (*WINDOWS, slo.period_days * DAY) if seconds > retention_days * DAY}
    foretold = FORETOLD_EXPOSED if slo.indicator in FORETOLD else 0
    return EXPOSED + is_sparse(slo) + foretold + PER_WINDOW * len(beyond) + RECORDED
