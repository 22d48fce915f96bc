"""What a scraper reads: both formats, against independent parsers, promtool and a real Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric as Parsed
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mppobs.catalog.foresight import ChargeEnd, Foresight
from mppobs.catalog.metrics import BY_NAME, METRICS, Type
from mppobs.clock import ManualClock, SystemClock
from mppobs.model import JobKey, Tier
from mppobs.sidecar.aggregates import Exemplar, PipelineKey, PipelineTotals, StageKey, StageTotals
from mppobs.sidecar.exposition import (
    MAX_EXEMPLAR,
    OPENMETRICS_TYPE,
    Renderer,
    decimal,
    exemplar_text,
    label_text,
    negotiate,
    render,
)  # fmt: skip
from mppobs.sidecar.families import FAMILIES
from mppobs.sidecar.view import ForesightFigures, Live, LiveRun, View
from mppobs.slo.model import Counts
from tests.servers import Prometheus, prometheus, require, run, wait_until
from tests.sidecar.views import NOW, SECOND, full_view

KEY = PipelineKey("default", "default", "nightly")


def text_of(view: View) -> str:
    """The text exposition."""
    return render(view, NOW, openmetrics=False).decode()


def openmetrics_of(view: View) -> str:
    """The OpenMetrics exposition."""
    return render(view, NOW, openmetrics=True).decode()


def parsed(text: str) -> dict[str, Parsed]:
    """The families of a text exposition by name, as an independent parser reads them."""
    return {family.name: family for family in parse_text(text)}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples of a text exposition; a series that is there twice is an error."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in parse_text(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    """The one sample of a name whose labels include those given, or `None`."""
    found = [v for (n, have), v in samples(text).items() if n == name and set(labels.items()) <= have]
    assert len(found) <= 1
    return found[0] if found else None


def test_every_metric_of_the_catalogue_has_its_family_and_no_other() -> None:
    """What is emitted and what is catalogued are one list."""
    assert set(FAMILIES) == set(BY_NAME)


def test_names_types_help_and_order_are_the_catalogue_s() -> None:
    """HELP and TYPE come straight from the table, in its order."""
    lines = text_of(full_view(1)).splitlines()

    assert [line for line in lines if line.startswith("# HELP")] == [f"# HELP {m.name} {m.help}" for m in METRICS]
    assert [line for line in lines if line.startswith("# TYPE")] == [f"# TYPE {m.name} {m.type}" for m in METRICS]


def test_every_series_carries_exactly_the_labels_of_the_catalogue() -> None:
    """No label more, none less, none twice; and every family of a full view has samples."""
    families = parsed(text_of(full_view(2)))

    for metric in METRICS:
        family = families[metric.name.removesuffix("_total") if metric.type is Type.COUNTER else metric.name]
        assert family.samples or metric.name == "mppobs_scrape_seconds", metric.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), metric.name


def test_listed_label_values_exist_at_zero_from_the_start() -> None:
    """A pipeline and a stage of which nothing is counted yet have every listed series but quantiles of nothing."""
    stage = StageKey(*KEY, "map")
    nothing = ForesightFigures(dict.fromkeys(ChargeEnd, 0), dict.fromkeys(Foresight, 0), runs=0, coverage=None)
    promise = replace(full_view(1).slos[0], windows={"30d": Counts(0, 0)}, foresight=nothing)
    text = text_of(View({KEY: PipelineTotals(KEY)}, {stage: StageTotals(stage)}, slos=[promise]))

    for metric in METRICS:
        for label, listed in metric.values:
            for each in listed:
                expected = None if label == "quantile" else 0.0
                assert value(text, metric.name, **{label: each}) == expected, (metric.name, each)


@pytest.mark.parametrize(
    "name",
    [
        "mpp_tail_ratio", "mpp_job_shuffle_baseline_ratio", "mpp_worker_memory_ratio", "mpp_checkpoint_lag_seconds",
        "mpp_telemetry_completeness_ratio", "mpp_coordinator_heartbeat_timestamp_seconds", "mpp_skew_idle_ratio",
        "mpp_run_info", "mppobs_scrape_seconds",
    ],
)  # fmt: skip
def test_a_gauge_without_data_is_absent(name: str) -> None:
    """Neither 0 nor NaN says "no data" to an alert; absence does."""
    stage = StageKey(*KEY, "map")
    text = text_of(View({KEY: PipelineTotals(KEY)}, {stage: StageTotals(stage)}))

    assert f"# TYPE {name} gauge" in text
    assert value(text, name) is None


def test_numbers_are_exact() -> None:
    """Nanoseconds and picodollars become decimals digit by digit, never by way of a float."""
    totals = PipelineTotals(KEY)
    totals.throttled_ns = 123_456_789_012_345_678_901
    totals.job_cost.observe(1_000_000_000_001)
    text = text_of(View({KEY: totals}))

    labels = label_text(("cluster", "tenant", "pipeline"), KEY)
    assert f"mpp_cpu_throttled_seconds_total{{{labels}}} 123456789012.345678901\n" in text
    assert f"mpp_job_cost_usd_sum{{{labels}}} 1.000000000001\n" in text


@settings(deadline=None)
@given(st.integers(-(10**27), 10**27), st.sampled_from([0, 9, 12]))
def test_decimals_equal_decimal_arithmetic(number: int, digits: int) -> None:
    """`decimal` is division by a power of ten."""
    assert Decimal(decimal(number, digits)) == Decimal(number).scaleb(-digits)


def test_histograms_are_cumulative_and_end_with_all() -> None:
    """Buckets never fall, and `+Inf` equals the count."""
    for family in parse_text(text_of(full_view(1))):
        if family.type != "histogram":
            continue
        counts: dict[frozenset[tuple[str, str]], list[float]] = {}
        for sample in family.samples:
            key = frozenset((name, each) for name, each in sample.labels.items() if name != "le")
            counts.setdefault(key, []).append(sample.value)
        for series in counts.values():
            *buckets, count, _sum = series
            assert buckets == sorted(buckets)
            assert buckets[-1] == count == len(buckets)


names = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=20)


@settings(deadline=None)
@given(names, names)
def test_any_name_survives_both_formats(pipeline: str, stage: str) -> None:
    """Quotes, backslashes, newlines and letters of any script come back as they were."""
    key = PipelineKey("default", "default", pipeline)
    view = View({key: PipelineTotals(key)}, {StageKey(*key, stage): StageTotals(StageKey(*key, stage))})

    for families in (parse_text(text_of(view)), parse_openmetrics(openmetrics_of(view))):
        found = {family.name: family for family in families}
        assert found["mpp_retries"].samples[0].labels == {
            "cluster": "default", "tenant": "default", "pipeline": pipeline, "stage": stage,
        }  # fmt: skip


def test_openmetrics_holds_the_same_samples_with_units_and_exemplars() -> None:
    """The two formats differ in dress alone; buckets point to job, shard and trace."""
    view = full_view(2)
    text, rich = text_of(view), openmetrics_of(view)
    families = {family.name: family for family in parse_openmetrics(rich)}

    assert rich.endswith("# EOF\n")
    assert {(s.name, frozenset(s.labels.items())): s.value for f in families.values() for s in f.samples} == samples(
        text
    )
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if metric.type is Type.COUNTER else metric.name
        assert families[name].unit == metric.unit
        assert families[name].type == metric.type
    buckets = [s for s in families["mpp_shard_duration_seconds"].samples if s.name.endswith("_bucket")]
    assert [s.exemplar.labels for s in buckets[:2]] == [
        {"job_id": "job-1", "shard_id": str(number), "trace_id": f"{2**127 + number:032x}"} for number in range(2)
    ]
    assert buckets[0].exemplar.value == 0.05
    assert buckets[0].exemplar.timestamp.sec == NOW // SECOND


@settings(deadline=None)
@given(names, names)
def test_an_exemplar_never_passes_the_limit_and_always_has_its_trace(job: str, shard: str) -> None:
    """OpenMetrics allows 128 characters; what does not fit is left out whole."""
    long = Exemplar(job * 6, shard * 6, 7, 0.5, NOW)
    text = f'# TYPE a histogram\na_bucket{{le="+Inf"}} 1{exemplar_text(long)}\na_count 1\na_sum 1\n# EOF\n'

    [family] = parse_openmetrics(text)
    labels = family.samples[0].exemplar.labels
    assert sum(len(name) + len(each) for name, each in labels.items()) <= MAX_EXEMPLAR
    assert labels["trace_id"] == f"{7:032x}"
    assert set(labels.values()) <= {f"{7:032x}", long.job_id, long.shard_id}


def test_the_text_format_carries_no_exemplars() -> None:
    """Version 0.0.4 knows none: a scraper would refuse the line."""
    assert " # {" not in text_of(full_view(1))


def test_promtool_has_one_complaint_which_is_kept() -> None:
    """
    `promtool check metrics` finds only that gauges carry `quantile`.

    Kept: a summary's quantiles belong to its all-time count under one name, and these are of a window.
    """
    checked = run([require("promtool", "prometheus"), "check", "metrics"], text_of(full_view(1)))

    complaints = {line for line in (checked.stdout + checked.stderr).splitlines() if line}
    assert complaints == {
        f'{name} non-summary metrics should not have "quantile" label'
        for name in (
            "mpp_shard_duration_quantile_seconds",
            "mpp_worker_memory_ratio",
            "mpp_run_predicted_bound_timestamp_seconds",
        )
    }


def runs(count: int) -> list[LiveRun]:
    """As many running jobs."""
    return [
        LiveRun(KEY, JobKey("default", "default", f"job-{n}", 1), "", Tier.STANDARD, "running", NOW, 0.5, None, 0)
        for n in range(count)
    ]


def test_single_jobs_and_shards_are_capped() -> None:
    """No more jobs and stragglers are named than the settings allow, from the head of the list."""
    view = full_view(1)
    straggler = view.live.stragglers[0]
    many = replace(view, live=replace(view.live, runs=runs(80), stragglers=[straggler] * 30), max_runs=50, worst_k=10)

    families = parsed(text_of(many))
    assert [s.labels["job_id"] for s in families["mpp_run_info"].samples] == [f"job-{n}" for n in range(50)]
    assert [s.labels["rank"] for s in families["mpp_straggler_seconds"].samples] == [str(n) for n in range(1, 11)]


def test_the_renderer_does_not_keep_labels_of_single_jobs() -> None:
    """Its cache grows with the series that last, not with the jobs that pass."""
    renderer = Renderer(ManualClock())
    view = full_view(1)
    for _ in range(2):  # the second says how long the first took
        renderer.render(view, NOW, openmetrics=False)
    before = sum(len(family) for family in renderer._families)
    renderer.render(replace(view, live=Live(runs=runs(500)), max_runs=500), NOW, openmetrics=False)

    assert sum(len(family) for family in renderer._families) == before


def test_the_second_exposition_says_how_long_the_first_took() -> None:
    """`mppobs_scrape_seconds` is of the one before."""

    class Ticking(ManualClock):
        def monotonic_ns(self) -> int:
            self.advance(0.25)
            return super().monotonic_ns()

    renderer = Renderer(Ticking())
    assert value(renderer.render(View(), NOW, openmetrics=False).decode(), "mppobs_scrape_seconds") is None
    assert value(renderer.render(View(), NOW, openmetrics=False).decode(), "mppobs_scrape_seconds") == 0.25


def test_an_agent_shows_its_own_metrics_alone() -> None:
    """What no single node can know, an agent does not claim."""
    text = text_of(View(agent=True))

    assert "mpp_" not in text
    assert value(text, "mppobs_shipped_bytes_total") == 0.0


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text; version=1.0.0", True),
        # Prometheus 2.42 and 3
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3", True),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.2", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=often", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
    ],
)  # fmt: skip
def test_the_accept_header_chooses_the_format(accept: str, openmetrics: bool) -> None:
    """OpenMetrics for those who prefer it, text for all others and for nonsense."""
    assert negotiate(accept).openmetrics is openmetrics


@pytest.mark.parametrize(
    ("encoding", "gzip"), [("", False), ("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False)]
)
def test_the_accept_encoding_header_chooses_compression(encoding: str, gzip: bool) -> None:
    """Gzip only for those who take it."""
    assert negotiate("", encoding).gzip is gzip


@contextmanager
def served(view: View) -> Iterator[str]:
    """Serve a view's expositions on loopback; yield `host:port`."""
    renderer = Renderer(SystemClock())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            chosen = negotiate(self.headers.get("Accept", ""))
            body = renderer.render(view, time.time_ns(), openmetrics=chosen.openmetrics)
            self.send_response(200)
            self.send_header("Content-Type", chosen.content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _exemplars(server: Prometheus) -> list[object]:
    found: list[object] = server.get(
        "query_exemplars",
        query="mpp_shard_duration_seconds_bucket",
        start=str(time.time() - 3600),
        end=str(time.time()),
    )
    return found


def test_a_real_prometheus_takes_every_family_and_the_exemplars(tmp_path: Path) -> None:
    """Scraped as OpenMetrics, the target is up, types and units are known, exemplars are stored."""
    view = full_view(2)
    for totals in view.stages.values():
        totals.durations.exemplars = [
            each and each._replace(time_ns=time.time_ns()) for each in totals.durations.exemplars
        ]
    with served(view) as target, prometheus(tmp_path / "prometheus", [target]) as server:
        wait_until("a scrape", lambda: server.query("up == 1") and server.query("mppobs_scrape_seconds"))

        metadata = server.get("metadata")
        for metric in METRICS:
            name = metric.name.removesuffix("_total") if metric.type is Type.COUNTER else metric.name
            assert metadata[name][0] == {"type": str(metric.type), "help": metric.help, "unit": metric.unit}
        assert server.query("count(mpp_attempts_total)")[0]["value"][1] == str(2 * 3 * 7)
        assert (
            server.query('mpp_cost_usd_total{pipeline="pipeline-0",kind="useful"}')[0]["value"][1] == "1.000000000001"
        )
        assert _exemplars(server)
        assert negotiate("application/openmetrics-text").content_type == OPENMETRICS_TYPE
