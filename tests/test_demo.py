"""
The demo as people run it, with a real Prometheus scraping its sidecar: what the catalogue promises is what arrives.

One run of the command feeds all the tests. What the demo does not feed is listed with the reason.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mppobs.catalog.indicators import BY_KEY
from mppobs.catalog.metrics import BY_NAME, METRICS, Metric, Type
from mppobs.cost.prices import load_prices
from mppobs.runbooks import Block, filled, names, parse, text_of
from tests import servers
from tests.recompute import Recomputed, differences

ROOT = Path(__file__).parents[1]
SCALE_FACTOR = 0.02
RUNS = 3
PIPELINES = {"tpch-pricing-summary", "tpch-shipping-priority"}

NOT_FED: dict[str, str] = {
    "mpp_network_errors_total": "tasks read and write local files: no transfer fails",
    "mpp_oom_kills_total": "the worker that dies is killed by the demo, not by the kernel for want of memory",
    "mpp_storage_throttled_requests_total": "local files do not throttle",
    "mppobs_records_dropped_total": "the journals are far from their budget",
    "mppobs_invalid_records_total": "no writer makes nonsense",
    "mppobs_stuck_attempts_current": "the tasks report no progress that could stop",
    "mppobs_received_bytes_total": "one machine: nothing is shipped",
    "mppobs_shipped_bytes_total": "one machine: nothing is shipped",
    "mppobs_ship_errors_total": "one machine: nothing is shipped",
    "mppobs_rejected_requests_total": "nobody asks for what is not allowed",
    "mppobs_series_folded_total": "two pipelines are far from the cap",
    **dict.fromkeys((name for name in BY_NAME if name.startswith("mpp_slo_")), "the demo promises nothing"),
    "mppobs_slo_reload_errors_total": "the demo promises nothing",
    "mpp_run_predicted_late_seconds": "no run of the demo is expected to be late",
    **dict.fromkeys(
        (
            "mppobs_refused_rounds_total",
            "mppobs_lost_records_total",
            "mppobs_quarantined_journals_total",
            "mppobs_unreadable_files_total",
            "mppobs_unarchived_jobs_total",
            "mppobs_failed_predictions_total",
        ),
        "nothing of the sidecar's own fails",
    ),
    "mppobs_spans_exported_total": "no tracing backend is configured",
    "mppobs_spans_dropped_total": "no tracing backend is configured",
}
"""Metrics of the catalogue that stay at 0, or have no series, in the demo; and why."""

BY_CHANCE: dict[str, str] = {
    "mpp_cpu_throttled_seconds_total": "only where the machine's cgroup has a CPU quota",
    "mppobs_late_records_total": "only where a record takes longer than its job's settling",
    "mppobs_lag_seconds": "0 whenever the scrape comes between two writes",
}
"""Metrics that may or may not move; and what that hangs on."""


@dataclass(frozen=True)
class DemoRun:
    """A demo that has judged its jobs and still serves."""

    found: dict[str, Any]
    """What `--json` wrote."""
    output: str
    records: Path
    """The raw records that it kept."""
    store: Path
    """Where its sidecar keeps what it committed."""
    url: str
    prometheus: servers.Prometheus


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """Run the demo with `--serve` and a Prometheus beside it; keep both up for the tests."""
    directory = tmp_path_factory.mktemp("demo")
    report, log, port = directory / "found.json", directory / "log", servers.free_port()
    command = [
        sys.executable, "-m", "mppobs.cli.main", "demo", f"--scale-factor={SCALE_FACTOR}", f"--runs={RUNS}",
        "--workers=2", f"--data={directory}/data", f"--keep={directory}/records", f"--json={report}",
        f"--port={port}", "--serve",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    with (
        servers.prometheus(directory / "prometheus", [f"127.0.0.1:{port}"], interval="250ms") as prometheus,
        servers.process(command, log, env) as child,
    ):

        def is_done() -> bool:
            assert child.poll() is None, log.read_text()
            return report.exists() and "Ctrl-C" in log.read_text()

        servers.wait_until("the demo", is_done, seconds=150)
        time.sleep(1.5)  # so that what the last round left is scraped too
        store = next(directory.glob("mppobs-demo-*/sidecar/state/*.db"))
        found, output = json.loads(report.read_text()), log.read_text()
        yield DemoRun(found, output, directory / "records", store, f"http://127.0.0.1:{port}", prometheus)


def test_every_answer_is_that_of_duckdb(demo: DemoRun) -> None:
    """Each run of both queries gave the right rows, the runs with trouble included."""
    assert demo.found["ok"] is True
    assert {answer["query"]: answer["right"] for answer in demo.found["answers"].values()} == {"Q1": RUNS, "Q3": RUNS}


def test_report_has_every_indicator_of_both_pipelines(demo: DemoRun) -> None:
    """`--json` has M1 to M12 for each pipeline, with values for all that a demo can know."""
    assert demo.found["indicators"].keys() == PIPELINES
    for indicators in demo.found["indicators"].values():
        assert list(indicators) == list(BY_KEY)
        assert [key for key, sli in indicators.items() if sli["value"] is None] == []


def test_trouble_shows_in_the_indicators(demo: DemoRun) -> None:
    """The killed worker and the task that raised are two retries, paid for as such, and no shard is lost by them."""
    sli = demo.found["indicators"]["tpch-shipping-priority"]
    parts = {key: {part["name"]: part["value"] for part in sli[key]["parts"]} for key in sli}

    assert parts["M8"]["retries"] == 2
    assert parts["M9"]["retry"] > 0
    assert sli["M2"]["value"] == 1
    assert parts["M12"] == {"success": RUNS, "failure": 0, "error": 0, "cancelled": 0}


def test_output_is_plain_lines_without_a_terminal(demo: DemoRun) -> None:
    """Piped into a file the demo writes no escape codes, says what it does on purpose, and ends with where to look."""
    assert "\x1b" not in demo.output
    assert "on purpose" in demo.output
    assert f"{2 * RUNS} of {2 * RUNS} answers as DuckDB's" in demo.output
    assert f"{demo.url}/metrics" in demo.output
    assert all(f"{key} " in demo.output for key in BY_KEY)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_prometheus_has_the_metric_as_catalogued(metric: Metric, demo: DemoRun) -> None:
    """Prometheus knows each metric under its catalogued name, with its type, unit, help and labels, and saw it move."""
    told = metadata(demo.prometheus).get(family(metric))
    series = seen(demo.prometheus, metric)
    if metric.name in NOT_FED:
        assert highest(demo.prometheus, metric) in (None, 0.0), "it is fed: take it out of the list"
    elif metric.name not in BY_CHANCE:
        assert highest(demo.prometheus, metric), "it is not fed: say why in the list"
    assert told is None or told == {"type": str(metric.type), "unit": metric.unit, "help": metric.help}
    assert told is not None or not series
    for labels in series:
        own = set(labels) - {"__name__", "instance", "job", "le"}
        assert own == set(metric.labels)


@pytest.mark.parametrize("metric", [each for each in METRICS if each.values], ids=lambda metric: metric.name)
def test_values_that_can_be_listed_exist_from_the_start(metric: Metric, demo: DemoRun) -> None:
    """Wherever a metric has series, each of its listed label values has one: no rate misses a first event."""
    series = seen(demo.prometheus, metric)
    for label, values in metric.values:
        places: dict[tuple[tuple[str, str], ...], set[str]] = {}
        for labels in series:
            rest = tuple(sorted((name, value) for name, value in labels.items() if name != label))
            places.setdefault(rest, set()).add(labels[label])
        for place, found in places.items():
            assert set(values) <= found, place


def test_lists_name_metrics_of_the_catalogue() -> None:
    """What is said not to be fed exists, once."""
    assert NOT_FED.keys() | BY_CHANCE.keys() <= BY_NAME.keys()
    assert not NOT_FED.keys() & BY_CHANCE.keys()


def test_series_outlive_their_job_only_as_gauges(demo: DemoRun) -> None:
    """`job_id` is a label of the gauges of runs alone."""
    names = {labels["__name__"] for labels in demo.prometheus.get("series", **{"match[]": '{job_id!=""}'})}

    assert names
    assert names <= {metric.name for metric in METRICS if metric.per_run}


def test_prometheus_keeps_exemplars_that_lead_to_a_shard(demo: DemoRun) -> None:
    """A bucket of the shard durations has an exemplar with the job, the shard and its trace."""
    found = demo.prometheus.get(
        "query_exemplars", query="mpp_shard_duration_seconds_bucket", start=str(time.time() - 600), end=str(time.time())
    )
    labels = [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    assert labels
    assert all({"job_id", "shard_id", "trace_id"} <= each.keys() for each in labels)


def test_prometheus_and_the_report_agree(demo: DemoRun) -> None:
    """What PromQL computes from the counters is what the API reported."""
    for pipeline, indicators in demo.found["indicators"].items():
        where = f'{{pipeline="{pipeline}"}}'
        queries = {
            "M1": f"mpp_job_duration_seconds_sum{where} / mpp_job_duration_seconds_count{where}",
            "M2": f'sum(mpp_shards_total{{pipeline="{pipeline}",outcome="committed"}}) / sum(mpp_shards_total{where})',
            "M4": f"mpp_job_shuffle_bytes_sum{where} / mpp_job_shuffle_bytes_count{where}",
            "M6": f"sum(mpp_attempt_cpu_seconds_total{where}) / sum(mpp_attempt_wall_seconds_total{where})",
            "M8": f'sum(mpp_retries_total{where}) / sum(mpp_shards_total{{pipeline="{pipeline}",outcome="committed"}})',
            "M9": f"mpp_job_cost_usd_sum{where} / mpp_job_cost_usd_count{where}",
            "M10": f"mpp_scheduler_delay_seconds_sum{where} / mpp_scheduler_delay_seconds_count{where}",
        }
        for key, query in queries.items():
            value = float(demo.prometheus.query(query)[0]["value"][1])
            assert value == pytest.approx(indicators[key]["value"], rel=1e-9), (pipeline, key)


@pytest.fixture(scope="module")
def recomputed(demo: DemoRun) -> Recomputed:
    """Fold the raw records of the demo once more."""
    prices = load_prices(ROOT / "mppobs" / "workloads" / "prices.yaml")
    usd_per_hour = {(name, False): prices.usd_per_hour(name, spot=False) for name in ("demo-core", "")}
    return Recomputed(demo.records, demo.store, usd_per_hour, prices.shuffle_usd_per_gb)


@pytest.mark.parametrize("pipeline", sorted(PIPELINES))
def test_every_indicator_can_be_recomputed_from_the_raw_records(
    pipeline: str, demo: DemoRun, recomputed: Recomputed
) -> None:
    """An oracle that shares no code with the sidecar arrives at the same figures from the journals alone."""
    again = recomputed.indicators(pipeline)
    told = {key: sli["value"] for key, sli in demo.found["indicators"][pipeline].items()}

    # The demo looks at memory while workers live, so it may miss the last sample; checkpoint lag leaves no record.
    assert 0 < told["M7"] <= again.pop("M7")
    assert 0 <= told["M11"] <= max(job["seconds"] for job in demo.found["jobs"])
    assert set(again) == set(BY_KEY) - {"M7", "M11"}
    assert differences(again, told, {"M3": 0.01}) == {}


def test_commands_read_the_sidecar_of_the_demo(demo: DemoRun) -> None:
    """`mppobs status`, `jobs` and `job` show the demo's pipelines and jobs, for people and as JSON."""

    def mppobs(*arguments: str) -> str:
        command = [sys.executable, "-m", "mppobs.cli.main", *arguments, "--url", demo.url]
        env = {**os.environ, "COLUMNS": "200"}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    assert all(pipeline in mppobs("status") for pipeline in PIPELINES)
    jobs = json.loads(mppobs("jobs", "--json"))
    listed = jobs["jobs"] if isinstance(jobs, dict) else jobs
    assert {job["job_id"] for job in listed} == {job["job_id"] for job in demo.found["jobs"]}
    newest = listed[0]["job_id"]
    assert "join-lineitems" in mppobs("job", newest)
    assert json.loads(mppobs("job", newest, "--json"))["outcome"] == "success"


RUNNABLE = [
    pytest.param(block, id=f"{name}-{number}")
    for name in names()
    for number, block in enumerate(parse(text_of(name)).blocks)
    if "run" in block.tags
]
SIGNATURES = [
    pytest.param(filled(block.text, {"PIPELINE": pipeline}), id=f"{name}-{pipeline}")
    for name in names()
    for block in parse(text_of(name)).blocks
    for pipeline in sorted(PIPELINES)
    if "signature" in block.tags and name != "MppPartitionSkew"  # the demo has a straggler on purpose
]


@pytest.mark.parametrize("block", RUNNABLE)
def test_commands_of_runbooks_show_what_the_page_says(block: Block, demo: DemoRun, tmp_path: Path) -> None:
    """Every block of a runbook that only reads runs, and its output holds what the page promises to be seen."""
    command = tmp_path / "mppobs"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mppobs.cli.main "$@"\n')
    command.chmod(0o755)
    env = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "COLUMNS": "200", "MPPOBS_SIDECAR_URL": demo.url,
        "PIPELINE": "tpch-shipping-priority", "JOB": demo.found["jobs"][0]["job_id"], "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(["bash", "-euc", block.text], env=env, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert block.seen
    assert [word for word in block.seen if word not in done.stdout] == []


@pytest.mark.parametrize("query", SIGNATURES)
def test_signatures_of_runbooks_are_silent_in_good_health(query: str, demo: DemoRun) -> None:
    """What a runbook takes for the sign of its trouble is not there when there is no such trouble."""
    assert demo.prometheus.query(query) == []


def test_sidecar_serves_the_runbooks(demo: DemoRun) -> None:
    """The address that an alert names shows its page, with links that lead on; an unknown one says the nearest."""
    page = httpx.get(f"{demo.url}/runbooks/MppRetryStorm")
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>MppRetryStorm</h1>" in page.text
    for link in re.findall(r'href="(\w+)"', page.text):
        assert httpx.get(f"{demo.url}/runbooks/{link}").is_success
    assert "MppRetryStorm" in httpx.get(f"{demo.url}/runbooks").text
    unknown = httpx.get(f"{demo.url}/runbooks/MppRetryStrom")
    assert unknown.status_code == 404
    assert "MppRetryStorm" in unknown.json()["detail"]


def test_sidecar_of_the_demo_is_ready_and_describes_itself(demo: DemoRun) -> None:
    """The addresses that the demo names answer."""
    for path in ("/metrics", "/api/v1/slis", "/readyz", "/healthz", "/openapi.json"):
        assert httpx.get(demo.url + path).is_success, path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted_demo_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    """An interrupt in the middle of a job ends the workers and the sidecar, and removes every temporary file."""
    mark, log = uuid.uuid4().hex, tmp_path / "log"
    command = [
        sys.executable, "-m", "mppobs.cli.main", "demo", "--scale-factor=0.02", "--runs=100", "--workers=2",
        f"--data={tmp_path}/data",
    ]  # fmt: skip
    # Not below tmp_path: worker processes are reached by a socket there, whose path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": scratch, "DEMO_MARK": mark}
        _interrupt(command, log, env, number)
        servers.wait_until("the last process", lambda: not marked(mark), seconds=10)
        assert os.listdir(scratch) == []
    assert "Traceback" not in log.read_text()


def _interrupt(command: list[str], log: Path, env: dict[str, str], number: signal.Signals) -> None:
    """Run a demo, and interrupt it when its first job is done."""

    def is_running_jobs() -> bool:
        assert child.poll() is None, log.read_text()
        return "Q1 run 1" in log.read_text()

    with servers.process(command, log, env) as child:
        servers.wait_until("the first job", is_running_jobs, seconds=90)
        assert len(marked(env["DEMO_MARK"])) >= 4  # the demo, its sidecar and two workers
        child.send_signal(number)
        assert child.wait(30) == 130, log.read_text()


def marked(mark: str) -> list[int]:
    """Return the processes that have the mark in their environment, the ended ones left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # ended since the listing, or not ours
    return found


def metadata(prometheus: servers.Prometheus) -> dict[str, dict[str, str]]:
    """Return what Prometheus was told of each family, by the family's name."""
    return {
        entry["metric"]: {key: entry[key] for key in ("type", "unit", "help")}
        for entry in prometheus.get("targets/metadata", match_target='{job="mppobs"}')
    }


def family(metric: Metric) -> str:
    """Return a metric's name as OpenMetrics declares it: a counter without `_total`."""
    return metric.name.removesuffix("_total") if metric.type is Type.COUNTER else metric.name


def selector(metric: Metric) -> str:
    """Return what selects a metric's series; of a histogram or a summary, its count."""
    counted = metric.type in (Type.HISTOGRAM, Type.SUMMARY)
    return f"{metric.name}_count" if counted else metric.name


def seen(prometheus: servers.Prometheus, metric: Metric) -> list[dict[str, str]]:
    """Return the labels of every series of a metric that was scraped, also of those that have ended."""
    found: list[dict[str, str]] = prometheus.get("series", **{"match[]": selector(metric)})
    return found


def highest(prometheus: servers.Prometheus, metric: Metric) -> float | None:
    """Return the highest value that any series of a metric ever had; `None` where there is none."""
    found = prometheus.query(f"max(max_over_time({selector(metric)}[15m]))")
    return float(found[0]["value"][1]) if found else None
