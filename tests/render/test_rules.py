"""How rules are grouped: in order, often enough, and without losing time that a leg has not got."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mppobs.render.rules import LOOKS_PER_WINDOW, Alerting, Group, Recording, groups
from mppobs.slo.windows import LEGS, Leg, window_name


def _group_of(leg: Leg) -> tuple[Group, int]:
    """Return the group in which a leg is evaluated, and its place there."""
    return next(
        (group, place)
        for group in groups()
        for place, rule in enumerate(group.rules)
        if isinstance(rule, Alerting) and dict(rule.labels).get("leg") == leg.name
    )


@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
def test_a_leg_is_looked_at_often_enough(leg: Leg) -> None:
    """At least ten times in the time of its short window, or errors could come and go between two looks."""
    group, _ = _group_of(leg)
    assert leg.short_seconds >= LOOKS_PER_WINDOW * group.interval


@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
def test_a_leg_sees_windows_of_the_same_evaluation(leg: Leg) -> None:
    """Its windows stand before it in its own group: groups start at different times, which would add up."""
    group, place = _group_of(leg)
    recorded = [rule.record for rule in group.rules[:place] if isinstance(rule, Recording)]
    for seconds in (leg.long_seconds, leg.short_seconds):
        for kind in ("events:delta", "bad_events:delta", "burn_rate:ratio"):
            assert f"slo:mpp_slo_{kind}_{window_name(seconds)}" in recorded


@pytest.mark.parametrize("days", [7, 28, 30, 90])
def test_waiting_for_a_slow_group_is_no_delay_to_speak_of(days: int) -> None:
    """Where the leg before does not fire, a leg takes so long that its group's interval adds two per cent at most."""
    by_factor = sorted(LEGS, key=lambda leg: leg.factor(days), reverse=True)
    for faster, leg in pairwise(by_factor):
        least = leg.long_seconds * leg.factor(days) / faster.factor(days)
        assert _group_of(leg)[0].interval <= least * 2 / 100


def test_every_rule_is_in_one_group() -> None:
    """Nothing is evaluated twice."""
    names = [
        (rule.record,) if isinstance(rule, Recording) else (rule.alert.name, rule.severity, rule.labels)
        for group in groups()
        for rule in group.rules
    ]
    assert len(names) == len(set(names))
