"""The fold against its oracle on random histories: every total, every running and every judged job, to the unit."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from mppobs.catalog.metrics import DELAY_BUCKETS, JOB_BUCKETS, QUEUE_BUCKETS, SHARD_BUCKETS
from mppobs.cost.prices import NodePrice, PriceList
from mppobs.journal.columns import words_of
from mppobs.sidecar import fold_columns
from mppobs.sidecar.aggregates import Histogram, PipelineTotals, StageTotals
from mppobs.sidecar.fold import Fold, FoldSettings
from mppobs.sidecar.running import DecidedJob, JobStage, RunningJob
from mppobs.sidecar.slis import LiveFigures, report
from mppobs.sidecar.tables import COMMITTED, FAILED, LOST, PENDING, SPLIT
from tests import oracle
from tests.histories import History, Round, history, recut

PRICES = PriceList(
    default=NodePrice(0.4, 0.1), node_types={"big": NodePrice(7.3, 2.9), "small": NodePrice(0.05, 0.05)},
    shuffle_usd_per_gb=0.013,
)  # fmt: skip
PLAIN_PRICES = {
    (name, spot): PRICES.usd_per_hour(name, spot=spot) for name in ("", "big", "small") for spot in (False, True)
}
STATES = {PENDING: "pending", COMMITTED: "committed", FAILED: "failed", LOST: "lost", SPLIT: "split"}
QUICK = range(24)


def told(story: History) -> oracle.Oracle:
    """Return the oracle after a history."""
    judge = oracle.Oracle(PLAIN_PRICES, PRICES.shuffle_usd_per_gb)
    for each in story.rounds:
        judge.round(each.pieces, each.now)
    return judge


def folded(story: History) -> tuple[Fold, list[DecidedJob]]:
    """Return the fold after a history, and the jobs that it judged."""
    fold = Fold(FoldSettings(), PRICES)
    for each in story.rounds:
        fold.round(each.blocks, each.now)
    return fold, fold.take_decided()


def positive(counts: Mapping[Any, int]) -> dict[str, int]:
    """Return the counts that are not 0, by name."""
    return {str(name): count for name, count in counts.items() if count}


def buckets(bounds: Sequence[float], values: Sequence[int]) -> tuple[list[int], int]:
    """Return a histogram's counts and sum."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value / 1e9)] += 1
    return counts, sum(values)


def of_histogram(histogram: Histogram) -> tuple[list[int], int]:
    """Return a histogram's counts and sum; every exemplar must be in its bucket."""
    for place, exemplar in enumerate(histogram.exemplars):
        if exemplar is not None:
            assert histogram.counts[place] > 0
            assert bisect_left(histogram.bounds, exemplar.value) == place
    return histogram.counts, histogram.sum_ns


def check_pipeline(mine: PipelineTotals, told: Mapping[str, Any]) -> None:
    """Hold a pipeline's totals against the oracle's."""
    assert (mine.owner, mine.tier) == (told["owner"], told["tier"] or mine.tier)
    assert positive(mine.jobs) == positive(told["jobs"])
    assert of_histogram(mine.durations) == buckets(JOB_BUCKETS, told["job_durations"])
    assert of_histogram(mine.queue) == buckets(QUEUE_BUCKETS, told["queue"])
    assert of_histogram(mine.delays) == buckets(DELAY_BUCKETS, told["delays"])
    assert (mine.job_shuffle.count, mine.job_shuffle.total) == (len(told["shuffled"]), sum(told["shuffled"]))
    assert list(mine.baseline) == told["baseline"][-20:]
    assert mine.baseline_ratio == told["baseline_ratio"]
    assert positive(mine.network_errors) == positive(told["network"])
    assert positive(mine.storage_throttled) == positive(told["storage"])
    assert (mine.throttled_ns, mine.oom_kills, mine.heartbeat_ns) == (told["throttled"], told["oom"], told["heartbeat"])
    assert positive(mine.cost_pusd) == positive(told["cost"])
    assert (mine.job_cost.count, mine.job_cost.total) == (len(told["job_cost"]), sum(told["job_cost"]))
    assert (mine.recorded, mine.dispatched) == (told["recorded"], told["dispatched"])


def check_stage(mine: StageTotals, told: Mapping[str, Any], now: int) -> None:
    """Hold a stage's totals against the oracle's."""
    assert positive(mine.shards) == positive(told["shards"])
    assert positive(mine.attempts) == positive(told["attempts"])
    for name in ("retries", "cpu_ns", "cpu_wall_ns", "wall_ns", "shuffle_read", "shuffle_written", "rows"):
        assert getattr(mine, name) == told["sums"][name], name
    assert positive(mine.activity_ns) == positive(told["activities"])
    assert mine.skew_idle_ratio == told["skew"]
    durations = [value for _, value in told["durations"]]
    assert of_histogram(mine.durations) == buckets(SHARD_BUCKETS, durations)
    window = sorted(value for at, value in told["durations"] if at // (600 * 10**9) > now // (600 * 10**9) - 6)
    assert mine.sketch.count(now) == len(window)
    for q in (0.5, 0.95, 0.99):
        value = mine.sketch.quantile(q, now)
        if window:
            exact = max(1, window[max(1, math.ceil(q * len(window))) - 1]) / 1e9
            assert value is not None
            assert abs(value / exact - 1) <= 0.0101


def check_shards(mine: JobStage, told: oracle.Stage, job: RunningJob | DecidedJob) -> None:
    """Hold the shards of a job's stage against the oracle's, column by column."""
    columns = mine.columns()
    keys = columns.index.keys().tolist()
    assert sorted(keys) == sorted(told.shards)
    for row, (key, name) in enumerate(zip(keys, columns.shards(), strict=True)):
        shard = told.shards[key]
        assert name == shard.name
        assert STATES[int(columns.state[row])] == shard.state
        assert int(columns.decided[row]) == shard.decided
        assert int(columns.first_start[row]) == shard.first_start
        assert int(columns.winner[row]) == shard.winner
        assert int(columns.attempts[row]) == len(shard.attempts)
        assert int(columns.own[row]) == sum(1 << number for number in shard.recorded)
        assert int(columns.dispatched[row]) == sum(1 << number for number in shard.dispatched)
        assert job.errors[int(columns.error[row])] == shard.error
        assert list(oracle.Reason)[int(columns.reason[row])] is shard.reason
        assert (list(oracle.AttemptOutcome)[columns.last_outcome[row] - 1] if shard.last else None) is shard.last
        check_shown(columns, row, shard, job)


def check_shown(columns: Any, row: int, shard: oracle.Shard, job: RunningJob | DecidedJob) -> None:
    """Hold what stands for a shard, its first success or else its newest attempt, against the oracle's."""
    good = [each for each in shard.attempts if each[0].outcome is oracle.AttemptOutcome.SUCCESS]
    shown = good[0] if good else shard.attempts[-1] if shard.attempts else None
    if shown is None:
        assert int(columns.worker[row]) == 0
        return
    record, worker = shown
    assert job.workers[int(columns.worker[row]) - 1] == worker
    assert columns.wall[row] == np.float32(record.duration_ns)
    assert columns.read[row] == np.float32(record.shuffle_read)
    assert columns.written[row] == np.float32(record.shuffle_written)
    assert np.isnan(columns.cpu[row]) if record.cpu_ns is None else columns.cpu[row] == np.float32(record.cpu_ns)


def check_job(mine: RunningJob | DecidedJob, told: oracle.Job) -> None:
    """Hold a job against the oracle's."""
    assert [mine.key.incarnation, *mine.aliases] == told.incarnations
    assert mine.context == told.context
    assert (mine.start_ns, mine.end_ns, mine.outcome) == (told.start, told.end, told.outcome)
    assert (mine.reason, mine.error_type, mine.deadline_ns) == (told.reason, told.error, told.deadline)
    assert (mine.implicit, mine.coordinated) == (told.implicit, told.coordinated)
    assert positive(mine.cost_pusd) == positive(told.cost)
    assert (mine.network_errors, mine.storage_throttled) == (told.errors["network"], told.errors["storage"])
    assert mine.vanished == told.vanished
    assert sorted(mine.stages) == sorted(told.stages)
    for name, stage in mine.stages.items():
        other = told.stages[name]
        assert (stage.planned, stage.plan_final, stage.seen) == (other.planned, other.final, other.seen())
        assert positive(stage.shards) == positive(other.outcomes)
        assert positive(stage.attempts) == positive(other.attempts)
        sums = ("retries", "cpu_ns", "cpu_wall_ns", "wall_ns", "shuffle_read", "shuffle_written", "rows")
        for field in (*sums, "output_bytes", "output_rows"):
            assert getattr(stage, field) == other.sums[field], field
        assert positive(stage.activity_ns) == positive(other.activities)
        assert (stage.dispatched, stage.recorded) == other.marks()[:2]
        assert stage.skew_idle_ratio == other.skew
        check_shards(stage, other, mine)


def check_own(fold: Fold, judge: oracle.Oracle) -> None:
    """Hold the tool's own counts against the oracle's."""
    assert positive(fold.own.records) == positive(judge.folded)
    assert positive(fold.own.late) == positive(judge.late)
    assert positive(fold.own.dropped) == positive(judge.dropped)
    mine = Counter(fold.own.invalid)
    undecodable = sum(mine.pop(name, 0) for name in ("malformed", "unknown_code", "unknown_kind", "unknown_text"))
    assert undecodable == judge.invalid["undecodable"]
    expected = {name: count for name, count in judge.invalid.items() if name != "undecodable"}
    assert positive(mine) == positive(expected)


def check(fold: Fold, decided: Sequence[DecidedJob], judge: oracle.Oracle) -> None:
    """Hold everything against the oracle's."""
    check_own(fold, judge)
    assert {cluster: totals.workers_lost for cluster, totals in fold.clusters.items()} == judge.lost
    assert sorted(fold.pipelines) == sorted(judge.pipelines)
    for pipeline, totals in fold.pipelines.items():
        check_pipeline(totals, judge.pipelines[pipeline])
    assert sorted(fold.stages) == sorted(judge.stages)
    for stage, figures in fold.stages.items():
        check_stage(figures, judge.stages[stage], judge.now)
    assert len(decided) == len(judge.judged)
    for mine, told in zip(decided, judge.judged, strict=True):
        check_job(mine, told)
        assert mine.settled_ns == told.settled_at
    running = {(*job.base, job.incarnations[0]): job for job in judge.running}
    assert sorted(map(astuple, fold.running)) == sorted(running)
    for key, job in fold.running.items():
        other = running[astuple(key)]
        check_job(job, other)
        assert (job.orphaned_ns, job.heartbeat_ns, job.checkpoint_ns) == (
            other.orphaned,
            other.heartbeat,
            other.checkpoint,
        )
        assert (job.ended_ns, job.last_record_ns, job.lease_ns) == (other.ended_at, other.touched_at, other.lease)


@pytest.mark.parametrize("seed", QUICK)
def test_every_figure_equals_an_independent_recomputation(seed: int) -> None:
    """Whatever happens, every total, every running and every judged job equals folding record by record."""
    story = history(seed)
    check(*folded(story), told(story))


@pytest.mark.parametrize("seed", range(50, 54))
def test_how_many_records_are_folded_at_a_time_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long rounds are folded in batches; in tiny ones everything is the same."""
    monkeypatch.setattr(fold_columns, "BATCH", 5)
    story = history(seed)
    check(*folded(story), told(story))


@pytest.mark.parametrize("seed", range(60, 64))
def test_the_indicators_equal_an_independent_recomputation(seed: int) -> None:
    """M1 to M12 of each pipeline, but for what only the present moment shows, from the lists of the oracle alone."""
    story = history(seed, steps=120)
    fold, _ = folded(story)
    judge = told(story)
    for pipeline, totals in fold.pipelines.items():
        stages = [stage for key, stage in fold.stages.items() if key.of_pipeline == pipeline]
        found = report(totals, stages, LiveFigures(), judge.now).by_key()
        mine = {name: value.value for name, value in found.items()}
        plain = recomputed(judge, pipeline)
        p99 = plain.pop("M3")
        assert mine["M3"] == (None if p99 is None else pytest.approx(p99, rel=0.0101))
        for name, value in plain.items():
            assert mine[name] == (None if value is None else pytest.approx(value, rel=1e-12)), name


def recomputed(judge: oracle.Oracle, pipeline: tuple[str, ...]) -> dict[str, float | None]:
    """Return the indicators of a pipeline from what the oracle observed."""
    totals = judge.pipelines[pipeline]
    stages = [figures for key, figures in judge.stages.items() if key[:3] == pipeline]
    shards = sum((stage["shards"] for stage in stages), Counter())
    sums = sum((stage["sums"] for stage in stages), Counter())
    durations = sorted(max(1, value) for stage in stages for _, value in stage["durations"])
    return {
        "M1": mean(totals["job_durations"], 1e9),
        "M2": ratio(shards["committed"], sum(shards.values())),
        "M3": durations[math.ceil(0.99 * len(durations)) - 1] / 1e9 if durations else None,
        "M4": mean(totals["shuffled"], 1),
        "M5": sum(totals["network"].values()),
        "M6": ratio(sums["cpu_ns"], sums["cpu_wall_ns"]),
        "M8": ratio(sums["retries"], shards["committed"]),
        "M9": mean(totals["job_cost"], 1e12),
        "M10": mean(totals["delays"], 1e9),
        "M12": totals["jobs"]["failure"] + totals["jobs"]["error"],
    }


def mean(values: Sequence[int], unit: float) -> float | None:
    """Return the average in a unit, `None` of nothing."""
    return sum(values) / unit / len(values) if values else None


def ratio(part: float, whole: float) -> float | None:
    """Return a ratio, `None` where there is nothing to divide by."""
    return part / whole if whole else None


def ends_of(story: History) -> dict[tuple[str, int], set[int]]:
    """Return by segment where a block may end."""
    return {
        (name, segment.index): set(segment.ends)
        for name, scribe in story.journals.items()
        for segment in scribe.segments
    }


def totals_of(fold: Fold) -> dict[str, Any]:
    """Return all totals as plain values that can be compared."""
    return {"pipelines": fold.pipelines, "stages": fold.stages, "clusters": fold.clusters, "own": fold.own}


@pytest.mark.parametrize("seed", range(100, 106))
def test_how_a_round_is_cut_into_blocks_changes_nothing(seed: int) -> None:
    """The same rounds in finer blocks give the same totals, checkpoints and judged jobs."""
    story = history(seed)
    fold, decided = folded(story)
    ends, rng = ends_of(story), random.Random(seed)
    finer = Fold(FoldSettings(), PRICES)
    for each in story.rounds:
        finer.round(recut(each.blocks, rng, ends), each.now)
    assert totals_of(finer) == totals_of(fold)
    assert finer.dump_running() == fold.dump_running()
    check(finer, finer.take_decided(), told(story))
    assert len(decided) == len(told(story).judged)


@pytest.mark.parametrize("seed", range(200, 206))
def test_a_stop_in_between_changes_nothing(seed: int) -> None:
    """Loading a checkpoint, learning the open segments again and folding on equals never having stopped."""
    story = history(seed)
    rng = random.Random(seed)
    fold = Fold(FoldSettings(), PRICES)
    decided: list[DecidedJob] = []
    for each in story.rounds:
        fold.round(each.blocks, each.now)
        decided += fold.take_decided()
        if rng.random() < 0.3:
            fold = restarted(fold, story, each)
    check(fold, decided, told(story))


def restarted(fold: Fold, story: History, last: Round) -> Fold:
    """Return a new fold from the checkpoint of another, as a new process would make it."""
    again = Fold(FoldSettings(), PRICES)
    again.load_totals(fold.pipelines, fold.stages, fold.clusters, fold.own)
    again.load_running(fold.dump_running())
    position: dict[str, tuple[int, int]] = {}
    for each in story.rounds[: story.rounds.index(last) + 1]:
        for block in each.blocks:
            position[block.journal] = (block.segment, block.first + len(block.words))
    for journal, (segment, end) in position.items():
        data = bytes(story.journals[journal].segments[segment].data)
        again.prime(journal, words_of(data)[:end])
    return again


@pytest.mark.parametrize("seed", range(300, 303))
def test_replaying_rounds_over_a_checkpoint_rebuilds_what_runs(seed: int) -> None:
    """Totals of the end, the checkpoint of the middle and the rounds after it give the state of the end."""
    story = history(seed)
    middle = len(story.rounds) // 2
    fold = Fold(FoldSettings(), PRICES)
    for each in story.rounds[:middle]:
        fold.round(each.blocks, each.now)
    fold.take_decided()
    again = restarted(fold, story, story.rounds[middle - 1]) if middle else Fold(FoldSettings(), PRICES)
    whole, decided = folded(story)
    again.load_totals(deepcopy(whole.pipelines), deepcopy(whole.stages), deepcopy(whole.clusters), deepcopy(whole.own))
    for each in story.rounds[middle:]:
        again.round(each.blocks, each.now)
    again.load_totals(whole.pipelines, whole.stages, whole.clusters, whole.own)
    assert again.dump_running() == whole.dump_running()
    check(again, decided, told(story))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_every_figure_equals_an_independent_recomputation_in_long_histories(seed: int) -> None:
    """Likewise, over hundreds of rounds."""
    story = history(seed, steps=400)
    check(*folded(story), told(story))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2100))
def test_how_long_histories_are_cut_and_stopped_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other blocks, tiny batches and restarts, all at once."""
    monkeypatch.setattr(fold_columns, "BATCH", 1 + seed % 17)
    story, rng = history(seed, steps=300), random.Random(seed)
    ends = ends_of(story)
    fold = Fold(FoldSettings(), PRICES)
    decided: list[DecidedJob] = []
    for each in story.rounds:
        fold.round(recut(each.blocks, rng, ends), each.now)
        decided += fold.take_decided()
        if rng.random() < 0.1:
            fold = restarted(fold, story, each)
    check(fold, decided, told(story))
