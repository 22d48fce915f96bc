"""
What an attempt cost and what the money bought. Pure arithmetic in picodollars (10^-12 US dollars).

Each amount is rounded by itself, to the even neighbour on a tie, so that sums are exact and the same in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mppobs.model import AttemptOutcome, CostKind

PICO: Final = 10**12
HOUR_NS: Final = 3600 * 10**9
MAX_AMOUNT: Final = 10**18
"""A single amount is a million dollars at most: whatever exceeds it is a mistake in a price or in a record."""

KINDS: Final[Mapping[AttemptOutcome, CostKind]] = {
    AttemptOutcome.SUCCESS: CostKind.USEFUL,
    AttemptOutcome.FAILURE: CostKind.RETRY,
    AttemptOutcome.ERROR: CostKind.RETRY,
    AttemptOutcome.TIMEOUT: CostKind.RETRY,
    AttemptOutcome.CANCELLED: CostKind.RETRY,
    AttemptOutcome.PREEMPTED: CostKind.PREEMPTED,
    AttemptOutcome.SUPERSEDED: CostKind.SPECULATION,
}
"""What the time of an attempt was for, by outcome; a shard's second success is speculation: see `cost_kind`."""


def cost_kind(outcome: AttemptOutcome, *, first_success: bool) -> CostKind:
    """
    Return what the time of an attempt was for.

    >>> cost_kind(AttemptOutcome.SUCCESS, first_success=False)
    <CostKind.SPECULATION: 'speculation'>
    """
    if outcome is AttemptOutcome.SUCCESS and not first_success:
        return CostKind.SPECULATION
    return KINDS[outcome]


def lane_rate(usd_per_hour: float, lanes: int) -> float:
    """
    Return picodollars per nanosecond of one lane of a worker.

    >>> lane_rate(3.6, lanes=1)
    1.0
    """
    return usd_per_hour * PICO / (HOUR_NS * max(1, lanes))


def byte_rate(usd_per_gb: float) -> float:
    """Return picodollars per byte, from dollars per 10^9 bytes."""
    return usd_per_gb * 1e3


def amount(quantity: int, rate: float) -> int:
    """
    Return picodollars for so many nanoseconds or bytes.

    >>> amount(3_600 * 10**9, lane_rate(0.5, lanes=2))
    250000000000
    """
    return min(round(quantity * rate), MAX_AMOUNT)


def idle_ns(lanes: int, elapsed_ns: int, ran_ns: int) -> int:
    """
    Return how long the lanes of a worker were idle, in nanoseconds of one lane; never negative.

    >>> idle_ns(lanes=2, elapsed_ns=100, ran_ns=150)
    50
    """
    return max(0, max(1, lanes) * elapsed_ns - ran_ns)
