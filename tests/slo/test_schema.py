"""The JSON Schema of slo.yaml says what the parser says, as far as a schema can."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mppobs.errors import ConfigError
from mppobs.slo.model import IndicatorKind
from mppobs.slo.schema import schema
from mppobs.slo.spec import BOUND_KEYS, SHARED_KEYS, parse_spec

VALIDATOR = Draft202012Validator(schema())
BOUNDS = {key for keys in BOUND_KEYS.values() for key in keys}
KEYS = sorted({"indicator", "objective", "stage", "oops", *SHARED_KEYS, *BOUNDS})

GOOD = """
team: risk
defaults: {period: 28d, exclude: [backfill, drill], owner: data}
pipelines:
  nightly:
    tier: critical
    every: 1d
    deadline: 3h
    objectives:
      job-success: 99%
      on-time: {objective: 95%, deadline: 2h30m, calendar: true, exclude: drill}
      shard-success: 99.9%
      map-shards: {indicator: shard-success, objective: 99%, stage: map}
      tail: {objective: 0.95, at-most: 2}
      duration: {objective: 95%, at-most: 3h, at-least: 5m}
      cost: {objective: 95%, at-most: 40.50}
      spend: {usd-per-period: 1200}
      coverage: {objective: 99%, at-least: 99.5%}
      freshness: {objective: 99%, at-most: 26h}
      own: {indicator: promql, objective: 99%, good: a, total: b}
objectives:
  api: {indicator: promql, objective: 99.9%, good: "sum(a)", total: "sum(b)"}
  promql: {objective: 99.9%, good: "sum(a)", total: "sum(b)"}
"""


def accepts(text: str) -> bool:
    """Return whether the schema has nothing against a file."""
    return bool(VALIDATOR.is_valid(yaml.safe_load(text)))


def parses(text: str) -> bool:
    """Return whether the parser has nothing against a file."""
    try:
        parse_spec(text)
    except ConfigError:
        return False
    return True


def test_the_schema_is_one_and_accepts_what_is_right() -> None:
    """It is valid by its dialect, and so is a file that uses everything."""
    Draft202012Validator.check_schema(schema())
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(GOOD))] == []
    assert parses(GOOD)


@pytest.mark.parametrize(
    "entry",
    [
        "job-sucess: 99%",
        "job-success: 99",
        "job-success: 120%",
        "job-success: lots",
        "job-success: {objective: 99%, teir: critical}",
        "job-success: {objective: 99%, tier: critcal}",
        "job-success: {objective: 99%, period: 36h}",
        "job-success: {objective: 99%, exclude: [drills]}",
        "job-success: {objective: 99%, at-most: 3h}",
        "tail: 95%",
        "tail: {objective: 95%, at-most: 0}",
        "duration: {objective: 95%, at-most: soon}",
        "job-success: {}",
        "spend: 95%",
        "x: 99%",
        "x: {objective: 99%}",
        "x: {indicator: job-sucess, objective: 99%}",
        "x: {indicator: promql, objective: 99%, good: a}",
    ],
)
def test_a_mistake_is_refused_by_both(entry: str) -> None:
    """What the parser refuses and a schema can see is marked in the editor."""
    text = f"team: t\npipelines:\n  p:\n    objectives:\n      {entry}\n"
    assert not parses(text)
    assert not accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "team: t",
        "team: t\npipelines: {p: {}}",
        "pipelines: []",
        "[1]",
        "team: t\nobjectives: {job-success: 99%}",
        "team: t\npipeline: {p: {objectives: {job-success: 99%}}}",
        "team: t\ndefaults: {objective: 99%}\npipelines: {p: {objectives: {job-success: 99%}}}",
    ],
)
def test_a_file_of_another_shape_is_refused_by_both(text: str) -> None:
    """Whole files that promise nothing, or at the wrong place."""
    assert not parses(text)
    assert not accepts(text)


@settings(max_examples=60)
@given(
    st.sampled_from([*IndicatorKind, "x"]),
    st.dictionaries(
        st.sampled_from(KEYS),
        st.sampled_from(["95%", "2", "3h", "28d", "true", "drill", "critical", "tail", "promql", "soon"]),
        max_size=4,
    ),
)
def test_the_schema_never_refuses_what_parses(name: str, entry: dict[str, str]) -> None:
    """An editor that marks what is right would be switched off."""
    inner = ", ".join(f"{key}: {value}" for key, value in entry.items())
    text = f"team: t\npipelines: {{p: {{objectives: {{{name}: {{{inner}}}}}}}}}"
    assert accepts(text) or not parses(text)
