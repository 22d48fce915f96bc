"""What a dashboard's queries were answered, and where each panel stands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mppobs.render.dashboards.fields import Json
from mppobs.render.dashboards.interpolate import Window

_LEGEND: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer."""

    letter: str
    """The `refId` of its query."""
    labels: Mapping[str, str]
    times: Sequence[float]
    """Unix seconds, rising."""
    values: Sequence[float]
    legend: str = ""

    @property
    def name(self) -> str:
        """
        Return what the series is called: its legend with labels filled in, or else its labels.

        >>> Series("A", {"stage": "map", "quantile": "0.5"}, (), (), "{{stage}} p{{quantile}}").name
        'map p0.5'
        """
        if self.legend:
            return _LEGEND.sub(lambda found: self.labels.get(found[1], ""), self.legend).strip()
        shown = ", ".join(f'{key}="{value}"' for key, value in sorted(self.labels.items()) if key != "__name__")
        return f"{{{shown}}}" if shown else self.labels.get("__name__", "Value")

    @property
    def last(self) -> float:
        """Return the newest value that is a number; NaN where there is none."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)


@dataclass(frozen=True, slots=True)
class Shown:
    """A panel with the answers to its queries."""

    panel: Json
    series: Sequence[Series] = ()
    step: float = 0.0
    """Seconds between two points, where the panel wants them further apart than the page."""

    @property
    def kind(self) -> str:
        """Return which kind of panel it is."""
        return str(self.panel["type"])

    @property
    def defaults(self) -> Json:
        """Return what holds for all its fields."""
        found: Json = self.panel.get("fieldConfig", {}).get("defaults", {})
        return found

    def field(self, name: str) -> Json:
        """Return what holds for one field: the defaults, and what overrides say of it by its name."""
        merged: Json = {**self.defaults, "custom": dict(self.defaults.get("custom", {}))}
        for override in self.panel.get("fieldConfig", {}).get("overrides", []):
            matcher = override["matcher"]
            if matcher["id"] == "byName" and matcher["options"] == name:
                for each in override["properties"]:
                    _set(merged, each["id"], each["value"])
        return merged


@dataclass(frozen=True, slots=True)
class Mark:
    """A span of time with a name, from an annotation."""

    name: str
    colour: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard with all its answers: what a picture is made of."""

    dashboard: Json
    panels: Sequence[Shown]
    window: Window
    chosen: Sequence[tuple[str, str]] = ()
    """The variables that are shown, each with what is chosen."""
    marks: Sequence[Mark] = field(default_factory=tuple)


def _set(merged: Json, path: str, value: Any) -> None:
    """Set a property of a field by its path, such as `custom.width`."""
    *parents, last = path.split(".")
    for parent in parents:
        merged = merged.setdefault(parent, {})
    merged[last] = value
