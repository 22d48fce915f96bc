"""The event simulator and the times of the legs: two ways to the same answer, neither of which knows the other."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.cli.main import run as mppobs
from mppobs.model import Tier
from mppobs.render.rules import LOOKBACK
from mppobs.slo.budget import burn_rate
from mppobs.slo.diff import detection_seconds
from mppobs.slo.model import Counts, IndicatorKind, Slo
from mppobs.slo.simulate import (
    LEAST_BAD,
    OLDEST,
    WORKBOOK,
    Batch,
    Promise,
    Traffic,
    arrivals,
    by_chance,
    evenly,
    firing,
)
from mppobs.slo.timing import KEPT_SECONDS, reset_seconds, timings
from mppobs.slo.windows import DAY, HOUR, LEGS, MINUTE, Leg

ZERO = Fraction(0)


def _slo(objective: Fraction, period_days: int = 30) -> Slo:
    return Slo("t", "n", IndicatorKind.SHARD_SUCCESS, objective, period_days, "p", tier=Tier.CRITICAL)


def test_the_workbook_and_the_windows_agree() -> None:
    """The table that was copied by hand says the same as the one that the rules are rendered from."""
    ours = [
        (leg.name, leg.long_seconds, leg.short_seconds, leg.share, leg.pace, len(leg.tiers) == 1, leg.min_bad)
        for leg in LEGS
    ]
    theirs = [
        (
            pair.name, pair.long, pair.short, Fraction(pair.percent, 100) or None, Fraction(pair.times) or None,
            pair.critical_only, LEAST_BAD,
        )
        for pair in WORKBOOK
    ]  # fmt: skip
    assert ours == theirs
    assert OLDEST == LOOKBACK


@given(
    leg=st.sampled_from(LEGS),
    objective=st.sampled_from([Fraction("0.9"), Fraction("0.99"), Fraction("0.999"), Fraction("0.97")]),
    period=st.sampled_from([7, 28, 30, 90]),
    bad=st.integers(0, 1000),
)
@settings(deadline=None)
def test_counting_and_factors_agree_on_every_rate(leg: Leg, objective: Fraction, period: int, bad: int) -> None:
    """In a stretch of steady errors, a leg fires by the share of the budget if and only if it does by its factor."""
    step = leg.short_seconds // 2
    stream = evenly(
        [Batch(time, 1000) for time in range(step, leg.long_seconds + step, step)], lambda _: Fraction(bad, 1000)
    )
    samples = stream.scraped(range(0, leg.long_seconds + step, step))
    fired = leg.name in firing(samples, Promise(objective, period), 0, 0)[-1]
    assert fired == (burn_rate(Counts(1000, bad), objective) > leg.factor(period))


@pytest.mark.parametrize("rate", [Fraction(1), Fraction(1, 10), Fraction(1, 50)], ids=["outage", "10x", "2x"])
@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
def test_legs_fire_and_reset_when_the_formula_says(leg: Leg, rate: Fraction) -> None:
    """By counting, a leg fires within its computed time, a scrape and an evaluation, and resets as computed."""
    slo = _slo(Fraction("0.99"))
    step = leg.short_seconds // 20
    begin, end = leg.long_seconds, 2 * leg.long_seconds
    last = end + leg.short_seconds + KEPT_SECONDS + 2 * step
    stream = evenly(
        [Batch(time, 10_000) for time in range(step, last, step)], lambda time: rate if begin < time <= end else ZERO
    )
    samples = stream.scraped(range(0, last, step))
    on = [leg.name in legs for legs in firing(samples, Promise(slo.objective, 30), 0, KEPT_SECONDS)]
    detection, reset = detection_seconds(slo, leg, rate), reset_seconds(slo, leg, rate)
    if detection is None or reset is None:
        assert not any(on)
        return
    fired = samples[on.index(True)].time - begin
    released = samples[len(on) - on[::-1].index(True)].time - end
    assert detection < fired <= detection + 2 * step
    kept = -(-KEPT_SECONDS // step) * step - KEPT_SECONDS  # evaluations come in steps
    assert reset - step <= released <= reset + kept + 2 * step
    assert released <= leg.short_seconds + KEPT_SECONDS + kept + 2 * step


@pytest.mark.parametrize("gap", [5 * MINUTE, 20 * MINUTE, HOUR, 7 * HOUR], ids=lambda gap: f"{gap // MINUTE}m")
@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
def test_legs_of_rare_events_wait_for_enough_bad_ones(leg: Leg, gap: int) -> None:
    """With an event every five minutes to seven hours, an outage fires a leg when the formula says, or never."""
    objective, step = Fraction("0.97"), max(MINUTE, leg.short_seconds // 20)
    slo = replace(_slo(objective), expected_events=30 * DAY // gap)
    begin = -(-leg.long_seconds // gap) * gap
    last = begin + 2 * max(leg.long_seconds, gap)
    stream = evenly([Batch(time, 1) for time in range(gap, last, gap)], lambda time: Fraction(time >= begin))
    samples = stream.scraped(range(0, last, step))
    on = [leg.name in legs for legs in firing(samples, Promise(objective, 30), 0, 0)]

    expected = detection_seconds(slo, leg)

    if expected is None:
        assert not any(on)
    else:
        early = gap if expected > gap else 0  # by a bad event that comes whole, where the formula has a part of it
        assert expected - early <= samples[on.index(True)].time - begin <= expected + step


def test_a_calm_tier_has_no_pace_leg() -> None:
    """At three times the pace a critical SLO pages by the day, a standard one does not."""
    stream = evenly([Batch(time, 1000) for time in range(3600, 3 * DAY, 3600)], lambda _: Fraction(29, 1000))
    samples = stream.scraped(range(0, 3 * DAY, 3600))
    fired = [set(firing(samples, Promise(Fraction("0.99"), 30, critical), 0, 0)[-1]) for critical in (True, False)]
    assert fired[0] - fired[1] == {"pace"}


@pytest.mark.parametrize("traffic", list(Traffic))
def test_traffic_is_ordered_seeded_and_inside_its_time(traffic: Traffic) -> None:
    """Every kind of traffic comes in order, within its days, and the same seed brings the same."""
    batches = list(arrivals(traffic, 0, 20 * DAY, random.Random(3)))
    assert batches == list(arrivals(traffic, 0, 20 * DAY, random.Random(3)))
    times = [batch.time for batch in batches]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 20 * DAY
    assert len(batches) >= 4


@given(rate=st.fractions(0, 1), sizes=st.lists(st.integers(0, 500), min_size=1, max_size=30))
@settings(deadline=None)
def test_even_errors_are_never_off_by_one_event(rate: Fraction, sizes: list[int]) -> None:
    """What is bad so far is the share of what there was so far, rounded down."""
    stream = evenly([Batch(time, size) for time, size in enumerate(sizes)], lambda _: rate)
    assert stream.bads == [int(total * rate) for total in stream.totals]


def test_chance_keeps_to_its_share() -> None:
    """One in a hundred of a million events, give or take five standard deviations."""
    stream = by_chance((Batch(time, 1000) for time in range(1000)), 0.01, random.Random(5))
    assert stream.totals[-1] == 1_000_000
    assert abs(stream.bads[-1] - 10_000) < 5 * 100
    assert by_chance([Batch(0, 1000)], 0.0, random.Random(5)).bads == [0]


def test_the_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command shows every leg at three error rates, and that a sparse SLO alerts on its last event."""
    spec = tmp_path / "slo.yaml"
    spec.write_text("""
team: risk
pipelines:
  nightly: {tier: critical, owner: o, every: 1d, objectives: {job-success: 95%}}
  stream: {owner: o, objectives: {shard-success: 99.9%}}
""")
    assert mppobs(["slo", "proof", str(spec), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["leg"] for row in rows if row["slo"] == "risk/nightly-job-success"] == ["latched"]
    stream = [row for row in rows if row["leg"] != "latched"]
    assert [row["leg"] for row in stream[::3]] == ["fast", "medium", "slow", "steady"]
    assert [row["detection_seconds"] for row in stream[:3]] == [51.84, None, None]
    assert [row["errors"] for row in stream[:3]] == ["outage", "10 ×", "2 ×"]
    assert mppobs(["slo", "proof", str(spec)]) == 0
    shown = capsys.readouterr().out
    assert "51.8 s" in shown
    assert "next good one" in shown
    assert len(list(timings([]))) == 0
