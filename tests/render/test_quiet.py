"""
Thirty healthy days over fifty pipelines wake nobody and open no ticket: the real rules, in a real Prometheus, over
back-filled samples.

The recording rules are put into the alerts' expressions, so that one range query evaluates an alert at every scrape of
the month. One SLO that really fails goes through the same queries, or their silence would mean nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from mppobs.render.rules import (
    BAD,
    BAD_NOW,
    EVENTS,
    EVENTS_NOW,
    INFO,
    OBJECTIVE,
    PERIOD,
    START,
    Alerting,
    Recording,
    groups,
)
from mppobs.slo.simulate import Batch, Stream, Traffic, arrivals, by_chance, evenly
from mppobs.slo.windows import DAY, HOUR, LEGS, MINUTE
from tests.servers import Prometheus, free_port, require, run, serving

BEGIN = 1_790_000_000 // DAY * DAY
DAYS = 30
END = BEGIN + DAYS * DAY
PIPELINES = 50
TRAFFIC = (Traffic.STEADY, Traffic.BURSTY, Traffic.NIGHTLY, Traffic.IDLE)
OUTAGE = "control/outage"
GIVEN = {name: name for name in (EVENTS, BAD, START, PERIOD, OBJECTIVE, INFO)} | {EVENTS_NOW: EVENTS, BAD_NOW: BAD}
"""What is in the samples and need not be computed: there are no twins here, and nothing is predicted."""
CHUNK = 6 * DAY
"""Of one query."""


@dataclass(frozen=True)
class Life:
    """One SLO over the month."""

    slo: str
    objective: str
    stream: Stream

    @property
    def tier(self) -> str:
        """Return the tier that has the most legs that page, for half of the pipelines."""
        return "standard" if int(self.slo[-2:], 36) % 2 else "critical"


def _traffic(index: int, chance: random.Random) -> Iterator[Batch]:
    """Yield what a pipeline does in a month; a steady one is decided every ten minutes."""
    kind = TRAFFIC[index % len(TRAFFIC)]
    if kind is Traffic.STEADY:
        return (Batch(time, 200) for time in range(BEGIN + index, END, 10 * MINUTE))
    return arrivals(kind, BEGIN, END, chance, size=600)


def _lives() -> list[Life]:
    """Return fifty pipelines twice, healthy and with one shard in a hundred failing, and one with an outage."""
    chance = random.Random(30)
    lives = []
    for index in range(PIPELINES):
        healthy = by_chance(_traffic(index, chance), 1e-6, chance, BEGIN)
        lossy = by_chance(_traffic(index, chance), 0.01, chance, BEGIN)
        lives += [Life(f"healthy/p{index:02}", "0.999", healthy), Life(f"lossy/p{index:02}", "0.95", lossy)]
    down = range(BEGIN + 9 * DAY, BEGIN + 9 * DAY + HOUR)
    broken = evenly(_traffic(0, chance), lambda time: Fraction(int(time in down)), BEGIN)
    return [*lives, Life(OUTAGE, "0.999", broken)]


def _month(lives: Sequence[Life], step: int) -> Iterator[str]:
    """Yield the month as the rules that collapse twins would have left it."""
    times = range(BEGIN + step, END + 1, step)
    constants: list[tuple[str, Callable[[Life], str]]] = [
        (START, lambda _: str(BEGIN)), (PERIOD, lambda _: str(30 * DAY)), (OBJECTIVE, lambda life: life.objective),
    ]  # fmt: skip
    for name, values in constants:
        yield f"# TYPE {name} gauge\n"
        for life in lives:
            yield from (f'{name}{{slo="{life.slo}"}} {values(life)} {time}\n' for time in times)
    yield f"# TYPE {INFO} gauge\n"
    for life in lives:
        labels = f'slo="{life.slo}",owner="o",tier="{life.tier}",pipeline="p",tenant="t",kind="shard-success"'
        yield from (f"{INFO}{{{labels}}} 1 {time}\n" for time in times)
    scraped = [(life.slo, life.stream.scraped(times)) for life in lives]
    for name, column in ((EVENTS, 1), (BAD, 2)):
        yield f"# TYPE {name} gauge\n"
        for slo, samples in scraped:
            yield from (f'{name}{{slo="{slo}"}} {sample[column]} {sample.time}\n' for sample in samples)


DAY_BEGIN = END - DAY


Value = Callable[[int], float]
"""Of a series, by time."""


def _ran(time: int) -> int:
    """Return for how many seconds a pipeline has worked that works every other hour."""
    return time // (2 * HOUR) * HOUR + min(time % (2 * HOUR), HOUR)


WORK: dict[str, list[tuple[str, Value]]] = {
    "mpp_pipeline_info": [('owner="o",tier="critical"', lambda time: 1)],
    "mpp_coordinator_heartbeat_timestamp_seconds": [("", lambda time: time - 4)],
    "mpp_jobs_current": [('state="running"', lambda time: time // HOUR % 2)],
    "mpp_attempts_total": [
        ('stage="s",outcome="success"', lambda time: (time - DAY_BEGIN) * 99),
        ('stage="s",outcome="failure"', lambda time: time - DAY_BEGIN),
    ],
    "mpp_retries_total": [('stage="s"', lambda time: time - DAY_BEGIN)],
    "mpp_run_info": [('job_id="j",owner="o",tier="critical",state="success"', lambda time: 1)],
    "mpp_tail_ratio": [('stage="s"', lambda time: 1.6 + time // HOUR % 7 / 5)],
    "mpp_skew_idle_ratio": [('stage="s"', lambda time: 0.2 + time // HOUR % 5 / 20)],
    "mpp_stragglers_current": [('cause="slow_node"', lambda time: time // HOUR % 3), ('cause="skew"', lambda time: 0)],
    "mpp_straggler_seconds": [
        ('stage="s",job_id="j",shard_id="1",rank="1",cause="slow_node"', lambda time: time % HOUR)
    ],
    "mpp_network_errors_total": [('kind="reset"', lambda time: _ran(time) // 10)],
    "mpp_storage_throttled_requests_total": [('kind="hot"', lambda time: _ran(time) // 10)],
    "mpp_oom_kills_total": [("", lambda time: 3)],
    "mpp_worker_memory_ratio": [('quantile="0.9"', lambda time: 0.6 + time // HOUR % 4 / 10)],
    "mpp_cpu_throttled_seconds_total": [("", lambda time: _ran(time) / 20)],
    "mpp_attempt_wall_seconds_total": [('stage="s"', lambda time: _ran(time) * 4)],
    "mpp_checkpoint_lag_seconds": [("", lambda time: time % (HOUR // 2))],
    "mpp_telemetry_completeness_ratio": [("", lambda time: 0.999)],
}
"""What a pipeline that does well shows, by metric, with the labels beside its own: close to its bounds at times."""

SURROUNDINGS: dict[str, tuple[str, Value]] = {
    "up": ('job="mppobs",instance="a"', lambda time: 1),
    "mpp_slo_budget_left_ratio": ('slo="t/spend"', lambda time: 0.8),
    "mpp_slo_info": ('slo="t/spend",kind="spend"', lambda time: 1),
    "mpp_workers_lost_total": ('cluster="c",reason="node_lost"', lambda time: time // (6 * HOUR)),
    "mppobs_lag_seconds": ('job="mppobs",instance="a"', lambda time: time % 20),
    "prometheus_rule_evaluation_failures_total": ('rule_group="mppobs-work"', lambda time: 3),
}


def _cost(time: int) -> float:
    """Return what a pipeline has cost since time began: five dollars a night, and half as much again on Mondays."""
    return 5.0 * (time // DAY) + 2.5 * (time // (7 * DAY))


def _working_day(pipelines: int) -> Iterator[str]:
    """Yield one day of everything else that alerts look at, scraped every minute, and nine days of costs."""
    times = range(DAY_BEGIN, END + 1, MINUTE)
    for name, every in WORK.items():
        yield f"# TYPE {name} gauge\n"
        for index in range(pipelines):
            for more, value in every:
                labels = f'cluster="c",tenant="t",pipeline="p{index}",{more}'.rstrip(",")
                yield from (f"{name}{{{labels}}} {value(time)} {time}\n" for time in times)
    for name, (labels, value) in SURROUNDINGS.items():
        yield f"# TYPE {name} gauge\n"
        yield from (f"{name}{{{labels}}} {value(time)} {time}\n" for time in times)
    yield "# TYPE mpp_cost_usd_total gauge\n"
    for index in range(pipelines):
        labels = f'cluster="c",tenant="t",pipeline="p{index}",kind="useful"'
        yield from (
            f"mpp_cost_usd_total{{{labels}}} {_cost(time)} {time}\n" for time in range(END - 9 * DAY, END + 1, 240)
        )


def _serve(directory: Path, lines: Iterator[str]) -> Iterator[Prometheus]:
    """Run a Prometheus that remembers what the lines say."""
    binary, promtool = require("prometheus", "prometheus"), require("promtool", "prometheus")
    with (directory / "history.om").open("w") as file:
        file.writelines(lines)
        file.write("# EOF\n")
    blocks = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=768h", "--quiet"]
    made = run([*blocks, str(directory / "history.om"), str(directory / "data")])
    assert made.returncode == 0, made.stderr
    (directory / "prometheus.yml").write_text("{}")
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
        "--storage.tsdb.retention.time=10y", f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with serving(command, directory, f"http://{address}", "/-/ready") as url:
        yield Prometheus(url)


def _rules() -> list[tuple[Alerting, str]]:
    """Return every alerting rule, and its expression with the windows' recording rules put in."""
    rules = [rule for group in groups() for rule in group.rules]
    recorded = {rule.record: rule.expr.text for rule in rules if isinstance(rule, Recording)} | GIVEN
    names = re.compile(f"({'|'.join(sorted(map(re.escape, recorded), key=len, reverse=True))})(?![\\w:])")

    def inlined(text: str) -> str:
        while (put_in := names.sub(lambda found: _atom(recorded[found.group()]), text)) != text:
            text = put_in
        return text

    return [(rule, inlined(rule.expr.text)) for rule in rules if isinstance(rule, Alerting)]


def _atom(text: str) -> str:
    return text if text in GIVEN else f"({text})"


def _fired(prometheus: Prometheus, expression: str, start: int, step: int) -> set[str]:
    """Return which SLOs or pipelines an expression finds at any instant from a start to the month's end."""
    found: set[str] = set()
    for first in range(start, END, CHUNK):
        last = min(first + CHUNK, END)
        answer = prometheus.get("query_range", query=expression, start=str(first), end=str(last), step=str(step))
        found |= {series["metric"].get("slo") or str(series["metric"]) for series in answer["result"]}
    return found


def _burnt(directory: Path, step: int) -> dict[str, set[str]]:
    """Return the SLOs for which each leg fired in the month, evaluated at every scrape."""
    found: dict[str, set[str]] = {}
    for prometheus in _serve(directory, _month(_lives(), step)):
        for rule, expression in _rules():
            leg = dict(rule.labels).get("leg", "latched")
            if leg != "latched":
                found[leg] = _fired(prometheus, expression, BEGIN + step, step)
    return found


def test_a_month_without_a_page_or_a_ticket(tmp_path: Path) -> None:
    """No leg fires for healthy pipelines or for one shard in a hundred within the budget; all do for an outage."""
    assert _burnt(tmp_path, 15 * MINUTE) == {leg.name: {OUTAGE} for leg in LEGS}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_month_without_a_page_or_a_ticket_scraped_often(tmp_path: Path) -> None:
    """The same, scraped and evaluated three times as often."""
    assert _burnt(tmp_path, 5 * MINUTE) == {leg.name: {OUTAGE} for leg in LEGS}


def test_a_working_day_without_a_page_or_a_ticket(tmp_path: Path) -> None:
    """Of all the other rules, none finds anything in a day of pipelines that do well, but the watchdog."""
    for prometheus in _serve(tmp_path, _working_day(10)):
        assert _fired(prometheus, "mpp_jobs_current > 0", DAY_BEGIN, MINUTE), "or nothing would be looked at"
        for rule, expression in _rules():
            if rule.alert.name not in ("MppSloBurn", "Watchdog"):
                assert _fired(prometheus, expression, DAY_BEGIN, MINUTE) == set(), rule.alert.name


def test_every_alert_is_looked_at(tmp_path: Path) -> None:
    """Whatever metric an alert of a working day looks at is there, or its silence would mean nothing."""
    shown = {*WORK, *SURROUNDINGS, "mpp_cost_usd_total", "mpp_run_predicted_late_seconds"}  # the last, where late
    for rule, expression in _rules():
        if rule.alert.name != "MppSloBurn":
            assert set(re.findall(r"\b(?:mpp|mppobs|prometheus)_\w+(?=[{\[) ])", expression)) <= shown, rule.alert.name
