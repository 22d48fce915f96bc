"""Changes in words: the arithmetic behind them, and what is told."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mppobs.cli.slo import app
from mppobs.slo.diff import detection_seconds, diff
from mppobs.slo.model import IndicatorKind, Slo
from mppobs.slo.spec import parse_spec
from mppobs.slo.windows import LEGS, Leg

SLO = Slo("t", "n", IndicatorKind.SHARD_SUCCESS, Fraction("0.999"), 30, "p", owner="o")


def _simulated(leg: Leg, error_rate: float, seed: int) -> float | None:
    """Return when a leg fires by counting events second by second: nothing but good ones, then a steady error rate."""
    chance = random.Random(seed)
    per_second, before = 20, leg.long_seconds
    threshold = float(leg.factor(30)) * 0.001
    bad = [0] * before
    window = short = 0
    for second in range(leg.long_seconds):
        now = sum(chance.random() < error_rate for _ in range(per_second))
        bad.append(now)
        window += now - bad[before + second - leg.long_seconds]
        short += now - bad[before + second - leg.short_seconds]
        if window > threshold * per_second * leg.long_seconds and short > threshold * per_second * leg.short_seconds:
            return second + 1.0
    return None


@pytest.mark.parametrize("error_rate", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("leg", LEGS[:1], ids=lambda leg: leg.name)
def test_detection_times_are_what_counting_gives(leg: Leg, error_rate: float) -> None:
    """The formula agrees with a count of simulated events."""
    expected = detection_seconds(SLO, leg, Fraction(str(error_rate)))
    found = _simulated(leg, error_rate, seed=7)
    assert expected is not None
    assert found == pytest.approx(expected, rel=0.05, abs=2)


@given(st.fractions(Fraction(1, 100), Fraction(1)))
def test_a_rate_below_the_threshold_never_fires(error_rate: Fraction) -> None:
    """Detection is never just when the rate does not exceed factor × budget."""
    for leg in LEGS:
        never = leg.factor(30) * SLO.budget >= error_rate
        assert (detection_seconds(SLO, leg, error_rate) is None) == never


def test_the_same_promises_are_no_change() -> None:
    """Order and spelling of the file do not matter."""
    one = parse_spec("team: t\npipelines: {p: {objectives: {job-success: 99%, on-time: 95%}}}")
    other = parse_spec("team: t\npipelines: {p: {objectives: {on-time: 0.95, job-success: 0.99}}}")
    assert diff(one.slos, other.slos) == []


def test_a_tier_of_rare_events_changes_what_a_bad_one_does() -> None:
    """A nightly pipeline that becomes critical wakes somebody for each bad run; nobody has to know the tiers for it."""
    text = "team: t\npipelines: {p: {tier: %s, every: 1d, objectives: {job-success: 95%%}}}"
    standard, critical = (parse_spec(text % tier).slos for tier in ("standard", "critical"))

    (change,) = diff(standard, critical)
    (added,) = diff([], standard)

    assert change.lines == ("tier standard → critical", "a bad event pages, until a good one; it opened a ticket")
    assert "a bad event opens a ticket, until a good one" in added.lines[0]


def test_a_leg_whose_window_is_too_short_for_the_pace_says_so() -> None:
    """Two runs of an hourly pipeline do not fit into an hour, so its fast leg is silent, and nobody counts on it."""
    (added,) = diff([], parse_spec("team: t\npipelines: {p: {every: 1h, objectives: {job-success: 99%}}}").slos)

    assert added.lines[0] == "leg fast does not fire: with an event each 1 h 0 m, 1h holds no 2 bad ones"
    assert added.lines[1].startswith("pages at 6 % bad events over 6h, 1 h 0 m into a total outage")


def test_a_leg_that_stays_silent_is_no_change_and_one_that_wakes_is() -> None:
    """Of an hourly pipeline whose objective changes the fast leg is not told; it is once the pipeline runs often."""
    text = "team: t\npipelines: {p: {every: %s, objectives: {job-success: %s}}}"
    hourly, stricter, often = (
        parse_spec(text % pair).slos for pair in (("1h", "99%"), ("1h", "99.5%"), ("10m", "99.5%"))
    )

    (change,) = diff(hourly, stricter)
    assert not any("1h" in line for line in change.lines)
    assert "pages at 3 % bad events over 6h, 1 h 0 m into a total outage; was 6 %, 1 h 0 m" in change.lines
    (change,) = diff(stricter, often)
    assert "pages at 7.2 % bad events over 1h, 10 m 0 s into a total outage; was silent" in change.lines


def test_a_new_definition_is_a_new_revision(tmp_path: Path) -> None:
    """What pages and how fast is told per leg; a changed bound starts the counting anew."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("team: t\npipelines: {p: {objectives: {shard-success: 99%, tail: {objective: 95%, at-most: 2}}}}")
    new.write_text("team: t\npipelines: {p: {objectives: {shard-success: 99.9%, tail: {objective: 95%, at-most: 3}}}}")
    shown = CliRunner().invoke(app, ["diff", str(old), str(new)]).stdout
    assert "pages at 1.44 % bad events over 1h, 51.8 s into a total outage; was 14.4 %" in " ".join(shown.split())
    assert "at most 2 → 3" in shown
    assert "a new revision" in shown
    assert "no change" in CliRunner().invoke(app, ["diff", str(old), str(old)]).stdout
