"""A function for each kind of panel: what to show goes in, a panel in Grafana's present schema comes out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

from mppobs.render.dashboards.fields import PLAIN, Column, Json, Link, Override, Steps
from mppobs.render.dashboards.model import Panel, Query

_HIDE: Final[Json] = {"legend": False, "tooltip": False, "viz": False}
_TOOLTIP: Final[Json] = {"mode": "multi", "sort": "desc"}


def _legend(*, table: bool = False, shown: bool = True) -> Json:
    if table:
        return {"displayMode": "table", "placement": "right", "showLegend": shown, "calcs": ["lastNotNull", "max"]}
    return {"displayMode": "list", "placement": "bottom", "showLegend": shown, "calcs": []}


def _reduced(calculation: str = "lastNotNull") -> Json:
    return {"calcs": [calculation], "fields": "", "values": False}


def stat(
    panel: IntEnum, title: str, description: str, query: Query, *, unit: str, steps: Steps = PLAIN, width: int = 4,
    height: int = 4, decimals: int | None = None, mappings: Sequence[Json] = (), links: Sequence[Link] = (),
    filled: bool = False, names: bool = False, text: str = "auto",
) -> Panel:  # fmt: skip
    """
    Return a single figure, or a wall of tiles where the query has several series.

    `filled` colours the whole tile; `names` writes the series' name on it.
    """
    options = {
        "reduceOptions": _reduced(), "orientation": "auto", "textMode": "value_and_name" if names else text,
        "colorMode": "background" if filled else "value", "graphMode": "none" if query.instant else "area",
        "justifyMode": "center" if filled else "auto", "wideLayout": True, "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }  # fmt: skip
    defaults: Json = {
        "unit": unit, "thresholds": steps.to_json_data(), "color": {"mode": "thresholds"}, "mappings": list(mappings),
        "links": [link.to_json_data() for link in links], "decimals": decimals,
    }  # fmt: skip
    return Panel(panel, "stat", title, description, (query,), width, height, options, _given(defaults))


def timeseries(
    panel: IntEnum, title: str, description: str, *queries: Query, unit: str, steps: Steps | None = None,
    width: int = 12, height: int = 8, stacked: bool = False, bars: bool = False, legend_table: bool = False,
    bounds: tuple[float | None, float | None] = (0, None), logarithmic: bool = False, links: Sequence[Link] = (),
    overrides: Sequence[Override] = (), decimals: int | None = None, interval: str = "",
) -> Panel:  # fmt: skip
    """Return lines over time, or bars; `steps` are drawn as dashed lines across the picture."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line", "lineInterpolation": "linear", "lineWidth": 1 if bars else 2,
        "fillOpacity": 70 if bars else 35 if stacked else 0, "gradientMode": "none", "showPoints": "never",
        "spanNulls": False, "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "axisPlacement": "auto", "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"}, "hideFrom": _HIDE,
    }  # fmt: skip
    low, high = bounds
    defaults: Json = {
        "unit": unit, "custom": custom, "color": {"mode": "palette-classic"}, "min": low, "max": high,
        "thresholds": (steps or PLAIN).to_json_data(), "links": [link.to_json_data() for link in links],
        "decimals": decimals,
    }  # fmt: skip
    options = {"legend": _legend(table=legend_table), "tooltip": _TOOLTIP}
    return Panel(
        panel, "timeseries", title, description, queries, width, height, options, _given(defaults), overrides,
        interval=interval,
    )  # fmt: skip


def table(
    panel: IntEnum, title: str, description: str, *queries: Query, columns: Sequence[Column], width: int = 24,
    height: int = 8, order: tuple[str, bool] | None = None, empty: str = "",
) -> Panel:  # fmt: skip
    """
    Return a table with exactly these columns, the results of several queries joined by their labels.

    `order` is a column's title and whether the largest comes first; `empty` is shown in place of a table without rows.
    """
    shown = {column.source: column.title for column in columns}
    organise: Json = {
        "renameByName": shown, "indexByName": {source: place for place, source in enumerate(shown)},
        "includeByName": dict.fromkeys(shown, True), "excludeByName": {},
    }  # fmt: skip
    sort = [{"displayName": order[0], "desc": order[1]}] if order else []
    options = {
        "showHeader": True, "cellHeight": "sm", "sortBy": sort,
        "frameIndex": 0,
    }  # fmt: skip
    custom: Json = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": False}
    defaults: Json = {"custom": custom, "thresholds": PLAIN.to_json_data(), "noValue": empty or None}
    transformations: list[Json] = [{"id": "merge", "options": {}}] if len(queries) > 1 else []
    return Panel(
        panel, "table", title, description, queries, width, height, options, _given(defaults),
        tuple(column.override() for column in columns), [*transformations, {"id": "organize", "options": organise}],
    )  # fmt: skip


def bars(
    panel: IntEnum, title: str, description: str, query: Query, *, unit: str, steps: Steps = PLAIN, width: int = 8,
    height: int = 8, bounds: tuple[float, float | None] = (0, None), decimals: int | None = None,
    overrides: Sequence[Override] = (), links: Sequence[Link] = (),
) -> Panel:  # fmt: skip
    """Return one horizontal bar per series, for comparing what is so now."""
    options = {
        "displayMode": "basic", "orientation": "horizontal", "reduceOptions": _reduced(), "showUnfilled": True,
        "valueMode": "text", "namePlacement": "auto", "sizing": "auto", "minVizHeight": 16, "minVizWidth": 8,
        "maxVizHeight": 40, "legend": _legend(shown=False),
    }  # fmt: skip
    low, high = bounds
    defaults: Json = {
        "unit": unit, "thresholds": steps.to_json_data(), "color": {"mode": "thresholds"}, "min": low, "max": high,
        "decimals": decimals, "links": [link.to_json_data() for link in links],
    }  # fmt: skip
    return Panel(panel, "bargauge", title, description, (query,), width, height, options, _given(defaults), overrides)


def heatmap(
    panel: IntEnum, title: str, description: str, query: Query, *, unit: str, width: int = 12, height: int = 9
) -> Panel:
    """Return a picture of a histogram over time: a column per moment, a row per bucket, darker where more falls."""
    options = {
        "calculate": False, "cellGap": 1, "cellValues": {"unit": "short"}, "showValue": "never",
        "color": {
            "mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange",
            "scale": "exponential", "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"}, "filterValues": {"le": 1e-9}, "legend": {"show": True},
        "rowsFrame": {"layout": "auto"}, "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }  # fmt: skip
    defaults: Json = {"unit": unit, "custom": {"hideFrom": _HIDE, "scaleDistribution": {"type": "linear"}}}
    return Panel(panel, "heatmap", title, description, (query,), width, height, options, defaults)


def timeline(
    panel: IntEnum, title: str, description: str, query: Query, *, mappings: Sequence[Json], steps: Steps,
    width: int = 24, height: int = 8, links: Sequence[Link] = (),
) -> Panel:  # fmt: skip
    """Return one lane per series that shows in which state it was when."""
    options = {
        "mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8,
        "legend": _legend(shown=False), "tooltip": {"mode": "single", "sort": "none"},
    }  # fmt: skip
    defaults: Json = {
        "custom": {"lineWidth": 0, "fillOpacity": 80, "hideFrom": _HIDE}, "mappings": list(mappings),
        "thresholds": steps.to_json_data(), "color": {"mode": "thresholds"},
        "links": [link.to_json_data() for link in links],
    }  # fmt: skip
    return Panel(panel, "state-timeline", title, description, (query,), width, height, options, defaults)


def _given(defaults: Json) -> dict[str, Any]:
    """Return the settings that say something."""
    return {key: value for key, value in defaults.items() if value is not None and value != []}
