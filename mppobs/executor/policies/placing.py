"""Who goes where: how much a worker is given ahead, and what goes first."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

MAX_WINDOW: Final = 32
"""Most attempts that a worker may hold at a time, the running one included."""
_WINDOW_WORK_NS: Final = 2_000_000
"""
Work that may wait at a worker. A round trip over a pipe takes about 0.1 ms on an idle machine and some milliseconds on
a busy one, which 2 ms hide mostly, while no shard waits behind others for longer than people would notice.
"""


def window_by_duration(mean_ns: float) -> int:
    """
    Return how many attempts of a stage a worker may hold, given their mean duration (0: not known yet).

    >>> [window_by_duration(ns) for ns in (0, 10_000, 1_000_000, 50_000_000)]
    [1, 32, 3, 1]
    """
    return min(MAX_WINDOW, 1 + int(_WINDOW_WORK_NS / mean_ns)) if mean_ns > 0 else 1


def order_largest_first(sizes: Sequence[int]) -> Sequence[int]:
    """
    Return the positions of the sizes, largest first, equal ones in their order.

    Longest-processing-time first ends within 4/3 of the best schedule (Graham, 1969); the longest shard
    started last is the commonest tail of all.

    >>> list(order_largest_first([3, 9, 3]))
    [1, 0, 2]
    """
    return array("L", sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True))


def waits_for_data(waited_ns: int, wait_ns: int) -> bool:
    """
    Return whether a stage still passes on workers that are not beside its data.

    Delay scheduling (Zaharia et al., EuroSys 2010): a worker beside the data is mostly free in no time, and who does
    not wait for it reads over the network for the whole shard. The time counts from the last shard that was placed
    beside its data.
    """
    return waited_ns < wait_ns


def memory_after_oom(worker_bytes: int, peak_bytes: int) -> int:
    """
    Return how much memory a worker must have more than, for a shard that ran out of it.

    Where there is none, the shard has a node to itself, as the retry of Trino's fault-tolerant execution.
    """
    return max(worker_bytes, peak_bytes)
