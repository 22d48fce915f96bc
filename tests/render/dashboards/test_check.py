"""The checks: our dashboards pass them all, and each rule finds what it is for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mppobs.cli.main import run
from mppobs.render.dashboards.check.exclusions import EXCLUSIONS, Exclusion, let_through
from mppobs.render.dashboards.check.findings import Finding
from mppobs.render.dashboards.check.linter import LINTER
from mppobs.render.dashboards.check.rules import RULES, findings

Book = dict[str, Any]


def _panel(book: Book, number: int) -> Book:
    found: Book = next(panel for panel in book["panels"] if panel["id"] == number)
    return found


def _variable(book: Book, name: str) -> Book:
    found: Book = next(each for each in book["templating"]["list"] if each["name"] == name)
    return found


def _expr(text: str, number: int = 302) -> Callable[[Book], None]:
    """Return a change that gives a panel of the on-call dashboard another query."""

    def change(book: Book) -> None:
        _panel(book, number)["targets"][0] |= {"expr": text, "legendFormat": ""}

    return change


_OURS = 'job=~"$job",pipeline=~"$pipeline"'
BROKEN: dict[str, Callable[[Book], object]] = {
    "template-datasource-rule": lambda book: _variable(book, "datasource").update(name="source"),
    "template-job-rule": lambda book: _variable(book, "job").update(allValue=".*"),
    "template-instance-rule": lambda book: None,  # the on-call dashboard has none, which is let through elsewhere
    "template-label-promql-rule": lambda book: _variable(book, "pipeline").update(query="label_values(up{, x)"),
    "template-on-time-change-reload-rule": lambda book: _variable(book, "pipeline").update(refresh=1),
    "target-job-rule": _expr('sum(mpp_jobs_current{pipeline=~"$pipeline"})'),
    "target-instance-rule": lambda book: None,
    "target-logql-rule": lambda book: _panel(book, 302)["targets"][0].update(datasource={"type": "loki", "uid": "x"}),
    "target-logql-auto-rule": _expr(f"rate(mpp_retries_total{{{_OURS}}}[$__auto])"),
    "panel-datasource-rule": lambda book: _panel(book, 302).update(datasource={"type": "prometheus", "uid": "x"}),
    "panel-title-description-rule": lambda book: _panel(book, 302).update(description=""),
    "panel-units-rule": lambda book: _panel(book, 302)["fieldConfig"]["defaults"].update(unit="parsecs per fortnight"),
    "panel-no-targets-rule": lambda book: _panel(book, 302).update(targets=[]),
    "target-promql-rule": _expr("sum("),
    "target-rate-interval-rule": _expr(f"sum(rate(mpp_retries_total{{{_OURS}}}[5m]))"),
    "target-counter-agg-rule": _expr(f"sum(mpp_retries_total{{{_OURS}}})"),
    "uneditable-dashboard": lambda book: book.update(editable=True),
    "known-metrics-and-labels": _expr(f"sum by (shop) (mpp_jobs_current{{{_OURS}}})"),
    "unit-fits": _expr(f"sum(rate(mpp_shuffle_bytes_total{{{_OURS}}}[$__rate_interval]))"),
    "shown-labels": lambda book: _panel(book, 302)["targets"][0].update(legendFormat="{{stage}}"),
    "known-variables": _expr('sum(mpp_jobs_current{job=~"$job",pipeline=~"$pipelines"})'),
    "rate-of-counters": _expr(f"sum(rate(mpp_jobs_current{{{_OURS}}}[$__rate_interval]))"),
    "needless-regex": _expr('sum(mpp_jobs_current{job=~"$job",pipeline=~"nightly"})'),
    "quotient-in-sum": _expr(f"sum(mpp_tail_ratio{{{_OURS}}} / mpp_tail_ratio{{{_OURS}}})"),
    "layout": lambda book: _panel(book, 302)["gridPos"].update(x=0),
    "panel-numbers": lambda book: _panel(book, 302).update(id=303),
    "identity": lambda book: book.update(timezone="browser"),
    "query-letters": lambda book: _panel(book, 302)["targets"].append(_panel(book, 302)["targets"][0]),
    "links": lambda book: _panel(book, 302).update(links=[{"url": "/d/mppobs-debug?viewPanel=9999"}]),
}


def test_our_dashboards_have_no_findings(books: dict[str, Book]) -> None:
    """Nothing is found but what is let through with a reason, and no exclusion lets nothing through."""
    left, idle = let_through(findings(list(books.values())))

    assert [str(finding) for finding in left] == []
    assert idle == []


def test_every_rule_has_a_case_that_breaks_it() -> None:
    """The linter's seventeen rules are all there, and each rule of ours too has its case."""
    assert len(LINTER) == 17
    assert BROKEN.keys() == set(RULES)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_finds_what_it_is_for(rule: str, oncall: Book, books: dict[str, Book]) -> None:
    """A dashboard that breaks a rule is found by that rule, with the panel where there is one."""
    before = {str(each) for each in findings(list(books.values()), [rule]) if each.dashboard == "mppobs-oncall"}
    changed = copy.deepcopy(oncall)
    BROKEN[rule](changed)
    others = [book for book in books.values() if book["uid"] != "mppobs-oncall"]
    found = {str(each) for each in findings([changed, *others], [rule]) if each.dashboard == "mppobs-oncall"}

    assert found - before if changed != oncall else found


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("mpp_worker_mem_ratio", "did you mean"),
        ('mpp_tail_ratio{stages="map"}', "has no label 'stages'"),
        ("mpp_tail_ratio * on (cluster) group_left (owner) mpp_tail_ratio", "group_left (owner)"),
        ("mpp_tail_ratio * mpp_worker_memory_ratio", "one side has"),
        ("histogram_quantile(0.9, sum by (stage) (rate(mpp_shard_duration_seconds_bucket[5m])))", "'le' is gone"),
        ('label_replace(mpp_tail_ratio, "a", "$1", "zzz", "(.*)")', "no label 'zzz'"),
        ("mpp_tail_ratio + mpp_checkpoint_lag_seconds", "units differ"),
    ],
)
def test_what_a_query_gets_wrong_is_told(expr: str, told: str, oncall: Book) -> None:
    """Unknown names, labels that are gone, series that never meet, units that do not go together."""
    _expr(expr)(oncall)
    found = [each.text for each in findings([oncall], ["known-metrics-and-labels"])]

    assert any(told in text for text in found), found


@pytest.mark.parametrize(
    ("expr", "unit", "fits"),
    [
        ("mpp_run_deadline_timestamp_seconds * 1000", "dateTimeAsIsoNoDateIfToday", True),
        ("mpp_run_deadline_timestamp_seconds", "dateTimeAsIsoNoDateIfToday", False),
        ("time() - mpp_run_deadline_timestamp_seconds", "dtdurations", True),
        ("mpp_run_deadline_timestamp_seconds", "dtdurations", False),
        ("rate(mpp_attempt_cpu_seconds_total[5m]) / rate(mpp_attempt_wall_seconds_total[5m])", "percentunit", True),
        ("rate(mpp_cost_usd_total[5m])", "currencyUSD", False),
        ("mpp_job_cost_usd_sum / mpp_job_cost_usd_count", "currencyUSD", True),
        ("rate(mpp_jobs_total[5m]) * 3600", "suffix: / h", True),
        ("rate(mpp_jobs_total[5m])", "suffix: / h", False),
        ("sum(mpp_jobs_current)", "percentunit", False),
        ("rate(mpp_shuffle_bytes_total[5m])", "binBps", True),
        ("rate(mpp_shuffle_bytes_total[5m])", "bytes", False),
    ],
)
def test_units_are_held_against_what_is_computed(expr: str, unit: str, fits: bool, oncall: Book) -> None:
    """Dates in seconds, dollars per second and shares that are counts are found; what fits is let be."""
    _expr(expr)(oncall)
    _panel(oncall, 302)["fieldConfig"]["defaults"]["unit"] = unit
    found = findings([oncall], ["unit-fits"])

    assert (found == []) == fits


def test_an_exclusion_covers_only_what_it_names() -> None:
    """A finding is let through by rule, dashboard and text together; an exclusion without work is told."""
    finding = Finding("layout", "a", "1 (x)", "it lies on panel 2")
    here, elsewhere = Exclusion("layout", "so", ("a",), "lies"), Exclusion("layout", "so", ("b",))

    assert let_through([finding], [here]) == ([], [])
    assert let_through([finding], [elsewhere]) == ([finding], [elsewhere])
    assert all(each.reason for each in EXCLUSIONS)


def test_the_command_tells_findings_as_lines_and_as_json(
    oncall: Book, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mppobs dashboards check` passes what is in order, and fails with a line or an object per finding."""
    path = tmp_path / "oncall.json"
    path.write_text(json.dumps(oncall | {"links": [], "editable": True}))
    assert run(["dashboards", "check", str(path)]) == 1
    assert "uneditable-dashboard: mppobs-oncall: editable is not false" in capsys.readouterr().out
    assert run(["dashboards", "check", str(path), "--json"]) == 1

    assert "uneditable-dashboard" in {json.loads(line)["rule"] for line in capsys.readouterr().out.splitlines()}
    assert run(["dashboards", "check", "dashboards"]) == 0
