"""How the commands print: tables that line up, units that people read, and colours that mean the same everywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import typer
from rich.console import Console
from rich.text import Text

from mppobs.cli.grid import Grid
from mppobs.units import human_bytes, human_seconds, human_usd

NONE: Final = "–"
"""For what is not known; never 0."""

GOOD: Final = "green"
DOUBTFUL: Final = "yellow"
BAD: Final = "bold red"
ACTIVE: Final = "cyan"
QUIET: Final = "dim"

_OUTCOMES: Final = {
    "success": GOOD, "committed": GOOD, "failure": BAD, "error": BAD, "failed": BAD, "lost": BAD,
    "cancelled": QUIET, "running": ACTIVE, "undecided": DOUBTFUL,
}  # fmt: skip
_PIPED_WIDTH: Final = 200
"""Columns where the output is no terminal, so that nothing is cut on its way into a file."""


def console() -> Console:
    """Return where to print: in colour on a terminal, unless NO_COLOR is set, and plain elsewhere."""
    found = Console(highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found = Console(highlight=False, width=_PIPED_WIDTH)
    return found


def print_json(value: object) -> None:
    """Print JSON for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(
    title: str, left: Sequence[str], right: Sequence[str], caption: str = "", *,
    less: Sequence[str] = (), prose: Sequence[str] = (),
) -> Grid:  # fmt: skip
    """
    Return an empty table: names stand left, figures right.

    On a narrow terminal the columns `less` are left out first, and those of `prose` go below their row.
    """
    return Grid(title, left, right, caption, less=less, prose=prose)


def seconds(value: float | None) -> str:
    """Return a duration for people."""
    return NONE if value is None else human_seconds(value)


def usd(value: float | None) -> str:
    """Return money for people."""
    return NONE if value is None else human_usd(value)


def cost(value: float | None) -> str:
    """
    Return money for people, or that nobody said what it costs.

    >>> cost(1.5), cost(None)
    ('$1.50', 'not priced')
    """
    return "not priced" if value is None else usd(value)


def size(value: float | None) -> str:
    """Return bytes for people."""
    return NONE if value is None else human_bytes(value)


def count(value: float | None) -> str:
    """
    Return a count with its thousands apart.

    >>> count(1234567), count(None)
    ('1,234,567', '–')
    """
    return NONE if value is None else f"{value:,.0f}"


def plural(number: int, one: str, many: str = "") -> str:
    """
    Return a number of things.

    >>> plural(1, "SLO"), plural(0, "error"), plural(2, "retry", "retries")
    ('1 SLO', '0 errors', '2 retries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(value: float | None) -> str:
    """
    Return a ratio as people say it, never rounded up to all.

    >>> percent(0.5), percent(0.99999), percent(1), percent(0)
    ('50 %', '99.999 %', '100 %', '0 %')
    """
    if value is None:
        return NONE
    digits = next((digits for digits in range(1, 6) if round(value * 100, digits) < 100), 6)
    return f"{value * 100:.{digits}f}".rstrip("0").rstrip(".") + " %" if value < 1 else f"{value * 100:.0f} %"


def number(value: float, digits: int = 3) -> str:
    """
    Return a number of no unit in so many digits, or as many as it has before its point.

    >>> number(0.01234), number(14.44), number(1000.0), number(-123456.7)
    ('0.0123', '14.4', '1,000', '-123,457')
    """
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def plain(value: float | None) -> str:
    """Return a number of no unit: whole where it is a count."""
    if value is None:
        return NONE
    return count(value) if float(value).is_integer() else number(value)


BY_UNIT: Final[dict[str, Callable[[float | None], str]]] = {
    "seconds": seconds, "bytes": size, "usd": usd, "ratio": percent, "": plain,
}  # fmt: skip
"""How a figure of each unit is written."""


def moment(text: str | None) -> str:
    """
    Return a time of the API in UTC, to the second.

    >>> moment("2026-01-02T03:04:05.678Z"), moment(None)
    ('2026-01-02 03:04:05', '–')
    """
    return NONE if text is None else datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")


def outcome(word: str | None) -> Text:
    """Return an outcome or a state in its colour; nothing yet is what runs."""
    return Text(word or "running", _OUTCOMES.get(word or "running", ""))


def graded(value: float | None, write: Callable[[float | None], str], *, good: float, doubtful: float) -> Text:
    """
    Return a figure in the colour of what it means; whether more or less is better shows in the order of the bounds.

    >>> graded(0.97, percent, good=1.0, doubtful=0.99).style
    'bold red'
    >>> graded(0.0, percent, good=0.0, doubtful=0.1).style
    'green'
    """
    if value is None:
        return Text(NONE, QUIET)
    sign = 1 if good >= doubtful else -1
    style = GOOD if sign * value >= sign * good else DOUBTFUL if sign * value >= sign * doubtful else BAD
    return Text(write(value), style)


def marked(value: int, style: str = BAD) -> Text:
    """Return a count that should be 0: quiet where it is, in the given colour where it is not."""
    return Text(count(value), style if value else QUIET)


def several(items: Sequence[dict[str, Any]], key: str) -> bool:
    """Return whether a column would tell the rows apart."""
    return len({item[key] for item in items}) > 1
