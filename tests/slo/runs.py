"""
Runs of pipelines, simulated shard by shard: list scheduling on lanes, with faults. Shares nothing with the predictor.

Each lane takes the next shard of the queue as soon as it is free; a stage begins when the one before has ended. What
a run leaves is a list of attempts with their times, of which `seen` shows what an onlooker knows at any moment.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mppobs.slo.past import Run, StageRun
from mppobs.slo.progress import Finished, Going, StageNow, progress_now

Numbers = NDArray[np.float64]


class Fault(StrEnum):
    """What goes wrong in a run."""

    NONE = "none"
    FEW_WORKERS = "too few workers"
    SKEW = "skew"
    SLOW_NODE = "a slow node"
    LATE_START = "a late start"
    NODES_LOST = "half of the nodes lost"


@dataclass(frozen=True)
class StageShape:
    """One stage of a pipeline, as it usually is."""

    name: str
    shards: int
    seconds: float
    """Of a shard of the usual size."""
    noise: float
    """Of the logarithm of the time of shards of one size."""
    sizes: float
    """The same of their sizes."""
    fixed: float
    """Share of the time that does not grow with the size."""


@dataclass(frozen=True)
class Pipeline:
    """A recurring job, and what an onlooker gets to know of it."""

    stages: tuple[StageShape, ...]
    nodes: int
    lanes: int
    """To a node."""
    drift: float
    """Of the logarithm of a run's work."""
    failing: float
    """Chance that an attempt fails."""
    tells_sizes: bool
    tells_progress: bool
    plans_ahead: bool
    """Whether stages are planned before they begin."""


@dataclass
class Attempt:
    """One try at a shard."""

    stage: int
    size: float
    start: float
    end: float
    ok: bool
    failed: bool
    """By its own fault, and not with its node."""
    node: int


@dataclass(frozen=True)
class Conditions:
    """What a run meets with. Times in seconds since its submission."""

    fault: Fault = Fault.NONE
    start: float = 0.0
    nodes: int = 0
    slow_nodes: int = 0
    slow_factor: float = 1.0
    slow_from: float = 0.0
    lost_nodes: int = 0
    lost_at: float = 0.0
    hot_shards: int = 0
    hot_factor: float = 1.0


@dataclass
class Trace:
    """Everything that happened in a run."""

    pipeline: Pipeline
    sizes: list[Numbers]
    attempts: list[Attempt] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0

    def columns(self) -> dict[str, Numbers]:
        """Return the attempts as columns."""
        return {
            name: np.array([float(getattr(each, name)) for each in self.attempts])
            for name in ("stage", "size", "start", "end", "ok", "failed", "node")
        }

    def run(self) -> Run:
        """Return the run as those after it look back at it."""
        stages = []
        for number, shape in enumerate(self.pipeline.stages):
            mine = [each for each in self.attempts if each.stage == number]
            good = np.array([each.end - each.start for each in mine if each.ok])
            stages.append(
                StageRun(
                    shape.name, len(good), sum(each.end - each.start for each in mine), float(np.median(good)),
                    float(np.quantile(good, 0.99)), min(each.start for each in mine) - self.start,
                    max(each.end for each in mine) - self.start,
                )
            )  # fmt: skip
        return Run(self.end - self.start, stages)


def any_pipeline(chance: np.random.Generator) -> Pipeline:
    """Return a pipeline of one to three stages."""
    stages = tuple(
        StageShape(
            f"stage-{number}", round(float(np.exp(chance.uniform(np.log(30), np.log(300))))),
            float(np.exp(chance.uniform(np.log(5), np.log(60)))), chance.uniform(0.05, 0.3), chance.uniform(0.05, 0.5),
            chance.uniform(0.0, 0.5),
        )
        for number in range(chance.integers(1, 4))
    )  # fmt: skip
    return Pipeline(
        stages, int(chance.integers(4, 13)), int(chance.integers(1, 5)), chance.uniform(0.02, 0.12),
        float(chance.choice([0.0, 0.01, 0.03])), bool(chance.random() < 0.8), bool(chance.random() < 0.3),
        bool(chance.random() < 0.5),
    )  # fmt: skip


def any_conditions(
    fault: Fault, pipeline: Pipeline, usual: float, deadline: float, chance: np.random.Generator
) -> Conditions:
    """Return how bad a fault is this time; `usual` is what a run takes, and `deadline` what it may take."""
    found = Conditions(fault)
    if fault is Fault.FEW_WORKERS:
        return replace(found, nodes=max(1, round(pipeline.nodes * chance.uniform(0.25, 0.95))))
    if fault is Fault.SKEW:
        return replace(found, hot_shards=int(chance.integers(1, 4)), hot_factor=float(np.exp(chance.uniform(1.0, 4.0))))
    if fault is Fault.SLOW_NODE:
        return replace(
            found, slow_nodes=1, slow_factor=chance.uniform(1.5, 8.0), slow_from=usual * chance.uniform(0, 0.5)
        )
    if fault is Fault.LATE_START:
        return replace(found, start=deadline * chance.uniform(0.05, 0.9))
    if fault is Fault.NODES_LOST:
        return replace(found, lost_nodes=(pipeline.nodes + 1) // 2, lost_at=usual * chance.uniform(0.05, 0.5))
    return found


def simulate(pipeline: Pipeline, conditions: Conditions, chance: np.random.Generator) -> Trace:
    """Return what happens in a run."""
    pace = float(np.exp(chance.normal(0, pipeline.drift)))
    sizes = [np.exp(chance.normal(0, stage.sizes, stage.shards)) for stage in pipeline.stages]
    if conditions.hot_shards:
        widest = int(np.argmax([stage.shards * stage.seconds for stage in pipeline.stages]))
        sizes[widest][chance.integers(0, len(sizes[widest]), conditions.hot_shards)] *= conditions.hot_factor
    trace = Trace(pipeline, sizes, start=conditions.start)
    now = conditions.start
    for number, shape in enumerate(pipeline.stages):
        work = shape.seconds * pace * (shape.fixed + (1 - shape.fixed) * sizes[number])
        work = work * np.exp(chance.normal(0, shape.noise, shape.shards))
        now = _stage(trace, number, work, now, conditions, chance)
    trace.end = now
    return trace


def _stage(
    trace: Trace, number: int, work: Numbers, begin: float, conditions: Conditions, chance: np.random.Generator
) -> float:
    """Run one stage; return when its last shard is done."""
    pipeline = trace.pipeline
    lanes = [
        (begin, node * pipeline.lanes + lane, node)
        for node in range(conditions.nodes or pipeline.nodes)
        for lane in range(pipeline.lanes)
    ]
    heapq.heapify(lanes)
    queue = [(begin, order, order) for order in range(len(work))]
    order, done = len(work), begin
    while queue:
        free, lane, node = heapq.heappop(lanes)
        ready, _, shard = heapq.heappop(queue)
        start = max(free, ready)
        if _is_lost(node, start, conditions):
            heapq.heappush(queue, (ready, order, shard))
            order += 1
            continue
        took = work[shard] * chance.uniform(0.1, 1.0) if (fails := chance.random() < pipeline.failing) else work[shard]
        end = _end(start, float(took), node, conditions)
        lost = not _is_lost(node, start, conditions) and _is_lost(node, end, conditions)
        end = conditions.lost_at if lost else end
        trace.attempts.append(
            Attempt(number, float(trace.sizes[number][shard]), start, end, not (lost or fails), fails, node)
        )
        if lost or fails:
            order += 1
            heapq.heappush(queue, (end, order, shard))
        done = max(done, end)
        if not lost:
            heapq.heappush(lanes, (end, lane, node))
    return done


def _is_lost(node: int, time: float, conditions: Conditions) -> bool:
    return node < conditions.lost_nodes and time >= conditions.lost_at


def _end(start: float, work: float, node: int, conditions: Conditions) -> float:
    """Return when an attempt ends, where its node may become slow on the way."""
    if node >= conditions.slow_nodes:
        return start + work
    before = min(work, max(0.0, conditions.slow_from - start))
    return start + before + (work - before) * conditions.slow_factor


def seen(trace: Trace, columns: dict[str, Numbers], now: float) -> list[StageNow]:
    """Return what an onlooker knows of a run at a moment."""
    pipeline, stages = trace.pipeline, []
    long, nodes = columns["end"] - columns["start"], columns["node"].astype(np.int64)
    for number, shape in enumerate(pipeline.stages):
        mine = columns["stage"] == number
        over = mine & (columns["end"] <= now)
        good = over & (columns["ok"] > 0)
        going = mine & (columns["start"] <= now) & (columns["end"] > now)
        begun = bool(over.any() or going.any())
        if not begun and not (pipeline.plans_ahead and now >= trace.start):
            continue
        newest = np.argsort(columns["end"][good], kind="stable")
        took = long[good][newest]
        elapsed = now - columns["start"][going]
        sizes = 1e6 * columns["size"] * pipeline.tells_sizes
        left = float(trace.sizes[number].sum() - columns["size"][good].sum() - columns["size"][going].sum())
        stages.append(
            StageNow(
                shape.name, shape.shards, int(good.sum()), Finished(took, sizes[good][newest], nodes[good][newest]),
                Going(elapsed, sizes[going], nodes[going], _progress(pipeline, elapsed, long[going])),
                max(0.0, left) * 1e6 * pipeline.tells_sizes,
                int((over & (columns["failed"] > 0)).sum()),
            )
        )  # fmt: skip
    return stages


def _progress(pipeline: Pipeline, elapsed: Numbers, took: Numbers) -> Numbers:
    """Return what attempts say of their progress: they report every twentieth of their work."""
    if not pipeline.tells_progress:
        return np.full(len(elapsed), np.nan)
    told = np.floor(20 * elapsed / took) / 20
    with np.errstate(invalid="ignore", divide="ignore"):
        return progress_now(np.where(told > 0, told, np.nan), told * took, elapsed)
