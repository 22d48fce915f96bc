"""Dashboards as files: committed, byte-stable, and the same by grafanalib's own generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grafanalib._gen import loader, write_dashboard

from mppobs.catalog.panels import DASHBOARDS
from mppobs.cli.main import run
from mppobs.errors import ConfigError
from mppobs.render.dashboards import executive
from mppobs.render.dashboards.build import built, drifted, load, parse, sources, text_of
from mppobs.render.dashboards.common import Settings
from mppobs.render.promql import Durations

ROOT = Path(__file__).parents[3]
HOME = ROOT / "dashboards"
SOURCE = "from mppobs.render.dashboards import tool\ndashboard = tool.dashboard()\n"


def test_committed_dashboards_are_what_their_sources_say() -> None:
    """The JSON beside every source is what the source builds now."""
    texts = built([HOME])

    assert [path.name for path in texts] == ["debug.json", "executive.json", "oncall.json", "self.json"]
    assert drifted(texts) == []


@pytest.mark.parametrize("seed", ["0", "7"])
def test_the_same_source_gives_the_same_bytes(seed: str, tmp_path: Path) -> None:
    """Another process with another hash seed writes the same bytes."""
    command = [sys.executable, "-m", "mppobs.cli.main", "dashboards", "build", str(HOME), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in HOME.glob("*.json")
    }


@pytest.mark.parametrize("source", sorted(HOME.glob("*.dashboard.py")), ids=lambda path: path.name)
def test_the_stock_generator_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """`generate-dashboard` of grafanalib, which people may have in their pipelines, builds the very same file."""
    with (tmp_path / "out.json").open("w") as stream:
        write_dashboard(loader(str(source)), stream)

    assert (tmp_path / "out.json").read_bytes() == source.with_name(
        source.name.replace(".dashboard.py", ".json")
    ).read_bytes()


def test_every_panel_of_the_catalogue_is_built(books: dict[str, dict[str, Any]]) -> None:
    """The uids and numbers that alerts link to are those of the dashboards."""
    assert {book["uid"]: {panel["id"] for panel in book["panels"]} for book in books.values()} == {
        uid: {member.value for member in panels} for uid, panels in DASHBOARDS.items()
    }


def test_settings_reach_links_and_days() -> None:
    """The address of the sidecar is in the links, and a drill's days are short."""
    drill = text_of(executive.dashboard(Settings(durations=Durations(1440))))

    assert "offset 1m)" in drill
    assert "offset 1d" not in drill
    assert "offset 7m" in drill


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.py", SOURCE, "is called NAME.dashboard.py"),
        ("x.dashboard.py", "dashboard = 1", "must set `dashboard`"),
        ("x.dashboard.py", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_what_is_no_source_is_refused_with_its_place(name: str, text: str, told: str, tmp_path: Path) -> None:
    """A source that cannot be used is named, with what is wrong."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(ConfigError, match=told) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_directory_without_sources_is_refused(tmp_path: Path) -> None:
    """Nothing to build is an error: a path that is misspelt must not look like success."""
    with pytest.raises(ConfigError, match=r"no \*.dashboard.py"):
        sources([tmp_path])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ConfigError, match="no dashboard"):
        parse(tmp_path / "x.json")


def test_build_writes_beside_and_check_tells_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes what is missing, then has nothing to do, and `--check` fails on a change and keeps it."""
    (tmp_path / "mine.dashboard.py").write_text(SOURCE)
    assert run(["dashboards", "build", str(tmp_path), "--check"]) == 1
    assert not (tmp_path / "mine.json").exists()
    assert run(["dashboards", "build", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "mine.json").read_text())["uid"] == "mppobs-self"
    assert run(["dashboards", "build", str(tmp_path), "--check"]) == 0
    (tmp_path / "mine.json").write_text("{}")
    assert run(["dashboards", "build", str(tmp_path), "--check"]) == 1

    assert (tmp_path / "mine.json").read_text() == "{}"
    assert "differs" in capsys.readouterr().out
