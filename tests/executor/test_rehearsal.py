"""What policies are worth on local processes, by counts: no time is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

import mppobs
from mppobs.executor.rehearsal import LOCAL_EFFECTS, LocalEffect, Outcome, split_items, takeover
from mppobs.instrument.recorder import RECORDER
from mppobs.model import JobOutcome

BY_NAME: dict[str, LocalEffect] = {effect.name: effect for effect in LOCAL_EFFECTS}


@pytest.fixture(autouse=True)
def _recorded(tmp_path: Path) -> object:
    """Have everything recorded below the test's directory."""
    before = RECORDER.reset()
    mppobs.configure(directory=tmp_path)
    yield None
    RECORDER.reset(before)


def both(name: str) -> tuple[Outcome, Outcome]:
    """Return the outcomes with the policy on and off."""
    return BY_NAME[name].run()


def test_splitting_leaves_no_large_piece() -> None:
    """A shard eight times as large is done in eight pieces, of which none is larger than an ordinary shard."""
    on, off = both("8 x skew")

    assert (on.largest, off.largest) == (10, 80)
    assert on.attempts == 24 - 1 + 8
    assert on.done == 24 - 1 + 8
    assert on.outcome is off.outcome is JobOutcome.SUCCESS


def test_a_copy_replaces_the_attempt_on_a_slow_worker() -> None:
    """A shard that a slow worker holds is done elsewhere, and the slow attempt ends as superseded."""
    on, off = both("a worker 40 x slower")

    assert on.superseded >= 1
    assert off.superseded == 0
    assert on.done == off.done == 24


def test_the_budget_bounds_a_retry_storm() -> None:
    """With 30 % of the attempts failing, at most 1.3 attempts for each shard, and more without the budget."""
    on, off = both("30 % of attempts fail")

    assert on.attempts_ratio <= 1.3 < off.attempts_ratio


def test_what_dead_nodes_ran_is_run_elsewhere() -> None:
    """No shard is lost with half of the nodes, unless the job forgives no loss."""
    on, off = both("half of the nodes die")

    assert on.failed == 0
    assert on.done == 60
    assert off.failed > 0


def test_a_standby_finishes_what_a_killed_coordinator_began() -> None:
    """Every shard is committed, and those that were before the kill are not run again."""
    outcome = takeover(standby=True)

    assert outcome.outcome is JobOutcome.SUCCESS
    assert outcome.done == 80
    assert outcome.attempts < 80


def test_a_split_loses_no_item() -> None:
    """The parts have all items among them, as evenly as can be."""
    for parts in (2, 3, 7):
        items = [part["items"] for part in split_items({"items": 80}, parts)]
        assert sum(items) == 80
        assert max(items) - min(items) <= 1
