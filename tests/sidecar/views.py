"""Views for tests and benchmarks of what is shown: pipelines of three stages with something in every family."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mppobs.catalog.foresight import ChargeEnd, Foresight, Weight
from mppobs.model import AttemptOutcome, CostKind, JobKey, JobOutcome, ShardOutcome, StragglerCause, Tier
from mppobs.sidecar.aggregates import (
    ClusterTotals,
    Exemplar,
    Histogram,
    PipelineKey,
    PipelineTotals,
    SelfTotals,
    StageKey,
    StageTotals,
)  # fmt: skip
from mppobs.sidecar.view import (
    ForesightFigures,
    Live,
    LiveAttempt,
    LivePipeline,
    LiveRun,
    LiveStraggler,
    SloFigures,
    ToolFigures,
    View,
)  # fmt: skip
from mppobs.slo.evaluate import Tally
from mppobs.slo.model import Counts, IndicatorKind, Slo

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def full_view(pipelines: int, stages: int = 3) -> View:
    """A view in which every family of the catalogue has samples for every pipeline and stage."""
    keys = [PipelineKey("default", "default", f"pipeline-{number}") for number in range(pipelines)]
    stage_keys = [StageKey(*key, f"stage-{number}") for key in keys for number in range(stages)]
    own = SelfTotals({"attempt": 9}, {"attempt": 1}, {"attempt": 2}, {"text": 1}, {"mpp_shards_total": 1})
    tool = ToolFigures(1.5, 2 * SECOND, 7, 100, 200, 3, {"token": 1}, 10, {"sampled": 4, "cap": 0, "export": 1}, 6, 1)
    return View(
        pipelines={key: _pipeline(key) for key in keys},
        stages={key: _stage(key) for key in stage_keys},
        clusters={"default": ClusterTotals("default", {"worker_lost": 2})},
        own=own,
        live=_live(keys),
        slos=[_slo(key) for key in keys[:2]],
        tool=tool,
    )


def _slo(key: PipelineKey) -> SloFigures:
    slo = Slo("team", key.pipeline, IndicatorKind.ON_TIME, Fraction(95, 100), 30, key.pipeline, "default", owner="data")
    windows = {"30d": Counts(40, 1)}
    tally = Tally(slo.full_name, "", slo.objective, NOW - 3600 * SECOND, 1, Counts(50, 2), latched=True)
    settled = {**dict.fromkeys(ChargeEnd, 0), ChargeEnd.BAD: 2}
    verdicts = {**dict.fromkeys(Foresight, 3), Foresight.CAUGHT: 1}
    foresight = ForesightFigures(settled, verdicts, runs=10, coverage=0.875)
    return SloFigures(slo, tally, True, Fraction(1, 2), windows, 1, foresight)


def _fill(histogram: Histogram) -> None:
    for number, bound in enumerate((*histogram.bounds, 2 * histogram.bounds[-1])):
        value = round(bound * SECOND)
        histogram.observe(value, Exemplar("job-1", str(number), 2**127 + number, bound, NOW))


def _pipeline(key: PipelineKey) -> PipelineTotals:
    totals = PipelineTotals(key, owner="data", tier=Tier.CRITICAL)
    totals.jobs[JobOutcome.SUCCESS] = 5
    for histogram in (totals.durations, totals.queue, totals.delays):
        _fill(histogram)
    totals.job_shuffle.observe(4096)
    totals.job_cost.observe(1_250_000_000_000)
    totals.baseline_ratio = 1.25
    totals.network_errors["unspecified"] = 3
    totals.storage_throttled["unspecified"] = 4
    totals.throttled_ns = 1_500_000_000
    totals.oom_kills = 1
    totals.cost_pusd[CostKind.USEFUL] = 1_000_000_000_001
    totals.heartbeat_ns = NOW
    return totals


def _stage(key: StageKey) -> StageTotals:
    totals = StageTotals(key, retries=2, cpu_ns=3, cpu_wall_ns=10 * SECOND, shuffle_read=7, shuffle_written=8)
    totals.shards[ShardOutcome.COMMITTED] = 11
    totals.attempts[AttemptOutcome.SUCCESS] = 12
    totals.activity_ns["other"] = SECOND
    totals.skew_idle_ratio = 0.25
    _fill(totals.durations)
    for minutes in range(50, -1, -10):  # every slice of the window
        totals.sketch.add(np.array([1, 2, 10], dtype=np.int64) * SECOND, NOW - minutes * 60 * SECOND)
    return totals


def _live(keys: list[PipelineKey]) -> Live:
    job = JobKey("default", "default", "job-1", NOW)
    stragglers = {**dict.fromkeys(StragglerCause, 0), StragglerCause.SKEW: 1}
    pipelines = {
        key: LivePipeline(
            {"pending": 0, "running": 1},
            {"pending": 3, "running": 2},
            stragglers,
            1,
            12.5,
            9,
            10,
            {"0.9": 0.5, "1": 0.75},
        )
        for key in keys
    }
    attempt = LiveAttempt(StageKey(*keys[0], "stage-0"), job, 7, 0, False, NOW - 9 * SECOND, 0.5, NOW, 0, "w", "n")
    return Live(
        pipelines=pipelines,
        runs=[_run(keys[0], job)],
        stragglers=[LiveStraggler(attempt, 9.0, 4.0, StragglerCause.SKEW, "its input is large")],
        attempts=[attempt],
        workers={"default": {"idle": 1, "busy": 2, "draining": 0}},
        journals={"live": 2, "dead": 1},
    )


def _run(key: PipelineKey, job: JobKey) -> LiveRun:
    return LiveRun(
        key, job, "data", Tier.CRITICAL, "running", NOW, 0.5, NOW + 3 * SECOND, NOW + 2 * SECOND,
        (NOW + SECOND, NOW + 5 * SECOND), Weight.CHARGE, SECOND,
    )  # fmt: skip
