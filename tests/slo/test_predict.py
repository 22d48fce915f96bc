"""Predictions: what must hold of every one, and simulated runs, whose ends are known, held against what was said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.catalog.foresight import ChargeEnd, Foresight
from mppobs.slo.charges import MOST_STEP_SHARE, MOST_WEIGHT, NEEDED_SHARE, WITHDRAWN_SHARE, Doubt, consider
from mppobs.slo.draining import Prediction
from mppobs.slo.durations import survival
from mppobs.slo.past import Run, StageRun, learn
from mppobs.slo.predict import predict
from mppobs.slo.progress import NO_PAST, Finished, Going, Lanes, StageNow
from tests.slo.foresight import Played, Stand, play_all, score
from tests.slo.runs import Conditions, seen, simulate


def stage(
    total: int, done: int, running: int, *, seconds: float = 10.0, elapsed: float = 5.0, slow_node: float = 1.0
) -> StageNow:
    """A stage of shards that take about so long each, on ten nodes; the last of them may be slow."""
    nodes = np.arange(done) % 10
    wobble = 1 + 0.1 * np.sin(np.arange(done))
    took = seconds * wobble * np.where(nodes == 9, slow_node, 1.0)
    going = Going(
        np.full(running, elapsed), np.zeros(running), np.arange(running) % 10, np.full(running, np.nan)
    )  # fmt: skip
    return StageNow("map", total, done, Finished(took, np.zeros(done), nodes), going)


def middle(*stages: StageNow, lanes: int = 10) -> float:
    """The middle of a prediction."""
    found = predict(stages, Lanes(tuple(range(lanes)), full=True))
    assert found is not None
    return found.middle


@settings(max_examples=60)
@given(
    st.integers(1, 300), st.integers(0, 300), st.integers(0, 40), st.floats(0.01, 1e5), st.floats(0.0, 20.0),
)  # fmt: skip
def test_bounds_are_in_order_and_never_in_the_past(
    total: int, done: int, running: int, seconds: float, elapsed: float
) -> None:
    """Whatever is running, for however long: now ≤ low ≤ middle ≤ high, all of them finite."""
    done = min(done, total)
    found = predict([stage(total, done, running, seconds=seconds, elapsed=seconds * elapsed)], Lanes((0,), full=True))

    if found is not None:
        assert 0 <= found.low <= found.middle <= found.high < np.inf


def test_more_work_takes_longer_and_more_lanes_less() -> None:
    """The queue drains at the rate of the lanes; the tail stays."""
    assert middle(stage(500, 50, 10)) > 2 * middle(stage(200, 50, 10))
    assert middle(stage(500, 50, 20), lanes=20) < 0.6 * middle(stage(500, 50, 10))


def test_a_job_ends_with_its_longest_shard_and_not_with_its_average_one() -> None:
    """One shard that has run far longer than all others moves the end, and most of all the late bound."""
    usual, straggler = stage(100, 90, 10), stage(100, 90, 10)
    straggler.going.elapsed[0] = 60.0
    calm, late = (predict([each], Lanes(tuple(range(10)), full=True)) for each in (usual, straggler))

    assert calm is not None
    assert late is not None
    assert late.middle > 3 * calm.middle
    assert late.high > 10 * calm.high


def test_a_slow_node_is_seen_and_its_shards_are_awaited() -> None:
    """Nothing is left but a shard on the node whose shards take four times as long, and one on another."""
    at = stage(102, 100, 0, slow_node=4.0)
    both = [
        StageNow(
            "map", 101, 100, at.finished,
            Going(np.array([5.0]), np.zeros(1), np.array([node]), np.array([np.nan])),
        )
        for node in (0, 9)
    ]  # fmt: skip

    assert middle(both[0]) == pytest.approx(5.0, rel=0.3)
    assert middle(both[1]) == pytest.approx(35.0, rel=0.2)


def test_the_size_of_a_shard_says_how_long_it_takes() -> None:
    """Ten times the input of the others, where durations go with the input: ten times as long."""
    sizes = 1e6 * (1 + 0.5 * np.sin(np.arange(50)))
    done = Finished(sizes / 1e5, sizes, np.zeros(50, np.int64))
    hot = Going(np.array([20.0]), np.array([1e7]), np.zeros(1, np.int64), np.array([np.nan]))

    assert middle(StageNow("map", 51, 50, done, hot), lanes=1) == pytest.approx(80.0, rel=0.1)


def test_what_an_attempt_says_of_its_progress_is_believed() -> None:
    """A tenth done after 20 seconds is another 180, whatever the others took."""
    at = stage(51, 50, 1, elapsed=20.0)
    at.going.progress[0] = 0.1

    assert middle(at, lanes=1) == pytest.approx(180.0, rel=0.1)


def test_stages_to_come_are_those_of_earlier_runs() -> None:
    """A job that is at its only known stage still has the one before it that every earlier run had."""
    first, second = StageRun("map", 100, 1000.0, 10.0, 12.0, 0, 100), StageRun("sort", 50, 1000.0, 20.0, 22.0, 100, 200)
    runs = [Run(200.0, [first, second])] * 6
    lanes = Lanes(tuple(range(10)), full=True)
    alone, knowing = (predict([stage(100, 50, 10)], lanes, past) for past in (NO_PAST, learn(runs)))

    assert alone is not None
    assert knowing is not None
    assert knowing.middle - alone.middle == pytest.approx(105, rel=0.15)
    nothing = predict([], Lanes(), learn(runs))
    assert nothing is not None
    assert nothing.middle == pytest.approx(200.0)


def test_nothing_is_foretold_where_nothing_is_known() -> None:
    """No shard has finished and no run was before: anything may come."""
    assert predict([], Lanes()) is None
    assert predict([stage(100, 0, 10)], Lanes(tuple(range(10)), full=True)) is None


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.03, 2.0))
def test_survival_falls_from_one_to_nothing(one: float, two: float, shape: float) -> None:
    """Longer is never likelier."""
    low, high = sorted((one, two))
    found = survival(np.array([0.0, low, high]), np.array(5.0), np.array(shape))

    assert found[0] == pytest.approx(1.0)
    assert 1.0 >= found[1] >= found[2] >= 0.0


SAID = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200), st.floats(0, 200)), max_size=60)


@given(SAID)
def test_a_charge_turns_no_more_often_than_evidence_allows(said: list[tuple[float, float, float]]) -> None:
    """However predictions jump: evidence takes its time for every turn, and past the deadline it is charged."""
    doubt, turned = Doubt(), 0
    for second, bounds in enumerate(said):
        before, doubt = doubt, consider(doubt, Prediction(*sorted(bounds)), float(second), 100.0, 100.0)
        if doubt.charged != before.charged:
            needed = NEEDED_SHARE / MOST_WEIGHT if doubt.charged else WITHDRAWN_SHARE
            assert second - turned >= needed * 100
            turned = second

    assert consider(doubt, None, 100.1, 100.0, 100.0).charged


@given(SAID, st.floats(0.1, 10.0))
def test_a_charge_opens_when_some_stretch_of_time_has_spoken_for_it(
    said: list[tuple[float, float, float]], step: float
) -> None:
    """The sum is that of the worst stretch up to now, found by trying every beginning."""
    doubt, terms = Doubt(), [0.0]
    for look, bounds in enumerate(said):
        low, middle, high = sorted(bounds)
        now = look * step
        doubt = consider(doubt, Prediction(low, middle, high), now, 1000.0, 1000.0)
        weight = (middle - (1000.0 - now)) / max(middle - low, 10.0)
        terms.append(min(max(weight, -1.0), MOST_WEIGHT) * min(step, MOST_STEP_SHARE * 1000) if look else 0.0)
        worst = max(sum(terms[first:]) for first in range(len(terms)))
        if doubt.charged:
            assert worst > NEEDED_SHARE * 1000
            return
        assert doubt.evidence == pytest.approx(max(0.0, worst), abs=1e-6)
        assert worst <= NEEDED_SHARE * 1000 + 1e-6


def test_a_charge_is_opened_and_withdrawn() -> None:
    """What is far too late is charged soon, what is a little too late is charged later, and both are withdrawn."""

    def turn(doubt: Doubt, middle: float) -> tuple[int, Doubt]:
        for second in range(60):
            after = consider(doubt, Prediction(middle - 10, middle, middle + 10), float(second), 100.0, 100.0)
            if after.charged != doubt.charged:
                return second, Doubt(after.charged)
            doubt = after
        return 60, doubt

    soon, charged = turn(Doubt(), 150.0)
    late, _ = turn(Doubt(), 85.0)
    assert (soon, late) == (6, 27)  # 5 x 1.5, and (1 + ... + 12) / 10 from the second on in which it is late
    assert turn(charged, 30.0)[0] == 4
    assert turn(Doubt(), 30.0) == (60, Doubt(False, 0.0, 59.0))


@pytest.fixture(scope="module")
def some() -> list[tuple[Stand, list[Played]]]:
    """Runs of two pipelines, all faults among them, at which is looked less often than an aggregator does."""
    return list(play_all(8, 56, looks=25))


def test_of_simulated_runs_the_late_are_charged_early_and_the_others_hardly_ever(
    some: list[tuple[Stand, list[Played]]],
) -> None:
    """A share of what `bench/predict.py` shows over thousands; so few runs that the bounds leave room for chance."""
    found = score([each for _, played in some for each in played])

    assert found.late > 10
    assert found.caught >= 0.75 * found.late
    assert found.false <= 0.08 * found.in_time
    assert 0.75 <= found.inside / found.said <= 0.99


def test_every_charge_is_settled_and_every_job_has_its_verdict(some: list[tuple[Stand, list[Played]]]) -> None:
    """As many charges end as were opened, none stands, and the verdicts are those that the runs call for."""
    for stand, played in some:
        assert sum(stand.settled().values()) == stand.opened
        assert stand.settled()[ChargeEnd.VOID] == 0
        assert stand.foreteller.standing(stand.slo.full_name) == 0
        assert stand.foreteller.state.jobs == {}
        verdicts = stand.verdicts()
        assert sum(verdicts.values()) == stand.jobs
        assert verdicts[Foresight.CAUGHT] == sum(each.late and bool(each.charged) for each in played)
        assert verdicts[Foresight.FALSE_ALARM] >= sum(bool(each.charged) for each in played if not each.late)


def test_the_simulator_keeps_its_own_rules(some: list[tuple[Stand, list[Played]]]) -> None:
    """No lane runs two attempts at once, every shard is committed once, and an onlooker sees no more than happened."""
    stand, _ = some[0]
    trace = simulate(stand.pipeline, Conditions(lost_nodes=1, lost_at=stand.usual / 3), np.random.default_rng(1))
    good = [each for each in trace.attempts if each.ok]
    assert len(good) == sum(shape.shards for shape in stand.pipeline.stages)
    for moment in np.linspace(0, trace.end, 20).tolist():
        running = [each for each in trace.attempts if each.start <= moment < each.end]
        nodes = [sum(each.node == node for each in running) for node in range(stand.pipeline.nodes)]
        assert max(nodes) <= stand.pipeline.lanes
        assert sum(len(each.going) for each in seen(trace, trace.columns(), moment)) == len(running)
    assert not any(each.node == 0 and each.start >= stand.usual / 3 for each in trace.attempts)
