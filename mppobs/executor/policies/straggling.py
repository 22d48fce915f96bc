"""Which attempts run too long, why, and what helps: a copy against a slow node, smaller shards against skew."""

from __future__ import annotations

from typing import Final

from mppobs.executor.policies.retrying import SECOND
from mppobs.executor.policies.settings import SlowNodes, Speculation, Splitting
from mppobs.model import StragglerCause

_FENCE: Final = 1.5
"""Interquartile ranges above the upper quartile from which a value is an outlier (Tukey, 1977)."""
_CHECK_SHARE: Final = 0.25
_SHORTEST_CHECK_NS: Final = SECOND // 10
"""Between two looks at a stage: Spark's `spark.speculation.interval`."""
_LONGEST_CHECK_NS: Final = 5 * SECOND


def straggles_after(rules: Speculation, lower: float, median: float, upper: float) -> int:
    """
    Return how many nanoseconds an attempt may run until it is looked at, by the quartiles of those that are done.

    Time counts from the start, not from when it was handed out: medians with queue wait in them hide stragglers.

    >>> straggles_after(Speculation(floor=0), 9e9, 10e9, 11e9) / 1e9
    20.0
    >>> straggles_after(Speculation(floor=0), 5e9, 10e9, 20e9) / 1e9
    42.5
    """
    return int(max(rules.factor * median, upper + _FENCE * (upper - lower), rules.floor * SECOND))


def check_after(threshold_ns: int) -> int:
    """Return how long it is until a stage is looked at again: a quarter of what would make a straggler."""
    return min(max(int(threshold_ns * _CHECK_SHARE), _SHORTEST_CHECK_NS), _LONGEST_CHECK_NS)


def cause_of(rules: Speculation, elapsed_ns: int, progress: float, expected_ns: float) -> StragglerCause:
    """
    Return why an attempt runs long, given what its size lets expect at the median rate of its stage.

    One that goes as fast as the others and has more to do is skewed: a copy would take as long (Azure's advice on
    Spark skew). One that is slower than `slow_rate` of them has trouble where it runs. Without `progress` (0) it is
    taken to be all but done, which makes it faster than it is: patience, no false alarm.

    >>> cause_of(Speculation(), elapsed_ns=30, progress=0.0, expected_ns=28.0)
    <StragglerCause.SKEW: 'skew'>
    >>> cause_of(Speculation(), elapsed_ns=30, progress=0.2, expected_ns=28.0)
    <StragglerCause.SLOW_NODE: 'slow_node'>
    """
    total = elapsed_ns / progress if progress > 0 else elapsed_ns
    return StragglerCause.SLOW_NODE if expected_ns < rules.slow_rate * total else StragglerCause.SKEW


def time_left(elapsed_ns: int, progress: float) -> float:
    """
    Return how long an attempt will go on, by its progress (LATE, OSDI 2008): those with most left are copied first.

    Without progress, as long as it has run: durations are heavy-tailed, and what has lasted will last.
    """
    return elapsed_ns * (1 - progress) / progress if progress > 0 else float(elapsed_ns)


def is_copied(left_ns: float, expected_ns: float) -> bool:
    """Return whether a copy would be done first: one that would not only costs (Mantri, OSDI 2010)."""
    return left_ns > expected_ns


def most_copies(rules: Speculation, workers: int) -> int:
    """Return how many copies there may be at a time: a tenth of the workers (LATE's cap), and one at least."""
    return max(1, int(rules.share * workers))


def is_skewed(rules: Splitting, size: int, median: float) -> bool:
    """
    Return whether a shard is to be split before it starts, by its size beside the stage's median.

    >>> is_skewed(Splitting(), 512 << 20, 64 << 20), is_skewed(Splitting(), 5 << 20, 1 << 20)
    (True, False)
    """
    return size > rules.factor * median and size >= rules.least_bytes


def parts_of(rules: Splitting, size: int, median: float) -> int:
    """
    Return into how many parts a shard is split: each like the median, not less than `least_bytes`.

    >>> parts_of(Splitting(), 512 << 20, 100 << 20)
    6
    """
    part = max(median, rules.least_bytes, 1)
    return min(max(2, -int(-size // part)), rules.most_parts)


def is_split_running(left_ns: float, whole_ns: float, parts: int) -> bool:
    """Return whether splitting a shard that runs pays: what is left takes twice as long as a part from its start."""
    return left_ns > 2 * whole_ns / parts


def most_aside(rules: SlowNodes, nodes: int) -> int:
    """Return how many nodes may be set aside at a time: a share, one at least, and never the last node."""
    return min(max(1, int(rules.share * nodes)), nodes - 1)
