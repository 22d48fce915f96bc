"""Colours, fonts and the sheet that is drawn on: Grafana's dark theme, in pixels from the top left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.patches import FancyBboxPatch

CANVAS: Final = "#111217"
PANEL: Final = "#181b1f"
BORDER: Final = "#2a2d33"
LINES: Final = "#2b2e35"
TEXT: Final = "#ccccdc"
FAINT: Final = "#8e8f9c"
BRIGHT: Final = "#ffffff"
DPI: Final = 100

NAMED: Final[Mapping[str, str]] = {
    "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "yellow": "#fade2a",
    "purple": "#b877d9", "light-blue": "#8ab8ff", "text": TEXT,
}  # fmt: skip
FILLED: Final[Mapping[str, str]] = {
    "green": "#3f7f4a", "orange": "#d9730b", "red": "#d21f3a", "blue": "#3867b8", "text": "#2b2e35",
    "purple": "#7a4b96", "#6e7687": "#444b5a",
}  # fmt: skip
"""Named colours as grounds that white text can be read on."""
PALETTE: Final = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#c8f2c2", "#ffee52", "#3274d9",
    "#fa6400", "#e02f44", "#8f3bb8", "#a16a03", "#96d98d",
)  # fmt: skip
_INSTALLED: Final = frozenset(font.name for font in fontManager.ttflist)
FAMILY: Final = tuple(
    name for name in ("Inter", "Roboto", "Liberation Sans", "Arial", "Helvetica", "DejaVu Sans") if name in _INSTALLED
)
"""Grafana's own font where it is installed, or what looks most like it; the last one comes with matplotlib."""
SETTINGS: Final[Mapping[Any, Any]] = {
    "font.family": "sans-serif", "font.sans-serif": list(FAMILY), "text.parse_math": False, "svg.fonttype": "none",
    "svg.hashsalt": "mppobs", "axes.unicode_minus": False, "path.simplify": True,
}  # fmt: skip
"""What matplotlib is told while a sheet is drawn. Money is no mathematics: `$` stays `$`."""


def colour(name: str) -> str:
    """Return a colour of Grafana by its name, or the colour itself."""
    return NAMED.get(name, name)


def ground(name: str) -> str:
    """Return a colour for what white text stands on."""
    return FILLED.get(name, colour(name))


class Sheet:
    """A picture of a given size, with shapes and texts placed in pixels and axes where charts go."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=CANVAS)
        self.canvas = FigureCanvasAgg(self.figure)
        self._plane = self.figure.add_axes((0, 0, 1, 1), frameon=False)
        self._plane.set_xlim(0, width)
        self._plane.set_ylim(height, 0)
        self._plane.set_axis_off()

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes that fill a rectangle, dressed for the theme."""
        bounds = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(bounds, facecolor="none")
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(colors=FAINT, labelsize=8, length=0, pad=4)
        axes.grid(color=LINES, linewidth=0.7)
        axes.set_axisbelow(True)
        return axes

    def box(self, x: float, y: float, width: float, height: float, fill: str, edge: str = "none", r: float = 2) -> None:
        """Draw a filled rectangle with rounded corners."""
        style = f"round,pad=0,rounding_size={min(r, width / 2, height / 2):g}"
        self._plane.add_patch(
            FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=fill, edgecolor=edge, linewidth=0.8)
        )

    def text(
        self, x: float, y: float, text: str, *, size: float = 9, fill: str = TEXT, bold: bool = False,
        at: str = "left", room: float = 0,
    ) -> None:  # fmt: skip
        """Write a text whose middle is at height `y`, cut to `room` pixels where that is given."""
        if room:
            text = self.cut(text, size, room, bold=bold)
        weight = "bold" if bold else "normal"
        self._plane.text(x, y, text, fontsize=size, color=fill, fontweight=weight, ha=at, va="center_baseline")

    def measure(self, text: str, size: float, *, bold: bool = False) -> float:
        """Return how many pixels wide a text is."""
        properties = FontProperties(family=list(FAMILY), size=size, weight="bold" if bold else "normal")
        renderer = self.canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib does not say
        width, _, _ = renderer.get_text_width_height_descent(text, properties, ismath=False)
        return float(width)

    def cut(self, text: str, size: float, room: float, *, bold: bool = False) -> str:
        """Return a text that fits, with an ellipsis where something had to go."""
        if self.measure(text, size, bold=bold) <= room:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.measure(text[:middle] + "…", size, bold=bold) <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        return text[:low].rstrip() + "…" if low else ""
