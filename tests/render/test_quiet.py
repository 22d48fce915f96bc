"""
Thirty healthy days over fifty pipelines wake nobody: the real rules, in a real Prometheus, over back-filled samples.

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

from mppobs.model import Severity
from mppobs.render.rules import (
    BAD,
    EVENTS,
    INFO,
    OBJECTIVE,
    PERIOD,
    START,
    Alerting,
    Recording,
    groups,
)
from mppobs.slo.simulate import Batch, Stream, Traffic, arrivals, by_chance, evenly
from mppobs.slo.windows import DAY, HOUR, MINUTE
from tests.servers import Prometheus, free_port, require, run, serving

BEGIN = 1_790_000_000 // DAY * DAY
DAYS = 30
END = BEGIN + DAYS * DAY
PIPELINES = 50
TRAFFIC = (Traffic.STEADY, Traffic.BURSTY, Traffic.NIGHTLY, Traffic.IDLE)
OUTAGE = "control/outage"
COLLAPSED = (EVENTS, BAD, START, PERIOD, OBJECTIVE, INFO)
"""Given, not computed: there are no twins here."""
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
    "mpp_run_predicted_finish_timestamp_seconds": [('job_id="j"', lambda time: time + HOUR)],
    "mpp_run_deadline_timestamp_seconds": [('job_id="j"', lambda time: time + 2 * HOUR)],
}
"""What a pipeline that does well shows, by metric, with the labels beside its own."""

SURROUNDINGS: dict[str, tuple[str, float]] = {
    "up": ('job="mppobs",instance="a"', 1),
    "mpp_slo_budget_left_ratio": ('slo="t/spend"', 0.8),
    "mpp_slo_info": ('slo="t/spend",kind="spend"', 1),
    "prometheus_rule_evaluation_failures_total": ('rule_group="mppobs-work"', 3),
}


def _working_day(pipelines: int) -> Iterator[str]:
    """Yield one day of everything else that pages look at, scraped every minute."""
    times = range(DAY_BEGIN, END + 1, MINUTE)
    for name, every in WORK.items():
        yield f"# TYPE {name} gauge\n"
        for index in range(pipelines):
            for more, value in every:
                labels = f'cluster="c",tenant="t",pipeline="p{index}",{more}'.rstrip(",")
                yield from (f"{name}{{{labels}}} {value(time)} {time}\n" for time in times)
    for name, (labels, constant) in SURROUNDINGS.items():
        yield f"# TYPE {name} gauge\n"
        yield from (f"{name}{{{labels}}} {constant} {time}\n" for time in times)


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


def _pages() -> list[tuple[str, str]]:
    """Return the name and the expression of every rule that pages, with the windows' recording rules put in."""
    every = groups()
    recorded = {
        rule.record: rule.expr.text
        for group in every
        for rule in group.rules
        if isinstance(rule, Recording) and rule.record not in COLLAPSED
    }  # fmt: skip
    names = re.compile(f"({'|'.join(map(re.escape, recorded))})(?![\\w:])")

    def inlined(text: str) -> str:
        while names.search(text):
            text = names.sub(lambda found: f"({recorded[found.group()]})", text)
        return text

    return [
        (rule.alert.name, inlined(rule.expr.text))
        for group in every
        for rule in group.rules
        if isinstance(rule, Alerting) and rule.severity is Severity.PAGE
    ]


def _fired(prometheus: Prometheus, expression: str, start: int, step: int) -> set[str]:
    """Return which SLOs or pipelines an expression finds at any instant from a start to the month's end."""
    found: set[str] = set()
    for first in range(start, END, CHUNK):
        last = min(first + CHUNK, END)
        answer = prometheus.get("query_range", query=expression, start=str(first), end=str(last), step=str(step))
        found |= {series["metric"].get("slo") or str(series["metric"]) for series in answer["result"]}
    return found


def _burnt(directory: Path, step: int) -> set[str]:
    """Return the SLOs that paged in the month, evaluated at every scrape."""
    found: set[str] = set()
    for prometheus in _serve(directory, _month(_lives(), step)):
        for name, expression in _pages():
            if name == "MppSloBurn":
                found |= _fired(prometheus, expression, BEGIN + step, step)
    return found


def test_a_month_without_a_page(tmp_path: Path) -> None:
    """Neither healthy pipelines nor one shard in a hundred within the budget page; an outage of an hour does."""
    assert _burnt(tmp_path, 15 * MINUTE) == {OUTAGE}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_month_without_a_page_scraped_often(tmp_path: Path) -> None:
    """The same, scraped and evaluated three times as often."""
    assert _burnt(tmp_path, 5 * MINUTE) == {OUTAGE}


def test_a_working_day_without_a_page(tmp_path: Path) -> None:
    """Of all the other rules that page, none finds anything in a day of pipelines that do well."""
    for prometheus in _serve(tmp_path, _working_day(10)):
        assert _fired(prometheus, "mpp_jobs_current > 0", DAY_BEGIN, MINUTE), "or nothing would be looked at"
        for name, expression in _pages():
            if name != "MppSloBurn":
                assert _fired(prometheus, expression, DAY_BEGIN, MINUTE) == set(), name
