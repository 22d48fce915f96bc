"""
The indicators M1 to M12 of a pipeline, as figures, from the totals that the aggregator keeps. Pure.

The API serves this report and the demo prints it; the definitions come from the catalogue. Counts are summed
first and divided last; where nothing has happened a value is `None`, never 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mppobs.catalog.indicators import INDICATORS, Indicator
from mppobs.catalog.metrics import QUANTILES
from mppobs.model import JobOutcome, ShardOutcome
from mppobs.sidecar.aggregates import Histogram, PipelineKey, PipelineTotals, StageTotals
from mppobs.sidecar.sketch import WindowedSketch

_NS: Final = 1e9
_PICO: Final = 1e12


@dataclass(frozen=True, slots=True)
class Part:
    """A figure that an indicator is made of, or that stands beside it."""

    name: str
    value: float | None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """One indicator of one pipeline."""

    indicator: Indicator
    headline: str
    """What the value is, such as `p99`."""
    value: float | None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """What the totals do not hold, since it describes the present moment alone; `None` for not known."""

    memory_max_ratio: float | None = None
    memory_p90_ratio: float | None = None
    checkpoint_lag_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All indicators of one pipeline, in the catalogue's order."""

    key: PipelineKey
    values: tuple[Value, ...]

    def by_key(self) -> dict[str, Value]:
        """Return the indicators keyed `M1` to `M12`."""
        return {value.indicator.key: value for value in self.values}


def ratio(part: float, whole: float) -> float | None:
    """
    Return a ratio, or `None` where there is nothing to divide by.

    >>> ratio(1, 4), ratio(0, 0)
    (0.25, None)
    """
    return part / whole if whole else None


def report(totals: PipelineTotals, stages: Iterable[StageTotals], live: LiveFigures, now_ns: int) -> Report:
    """Return the indicators of a pipeline. `stages` are those of this pipeline, in any order."""
    ordered = sorted(stages, key=lambda stage: stage.key.stage)
    figures = {
        "M1": _completion(totals),
        "M2": _shard_success(ordered),
        "M3": _tail(ordered, now_ns),
        "M4": _shuffle(totals, ordered),
        "M5": _by_kind(totals.network_errors),
        "M6": _cpu(totals, ordered),
        "M7": _memory(totals, live),
        "M8": _retries(ordered),
        "M9": _cost(totals),
        "M10": _delay(totals),
        "M11": ("worst running job", live.checkpoint_lag_seconds, ()),
        "M12": _failed_jobs(totals),
    }
    return Report(totals.key, tuple(Value(indicator, *figures[indicator.key]) for indicator in INDICATORS))


_Figures = tuple[str, float | None, tuple[Part, ...]]
"""Headline, value and parts."""


def _completion(totals: PipelineTotals) -> _Figures:
    jobs = sum(totals.durations.counts)
    parts = (
        Part("jobs", float(jobs)),
        Part("total", totals.durations.sum_ns / _NS, "seconds"),
        Part("mean queue wait", _mean_seconds(totals.queue), "seconds"),
    )
    return "mean", _mean_seconds(totals.durations), parts


def _mean_seconds(histogram: Histogram) -> float | None:
    return ratio(histogram.sum_ns / _NS, sum(histogram.counts))


def _shard_success(stages: Sequence[StageTotals]) -> _Figures:
    counts = {outcome: sum(stage.shards[outcome] for stage in stages) for outcome in ShardOutcome}
    value = ratio(counts[ShardOutcome.COMMITTED], sum(counts.values()))
    return "committed ÷ decided", value, tuple(Part(str(name), float(count)) for name, count in counts.items())


def _tail(stages: Sequence[StageTotals], now_ns: int) -> _Figures:
    """Return the p99 over all stages; each stage's own quantiles and tail stand beside it."""
    merged = merged_sketch(stages)
    parts = [Part(f"p{float(q) * 100:g}", merged.quantile(float(q), now_ns), "seconds") for q in QUANTILES]
    parts += [part for stage in stages for part in _stage_tail(stage, now_ns)]
    return "p99", merged.quantile(0.99, now_ns), tuple(parts)


def merged_sketch(stages: Iterable[StageTotals]) -> WindowedSketch:
    """Return one sketch of the durations of all the stages' shards."""
    merged = WindowedSketch()
    for stage in stages:
        merged.merge(stage.sketch)
    return merged


def _stage_tail(stage: StageTotals, now_ns: int) -> Iterator[Part]:
    name = stage.key.stage
    for q in QUANTILES:
        yield Part(f"{name} p{float(q) * 100:g}", stage.sketch.quantile(float(q), now_ns), "seconds")
    median, p99 = stage.sketch.quantile(0.5, now_ns), stage.sketch.quantile(0.99, now_ns)
    yield Part(f"{name} tail", ratio(p99, median) if median and p99 is not None else None, "ratio")


def _shuffle(totals: PipelineTotals, stages: Sequence[StageTotals]) -> _Figures:
    parts = (
        Part("read", float(sum(stage.shuffle_read for stage in stages)), "bytes"),
        Part("written", float(sum(stage.shuffle_written for stage in stages)), "bytes"),
        Part("last job ÷ baseline", totals.baseline_ratio, "ratio"),
    )
    return "mean per job", ratio(totals.job_shuffle.total, totals.job_shuffle.count), parts


def _by_kind(counts: dict[str, int]) -> _Figures:
    return "failed transfers", float(sum(counts.values())), tuple(Part(k, float(n)) for k, n in sorted(counts.items()))


def _cpu(totals: PipelineTotals, stages: Sequence[StageTotals]) -> _Figures:
    cpu = sum(stage.cpu_ns for stage in stages) / _NS
    wall = sum(stage.cpu_wall_ns for stage in stages) / _NS
    parts = (
        Part("cpu", cpu, "seconds"),
        Part("wall", wall, "seconds"),
        Part("throttled", totals.throttled_ns / _NS, "seconds"),
    )
    return "CPU ÷ wall", ratio(cpu, wall), parts


def _memory(totals: PipelineTotals, live: LiveFigures) -> _Figures:
    parts = (Part("p90", live.memory_p90_ratio, "ratio"), Part("oom kills", float(totals.oom_kills)))
    return "worst worker", live.memory_max_ratio, parts


def _retries(stages: Sequence[StageTotals]) -> _Figures:
    retries = sum(stage.retries for stage in stages)
    committed = sum(stage.shards[ShardOutcome.COMMITTED] for stage in stages)
    attempts = sum(sum(stage.attempts.values()) for stage in stages)
    parts = (
        Part("retries", float(retries)),
        Part("attempts", float(attempts)),
        Part("completed shards", float(committed)),
    )
    return "retries ÷ completed shards", ratio(retries, committed), parts


def _cost(totals: PipelineTotals) -> _Figures:
    parts = [Part(str(kind), amount / _PICO, "usd") for kind, amount in totals.cost_pusd.items()]
    parts.append(Part("total", sum(totals.cost_pusd.values()) / _PICO, "usd"))
    return "mean per job", ratio(totals.job_cost.total / _PICO, totals.job_cost.count), tuple(parts)


def _delay(totals: PipelineTotals) -> _Figures:
    parts = (Part("attempts", float(sum(totals.delays.counts))), Part("total", totals.delays.sum_ns / _NS, "seconds"))
    return "mean", _mean_seconds(totals.delays), parts


def _failed_jobs(totals: PipelineTotals) -> _Figures:
    """Return how many jobs failed, whoever's fault it was; cancelled ones did not fail."""
    failed = totals.jobs[JobOutcome.FAILURE] + totals.jobs[JobOutcome.ERROR]
    return "failed", float(failed), tuple(Part(str(name), float(count)) for name, count in totals.jobs.items())
