"""
The table of indicators that people see: M1 to M12 down, pipelines across, each value in the unit that one would say.

Drawn from the sidecar's own report, so that it can show nothing that the API does not serve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from mppobs.catalog.indicators import INDICATORS
from mppobs.cli import show

Sli = Mapping[str, Any]
"""One indicator of `/api/v1/slis`."""


def written(value: float | None, unit: str) -> str:
    """
    Return a value of the API as people read it.

    >>> written(0.25, "seconds"), written(0.9987, "ratio"), written(3.0, ""), written(None, "usd")
    ('250 ms', '99.9 %', '3', '–')
    """
    return show.BY_UNIT[unit](value)


def indicator_table(pipelines: Sequence[Mapping[str, Any]], *, notes: bool = True) -> Table:
    """Return the table for some pipelines of `/api/v1/slis`; `notes` adds to each value what it is made of."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
    table.add_column("", style="dim", no_wrap=True, min_width=3)
    table.add_column("indicator", no_wrap=True)
    for pipeline in pipelines:
        table.add_column("" if notes else pipeline["pipeline"], justify="right", no_wrap=True, min_width=9)
        if notes:
            table.add_column(pipeline["pipeline"], header_style="bold cyan", style="dim", no_wrap=True)
    for indicator in INDICATORS:
        cells: list[Text] = []
        for pipeline in pipelines:
            sli = pipeline["indicators"][indicator.key]
            cells.append(Text(written(sli["value"], sli["unit"]), style=_style(indicator.key, sli["value"])))
            if notes:
                cells.append(Text(note(sli)))
        table.add_row(indicator.key, indicator.title, *cells)
    return table


def note(sli: Sli) -> str:
    """Return what stands beside an indicator's value: what it is, and the figures that it is made of."""
    write = _NOTES.get(sli["key"])
    return write(sli, _Parts(sli["parts"])) if write is not None else str(sli["headline"])


class _Parts:
    """The figures that an indicator is made of, by name."""

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        self._parts = {part["name"]: part for part in parts}

    def value(self, name: str) -> float:
        """Return a figure, 0 where it is not known."""
        return float(self._parts.get(name, {}).get("value") or 0.0)

    def told(self, name: str) -> str:
        """Return a figure as people read it."""
        part = self._parts.get(name)
        return show.NONE if part is None else written(part["value"], part["unit"])

    def nonzero(self, *names: str) -> str:
        """Return the counts that are not nought, each with its name."""
        return " · ".join(f"{self.told(name)} {name}" for name in names if self.value(name))


def _style(key: str, value: float | None) -> str:
    """Return how a value is coloured: by colour only what is good or bad by itself, whatever the objective."""
    if value is None:
        return show.QUIET
    if key in ("M2", "M5", "M12"):
        return show.GOOD if value == (1 if key == "M2" else 0) else show.BAD
    return show.DOUBTFUL if key == "M8" and value > 0 else "bold"


def _waste(parts: _Parts) -> str:
    """Return the share of the money that bought nothing."""
    total = parts.value("total")
    return show.percent(round(1 - parts.value("useful") / total, 4)) if total else show.NONE


_NOTES: Final[Mapping[str, Callable[[Sli, _Parts], str]]] = {
    "M1": lambda sli, parts: f"{sli['headline']} of {parts.told('jobs')} jobs",
    "M2": lambda _, parts: parts.nonzero("committed", "failed", "lost"),
    "M3": lambda sli, parts: f"{sli['headline']}; p50 {parts.told('p50')}",
    "M6": lambda _, parts: f"{parts.told('cpu')} CPU in {parts.told('wall')}",
    "M8": lambda _, parts: f"{parts.told('retries')} retries in {parts.told('attempts')} attempts",
    "M9": lambda sli, parts: f"{sli['headline']}; waste {_waste(parts)}",
    "M10": lambda sli, parts: f"{sli['headline']} of {parts.told('attempts')} starts",
    "M12": lambda _, parts: parts.nonzero("success", "failure", "error", "cancelled"),
}
