"""Legends: a line of names below a chart, or a table of names and figures beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from mppobs.render.preview.data import Series, Shown
from mppobs.render.preview.numbers import write
from mppobs.render.preview.theme import FAINT, TEXT, Sheet

_LINE: Final = 17
_SIDE: Final = 250
_MOST_LINES: Final = 2

Area = tuple[float, float, float, float]


def legend_room(shown: Shown, area: Area, count: int) -> Area:
    """Return what is left of an area for the chart once its legend has its room."""
    x, y, width, height = area
    if not count or not shown.panel["options"]["legend"]["showLegend"]:
        return area
    if _beside(shown):
        return x, y, width - min(_SIDE, width * 0.42), height
    lines = 1 if count * 95 < width else _MOST_LINES
    return x, y, width, height - _LINE * lines - 2


def draw_legend(
    sheet: Sheet, shown: Shown, series: Sequence[Series], colours: Sequence[str], area: Area, plot: Area
) -> None:
    """Write the legend into the room beside or below the chart."""
    if plot == area:
        return
    if _beside(shown):
        _table(sheet, shown, series, colours, area, plot)
        return
    x, bottom, room = area[0] + 10, plot[1] + plot[3] + _LINE / 2 - 2, area[2] - 20
    at, line, lines = 0.0, 0, round((area[3] - plot[3] - 2) / _LINE)
    for place, (each, fill) in enumerate(zip(series, colours, strict=True)):
        name = sheet.cut(each.name, 8, room / 2)
        wide = sheet.measure(name, 8) + 34
        if at + wide > room - (50 if line == lines - 1 else 0) and at > 0:
            if line == lines - 1:
                sheet.text(x + at, bottom + line * _LINE, f"+{len(series) - place} more", size=8, fill=FAINT)
                return
            at, line = 0.0, line + 1
        sheet.box(x + at, bottom + line * _LINE - 2, 12, 4, fill)
        sheet.text(x + at + 17, bottom + line * _LINE, name, size=8)
        at += wide


def _table(
    sheet: Sheet, shown: Shown, series: Sequence[Series], colours: Sequence[str], area: Area, plot: Area
) -> None:
    x, y = plot[0] + plot[2] + 6, plot[1] + 12
    right = area[0] + area[2] - 10
    unit = shown.defaults.get("unit", "short")
    for title, place in (("last", right - 58), ("max", right)):
        sheet.text(place, y, title, size=8, fill=FAINT, at="right")
    fits = int((plot[3] - 24) // _LINE)
    for line, (each, fill) in enumerate(zip(series[:fits], colours, strict=False), 1):
        at = y + line * _LINE
        sheet.box(x, at - 2, 12, 4, fill)
        sheet.text(x + 17, at, each.name, size=8, room=right - 120 - x - 17)
        largest = max((value for value in each.values if not math.isnan(value)), default=math.nan)
        for value, place in ((each.last, right - 58), (largest, right)):
            sheet.text(place, at, write(value, unit), size=8, fill=TEXT, at="right")
    if len(series) > fits:
        sheet.text(x, y + (fits + 1) * _LINE, f"+{len(series) - fits} more", size=8, fill=FAINT)


def _beside(shown: Shown) -> bool:
    return bool(shown.panel["options"]["legend"]["placement"] == "right")
