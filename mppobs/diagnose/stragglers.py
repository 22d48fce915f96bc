"""
Which running attempts hold a stage, and why: plain figures in, frozen verdicts out.

An attempt is a straggler when most of its stage is done and it has run far longer than the others did. That it
is late is a matter of time; why it is late is a matter of rate: a shard that is large and moves at the usual rate
is *skew*, and a copy of it would be just as slow, so it should be split; a small one that crawls is a *slow node*
or slow *I/O*, and a copy elsewhere helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mppobs.diagnose.skew import describe_partition, quantile
from mppobs.model import Shard, StragglerCause
from mppobs.units import human_seconds

MIN_DONE_RATIO: Final = 0.75
"""Part of a stage that must be done before anything in it is late (Spark before 4.0: 0.75; since 4.0: 0.9)."""
MIN_DONE_SHARDS: Final = 5
"""And at least this many shards, or the median means nothing."""
MEDIAN_FACTOR: Final = 2.0
"""Longer than this many medians (Spark: 1.5 before 4.0, 3 since; people who run it in earnest: 4)."""
IQR_FACTOR: Final = 1.5
"""And beyond p75 + this many interquartile ranges: Tukey's fence, for stages that are wide by nature."""
FLOOR_SECONDS: Final = 5.0
"""And at least this long; a stage of 100 ms shards has no stragglers that are worth a copy."""
RATE_RATIO: Final = 0.75
"""Slow by rate: below this part of the median rate (Spark's `speculation.efficiency.processRateMultiplier`)."""
INPUT_RATIO: Final = 1.5
"""An input this many times the median explains a long run."""
NODE_RATIO: Final = 1.5
"""A node is slow when its finished shards took this many times the stage's median (Flink's `baseline-multiplier`)."""
NODE_DONE: Final = 3
"""Finished shards that a node must have before it is called slow by them."""
NODE_RUNNING: Final = 2
"""Stragglers that a node must have, with no other node having any, before it is called slow by those."""


@dataclass(frozen=True, slots=True)
class StragglerSettings:
    """What may be set; everything else is as the constants say."""

    floor_seconds: float = FLOOR_SECONDS
    min_done_ratio: float = MIN_DONE_RATIO
    median_factor: float = MEDIAN_FACTOR


@dataclass(frozen=True, slots=True)
class StageProfile:
    """What is known of a stage's finished shards."""

    planned: int
    done: int
    p25: float
    """Seconds, as the two below."""
    median: float
    p75: float
    median_input: float = 0.0
    """Bytes; 0 where inputs are not known."""
    median_rate: float = 0.0
    """Input bytes per second; 0 where not known."""
    node_medians: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """By node: how many shards it finished, and their median duration in seconds."""
    io_errors: int = 0
    """Network errors and throttled storage requests that the stage's attempts have reported."""


@dataclass(frozen=True, slots=True)
class RunningShard:
    """An attempt that runs now."""

    shard: Shard
    attempt: int
    elapsed: float
    """Seconds since it began."""
    progress: float | None = None
    """In [0, 1]; `None` where it never said."""
    input_bytes: int = 0
    """0 where not known."""
    node: str = ""


@dataclass(frozen=True, slots=True)
class StragglerVerdict:
    """One straggler, with its likely cause and what speaks for it."""

    running: RunningShard
    left: float
    """Estimated seconds until it ends."""
    times_median: float
    cause: StragglerCause
    evidence: str
    """One sentence for people."""


def profile(
    planned: int,
    durations: Sequence[float],
    inputs: Sequence[int] = (),
    *,
    nodes: Sequence[str] = (),
    io_errors: int = 0,
) -> StageProfile:
    """
    Return the profile of a stage from the durations (seconds), inputs (bytes) and nodes of its finished shards.

    `inputs` and `nodes`, where given, run parallel to `durations`; an input of 0 is not known and left out.

    >>> profile(4, [1.0, 2.0, 3.0], [100, 200, 300]).median_rate
    100.0
    """
    ordered = sorted(durations)
    sizes = sorted(float(size) for size in inputs if size > 0)
    rates = sorted(size / took for size, took in zip(inputs, durations, strict=False) if size > 0 and took > 0)
    by_node: dict[str, list[float]] = {}
    for node, took in zip(nodes, durations, strict=False):
        by_node.setdefault(node, []).append(took)
    return StageProfile(
        planned=planned,
        done=len(ordered),
        p25=quantile(ordered, 0.25),
        median=quantile(ordered, 0.5),
        p75=quantile(ordered, 0.75),
        median_input=quantile(sizes, 0.5),
        median_rate=quantile(rates, 0.5),
        node_medians={node: (len(took), quantile(sorted(took), 0.5)) for node, took in by_node.items() if node},
        io_errors=io_errors,
    )


def threshold(stage: StageProfile, settings: StragglerSettings) -> float | None:
    """
    Return how long an attempt may run before it is a straggler, in seconds; `None` while too few shards are done.

    >>> threshold(profile(6, [10.0, 10.0, 11.0, 12.0, 9.0]), StragglerSettings())
    20.0
    >>> threshold(profile(60, [10.0, 10.0, 11.0, 12.0, 9.0]), StragglerSettings()) is None
    True
    """
    if stage.done < max(settings.min_done_ratio * stage.planned, MIN_DONE_SHARDS):
        return None
    fence = stage.p75 + IQR_FACTOR * (stage.p75 - stage.p25)
    return max(settings.median_factor * stage.median, fence, settings.floor_seconds)


def time_left(running: RunningShard, stage: StageProfile) -> float:
    """
    Return the seconds that an attempt will probably still take, as LATE (Zaharia, OSDI 2008) estimates it.

    By its own progress where it reports any; else by its input at the stage's usual rate; where that says nothing, or
    has passed already, as long again as it has run: the longer it ran, the longer it will.

    >>> time_left(RunningShard(7, 0, elapsed=30.0, progress=0.75), profile(1, []))
    10.0
    """
    if running.progress is not None and running.progress > 0:
        return running.elapsed * max(0.0, 1.0 - running.progress) / running.progress
    expected = running.input_bytes / stage.median_rate if stage.median_rate > 0 else 0.0
    return expected - running.elapsed if expected > running.elapsed else running.elapsed


def find_stragglers(
    stage: StageProfile, running: Iterable[RunningShard], settings: StragglerSettings | None = None
) -> list[StragglerVerdict]:
    """
    Return the stragglers among a stage's running attempts, the one with most time left first.

    >>> stage = profile(6, [10.0, 10.0, 11.0, 12.0, 9.0], [100] * 5)
    >>> [found] = find_stragglers(stage, [RunningShard(5, 0, elapsed=45.0, input_bytes=900)])
    >>> found.cause.value, round(found.left)
    ('skew', 45)
    """
    bound = threshold(stage, settings or StragglerSettings())
    if bound is None:
        return []
    late = [each for each in running if each.elapsed > bound]
    per_node: dict[str, int] = {}
    for each in late:
        per_node[each.node] = per_node.get(each.node, 0) + 1
    verdicts = [_judge(each, stage, per_node) for each in late]
    return sorted(verdicts, key=_worst_first)


def _worst_first(verdict: StragglerVerdict) -> tuple[float, float, str, int]:
    running = verdict.running
    return -verdict.left, -running.elapsed, str(running.shard), running.attempt


def _judge(running: RunningShard, stage: StageProfile, per_node: Mapping[str, int]) -> StragglerVerdict:
    times = running.elapsed / stage.median if stage.median > 0 else float("inf")
    cause, why = _cause(running, stage, per_node)
    ran = f"has run {human_seconds(running.elapsed)}"
    if stage.median > 0:
        ran += f", {times:.1f} × the median of {human_seconds(stage.median)}"
    return StragglerVerdict(running, time_left(running, stage), times, cause, f"{ran}; {why}")


def _cause(running: RunningShard, stage: StageProfile, per_node: Mapping[str, int]) -> tuple[StragglerCause, str]:
    """Return the first cause that the figures support, and the words for it."""
    large = _large(running, stage)
    size = describe_partition(running.input_bytes, stage.median_input)
    if large and not _slow_by_rate(running, stage):
        return StragglerCause.SKEW, f"{size}, and it is not read below the usual rate"
    slow = _slow_node(running, stage, per_node)
    if slow:
        return StragglerCause.SLOW_NODE, slow
    if stage.io_errors:
        return StragglerCause.IO, f"the stage has reported {stage.io_errors} failed transfers and throttled requests"
    if large:
        return StragglerCause.SKEW, f"{size}, and it is slow besides"
    if _slow_by_rate(running, stage):
        return StragglerCause.UNKNOWN, "its input is of the usual size, and its rate below the stage's"
    return StragglerCause.UNKNOWN, "its records do not tell why"


def _large(running: RunningShard, stage: StageProfile) -> bool:
    return stage.median_input > 0 and running.input_bytes >= INPUT_RATIO * stage.median_input


def _slow_by_rate(running: RunningShard, stage: StageProfile) -> bool:
    """
    Return whether the attempt reads below the stage's usual rate, as far as that is known.

    Without progress its rate can at most be its whole input over the time so far; that bound is taken.
    """
    if not (stage.median_rate > 0 and running.input_bytes > 0 and running.elapsed > 0):
        return False
    read = running.input_bytes * (running.progress or 1.0)
    return read / running.elapsed < RATE_RATIO * stage.median_rate


def _slow_node(running: RunningShard, stage: StageProfile, per_node: Mapping[str, int]) -> str:
    """Return what speaks against the attempt's node; empty for nothing."""
    if not running.node:
        return ""
    done, middle = stage.node_medians.get(running.node, (0, 0.0))
    if done >= NODE_DONE and stage.median > 0 and middle >= NODE_RATIO * stage.median:
        return f"its node {running.node} took {middle / stage.median:.1f} × the median for {done} other shards"
    alone = len(per_node) == 1 and len(stage.node_medians.keys() | per_node.keys()) > 1
    if alone and per_node[running.node] >= NODE_RUNNING:
        return f"all {per_node[running.node]} late shards of the stage run on its node {running.node}"
    return ""
