"""How values look: units, thresholds, words for numbers, colours, links, and exceptions for single fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mppobs.model import AttemptOutcome, CostKind, JobOutcome, ShardOutcome

Json = dict[str, Any]
"""A part of a dashboard as Grafana reads it."""

GREEN: Final = "green"
AMBER: Final = "orange"
RED: Final = "red"
BLUE: Final = "blue"
GREY: Final = "#6e7687"
TEXT: Final = "text"

SECONDS: Final = "s"
AGE: Final = "dtdurations"
"""Seconds as days, hours and minutes."""
MOMENT: Final = "dateTimeAsIsoNoDateIfToday"
"""A point in time. Grafana wants milliseconds here, Prometheus has seconds: multiply by 1,000."""
BYTES: Final = "bytes"
BYTES_PER_SECOND: Final = "binBps"
DOLLARS: Final = "currencyUSD"
SHARE: Final = "percentunit"
COUNT: Final = "short"
FACTOR: Final = "suffix:×"
PER_SECOND: Final = "cps"
PER_HOUR: Final = "suffix: / h"

COLOURS: Final[Mapping[str, str]] = {
    JobOutcome.SUCCESS: "green",
    JobOutcome.FAILURE: "red",
    JobOutcome.ERROR: "orange",
    JobOutcome.CANCELLED: GREY,
    AttemptOutcome.TIMEOUT: "purple",
    AttemptOutcome.PREEMPTED: "blue",
    AttemptOutcome.SUPERSEDED: "light-blue",
    ShardOutcome.COMMITTED: "green",
    ShardOutcome.FAILED: "red",
    ShardOutcome.LOST: "orange",
    CostKind.USEFUL: "green",
    CostKind.RETRY: "red",
    CostKind.SPECULATION: "yellow",
    CostKind.PREEMPTED: "blue",
    CostKind.IDLE: GREY,
    "pending": "yellow",
    "running": "blue",
    "busy": "green",
    "draining": "orange",
    "read": "blue",
    "written": "purple",
}
"""One colour for one meaning, on every dashboard."""


@dataclass(frozen=True, slots=True)
class Steps:
    """
    Colours by value: the base, then each colour from its bound on.

    >>> Steps((1, AMBER), (2, RED)).to_json_data()["steps"][0]
    {'color': 'green', 'value': None}
    """

    bounds: tuple[tuple[float, str], ...]
    base: str = GREEN

    def __init__(self, *bounds: tuple[float, str], base: str = GREEN) -> None:
        """Take the bounds, which must rise."""
        if [bound for bound, _ in bounds] != sorted({bound for bound, _ in bounds}):
            raise ValueError(f"the bounds of thresholds must rise: {bounds}")
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "base", base)

    def to_json_data(self) -> Json:
        """Return them as Grafana reads them. (`grafanalib.Threshold` writes the base as the text 'null'.)"""
        steps = [{"color": self.base, "value": None}, *({"color": c, "value": v} for v, c in self.bounds)]
        return {"mode": "absolute", "steps": steps}


PLAIN: Final = Steps(base=TEXT)


def words(table: Mapping[float | str, tuple[str, str]]) -> list[Json]:
    """
    Return value mappings: what is shown for a value, and in which colour ("" leaves the colour alone).

    >>> words({0: ("ok", GREEN)})[0]["options"]
    {'0': {'color': 'green', 'index': 0, 'text': 'ok'}}
    """
    options = {
        str(value): {"text": text, "index": index} | ({"color": colour} if colour else {})
        for index, (value, (text, colour)) in enumerate(table.items())
    }
    return [{"type": "value", "options": {key: dict(sorted(option.items())) for key, option in options.items()}}]


def nothing(text: str, colour: str = GREY) -> list[Json]:
    """Return a mapping that says what an empty cell means."""
    return [
        {"type": "special", "options": {"match": "null+nan", "result": {"text": text, "color": colour, "index": 0}}}
    ]


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a panel's data, or of a panel."""

    title: str
    url: str
    new_tab: bool = False

    def to_json_data(self) -> Json:
        """Return it as Grafana reads it."""
        return {"title": self.title, "url": self.url, "targetBlank": self.new_tab}


@dataclass(frozen=True, slots=True)
class Override:
    """What is different about one field, chosen by its name, a regular expression for it, or a query's letter."""

    field: str
    properties: Mapping[str, Any]
    matcher: str = "byName"
    """`byName`, `byRegexp` or `byFrameRefID`."""

    def to_json_data(self) -> Json:
        """Return it as Grafana reads it."""
        properties = [{"id": key, "value": value} for key, value in self.properties.items()]
        return {"matcher": {"id": self.matcher, "options": self.field}, "properties": properties}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: where it comes from, what it is called, how its values look."""

    source: str
    """The label, or `Value #A` for a query's values."""
    title: str
    unit: str = ""
    width: int = 0
    """In pixels; 0 shares what is left."""
    decimals: int | None = None
    steps: Steps | None = None
    cell: str = "auto"
    """`auto`, `color-background`, `color-text` or `gauge`."""
    bounds: tuple[float, float] | None = None
    mappings: Sequence[Json] = ()
    links: Sequence[Link] = ()

    def override(self) -> Override:
        """Return the field override that makes the column look so."""
        given: Json = {}
        if self.unit:
            given["unit"] = self.unit
        if self.width:
            given["custom.width"] = self.width
        if self.decimals is not None:
            given["decimals"] = self.decimals
        if self.steps is not None:
            given["thresholds"] = self.steps.to_json_data()
            given["color"] = {"mode": "thresholds"}
        if self.bounds is not None:
            given["min"], given["max"] = self.bounds
        if self.mappings:
            given["mappings"] = list(self.mappings)
        if self.links:
            given["links"] = [link.to_json_data() for link in self.links]
        if self.cell != "auto":
            given["custom.cellOptions"] = _CELLS[self.cell]
        return Override(self.title, given)


_CELLS: Final[Mapping[str, Json]] = {
    "color-background": {"type": "color-background", "mode": "basic"},
    "color-text": {"type": "color-text"},
    "gauge": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
}


def coloured(names: Sequence[str]) -> tuple[Override, ...]:
    """Return overrides that give each series its fixed colour."""
    return tuple(Override(name, {"color": {"mode": "fixed", "fixedColor": COLOURS[name]}}) for name in names)
