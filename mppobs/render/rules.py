"""
Recording rules and alerts for Prometheus. Their number does not depend on how many SLOs there are.

An SLO's counts come from the aggregator as counters with one label, `slo`. A window is a subtraction, not an
extrapolation: the count now minus the newest count at or before the window's start. An SLO that is younger than the
window has its whole count. `increase()` would lose the first event of a counter and stretch the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from mppobs.catalog.alerts import ALERTS, BY_NAME, Alert
from mppobs.model import Severity, Tier
from mppobs.render.expressions import BY_PIPELINE, CONDITIONS, CRITICAL, INSTANCE_LABELS, with_owner
from mppobs.render.promql import (
    Durations,
    Expr,
    Match,
    all_of,
    binary,
    last_over_time,
    max_without,
    metric,
    number,
)  # fmt: skip
from mppobs.slo.windows import LEGS, MINUTE, Leg, window_name

LOOKBACK: Final = 15 * MINUTE
"""How old the count at the window's start may be: scrapes missed for longer leave the window without a value."""
INTERVAL: Final = 30
"""Seconds between evaluations."""
SLOW_INTERVAL: Final = 120
"""Seconds between evaluations of the other legs: errors that the fast one does not see take them hours to notice."""
LOOKS_PER_WINDOW: Final = 10
"""How often a leg is evaluated, at the least, in the time of its short window."""

SLO_GROUP: Final = "mppobs-slo"
SLOW_SLO_GROUP: Final = "mppobs-slo-slow"
BURN_ALERT: Final = "MppSloBurn"

ON_SLO: Final = ("slo",)
EVENTS: Final = "slo:mpp_slo_events:max"
BAD: Final = "slo:mpp_slo_bad_events:max"
EVENTS_NOW: Final = "slo:mpp_slo_events:now"
BAD_NOW: Final = "slo:mpp_slo_bad_events:now"
START: Final = "slo:mpp_slo_start_timestamp_seconds:max"
PERIOD: Final = "slo:mpp_slo_period_seconds:max"
OBJECTIVE: Final = "slo:mpp_slo_objective_ratio:max"
INFO: Final = "slo:mpp_slo_info:max"

_WHOSE: Final = Match(on=ON_SLO, group_left=("owner", "tier", "pipeline", "tenant"))
_SOON: Final = tuple(leg for leg in LEGS if leg.short_seconds < LOOKS_PER_WINDOW * SLOW_INTERVAL)
_LATER: Final = tuple(leg for leg in LEGS if leg not in _SOON)
_GROUPS: Final = (SLO_GROUP, "mppobs-work", "mppobs-self")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule."""

    record: str
    expr: Expr
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Alerting:
    """An alerting rule."""

    alert: Alert
    expr: Expr
    severity: Severity
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, in order."""

    name: str
    rules: tuple[Recording | Alerting, ...]
    interval: int = INTERVAL


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What a user may choose of the rules."""

    durations: Durations = field(default_factory=Durations)
    dashboards_url: str = ""
    """Of Grafana, without a slash at the end; empty leaves the dashboards' links relative."""
    runbooks_url: str = "http://127.0.0.1:9466/runbooks"
    job: str = "mppobs"
    """The `job` label under which aggregators are scraped."""


def groups(settings: RuleSettings | None = None) -> tuple[Group, ...]:
    """
    Return every rule, grouped.

    >>> [(group.name, group.interval) for group in groups()]
    [('mppobs-slo', 30), ('mppobs-slo-slow', 120), ('mppobs-work', 30), ('mppobs-self', 30)]
    """
    chosen = settings or RuleSettings()
    alerts = [rule for alert in ALERTS if alert.name != BURN_ALERT for rule in _by_severity(alert, chosen)]
    by_group = {name: [rule for rule in alerts if rule.alert.group == name] for name in dict.fromkeys(_GROUPS)}
    soon, later = (tuple(_burning(legs, chosen.durations)) for legs in (_SOON, _LATER))
    windows, more = (tuple(_windows(legs, chosen.durations)) for legs in (_SOON, _LATER))
    return (
        Group(SLO_GROUP, (*_counts(), *windows, *soon, *_latched(), *by_group.pop(SLO_GROUP))),
        Group(SLOW_SLO_GROUP, (*more, *later), SLOW_INTERVAL),
        *(Group(name, tuple(rules)) for name, rules in by_group.items()),
    )


def delta(now: str, counter: str, seconds: int, durations: Durations) -> Expr:
    """
    Return how much a collapsed counter grew in the last `seconds`, exactly; `now` may hold more than was counted.

    >>> print(delta("slo:mpp_slo_events:now", "slo:mpp_slo_events:max", 3600, Durations()))
    slo:mpp_slo_events:now - ((slo:mpp_slo_start_timestamp_seconds:max > time() - 3600) * 0 or \
last_over_time(slo:mpp_slo_events:max[15m] offset 1h))
    """
    young = binary(metric(START) > Expr("time()") - number(durations.scaled(seconds)), "*", number(0))
    return metric(now) - (young | last_over_time(metric(counter), LOOKBACK, seconds, durations))


def leg_threshold(leg: Leg, durations: Durations) -> Expr:
    """
    Return the burn rate at which a leg fires, per SLO, from the period that the SLO itself exposes.

    >>> print(leg_threshold(LEGS[0], Durations()))
    slo:mpp_slo_period_seconds:max / 180000
    """
    if leg.pace is not None:
        return number(leg.pace)
    if leg.share is None:
        raise ValueError(f"leg {leg.name!r} has neither share nor pace")
    per_second = Fraction(leg.share) / Fraction(leg.long_seconds)
    divisor = number(1 / per_second)
    return metric(PERIOD) / divisor


def _counts() -> Iterator[Recording]:
    """Yield the collapse of twins: one series per SLO, whatever the number of aggregators."""
    for record, name in (
        (EVENTS, "mpp_slo_events_total"),
        (BAD, "mpp_slo_bad_events_total"),
        (START, "mpp_slo_start_timestamp_seconds"),
        (PERIOD, "mpp_slo_period_seconds"),
        (OBJECTIVE, "mpp_slo_objective_ratio"),
        (INFO, "mpp_slo_info"),
    ):
        yield Recording(record, max_without(INSTANCE_LABELS, metric(name)))
    yield _now(EVENTS_NOW, EVENTS)
    yield _now(BAD_NOW, BAD)


def _now(record: str, counter: str) -> Recording:
    """Return what is counted plus the running jobs that are predicted to be bad, where there are any."""
    predicted = max_without(INSTANCE_LABELS, metric("mpp_slo_provisional_bad_events") > number(0))
    return Recording(record, (metric(counter) + predicted) | metric(counter))


def _windows(legs: Sequence[Leg], durations: Durations) -> Iterator[Recording]:
    """Yield events, bad events and burn rate of each window of some legs, the shortest first."""
    for seconds in sorted({window for leg in legs for window in (leg.short_seconds, leg.long_seconds)}):
        name = window_name(seconds)
        yield Recording(f"slo:mpp_slo_events:delta_{name}", delta(EVENTS_NOW, EVENTS, seconds, durations))
        yield Recording(f"slo:mpp_slo_bad_events:delta_{name}", delta(BAD_NOW, BAD, seconds, durations))
        yield Recording(f"slo:mpp_slo_burn_rate:ratio_{name}", _burn(name))


def _burn(window: str) -> Expr:
    """Return bad ÷ total ÷ budget."""
    bad, total = metric(f"slo:mpp_slo_bad_events:delta_{window}"), metric(f"slo:mpp_slo_events:delta_{window}")
    return bad / (total > number(0)) / (number(1) - metric(OBJECTIVE))


def _burning(legs: Sequence[Leg], durations: Durations) -> Iterator[Alerting]:
    """Yield one rule per leg. The cheapest condition comes first: most SLOs have hardly any bad events."""
    for leg in legs:
        long, short = window_name(leg.long_seconds), window_name(leg.short_seconds)
        threshold = leg_threshold(leg, durations)
        burning = all_of(
            metric(f"slo:mpp_slo_burn_rate:ratio_{long}") > threshold,
            metric(f"slo:mpp_slo_burn_rate:ratio_{short}") > threshold,
            metric(f"slo:mpp_slo_bad_events:delta_{long}") >= number(leg.min_bad),
            on=ON_SLO,
        )
        tiers = metric(INFO) if len(leg.tiers) == len(Tier) else metric(INFO, tier=leg.tiers[0].value)
        labels = (("leg", leg.name), ("window", long))
        yield Alerting(BY_NAME[BURN_ALERT], binary(burning, "*", tiers, _WHOSE), leg.severity, labels)


def _latched() -> Iterator[Alerting]:
    """Yield the rules for SLOs that see too few events for a rate: the newest was bad."""
    bad = max_without(INSTANCE_LABELS, metric("mpp_slo_latched") > number(0))
    for severity, tier in ((Severity.PAGE, "critical"), (Severity.TICKET, "~standard|besteffort")):
        expr = binary(bad, "*", metric(INFO, tier=tier), _WHOSE)
        yield Alerting(BY_NAME[BURN_ALERT], expr, severity, (("leg", "latched"),))


def _by_severity(alert: Alert, settings: RuleSettings) -> Iterator[Alerting]:
    """Yield one rule, or two where the same trouble is worth waking somebody for in a critical pipeline."""
    expr = CONDITIONS[alert.name](settings.durations, settings.job)
    if alert.name not in BY_PIPELINE:
        yield Alerting(alert, expr, alert.severity)
    elif alert.critical_severity is None:
        yield Alerting(alert, with_owner(expr), alert.severity)
    else:
        rest = with_owner(expr, (Tier.STANDARD, Tier.BESTEFFORT))
        if alert.name in CRITICAL:
            sure, unsure = (build(settings.durations, settings.job) for build in CRITICAL[alert.name])
            expr, rest = sure, rest | with_owner(unsure, (Tier.CRITICAL,))
        yield Alerting(alert, with_owner(expr, (Tier.CRITICAL,)), alert.critical_severity)
        yield Alerting(alert, rest, alert.severity)
