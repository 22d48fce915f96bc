"""Stragglers: who is one, in what order, and for what cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.diagnose.stragglers import (
    RunningShard,
    StageProfile,
    StragglerSettings,
    find_stragglers,
    profile,
    threshold,
    time_left,
)
from mppobs.model import StragglerCause

USUAL = profile(12, [10.0, 10.0, 11.0, 12.0, 9.0, 10.0, 10.0, 9.5, 10.5, 10.0], [1000] * 10, nodes=["a", "b"] * 5)

running_shards = st.builds(
    RunningShard,
    shard=st.integers(0, 1000),
    attempt=st.integers(0, 3),
    elapsed=st.floats(0, 500),
    progress=st.none() | st.floats(0, 1),
    input_bytes=st.integers(0, 10_000),
    node=st.sampled_from(["", "a", "b", "c"]),
)
profiles = st.builds(
    profile,
    st.integers(1, 40),
    st.lists(st.floats(0.1, 100), max_size=30),
    st.lists(st.integers(0, 5000), max_size=30),
    nodes=st.lists(st.sampled_from(["a", "b", "c"]), max_size=30),
    io_errors=st.integers(0, 2),
)


def naive_is_late(planned: int, took: list[float], elapsed: float, floor: float) -> bool:
    """The rule as the field states it, by numpy."""
    if len(took) < 5 or len(took) < 0.75 * planned:
        return False
    p25, median, p75 = (float(np.quantile(took, q)) for q in (0.25, 0.5, 0.75))
    return elapsed > 2 * median and elapsed > p75 + 1.5 * (p75 - p25) and elapsed > floor


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 400).map(lambda tenth: tenth / 10), max_size=40),
    st.integers(0, 2000).map(lambda tenth: tenth / 10 + 0.0137),
    st.sampled_from([0.0, 5.0, 60.0]),
)
def test_who_is_late_equals_the_rule_stated_naively(
    planned: int, took: list[float], elapsed: float, floor: float
) -> None:
    """Done share, median, Tukey's fence and floor must all be passed."""
    found = find_stragglers(profile(planned, took), [RunningShard(1, 0, elapsed)], StragglerSettings(floor))

    assert bool(found) is naive_is_late(planned, took, elapsed, floor)


@settings(deadline=None)
@given(profiles, st.lists(running_shards, max_size=20, unique_by=lambda each: (each.shard, each.attempt)))
def test_stragglers_are_ranked_and_each_is_one_of_the_running(stage: StageProfile, running: list[RunningShard]) -> None:
    """The one with most time left comes first; nothing is invented, and every verdict has words."""
    found = find_stragglers(stage, running)

    assert [verdict.left for verdict in found] == sorted((verdict.left for verdict in found), reverse=True)
    assert all(verdict.running in running for verdict in found)
    assert all(verdict.evidence for verdict in found)
    assert find_stragglers(stage, reversed(running)) == found


@settings(deadline=None)
@given(profiles, st.lists(running_shards, max_size=20), st.floats(1.0, 3.0))
def test_a_longer_run_never_stops_being_late(stage: StageProfile, running: list[RunningShard], factor: float) -> None:
    """Whoever is late stays late while the stage stands still."""
    before = {id(each) for each in running if find_stragglers(stage, [each])}
    after = {id(each) for each in running if find_stragglers(stage, [replace(each, elapsed=each.elapsed * factor)])}

    assert before <= after


def test_nothing_is_late_before_most_of_the_stage_is_done() -> None:
    """Three quarters of the plan and five shards: before that the median means nothing."""
    assert threshold(profile(14, [10.0] * 10), StragglerSettings()) is None
    assert threshold(profile(13, [10.0] * 10), StragglerSettings()) == 20.0
    assert threshold(profile(1, [10.0] * 4), StragglerSettings()) is None


def test_a_stage_that_is_wide_by_nature_has_a_wide_fence() -> None:
    """Half of the shards take three times as long as the other half: p75 + 1.5 IQR decides, not 2 × median."""
    assert threshold(profile(8, [10.0] * 4 + [30.0] * 4), StragglerSettings()) == 60.0


def cause(running: RunningShard, stage: StageProfile = USUAL) -> StragglerCause:
    """The cause of the one straggler there is."""
    [found] = find_stragglers(stage, [running])
    return found.cause


def test_a_large_shard_at_the_usual_rate_is_skew() -> None:
    """Its size explains its time, so a copy would be just as slow."""
    assert cause(RunningShard(7, 0, 45.0, input_bytes=8000)) is StragglerCause.SKEW
    assert cause(RunningShard(7, 0, 45.0, progress=0.5, input_bytes=8000)) is StragglerCause.SKEW


def test_a_large_shard_that_crawls_is_not_called_skew_while_its_node_is_slow() -> None:
    """A rate below three quarters of the median speaks for the node."""
    took = [10.0] * 9 + [30.0] * 3
    stage = profile(13, took, [1000] * 12, nodes=["a"] * 9 + ["c"] * 3)

    assert cause(RunningShard(7, 0, 90.0, progress=0.05, input_bytes=3000, node="c"), stage) is StragglerCause.SLOW_NODE


def test_a_node_whose_other_shards_took_long_is_slow() -> None:
    """Three finished shards at 1.5 × the median convict it."""
    stage = profile(13, [10.0] * 9 + [16.0] * 3, nodes=["a"] * 9 + ["c"] * 3)

    [found] = find_stragglers(stage, [RunningShard(7, 0, 45.0, node="c")])
    assert (found.cause, found.evidence) == (
        StragglerCause.SLOW_NODE,
        "has run 45 s, 4.5 × the median of 10 s; its node c took 1.6 × the median for 3 other shards",
    )
    assert cause(RunningShard(7, 0, 45.0, node="a"), stage) is StragglerCause.UNKNOWN


def test_a_node_that_alone_has_stragglers_is_slow() -> None:
    """Two late shards on one node, none elsewhere."""
    late = [RunningShard(7, 0, 45.0, node="c"), RunningShard(8, 0, 46.0, node="c")]

    assert {found.cause for found in find_stragglers(USUAL, late)} == {StragglerCause.SLOW_NODE}
    spread = [late[0], replace(late[1], node="a")]
    assert {found.cause for found in find_stragglers(USUAL, spread)} == {StragglerCause.UNKNOWN}


def test_failed_transfers_point_to_io() -> None:
    """Where size and node say nothing, errors of the network or of storage do."""
    assert cause(RunningShard(7, 0, 45.0), replace(USUAL, io_errors=3)) is StragglerCause.IO


def test_a_small_shard_that_crawls_without_more_evidence_is_unknown() -> None:
    """No cause is made up."""
    [found] = find_stragglers(USUAL, [RunningShard(7, 0, 45.0, input_bytes=1000)])

    assert found.cause is StragglerCause.UNKNOWN
    assert "its rate below the stage's" in found.evidence


@pytest.mark.parametrize(
    ("running", "left"),
    [
        (RunningShard(1, 0, 30.0, progress=0.25), 90.0),
        (RunningShard(1, 0, 30.0, progress=1.0), 0.0),
        (RunningShard(1, 0, 30.0, input_bytes=8000), 50.0),  # 80 s at 100 bytes a second
        (RunningShard(1, 0, 90.0, input_bytes=8000), 90.0),  # past what its size explains
        (RunningShard(1, 0, 30.0, progress=0.0), 30.0),
    ],
)
def test_time_left_comes_from_progress_else_size_else_age(running: RunningShard, left: float) -> None:
    """LATE's estimate, and what stands in for it where no progress is known."""
    assert time_left(running, USUAL) == pytest.approx(left, rel=0.03)
