"""The catalogue keeps its own rules: names, units, labels, buckets, and an indicator behind every signal."""

from __future__ import annotations

import re

import pytest

from mppobs.catalog.indicators import BY_KEY, INDICATORS
from mppobs.catalog.metrics import BY_NAME, LABELS, METRICS, OTHER, RUN_LABELS, Metric, Type
from tests import servers

UNITS = {"seconds", "bytes", "usd", "ratio", ""}
AGREED = (
    "mpp_job_duration_seconds", "mpp_job_queue_seconds", "mpp_shards_total", "mpp_shard_duration_seconds",
    "mpp_shard_duration_quantile_seconds", "mpp_tail_ratio", "mpp_shuffle_bytes_total", "mpp_job_shuffle_bytes",
    "mpp_job_shuffle_baseline_ratio", "mpp_network_errors_total", "mpp_attempt_cpu_seconds_total",
    "mpp_attempt_wall_seconds_total", "mpp_cpu_throttled_seconds_total", "mpp_worker_memory_ratio",
    "mpp_oom_kills_total", "mpp_attempts_total", "mpp_retries_total", "mpp_cost_usd_total", "mpp_job_cost_usd",
    "mpp_scheduler_delay_seconds", "mpp_checkpoint_lag_seconds", "mpp_jobs_total",
    "mpp_telemetry_completeness_ratio", "mpp_run_progress_ratio", "mpp_run_predicted_finish_timestamp_seconds",
    "mpp_run_deadline_timestamp_seconds", "mpp_run_info", "mpp_coordinator_heartbeat_timestamp_seconds",
    "mpp_jobs_current", "mpp_shards_current", "mpp_stragglers_current", "mpp_straggler_seconds",
    "mpp_skew_idle_ratio", "mpp_storage_throttled_requests_total", "mpp_workers_current",
    "mpp_workers_lost_total", "mppobs_series_folded_total",
)  # fmt: skip

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


@each_metric
def test_name_says_type_and_unit(metric: Metric) -> None:
    """A name has the prefix of its subject, ends in its unit, and in `_total` if, and only if, it counts."""
    assert re.fullmatch(r"(mpp|mppobs)_[a-z0-9_]*[a-z0-9]", metric.name)
    assert metric.name.endswith("_total") == (metric.type is Type.COUNTER)
    assert metric.unit in UNITS
    assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}" if metric.unit else "")


@each_metric
def test_unit_words_are_units(metric: Metric) -> None:
    """A name that ends in the word for a unit declares that unit, so that OpenMetrics exposes it."""
    last = metric.name.removesuffix("_total").rsplit("_", 1)[-1]

    assert last not in UNITS or metric.unit == last


@each_metric
def test_labels_come_from_the_closed_set(metric: Metric) -> None:
    """No label is outside the closed set; jobs and shards are labels only of families that are capped."""
    labels = set(metric.labels)

    assert len(labels) == len(metric.labels)
    assert labels <= (LABELS | RUN_LABELS if metric.per_run else LABELS)
    assert metric.per_run == bool(labels & RUN_LABELS)
    assert not (metric.per_run and metric.type is not Type.GAUGE), "a job may not be a label of what is kept for ever"


@each_metric
def test_values_that_can_be_listed_belong_to_a_label(metric: Metric) -> None:
    """Listed values are of the metric's own labels, without repetition, and never the overflow value."""
    for label, values in metric.values:
        assert label in metric.labels
        assert len(set(values)) == len(values) > 0
        assert OTHER not in values


@each_metric
def test_buckets_rise_and_only_histograms_have_them(metric: Metric) -> None:
    """A histogram has bounds that rise by a constant factor; nothing else has any."""
    assert bool(metric.buckets) == (metric.type is Type.HISTOGRAM)
    factors = {round(high / low, 3) for low, high in zip(metric.buckets, metric.buckets[1:], strict=False)}
    assert len(factors) <= 1
    assert all(factor > 1 for factor in factors)


@each_metric
def test_help_is_a_sentence(metric: Metric) -> None:
    """Help is one line of text that ends as sentences do and is not just the name again."""
    assert re.fullmatch(r"[A-Z0-9p].{15,160}\.", metric.help)
    assert metric.name not in metric.help


def test_names_are_unique() -> None:
    """Each name is in the table once, also as Prometheus sees it with the suffixes of its type."""
    exposed = [name for metric in METRICS for name in series_of(metric)]

    assert len(BY_NAME) == len(METRICS)
    assert len(set(exposed)) == len(exposed)


def test_every_indicator_has_metrics_and_no_metric_an_unknown_one() -> None:
    """M1 to M12 are all there in order, each carried by a metric; workload metrics name theirs, the tool's none."""
    assert [indicator.key for indicator in INDICATORS] == [f"M{number}" for number in range(1, 13)]
    assert all(indicator.metrics for indicator in INDICATORS)
    for metric in METRICS:
        expected = {""} if metric.name.startswith("mppobs_") else {*BY_KEY, "+"}
        assert metric.indicator in expected, metric.name


@pytest.mark.parametrize("key", BY_KEY)
def test_unit_of_the_headline_is_one_of_its_metrics(key: str) -> None:
    """An indicator's unit is a unit of its metrics, or follows from dividing two of the same unit."""
    indicator = BY_KEY[key]
    units = {BY_NAME[name].unit for name in indicator.metrics}
    counts = [name for name in indicator.metrics if BY_NAME[name].type is Type.COUNTER]

    assert indicator.unit in units or (indicator.unit == "ratio" and counts)


def test_design_names_are_all_there() -> None:
    """The metrics that alerts and dashboards hang on exist under the names that were agreed."""
    assert set(AGREED) <= BY_NAME.keys()


def test_promtool_finds_nothing_wrong_with_the_names() -> None:
    """`promtool check metrics` accepts an exposition that is made of the catalogue alone."""
    promtool = servers.require("promtool", "prometheus")
    done = servers.run([promtool, "check", "metrics"], exposition_of_the_catalogue())

    # A sketch's quantile is a gauge with the label that people look for; promtool keeps that label for summaries.
    meant = {
        f'{metric.name} non-summary metrics should not have "quantile" label'
        for metric in METRICS
        if "quantile" in metric.labels
    }

    assert done.returncode in (0, 3)
    assert set(done.stderr.splitlines()) == meant


def series_of(metric: Metric) -> list[str]:
    """Return the names of the series that a family is exposed as."""
    if metric.type is Type.HISTOGRAM:
        return [f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")]
    if metric.type is Type.SUMMARY:
        return [f"{metric.name}_{suffix}" for suffix in ("sum", "count")]
    return [metric.name]


def exposition_of_the_catalogue() -> str:
    """Return one sample of every series, in Prometheus' text format."""
    lines: list[str] = []
    for metric in METRICS:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
        labels = ",".join(f'{label}="x"' for label in metric.labels)
        for name in series_of(metric):
            extra = ',le="+Inf"' if name.endswith("_bucket") else ""
            braces = f"{labels}{extra}".strip(",")
            lines.append(f"{name}{{{braces}}} 1" if braces else f"{name} 1")
    return "\n".join(lines) + "\n"
