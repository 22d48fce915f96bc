"""Every rule, and the walk over a set of dashboards that applies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mppobs.render.dashboards.check.findings import Finding, Rule
from mppobs.render.dashboards.check.linter import LINTER
from mppobs.render.dashboards.check.queries import QUERIES
from mppobs.render.dashboards.check.structure import LINKS, STRUCTURE
from mppobs.render.dashboards.fields import Json

LINK_RULE: Final = "links"
RULES: Final[tuple[str, ...]] = (*LINTER, *QUERIES, *STRUCTURE, LINK_RULE)
"""The names of all rules, in the order in which they are applied."""


def findings(dashboards: Sequence[Json], only: Sequence[str] = RULES) -> list[Finding]:
    """Return what is wrong with some dashboards by some rules, or by all. Their links may lead to each other."""
    books = {dashboard["uid"]: dashboard for dashboard in dashboards}
    rules: Mapping[str, Rule] = {**LINTER, **QUERIES, **STRUCTURE, LINK_RULE: LINKS(books)}
    return [
        Finding(name, dashboard["uid"], panel, text)
        for dashboard in dashboards
        for name in only
        for panel, text in rules[name](dashboard)
    ]
