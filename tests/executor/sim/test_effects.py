"""What each policy is worth, on the same simulated run with and without it. Every figure is the same everywhere."""

from __future__ import annotations

import pytest

from mppobs.executor.sim.effects import EFFECTS, Outcome
from mppobs.model import JobOutcome

BY_NAME = {effect.name: effect for effect in EFFECTS}


def both(name: str) -> tuple[Outcome, Outcome]:
    """Return the outcomes with the policy on and off."""
    return BY_NAME[name].run()


def test_splitting_cuts_the_tail_of_skew() -> None:
    """With one shard in fifty eight times as large: a third of the p99 and less time in all."""
    on, off = both("8 x skew")

    assert on.splits == 8
    assert off.splits == 0
    assert on.p99 < off.p99 / 3
    assert on.seconds < off.seconds
    assert on.failed == off.failed == 0


def test_copies_cut_the_tail_of_a_slow_node() -> None:
    """With one node eight times slower: half of the p99, and a third of the time."""
    on, off = both("a node 8 x slower")

    assert on.p99 < off.p99 / 2
    assert on.seconds < off.seconds / 3
    assert on.attempts <= 1.05 * on.planned


def test_copies_end_a_long_tail() -> None:
    """A few attempts that take twenty times as long do not decide when the job ends."""
    on, off = both("long tail")

    assert on.seconds < off.seconds / 2
    assert 0 < on.speculative <= 0.1 * on.planned


def test_the_budget_bounds_a_retry_storm() -> None:
    """When 30 % of all attempts fail for good, there are at most 1.3 attempts a shard, and more without a budget."""
    on, off = both("30 % of attempts fail")

    assert on.attempts_ratio <= 1.3
    assert off.attempts_ratio > 1.4


def test_backoff_outlasts_an_outage() -> None:
    """Retries that wait come when the network is there again; those that do not are used up while it is gone."""
    on, off = both("the fabric is gone for 45 s")

    assert on.outcome is JobOutcome.SUCCESS
    assert on.failed == 0
    assert off.failed > 50


def test_back_pressure_spares_a_hot_prefix() -> None:
    """Workers that ask less often are served; those that ask again at once are turned away, and shards are lost."""
    on, off = both("a hot prefix")

    assert on.failed == 0
    assert on.attempts_ratio <= 1.3
    assert off.attempts_ratio > 3
    assert off.failed > 0


@pytest.mark.parametrize("name", ["a quarter of the nodes dies", "a zone dies"])
def test_lost_workers_lose_no_shards(name: str) -> None:
    """What a dead node ran goes to others; a job that forgives no loss loses those shards."""
    on, off = both(name)

    assert on.failed == 0
    assert on.committed == on.planned
    assert off.failed > 0


def test_a_zone_that_flaps_loses_no_shards() -> None:
    """What was lost with a zone goes to another one; sent back, one in ten is lost there until it is given up."""
    on, off = both("a zone dies every minute")

    assert on.failed == 0
    assert on.committed == on.planned
    assert off.failed > 0.1 * off.planned


def test_a_shard_that_needs_more_memory_gets_it() -> None:
    """Retries with more room succeed; retries in the same place run out of memory again."""
    on, off = both("3 x memory in a tenth of the shards")

    assert on.failed == 0
    assert off.failed > 10
    assert on.attempts < off.attempts


def test_every_effect_is_asked_for() -> None:
    """Every comparison is one of these tests', and those that name a failure mode cover F1 to F3 and F5 to F7."""
    assert len(BY_NAME) == len(EFFECTS) == 10
    assert {effect.mode for effect in EFFECTS} >= {"F1", "F2", "F3", "F5", "F6", "F7"}
