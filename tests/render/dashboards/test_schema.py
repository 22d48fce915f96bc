"""Dashboards against the types that Grafana publishes with four of its versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mppobs.cli.main import run
from mppobs.errors import ConfigError
from mppobs.render.dashboards.check.schema import KNOWN, Violation, versions

pytestmark = pytest.mark.timeout(900)  # of which the making, once, takes a minute
GRAFANA = ("10.4", "11.6", "12.4", "13.2")


def _violations(schemas: Path, books: dict[str, dict[str, Any]]) -> list[Violation]:
    return [each for version in versions(schemas) for book in books.values() for each in version.violations(book)]


def test_no_violation_but_those_that_are_explained(schemas: Path, books: dict[str, dict[str, Any]]) -> None:
    """On every version nothing is wrong by its types but what is listed with a reason; all of that occurs."""
    found = _violations(schemas, books)

    assert tuple(".".join(each.version.split(".")[:2]) for each in versions(schemas)) == GRAFANA
    assert [str(each) for each in found if not any(known.covers(each) for known in KNOWN)] == []
    assert [known.text for known in KNOWN if not any(known.covers(each) for each in found)] == []
    assert len(KNOWN) <= 5


@pytest.mark.parametrize("version", range(len(GRAFANA)), ids=GRAFANA)
def test_what_older_generators_write_is_found(version: int, schemas: Path, books: dict[str, dict[str, Any]]) -> None:
    """A base of thresholds that is the text 'null', a data source by name, a retired key: each is a violation."""
    book = books["oncall"]
    panel = next(panel for panel in book["panels"] if panel["type"] == "stat")
    panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] = "null"
    panel["datasource"] = "${datasource}"
    panel["options"]["fieldOptions"] = {}
    found = {each.text for each in versions(schemas)[version].violations(book)}

    assert any("'null'" in text for text in found)
    assert any("${datasource}" in text for text in found)
    assert any("fieldOptions" in text for text in found)


def test_the_command_checks_against_schemas(schemas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--schemas` adds Grafana's types to the checks."""
    assert run(["dashboards", "check", "dashboards", "--schemas", str(schemas)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_a_directory_without_schemas_says_how_to_make_them(tmp_path: Path) -> None:
    """The error names the program that makes them."""
    with pytest.raises(ConfigError, match="scripts/grafana-schemas"):
        versions(tmp_path)
