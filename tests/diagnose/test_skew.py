"""Skew figures against naive second implementations."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.diagnose.skew import (
    judge_skew,
    max_over_median,
    quantile,
    skew_idle_ratio,
    skewed_partitions,
    variation,
)

durations = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60)


@settings(deadline=None)
@given(durations)
def test_idle_ratio_is_the_idle_slot_time_over_all_slot_time(values: list[float]) -> None:
    """With one slot per shard, the ratio is the time that slots wait over the time that they exist."""
    longest = max(values)
    idle = sum(longest - value for value in values)

    assert skew_idle_ratio(values) == pytest.approx(idle / (longest * len(values)), rel=1e-6, abs=1e-9)
    assert 0.0 <= skew_idle_ratio(values) < 1.0


@settings(deadline=None)
@given(durations, st.floats(0.01, 100))
def test_figures_do_not_depend_on_the_unit(values: list[float], factor: float) -> None:
    """Seconds or minutes: all three figures are ratios."""
    scaled = [value * factor for value in values]

    assert skew_idle_ratio(scaled) == pytest.approx(skew_idle_ratio(values), rel=1e-6, abs=1e-9)
    assert variation(scaled) == pytest.approx(variation(values), rel=1e-6, abs=1e-9)
    assert max_over_median(scaled) == pytest.approx(max_over_median(values), rel=1e-6)


@settings(deadline=None)
@given(durations)
def test_variation_and_quantiles_equal_the_library_s(values: list[float]) -> None:
    """σ ÷ μ and the quantiles agree with `statistics` and numpy."""
    assert variation(values) == pytest.approx(statistics.pstdev(values) / statistics.fmean(values), rel=1e-6, abs=1e-9)
    for q in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert quantile(sorted(values), q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9)
    assert max_over_median(values) == pytest.approx(max(values) / statistics.median(values))


def test_nothing_has_no_skew() -> None:
    """No shards, or shards that took no time, are even."""
    assert skew_idle_ratio([]) == skew_idle_ratio([0.0, 0.0]) == 0.0
    assert variation([]) == variation([0.0]) == 0.0
    assert max_over_median([]) == 1.0
    assert not judge_skew([]).skewed


@pytest.mark.parametrize(
    ("values", "skewed"),
    [
        ([10, 10, 10, 10, 10], False),
        ([10, 10, 10, 40], False),  # four shards have no shape
        ([10, 10, 10, 10, 40], True),
        ([10, 10, 10, 10, 19], False),  # beyond 1.5 × p75, yet under 2 × median
        ([10] * 5 + [30] * 3 + [44], False),  # 4.4 × the median, but within 1.5 × the third quartile
        ([10] * 5 + [30] * 3 + [46], True),
        ([10, 10, 50, 50, 60], False),  # wide by nature: the third quartile is wide too
    ],
)
def test_a_stage_is_skewed_by_its_longest_shard_alone(values: list[float], skewed: bool) -> None:
    """Both tests must hold: past the third quartile by half, and past twice the median."""
    verdict = judge_skew(values)

    assert verdict.skewed is skewed
    assert verdict.shards == len(values)


def test_the_verdict_speaks_to_people() -> None:
    """The evidence names the longest, how far off it is and what it cost."""
    assert judge_skew([10, 10, 10, 10, 60]).evidence == (
        "the longest of 5 shards took 1 m 0 s, 6.0 × the median; 67% of the slots' time was spent waiting for it"
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 4 << 30), max_size=40))
def test_partitions_are_split_by_factor_and_floor(sizes: list[int]) -> None:
    """Exactly those past five medians and 256 MiB are named, largest first."""
    found = skewed_partitions(sizes)

    middle = statistics.median(sizes) if sizes else 0
    naive = {i for i, size in enumerate(sizes) if size > 5 * middle and size > 256 * 2**20}
    assert set(found) == naive
    assert [sizes[i] for i in found] == sorted((sizes[i] for i in naive), reverse=True)
