"""Panels with axes: lines and bars over time, heatmaps, lanes of states."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from mppobs.render.dashboards.interpolate import Window
from mppobs.render.preview.data import Mark, Series, Shown
from mppobs.render.preview.legend import draw_legend, legend_room
from mppobs.render.preview.numbers import colour_of, mapped, write
from mppobs.render.preview.theme import BRIGHT, PALETTE, Sheet, colour, ground

_HEAT: Final = LinearSegmentedColormap.from_list("heat", ["#241a14", "#6b3410", "#d8691a", "#ffb357", "#fff1d6"])
_TICKS: Final = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
    172800,
    604800,
)
_LEFT: Final = 64
_BOTTOM: Final = 22
_ZEROS: Final = re.compile(r"(\.\d*?)0+(?!\d)")
_GAP: Final = 1.6
"""Points further apart than so many steps are not joined."""

Area = tuple[float, float, float, float]
"""Left, top, width, height in pixels."""


def draw_timeseries(sheet: Sheet, shown: Shown, area: Area, window: Window, marks: Sequence[Mark]) -> None:
    """Draw lines or bars over time, with legend, thresholds and marks."""
    series = [each for each in shown.series if len(each.times)]
    fields = [shown.field(each.name) for each in series]
    colours = [_colour(field, place) for place, field in enumerate(fields)]
    plot = legend_room(shown, area, len(series))
    x, y, width, height = plot
    axes = sheet.axes(x + _LEFT, y + 4, width - _LEFT - 10, height - _BOTTOM - 6)
    if series:
        _draw_all(axes, series, fields, colours, window)
    _scale(axes, shown, series, fields, window, height)
    _thresholds(axes, shown.defaults)
    _mark(axes, marks, window)
    _time_axis(axes, window, width)
    draw_legend(sheet, shown, series, colours, area, plot)


def _draw_all(
    axes: Axes, series: Sequence[Series], fields: Sequence[Mapping[str, Any]], colours: Sequence[str], window: Window
) -> None:
    """Draw every series, each on top of those before where they are stacked."""
    grid = _grid(window, series)
    floor = np.zeros(len(grid))
    for each, field, colour_ in zip(series, fields, colours, strict=True):
        custom = field["custom"]
        values = _on_grid(each, grid, window.step)
        base = np.zeros(len(grid))
        if custom.get("stacking", {}).get("mode") == "normal":
            base = floor.copy()
            floor = floor + np.nan_to_num(values)
        top = base + values
        fill = custom.get("fillOpacity", 0) / 100
        if custom.get("drawStyle") == "bars":
            bar = max(window.step * 0.82, (window.end - window.start) / 400)
            axes.bar(grid, np.nan_to_num(values), bar, base, color=colour_, alpha=max(fill, 0.3), linewidth=0)
            continue
        axes.plot(grid, top, color=colour_, linewidth=1.3 * custom.get("lineWidth", 1) / 2 + 0.3)
        alone = _alone(top)
        axes.plot(grid[alone], top[alone], ".", color=colour_, markersize=3)
        if fill:
            axes.fill_between(grid, base, top, color=colour_, alpha=fill, linewidth=0)


def _grid(window: Window, series: Sequence[Series]) -> Any:
    """Return the moments at which there are points: a step apart, in line with those of the answers."""
    first = min((each.times[0] for each in series if len(each.times)), default=window.start)
    start = window.start + (first - window.start) % window.step
    return np.arange(start, window.end + window.step / 2, window.step)


def _on_grid(series: Series, grid: Any, step: float) -> Any:
    """Return a series' values at the grid's times, NaN where it has none."""
    values = np.full(len(grid), np.nan)
    places = np.rint((np.asarray(series.times) - grid[0]) / step).astype(int)
    inside = (places >= 0) & (places < len(grid))
    values[places[inside]] = np.asarray(series.values, dtype=float)[inside]
    values[~np.isfinite(values)] = np.nan
    return values


def _alone(values: Any) -> Any:
    """Return where a value has no neighbour to be joined to by a line."""
    known = np.isfinite(values)
    before, after = np.roll(known, 1), np.roll(known, -1)
    before[0] = after[-1] = False
    return known & ~before & ~after


def _scale(
    axes: Axes,
    shown: Shown,
    series: Sequence[Series],
    fields: Sequence[Mapping[str, Any]],
    window: Window,
    height: float,
) -> None:
    """Set the range of the value axis and how its ticks are written."""
    unit, decimals = shown.defaults.get("unit", "short"), shown.defaults.get("decimals")
    low, high = axes.get_ylim() if series else (0.0, 1.0)
    logarithmic = shown.defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "log"
    if logarithmic and series:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        given_low, given_high = shown.defaults.get("min"), shown.defaults.get("max")
        bottom = given_low if given_low is not None else low
        top = given_high if given_high is not None else max(high, _least(unit, fields))
        axes.set_ylim(bottom, top if top > bottom else bottom + 1)
        axes.yaxis.set_major_locator(MaxNLocator(max(2, int(height // 42)), integer=decimals == 0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: tick(value, unit, decimals)))


def tick(value: float, unit: str, decimals: int | None = None) -> str:
    """
    Return a value as it stands beside an axis, without zeros that say nothing.

    >>> tick(0.8, "suffix:×"), tick(0.006, "currencyUSD"), tick(20, "short")
    ('0.8×', '$0.006', '20')
    """
    return _ZEROS.sub(lambda found: found[1] if len(found[1]) > 1 else "", write(value, unit, decimals))


def _least(unit: str, fields: Sequence[Mapping[str, Any]]) -> float:
    """Return how high the value axis reaches at the least, so that nothing happening looks like nothing."""
    return {"percentunit": 0.1, "short": 1.0, "cps": 0.1, "suffix:×": 1.2}.get(unit, 0.0) if fields else 1.0


def _thresholds(axes: Axes, defaults: Mapping[str, Any]) -> None:
    if "dashed" not in defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode", ""):
        return
    low, high = axes.get_ylim()
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is not None and low <= step["value"] <= high:
            axes.axhline(step["value"], color=colour(step["color"]), linewidth=1.1, linestyle=(0, (6, 4)), alpha=0.9)


def _mark(axes: Axes, marks: Sequence[Mark], window: Window) -> None:
    """Draw when something was so: a line where it began, and a bar along the bottom for as long as it was."""
    for mark in marks:
        axes.axvline(mark.start, color=colour(mark.colour), linewidth=0.7, linestyle=(0, (2, 4)), alpha=0.3)
        end = min(max(mark.end, mark.start + window.step), window.end)
        span = ((mark.start, end - mark.start),)
        axes.broken_barh(
            span, (-0.012, 0.012), transform=axes.get_xaxis_transform(), color=colour(mark.colour), clip_on=False,
            linewidth=0,
        )  # fmt: skip


def _time_axis(axes: Axes, window: Window, width: float) -> None:
    """Write times along the bottom: as many as there is room for, at round moments, in UTC."""
    axes.set_xlim(window.start, window.end)
    span = window.end - window.start
    wanted = span / max(2.0, width / 95)
    step = next((tick for tick in _TICKS if tick >= wanted), _TICKS[-1])
    first = math.ceil(window.start / step) * step
    form = "%m-%d" if step >= 86400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    ticks = np.arange(first, window.end, step)
    axes.set_xticks(ticks, [datetime.fromtimestamp(tick, UTC).strftime(form) for tick in ticks])


def _colour(field: Mapping[str, Any], place: int) -> str:
    """Return the colour of a series: its own, or the next of the palette."""
    given = field.get("color", {})
    if given.get("mode") == "fixed":
        return colour(given["fixedColor"])
    return PALETTE[place % len(PALETTE)]


def draw_heatmap(sheet: Sheet, shown: Shown, area: Area, window: Window) -> None:
    """Draw a histogram over time: a row per bucket, brighter where more fell into it."""
    x, y, width, height = area
    left = _LEFT + 10
    axes = sheet.axes(x + left, y + 4, width - left - 10, height - _BOTTOM - 6)
    axes.grid(visible=False)
    ladder = sorted(shown.series, key=lambda each: float(each.labels.get("le", "inf").replace("+Inf", "inf")))
    grid = _grid(window, ladder)
    unit = shown.panel["options"]["yAxis"].get("unit", "short")
    if ladder:
        cumulative = np.array([np.nan_to_num(_on_grid(each, grid, window.step)) for each in ladder])
        counts = np.diff(cumulative, axis=0, prepend=0).clip(min=0)
        counts[counts < 1e-9] = np.nan
        edges = np.arange(len(ladder) + 1)
        axes.pcolormesh(
            np.append(grid, grid[-1] + window.step) - window.step / 2, edges, counts, cmap=_HEAT,
            norm=PowerNorm(0.5, vmin=0), edgecolors="#181b1f", linewidth=0.3,
        )  # fmt: skip
        bounds = [each.labels.get("le", "") for each in ladder]
        texts = ["more" if bound == "+Inf" else f"≤ {write(float(bound), unit)}" for bound in bounds]
        axes.set_yticks(edges[:-1] + 0.5, texts)
        axes.set_ylim(0, len(ladder))
    _time_axis(axes, window, width)


def draw_timeline(sheet: Sheet, shown: Shown, area: Area, window: Window) -> None:
    """Draw a lane per series, coloured by its value."""
    x, y, width, height = area
    lanes = sorted(shown.series, key=lambda each: each.name, reverse=True)
    left = min(max((sheet.measure(each.name, 8) for each in lanes), default=0) + 14, width / 3)
    axes = sheet.axes(x + left, y + 4, width - left - 10, height - _BOTTOM - 6)
    axes.grid(visible=False, axis="y")
    for lane, each in enumerate(lanes):
        _lane(axes, shown, each, lane, window)
    axes.set_ylim(-0.6, max(len(lanes), 1) - 0.4)
    axes.set_yticks(range(len(lanes)), [sheet.cut(each.name, 8, left - 10) for each in lanes])
    _time_axis(axes, window, width)


def _lane(axes: Axes, shown: Shown, series: Series, lane: int, window: Window) -> None:
    """Draw one lane: a bar for as long as the value stays the same."""
    for start, end, value in runs_of(series, window.step):
        text, named = mapped(value, shown.defaults) or (write(value, shown.defaults.get("unit", "short")), "")
        fill = ground(named or colour_of(value, shown.defaults))
        axes.broken_barh(((start, end - start),), (lane - 0.36, 0.72), color=fill, linewidth=0)
        if (end - start) / (window.end - window.start) > 0.04:
            axes.text(start + window.step / 2, lane, text, color=BRIGHT, fontsize=7.5, va="center", clip_on=True)


def runs_of(series: Series, step: float) -> list[tuple[float, float, float]]:
    """
    Return for how long each value of a series stayed the same: start, end and value.

    >>> runs_of(Series("A", {}, (0, 10, 20, 60), (1.0, 1.0, 2.0, 2.0)), 10)
    [(0, 20, 1.0), (20, 30, 2.0), (60, 70, 2.0)]
    """
    found: list[tuple[float, float, float]] = []
    for time, value in zip(series.times, series.values, strict=True):
        if found and found[-1][2] == value and time - found[-1][1] <= step * (_GAP - 1):
            found[-1] = (found[-1][0], time + step, value)
        else:
            found.append((time, time + step, value))
    return found
