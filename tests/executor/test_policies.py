"""The scheduler's judgements, one by one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.errors import ConfigError
from mppobs.executor import policies
from mppobs.executor.plan import Limits
from mppobs.executor.policies import (
    SECOND,
    Autoscale,
    Blame,
    Policy,
    Share,
    SlowNodes,
    Speculation,
    Splitting,
    Spot,
)
from mppobs.executor.scheduling.sketch import Sketch
from mppobs.model import AttemptOutcome, Reason, StragglerCause, Tier

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


# Stragglers and splits


@given(st.lists(st.integers(1, 10**12), min_size=5, max_size=300))
def test_quartiles_of_a_sketch_are_near(values: list[int]) -> None:
    """The sketch is within a sixteenth of the exact quartiles, whatever the values."""
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    ordered = sorted(values)
    for share, found in zip((0.25, 0.5, 0.75), sketch.quantiles((0.25, 0.5, 0.75)), strict=True):
        exact = ordered[math.ceil(share * len(values)) - 1]
        assert abs(found - exact) <= max(exact / 16, 0.5)


@given(st.floats(1, 1e12), st.floats(1, 10), st.floats(1, 10))
def test_a_straggler_is_at_least_twice_the_median(lower: float, second: float, third: float) -> None:
    """The threshold is never below twice the median, Tukey's fence or the floor."""
    median, upper = lower * second, lower * second * third
    found = policies.straggles_after(Speculation(), lower, median, upper)
    assert found >= int(max(2 * median, upper + 1.5 * (upper - lower), 5 * SECOND))


@given(st.integers(1, 10**12), st.floats(0, 1), st.floats(1, 1e12))
def test_a_straggler_is_slow_exactly_when_its_rate_is_low(elapsed: int, progress: float, expected: float) -> None:
    """Slow is who does less than three quarters of what the others do in the time; anyone else has more to do."""
    cause = policies.cause_of(Speculation(), elapsed, progress, expected)
    rate = expected / (elapsed / progress if progress > 0 else elapsed)
    assert (cause is StragglerCause.SLOW_NODE) == (rate < 0.75) or abs(rate - 0.75) < 1e-9


@given(st.integers(0, 1 << 50), st.floats(0, 1 << 50))
def test_parts_are_neither_tiny_nor_many(size: int, median: float) -> None:
    """A split makes 2 to 32 parts, as large as the median or the least size unless that takes more parts."""
    parts = policies.parts_of(Splitting(), size, median)
    assert 2 <= parts <= 32
    assert parts in (2, 32) or size / parts <= max(median, 64 << 20) < size / (parts - 1)


@given(st.integers(1, 10_000))
def test_copies_and_nodes_set_aside_are_few(count: int) -> None:
    """At most a tenth of the workers run copies and a tenth of the nodes are set aside, or one; never all nodes."""
    assert 1 <= policies.most_copies(Speculation(), count) <= max(1, count // 10)
    assert policies.most_aside(SlowNodes(), count) <= max(1, count // 10)
    assert policies.most_aside(SlowNodes(), count) < count


# Shares and scaling


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_everything_is_due_some_time(submitted: int, deadline: int) -> None:
    """A job is due at its deadline, and without one the sooner the more it matters."""
    due = [policies.due_at(submitted, deadline, tier) for tier in Tier]
    assert due == ([deadline] * 3 if deadline else sorted(due))
    assert deadline or submitted < min(due)


@given(st.integers(1, 10_000))
def test_pressure_halves_and_comes_back(running: int) -> None:
    """A throttled stage runs half as many at a time and one at least; one more comes after a round of successes."""
    fewer = policies.fewer_at_a_time(running)
    assert max(1, running // 2) == fewer <= running
    assert not policies.more_at_a_time(fewer, fewer - 1)
    assert policies.more_at_a_time(fewer, fewer)


@given(st.floats(0, 1e18), st.integers(0, 10_000))
def test_workers_wanted_are_within_bounds(work: float, shards: int) -> None:
    """Never fewer than the lowest or more than the highest, nor more than there are shards."""
    rules = Autoscale(2, 500)
    wanted = policies.workers_wanted(rules, work, shards)
    assert 2 <= wanted <= 500
    assert wanted <= max(shards, 2)


@given(st.integers(0, 500), st.integers(2, 500))
def test_scaling_does_not_swing(target: int, wanted: int) -> None:
    """A change that was made is not undone by the same wish, and none is made within the tolerance."""
    rules = Autoscale(2, 500)
    assert not policies.is_enough_more(rules, wanted, wanted)
    assert not policies.is_enough_fewer(rules, wanted, wanted)
    if policies.is_enough_more(rules, target, wanted):
        assert not policies.is_enough_fewer(rules, target, wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Share(weight=0),
        lambda: Share(quota=-1),
        lambda: Speculation(done=2),
        lambda: Speculation(share=0),
        lambda: Splitting(most_parts=1),
        lambda: SlowNodes(share=1.0),
        lambda: Spot(evictions=0),
        lambda: Autoscale(5, 4),
        lambda: Autoscale(0, 4, drain=0),
        lambda: Policy(locality_wait=-1),
    ],
)
def test_settings_without_meaning_are_refused(make: Callable[[], object]) -> None:
    """Each setting is checked where it is made, and the message shows it."""
    with pytest.raises(ConfigError):
        make()


def test_the_plain_policy_has_everything_off() -> None:
    """The peer of comparisons differs from the usual policy in every switch that there is."""
    usual, plain = Policy(), Policy.plain()
    same = {each.name for each in fields(Policy) if getattr(usual, each.name) == getattr(plain, each.name)}
    assert same == {"tenants", "share", "autoscale"}
