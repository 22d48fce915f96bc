"""What is committed in `alerts/` is what the example generates today, and every link in it leads somewhere."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mppobs.cli.main import run as mppobs
from mppobs.runbooks import names
from tests.servers import require, run

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "alerts"


def _alerts() -> Iterator[Mapping[str, Any]]:
    """Yield every alerting rule of the committed files."""
    for path in sorted((ALERTS / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


def test_nothing_has_drifted(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever changes a rule generates `alerts/` again: `mppobs generate examples/slo.yaml --out alerts`."""
    assert mppobs(["generate", str(ROOT / "examples/slo.yaml"), "--out", str(ALERTS), "--check"]) == 0, (
        capsys.readouterr()
    )


def test_the_real_checkers_accept_what_is_committed() -> None:
    """promtool and amtool find nothing wrong, the rules of SLOs by PromQL included."""
    rules = [require("promtool", "prometheus"), "check", "rules", "--lint=all", "--lint-fatal"]
    for command in (
        [*rules, *map(str, sorted((ALERTS / "rules").glob("*.yaml")))],
        [require("amtool", "prometheus-alertmanager"), "check-config", str(ALERTS / "alertmanager.yml")],
    ):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_dashboard_link_leads_to_a_panel() -> None:
    """The dashboard has the uid of the link's path, and a panel of the number that it asks for."""
    boards = [json.loads(path.read_text()) for path in sorted((ROOT / "dashboards").glob("*.json"))]
    panels = {board["uid"]: {panel["id"] for panel in board["panels"]} for board in boards}
    for rule in _alerts():
        link = urllib.parse.urlsplit(rule["annotations"]["dashboard_url"])
        number = int(urllib.parse.parse_qs(link.query)["viewPanel"][0])
        assert number in panels[link.path.removeprefix("/d/")], rule["alert"]


def test_every_runbook_link_leads_to_a_page() -> None:
    """Sidecars serve a page under the name that the link ends in."""
    for rule in _alerts():
        place, _, name = rule["annotations"]["runbook_url"].rpartition("/runbooks/")
        assert place, rule["alert"]
        assert name in names()
