"""
SLOs by PromQL: Prometheus itself counts their events, into the same series that aggregators show of the others.

A query gives a counter, such as `sum(http_requests_total)`. It may drop when one of the processes behind it restarts,
and be gone for a while, so it is not the count itself: what it grew since the evaluation before is added to a count of
ours, which never drops. A step in which either query dropped adds nothing: few events are missed, none are made up.
Both queries are one expression, since only then do they see the same scrapes.

Per SLO there are the queries and three facts; the counting is one set of rules for all of them, and budgets take one
set per period.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import promql_parser

from mppobs.render.promql import Durations, Expr, Match, all_of, binary, call, last_over_time, metric, number
from mppobs.render.rules import (
    BAD,
    EVENTS,
    LOOKBACK,
    OBJECTIVE,
    SLOW_INTERVAL,
    Group,
    Recording,
    RuleSettings,
    delta,
)  # fmt: skip
from mppobs.slo.model import IndicatorKind, Slo
from mppobs.slo.windows import DAY, window_name

NOW: Final = "slo:query_events:now"
SEEN: Final = "slo:query_events:seen"
GROWTH: Final = "slo:query_events:growth"
TOTAL: Final = "total"
GOOD: Final = "good"
"""Values of `outcome`."""

_ON_SLO: Final = Match(on=("slo",))


def query_groups(slos: Sequence[Slo], settings: RuleSettings) -> tuple[Group, ...]:
    """
    Return the rules that count what SLOs by PromQL ask for, and what is left of their budgets, if there are any.

    >>> query_groups([], RuleSettings())
    ()
    """
    asked = sorted((slo for slo in slos if slo.indicator is IndicatorKind.PROMQL), key=lambda slo: slo.full_name)
    if not asked:
        return ()
    facts = [rule for slo in asked for rule in _facts(slo)]
    durations = settings.durations
    return (
        Group("mppobs-slo-queries", (*facts, *_counting(durations))),
        Group("mppobs-slo-queries-slow", tuple(_budgets(asked, durations)), SLOW_INTERVAL),
    )


def canonical(query: str) -> Expr:
    """
    Return a query as PromQL writes it, summed where it may have several series. Raises ValueError for no vector.

    >>> print(canonical("http_requests_total{job='gateway'} # all of them"))
    sum(http_requests_total{job="gateway"})
    >>> print(canonical("sum(rate(x[5m]))"))
    sum(rate(x{}[5m]))
    """
    parsed = promql_parser.parse(f"sum({query}\n)")
    inner = promql_parser.parse(query)
    alone = isinstance(inner, promql_parser.AggregateExpr) and inner.modifier is None and str(inner.op) == "sum"
    return Expr(str(inner if alone else parsed))


def _facts(slo: Slo) -> Iterator[Recording]:
    """Yield what is particular to one SLO. A good query without an answer, beside a total with one, is 0."""
    name = (("slo", slo.full_name),)
    total, good = canonical(slo.bounds.total_query), canonical(slo.bounds.good_query)
    yield Recording(NOW, _outcome(total, TOTAL) | _outcome(good | total * number(0), GOOD), name)
    yield Recording("mpp_slo_objective_ratio", call("vector", number(slo.objective)), name)
    yield Recording("mpp_slo_period_seconds", call("vector", number(slo.period_days * DAY)), name)
    whose = (("owner", slo.owner), ("tier", slo.tier.value), ("tenant", slo.tenant), ("kind", slo.indicator.value))
    yield Recording("mpp_slo_info", call("vector", number(1)), (*name, *(pair for pair in whose if pair[1])))


def _counting(durations: Durations) -> Iterator[Recording]:
    """Yield how much the queries grew since the evaluation before, the counts, and what the queries said."""
    there = _own("mpp_slo_objective_ratio")
    nothing = there * number(0)
    seen = last_over_time(metric(SEEN), LOOKBACK, durations=durations)
    yield Recording(GROWTH, metric(NOW) - seen >= number(0))
    start = "mpp_slo_start_timestamp_seconds"
    yield Recording(start, all_of(_last(start, durations) | nothing + Expr("time()"), there))
    total, good = metric(GROWTH, outcome=TOTAL), metric(GROWTH, outcome=GOOD)
    grown = (
        ("mpp_slo_events_total", all_of(total, good, on=("slo",))),
        ("mpp_slo_bad_events_total", call("clamp_min", binary(total, "-", good, _ON_SLO), number(0))),
    )
    for name, growth in grown:
        before = _last(name, durations)
        yield Recording(name, all_of(binary(before, "+", growth, _ON_SLO) | before | nothing, there))
    # A counter that appears when the SLO has long been there was born at 0; one that is late to be scraped was not.
    unborn = all_of(nothing, _own(start) < Expr("time()") - number(durations.scaled(LOOKBACK)))
    both = _outcome(unborn, TOTAL) | _outcome(unborn, GOOD)
    yield Recording(SEEN, all_of(metric(NOW) | seen | both, there, on=("slo",)))


def _outcome(expr: Expr, outcome: str) -> Expr:
    """Return an expression with its outcome as a label."""
    return call("label_replace", expr, "outcome", outcome, "", "")


def _budgets(slos: Sequence[Slo], durations: Durations) -> Iterator[Recording]:
    """Yield what is left of the budgets: three rules for every length of period."""
    for days in sorted({slo.period_days for slo in slos}):
        ours = binary(_own("mpp_slo_period_seconds"), "==", number(days * DAY))
        name, grown = window_name(days * DAY), []
        for counter, what in ((EVENTS, "events"), (BAD, "bad_events")):
            window = delta(counter, counter, days * DAY, durations)
            grown.append(Recording(f"slo:query_{what}:delta_{name}", binary(window, "and", ours, _ON_SLO)))
        yield from grown
        events, bad = (metric(rule.record) for rule in grown)
        spent = bad / (events > number(0)) / (number(1) - metric(OBJECTIVE))
        untouched = binary(events, "==", number(0)) + number(1)
        yield Recording("mpp_slo_budget_left_ratio", (number(1) - spent) | untouched)


def _own(name: str) -> Expr:
    """Return the series that these rules wrote, not those that were scraped."""
    return metric(name, job="")


def _last(name: str, durations: Durations) -> Expr:
    return last_over_time(_own(name), LOOKBACK, durations=durations)
