"""The example and the page about SLOs, held against the code that they are about."""

from __future__ import annotations

import re
from pathlib import Path

from mppobs.slo.lint import Surroundings, lint
from mppobs.slo.model import UNITS, IndicatorKind
from mppobs.slo.spec import BOUND_KEYS, SHARED_KEYS, load_spec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "slo.md").read_text()


def section(title: str) -> str:
    """Return what stands below a heading of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, but for their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_example_is_without_findings() -> None:
    """It parses, and the linter finds nothing where Prometheus keeps 40 days."""
    spec = load_spec(ROOT / "examples" / "slo.yaml")

    assert lint(spec.slos, Surroundings(retention_days=40)) == []


def test_the_example_shows_everything() -> None:
    """Every indicator, every bound and every key that can be shared stands in it, in use or in a comment."""
    text = (ROOT / "examples" / "slo.yaml").read_text()
    spec = load_spec(ROOT / "examples" / "slo.yaml")
    keys = {key for keys in BOUND_KEYS.values() for key in keys}

    assert {slo.indicator for slo in spec.slos} == set(IndicatorKind)
    assert [key for key in keys if f"{key}:" not in text] == []


def test_the_page_lists_indicators_with_their_bounds_and_units() -> None:
    """The table of the page is the closed list, in its order: indicator, bounds, what one event is."""
    found = {cells[0].strip("`"): cells for cells in rows(section("Indicators"))}

    assert {name: tuple(re.findall(r"`([\w-]+)`", cells[1])) for name, cells in found.items()} == {
        kind.value: keys for kind, keys in BOUND_KEYS.items()
    }
    assert {name: cells[2] for name, cells in found.items()} == {kind.value: unit for kind, unit in UNITS.items()}


def test_the_page_explains_the_shared_keys() -> None:
    """Each key that can stand at three places has its row."""
    found = {name for cells in rows(section("Keys")) for name in re.findall(r"`([\w-]+)`", cells[0])}

    assert found >= set(SHARED_KEYS)
