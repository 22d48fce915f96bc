"""Budgets that are spent: who watches them tells what has changed, and the tenant's jobs wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.errors import MppobsError
from mppobs.executor import Executor
from mppobs.executor.budgets import BudgetWatch, spent_tenants
from mppobs.model import Tier
from mppobs.testing import Captured, capture
from tests.executor.plans import as_dict, expected, group_by

Slos = list[dict[str, Any]]


def slo(tenant: str, left: float | None) -> dict[str, Any]:
    """Return an SLO as the API lists it; one that Prometheus counts where nothing is known to be left."""
    return {"slo": "team/x", "tenant": tenant, "period": None if left is None else {"budget_left_ratio": left}}


class Answers:
    """A sidecar that gives one answer after the other; `None` is none."""

    def __init__(self, *answers: Slos | None) -> None:
        self._answers = list(answers)
        self.told: list[tuple[str, bool]] = []
        self.troubles: list[str] = []

    def ask(self) -> Slos:
        answer = self._answers.pop(0)
        if answer is None:
            raise MppobsError("no answer")
        return answer

    def watch(self) -> BudgetWatch:
        return BudgetWatch(
            self.ask, lambda tenant, spent: self.told.append((tenant, spent)), lambda e: self.troubles.append(str(e))
        )


def test_a_tenant_has_spent_its_budget_when_one_slo_has_none_left() -> None:
    """Not when it is low, not for SLOs of everybody, not where nothing is known."""
    assert spent_tenants([slo("a", 0.0), slo("a", 0.9), slo("b", 0.01), slo("", -3.0), slo("c", None)]) == {"a"}


def test_what_changes_is_told_once() -> None:
    """A budget that is gone, and one that is back; nothing in between."""
    answers = Answers([slo("a", 0.5)], [slo("a", -1.0)], [slo("a", -1.1), slo("b", 0.0)], [slo("b", 0.0)])
    watch = answers.watch()
    for _ in range(4):
        watch.look()
    assert answers.told == [("a", True), ("b", True), ("a", False)]


def test_silence_changes_nothing_and_is_told_once() -> None:
    """Who waits goes on waiting while nobody answers, and one trouble is one word."""
    answers = Answers([slo("a", 0.0)], None, None, [slo("a", 0.0)], None, [])
    watch = answers.watch()
    for _ in range(6):
        watch.look()
    assert answers.told == [("a", True), ("a", False)]
    assert answers.troubles == ["no answer"] * 2


@given(st.lists(st.none() | st.dictionaries(st.sampled_from("abc"), st.floats(-2, 2)), max_size=12))
def test_what_was_told_adds_up_to_what_is(lefts: list[dict[str, float] | None]) -> None:
    """Whoever applies all that was told knows what the last answer said."""
    answers = Answers(*([slo(*each) for each in left.items()] if left is not None else None for left in lefts))
    watch = answers.watch()
    known: set[str] = set()
    last: dict[str, float] = {}
    for left in lefts:
        watch.look()
        last = last if left is None else left
    for tenant, spent in answers.told:
        assert spent is (tenant not in known)
        known ^= {tenant}
    assert known == watch.spent == {tenant for tenant, left in last.items() if left <= 0}


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


def test_jobs_of_a_spent_tenant_wait_until_there_is_budget_again(captured: Captured, tmp_path: Path) -> None:
    """A critical job and another tenant's go on meanwhile, and nothing is lost."""
    with Executor(2, tmp_path) as executor:
        executor.spend("media")
        held = executor.submit(group_by(tenant="media"))
        assert as_dict(executor.run(group_by(tenant="media", tier=Tier.CRITICAL))) == expected()
        assert as_dict(executor.run(group_by(tenant="ads"))) == expected()
        assert not held.wait(0)
        assert held.progress().stages[0].running == 0

        executor.spend("media", False)
        assert as_dict(held.result(30)) == expected()


def test_budgets_are_watched_while_a_job_runs(captured: Captured, tmp_path: Path) -> None:
    """The watcher holds a job back before its first attempt and lets go of it when the budget is back."""
    answers = iter([[slo("media", -0.5)], [slo("media", -0.5)]])
    with (
        Executor(2, tmp_path) as executor,
        BudgetWatch(
            lambda: next(answers, []), executor.spend, lambda error: pytest.fail(str(error)), every=0.2
        ) as watch,
    ):
        assert watch.spent == {"media"}
        assert as_dict(executor.submit(group_by(tenant="media")).result(30)) == expected()
        assert watch.spent == set()
