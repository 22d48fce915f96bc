"""
Unit tests for SLO burn, leg by leg: simulated traffic goes in, and what must fire when is counted from its events.

Each test lives through a clean stretch as long as the leg's long window, then errors at one rate, then their end. It
looks just before and just after each change of the leg: its detection and its reset. All legs that fire at that
moment are expected with their labels and texts, as `mppobs.slo.simulate` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Final

from mppobs.catalog.alerts import BY_NAME
from mppobs.model import Severity, Tier
from mppobs.render.files import Plain, dump
from mppobs.render.proofs import check, expected, seconds, series
from mppobs.render.rules import Alerting, RuleSettings, groups
from mppobs.slo.simulate import Batch, Promise, Sample, evenly, firing
from mppobs.slo.windows import DAY, LEGS, Leg

BURN: Final = "MppSloBurn"
KEPT_SECONDS: Final = BY_NAME[BURN].keep_firing_seconds
STEPS_PER_SHORT: Final = 2
"""Scrapes and evaluations per short window: 24 per long one."""
SIZE: Final = 9973
"""Events per step; a prime, so that no burn rate lies just between two that are shown."""
NEAR: Final = Fraction(1, 100)
"""How far from its threshold a leg is tried, to either side."""
PROMISE: Final = Promise(Fraction(99, 100), 30)
MULTIPLES: Final = (
    ("a total outage", Fraction(1)),
    ("errors at 10 times the budget", 10 * (1 - PROMISE.objective)),
    ("errors at twice the budget", 2 * (1 - PROMISE.objective)),
)
_SERIES: Final = {"slo": "risk/nightly"}
_TWINS: Final = ({"job": "mppobs", "instance": "a:9464"}, {"job": "mppobs", "instance": "b:9464"})


@dataclass(frozen=True, slots=True)
class Life:
    """What one test lives through."""

    step: int
    samples: Sequence[Sample]
    legs: Sequence[Mapping[str, Fraction]]
    """Which legs fire at each sample, with the burn that they report."""
    errors: tuple[int, int]
    """When the errors began and ended."""


def leg_proofs(settings: RuleSettings) -> dict[str, str]:
    """Return the text of a test file per leg, and one for latched SLOs, by its path below the output directory."""
    rules = [rule for group in groups(settings) for rule in group.rules if isinstance(rule, Alerting)]
    by_leg: dict[str, list[Alerting]] = {}
    for rule in rules:
        if rule.alert.name == BURN:
            by_leg.setdefault(dict(rule.labels)["leg"], []).append(rule)
    names = [group.name for group in groups(settings) if group.name.startswith("mppobs-slo")]
    files = {}
    for leg in LEGS:
        tests = list(_tests(leg, by_leg, settings))
        files[f"tests/{BURN}-{leg.name}.yaml"] = dump(_file(names, leg.short_seconds // STEPS_PER_SHORT, tests))
    latched = [_latched(tier, value, by_leg["latched"], settings) for tier in Tier for value in (1, 0)]
    files[f"tests/{BURN}-latched.yaml"] = dump(_file(names, 60, latched))
    return files


def live(leg: Leg, rate: Fraction, promise: Promise = PROMISE) -> Life:
    """Return a life at a step that suits a leg: clean, then errors at a rate for as long as it takes, then clean."""
    step = leg.short_seconds // STEPS_PER_SHORT
    threshold = leg.factor(promise.period_days) * (1 - promise.objective)
    filling = min(math.ceil(leg.long_seconds * threshold / rate / step) * step, leg.long_seconds)
    begin = leg.long_seconds
    end = begin + filling + leg.short_seconds
    last = end + leg.short_seconds + KEPT_SECONDS + 2 * step
    batches = [Batch(time, SIZE) for time in range(step, last, step)]
    stream = evenly(batches, lambda time: rate if begin < time <= end else Fraction(0))
    samples = stream.scraped(range(0, last, step))
    return Life(step, samples, firing(samples, promise, 0, KEPT_SECONDS), (begin, end))


def _file(group_names: Sequence[str], step: int, tests: Sequence[Plain]) -> Plain:
    return {
        "rule_files": [f"../rules/{name}.yaml" for name in group_names],
        "evaluation_interval": seconds(step),
        "group_eval_order": list(group_names),
        "tests": list(tests),
    }


def _tests(leg: Leg, rules: Mapping[str, Sequence[Alerting]], settings: RuleSettings) -> Iterator[Plain]:
    """Yield the tests of a leg: just above and just below its threshold, and the rates that people ask for."""
    threshold = leg.factor(PROMISE.period_days) * (1 - PROMISE.objective)
    below = ("just below", threshold * (1 - NEAR))
    firing_rates = [("just above", threshold * (1 + NEAR)), *(pair for pair in MULTIPLES if pair[1] > threshold)]
    for what, rate in (below, *firing_rates):
        yield _test(f"leg {leg.name}: {what}", leg, live(leg, rate), Tier.CRITICAL, rules, settings)
    if leg.tiers == (Tier.CRITICAL,):
        calm = Promise(PROMISE.objective, PROMISE.period_days, critical=False)
        life = live(leg, threshold * (1 + NEAR), calm)
        yield _test(f"leg {leg.name}: a standard pipeline", leg, life, Tier.STANDARD, rules, settings)


def _test(
    name: str, leg: Leg, life: Life, tier: Tier, rules: Mapping[str, Sequence[Alerting]], settings: RuleSettings
) -> Plain:
    """Return one life as a test that looks at the leg's changes, or at the end of the errors where it has none."""
    on = [leg.name in legs for legs in life.legs]
    changes = [index for index, (was, now) in enumerate(pairwise(on), 1) if was != now]
    looks = sorted({look for index in changes for look in (index - 1, index)}) or [life.errors[1] // life.step]
    owned = {**_SERIES, "tenant": "acme", "pipeline": "nightly", "owner": "scoring", "tier": tier.value}
    checks = []
    for look in looks:
        alerts = [
            expected(rules[name][0], owned, float(burn), settings) for name, burn in sorted(life.legs[look].items())
        ]
        checks.append(check(life.samples[look].time, BURN, alerts))
    totals = [sample.total for sample in life.samples]
    bads = [sample.bad for sample in life.samples]
    inputs = _inputs(totals, bads, owned)
    return {"name": name, "interval": seconds(life.step), "input_series": inputs, "alert_rule_test": checks}


def _inputs(totals: Sequence[int], bads: Sequence[int], owned: Mapping[str, str]) -> list[Plain]:
    """Return what two aggregators expose, of which the second came up without a memory and has seen nothing since."""
    steps = len(totals) - 1
    none = [0] * len(totals)
    out = []
    for twin, events, bad in ((_TWINS[0], totals, bads), (_TWINS[1], none, none)):
        own = {**_SERIES, **twin}
        out += [
            series("mpp_slo_events_total", own, notation(events)),
            series("mpp_slo_bad_events_total", own, notation(bad)),
            *_constants(own, {**owned, **twin}, steps),
        ]
    return out


def _constants(own: Mapping[str, str], info: Mapping[str, str], steps: int) -> list[Plain]:
    """Return what does not change over the life of an SLO."""
    return [
        series("mpp_slo_start_timestamp_seconds", own, f"0+0x{steps}"),
        series("mpp_slo_period_seconds", own, f"{PROMISE.period_days * DAY}+0x{steps}"),
        series("mpp_slo_objective_ratio", own, f"{float(PROMISE.objective):g}+0x{steps}"),
        series("mpp_slo_info", {**info, "kind": "shard-success"}, f"1+0x{steps}"),
    ]


def notation(values: Sequence[int]) -> str:
    """
    Return values in promtool's notation, a piece for each stretch of the same growth.

    >>> notation([0, 5, 10, 10, 10]), notation([7])
    ('0+5x2 10+0x1', '7+0x0')
    """
    pieces, start = [], values[0]
    grown = [now - was for was, now in pairwise(values)]
    for index, (growth, run) in enumerate(groupby(grown)):
        count = len(list(run))
        first = start if index == 0 else start + growth
        pieces.append(f"{first}+{growth}x{count if index == 0 else count - 1}")
        start += growth * count
    return " ".join(pieces) or f"{start}+0x0"


def _latched(tier: Tier, value: int, rules: Sequence[Alerting], settings: RuleSettings) -> Plain:
    """Return the test of an SLO whose newest event is bad, or good."""
    owned = {**_SERIES, "tenant": "acme", "pipeline": "nightly", "owner": "scoring", "tier": tier.value}
    severity = Severity.PAGE if tier is Tier.CRITICAL else Severity.TICKET
    rule = next(rule for rule in rules if rule.severity is severity)
    twins = [series("mpp_slo_latched", {**_SERIES, **twin}, f"{value}+0x2") for twin in _TWINS]
    infos = [series("mpp_slo_info", {**owned, **twin, "kind": "job-success"}, "1+0x2") for twin in _TWINS]
    alerts = [expected(rule, owned, 1.0, settings)] if value else []
    return {
        "name": f"leg latched, {tier.value}: the newest run was {'bad' if value else 'good'}",
        "interval": seconds(60),
        "input_series": [*twins, *infos],
        "alert_rule_test": [check(60, BURN, alerts)],
    }
