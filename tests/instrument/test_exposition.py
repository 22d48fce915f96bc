"""Metrics of a worker that is scraped directly."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import mppobs
from mppobs.catalog.metrics import BY_NAME
from mppobs.errors import ConfigError
from mppobs.instrument.exposition import WorkerCollector
from mppobs.testing import Captured


@mppobs.task(stage="map", shard="part", attempt="number")
def work(part: int, number: int = 0) -> None:
    """Do a little of everything."""
    attempt = mppobs.current()
    attempt.add(rows=1, shuffle_read=10, shuffle_written=5, network_errors={"reset": 1}, storage_throttled=2)
    with attempt.activity("read"):
        pass
    if part == 3:
        raise KeyError(part)


def run() -> None:
    """Run a job of five attempts, one of which fails and one of which is a retry."""
    with mppobs.job(pipeline="nightly"):
        for part in range(4):
            try:
                work(part)
            except KeyError:
                work(9, number=1)


def test_counts_are_those_of_the_journal_under_catalogued_names(captured: Captured) -> None:
    """Every family has its catalogued type, unit and labels, and the values are sums over the records."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector())
    run()
    generate_latest(registry)  # a scrape in the middle must not count anything twice
    run()

    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    values = {}
    for family in families:
        metric = BY_NAME[family.name if family.name in BY_NAME else f"{family.name}_total"]
        assert (family.type, family.unit, family.documentation) == (str(metric.type), metric.unit, metric.help)
        allowed = {*metric.labels, *(label for label, _ in metric.values), "le"}
        for sample in family.samples:
            assert set(sample.labels) <= allowed
            names = ("pipeline", "stage", "outcome", "direction", "kind", "quantile", "le")
            short = tuple(sample.labels[name] for name in names if name in sample.labels)
            values[sample.name, *short] = sample.value
    records = captured.attempts
    assert len(records) == 10
    assert values["mpp_attempts_total", "nightly", "map", "success"] == 8
    assert values["mpp_attempts_total", "nightly", "map", "failure"] == 2
    assert values["mpp_retries_total", "nightly", "map"] == 2
    assert values["mpp_shuffle_bytes_total", "nightly", "map", "read"] == 100
    assert values["mpp_shuffle_bytes_total", "nightly", "map", "written"] == 50
    assert values["mpp_network_errors_total", "nightly", "reset"] == 10
    assert values["mpp_network_errors_total", "nightly", "unspecified"] == 0
    assert values["mpp_storage_throttled_requests_total", "nightly", "unspecified"] == 20
    assert values["mpp_jobs_total", "nightly", "success"] == 2
    cpu = sum(record.cpu_ns or 0 for record in records) / 1e9
    assert values["mpp_attempt_cpu_seconds_total", "nightly", "map"] == pytest.approx(cpu)
    wall = sum(record.duration_ns for record in records) / 1e9
    assert values["mpp_attempt_wall_seconds_total", "nightly", "map"] == pytest.approx(wall)
    parts = [value for key, value in values.items() if key[0] == "mpp_activity_seconds_total"]
    assert sum(parts) == pytest.approx(wall)


def test_nothing_is_lost_when_segments_and_journals_change(captured: Captured) -> None:
    """Across rotations, and when the process closes its journal and opens another, counts go on."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector())
    for part in range(3000):
        with mppobs.attempt(stage="map", shard=part, assigned_ns=1):
            pass
    mppobs.configure(pipeline="nightly")
    with mppobs.attempt(stage="map", shard=1):
        pass

    text = generate_latest(registry).decode()

    samples = {
        (sample.name, sample.labels.get("pipeline"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["mpp_attempts_total", "default", None] == 3000
    assert samples["mpp_attempts_total", "nightly", None] == 1
    assert samples["mpp_scheduler_delay_seconds_bucket", "default", "+Inf"] == 3000
    assert samples["mpp_scheduler_delay_seconds_bucket", "default", "20.48"] == 0


def test_the_server_listens_on_loopback_and_answers(captured: Captured) -> None:
    """A scrape over HTTP gets the worker's metrics; a port that is taken is an error that names it."""
    port = mppobs.start_metrics_server(0)
    run()

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    assert "mpp_attempts_total{" in text
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(busy)):
            mppobs.start_metrics_server(busy)


def test_a_collector_that_comes_late_counts_from_its_segment(captured: Captured) -> None:
    """Made after the first attempts, it counts what the segment at hand holds and everything after."""
    with mppobs.attempt(stage="map", shard=1):
        registry = CollectorRegistry()
        registry.register(WorkerCollector())
    assert (
        registry.get_sample_value(
            "mpp_attempts_total",
            {"cluster": "default", "tenant": "default", "pipeline": "default", "stage": "map", "outcome": "success"},
        )
        == 1.0
    )


def test_a_child_that_is_forked_during_a_scrape_does_not_wait_for_it(captured: Captured) -> None:
    """The collector's lock, held in the parent at the moment of the fork, is nothing to the child."""
    collector = WorkerCollector()
    run()
    with collector._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            run()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
