"""`mppobs slo import` and `export`, from one file to the other and back."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from mppobs.cli.slo import app
from mppobs.slo.schema import schema
from mppobs.slo.spec import load_spec, parse_spec

SHORT = """
team: risk
pipelines:
  nightly: {every: 1d, owner: scoring, objectives: {job-success: 99.95%, tail: {objective: 95%, at-most: 2.50}}}
objectives:
  api: {indicator: promql, objective: 99.9%, good: sum(a), total: sum(b)}
"""


def test_export_and_import_are_each_others_inverse(tmp_path: Path) -> None:
    """What export prints, import turns into a short form of the same meaning; it overwrites nothing."""
    short, other, back = tmp_path / "slo.yaml", tmp_path / "open.yaml", tmp_path / "back.yaml"
    short.write_text(SHORT)
    done = CliRunner().invoke(app, ["export", str(short)])
    assert done.exit_code == 0
    other.write_text(done.stdout)
    done = CliRunner().invoke(app, ["import", str(other)])
    assert parse_spec(done.stdout).slos == parse_spec(SHORT).slos
    assert CliRunner().invoke(app, ["import", str(other), "--out", str(back)]).exit_code == 0
    assert load_spec(back).slos == parse_spec(SHORT).slos
    assert CliRunner().invoke(app, ["import", str(other), "--out", str(back)]).exit_code == 1


def test_what_cannot_be_imported_is_told_with_its_place(tmp_path: Path) -> None:
    """Errors go to the standard error and nothing is printed."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: x}\nspec: {budgetingMethod: Timeslices}\n")
    done = CliRunner().invoke(app, ["import", str(bad)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"error: {bad}:4:" in done.stderr


def test_the_schema_is_printed_as_json() -> None:
    """What an editor is given is what the library says."""
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == schema()
