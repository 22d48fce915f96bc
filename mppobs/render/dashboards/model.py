"""
Dashboards as values, on grafanalib's skeleton and in Grafana's present schema.

grafanalib 0.7.1 lays out a dashboard, its variables, rows and links; what it writes of panels dates from Grafana 6 to
9, so panels are given to it as their present JSON, and what is retired is dropped at the end. Everything here has
`to_json_data`, so `generate-dashboard` of grafanalib writes these dashboards too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import grafanalib.core as grafana
from grafanalib._gen import DashboardEncoder

from mppobs.render.dashboards.fields import Json, Override
from mppobs.render.dashboards.layout import Place, Shelf
from mppobs.render.promql import Expr

SCHEMA_VERSION: Final = 36
"""Of Grafana 10.4, the oldest that these dashboards are for; later ones take it as it is."""
DATASOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}
_RETIRED_OF_DASHBOARDS: Final = frozenset({"__inputs", "hideControls", "rows", "sharedCrosshair", "style", "gnetId"})
_RETIRED_OF_PANELS: Final = frozenset({
    "cacheTimeout", "editable", "error", "height", "minSpan", "span", "hideTimeOverride", "timeFrom", "timeShift",
})  # fmt: skip
_RETIRED_OF_VARIABLES: Final = frozenset({"useTags", "tagsQuery", "tagValuesQuery", "auto", "auto_min", "auto_count"})


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    expr: Expr
    legend: str = ""
    instant: bool = False
    """Whether only the end of the time range is asked for, as tables and single figures do."""
    heatmap: bool = False
    exemplars: bool = False
    """Whether the traces that single values came from are shown beside them."""

    def to_json_data(self, letter: str, *, table: bool) -> Json:
        """Return it as Grafana reads it."""
        form = "heatmap" if self.heatmap else "table" if table else "time_series"
        return {
            "refId": letter, "datasource": dict(DATASOURCE), "expr": self.expr.text, "legendFormat": self.legend,
            "instant": self.instant, "range": not self.instant, "format": form, "exemplar": self.exemplars,
            "editorMode": "code",
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of any kind. `mppobs.render.dashboards.kinds` has a function for each kind."""

    id: IntEnum
    kind: str
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int
    height: int
    options: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What holds for all fields: unit, thresholds, colours, links."""
    overrides: Sequence[Override] = ()
    transformations: Sequence[Json] = ()
    interval: str = ""
    """The least distance of two points; empty leaves it to the width of the picture."""

    def to_json_data(self, place: Place) -> Json:
        """Return it as Grafana reads it."""
        skeleton = grafana.Panel(
            title=self.title, description=self.description, id=int(self.id), dataSource=dict(DATASOURCE),
            gridPos=place.to_json_data(), transformations=list(self.transformations), maxDataPoints=None,
            interval=self.interval or None,
            targets=[
                query.to_json_data(chr(ord("A") + place), table=self.kind == "table")
                for place, query in enumerate(self.queries)
            ],
        )  # fmt: skip
        written: Json = skeleton.panel_json({"type": self.kind, "options": dict(self.options)})
        overrides = [override.to_json_data() for override in self.overrides]
        written |= {"fieldConfig": {"defaults": dict(self.defaults), "overrides": overrides}}
        return without(written, _RETIRED_OF_PANELS)


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under a heading; without a row they stand at the top."""

    title: str
    panels: tuple[Panel, ...]
    row: IntEnum | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """What a reader may choose at the top of a dashboard, from the values that a label has."""

    name: str
    label: str
    query: str
    everything: str = ".*"
    """What "All" stands for; empty where one value must be chosen."""
    kind: str = "query"
    """`query`, `datasource`, `textbox` or `constant`."""
    hidden: bool = False

    def to_json_data(self) -> Json:
        """Return it as Grafana reads it."""
        skeleton = grafana.Template(
            self.name, self.query, label=self.label, type=self.kind, refresh=2, allValue=self.everything or None,
            includeAll=bool(self.everything), multi=bool(self.everything), hide=2 if self.hidden else 0,
        )  # fmt: skip
        written = without(skeleton.to_json_data(), _RETIRED_OF_VARIABLES)
        if self.everything:
            written["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
        if self.kind == "query":
            written |= {"datasource": dict(DATASOURCE)}
        else:
            written["current"] = {"selected": True, "text": self.query, "value": self.query}
        if self.kind == "datasource":
            written |= {"current": {"selected": True, "text": "default", "value": "default"}}
        return written


@dataclass(frozen=True, slots=True)
class Annotation:
    """Marks on every picture: when something was so."""

    name: str
    expr: Expr
    title: str
    colour: str
    shown: bool = True

    def to_json_data(self) -> Json:
        """Return it as Grafana reads it."""
        return {
            "name": self.name, "datasource": dict(DATASOURCE), "enable": self.shown, "iconColor": self.colour,
            "expr": self.expr.text, "titleFormat": self.title,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. It can be written by `build` and by grafanalib's `generate-dashboard` alike."""

    uid: str
    title: str
    description: str
    tags: tuple[str, ...]
    refresh: str
    since: str
    """Where its time range begins, such as `now-3h`."""
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]
    annotations: tuple[Annotation, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Return every panel but rows, in order."""
        return tuple(panel for section in self.sections for panel in section.panels)

    def to_json_data(self) -> Json:
        """Return the whole dashboard in Grafana's present schema."""
        tag = self.tags[0]
        skeleton = grafana.Dashboard(
            title=self.title, uid=self.uid, description=self.description, tags=list(self.tags), editable=False,
            refresh=self.refresh, time=grafana.Time(self.since, "now"), timezone="utc", graphTooltip=1, version=1,
            schemaVersion=SCHEMA_VERSION, panels=self._placed(),
            templating=grafana.Templating([variable.to_json_data() for variable in self.variables]),
            annotations=grafana.Annotations([each.to_json_data() for each in self.annotations]),
            links=[
                grafana.DashboardLink(
                    title="Dashboards", type="dashboards", asDropdown=True, includeVars=True, keepTime=True, tags=[tag],
                    uri="",
                )
            ],
        )  # fmt: skip
        plain = json.loads(json.dumps(skeleton.to_json_data(), cls=DashboardEncoder))
        cleaned: Json = present(without(plain, _RETIRED_OF_DASHBOARDS))
        cleaned["timepicker"] = {}
        return cleaned

    def _placed(self) -> list[Json]:
        """Return rows and panels with their places, from top to bottom."""
        shelf = Shelf()
        placed: list[Json] = []
        for section in self.sections:
            if section.row is not None:
                place = shelf.row()
                heading = grafana.RowPanel(title=section.title, id=int(section.row), gridPos=place.to_json_data())
                written = heading.to_json_data()
                placed.append({key: written[key] for key in ("type", "title", "id", "gridPos", "collapsed", "panels")})
            placed += [panel.to_json_data(shelf.put(panel.width, panel.height)) for panel in section.panels]
        return placed


def without(written: Mapping[str, Any], retired: frozenset[str]) -> Json:
    """Return a part of a dashboard without the keys that Grafana has retired."""
    return {key: value for key, value in written.items() if key not in retired}


def present(plain: Any) -> Any:
    """
    Return plain JSON without nulls, but for those that mean the base of thresholds.

    >>> present({"id": 1, "interval": None, "steps": [{"color": "green", "value": None}]})
    {'id': 1, 'steps': [{'color': 'green', 'value': None}]}
    """
    if isinstance(plain, list):
        return [present(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    is_step = plain.keys() == {"color", "value"}
    return {key: present(value) for key, value in plain.items() if value is not None or is_step}
