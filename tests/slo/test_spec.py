"""The short form of slo.yaml: what it means, and how its mistakes read."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.errors import ConfigError
from mppobs.model import RunKind, Tier
from mppobs.slo.model import IndicatorKind
from mppobs.slo.spec import parse_spec, read_spec
from mppobs.yamlfile import loads

GOOD = """
team: risk
defaults: {period: 28d, exclude: [backfill, drill], owner: data}
pipelines:
  nightly:
    tier: critical
    owner: scoring
    every: 1d
    deadline: 3h
    objectives:
      job-success: 99%
      on-time: {objective: 95%, deadline: 2h30m, calendar: true}
      shard-success: 99.9%
      map-shards: {indicator: shard-success, objective: 99%, stage: map}
      tail: {objective: 0.95, at-most: 2}
      duration: {objective: 95%, at-most: 3h, at-least: 5m}
      cost: {objective: 95%, at-most: 40.50}
      spend: {usd-per-period: 1200}
      coverage: {objective: 99%, at-least: 99.5%}
      freshness: {objective: 99%, at-most: 26h}
objectives:
  api: {indicator: promql, objective: 99.9%, good: "sum(a)", total: "sum(b)"}
"""


def test_the_innermost_setting_wins() -> None:
    """Defaults give way to the pipeline, and the pipeline to the objective."""
    slos = {slo.name: slo for slo in parse_spec(GOOD).slos}
    on_time, shards, api = slos["nightly-on-time"], slos["nightly-map-shards"], slos["api"]
    assert (on_time.owner, on_time.tier, on_time.period_days, on_time.calendar) == ("scoring", Tier.CRITICAL, 28, True)
    assert on_time.bounds.deadline_seconds == Decimal(9000)
    assert on_time.exclude == (RunKind.BACKFILL, RunKind.DRILL)
    assert (shards.indicator, shards.stage) == (IndicatorKind.SHARD_SUCCESS, "map")
    assert (api.owner, api.pipeline, api.bounds.good_query) == ("data", "", "sum(a)")
    assert slos["nightly-coverage"].bounds.at_least == Decimal("0.995")
    assert slos["nightly-cost"].bounds.at_most == Decimal("40.50")
    assert (slos["nightly-job-success"].expected_events, slos["nightly-freshness"].expected_events) == (28, 28 * 1440)


@given(st.decimals("0.0001", "0.999999", places=6))
def test_objectives_are_exact(value: Decimal) -> None:
    """Percent and ratio mean the same fraction, and no digit is lost."""
    for text in (str(value), f"{value * 100}%", f'"{value * 100} %"'):
        spec = parse_spec(f"team: t\npipelines: {{p: {{objectives: {{job-success: {text}}}}}}}")
        assert spec.slos[0].objective == Fraction(value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("job-sucess: 99%", "'job-sucess' is no indicator; did you mean 'job-success'"),
        ("job-success: 99", "did you mean 99%"),
        ("job-success: 120%", "between 0 and 100%"),
        ("job-success: lots", "'lots' is no objective"),
        ("job-success: {objective: 99%, teir: critical}", "unknown key 'teir'; did you mean 'tier'"),
        ("job-success: {objective: 99%, tier: critcal}", "unknown 'critcal'; did you mean 'critical'"),
        ("job-success: {objective: 99%, period: 36h}", "whole days"),
        ("tail: 95%", "'tail' needs `at-most`"),
        ("tail: {objective: 95%, at-most: 0}", "positive"),
        ("duration: {objective: 95%, at-most: soon}", "'soon' is no duration"),
        ("job-success: {}", "needs `objective`"),
        ("x: {indicator: promql, objective: 99%, good: a}", "`total`"),
        ("job-success:", "an objective is written 99.9% or 0.999, got nothing"),
        ("job-success: [99%]", "an objective is written 99.9% or 0.999, got a list"),
        ("duration: {objective: 95%, at-most: 1h, at-least: 2h}", "nothing is good: '2h' at least and '1h' at most"),
    ],
)
def test_a_mistake_names_its_line_and_what_was_meant(entry: str, message: str) -> None:
    """Every error says where it is and what to write instead."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_spec(f"team: t\npipelines:\n  p:\n    objectives:\n      {entry}\n", "slo.yaml")
    assert str(caught.value).startswith("slo.yaml:5:")


def test_one_mistake_does_not_hide_another() -> None:
    """All mistakes of a file are told at once, and what is right is understood."""
    text = GOOD.replace("tail:", "tial:").replace("coverage:", "covrage:").replace("tier: critical", "tire: critical")
    spec, errors = read_spec(loads(text, "slo.yaml"))
    assert len(errors) == 3
    assert len(spec.slos) == 9


MISTAKEN = """
team: t
pipelines:
  p:
    tier: criticl
    period: 36h
    every: 1 hour
    objectives:
      job-success: {objective: 99, stage: []}
      cost: {objective: 9.9.9%, at-most: $12}
  q:
    objectives: {}
"""


def test_each_mistake_is_told_once_and_none_hides_another_of_its_entry() -> None:
    """What a pipeline says of all its objectives is wrong once; every wrong key of an objective is named."""
    spec, errors = read_spec(loads(MISTAKEN, "slo.yaml"))

    assert spec.slos == ()
    assert sorted(int(str(error).split(":")[1]) for error in errors) == [5, 6, 7, 9, 9, 10, 10, 11]
    assert any("q: a pipeline needs `objectives`" in str(error) for error in errors)


def test_a_name_stands_once() -> None:
    """Two promises of one name are refused, with the place of the first."""
    with pytest.raises(ConfigError, match="'t/p-job-success' is defined twice, first in line 2"):
        parse_spec(
            "team: t\npipelines: {p: {objectives: {job-success: 99%}}}\n"
            "objectives:\n  p-job-success: {indicator: promql, objective: 9%, good: a, total: b}\n"
        )


@pytest.mark.parametrize("text", ["", "team: t", "team: t\npipelines: {p: {}}", "pipelines: []", "[1]"])
def test_an_empty_promise_is_no_promise(text: str) -> None:
    """A file without objectives is an error, whatever shape it has."""
    with pytest.raises(ConfigError):
        parse_spec(text)
