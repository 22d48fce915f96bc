"""SLOs by PromQL: counted by Prometheus itself, through restarts, births and silence of what is queried."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mppobs.cli.main import run as mppobs
from mppobs.render.everything import Options, generate
from mppobs.render.files import Plain
from mppobs.render.promql import call, metric
from mppobs.render.queries import query_groups
from mppobs.render.rules import RuleSettings, groups
from mppobs.slo.series import series_of
from mppobs.slo.spec import parse_spec
from tests.servers import require, run

SPEC = """
team: web
objectives:
  gateway:
    indicator: promql
    owner: edge
    objective: 99%
    good: requests_total{code!="500"}
    total: requests_total
"""
STEP = 30
FORGETS = 15 * 60
"""How long nothing may be heard before the query's last answer is forgotten."""
Values = Sequence[int | None]
"""Of a counter at each evaluation; `None` where it is not there."""


def _notation(values: Values) -> str:
    """Return values as promtool takes them: what goes away is stale at once."""
    return " ".join("stale" if value is None else str(value) for value in values)


def _series(code: str, pod: str, values: Values) -> Plain:
    return {"series": f'requests_total{{code="{code}",pod="{pod}"}}', "values": _notation(values)}


def _promtool(directory: Path, inputs: list[Plain], checks: list[Plain]) -> str:
    """Run promtool over the rules of the spec; return what it complains of."""
    for name, text in generate(parse_spec(SPEC).slos, Options()).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    order = ["mppobs-slo-queries", "mppobs-slo", "mppobs-slo-slow", "mppobs-slo-queries-slow"]
    test: dict[str, Plain] = {"interval": f"{STEP}s", "input_series": inputs, "promql_expr_test": checks}
    body: dict[str, Plain] = {
        "rule_files": [f"rules/{name}.yaml" for name in order], "group_eval_order": order,
        "evaluation_interval": f"{STEP}s", "tests": [test],
    }  # fmt: skip
    (directory / "test.yaml").write_text(json.dumps(body))
    done = run([require("promtool", "prometheus"), "test", "rules", str(directory / "test.yaml")])
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _holds(expression: str, time: int, value: float | None) -> Plain:
    """Return the check that an expression has one value, or none, at a time."""
    samples: list[Plain] = [] if value is None else [{"labels": "{}", "value": value}]
    return {"expr": f"sum({expression})", "eval_time": f"{time}s", "exp_samples": samples}


def _counts(time: int, events: int, bad: int) -> Iterator[Plain]:
    yield _holds("mpp_slo_events_total", time, events)
    yield _holds("mpp_slo_bad_events_total", time, bad)


def test_a_first_failure_is_counted(tmp_path: Path) -> None:
    """A series that is born with its first failure counts from that one on, and the budget knows."""
    good = list(range(1000, 1000 + 10 * 100, 100))
    failures: list[int | None] = [None] * 5 + [3, 3, 3, 3, 3]
    inputs: list[Plain] = [_series("200", "a", good), _series("500", "a", failures)]
    checks = [*_counts(4 * STEP, 400, 0), *_counts(5 * STEP, 503, 3), *_counts(9 * STEP, 903, 3)]
    checks.append(_holds("round(slo:mpp_slo_burn_rate:ratio_1h, 0.0001)", 9 * STEP, round(3 / 903 / 0.01, 4)))
    checks.append(_holds("round(mpp_slo_budget_left_ratio, 0.0001)", 9 * STEP, round(1 - 3 / 903 / 0.01, 4)))
    assert _promtool(tmp_path, inputs, checks) == ""


def test_an_outage_pages_like_any_other(tmp_path: Path) -> None:
    """The fast leg fires, with the owner of the SLO and without a pipeline."""
    inputs: list[Plain] = [_series("200", "a", [*range(0, 1000, 100), *[1000] * 10]),
              _series("500", "a", [*[0] * 10, *range(100, 1100, 100)])]  # fmt: skip
    labels = {
        "alertname": "MppSloBurn", "slo": "web/gateway", "owner": "edge", "tier": "standard", "leg": "fast",
        "window": "1h", "severity": "page", "failure_mode": "slo", "route_oncall": "true", "route_owner": "true",
    }  # fmt: skip
    firing = str(call("count", metric("ALERTS", **labels)))
    checks = [_holds(firing, 19 * STEP, 1), _holds(firing, 9 * STEP, None)]
    assert _promtool(tmp_path, inputs, checks) == ""


def test_a_restart_of_a_process_makes_up_nothing(tmp_path: Path) -> None:
    """The sum drops with a counter that begins again; the step is not counted, the next one is."""
    first = [100, 110, 120, 0, 10, 20]
    second = [5000, 5010, 5020, 5030, 5040, 5050]
    inputs: list[Plain] = [_series("200", "a", first), _series("200", "b", second)]
    checks = [*_counts(2 * STEP, 40, 0), *_counts(3 * STEP, 40, 0), *_counts(4 * STEP, 60, 0), *_counts(150, 80, 0)]
    assert _promtool(tmp_path, inputs, checks) == ""


def test_what_cannot_be_scraped_for_a_while_is_counted_when_it_is_back(tmp_path: Path) -> None:
    """Silence keeps the counts; what happened in the meantime comes with the first answer, and nothing twice."""
    values = [100, 110, None, None, 140, 150]
    checks = [*_counts(3 * STEP, 10, 0), *_counts(4 * STEP, 40, 0), *_counts(5 * STEP, 50, 0)]
    assert _promtool(tmp_path, [_series("200", "a", values)], checks) == ""


def test_a_counter_that_is_new_long_after_its_slo_was_born_at_nothing(tmp_path: Path) -> None:
    """The very first event of all counts, when it comes after more than a quarter of an hour of nothing."""
    silent = FORGETS // STEP + 2
    values: list[int | None] = [*[None] * silent, 1, 1, 2]
    checks = [*_counts((silent - 1) * STEP, 0, 0), *_counts(silent * STEP, 1, 0), *_counts((silent + 2) * STEP, 2, 0)]
    assert _promtool(tmp_path, [_series("200", "a", values)], checks) == ""


def _pod(chance: random.Random, steps: int) -> list[int | None]:
    """Return a counter's life with births, restarts and absences."""
    values: list[int | None] = []
    count, there = chance.randrange(1000), chance.random() < 0.7
    for _ in range(steps):
        there = there if chance.random() < 0.9 else not there
        count = 0 if chance.random() < 0.05 else count + chance.randrange(20)
        values.append(count if there else None)
    return values


def _naive(good: Sequence[Values], bad: Sequence[Values], steps: int) -> Iterator[tuple[int, int]]:
    """Yield what must have been counted by each evaluation, one at a time."""
    events = failures = 0
    before: tuple[int, int] | None = None
    for step in range(steps):
        seen = [value for pod in (*good, *bad) if (value := pod[step]) is not None]
        if seen:
            now = sum(seen), sum(value for pod in good if (value := pod[step]) is not None)
            grown = (now[0] - before[0], now[1] - before[1]) if before else (0, 0)
            if min(grown) >= 0:
                events, failures = events + grown[0], failures + max(0, grown[0] - grown[1])
            before = now
        yield events, failures


@pytest.mark.parametrize("seed", range(4))
def test_any_history_is_counted_as_told(tmp_path: Path, seed: int) -> None:
    """Births, restarts and absences of six processes in any order: what a naive count of the steps says."""
    chance, steps = random.Random(seed), 25
    good, bad = [[_pod(chance, steps) for _ in range(3)] for _ in range(2)]
    told = list(_naive(good, bad, steps))
    inputs: list[Plain] = [
        _series(code, str(pod), values)
        for code, pods in (("200", good), ("500", bad))
        for pod, values in enumerate(pods)
    ]
    checks = [check for step in range(steps) for check in _counts(step * STEP, *told[step])]
    assert told[-1][0] > told[-1][1] > 0
    assert _promtool(tmp_path, inputs, checks) == ""


def test_it_has_as_many_series_as_are_forecast(tmp_path: Path) -> None:
    """Once there are events: queries, growth, counts, windows, budget."""
    (slo,) = parse_spec(SPEC).slos
    inputs: list[Plain] = [_series("200", "a", list(range(0, 1000, 100)))]
    checks = [_holds(f'count({{slo="{slo.full_name}"}})', 9 * STEP, series_of(slo, 15))]
    assert _promtool(tmp_path, inputs, checks) == ""


def test_rules_grow_with_the_queries_alone() -> None:
    """Four rules for each such SLO, and one set for all of them; the others make none."""
    one = parse_spec(SPEC).slos
    entry = SPEC.partition("objectives:\n")[2]
    two = parse_spec(SPEC + entry.replace("gateway", "frontend")).slos
    other = parse_spec(SPEC + "pipelines: {p: {owner: o, objectives: {shard-success: 99%}}}\n").slos
    sizes = [sum(len(group.rules) for group in query_groups(slos, RuleSettings())) for slos in (one, two, other)]
    assert [size - sizes[0] for size in sizes] == [0, 4, 0]
    assert len([name for name in generate(one) if name.startswith("rules/")]) == len(groups()) + 2


@pytest.mark.parametrize("query", ["1", "requests_total[5m]", "sum(", '"x"'])
def test_what_is_no_vector_is_refused_even_by_force(tmp_path: Path, query: str, capsys: Any) -> None:
    """A query that Prometheus could not count is an error of the file, not of the rules."""
    path = tmp_path / "slo.yaml"
    path.write_text(SPEC.replace("total: requests_total", f"total: '{query}'"))
    assert mppobs(["generate", str(path), "--out", str(tmp_path / "out"), "--force"]) == 2
    assert "`total` is no PromQL that can be counted" in capsys.readouterr().err
