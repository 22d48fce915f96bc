"""
When the last shard of some stages ends: the queue drains over the lanes, then the longest of what runs is awaited.

The work that waits, what runs now and the speed of the lanes give the moment at which the queue is empty. The end is
later: it is the largest of two groups, what runs now, given how long it has, and the shards that start last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mppobs.slo.durations import Durations, survival
from mppobs.slo.progress import Seconds, StageNow

QUANTILES: Final = (0.05, 0.5, 0.95)
"""Of a finish: low, middle and high. Nine finishes of ten are to lie between low and high."""
MAX_EXACT: Final = 48
"""Shards that are looked at one by one: those with most left, and a sample of the others that stands for all."""
FAIR_SHARE: Final = 10
"""Shards that are taken to have gone well before, so that one early failure does not seem to be the rule."""
FAILED_TIME: Final = 0.5
"""Of a shard's time, that an attempt takes which fails."""
LARGE: Final = 3.0
"""How many standard deviations, and usual shards, of input must be too much before it is taken to be one shard's."""
PIECES: Final = (1, 2, 4)
"""Shards that it may be in, one as likely as the other."""
LEAST_KNOWN: Final = 5
"""Finished shards whose input is known, before that."""
_NODES: Final = ((-1.6, 0.16), (-0.7, 0.22), (0.0, 0.24), (0.7, 0.22), (1.6, 0.16))
"""Five points of a standard normal distribution with their weights; their variance is 1.03."""
_GRID: Final = 24

Parts = Sequence[tuple[StageNow, Durations]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """When something ends, in seconds from now: later than `low` and earlier than `high` in 19 cases of 20 each."""

    low: float
    middle: float
    high: float

    def then(self, later: Prediction) -> Prediction:
        """
        Return the end of what begins when this ends. The two are as likely to make up for each other as to add up.

        >>> Prediction(7.0, 10.0, 13.0).then(Prediction(6.0, 10.0, 14.0))
        Prediction(low=15.0, middle=20.0, high=25.0)
        """
        middle = self.middle + later.middle
        below = math.hypot(self.middle - self.low, later.middle - later.low)
        above = math.hypot(self.high - self.middle, later.high - later.middle)
        return Prediction(middle - below, middle, middle + above)

    def widened(self, below: float, above: float) -> Prediction:
        """
        Return the same middle with the distances to the bounds multiplied; nothing ends before now.

        >>> Prediction(8.0, 10.0, 13.0).widened(2.0, 1.0)
        Prediction(low=6.0, middle=10.0, high=13.0)
        """
        low = max(0.0, self.middle - below * (self.middle - self.low))
        return Prediction(low, self.middle, self.middle + above * (self.high - self.middle))


def drain(parts: Parts, lanes: Seconds, slowness: Seconds) -> Prediction:
    """
    Return when the last shard of stages that share some lanes ends.

    `lanes` has for each how many times as long as usual a shard takes on it, `slowness` the same for each node.

    >>> found = drain([(StageNow("map", 100), Durations.of(10.0, 0.05, 0.0))], np.ones(10), np.ones(1))
    >>> 95 < found.low < found.middle < found.high < 115
    True
    """
    if not parts:
        return Prediction(0.0, 0.0, 0.0)
    running = _Running.of(parts, slowness)
    waiting = sum(stage.waiting for stage, _ in parts)
    work = sum(stage.waiting * _seconds(stage, model) for stage, model in parts)
    tail = _Tail.of(parts, lanes, waiting)
    speed = float((1.0 / lanes).sum())
    empty = 0.0
    for _ in range(4 if waiting else 0):
        empty = max(0.0, (running.busy_until(empty) + work - tail.left) / speed)
    noise = math.sqrt(sum(stage.waiting * (model.spread * model.mean) ** 2 for stage, model in parts)) / speed
    cases = [running.with_large(parts, empty, pieces) for pieces in PIECES] if _largest_of(parts) else [running]
    return _quantiles(cases, tail, empty, noise, _error(parts, waiting))


def _seconds(stage: StageNow, model: Durations) -> float:
    """Return the expected time of a shard that waits, with what retries add."""
    each = stage.waiting_bytes / stage.waiting if stage.waiting else 0.0
    retried = stage.failed / (stage.failed + stage.decided + FAIR_SHARE)
    return model.mean * float(model.factors(np.array([each]))[0]) * (1.0 + FAILED_TIME * retried)


def _largest_of(parts: Parts) -> bool:
    return any(_excess(stage, model) for stage, model in parts)


def _excess(stage: StageNow, model: Durations) -> float:
    """Return how much more input waits than the number of shards says; 0 where that may be chance."""
    known = stage.finished.bytes[stage.finished.bytes > 0]
    if not model.usual_bytes or len(known) < LEAST_KNOWN or not stage.waiting_bytes:
        return 0.0
    excess = stage.waiting_bytes - stage.waiting * model.usual_bytes
    noise = float(known.std()) * math.sqrt(stage.waiting * (1 + stage.waiting / len(known)))
    return excess if excess > LARGE * (noise + model.usual_bytes) else 0.0


def _error(parts: Parts, waiting: int) -> float:
    """Return how far off the rate may be: the error of each stage, by its share of what waits."""
    if not waiting:
        return max(model.error for _, model in parts)
    return sum(stage.waiting * model.error for stage, model in parts) / waiting


@dataclass(frozen=True, slots=True)
class _Running:
    """What runs now: how long each has, the scale and the shape of its duration, its lane, how many it stands for."""

    elapsed: Seconds
    scale: Seconds
    shape: Seconds
    slowness: Seconds
    weight: Seconds

    @classmethod
    def of(cls, parts: Parts, slowness: Seconds) -> _Running:
        """Return the running shards of some stages, no more of them than are looked at one by one."""
        slow = np.concatenate([slowness[stage.going.nodes] for stage, _ in parts])
        found = [model.running(stage.going, slowness[stage.going.nodes]) for stage, model in parts]
        elapsed = np.concatenate([stage.going.elapsed for stage, _ in parts])
        scale, shape = (np.concatenate(each) for each in zip(*found, strict=True))
        weight = np.ones(len(elapsed))
        if len(elapsed) > MAX_EXACT:
            half = MAX_EXACT // 2
            order = np.argsort(elapsed - scale)
            others = order[half:][:: max(1, math.ceil((len(order) - half) / half))]
            chosen = np.concatenate([order[:half], others])
            weight = np.concatenate([np.ones(half), np.full(len(others), (len(order) - half) / len(others))])
            elapsed, scale, shape, slow = elapsed[chosen], scale[chosen], shape[chosen], slow[chosen]
        return cls(elapsed, scale, shape, slow, weight)

    def with_large(self, parts: Parts, empty: float, pieces: int) -> _Running:
        """
        Return what runs, and large shards for every stage whose waiting input is far more than their number says.

        What is too much is taken to be in so many of them, which begin when half of the queue is empty.
        """
        found = self
        for stage, model in parts:
            if excess := _excess(stage, model):
                sizes = np.array([excess / pieces + model.usual_bytes])
                factor = model.factors(sizes)
                found = _Running(
                    np.append(found.elapsed, -empty / 2), np.append(found.scale, model.scale * factor),
                    np.append(found.shape, model.shapes(sizes, factor)), np.append(found.slowness, 1.0),
                    np.append(found.weight, float(pieces)),
                )  # fmt: skip
        return found

    def busy_until(self, end: float) -> float:
        """Return the work that lanes cannot do up to a time since they are busy with what runs now."""
        if end <= 0.0 or not len(self.elapsed):
            return 0.0
        steps = np.linspace(0.0, end, 9)
        return float((self.weight / self.slowness) @ np.trapezoid(self.going(steps, 1.0), steps, axis=1))

    def done(self, times: Seconds, pace: float) -> Seconds:
        """Return the logarithm of the chance that all are done at each time."""
        if not len(self.elapsed):
            return np.zeros(len(times))
        found: Seconds = self.weight @ _log_not(self.going(times, pace))
        return found

    def going(self, times: Seconds, pace: float) -> Seconds:
        """Return the chance that each still runs at each time, where all take `pace` times as long as expected."""
        scale, shape = self.scale[:, None] * pace, self.shape[:, None]
        now = survival(self.elapsed[:, None], scale, shape)
        return survival(self.elapsed[:, None] + times, scale, shape) / now


@dataclass(frozen=True, slots=True)
class _Tail:
    """What runs on each lane when the last shard starts: for how long it has by then, and how long it takes."""

    ages: Seconds
    scale: Seconds
    shape: Seconds
    weight: float
    left: float
    """Work of all of them that is left then."""

    @classmethod
    def of(cls, parts: Parts, lanes: Seconds, waiting: int) -> _Tail:
        """Return them, from every stage by its share of what waits; many are looked at as a sample."""
        count = min(waiting, len(lanes))
        step = max(1, math.ceil(count / MAX_EXACT))
        slow = lanes[:count:step]
        places = (np.arange(len(slow)) + 0.5) / max(1, len(slow))
        shares = np.cumsum([stage.waiting for stage, _ in parts]) / max(1, waiting)
        owner = np.minimum(np.searchsorted(shares, places), len(parts) - 1)
        means = np.array([_seconds(stage, model) for stage, model in parts])
        factors = np.array([model.scale / model.mean for _, model in parts])
        shapes = np.array([model.shape for _, model in parts])
        phases = (places * 0.618034 * max(1, len(slow))) % 1.0  # spread evenly, in no order of the lanes
        ages = phases * means[owner] * slow
        weight = count / len(slow) if len(slow) else 0.0
        left = weight * float(((1.0 - phases) * means[owner]).sum())
        return cls(ages, means[owner] * factors[owner] * slow, shapes[owner], weight, left)

    def done(self, times: Seconds, pace: float) -> Seconds:
        """Return the logarithm of the chance that all are done so long after the last has started."""
        if not len(self.ages):
            return np.zeros(len(times))
        took = np.maximum(times[None, :] + self.ages[:, None] * pace, 0.0)
        going = survival(took, self.scale[:, None] * pace, self.shape[:, None])
        return np.where(times >= 0.0, self.weight * _log_not(going).sum(axis=0), -np.inf)


def _quantiles(cases: Sequence[_Running], tail: _Tail, empty: float, noise: float, error: float) -> Prediction:
    """Return the quantiles of the finish, over how far the rate may be off, and over what else may be the case."""
    reach = [float((running.scale * 4 + running.elapsed).max(initial=0.0)) for running in cases]
    longest = max(*reach, float((tail.scale * 8).max(initial=0.0)))
    times = (empty + 3 * noise) * math.exp(3 * error) * np.linspace(0.0, 1.0, _GRID) if empty else np.zeros(1)
    times = np.unique(np.concatenate([times, empty + longest * np.geomspace(2e-3, 30.0, _GRID)]))
    chance = np.zeros(len(times))
    spread = math.hypot(error, noise / empty) if empty else error
    for node, weight in _NODES:
        pace, drained = math.exp(node * error), empty * math.exp(node * spread)
        logs = tail.done(times - drained, pace)
        for running in cases:
            chance += weight / len(cases) * np.exp(logs + running.done(times, pace))
    low, middle, high = np.interp(QUANTILES, np.maximum.accumulate(chance), times).tolist()
    return Prediction(low, middle, high)


def _log_not(chance: Seconds) -> Seconds:
    """Return the logarithm of the chance that something has not happened."""
    found: Seconds = np.log1p(-np.minimum(chance, 1.0 - 1e-12))
    return found
