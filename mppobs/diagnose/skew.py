"""
How unevenly a stage's work is spread: wasted slot time, spread, and whether that is worth a repartition.

Pure: plain numbers in, frozen verdicts out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from mppobs.units import human_bytes, human_seconds

MIN_SHARDS: Final = 5
"""Below this many shards a stage has no shape to speak of."""
MAX_OVER_P75: Final = 1.5
"""A stage is skewed when its longest task passes this many times the third quartile (Azure Databricks' guide)."""
MAX_OVER_MEDIAN: Final = 2.0
"""And this many times the median: with tight quartiles the first test alone would call noise skew."""
PARTITION_FACTOR: Final = 5.0
"""A partition is skewed when it holds this many times the median bytes (Spark's `skewedPartitionFactor`)."""
PARTITION_BYTES: Final = 256 * 1024 * 1024
"""And at least this many bytes (Spark's `skewedPartitionThresholdInBytes`)."""


@dataclass(frozen=True, slots=True)
class SkewVerdict:
    """How a stage's shards compare, and whether it is skewed."""

    skewed: bool
    shards: int
    idle_ratio: float
    """(max − mean) ÷ max: the part of the slots' time that was spent waiting for the longest shard."""
    variation: float
    """Standard deviation ÷ mean of the population."""
    max_over_median: float
    evidence: str
    """One sentence for people."""


def skew_idle_ratio(durations: Sequence[float]) -> float:
    """
    Return (max − mean) ÷ max: the fraction of slot time that waits for the longest shard. 0 for none or all equal.

    Times the number of slots, their price and the stage's time, it is money.

    >>> skew_idle_ratio([10.0, 10.0, 40.0])
    0.5
    """
    longest = max(durations, default=0.0)
    if longest <= 0:
        return 0.0
    return max(0.0, (longest - _mean(durations)) / longest)


def variation(durations: Sequence[float]) -> float:
    """
    Return the coefficient of variation σ ÷ μ of the population; 0 where there is nothing to vary.

    >>> variation([1.0, 3.0])
    0.5
    """
    if not durations:
        return 0.0
    mean = _mean(durations)
    if mean <= 0:
        return 0.0
    return math.sqrt(math.fsum((value - mean) ** 2 for value in durations) / len(durations)) / mean


def max_over_median(durations: Sequence[float]) -> float:
    """
    Return the longest over the median; 1 where the median is 0 or there are none.

    >>> max_over_median([2.0, 2.0, 9.0])
    4.5
    """
    middle = median(durations) if durations else 0.0
    return max(durations) / middle if middle > 0 else 1.0


def judge_skew(durations: Sequence[float]) -> SkewVerdict:
    """
    Return the verdict on a stage by the durations of its shards, in seconds.

    >>> judge_skew([10, 11, 9, 10, 10, 80]).skewed, judge_skew([10, 11, 9, 10, 10, 12]).skewed
    (True, False)
    """
    over_median = max_over_median(durations)
    longest = max(durations, default=0.0)
    skewed = (
        len(durations) >= MIN_SHARDS
        and longest > MAX_OVER_P75 * quantile(sorted(durations), 0.75)
        and over_median > MAX_OVER_MEDIAN
    )
    idle = skew_idle_ratio(durations)
    evidence = (
        f"the longest of {len(durations)} shards took {human_seconds(longest)}, {over_median:.1f} × the median; "
        f"{idle:.0%} of the slots' time was spent waiting for it"
    )
    return SkewVerdict(skewed, len(durations), idle, variation(durations), over_median, evidence)


def skewed_partitions(sizes: Sequence[int]) -> list[int]:
    """
    Return the indexes of partitions worth splitting, largest first, by Spark's rule for skewed joins.

    >>> skewed_partitions([10 << 20, 12 << 20, 400 << 20, 11 << 20])
    [2]
    """
    bound = max(PARTITION_FACTOR * median(sizes), PARTITION_BYTES) if sizes else 0
    return sorted((i for i, size in enumerate(sizes) if size > bound), key=lambda i: (-sizes[i], i))


def describe_partition(size: int, typical: float) -> str:
    """
    Return how large a partition is, in words.

    >>> describe_partition(400 << 20, 10 << 20)
    'its input of 400 MiB is 40.0 × the median'
    """
    times = f" is {size / typical:.1f} × the median" if typical > 0 else ""
    return f"its input of {human_bytes(size)}{times}"


def quantile(ordered: Sequence[float], q: float) -> float:
    """
    Return a quantile of values in order, interpolated between neighbours (as numpy does); 0 for none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.75)
    3.25
    """
    if not ordered:
        return 0.0
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
