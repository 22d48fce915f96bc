"""The whole page: a bar with what is chosen, then every panel where the dashboard's grid puts it."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import matplotlib as mpl
from PIL import Image

from mppobs.render.dashboards.layout import COLUMNS
from mppobs.render.preview.charts import draw_heatmap, draw_timeline, draw_timeseries
from mppobs.render.preview.data import Page, Shown
from mppobs.render.preview.figures import draw_bars, draw_stat
from mppobs.render.preview.tables import draw_table
from mppobs.render.preview.theme import BORDER, BRIGHT, CANVAS, FAINT, PANEL, SETTINGS, TEXT, Sheet

WIDTH: Final = 1600
_MARGIN: Final = 14
_GAP: Final = 8
_UNIT: Final = 38
"""Pixels from one line of the grid to the next: thirty, and a gap, as in Grafana."""
_BAR: Final = 84
_TITLE: Final = 30
_COLOURS: Final = 200
"""Of a PNG; more add nothing that the eye can see to pictures of this kind, but half their size."""


def draw(page: Page) -> Sheet:
    """Return the picture of a dashboard."""
    bottom = max(panel.panel["gridPos"]["y"] + panel.panel["gridPos"]["h"] for panel in page.panels)
    with mpl.rc_context(dict(SETTINGS)):
        sheet = Sheet(WIDTH, _BAR + bottom * _UNIT + _MARGIN)
        _draw_bar(sheet, page)
        for shown in page.panels:
            _draw_panel(sheet, page, shown)
    return sheet


def save(page: Page, directory: Path, name: str) -> tuple[Path, Path]:
    """Write `NAME.svg` and `NAME.png`; return their paths."""
    sheet = draw(page)
    directory.mkdir(parents=True, exist_ok=True)
    svg, png = directory / f"{name}.svg", directory / f"{name}.png"
    with mpl.rc_context(dict(SETTINGS)):
        sheet.figure.savefig(svg, facecolor=CANVAS, metadata={"Date": None, "Title": page.dashboard["title"]})
        raw = io.BytesIO()
        sheet.figure.savefig(raw, format="png", facecolor=CANVAS, dpi=sheet.figure.dpi * 1.25)
    picture = Image.open(raw).convert("RGB").quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    picture.save(png, optimize=True)
    return svg, png


def _draw_bar(sheet: Sheet, page: Page) -> None:
    """Draw the title, the time range and what is chosen."""
    sheet.text(_MARGIN + 4, 24, page.dashboard["title"], size=14, fill=BRIGHT, bold=True)
    begin, end = (datetime.fromtimestamp(each, UTC) for each in (page.window.start, page.window.end))
    span = f"{begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"
    sheet.text(WIDTH - _MARGIN - 4, 24, span, size=10, fill=TEXT, at="right")
    left = float(_MARGIN + 4)
    for label, value in page.chosen:
        wide = sheet.measure(label, 9) + 16
        sheet.box(left, 44, wide, 26, PANEL, BORDER)
        sheet.text(left + 8, 57, label, fill="#6e9fff")
        left += wide
        room = sheet.measure(value, 9) + 24
        sheet.box(left, 44, room, 26, CANVAS, BORDER)
        sheet.text(left + 8, 57, value)
        left += room + 10


def _draw_panel(sheet: Sheet, page: Page, shown: Shown) -> None:
    """Draw a panel's frame and title, and what is in it."""
    grid = shown.panel["gridPos"]
    column = (WIDTH - 2 * _MARGIN + _GAP) / COLUMNS
    x, y = _MARGIN + grid["x"] * column, _BAR + grid["y"] * _UNIT
    width, height = grid["w"] * column - _GAP, grid["h"] * _UNIT - _GAP
    if shown.kind == "row":
        sheet.text(x + 4, y + 15, shown.panel["title"], size=11, fill=BRIGHT, bold=True)
        return
    sheet.box(x, y, width, height, PANEL, BORDER)
    sheet.text(x + 10, y + 16, shown.panel["title"], size=9.5, bold=True, room=width - 20)
    area = (x + 2, y + _TITLE, width - 4, height - _TITLE - 4)
    window = replace(page.window, step=shown.step or page.window.step)
    match shown.kind:
        case "timeseries":
            draw_timeseries(sheet, shown, area, window, page.marks)
        case "table":
            draw_table(sheet, shown, area)
        case "stat":
            draw_stat(sheet, shown, area, page.window)
        case "bargauge":
            draw_bars(sheet, shown, area)
        case "heatmap":
            draw_heatmap(sheet, shown, area, window)
        case "state-timeline":
            draw_timeline(sheet, shown, area, window)
        case other:
            sheet.text(x + 12, y + height / 2, f"a panel of kind {other} is not drawn here", fill=FAINT)
