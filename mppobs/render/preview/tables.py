"""Tables: the answers of instant queries joined by their labels, in the columns that the panel names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mppobs.render.preview.data import Series, Shown
from mppobs.render.preview.numbers import colour_of, mapped, write
from mppobs.render.preview.theme import BORDER, BRIGHT, FAINT, LINES, TEXT, Sheet, colour, ground

Row = dict[str, Any]
Area = tuple[float, float, float, float]

_HEAD: Final = 26
_LINE: Final = 27
_LEAST: Final = 90
_LINK: Final = "#6e9fff"
_BARE: Final = ("text", "transparent")
"""Colours that leave a cell as it is."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as it is shown."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def grid_of(shown: Shown) -> Grid:
    """Return the rows of a table panel: merged, its columns chosen, named and ordered, its rows sorted."""
    organise = next(each["options"] for each in shown.panel["transformations"] if each["id"] == "organize")
    names: Mapping[str, str] = organise["renameByName"]
    order = sorted(names, key=lambda source: int(organise["indexByName"][source]))
    rows = merge(shown.series, one=len({each.letter for each in shown.series}) < 2 and "Value" in names)
    titles = tuple(names[source] for source in order)
    cells = [tuple(row.get(source) for source in order) for row in rows]
    for sort in shown.panel["options"].get("sortBy", []):
        place = titles.index(sort["displayName"])
        known = [row for row in cells if not _is_missing(row[place])]
        known.sort(key=lambda row: _sortable(row[place]), reverse=bool(sort["desc"]))
        cells = known + [row for row in cells if _is_missing(row[place])]
    return Grid(titles, tuple(cells))


def merge(series: Iterable[Series], *, one: bool = False) -> list[Row]:
    """
    Return rows of labels and values: results of several queries are one row where the labels that all have agree.

    >>> a, b = Series("A", {"x": "1", "y": "2"}, [0], [5.0]), Series("B", {"x": "1"}, [0], [7.0])
    >>> merge([a, b])
    [{'x': '1', 'y': '2', 'Value #A': 5.0, 'Value #B': 7.0}]
    """
    found = list(series)
    labels = [set(each.labels) - {"__name__"} for each in found]
    keys = sorted(set.intersection(*labels)) if labels else []
    rows: dict[tuple[str, ...] | int, Row] = {}
    for place, each in enumerate(found):
        key: tuple[str, ...] | int = place if one else tuple(each.labels[name] for name in keys)
        row = rows.setdefault(key, {})
        row |= {name: value for name, value in each.labels.items() if name != "__name__"}
        row["Value" if one else f"Value #{each.letter}"] = each.last
    return list(rows.values())


def draw_table(sheet: Sheet, shown: Shown, area: Area) -> None:
    """Draw a table, as many rows as fit."""
    x, y, width, height = area
    grid = grid_of(shown)
    if not grid.rows:
        text = shown.defaults.get("noValue", "No data")
        sheet.text(x + width / 2, y + height / 2, text, size=12, fill=FAINT, at="center")
        return
    fields = [shown.field(title) for title in grid.titles]
    widths = _widths(fields, width - 16)
    left = x + 8
    for title, wide in zip(grid.titles, widths, strict=True):
        sheet.text(left + 6, y + _HEAD / 2, title, size=8.5, fill=_LINK, bold=True, room=wide - 10)
        left += wide
    fits = int((height - _HEAD - 4) // _LINE)
    for place, row in enumerate(grid.rows[:fits]):
        top = y + _HEAD + place * _LINE
        sheet.box(x + 8, top, width - 16, 0.8, BORDER, r=0)
        _draw_row(sheet, row, fields, widths, x + 8, top)
    if len(grid.rows) > fits:
        rest = f"and {len(grid.rows) - fits} more"
        sheet.text(x + width - 12, y + height - 8, rest, size=8, fill=FAINT, at="right")


def _draw_row(
    sheet: Sheet,
    row: Sequence[Any],
    fields: Sequence[Mapping[str, Any]],
    widths: Sequence[float],
    left: float,
    top: float,
) -> None:
    for value, field, wide in zip(row, fields, widths, strict=True):
        _draw_cell(sheet, value, field, left, top, wide)
        left += wide


def _draw_cell(sheet: Sheet, value: Any, field: Mapping[str, Any], left: float, top: float, wide: float) -> None:
    """Draw one cell: its text, on its colour or beside its bar."""
    text, named = mapped(value, field) or (_text(value, field), "")
    is_number = isinstance(value, float) and not math.isnan(value)
    fill = named or (colour_of(value, field) if is_number else "text")
    cell = field["custom"].get("cellOptions", {}).get("type", "auto")
    middle = top + _LINE / 2
    if cell == "color-background" and fill not in _BARE and text:
        sheet.box(left + 2, top + 3, wide - 4, _LINE - 5, ground(fill))
        sheet.text(left + 8, middle, text, fill=BRIGHT, bold=True, room=wide - 14)
    elif cell == "gauge" and is_number:
        _draw_gauge(sheet, value, field, text, fill, left, top, wide)
    else:
        own = (cell == "color-text" or named) and fill not in _BARE
        shade = colour(fill) if own else _LINK if field.get("links") else TEXT
        sheet.text(left + 6, middle, text, fill=shade, room=wide - 10)


def _draw_gauge(
    sheet: Sheet, value: float, field: Mapping[str, Any], text: str, fill: str, left: float, top: float, wide: float
) -> None:
    low, high = field.get("min", 0), field.get("max", 1)
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    room = max(wide - 62, 10)
    sheet.box(left + 6, top + 6, room, _LINE - 12, LINES)
    if share > 0:
        sheet.box(left + 6, top + 6, max(room * share, 2), _LINE - 12, colour(fill))
    sheet.text(left + wide - 6, top + _LINE / 2, text, fill=colour(fill), bold=True, at="right")


def _text(value: Any, field: Mapping[str, Any]) -> str:
    if _is_missing(value):
        return ""
    return write(value, field.get("unit", "short"), field.get("decimals")) if isinstance(value, float) else str(value)


def _widths(fields: Sequence[Mapping[str, Any]], room: float) -> list[float]:
    """Return the width of every column: what it asks for, and an equal share of the rest."""
    given = [float(field["custom"].get("width", 0)) for field in fields]
    shares = given.count(0)
    rest = max((room - sum(given)) / shares, _LEAST) if shares else 0.0
    wanted = [each or rest for each in given]
    scale = room / sum(wanted)
    return [each * scale for each in wanted] if scale < 1 or not shares else wanted


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _sortable(value: Any) -> tuple[float, str]:
    """Return a key that puts numbers in their order, and texts in theirs."""
    try:
        return (float(value), "")
    except ValueError:
        return (0.0, str(value))
