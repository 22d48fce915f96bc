"""The debug dashboard: why a run is slow. Its shards, its stragglers, its exchanges, its workers, its time."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

from mppobs.catalog.panels import DEBUG
from mppobs.catalog.panels import DebugPanel as Id
from mppobs.model import AttemptOutcome, StragglerCause
from mppobs.render.dashboards.common import (
    PIPELINE,
    TAG,
    Settings,
    datasource,
    marks,
    narrowing,
)  # fmt: skip
from mppobs.render.dashboards.fields import (
    AGE,
    AMBER,
    BLUE,
    BYTES_PER_SECOND,
    COUNT,
    FACTOR,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    Column,
    Link,
    Override,
    Steps,
    coloured,
    words,
)  # fmt: skip
from mppobs.render.dashboards.kinds import bars, heatmap, table, timeseries
from mppobs.render.dashboards.model import Dashboard, Query, Section
from mppobs.render.dashboards.oncall import STATES
from mppobs.render.dashboards.queries import INTERVAL, Scope, grown, increase, latest, quantile, rate
from mppobs.render.expressions import (
    CHECKPOINT_SECONDS,
    MEMORY_PERCENT,
    NETWORK_ERRORS_PER_SECOND,
    TAIL_RATIO,
    THROTTLED_PER_SECOND,
    THROTTLED_SHARE_PERCENT,
)  # fmt: skip
from mppobs.render.promql import Expr, number, sum_by

_S: Final = Scope(("job", "cluster", "tenant", "pipeline", "stage", "job_id"))
_RUN: Final = (*PIPELINE, "job_id")
_CAUSES: Final = {
    StragglerCause.SKEW: ("skew: too much data", RED),
    StragglerCause.SLOW_NODE: ("slow node", AMBER),
    StragglerCause.IO: ("transfers fail", "purple"),
    StragglerCause.UNKNOWN: ("unknown", "#6e7687"),
}


def dashboard(settings: Settings | None = None) -> Dashboard:
    """Return the debug dashboard."""
    chosen = settings or Settings()
    return Dashboard(
        uid=DEBUG,
        title="MPP / Debug",
        description="Why is this run slow? From its shards down to what its workers spend their time on.",
        tags=(TAG, "debug"),
        refresh="30s",
        since="now-1h",
        variables=(datasource(), *narrowing("job", "cluster", "tenant", "pipeline", "stage", "run")),
        sections=(_runs(chosen), _latency(), _stragglers(chosen), _exchange(), _workers(), _time()),
        annotations=marks(_S),
    )


def _explore(uid: str, query: dict[str, str]) -> str:
    """Return the address of Grafana's Explore for a query to a data source, in the dashboard's time range."""
    panes = {
        "a": {
            "datasource": uid,
            "queries": [{"refId": "A", "datasource": {"uid": uid}, **query}],
            "range": {"from": "${__from}", "to": "${__to}"},
        }
    }
    text = quote(json.dumps(panes, sort_keys=True), safe="${}:_.")
    return f"/explore?schemaVersion=1&panes={text}"


def _links(settings: Settings) -> tuple[Link, ...]:
    """Return where a run can be looked at more closely."""
    run = "${__data.fields.Run}"
    spans = {"queryType": "traceql", "query": f'{{ span."mpp.job.id" = "{run}" }}'}
    lines = {"queryType": "range", "expr": f'{{job=~".+"}} | json | job_id = `{run}`'}
    return (
        Link("Job page of the sidecar", f"{settings.sidecar_url}/api/v1/jobs/{run}", new_tab=True),
        Link("Trace of the run", _explore(settings.traces, spans), new_tab=True),
        Link("Logs of the run", _explore(settings.logs, lines), new_tab=True),
    )


def _runs(settings: Settings) -> Section:
    info = latest(_S("mpp_run_info"), (*_RUN, "owner", "tier", "state"))
    left = latest(_S("mpp_run_predicted_finish_timestamp_seconds"), _RUN) - Expr("time()")
    return Section("", (
        table(
            Id.RUNS, "Runs, with their job page, trace and logs",
            "Running jobs, and those that ended within the last minute. Click a run for its page at the sidecar, its "
            "trace and its logs.",
            Query(info, instant=True), Query(latest(_S("mpp_run_progress_ratio"), _RUN), instant=True),
            Query(left > number(0), instant=True),
            columns=(
                Column("job_id", "Run", links=_links(settings)), Column("pipeline", "Pipeline", width=170),
                Column("cluster", "Cluster", width=120), Column("tenant", "Tenant", width=120),
                Column("owner", "Owner", width=120),
                Column("state", "State", width=110, cell="color-background", mappings=words(STATES)),
                Column("Value #B", "Done", SHARE, 260, 0, Steps(base=BLUE), "gauge", (0, 1)),
                Column("Value #C", "Time left", AGE, 120, 0),
            ),
            height=6, order=("Run", True), empty="Nothing runs.",
        ),
    ))  # fmt: skip


def _latency() -> Section:
    buckets = sum_by(("le",), increase(_S("mpp_shard_duration_seconds_bucket")))
    quantiles = latest(_S("mpp_shard_duration_quantile_seconds"), ("stage", "quantile"))
    return Section("Shards", (
        heatmap(
            Id.LATENCY, "How long shards take",
            "Shards committed, by duration: two bands are two kinds of shards, a thin one far up is the tail. Dots are "
            "single shards with their traces.",
            Query(buckets, "{{le}}", heatmap=True, exemplars=True), unit=SECONDS,
        ),
        timeseries(
            Id.QUANTILES, "Median, p95 and p99 by stage", "Over the last hour's shards, 1 % off at most.",
            Query(quantiles, "{{stage}} {{quantile}}"), unit=SECONDS, logarithmic=True, bounds=(None, None), height=9,
            legend_table=True,
        ),
    ), Id.LATENCY_ROW)  # fmt: skip


def _stragglers(settings: Settings) -> Section:
    named = latest(_S("mpp_straggler_seconds"), (*_RUN, "stage", "shard_id", "rank", "cause"))
    causes = sum_by(("cause",), _S("mpp_stragglers_current"))
    fixed = [
        Override(cause, {"color": {"mode": "fixed", "fixedColor": colour}}) for cause, (_, colour) in _CAUSES.items()
    ]
    return Section("Stragglers and skew", (
        table(
            Id.STRAGGLERS, "Top stragglers, with their likely cause",
            "Attempts that run far longer than their stage's others, the worst first.",
            Query(named, instant=True),
            columns=(
                Column("rank", "#", width=50), Column("stage", "Stage", width=120),
                Column("shard_id", "Shard", width=110),
                Column("cause", "Likely cause", width=180, cell="color-background",
                       mappings=words({str(cause): told for cause, told in _CAUSES.items()})),
                Column("Value", "Runs for", AGE, 110), Column("job_id", "Run", links=_links(settings)),
                Column("pipeline", "Pipeline", width=150),
            ),
            width=14, order=("#", False), empty="No stragglers now.",
        ),
        timeseries(
            Id.STRAGGLER_CAUSES, "Stragglers by cause", "Attempts that run far longer than their stage's others.",
            Query(causes, "{{cause}}"), unit=COUNT, width=10, bars=True, stacked=True, overrides=fixed, decimals=0,
        ),
        bars(
            Id.TAIL, "Tail: p99 over median", f"By stage. Beyond {TAIL_RATIO} a few shards hold the stage.",
            Query(latest(_S("mpp_tail_ratio"), ("pipeline", "stage")), "{{pipeline}} {{stage}}", instant=True),
            unit=FACTOR, decimals=1, steps=Steps((TAIL_RATIO, AMBER), (3 * TAIL_RATIO, RED)), width=12, height=6,
        ),
        bars(
            Id.IDLE, "Skew: share of the stage that the others waited",
            "(max − mean) ÷ max of shard durations, in the last run of each stage.",
            Query(latest(_S("mpp_skew_idle_ratio"), ("pipeline", "stage")), "{{pipeline}} {{stage}}", instant=True),
            unit=SHARE, steps=Steps((0.5, AMBER), (0.8, RED)), width=12, height=6, bounds=(0, 1),
        ),
    ), Id.STRAGGLERS_ROW)  # fmt: skip


def _exchange() -> Section:
    shuffled = sum_by(("stage", "direction"), rate(_S("mpp_shuffle_bytes_total")))
    return Section("Exchange, network and storage", (
        timeseries(
            Id.SHUFFLE, "Shuffle", "Bytes that attempts wrote to exchanges and read from them, by stage.",
            Query(shuffled, "{{stage}} {{direction}}"), unit=BYTES_PER_SECOND, width=8,
        ),
        timeseries(
            Id.SHUFFLE_BASELINE, "Shuffle bytes against the usual",
            "Of the run that finished last, over the median of the twenty before it.",
            Query(latest(_S("mpp_job_shuffle_baseline_ratio"), ("pipeline",)), "{{pipeline}}"), unit=FACTOR, width=4,
            steps=Steps((2, RED)),
        ),
        timeseries(
            Id.NETWORK_ERRORS, "Failed transfers", "Between workers. One per second raises MppShuffleOverload.",
            Query(sum_by(("kind",), rate(_S("mpp_network_errors_total"))), "{{kind}}"), unit=PER_SECOND, width=6,
            steps=Steps((NETWORK_ERRORS_PER_SECOND, RED)),
        ),
        timeseries(
            Id.THROTTLED, "Requests that storage throttled", "By prefix class: one far above the rest is a hot key.",
            Query(sum_by(("kind",), rate(_S("mpp_storage_throttled_requests_total"))), "{{kind}}"), unit=PER_SECOND,
            width=6, steps=Steps((THROTTLED_PER_SECOND, RED)),
        ),
    ), Id.EXCHANGE_ROW)  # fmt: skip


def _workers() -> Section:
    wall = sum_by(("stage",), rate(_S("mpp_attempt_wall_seconds_total"))) > number(0)
    used = sum_by(("stage",), rate(_S("mpp_attempt_cpu_seconds_total"))) / wall
    all_wall = sum_by(("pipeline",), rate(_S("mpp_attempt_wall_seconds_total"))) > number(0)
    stalled = sum_by(("pipeline",), rate(_S("mpp_cpu_throttled_seconds_total"))) / all_wall
    memory = latest(_S("mpp_worker_memory_ratio"), ("pipeline", "quantile"))
    return Section("Workers", (
        timeseries(
            Id.CPU, "CPU per stage", "CPU seconds per second of attempts: low is waiting, above 1 is threads.",
            Query(used, "{{stage}}"), unit=SHARE, width=8,
        ),
        timeseries(
            Id.MEMORY, "Memory, of its limit",
            f"Peak resident memory of live workers: nine in ten, and the fullest. At {MEMORY_PERCENT} % they die soon.",
            Query(memory, "{{pipeline}} {{quantile}}"), unit=SHARE, steps=Steps((MEMORY_PERCENT / 100, RED)), width=6,
        ),
        timeseries(
            Id.CPU_THROTTLED, "Throttled by the CPU quota", "Time that workers were held back, per second of work.",
            Query(stalled, "{{pipeline}}"), unit=SHARE, steps=Steps((THROTTLED_SHARE_PERCENT / 100, RED)), width=5,
        ),
        timeseries(
            Id.OOM_KILLS, "Killed for memory", "Workers that the kernel killed.",
            Query(sum_by(("pipeline",), grown(_S("mpp_oom_kills_total"), INTERVAL)), "{{pipeline}}"),
            unit=COUNT, width=5, bars=True, decimals=0,
        ),
    ), Id.WORKERS_ROW)  # fmt: skip


def _time() -> Section:
    activity = sum_by(("kind",), rate(_S("mpp_activity_seconds_total")))
    delay = _S("mpp_scheduler_delay_seconds_bucket")
    return Section("Where the time goes", (
        timeseries(
            Id.ACTIVITY, "Time by activity",
            "Attempt seconds per second: how many workers do what. `other` is what no activity covers.",
            Query(activity, "{{kind}}"), unit=COUNT, width=8, stacked=True,
        ),
        timeseries(
            Id.SCHEDULER_DELAY, "Scheduler delay", "From assignment to start, estimated from a histogram.",
            *(Query(quantile(share, delay), f"p{int(float(share) * 100)}") for share in ("0.5", "0.95", "0.99")),
            unit=SECONDS, width=5,
        ),
        timeseries(
            Id.CHECKPOINT_LAG, "Time since the last checkpoint", "Of the running job that is worst off.",
            Query(latest(_S("mpp_checkpoint_lag_seconds"), ("pipeline",)), "{{pipeline}}"), unit=AGE, width=5,
            steps=Steps((CHECKPOINT_SECONDS, RED)),
        ),
        timeseries(
            Id.OUTCOMES, "Attempts by outcome", "Of the stages that are chosen.",
            Query(sum_by(("outcome",), rate(_S("mpp_attempts_total"))), "{{outcome}}"), unit=PER_SECOND, width=6,
            stacked=True, overrides=coloured(tuple(AttemptOutcome)),
        ),
    ), Id.TIME_ROW)  # fmt: skip
