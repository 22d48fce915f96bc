"""The linter: every planted mistake is found, and a good file is left alone."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mppobs.cli.slo import app
from mppobs.errors import ConfigError
from mppobs.model import Tier
from mppobs.slo.budget import burn_rate
from mppobs.slo.lint import Check, Surroundings, legs_of, lint
from mppobs.slo.model import Counts, IndicatorKind, Slo
from mppobs.slo.spec import parse_spec

PLANTED = """
team: t
pipelines:
  good:
    owner: o
    every: 5m
    objectives: {job-success: 99%, shard-success: 99.9%}
  bad:
    owner: o
    objectives:
      shard-success: {objective: 85%, period: 30d}
      job-success: {objective: 99.9%, every: 1d}
      on-time: 100%
      tial: {objective: 95%, at-most: 2}
  unknown:
    owner: o
    objectives: {shard-success: 99.9%}
objectives:
  bad-shard-success: {indicator: promql, objective: 99.9%, good: a, total: b}
  query: {indicator: promql, owner: o, objective: 99.9%, good: 'rate(mpp_shard_total[5m])', total: 'sum(rate(x[5m])'}
"""


def _check(path: Path, *flags: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["check", str(path), "--json", *flags])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_every_planted_mistake_is_found(tmp_path: Path) -> None:
    """One file holds one of each; the check names them all and fails."""
    path = tmp_path / "slo.yaml"
    path.write_text(PLANTED)
    code, found = _check(path, "--scrape=120", "--retention=2", "--max-series=100", "--pipelines=good,bad")
    assert code == 1
    assert {finding["check"] for finding in found} >= {
        "objective-100", "unreachable-leg", "budget-under-one", "window-too-short", "window-over-retention",
        "nobody-emits", "too-many-series", "spec",
    }  # fmt: skip
    spec = [finding["message"] for finding in found if finding["check"] == "spec"]
    assert any("unknown" in text or "did you mean 'tail'" in text for text in spec)
    assert any("defined twice" in text for text in spec)
    assert any("is no PromQL" in text for text in spec)
    emits = [finding["message"] for finding in found if finding["check"] == "nobody-emits"]
    assert any("'mpp_shard_total', which nobody emits; did you mean 'mpp_shards_total'?" in text for text in emits)


def test_a_good_file_is_left_alone(tmp_path: Path) -> None:
    """Sensible promises give no findings at all."""
    path = tmp_path / "slo.yaml"
    path.write_text(
        "team: t\npipelines: {p: {owner: o, every: 5m, objectives: {job-success: 99%, shard-success: 99.9%}}}"
    )
    assert _check(path, "--retention=40") == (0, [])
    assert "nothing wrong" in CliRunner().invoke(app, ["check", str(path), "--retention=40"]).stdout


@given(st.fractions(Fraction(1, 1000), Fraction(999, 1000)), st.sampled_from([7, 28, 30, 90]), st.sampled_from(Tier))
def test_a_leg_is_called_unreachable_just_when_a_total_outage_does_not_fire_it(
    objective: Fraction, days: int, tier: Tier
) -> None:
    """The finding agrees with the burn rate of nothing but bad events."""
    slo = Slo("t", "n", IndicatorKind.SHARD_SUCCESS, objective, days, "p", owner="o", tier=tier)
    outage = burn_rate(Counts(1000, 1000), objective)
    dead = any(outage <= leg.factor(days) for leg in legs_of(slo))
    found = any(finding.check is Check.UNREACHABLE_LEG for finding in lint([slo], Surroundings(retention_days=400)))
    assert found == dead


@pytest.mark.parametrize(
    ("runs", "objective", "found"), [(30, "0.95", False), (30, "0.97", True), (720, "0.999", True)]
)
def test_a_budget_under_one_event_is_found(runs: int, objective: str, found: bool) -> None:
    """30 nightly runs at 97 % leave nine tenths of a run."""
    slo = Slo("t", "n", IndicatorKind.JOB_SUCCESS, Fraction(objective), 30, "p", owner="o", expected_events=runs)
    checks = {finding.check for finding in lint([slo], Surroundings(retention_days=400))}
    assert (Check.BUDGET_UNDER_ONE in checks) == found


@pytest.mark.parametrize("tier", ["critical", "standard"])
@pytest.mark.parametrize("period", ["7d", "30d", "90d"])
def test_a_budget_of_money_can_fire_all_its_legs(tier: str, period: str) -> None:
    """Of any tier and over any period: money may be spent many times too fast, so no leg is out of reach."""
    spec = parse_spec(
        f"team: t\npipelines: {{p: {{owner: o, tier: {tier}, objectives: "
        f"{{spend: {{usd-per-period: 1000, period: {period}}}}}}}}}"
    )

    assert lint(spec.slos, Surroundings(retention_days=120)) == []


@pytest.mark.parametrize("words", ["freshness: {objective: 99%, at-most: 1h", "spend: {usd-per-period: 10"])
def test_leaving_out_runs_where_no_run_counts_is_a_mistake(words: str) -> None:
    """Asked for at such an objective it is an error that says why; inherited it is left out."""
    text = "team: t\ndefaults: {{exclude: [backfill]}}\npipelines: {{p: {{objectives: {{{}}}}}}}"
    [slo] = parse_spec(text.format(words + "}")).slos
    assert slo.exclude == ()

    with pytest.raises(ConfigError, match=r"<text>:3: .*`exclude` has no effect on '(freshness|spend)': a "):
        parse_spec(text.format(words + ", exclude: [drill]}"))
