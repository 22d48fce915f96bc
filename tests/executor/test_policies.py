"""The scheduler's judgements, one by one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.executor import policies
from mppobs.executor.plan import Limits
from mppobs.executor.policies import SECOND, Blame
from mppobs.model import AttemptOutcome, Reason

LIMITS = Limits(backoff=0.5, backoff_cap=20.0)


def ceiling(failures: int) -> float:
    """The longest wait after that many failures, computed step by step."""
    wait = 0.5
    for _ in range(failures - 1):
        wait = min(wait * 2, 20.0)
    return wait * SECOND


@given(st.integers(1, 300), st.integers())
def test_full_jitter_is_anything_up_to_the_doubled_limit(failures: int, seed: int) -> None:
    """The wait is never negative, never above the limit, and the limit never above its cap."""
    wait = policies.backoff_full_jitter(LIMITS, failures, random.Random(seed))
    assert 0 <= wait <= ceiling(failures)


def test_full_jitter_uses_the_whole_range() -> None:
    """Retries of many shards are spread evenly over the wait, so that they do not come back together."""
    chance = random.Random(1)
    waits = [policies.backoff_full_jitter(LIMITS, 3, chance) / ceiling(3) for _ in range(4000)]
    tenths = [sum(n / 10 <= wait < (n + 1) / 10 for wait in waits) for n in range(10)]
    assert min(tenths) > 320
    assert max(tenths) < 480


@given(st.integers(1, 300), st.integers(0, 100 * SECOND), st.integers())
def test_half_jitter_never_collapses(failures: int, asked: int, seed: int) -> None:
    """The wait is at least half the limit and at least what was asked for."""
    wait = policies.backoff_half_jitter(LIMITS, failures, asked, random.Random(seed))
    assert max(asked, ceiling(failures) // 2) <= wait <= max(asked, ceiling(failures))


def test_the_first_loss_is_nobodys_fault() -> None:
    """A shard that lost its worker once goes on at once; from then on it waits like after any fault."""
    chance = random.Random(1)
    assert policies.backoff_after_loss(LIMITS, 1, chance) == 0
    assert 0 < policies.backoff_after_loss(LIMITS, 2, chance) <= ceiling(1)


@pytest.mark.parametrize(
    ("outcome", "reason", "blame"),
    [
        (AttemptOutcome.FAILURE, Reason.EXCEPTION, Blame.SHARD),
        (AttemptOutcome.TIMEOUT, Reason.DEADLINE, Blame.SHARD),
        (AttemptOutcome.TIMEOUT, Reason.WORKER_LOST, Blame.SHARD),
        (AttemptOutcome.ERROR, Reason.STORAGE, Blame.SHARD),
        (AttemptOutcome.ERROR, Reason.NETWORK, Blame.SHARD),
        (AttemptOutcome.ERROR, Reason.WORKER_LOST, Blame.WORKER),
        (AttemptOutcome.ERROR, Reason.NODE_LOST, Blame.WORKER),
        (AttemptOutcome.ERROR, Reason.OOM_KILLED, Blame.WORKER),
        (AttemptOutcome.ERROR, Reason.PREEMPTED, Blame.EVICTION),
        (AttemptOutcome.PREEMPTED, Reason.PREEMPTED, Blame.EVICTION),
    ],
)
def test_blame_is_the_works_the_workers_or_nobodys(outcome: AttemptOutcome, reason: Reason, blame: Blame) -> None:
    """Only what the work or its storage did counts as one of the shard's tries."""
    assert policies.blame_for(outcome, reason) is blame


@given(st.floats(1, 1e12))
def test_a_window_holds_two_milliseconds_at_most(mean_ns: float) -> None:
    """What waits behind the running attempt is never more than 2 ms of work, and at least one attempt runs."""
    window = policies.window_by_duration(mean_ns)
    assert 1 <= window <= policies.MAX_WINDOW
    assert (window - 1) * mean_ns <= 2_000_000


@given(st.lists(st.integers(0, 50)))
def test_largest_first_is_a_stable_order(sizes: list[int]) -> None:
    """Each position comes once, sizes fall, and equal sizes keep their order."""
    order = list(policies.order_largest_first(sizes))
    assert order == sorted(range(len(sizes)), key=lambda position: (-sizes[position], position))
