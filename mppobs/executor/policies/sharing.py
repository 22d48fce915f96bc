"""Who goes first: tenants by what they have of their share, a tenant's jobs by when they are due."""

from __future__ import annotations

from typing import Final

from mppobs.executor.policies.retrying import SECOND
from mppobs.model import Tier

_HORIZON_NS: Final = {
    Tier.CRITICAL: 3600 * SECOND,
    Tier.STANDARD: 24 * 3600 * SECOND,
    Tier.BESTEFFORT: 7 * 24 * 3600 * SECOND,
}
"""
When a job is due that has no deadline: an hour after it came (as long as a critical page may burn), a day (until the
next daily run), a week. Since every job has a fixed time at which it is due, one that waits is overtaken only by those
that came before that time: none starves, as it would where a job without a deadline comes after all that have one.
"""


def share_used(held: int, weight: float) -> float:
    """
    Return how much a tenant has of its share. The one with the least goes next: weighted max-min fairness.

    What counts is what workers hold for it now, as in YARN's and Spark's fair schedulers, so who was idle has
    neither savings nor debts.
    """
    return held / weight


def due_at(submitted_ns: int, deadline_ns: int, tier: Tier) -> int:
    """
    Return when a job is due, the earliest going first (optimal on one machine, Jackson 1955).

    >>> due_at(0, 5, Tier.STANDARD), due_at(0, 0, Tier.CRITICAL) // SECOND
    (5, 3600)
    """
    return deadline_ns or submitted_ns + _HORIZON_NS[tier]


def fewer_at_a_time(running: int) -> int:
    """
    Return how many attempts of a stage may run after one of them was throttled: half, one at least.

    With `more_at_a_time` it is TCP's rule (Chiu and Jain, 1989): halve under pressure, add one per round without it,
    which shares what there is fairly between stages that know nothing of each other.
    """
    return max(1, running // 2)


def more_at_a_time(limit: int, successes: int) -> bool:
    """Return whether one more attempt may run: after as many successes as may run at a time."""
    return successes >= limit
