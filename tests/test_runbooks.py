"""The runbooks: one page for each alert, whose queries, commands and links are right."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import promql_parser
import pytest
from typer.testing import CliRunner

from mppobs.catalog.alerts import ALERTS, BY_NAME, Alert
from mppobs.catalog.metrics import BY_NAME as METRICS
from mppobs.catalog.metrics import LABELS, RUN_LABELS
from mppobs.cli import main
from mppobs.executor.faults import parse_fault
from mppobs.model import Severity
from mppobs.render.rules import Recording, groups
from mppobs.runbooks import SECTIONS, Block, Page, directory, filled, names, parse, text_of, to_html
from mppobs.workloads.registry import WORKLOADS

PAGES = {name: parse(text_of(name)) for name in names()}
ALERT_PAGES = {name: page for name, page in PAGES.items() if name in BY_NAME}
GUIDES = {"game-day", "incident-checklist", "postmortem"}
VALUES = {"PIPELINE": "nightly", "JOB": "nightly-1"}
RECORDED = {rule.record for group in groups() for rule in group.rules if isinstance(rule, Recording)}
FOREIGN = {
    "up": {"job"},
    "ALERTS": {"alertname"},
    "prometheus_rule_evaluation_failures_total": {"rule_group"},
    "prometheus_rule_group_last_duration_seconds": set(),
}
"""Metrics of Prometheus itself that a page may name, with their labels."""
BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, page in PAGES.items()
    for number, block in enumerate(page.blocks)
]


def test_alerts_and_pages_are_one_to_one() -> None:
    """Every alert has its page, every page is an alert's or a known guide."""
    assert set(PAGES) == set(BY_NAME) | GUIDES


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_page_says_what_the_catalogue_says(alert: Alert) -> None:
    """Title, headings, failure mode, severity, who is called and the dashboard are those of the alert."""
    page = PAGES[alert.name]
    assert page.title == alert.name
    assert page.headings == SECTIONS
    assert page.summary.endswith(".")
    assert page.facts["Failure mode"] == alert.failure_mode
    assert set(page.facts["Who"].split(", ")) == {str(route) for route in alert.routes}
    assert page.facts["Dashboard"] == f"[{alert.dashboard}](/d/{alert.dashboard})"
    severity = "none" if alert.name == "Watchdog" else str(alert.severity)
    assert page.facts["Severity"].split(";")[0] == severity
    if alert.critical_severity is Severity.PAGE:
        assert page.facts["Severity"] == f"{severity}; page where the tier is critical"


@pytest.mark.parametrize("name", ALERT_PAGES)
def test_a_page_fits_on_a_phone(name: str) -> None:
    """What is read at three in the morning is short."""
    assert len(text_of(name).splitlines()) <= 100


@pytest.mark.parametrize("block", BLOCKS)
def test_every_query_parses_and_names_what_is_emitted(block: Block) -> None:
    """PromQL is right, its metrics are in the catalogue or recorded by the rules, its labels are theirs."""
    if block.language != "promql":
        return
    for selector in _selectors(promql_parser.parse(filled(block.text, VALUES))):
        base = re.sub(r"_(bucket|sum|count)$", "", selector.name)
        metric = METRICS.get(selector.name) or METRICS.get(base)
        assert metric or selector.name in RECORDED | FOREIGN.keys(), selector.name
        labels = {matcher.name for matcher in selector.matchers.matchers}
        if metric:
            assert labels <= {*metric.labels, "job", "instance"}, (selector.name, labels)
        else:
            assert labels <= FOREIGN.get(selector.name, LABELS | RUN_LABELS)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_shell_is_sound(block: Block) -> None:
    """Bash takes it, and every `mppobs` command in it exists with the options that it is given."""
    if block.language != "sh":
        return
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for line in block.text.splitlines():
        if line.startswith("mppobs "):
            check_command(line)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_the_text_exists(name: str) -> None:
    """Commands in the text and in tables are commands of ours."""
    for code in PAGES[name].code:
        if code.startswith("mppobs "):
            check_command(code)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    """Links go to pages, or to dashboards that are generated."""
    dashboards = {alert.dashboard for alert in ALERTS}
    for link in PAGES[name].links:
        assert link.removesuffix(".md") in PAGES or link.removeprefix("/d/") in dashboards, link


@pytest.mark.parametrize("name", ALERT_PAGES)
def test_a_page_confirms_and_verifies(name: str) -> None:
    """Each page has something to look at, says what to expect of it, and has a drill."""
    page = ALERT_PAGES[name]
    assert page.blocks
    assert all(block.expect for block in page.blocks)
    assert "Nothing" in "".join(block.expect for block in page.blocks if "signature" in block.tags) or not any(
        "signature" in block.tags for block in page.blocks
    )


@pytest.mark.parametrize("name", ALERT_PAGES)
def test_the_drill_is_of_the_fault_that_the_alert_is_for(name: str) -> None:
    """A fault in a drill is one that its catalogue says must raise this alert."""
    drill = text_of(name).split("## Drill")[1]
    for fault in re.findall(r"--fault (\S+?)`", drill):
        assert parse_fault(fault).about.alert == name or name in BY_EFFECT


BY_EFFECT = {"MppSloBurn", "MppCriticalJobFailed", "MppCostSurge"}
"""Alerts for what faults lead to, which have none of their own."""


def test_next_commands_of_alerts_exist() -> None:
    """What an alert says to type first is a command that there is."""
    for alert in ALERTS:
        command = re.sub(r"{{.*?}}", "name", alert.next_command)
        if command.startswith("mppobs "):
            check_command(command)


def test_pages_are_part_of_the_package() -> None:
    """Where the package is installed, the pages come with it."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert directory().name == "runbooks"
    assert '"runbooks" = "mppobs/_runbooks"' in project.read_text()


def test_the_command_prints_a_page_with_its_names() -> None:
    """`mppobs runbook` fills in what the alert is about, and knows the nearest name."""
    command = [sys.executable, "-m", "mppobs.cli.main", "runbook"]
    shown = subprocess.run([*command, "MppCostSurge", "-p", "nightly", "--raw"], capture_output=True, text=True)
    assert 'pipeline="nightly"' in shown.stdout
    wrong = subprocess.run([*command, "MppCostSurg"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "MppCostSurge" in wrong.stderr


def check_command(line: str) -> None:
    """Assert that a command line names a command that exists, with options that it has."""
    words = [word for word in shlex.split(line.split(" # ")[0]) if word not in ("…", "...")]
    path = [words[1]] if words[1] not in GROUPS or len(words) < 3 or words[2].startswith("-") else words[1:3]
    text = help_of(tuple(path))
    if path == ["run"]:
        check_run(words[2:])
    for word in words[1:]:
        option = word.split("=")[0]
        if re.fullmatch(r"--?[a-z][a-z-]*", option) and option != "--help":
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), (line, option)


def check_run(words: list[str]) -> None:
    """Assert that a run names a workload that there is, and faults that there are."""
    assert words[0] in WORKLOADS
    for option, value in itertools.pairwise(words):
        if option == "--fault":
            parse_fault(value)


GROUPS = {"slo", "journal", "dashboards"}


@cache
def help_of(path: tuple[str, ...]) -> str:
    """Return the help of a command. Fails where there is none."""
    assert path[0] in main.COMMANDS, path
    result = CliRunner().invoke(main._assemble(path[0]), [*path, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (path, result.output)
    return result.output


def _selectors(node: object) -> list[promql_parser.VectorSelector]:
    """Return every selector below a node of a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    children = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    children += list(getattr(node, "args", None) or ())
    return [found for child in children if child is not None for found in _selectors(child)]


def test_links_to_dashboards_lead_to_grafana_where_there_is_one() -> None:
    """A page that is served links to the Grafana of the settings; without one it links to nothing that is not there."""
    text = "[a](/d/mppobs-debug) and [b](MppCostSurge.md)"
    assert to_html(text, "http://g/") == (
        '<p><a href="http://g/d/mppobs-debug">a</a> and <a href="MppCostSurge">b</a></p>\n'
    )
    assert to_html(text) == '<p>a and <a href="MppCostSurge">b</a></p>\n'


def test_a_page_is_taken_apart() -> None:
    """The reader of pages finds titles, facts, blocks with what they promise, code and links."""
    page = parse(
        "# A\n\nIt is.\n\n| | |\n| --- | --- |\n| Who | x |\n\n## B\n\n"
        "```sh run\nls\n```\n\nExpect: `one` and `two`.\n\nSee [c](d.md), `e`.\n"
    )
    assert (page.title, page.summary, page.facts, page.headings) == ("A", "It is.", {"Who": "x"}, ("B",))
    assert (page.blocks[0].language, page.blocks[0].tags, page.blocks[0].seen) == ("sh", ("run",), ("one", "two"))
    assert page.links == ("d.md",)
    assert page.code == ("one", "two", "e")
    assert isinstance(page, Page)
