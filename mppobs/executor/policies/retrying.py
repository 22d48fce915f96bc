"""What becomes of an attempt that did not succeed: whose doing it was, and how long the shard waits."""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import Final

from mppobs.executor.plan import Limits
from mppobs.model import AttemptOutcome, Reason

SECOND: Final = 1_000_000_000

_LOSSES: Final = frozenset({Reason.WORKER_LOST, Reason.NODE_LOST, Reason.OOM_KILLED, Reason.SHUTDOWN})


class Blame(Enum):
    """Whose doing it was that an attempt did not succeed, and so which limit it counts against."""

    SHARD = auto()
    """The work, or what it uses: counts against `Limits.attempts` and the job's retry budget."""
    WORKER = auto()
    """The worker died with it: counts against `Limits.losses`."""
    EVICTION = auto()
    """The worker was taken away on purpose: counts against `Limits.preemptions`."""


def blame_for(outcome: AttemptOutcome, reason: Reason) -> Blame:
    """
    Return which limit an attempt counts against that ended without success.

    >>> blame_for(AttemptOutcome.ERROR, Reason.WORKER_LOST), blame_for(AttemptOutcome.ERROR, Reason.STORAGE)
    (<Blame.WORKER: 2>, <Blame.SHARD: 1>)
    """
    if outcome is AttemptOutcome.PREEMPTED or reason is Reason.PREEMPTED:
        return Blame.EVICTION
    if outcome is AttemptOutcome.ERROR and reason in _LOSSES:
        return Blame.WORKER
    return Blame.SHARD


def retry_budget(planned: int, share: float, floor: int) -> int:
    """
    Return how many retries a job may spend in all.

    A tenth of the shards keeps a job under 1.1 times its attempts when everything fails (the client budget of the SRE
    book); the floor lets small jobs retry at all (Envoy's least concurrency of retries is 3).

    >>> retry_budget(1000, 0.1, 3), retry_budget(4, 0.1, 3)
    (103, 3)
    """
    return int(planned * share) + floor


def backoff_full_jitter(limits: Limits, failures: int, chance: random.Random) -> int:
    """
    Return nanoseconds to wait after the given number of faults: anything up to the doubled limit.

    Full jitter spreads retries best ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015). It may be next
    to nothing: for throttling see `backoff_half_jitter`.
    """
    return int(chance.random() * _ceiling(limits, failures))


def backoff_half_jitter(limits: Limits, failures: int, retry_after_ns: int, chance: random.Random) -> int:
    """
    Return nanoseconds to wait after throttling: at least half of the doubled limit, and what the service asked for.

    Full jitter collapses under throttling: eight retries were gone within 4.5 s in aws-sdk-net #4341.
    """
    ceiling = _ceiling(limits, failures)
    return max(retry_after_ns, ceiling // 2 + int(chance.random() * (ceiling / 2)))


def backoff_after_loss(limits: Limits, losses: int, chance: random.Random) -> int:
    """
    Return nanoseconds to wait after a shard's worker died: none at first, since that was most likely not its doing.

    From the second loss on it is a suspect, and waits like any other fault.
    """
    return 0 if losses <= 1 else backoff_full_jitter(limits, losses - 1, chance)


def _ceiling(limits: Limits, failures: int) -> int:
    """Return the longest wait after that many failures, in nanoseconds."""
    # The exponent is cut so that a long series of failures makes no absurd float.
    return int(min(limits.backoff_cap, limits.backoff * 2 ** min(failures - 1, 40)) * SECOND)
