"""What the earlier runs of a pipeline say of the next: its stages, how long shards take, how much that varies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from mppobs.slo.progress import NO_PAST, Past, StagePast

RUNS: Final = 20
"""Successful runs that are looked at, the newest: enough for a spread, and few enough to follow a change."""
FIRST_DRIFT: Final = 0.25
"""Between the means of runs, where one run alone is known."""
LEAST_RUNS: Final = 5
"""Before it is asked whether stages are slow in the same runs."""
_P99: Final = 2.326
"""In standard deviations of a normal distribution."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run that succeeded. Times in seconds since the run's start."""

    name: str
    shards: int
    seconds: float
    """Of all its attempts together."""
    median: float
    """Of its shards, as the next; 0 where not known."""
    p99: float
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run that succeeded."""

    seconds: float
    """From start to end."""
    stages: Sequence[StageRun]


def learn(runs: Sequence[Run]) -> Past:
    """
    Return what a pipeline's runs have in common, oldest first. A stage that fewer than half of them have is no part.

    >>> stage = StageRun("map", shards=10, seconds=100.0, median=10.0, p99=10.0, began=0.0, ended=50.0)
    >>> found = learn([Run(55.0, [stage])] * 3)
    >>> found.stages["map"].seconds, found.lanes, found.seconds
    (10.0, 2.0, (55.0, 55.0, 55.0))
    """
    recent = runs[-RUNS:]
    if not recent:
        return NO_PAST
    by_name: dict[str, list[StageRun]] = {}
    for run in recent:
        for stage in sorted(run.stages, key=lambda each: each.began):
            if stage.shards and stage.seconds > 0:
                by_name.setdefault(stage.name, []).append(stage)
    usual = {name: found for name, found in by_name.items() if 2 * len(found) >= len(recent)}
    order = sorted(usual, key=lambda name: statistics.median(stage.began for stage in usual[name]))
    stages: Mapping[str, StagePast] = {name: _stage(usual[name]) for name in order}
    return Past(
        tuple(run.seconds for run in recent), stages, _lanes(recent), _together([usual[name] for name in order])
    )


def _stage(runs: Sequence[StageRun]) -> StagePast:
    means = [stage.seconds / stage.shards for stage in runs]
    logs = [math.log(mean) for mean in means]
    spreads = [math.log(stage.p99 / stage.median) / _P99 for stage in runs if 0 < stage.median < stage.p99]
    return StagePast(
        shards=statistics.median(stage.shards for stage in runs),
        seconds=statistics.median(means),
        spread=statistics.median(spreads) if spreads else 0.0,
        drift=statistics.stdev(logs) if len(logs) > 1 else FIRST_DRIFT,
    )


def _together(stages: Sequence[Sequence[StageRun]]) -> float:
    """Return how far stages are slow in the same runs: the mean correlation of neighbours; 0 where too few tell."""
    found = []
    for one, two in pairwise(stages):
        first, second = ([math.log(each.seconds / each.shards) for each in stage] for stage in (one, two))
        if len(first) == len(second) >= LEAST_RUNS and len({*first}) > 1 and len({*second}) > 1:
            found.append(statistics.correlation(first, second))
    return min(1.0, max(0.0, statistics.fmean(found))) if found else 0.0


def _lanes(runs: Iterable[Run]) -> float:
    """Return how many attempts a typical run has going in its busiest stage."""
    found = [
        max(stage.seconds / (stage.ended - stage.began) for stage in timed)
        for run in runs
        if (timed := [stage for stage in run.stages if stage.ended > stage.began])
    ]
    return statistics.median(found) if found else 0.0
