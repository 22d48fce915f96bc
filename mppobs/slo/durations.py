"""
How long shards of a stage take: log-logistic, with a small share of stragglers of which nobody knows when they end.

The logarithm of durations is bell-shaped with somewhat heavy ends, which a logistic distribution is; and its survival
is a formula. A straggler is different in kind: the longer it has run, the longer it is likely to go on (a Pareto tail).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.slo.progress import Going, Seconds

STRAGGLERS: Final = 0.005
"""Share of shards that may take any time. It decides only of shards that have run longer than all others."""
STRAGGLER_INDEX: Final = 1.2
"""Of their Pareto tail: one that has run so long goes on for 0.8 times as long again, at the median."""
LEAST_SPREAD: Final = 0.05
"""Of the logarithm of durations: no two shards take quite the same time."""
MODEL_ERROR: Final = 0.02
"""Relative error of a mean that no number of finished shards takes away: machines are shared."""
EARLY: Final = 0.05
"""Progress below this, and time below this share of the usual duration, says nothing of the end."""
TOLD_SPREAD: Final = 0.3
"""Of the logarithm of what an attempt's progress says of its duration, at its beginning."""
LOGISTIC: Final = math.sqrt(3) / math.pi
"""From a standard deviation to the scale of a logistic distribution."""


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations of the shards of one stage: around `scale`, times the factor of a shard's size."""

    mean: float
    """Seconds, of a shard of the usual size on a usual node, as `scale`."""
    scale: float
    """The median."""
    shape: float
    """Of the logarithm: 0.55 times its standard deviation."""
    error: float
    """Relative error of the mean."""
    usual_bytes: float = 0.0
    """Input of a shard of the usual size; 0 where sizes say nothing."""
    slope: float = 0.0
    """Share of the duration that grows with the input."""
    slope_error: float = 0.0
    """How far off that share may be: it decides of shards far larger than any that has finished."""

    @classmethod
    def of(cls, mean: float, spread: float, error: float) -> Durations:
        """Return durations with a mean, a standard deviation of the logarithm, and an error of the mean."""
        spread = max(spread, LEAST_SPREAD)
        return cls(mean, mean * math.exp(-spread * spread / 2), spread * LOGISTIC, math.hypot(error, MODEL_ERROR))

    @property
    def spread(self) -> float:
        """Return the standard deviation of the logarithm."""
        return self.shape / LOGISTIC

    def factors(self, sizes: Seconds) -> Seconds:
        """
        Return how many times as long as usual shards of so many bytes take; 1 where a size is not known.

        >>> Durations(10.0, 10.0, 0.1, 0.1, usual_bytes=100.0, slope=0.5).factors(np.array([300.0, 0.0]))
        array([2., 1.])
        """
        if not self.usual_bytes:
            return np.ones(len(sizes))
        found: Seconds = np.where(sizes > 0, 1.0 - self.slope + self.slope * sizes / self.usual_bytes, 1.0)
        return found

    def shapes(self, sizes: Seconds, factors: Seconds) -> Seconds:
        """Return the shape of the durations of shards of so many bytes: wider the further a size is from the usual."""
        if not self.usual_bytes:
            return np.full(len(sizes), self.shape)
        far = np.where(sizes > 0, np.abs(sizes / self.usual_bytes - 1.0), 0.0) / factors
        found: Seconds = np.hypot(self.shape, self.slope_error * LOGISTIC * far)
        return found

    def running(self, going: Going, slowness: Seconds) -> tuple[Seconds, Seconds]:
        """Return the median duration that each running shard is expected to have, and its shape."""
        factors = self.factors(going.bytes)
        scale = self.scale * factors * slowness
        shape = self.shapes(going.bytes, factors)
        told = tells(going, self.scale)
        scale[told] = going.elapsed[told] / going.progress[told]
        # What is left of it is known as well as what is done of it, and better the less is left.
        shape[told] = np.maximum(TOLD_SPREAD * (1.0 - going.progress[told]), 0.02) * LOGISTIC
        return scale, shape


def tells(going: Going, usual: float) -> NDArray[np.bool_]:
    """Return which running shards' progress says when they end: the beginning of it says little."""
    found: NDArray[np.bool_] = (np.nan_to_num(going.progress) > EARLY) & (going.elapsed > EARLY * usual)
    return found


def survival(times: Seconds, scale: Seconds, shape: Seconds) -> Seconds:
    """
    Return the chance that a shard takes longer than a time.

    >>> survival(np.array([0.0, 10.0, 1e9]), np.array(10.0), np.array(0.1)).round(2)
    array([1. , 0.5, 0. ])
    """
    ratio = np.maximum(times, 1e-12) / scale
    logs = np.log(ratio)
    power = np.exp(np.minimum(logs / shape, 600.0))
    stragglers = np.exp(-STRAGGLER_INDEX * np.maximum(logs, 0.0))
    found: Seconds = (1.0 - STRAGGLERS) / (1.0 + power) + STRAGGLERS * stragglers
    return found
