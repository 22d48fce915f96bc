"""Pictures of dashboards: values as Grafana writes them, tables as it joins them, every kind of panel drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mppobs.cli.main import run
from mppobs.render.dashboards.build import text_of
from mppobs.render.dashboards.interpolate import Interpolation, Window, words_of
from mppobs.render.dashboards.layout import COLUMNS, Shelf
from mppobs.render.dashboards.sources import dashboards
from mppobs.render.preview.data import Page, Series, Shown
from mppobs.render.preview.figures import tiling
from mppobs.render.preview.numbers import colour_of, mapped, write
from mppobs.render.preview.page import WIDTH, draw, save
from mppobs.render.preview.tables import grid_of, merge
from mppobs.render.preview.theme import Sheet

BOOKS = {name: json.loads(text_of(dashboard)) for name, dashboard in dashboards().items()}
WINDOW = Window(1_790_000_000, 1_790_000_600, 15.0, 15.0)
TIMES = [WINDOW.start + 15 * place for place in range(41)]


def answered(panel: dict[str, Any]) -> Shown:
    """Return a panel with two series for each query, as long as the window and with a gap in it."""
    labels = {"pipeline": "nightly", "stage": "map", "job_id": "n-1", "slo": "t/p", "kind": "retry", "le": "0.4"}
    series = [
        Series(target["refId"], {**labels, "quantile": str(number), "le": bound}, TIMES[:20] + TIMES[24:],
               [0.2 * number + place % 3 for place in range(37)], target["legendFormat"])
        for target in panel.get("targets", [])
        for number, bound in ((1, "0.4"), (2, "+Inf"))
    ]  # fmt: skip
    return Shown(panel, series)


@pytest.mark.parametrize(("name", "filled"), [*((name, True) for name in BOOKS), ("debug", False)])
def test_a_dashboard_is_drawn_as_wide_and_as_high_as_its_grid(name: str, *, filled: bool, tmp_path: Path) -> None:
    """An SVG and a PNG come out, of the size that the grid asks for, with data and without any."""
    book = BOOKS[name]
    panels = [answered(panel) if filled else Shown(panel) for panel in book["panels"]]
    svg, png = save(Page(book, panels, WINDOW, [("Pipeline", "All")]), tmp_path, name)
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in book["panels"])

    with Image.open(png) as picture:
        assert picture.size[0] == round(WIDTH * 1.25)
        assert picture.size[1] / picture.size[0] == pytest.approx((84 + lines * 38 + 14) / WIDTH, rel=0.01)
    text = svg.read_text()
    assert book["title"] in text
    assert "Pipeline" in text
    assert png.stat().st_size < 400_000


def test_an_unknown_kind_of_panel_says_so() -> None:
    """A kind that is not drawn leaves a note in its place, and the rest of the page alone."""
    panel = {"type": "geomap", "title": "Where", "id": 1, "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8}, "targets": []}
    book = {**BOOKS["self"], "panels": [panel]}

    assert isinstance(draw(Page(book, [Shown(panel)], WINDOW)), Sheet)


def test_rows_of_several_queries_meet_where_all_have_a_label() -> None:
    """As Grafana's `merge`: what has more labels keeps them, what has no counterpart stays alone."""
    a = [
        Series("A", {"run": "1", "state": "running"}, [0], [1.0]),
        Series("A", {"run": "2", "state": "error"}, [0], [1.0]),
    ]
    b = [Series("B", {"run": "1"}, [0], [0.5]), Series("B", {"run": "3"}, [0], [0.7])]

    assert merge([*a, *b]) == [
        {"run": "1", "state": "running", "Value #A": 1.0, "Value #B": 0.5},
        {"run": "2", "state": "error", "Value #A": 1.0},
        {"run": "3", "Value #B": 0.7},
    ]


@pytest.mark.parametrize("descending", [True, False])
def test_what_is_missing_is_last_however_a_table_is_sorted(descending: bool) -> None:
    """Rows without the value that they are sorted by come after the others."""
    panel = json.loads(
        json.dumps(next(panel for panel in BOOKS["oncall"]["panels"] if panel["title"].startswith("Runs:")))
    )
    panel["options"]["sortBy"] = [{"displayName": "To spare", "desc": descending}]
    runs = [Series("A", {"job_id": str(n), "pipeline": "p"}, [0], [1.0]) for n in range(3)]
    spare = [Series("E", {"job_id": str(n), "pipeline": "p"}, [0], [float(n)]) for n in (0, 2)]
    grid = grid_of(Shown(panel, [*runs, *spare]))
    names = [row[grid.titles.index("Run")] for row in grid.rows]

    assert names == (["2", "0", "1"] if descending else ["0", "2", "1"])


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (math.nan, "s", None, "NaN"), (math.inf, "s", None, "∞"), (0.0, "s", None, "0 s"),
        (7200.0, "s", None, "2 hours"),
        (90000.0, "s", None, "1.04 days"), (-90.0, "dtdurations", None, "-1m 30s"), (3.25, "dtdurations", None, "3.2s"),
        (0.25, "percentunit", 0, "25%"), (1500.0, "currencyUSD", None, "$1.50 K"), (2048.0, "binBps", None, "2 KiB/s"),
        (3.0, "cps", None, "3 c/s"), (1_790_000_000_000.0, "dateTimeAsIsoNoDateIfToday", None, "14:13:20"),
        (12.0, "unheard of", None, "12"),
    ],
)  # fmt: skip
def test_values_are_written_in_their_unit(value: float, unit: str, decimals: int | None, text: str) -> None:
    """Small and large, none and endless, in every unit that the dashboards use."""
    assert write(value, unit, decimals) == text


def test_mappings_and_thresholds_say_the_word_and_the_colour() -> None:
    """A value has its word, an empty cell its own, and a threshold's colour holds from its bound on."""
    panel = next(panel for panel in BOOKS["oncall"]["panels"] if panel["title"] == "Pipelines")
    field = Shown(panel).defaults
    empty = {
        "mappings": [{"type": "special", "options": {"match": "null+nan", "result": {"text": "none", "color": "red"}}}]
    }

    assert mapped(2.0, field) == ("PAGE", "red")
    assert mapped(3.0, field) is None
    assert mapped(math.nan, empty) == ("none", "red")
    assert [colour_of(value, field) for value in (0.0, 0.9, 1.0, 2.0)] == ["green", "green", "orange", "red"]


@given(st.lists(st.tuples(st.integers(1, COLUMNS), st.integers(1, 9)), max_size=30))
def test_panels_never_lie_on_one_another(sizes: list[tuple[int, int]]) -> None:
    """However wide and high panels are, each has a place of its own on the grid, cell by cell."""
    shelf = Shelf()
    taken: set[tuple[int, int]] = set()
    for width, height in sizes:
        place = shelf.put(width, height)
        cells = {(x, y) for x in range(place.x, place.x + width) for y in range(place.y, place.y + height)}
        assert place.x >= 0
        assert place.x + width <= COLUMNS
        assert not cells & taken
        taken |= cells


@given(st.integers(1, 60), st.floats(50, 2000), st.floats(50, 800))
def test_tiles_hold_everything(count: int, width: float, height: float) -> None:
    """There are as many tiles as there are series, and no row too many."""
    columns, rows = tiling(count, width, height)

    assert columns * rows >= count
    assert columns * (rows - 1) < count


def test_words_are_replaced_and_groups_are_left() -> None:
    """Variables and Grafana's words are replaced in all three spellings; what is chosen is escaped; `$1` stays."""
    text = 'label_replace(x{a=~"$a",b=~"${b:regex}",c="[[c]]"}[$__range], "y", "$1", "z", "(.*)")'
    words = Interpolation(Window(0, 90), {"a": [r"x.y", "z"], "b": ".*", "c": ["one"]})

    assert words_of(text) == {"a", "b", "c", "__range", "1"}
    assert words(text) == 'label_replace(x{a=~"(x\\\\.y|z)",b=~".*",c="one"}[90s], "y", "$1", "z", "(.*)")'


class _Answers(BaseHTTPRequestHandler):
    """A Prometheus that has one series for every question."""

    def do_POST(self) -> None:
        """Answer with a series, or its labels."""
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        labels = {"job": "mppobs", "instance": "a", "pipeline": "nightly", "stage": "map", "le": "+Inf", "slo": "t/p"}
        value = [float(asked.get("time", asked.get("end", ["0"]))[0]), "0.5"]
        found: object = {"result": [{"metric": labels, "value": value, "values": [value]}]}
        body = json.dumps({"status": "success", "data": [labels] if self.path.endswith("/series") else found}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def answering() -> Iterator[str]:
    """Serve until the block ends; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_command_draws_what_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`mppobs dashboards preview` writes a picture of each dashboard, for a time and a choice that are given."""
    with answering() as url:
        command = ["dashboards", "preview", "dashboards/self.dashboard.py", "--prometheus", url, "--out", str(tmp_path)]
        options = ["--span", "10m", "--end", "2026-09-21T13:40:00Z", "--var", "pipeline=nightly"]
        assert run([*command, *options]) == 0

    assert sorted(path.name for path in tmp_path.iterdir()) == ["self.png", "self.svg"]
    assert "13:30:00 to 13:40:00 UTC" in (tmp_path / "self.svg").read_text()
    assert str(tmp_path / "self.svg") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prometheus", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (["--prometheus", "http://127.0.0.1:1", "--end", "soon"], "2026-01-31T03:00:00Z"),
        (["--prometheus", "http://127.0.0.1:1", "--var", "pipeline"], "NAME=VALUE"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody answers, a time is none, a choice has no value: the message says which."""
    assert run(["dashboards", "preview", "dashboards/self.json", "--out", str(tmp_path), *options]) == 2
    assert told in capsys.readouterr().err
