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
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("indicator", no_wrap=True)
    for pipeline in pipelines:
        table.add_column(pipeline["pipeline"], style="bold cyan", justify="right", no_wrap=True)
        if notes:
            table.add_column("", style="dim", no_wrap=True)
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
    parts = {part["name"]: written(part["value"], part["unit"]) for part in sli["parts"] if part["value"] is not None}
    write = _NOTES.get(sli["key"])
    return write(sli["headline"], parts) if write is not None else sli["headline"]


def _style(key: str, value: float | None) -> str:
    """Return how a value is coloured: only what is bad by itself, whatever the objective, stands out."""
    if value is None:
        return "dim"
    bad = (key == "M2" and value < 1) or (key in ("M5", "M12") and value > 0)
    return "bold red" if bad else ""


def _nonzero(parts: Mapping[str, str], names: Sequence[str]) -> str:
    return " · ".join(f"{parts[name]} {name}" for name in names if parts.get(name, "0") != "0")


def _of(parts: Mapping[str, str], name: str) -> str:
    return parts.get(name, show.NONE)


_NOTES: Final[Mapping[str, Callable[[str, Mapping[str, str]], str]]] = {
    "M1": lambda headline, parts: f"{headline} of {_of(parts, 'jobs')} jobs",
    "M2": lambda _, parts: _nonzero(parts, ("committed", "failed", "lost")),
    "M3": lambda headline, parts: f"{headline}, where p50 is {_of(parts, 'p50')}",
    "M6": lambda _, parts: f"{_of(parts, 'cpu')} CPU in {_of(parts, 'wall')}",
    "M8": lambda _, parts: f"{_of(parts, 'retries')} retries in {_of(parts, 'attempts')} attempts",
    "M9": lambda headline, parts: f"{headline}; {_of(parts, 'retry')} on retries",
    "M10": lambda headline, parts: f"{headline} of {_of(parts, 'attempts')} starts",
    "M12": lambda _, parts: _nonzero(parts, ("success", "failure", "error", "cancelled")),
}
