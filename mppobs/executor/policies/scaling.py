"""How many workers there are to be."""

from __future__ import annotations

from mppobs.executor.policies.retrying import SECOND
from mppobs.executor.policies.settings import Autoscale


def workers_wanted(rules: Autoscale, work_ns: float, shards: int) -> int:
    """
    Return how many workers get the work at hand done in `drain` seconds, no more than there are shards.

    >>> rules = Autoscale(lowest=1, highest=100, drain=60)
    >>> [workers_wanted(rules, work * 1e9, 50) for work in (0, 600, 6000)]
    [1, 10, 50]
    """
    wanted = min(-int(-work_ns // (rules.drain * SECOND)), shards)
    return min(max(wanted, rules.lowest), rules.highest)


def is_enough_more(rules: Autoscale, target: int, wanted: int) -> bool:
    """Return whether more workers are wanted than tolerance lets pass; a first one always."""
    return wanted > target * (1 + rules.tolerance)


def is_enough_fewer(rules: Autoscale, target: int, wanted: int) -> bool:
    """Return whether fewer workers are wanted than tolerance lets pass; none or the lowest always."""
    return wanted < target * (1 - rules.tolerance) or rules.lowest == wanted < target
