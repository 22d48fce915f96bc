"""Panels without axes: single figures, walls of tiles, horizontal bars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from mppobs.render.dashboards.interpolate import Window
from mppobs.render.preview.data import Series, Shown
from mppobs.render.preview.numbers import colour_of, mapped, write
from mppobs.render.preview.theme import BRIGHT, FAINT, LINES, TEXT, Sheet, colour, ground

Area = tuple[float, float, float, float]
_TILE_SHAPE: Final = 2.6
"""How much wider than high a tile looks best."""


def draw_stat(sheet: Sheet, shown: Shown, area: Area, window: Window) -> None:
    """Draw one tile per series, as large as they go."""
    x, y, width, height = area
    series = list(shown.series)
    if not series:
        sheet.text(
            x + width / 2, y + height / 2, shown.defaults.get("noValue", "No data"), size=13, fill=FAINT, at="center"
        )
        return
    columns, rows = tiling(len(series), width, height)
    wide, high = width / columns, height / rows
    for place, each in enumerate(series):
        left, top = x + place % columns * wide, y + place // columns * high
        _draw_tile(sheet, shown, each, (left + 2, top + 2, wide - 4, high - 4), window, alone=len(series) == 1)


def tiling(count: int, width: float, height: float) -> tuple[int, int]:
    """
    Return how many columns and rows of tiles fill an area best.

    >>> tiling(6, 1000, 200), tiling(1, 200, 100)
    ((4, 2), (1, 1))
    """

    def badness(columns: int) -> float:
        rows = math.ceil(count / columns)
        shape = (width / columns) / (height / rows)
        return abs(math.log(shape / _TILE_SHAPE)) + 0.3 * (columns * rows - count) / count

    columns = min(range(1, count + 1), key=badness)
    return columns, math.ceil(count / columns)


def _draw_tile(sheet: Sheet, shown: Shown, series: Series, area: Area, window: Window, *, alone: bool) -> None:
    """Draw one tile: its figure, and its name where the panel says so."""
    x, y, width, height = area
    field, options = shown.field(series.name), shown.panel["options"]
    value = series.last
    text, named = mapped(value, field) or (write(value, field.get("unit", "short"), field.get("decimals")), "")
    fill = named or colour_of(value, field)
    mode = options.get("textMode", "auto")
    if mode == "name":
        text = series.name
    filled = options["colorMode"].startswith("background")
    if filled:
        sheet.box(x, y, width, height, ground(fill), r=3)
    if options.get("graphMode") == "area" and len(series.times) > 1:
        _sparkline(sheet, series, area, window, colour(fill))
    shade = BRIGHT if filled or fill == "text" else colour(fill)
    if mode == "value_and_name":
        name = series.name or "the tool, or a cluster"
        sheet.text(x + width / 2, y + height * 0.36, name, size=_fit(sheet, name, width - 16, min(15, height / 4.2)),
                   fill=BRIGHT, bold=True, at="center")  # fmt: skip
        sheet.text(x + width / 2, y + height * 0.69, text, size=min(14, height / 4.6), fill=BRIGHT, at="center")
        return
    size = _fit(sheet, text, width - 20, min(30, height * 0.36))
    sheet.text(x + width / 2, y + height * (0.42 if options.get("graphMode") == "area" else 0.5), text, size=size,
               fill=shade, bold=True, at="center")  # fmt: skip


def _fit(sheet: Sheet, text: str, room: float, size: float) -> float:
    """Return the largest size up to `size` at which a text fits."""
    wide = sheet.measure(text, size, bold=True)
    return size if wide <= room else max(7.0, size * room / wide)


def _sparkline(sheet: Sheet, series: Series, area: Area, window: Window, shade: str) -> None:
    x, y, width, height = area
    axes = sheet.axes(x + 2, y + height * 0.62, width - 4, height * 0.36)
    axes.set_axis_off()
    axes.plot(series.times, series.values, color=shade, linewidth=1.2)
    axes.fill_between(series.times, 0, series.values, color=shade, alpha=0.18, linewidth=0)
    axes.set_xlim(window.start, window.end)
    top = max((value for value in series.values if math.isfinite(value)), default=1.0)
    axes.set_ylim(0, top * 1.1 or 1)


def draw_bars(sheet: Sheet, shown: Shown, area: Area) -> None:
    """Draw one horizontal bar per series, with its name and its value."""
    x, y, width, height = area
    series = sorted(shown.series, key=lambda each: -each.last if math.isfinite(each.last) else 0)
    if not series:
        sheet.text(x + width / 2, y + height / 2, "No data", size=12, fill=FAINT, at="center")
        return
    fits = max(1, int((height - 8) // 20))
    step = min((height - 8) / min(len(series), fits), 40)
    names = min(max(sheet.measure(each.name, 9) for each in series) + 22, width * 0.4)
    top_value = (
        shown.defaults.get("max") or max((each.last for each in series if math.isfinite(each.last)), default=1.0) or 1
    )
    for place, each in enumerate(series[:fits]):
        _draw_bar(
            sheet, shown.field(each.name), each, (x + 10, y + 4 + place * step, width - 20, step), names, top_value
        )


def _draw_bar(sheet: Sheet, field: Mapping[str, Any], series: Series, area: Area, names: float, top: float) -> None:
    x, y, width, height = area
    middle, thick = y + height / 2, min(height - 6, 18)
    given = field.get("color", {})
    fill = given["fixedColor"] if given.get("mode") == "fixed" else colour_of(series.last, field)
    shade = colour("blue" if fill == "text" else fill)
    text = write(series.last, field.get("unit", "short"), field.get("decimals"))
    room = width - names - 84
    sheet.text(x, middle, series.name, room=names - 10)
    sheet.box(x + names, middle - thick / 2, room, thick, LINES)
    share = min(max(series.last / top, 0.0), 1.0) if math.isfinite(series.last) else 0.0
    if share > 0:
        sheet.box(x + names, middle - thick / 2, max(room * share, 2), thick, shade)
    sheet.text(x + width, middle, text, fill=TEXT if fill == "text" else shade, bold=True, at="right")
