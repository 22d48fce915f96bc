"""
Every query of every panel against a real Prometheus, which scraped a real sidecar while the demo's queries and a run
with faults went on under it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from mppobs.catalog.alerts import BY_NAME
from mppobs.cli.asking import Prometheus, Reader, has_data
from mppobs.render.dashboards.build import text_of
from mppobs.render.dashboards.check.findings import variables
from mppobs.render.dashboards.interpolate import Window
from mppobs.render.dashboards.sources import SOURCES, dashboards
from mppobs.render.preview.data import Series, Shown
from mppobs.render.preview.page import draw
from mppobs.render.preview.tables import grid_of
from tests.render.dashboards.estate import estate
from tests.servers import wait_until

pytestmark = [pytest.mark.timeout(170), pytest.mark.xdist_group("dashboards")]

EMPTY: Final[dict[tuple[str, str], str]] = {}
"""Queries, by panel and letter, that need not return data here, with the reason."""
BOOKS: Final[dict[str, dict[str, Any]]] = {
    name: json.loads(text_of(dashboard)) for name, dashboard in dashboards().items()
}
each_book = pytest.mark.parametrize("name", SOURCES)
SCRAPE: Final = 2.0


@dataclass(frozen=True)
class Seen:
    """A Prometheus that has seen everything, and since when."""

    prometheus: Prometheus
    window: Window

    def reader(self) -> Reader:
        """Return somebody who looks at it."""
        return Reader(self.prometheus, self.window)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Run the demo's queries and the troubled pipelines under an estate, until both are through."""
    directory = tmp_path_factory.mktemp("estate")
    with ExitStack() as stack:
        running = stack.enter_context(estate(directory, interval=f"{SCRAPE:g}s"))
        began = time.time()
        jobs = [
            running.start(stack, "-m", "tests.render.dashboards.night", name, str(running.journals), "9", name=name)
            for name in ("everything", "demo")
        ]
        for job, name in zip(jobs, ("everything", "demo"), strict=True):
            wait_until(f"the run of {name} to end", lambda job=job: job.poll() is not None, 120)  # type: ignore[misc]
            assert job.returncode == 0, (directory / f"{name}.log").read_text()[-3000:]
        time.sleep(2 * SCRAPE)  # until what was decided at the end has been scraped, and rules have seen it
        window = Window(math.floor(began), math.floor(time.time()), SCRAPE, SCRAPE)
        server = stack.enter_context(Prometheus(running.prometheus.url))
        yield Seen(server, window)


@each_book
def test_every_variable_offers_something(seen: Seen, name: str) -> None:
    """There is something to choose from in every variable."""
    reader = seen.reader()
    chosen, _ = reader.variables(BOOKS[name])
    for variable in variables(BOOKS[name]):
        if variable["type"] == "query":
            assert reader.choices(variable, chosen), variable["name"]


@each_book
def test_every_query_returns_data(seen: Seen, name: str) -> None:
    """Every query of every panel returned a number at some moment of the run, but for those that are listed."""
    assert {
        f"{panel['id']} {panel['title']}, {target['refId']}: {target['expr']}"
        for panel, target, series in answers(seen, name)
        if not has_data(series) and (f"{BOOKS[name]['uid']}/{panel['id']}", target["refId"]) not in EMPTY
    } == set()


def answers(seen: Seen, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Series]]]:
    """Yield every panel and query with what it returned over the whole run."""
    reader = seen.reader()
    chosen, _ = reader.variables(BOOKS[name])
    for panel in BOOKS[name]["panels"]:
        for target, series in reader.answers(panel, chosen, throughout=True):
            yield panel, target, series


@each_book
def test_figures_are_of_the_size_that_their_unit_has(seen: Seen, name: str) -> None:
    """Shares are shares, dates are of these days and in milliseconds, durations no longer than the run allows."""
    span = seen.window.end - seen.window.start
    for panel, _target, series in answers(seen, name):
        if panel["type"] == "table":
            continue  # column by column, below
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        for each in series:
            for value in each.values:
                assert plausible(value, unit, span, seen.window.end), (panel["title"], unit, value, each.labels)


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


@each_book
def test_columns_are_of_the_size_that_their_unit_has(seen: Seen, name: str) -> None:
    """The same of tables, whose columns have units of their own."""
    for panel, series in tables(seen, name):
        shown = Shown(panel, series)
        grid = grid_of(shown)
        for title, column in zip(grid.titles, zip(*grid.rows, strict=True), strict=False):
            unit = shown.field(title).get("unit", "")
            for value in column:
                if isinstance(value, float) and unit != "dtdurations":  # a budget lasts for days
                    assert plausible(value, unit, 600, seen.window.end), (panel["title"], title, value)


def tables(seen: Seen, name: str) -> Iterator[tuple[dict[str, Any], list[Series]]]:
    """Yield every table with the rows that it had over the whole run."""
    rows: dict[int, list[Series]] = {}
    for panel, _target, series in answers(seen, name):
        if panel["type"] == "table":
            rows.setdefault(panel["id"], []).extend(series)
    for panel in BOOKS[name]["panels"]:
        if panel["id"] in rows:
            yield panel, rows[panel["id"]]


def test_an_alert_comes_with_the_command_to_type(seen: Seen) -> None:
    """The table of what fires says the catalogue's next command, the alert's own labels filled in."""
    found = [series for panel, _, series in answers(seen, "oncall") if panel["id"] == 6]
    fired = [each.labels for each in found[0]]

    assert {labels["alertname"] for labels in fired} >= {"MppRetryStorm", "MppSloBurn"}
    for labels in fired:
        expected = BY_NAME[labels["alertname"]].next_command
        for label, value in labels.items():
            expected = expected.replace(f"{{{{ $labels.{label} }}}}", value)
        assert labels["next"] == expected


def test_annotations_mark_alerts_and_runs(seen: Seen) -> None:
    """Alerts and runs of jobs are marked on the pictures."""
    reader = seen.reader()
    for annotation in BOOKS["oncall"]["annotations"]["list"]:
        page = reader.page({**BOOKS["oncall"], "panels": [], "annotations": {"list": [annotation | {"enable": True}]}})
        assert page.marks, annotation["name"]


@each_book
def test_a_picture_can_be_drawn(seen: Seen, name: str, tmp_path: Path) -> None:
    """What is so answered can be drawn."""
    sheet = draw(seen.reader().page(BOOKS[name]))
    sheet.figure.savefig(tmp_path / "picture.png", dpi=40)

    assert (tmp_path / "picture.png").stat().st_size > 10_000
