"""The tool's own dashboard: can its figures be trusted, does it keep up, and what does it cost?"""

from __future__ import annotations

from typing import Final

from mppobs.catalog.panels import SELF
from mppobs.catalog.panels import SelfPanel as Id
from mppobs.render.dashboards.common import TAG, Settings, datasource, marks, narrowing, to_debug
from mppobs.render.dashboards.fields import (
    AMBER,
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    Override,
    Steps,
)  # fmt: skip
from mppobs.render.dashboards.kinds import stat, timeseries
from mppobs.render.dashboards.model import Dashboard, Query, Section
from mppobs.render.dashboards.queries import INTERVAL, RANGE, Scope, grown, latest, rate
from mppobs.render.expressions import COMPLETENESS_PERCENT, LAG_SECONDS
from mppobs.render.promql import Expr, Match, binary, call, number, sum_by

_S: Final = Scope(("job", "instance", "cluster", "tenant", "pipeline"))
_RULES: Final = {"rule_group": "~.*mppobs.*"}
_COMPLETE: Final = COMPLETENESS_PERCENT / 100
_TRUST: Final = Steps((_COMPLETE, GREEN), base=RED)


def dashboard(settings: Settings | None = None) -> Dashboard:
    """Return the dashboard of the tool itself. `settings` is taken so that all dashboards are made alike."""
    return Dashboard(
        uid=SELF,
        title="MPP / The tool itself",
        description="Are the figures complete and fresh, what was dropped, and what do the series and the rules cost?",
        tags=(TAG, "self"),
        refresh="30s",
        since="now-6h",
        variables=(datasource(), *narrowing("job", "instance", "cluster", "tenant", "pipeline")),
        sections=(_now(), _trust(), _ingest(), _series(), _rules(), _traces()),
        annotations=marks(_S),
    )


def _now() -> Section:
    """Return the six figures that say whether to believe the rest."""
    missing = Expr(f"sum({grown(_S('mppobs_records_dropped_total'))}) + sum({grown(_S('mppobs_lost_records_total'))})")
    failures = _S("prometheus_rule_evaluation_failures_total", **_RULES)
    answering = Expr(f"count({_S('mppobs_build_info')})") | call("vector", number(0))
    complete = Expr(f"min({_S('mpp_telemetry_completeness_ratio')})")
    return Section("", (
        stat(Id.UP, "Sidecars up", "Aggregators and agents that answer scrapes. None: MppTelemetryAbsent.",
             Query(answering, instant=True), unit=COUNT, steps=Steps((1, GREEN), base=RED)),
        stat(Id.LAG_NOW, "Lag", "Age of the oldest bytes written but not yet counted: how old the figures are.",
             Query(Expr(f"max({_S('mppobs_lag_seconds')})")), unit=SECONDS,
             steps=Steps((LAG_SECONDS / 4, AMBER), (LAG_SECONDS, RED))),
        stat(Id.COMPLETENESS_NOW, "Completeness, worst pipeline",
             "Attempts recorded over attempts dispatched. Below 99 % every figure is a lower bound.",
             Query(complete), unit=SHARE, decimals=1, steps=_TRUST),
        stat(Id.DROPPED_NOW, "Records dropped or lost", "In this time range: for want of room, or gone at a restart.",
             Query(missing, instant=True), unit=COUNT, steps=Steps((1, RED))),
        stat(Id.RULE_FAILURES_NOW, "Rules that failed", "Evaluations of our rules that failed, in this time range.",
             Query(Expr(f"sum({grown(failures, RANGE)})"), instant=True), unit=COUNT, steps=Steps((1, RED))),
        stat(Id.VERSION, "Version", "Of the aggregators; two at a time is an upgrade under way.",
             Query(latest(_S("mppobs_build_info"), ("kind",)), "{{kind}}", instant=True), unit=COUNT, text="name"),
    ))  # fmt: skip


def _trust() -> Section:
    recorded = latest(_S("mpp_telemetry_completeness_ratio"), ("pipeline",))
    late, invalid, dropped = (
        sum_by(("kind",), rate(_S("mppobs_late_records_total"))),
        sum_by(("reason",), rate(_S("mppobs_invalid_records_total"))),
        sum_by(("kind",), rate(_S("mppobs_records_dropped_total"))),
    )
    held = latest(_S("mpp_slo_prediction_coverage_ratio"), ("slo",))
    return Section("Can the figures be trusted?", (
        timeseries(
            Id.COMPLETENESS, "Telemetry completeness",
            "Attempts recorded over attempts dispatched, of running and just-finished jobs.",
            Query(recorded, "{{pipeline}}"), unit=SHARE, steps=_TRUST, width=8, bounds=(None, 1), links=[
                to_debug(pipeline="${__field.labels.pipeline}")],
        ),
        timeseries(
            Id.LAG, "Lag behind the journals", "Age of the oldest bytes that are written but not yet counted.",
            Query(latest(_S("mppobs_lag_seconds"), ("instance",)), "{{instance}}"), unit=SECONDS,
            steps=Steps((LAG_SECONDS, RED)), width=8,
        ),
        timeseries(
            Id.SET_ASIDE, "Records not counted",
            "Dropped by writers without room, late for a decision, or without sense.",
            Query(dropped, "dropped: {{kind}}"), Query(late, "late: {{kind}}"), Query(invalid, "invalid: {{reason}}"),
            unit=PER_SECOND, width=8,
        ),
        timeseries(
            Id.PREDICTIONS, "Predicted finishes that held",
            "Share of recent predictions whose interval held the finish. They claim nine in ten.",
            Query(_S.slo(held, "pipeline"), "{{slo}}"), unit=SHARE, steps=Steps((0.9, GREEN), base=AMBER), width=24,
            height=5, bounds=(0, 1),
        ),
    ), Id.TRUST_ROW)  # fmt: skip


def _ingest() -> Section:
    folding = sum_by(("instance",), rate(_S("mppobs_fold_seconds_total")))
    ways = {"received": "mppobs_received_bytes_total", "shipped": "mppobs_shipped_bytes_total"}
    troubles = {
        "shipping failed": "mppobs_ship_errors_total", "requests refused": "mppobs_rejected_requests_total",
        "rounds undone": "mppobs_refused_rounds_total", "journals left alone": "mppobs_quarantined_journals_total",
        "files unreadable": "mppobs_unreadable_files_total", "SLO files refused": "mppobs_slo_reload_errors_total",
        "jobs not archived": "mppobs_unarchived_jobs_total",
    }  # fmt: skip
    none = call("vector", number(0))
    total = {words: Expr(f"sum({grown(_S(name), INTERVAL)})") | none for words, name in troubles.items()}
    return Section("Does it keep up?", (
        timeseries(
            Id.RECORDS, "Records folded", "By kind.",
            Query(sum_by(("kind",), rate(_S("mppobs_records_total"))), "{{kind}}"), unit=PER_SECOND, width=8,
            stacked=True,
        ),
        timeseries(
            Id.FOLD, "Busy folding", "Share of the time spent folding and committing: at 1 it no longer keeps up.",
            Query(folding, "{{instance}}"), unit=SHARE, steps=Steps((0.8, RED)), width=8,
        ),
        timeseries(
            Id.JOURNALS, "Journals followed", "One per worker process; dead ones are being read to their end.",
            Query(sum_by(("state",), _S("mppobs_journals_current")), "{{state}}"), unit=COUNT, width=8, stacked=True,
            overrides=[Override("dead", {"color": {"mode": "fixed", "fixedColor": "#6e7687"}})],
        ),
        timeseries(
            Id.SHIPPING, "Journal bytes over the network", "What agents shipped and aggregators received.",
            *(Query(Expr(f"sum({rate(_S(name))})"), way) for way, name in ways.items()), unit=BYTES_PER_SECOND, width=8,
        ),
        timeseries(
            Id.TROUBLE, "What went wrong", "Counts per interval; each has its line in the sidecar's log.",
            *(Query(expr, words) for words, expr in total.items()), unit=COUNT, width=8, bars=True, stacked=True,
        ),
        timeseries(
            Id.STUCK, "Attempts that hang", "Of live workers that report progress but have made none for long.",
            Query(sum_by(("pipeline",), _S("mppobs_stuck_attempts_current")), "{{pipeline}}"), unit=COUNT, width=8,
        ),
    ), Id.INGEST_ROW)  # fmt: skip


def _series() -> Section:
    return Section("What do its series cost?", (
        timeseries(
            Id.SERIES, "Series exposed", "Samples per scrape: it must not grow with jobs and shards.",
            Query(latest(_ours("scrape_samples_scraped"), ("instance",)), "{{instance}}"), unit=COUNT, width=8,
        ),
        timeseries(
            Id.SCRAPE, "A scrape takes", "As the aggregator renders it, and as Prometheus waits for it.",
            Query(latest(_S("mppobs_scrape_seconds"), ("instance",)), "rendering, {{instance}}"),
            Query(latest(_ours("scrape_duration_seconds"), ("instance",)), "scraping, {{instance}}"), unit=SECONDS,
            steps=Steps((0.5, RED)), width=8,
        ),
        timeseries(
            Id.FOLDED, "Label sets folded into __other__", "What would have passed a cap, by family.",
            Query(sum_by(("kind",), grown(_S("mppobs_series_folded_total"), INTERVAL)), "{{kind}}"),
            unit=COUNT, width=8, bars=True,
        ),
    ), Id.SERIES_ROW)  # fmt: skip


def _rules() -> Section:
    took = latest(_S("prometheus_rule_group_last_duration_seconds", **_RULES), ("rule_group",))
    every = latest(_S("prometheus_rule_group_interval_seconds", **_RULES), ("rule_group",))
    failed = grown(_S("prometheus_rule_evaluation_failures_total", **_RULES), INTERVAL)
    return Section("What do its rules cost?", (
        timeseries(
            Id.RULE_COST, "Rule evaluation, of its interval", "Share of the interval that a group's evaluation takes.",
            Query(_short(took / every), "{{group}}"), unit=SHARE, steps=Steps((0.5, RED)), width=12,
        ),
        timeseries(
            Id.RULE_FAILURES, "Rules that failed", "Evaluations that failed: their alerts are dead. MppRulesFailing.",
            Query(sum_by(("group",), _short(failed)), "{{group}}"), unit=COUNT, width=12, bars=True,
        ),
    ), Id.RULES_ROW)  # fmt: skip


def _ours(name: str) -> Expr:
    """Return a figure of scrapes, for what is a sidecar and not for whatever else the job variable lets through."""
    return binary(_S(name), "and", _S("mppobs_build_info"), Match(on=("job", "instance")))


def _short(expr: Expr) -> Expr:
    """Return rule groups by their name, without the file that they were read from."""
    return call("label_replace", expr, "group", "$1", "rule_group", ".*;(.*)")


def _traces() -> Section:
    exported, dropped = rate(_S("mppobs_spans_exported_total")), rate(_S("mppobs_spans_dropped_total"))
    return Section("Traces and archive", (
        timeseries(
            Id.SPANS, "Spans", "Accepted by the tracing backend, and left out by reason: `sampled` is by design.",
            Query(Expr(f"sum({exported})"), "exported"), Query(sum_by(("reason",), dropped), "left out: {{reason}}"),
            unit=PER_SECOND, width=12,
        ),
        timeseries(
            Id.ARCHIVE, "Archived and committed", "Shards written to the archive, transactions committed to the store.",
            Query(Expr(f"sum({rate(_S('mppobs_archived_shards_total'))})"), "shards"),
            Query(Expr(f"sum({rate(_S('mppobs_commits_total'))})"), "commits"), unit=PER_SECOND, width=12,
        ),
    ), Id.TRACES_ROW)  # fmt: skip
