"""
Every query of every panel against a real Prometheus, which scraped a real sidecar while the demo's queries and a run
with faults went on under it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from mppobs.catalog.alerts import BY_NAME
from mppobs.catalog.panels import OncallPanel
from mppobs.cli.asking import Prometheus, Reader, has_data
from mppobs.render.dashboards.build import text_of
from mppobs.render.dashboards.check.findings import variables
from mppobs.render.dashboards.interpolate import Window
from mppobs.render.dashboards.sources import SOURCES, dashboards
from mppobs.render.preview.data import Series, Shown
from mppobs.render.preview.page import draw
from mppobs.render.preview.tables import grid_of
from tests.render.dashboards.estate import EVERYTHING, SPEC, estate
from tests.servers import wait_until

BOOKS: Final[dict[str, dict[str, Any]]] = {
    name: json.loads(text_of(dashboard)) for name, dashboard in dashboards().items()
}
SCRAPE: Final = 2.0


@dataclass(frozen=True)
class Seen:
    """A Prometheus that has seen everything, and since when."""

    prometheus: Prometheus
    window: Window

    def reader(self) -> Reader:
        """Return somebody who looks at it."""
        return Reader(self.prometheus, self.window)


@contextmanager
def looked_at(directory: Path) -> Iterator[Seen]:
    """Run the demo's queries and the troubled pipeline under an estate, until both are through."""
    with ExitStack() as stack:
        few = ("--max-stages", "3")  # fewer than a query of the demo has, so that some share a series
        running = stack.enter_context(estate(directory, interval=f"{SCRAPE:g}s", spec=SPEC + EVERYTHING, options=few))
        began = time.time()
        names = ("everything", "demo")
        night = "tests.render.dashboards.night"
        jobs = [running.start(stack, "-m", night, name, str(running.journals), "9", name=name) for name in names]
        for job, name in zip(jobs, names, strict=True):
            wait_until(f"the run of {name} to end", lambda job=job: job.poll() is not None, 120)  # type: ignore[misc]
            assert job.returncode == 0, (directory / f"{name}.log").read_text()[-3000:]
        for figure in ("slo:mpp_slo_burn_rate:ratio_3d > 0", "mpp_slo_prediction_coverage_ratio"):
            wait_until(figure, lambda figure=figure: running.prometheus.query(figure), 20)  # type: ignore[misc]
        time.sleep(SCRAPE)
        window = Window(math.floor(began), math.floor(time.time()), SCRAPE, SCRAPE)
        yield Seen(stack.enter_context(Prometheus(running.prometheus.url)), window)


@pytest.mark.timeout(400)
def test_dashboards_show_what_happened(tmp_path: Path) -> None:
    """
    Every variable offers something, and every query of every panel returns data, without an exception.

    Figures are of a size that their unit can have, alerts come with the catalogue's next command, alerts and runs are
    marked, and pictures can be drawn. One test, so that there is one run, however tests are spread over processes.
    """
    with looked_at(tmp_path) as seen:
        for name in SOURCES:
            assert variables_without_values(seen, name) == []
            assert queries_without_data(seen, name) == []
            assert implausible_figures(seen, name) == []
            assert implausible_cells(seen, name) == []
            assert picture_bytes(seen, name, tmp_path) > 10_000
        assert unmarked(seen) == []
        commands_are_the_catalogues(seen)


def variables_without_values(seen: Seen, name: str) -> list[str]:
    """Return the variables of a dashboard in which there is nothing to choose."""
    reader = seen.reader()
    chosen, _ = reader.variables(BOOKS[name])
    asked = [variable for variable in variables(BOOKS[name]) if variable["type"] == "query"]
    return [variable["name"] for variable in asked if not reader.choices(variable, chosen)]


def queries_without_data(seen: Seen, name: str) -> list[str]:
    """Return the queries that returned no number at any moment of the run."""
    return [
        f"{panel['id']} {panel['title']}, {target['refId']}: {target['expr']}"
        for panel, target, series in answers(seen, name)
        if not has_data(series)
    ]


def answers(seen: Seen, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Series]]]:
    """Yield every panel and query with what it returned over the whole run."""
    reader = seen.reader()
    chosen, _ = reader.variables(BOOKS[name])
    for panel in BOOKS[name]["panels"]:
        for target, series in reader.answers(panel, chosen, throughout=True):
            yield panel, target, series


def implausible_figures(seen: Seen, name: str) -> list[str]:
    """Return the values that cannot be meant in the unit of their panel: shares, dates, durations, dollars."""
    span = seen.window.end - seen.window.start
    return [
        f"{panel['title']}: {value} as {unit} of {each.labels}"
        for panel, _target, series in answers(seen, name)
        if panel["type"] != "table" and (unit := panel["fieldConfig"]["defaults"].get("unit", ""))
        for each in series
        for value in each.values
        if not plausible(value, unit, span, seen.window.end)
    ]


def plausible(value: float, unit: str, span: float, now: float) -> bool:
    """Return whether a figure can be meant in its unit, after a run of `span` seconds."""
    if math.isnan(value) or math.isinf(value):
        return True
    match unit:
        case "percentunit":
            return -1000 <= value <= 1.5
        case "dtdurations" | "s":
            return -3600 <= value <= max(4 * span, 600)
        case "dateTimeAsIsoNoDateIfToday":
            return abs(value / 1000 - now) < 86400
        case "currencyUSD":
            return 0 <= value < 10
        case _:
            return True


def implausible_cells(seen: Seen, name: str) -> list[str]:
    """Return the same of tables, whose columns have units of their own."""
    found: list[str] = []
    for panel, series in tables(seen, name):
        shown = Shown(panel, series)
        grid = grid_of(shown)
        for title, column in zip(grid.titles, zip(*grid.rows, strict=True), strict=False):
            unit = shown.field(title).get("unit", "")
            numbers = [value for value in column if isinstance(value, float) and unit != "dtdurations"]
            wrong = [value for value in numbers if not plausible(value, unit, 600, seen.window.end)]
            found += [f"{panel['title']}, {title}: {value} as {unit}" for value in wrong]
    return found


def tables(seen: Seen, name: str) -> Iterator[tuple[dict[str, Any], list[Series]]]:
    """Yield every table with the rows that it had over the whole run."""
    rows: dict[int, list[Series]] = {}
    for panel, _target, series in answers(seen, name):
        if panel["type"] == "table":
            rows.setdefault(panel["id"], []).extend(series)
    for panel in BOOKS[name]["panels"]:
        if panel["id"] in rows:
            yield panel, rows[panel["id"]]


def commands_are_the_catalogues(seen: Seen) -> None:
    """Check that the table of what fires says the catalogue's next command, the alert's own labels filled in."""
    found = [series for panel, _, series in answers(seen, "oncall") if panel["id"] == OncallPanel.ALERTS]
    fired = [each.labels for each in found[0]]

    assert "MppDeadlineAtRisk" in {labels["alertname"] for labels in fired}
    for labels in fired:
        expected = BY_NAME[labels["alertname"]].next_command
        for label, value in labels.items():
            expected = expected.replace(f"{{{{ $labels.{label} }}}}", value)
        assert labels["next"] == expected


def unmarked(seen: Seen) -> list[str]:
    """Return the annotations that mark nothing: alerts and runs of jobs should."""
    reader, book = seen.reader(), BOOKS["oncall"]
    marked = {
        each["name"]: reader.page({**book, "panels": [], "annotations": {"list": [each | {"enable": True}]}}).marks
        for each in book["annotations"]["list"]
    }
    return [name for name, marks in marked.items() if not marks]


def picture_bytes(seen: Seen, name: str, directory: Path) -> int:
    """Draw a dashboard and return how large the picture is."""
    sheet = draw(seen.reader().page(BOOKS[name]))
    sheet.figure.savefig(directory / "picture.png", dpi=40)
    return (directory / "picture.png").stat().st_size
