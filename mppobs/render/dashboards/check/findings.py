"""What checks find, and a dashboard as they walk over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mppobs.render.dashboards.fields import Json
from mppobs.render.dashboards.interpolate import sample


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a dashboard."""

    rule: str
    dashboard: str
    """Its uid."""
    panel: str
    """The panel's number and title; empty where the dashboard itself is meant."""
    text: str

    def __str__(self) -> str:
        """Return it as a line."""
        where = f"{self.dashboard}, panel {self.panel}" if self.panel else self.dashboard
        return f"{self.rule}: {where}: {self.text}"


Problem = tuple[str, str]
"""A panel, or nothing, and what is wrong."""
Rule = Callable[[Json], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel, as Prometheus would be asked it."""

    panel: Json
    where: str
    letter: str
    written: str
    """As it stands in the dashboard."""
    promql: str
    """With every variable standing for anything."""
    legend: str


def panels(dashboard: Json) -> Iterator[tuple[str, Json]]:
    """Yield every panel that shows something, with its number and title."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield f"{panel.get('id', '?')} ({panel.get('title', '')})", panel
        yield from panels({"panels": panel.get("panels", [])})


def targets(dashboard: Json) -> Iterator[Target]:
    """Yield every query of every panel."""
    names = [variable["name"] for variable in variables(dashboard)]
    for where, panel in panels(dashboard):
        for target in panel.get("targets", []):
            text = target.get("expr", "")
            yield Target(panel, where, target["refId"], text, sample(text, names), target.get("legendFormat", ""))


def variables(dashboard: Json) -> list[Json]:
    """Return the variables of a dashboard."""
    found: list[Json] = dashboard["templating"]["list"]
    return found
