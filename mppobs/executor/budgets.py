"""
Budgets that somebody else keeps, told to an executor: while a tenant's is spent, its jobs that are not critical wait.

The sidecar counts what SLOs cost; `mppobs run --budgets URL` asks it. Where it does not answer, what was known last
stays: a blind spot neither stops jobs nor lets go of those that wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from mppobs.errors import MppobsError

EVERY_SECONDS: Final = 15.0
"""How often budgets are asked for: as often as Prometheus scrapes by default."""

Ask = Callable[[], Iterable[Mapping[str, Any]]]
"""Returns SLOs as `GET /api/v1/slos` lists them. Raises `MppobsError` where nobody answers."""


def spent_tenants(slos: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """
    Return the tenants with an SLO that has no budget left.

    SLOs that name no tenant are everybody's and hold nobody back; of those that Prometheus counts nothing is known.

    >>> spent_tenants([{"tenant": "media", "period": {"budget_left_ratio": -0.1}}, {"tenant": "ads", "period": None}])
    frozenset({'media'})
    """
    found = set()
    for slo in slos:
        period = slo.get("period")
        if slo.get("tenant") and period and period["budget_left_ratio"] <= 0:
            found.add(slo["tenant"])
    return frozenset(found)


class BudgetWatch:
    """
    Looks at budgets again and again, and tells what has changed. Use it as a context manager.

    `spend` is `Executor.spend`, `trouble` is called with what was wrong when nobody answers, once until somebody does.
    """

    def __init__(
        self,
        ask: Ask,
        spend: Callable[[str, bool], None],
        trouble: Callable[[MppobsError], None],
        every: float = EVERY_SECONDS,
    ) -> None:
        self.spent: frozenset[str] = frozenset()
        self._ask = ask
        self._spend = spend
        self._trouble = trouble
        self._every = every
        self._blind = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mppobs-budgets", daemon=True)

    def look(self) -> None:
        """Ask once, and tell what is different from before."""
        try:
            now = spent_tenants(self._ask())
        except MppobsError as error:
            if not self._blind:
                self._trouble(error)
            self._blind = True
            return
        self._blind = False
        for tenant in sorted(now ^ self.spent):
            self._spend(tenant, tenant in now)
        self.spent = now

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.look()

    def __enter__(self) -> Self:
        """Look at once, so that what is submitted next finds budgets as they are, and go on in a thread."""
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()
