"""Who goes where: how much a worker is given ahead, and what goes first."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from mppobs.executor.policies.retrying import SECOND, Blame
from mppobs.model import Reason

MAX_WINDOW: Final = 32
"""Most attempts that a worker may hold at a time, the running one included."""
_WINDOW_WORK_NS: Final = 2_000_000
"""
Work that may wait at a worker. A round trip over a pipe takes about 0.1 ms on an idle machine and some milliseconds on
a busy one, which 2 ms hide mostly, while no shard waits behind others for longer than people would notice.
"""
_WITH_THE_ZONE: Final = frozenset({Reason.WORKER_LOST, Reason.NODE_LOST, Reason.PREEMPTED})
_UNKNOWN_WAIT_NS: Final = 60 * SECOND
"""Where no attempt of the stage is done yet. As long as a slow node is set aside: see `SlowNodes.seconds`."""


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


def avoids_zone(blame: Blame, reason: Reason) -> bool:
    """
    Return whether a shard is next tried outside the zone that an attempt was in, by how that attempt ended.

    Borg does not repeat a pairing of task and machine that ended in a crash (Verma et al., EuroSys 2015, section 4);
    machines that fail together, or whose spot capacity is reclaimed together, share a zone. Running out of memory is
    the shard's own doing, and a shutdown is planned: neither says anything of the zone.

    >>> avoids_zone(Blame.EVICTION, Reason.PREEMPTED), avoids_zone(Blame.WORKER, Reason.OOM_KILLED)
    (True, False)
    """
    return blame is not Blame.SHARD and reason in _WITH_THE_ZONE


def wait_for_zone(lost_ns: int, mean_ns: float) -> int:
    """
    Return for how long a shard passes on workers in the zones it was lost in, while those elsewhere are busy.

    As long as the attempt that was lost had run, or as one of its stage usually takes (`mean_ns`, 0: not known yet),
    since by then most workers elsewhere have had room. Waiting then costs at most what another loss would: the
    break-even rule of ski rental (Karlin et al., 1988), never worse than twice what hindsight would have paid.

    >>> [wait_for_zone(lost, mean) // SECOND for lost, mean in ((5 * SECOND, 0.0), (90 * SECOND, 30e9))]
    [60, 90]
    """
    return max(lost_ns, int(mean_ns) or _UNKNOWN_WAIT_NS)
