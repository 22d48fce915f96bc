"""The report of M1 to M12: each figure against a second, naive computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.catalog.indicators import INDICATORS
from mppobs.model import AttemptOutcome, CostKind, JobOutcome, ShardOutcome
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals, StageKey, StageTotals
from mppobs.sidecar.slis import LiveFigures, report

KEY = PipelineKey("c", "t", "p")
NOW = 1_700_000_000 * 10**9
SECOND = 10**9


def stage(name: str) -> StageTotals:
    """Return an empty stage."""
    return StageTotals(StageKey(*KEY, name))


def test_of_a_pipeline_that_did_nothing_nothing_is_known() -> None:
    """No ratio of nothing; counts are 0, everything else is `None`."""
    values = report(PipelineTotals(KEY), [], LiveFigures(), NOW).by_key()
    assert list(values) == [indicator.key for indicator in INDICATORS]
    assert {key for key, value in values.items() if value.value is not None} == {"M5", "M12"}


@settings(max_examples=50, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.sampled_from(JobOutcome), st.integers(0, 10**13), st.integers(0, 10**15)), max_size=20),
    shards=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ShardOutcome), st.integers(0, 5)), max_size=50),
)
def test_figures_are_sums_divided_last(
    jobs: list[tuple[JobOutcome, int, int]], shards: list[tuple[int, ShardOutcome, int]]
) -> None:
    """Means and ratios over everything, not means of means or ratios of ratios."""
    totals = PipelineTotals(KEY)
    for outcome, duration, cost in jobs:
        totals.jobs[outcome] += 1
        totals.durations.observe(duration)
        totals.job_cost.observe(cost)
    stages = [stage(name) for name in "abc"]
    for number, decided, retries in shards:
        stages[number].shards[decided] += 1
        stages[number].retries += retries
    values = {key: value.value for key, value in report(totals, stages, LiveFigures(), NOW).by_key().items()}
    committed = sum(1 for _, decided, _ in shards if decided is ShardOutcome.COMMITTED)
    assert values["M1"] == (pytest.approx(sum(job[1] for job in jobs) / 1e9 / len(jobs)) if jobs else None)
    assert values["M2"] == (pytest.approx(committed / len(shards)) if shards else None)
    assert values["M8"] == (pytest.approx(sum(each[2] for each in shards) / committed) if committed else None)
    assert values["M9"] == (pytest.approx(sum(job[2] for job in jobs) / 1e12 / len(jobs)) if jobs else None)
    assert values["M12"] == sum(job[0] in (JobOutcome.FAILURE, JobOutcome.ERROR) for job in jobs)


def test_the_tail_is_of_all_shards_and_of_each_stage() -> None:
    """The merged p99 is within 1 % of the exact one; each stage keeps its own tail."""
    chance = np.random.default_rng(7)
    durations = {"map": chance.lognormal(0, 1, 5000), "reduce": chance.lognormal(2, 0.5, 500)}
    stages = []
    for name, seconds in durations.items():
        stages.append(stage(name))
        stages[-1].sketch.add((seconds * 1e9).astype(np.int64), NOW)
    tail = report(PipelineTotals(KEY), stages, LiveFigures(), NOW).by_key()["M3"]
    parts = {part.name: part.value for part in tail.parts}
    everything = np.concatenate(list(durations.values()))
    assert tail.value == pytest.approx(np.quantile(everything, 0.99, method="inverted_cdf"), rel=0.01)
    assert tail.value == parts["p99"]
    exact = np.quantile(durations["map"], [0.5, 0.99], method="inverted_cdf")
    assert parts["map p50"] == pytest.approx(exact[0], rel=0.01)
    assert parts["map tail"] == pytest.approx(exact[1] / exact[0], rel=0.021)


def test_every_other_indicator_comes_from_its_own_totals() -> None:
    """Typed in, and read off."""
    totals = PipelineTotals(KEY)
    totals.queue.observe(3 * SECOND)
    totals.delays.observe(SECOND // 2)
    totals.delays.observe(SECOND // 4)
    totals.job_shuffle.observe(100)
    totals.job_shuffle.observe(300)
    totals.baseline_ratio = 1.5
    totals.network_errors.update(timeout=2, reset=3)
    totals.throttled_ns = 5 * SECOND
    totals.oom_kills = 2
    totals.cost_pusd[CostKind.RETRY] = 4 * 10**12
    mapped = stage("map")
    mapped.cpu_ns, mapped.cpu_wall_ns = 30 * SECOND, 40 * SECOND
    mapped.shuffle_read, mapped.shuffle_written = 7, 9
    mapped.attempts[AttemptOutcome.SUCCESS] = 6
    values = report(totals, [mapped], LiveFigures(0.9, 0.6, 12.5), NOW).by_key()
    assert {key: values[key].value for key in ("M4", "M5", "M6", "M7", "M10", "M11")} == {
        "M4": 200, "M5": 5, "M6": 0.75, "M7": 0.9, "M10": 0.375, "M11": 12.5,
    }  # fmt: skip
    parts = {(key, part.name): part.value for key, value in values.items() for part in value.parts}
    assert parts["M1", "mean queue wait"] == 3
    assert (parts["M4", "read"], parts["M4", "written"], parts["M4", "last job ÷ baseline"]) == (7, 9, 1.5)
    assert (parts["M5", "timeout"], parts["M5", "reset"]) == (2, 3)
    assert (parts["M6", "throttled"], parts["M7", "p90"], parts["M7", "oom kills"]) == (5, 0.6, 2)
    assert (parts["M8", "attempts"], parts["M9", "retry"], parts["M9", "total"]) == (6, 4, 4)
