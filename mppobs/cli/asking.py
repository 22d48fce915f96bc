"""What Grafana does when a dashboard is opened, without a Grafana: resolve its variables, ask all its queries."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

import httpx

from mppobs.errors import MppobsError
from mppobs.render.dashboards.fields import Json
from mppobs.render.dashboards.interpolate import Chosen, Interpolation, Window
from mppobs.render.preview.data import Mark, Page, Series, Shown
from mppobs.units import parse_duration

_LABEL_VALUES: Final = re.compile(r"label_values\((.*), (\w+)\)", re.DOTALL)
_POINTS: Final = 240
"""Of a picture half a page wide: about one every three pixels."""
_HIDDEN: Final = 2
ALL: Final = "$__all"


class PrometheusError(MppobsError):
    """Raised when Prometheus does not answer, or refuses a query. The message has the query."""


class Prometheus:
    """The part of Prometheus's HTTP API that dashboards use. Use it as a context manager."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        self._client = httpx.Client(base_url=url.rstrip("/") + "/api/v1", timeout=timeout)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._client.close()

    def range(self, query: str, window: Window) -> list[Json]:
        """Return the series that a query has over a window."""
        times = {"start": f"{window.start:.3f}", "end": f"{window.end:.3f}", "step": f"{window.step:.3f}"}
        found: list[Json] = self._post("query_range", query=query, **times)["result"]
        return found

    def instant(self, query: str, at: float) -> list[Json]:
        """Return the series that a query has at a moment, each with its one value."""
        found = self._post("query", query=query, time=f"{at:.3f}")["result"]
        return [{"metric": each["metric"], "values": [each["value"]]} for each in found]

    def label_values(self, selector: str, label: str, window: Window) -> list[str]:
        """Return the values that a label has in the series of a selector within a window."""
        times = {"start": f"{window.start:.3f}", "end": f"{window.end:.3f}"}
        series = self._post("series", **{"match[]": selector}, **times)
        return sorted({each[label] for each in series if label in each})

    def _post(self, path: str, **parameters: str) -> Any:
        try:
            answer = self._client.post(f"/{path}", data=parameters)
        except httpx.HTTPError as error:
            raise PrometheusError(f"{self._client.base_url}: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise PrometheusError(f"{self._client.base_url}{path}: {answer.text.strip()}: {parameters}")
        return answer.json()["data"]


def window_of(dashboard: Json, end: float, span: float | None, scrape: float) -> Window:
    """Return the time that a dashboard shows: what it asks for itself, or a span of seconds, up to `end`."""
    since = str(dashboard["time"]["from"])
    seconds = span if span is not None else parse_duration(since.removeprefix("now-"))
    return Window(end - seconds, end, max(scrape, math.ceil(seconds / _POINTS)), scrape)


class Reader:
    """Someone who looks at a dashboard: the variables as they were chosen, everything where nothing was."""

    def __init__(self, prometheus: Prometheus, window: Window, wanted: Mapping[str, str] | None = None) -> None:
        self._prometheus = prometheus
        self._window = window
        self._wanted = dict(wanted or {})

    def page(self, dashboard: Json) -> Page:
        """Return the dashboard with an answer to every query."""
        variables, chosen = self.variables(dashboard)
        panels = [self._shown(panel, variables) for panel in dashboard["panels"]]
        marks = [mark for each in dashboard["annotations"]["list"] for mark in self._marks(each, variables)]
        return Page(dashboard, panels, self._window, chosen, marks)

    def variables(self, dashboard: Json) -> tuple[dict[str, Chosen], list[tuple[str, str]]]:
        """Return what each variable stands for in queries, and what is shown of it."""
        values: dict[str, Chosen] = {}
        shown: list[tuple[str, str]] = []
        for variable in dashboard["templating"]["list"]:
            name, label = variable["name"], variable.get("label") or variable["name"]
            if variable["type"] != "query":
                continue
            if name in self._wanted:
                values[name] = [self._wanted[name]]
            else:
                values[name] = variable["allValue"] if variable["includeAll"] else self.choices(variable, values)[:1]
            if variable.get("hide") != _HIDDEN:
                shown.append((label, self._wanted.get(name, "All")))
        return values, shown

    def choices(self, variable: Json, before: Mapping[str, Chosen]) -> list[str]:
        """Return the values that a variable offers, given what was chosen before it."""
        text = Interpolation(self._window, before)(variable["query"])
        found = _LABEL_VALUES.fullmatch(text)
        if found is None:
            raise PrometheusError(f"variable {variable['name']}: {text!r} is no label_values(SELECTOR, LABEL)")
        return self._prometheus.label_values(found[1], found[2], self._window)

    def answers(
        self, panel: Json, variables: Mapping[str, Chosen], *, throughout: bool = False
    ) -> Iterator[tuple[Json, list[Series]]]:
        """
        Yield every query of a panel with its answer.

        With `throughout`, tables and figures are asked for at every moment of the window too, as somebody would see who
        looked all the time: what they show of running jobs is gone when those have ended.
        """
        window = self._stepped(panel)
        words = Interpolation(window, variables)
        for target in panel.get("targets", []):
            query = words(target["expr"])
            if target.get("instant") and not throughout:
                found = self._prometheus.instant(query, window.end)
            else:
                found = self._prometheus.range(query, window)
            yield target, [_series(target, each) for each in found]

    def _shown(self, panel: Json, variables: Mapping[str, Chosen]) -> Shown:
        found = [each for _, series in self.answers(panel, variables) for each in series]
        return Shown(panel, found, self._stepped(panel).step)

    def _stepped(self, panel: Json) -> Window:
        """Return the window with the step that the panel wants at the least."""
        least = parse_duration(panel["interval"]) if panel.get("interval") else 0.0
        window = self._window
        if least <= window.step:
            return window
        start = math.ceil(window.start / least) * least
        return Window(min(start, window.end), window.end, least, window.scrape)

    def _marks(self, annotation: Json, variables: Mapping[str, Chosen]) -> Iterator[Mark]:
        """Yield for how long what an annotation looks for was so."""
        if not annotation["enable"]:
            return
        window = self._window
        for each in self._prometheus.range(Interpolation(window, variables)(annotation["expr"]), window):
            start = end = 0.0
            for time, _value in each["values"]:
                if start and time - end > window.step * 1.5:
                    yield Mark(annotation["name"], annotation["iconColor"], start, end)
                    start = 0.0
                start, end = start or time, time
            yield Mark(annotation["name"], annotation["iconColor"], start, end)


def _series(target: Json, found: Json) -> Series:
    times = [float(time) for time, _ in found["values"]]
    values = [float(value) for _, value in found["values"]]
    return Series(target["refId"], found["metric"], times, values, target.get("legendFormat", ""))


def has_data(series: Sequence[Series]) -> bool:
    """Return whether an answer holds a number."""
    return any(not math.isnan(value) for each in series for value in each.values)
