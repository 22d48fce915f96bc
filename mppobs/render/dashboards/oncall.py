"""The on-call dashboard: what burns and why, what to type next, and whether the runs of tonight will be in time."""

from __future__ import annotations

import re
from typing import Final

from mppobs.catalog.alerts import Alert
from mppobs.catalog.panels import ONCALL
from mppobs.catalog.panels import OncallPanel as Id
from mppobs.model import AttemptOutcome
from mppobs.render.dashboards.common import (
    PIPELINE,
    SEVERITY_STEPS,
    SEVERITY_WORDS,
    TAG,
    Settings,
    alerts_by_command,
    burn_steps,
    datasource,
    firing,
    marks,
    narrowing,
    to_debug,
)  # fmt: skip
from mppobs.render.dashboards.fields import (
    AGE,
    AMBER,
    BLUE,
    COUNT,
    FACTOR,
    GREEN,
    GREY,
    MOMENT,
    PER_SECOND,
    RED,
    SHARE,
    Column,
    Link,
    Steps,
    coloured,
    nothing,
    words,
)  # fmt: skip
from mppobs.render.dashboards.kinds import stat, table, timeline, timeseries
from mppobs.render.dashboards.model import Dashboard, Panel, Query, Section
from mppobs.render.dashboards.queries import INTERVAL, Scope, grown, latest, moment, rate
from mppobs.render.expressions import (
    CHECKPOINT_SECONDS,
    HEARTBEAT_SECONDS,
    NETWORK_ERRORS_PER_SECOND,
    RETRY_SHARE_PERCENT,
    THROTTLED_PER_SECOND,
    WORKERS_LOST,
)  # fmt: skip
from mppobs.render.promql import Expr, Match, binary, call, max_without, metric, number, quote, sum_by
from mppobs.slo.windows import LEGS, WINDOWS, window_name

_S: Final = Scope()
_RUN: Final = (*PIPELINE, "job_id")
_NEAR: Final = "~$pipeline|"
"""Alerts of the pipelines that are chosen, and those that are of none."""
_ALERT: Final = ("alertname", "cluster", "pipeline", "job_id", "slo")
"""What makes two alerts two for a person; one that burns in several windows is one."""
STATES: Final[dict[float | str, tuple[str, str]]] = {
    "pending": ("pending", GREY), "running": ("running", BLUE), "success": ("success", GREEN),
    "failure": ("FAILURE", RED), "error": ("ERROR", RED), "cancelled": ("cancelled", GREY),
}  # fmt: skip
_SEVERITIES: Final[dict[float | str, tuple[str, str]]] = {"page": ("PAGE", RED), "ticket": ("ticket", AMBER)}


def dashboard(settings: Settings | None = None) -> Dashboard:
    """Return the on-call dashboard."""
    chosen = settings or Settings()
    return Dashboard(
        uid=ONCALL,
        title="MPP / On-call",
        description="What burns, why, what to type next, and which runs will be late. Red is for now, amber for today.",
        tags=(TAG, "oncall"),
        refresh="30s",
        since="now-3h",
        variables=(datasource(), *narrowing("job", "cluster", "tenant", "pipeline")),
        sections=(_now(chosen), _burn(), _runs(chosen), _work(), _platform(), _history(chosen)),
        annotations=marks(_S),
    )


def _severity(by: tuple[str, ...], *, quiet: Expr | None = None) -> Expr:
    """Return 2 where a page fires, 1 where a ticket does, and 0 for the series of `quiet`."""
    joined = (firing(severity="page", pipeline=_NEAR) * number(2)) | firing(severity="ticket", pipeline=_NEAR)
    return latest(joined if quiet is None else joined | quiet * number(0), by)


def _now(settings: Settings) -> Section:
    """Return what must be seen first: a tile per pipeline, and what fires with the command to type."""
    wall = call("sort_desc", _severity(("pipeline",), quiet=_S("mpp_pipeline_info")))
    late = _open(_margin() < number(0))
    paging = latest(firing(severity="page", pipeline=_NEAR), _ALERT)
    failed = Expr(f"sum({grown(_S('mpp_shards_total', outcome='~failed|lost'))})")
    lost = Expr(f"sum({grown(_S('mpp_workers_lost_total', reason='~worker_lost|oom_killed|node_lost'))})")
    return Section("", (
        stat(
            Id.PIPELINES, "Pipelines", "Red: somebody is paged for it. Amber: a ticket is open. Click for why. A tile "
            "without a name is the tool itself or a whole cluster.",
            Query(wall, "{{pipeline}}", instant=True), unit=COUNT, steps=SEVERITY_STEPS, width=16, height=6,
            mappings=words(SEVERITY_WORDS), filled=True, names=True,
            links=[to_debug(pipeline="${__field.labels.pipeline}")],
        ),
        _count(Id.PAGES, "Pages firing", "Alerts that wake somebody, firing now.",
               Expr(f"count({paging})") | call("vector", number(0)), RED),
        _count(Id.RUNS_AT_RISK, "Runs at risk", "Running jobs that are predicted to finish after their deadline.",
               Expr(f"count({late})") | call("vector", number(0)), RED),
        _count(Id.SHARDS_FAILED, "Shards failed", "Shards that failed for good or were lost, in this time range.",
               failed, AMBER),
        _count(Id.WORKERS_LOST, "Workers lost", "Workers that died or vanished, in this time range; evicted ones are "
               "left out.", lost, AMBER),
        _alerts(settings),
    ))  # fmt: skip


def _count(panel: Id, title: str, description: str, expr: Expr, colour: str) -> Panel:
    steps = Steps((1, colour))
    return stat(panel, title, description, Query(expr, instant=True), unit=COUNT, steps=steps, height=3, filled=True)


def _alerts(settings: Settings) -> Panel:
    """Return what fires, for how long, and what to type: the next command comes from the catalogue."""
    active = call("time") - metric("ALERTS_FOR_STATE", alertname="~Mpp.+", pipeline=_NEAR)
    parts = [
        _with_command(
            binary(_only(active, alerts), "and", max_without(("alertstate",), _only(firing(), alerts))), command
        )
        for command, alerts in alerts_by_command().items()
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole | part
    runbook = Link("Runbook", f"{settings.sidecar_url}/runbooks/${{__data.fields.Alert}}", new_tab=True)
    return table(
        Id.ALERTS, "Firing now, and what to type next",
        "Every alert that fires. The name leads to its runbook, the pipeline to the debug dashboard.",
        Query(latest(whole, (*_ALERT, "severity", "next")), instant=True),
        columns=(
            Column("severity", "Severity", width=90, cell="color-background", mappings=words(_SEVERITIES)),
            Column("alertname", "Alert", width=190, links=[runbook]),
            Column("pipeline", "Pipeline", width=150, links=[to_debug()]),
            Column("job_id", "Run", width=210),
            Column("slo", "Promise", width=210),
            Column("Value", "For", AGE, 90),
            Column("next", "Next step"),
        ),
        height=9, order=("Severity", False), empty="Nothing fires.",
    )  # fmt: skip


def _only(active: Expr, alerts: tuple[Alert, ...]) -> Expr:
    """Return an expression over all alerts of ours for some of them alone."""
    names = "|".join(alert.name for alert in alerts)
    operator = "=~" if len(alerts) > 1 else "="
    chosen = active.text.replace('alertname=~"Mpp.+"', f"alertname{operator}{quote(names)}")
    return Expr(chosen, active.binds, active.operator)


def _with_command(expr: Expr, command: str) -> Expr:
    """
    Return alerts with their next command as a label, the alert's own labels filled in.

    >>> print(_with_command(metric("a"), "mppobs job {{ $labels.job_id }}"))
    label_replace(a, "next", "mppobs job $1", "job_id", "(.*)")
    """
    label = re.search(r"\{\{ \$labels\.(\w+) \}\}", command)
    source = label[1] if label else "alertname"
    text = command.replace(label[0], "$1") if label else command
    return Expr(f'label_replace({expr}, "next", {quote(text)}, "{source}", "(.*)")')


def _burn() -> Section:
    """Return how fast every budget burns, over each window that alerts look at."""
    about = ("pipeline", "kind")
    windows = [seconds for seconds in WINDOWS if seconds in {leg.long_seconds for leg in LEGS}]
    columns = [
        Column(f"Value #{chr(ord('B') + place)}", f"Burn {window_name(seconds)}", FACTOR, 92, 1, burn_steps(seconds),
               "color-background")
        for place, seconds in enumerate(windows)
    ]  # fmt: skip
    left = latest(_S("mpp_slo_budget_left_ratio"), ("slo",))
    burns = (_S.slo(f"slo:mpp_slo_burn_rate:ratio_{window_name(seconds)}", *about) for seconds in windows)
    fast = LEGS[0]
    return Section("Budgets: what burns", (
        table(
            Id.BURN, "Burn rate of every promise",
            "1 spends the budget by the end of its period. Amber burns too fast, red is what pages.",
            Query(_S.slo(left, *about), instant=True), *(Query(burn, instant=True) for burn in burns),
            columns=(
                Column("slo", "Promise"), Column("pipeline", "Pipeline", width=140, links=[to_debug()]),
                Column("Value #A", "Budget left", SHARE, 150, 0, Steps((0, AMBER), (0.25, GREEN), base=RED), "gauge",
                       (0, 1)),
                *columns,
            ),
            width=14, order=("Burn 1h", True), empty="No promises: give the aggregator an slo.yaml",
        ),
        timeseries(
            Id.BURN_HISTORY, "Burn rate over the last hour, by promise",
            "The dashed lines are where the budget would last exactly its period, and where the fast leg pages.",
            Query(_S.slo(f"slo:mpp_slo_burn_rate:ratio_{window_name(fast.long_seconds)}", "pipeline"), "{{slo}}"),
            unit=FACTOR, steps=burn_steps(fast.long_seconds), width=10,
        ),
    ), Id.BURN_ROW)  # fmt: skip


def _margin() -> Expr:
    """Return how many seconds before its deadline each running job is expected to finish."""
    finish = latest(_S("mpp_run_predicted_finish_timestamp_seconds"), _RUN)
    return latest(_S("mpp_run_deadline_timestamp_seconds"), _RUN) - finish


def _open(expr: Expr) -> Expr:
    """Return an expression by run for the runs that want looking at: those that go on, and those that just failed."""
    wanted = latest(_S("mpp_run_info", state="~pending|running|failure|error"), _RUN)
    return binary(expr, "and", wanted, Match(on=_RUN))


def _runs(settings: Settings) -> Section:
    """Return the runs that go on or have just failed, the one with the least time to spare first."""
    job = Link("Job page of the sidecar", f"{settings.sidecar_url}/api/v1/jobs/${{__data.fields.Run}}", new_tab=True)
    info = latest(_S("mpp_run_info", state="~pending|running|failure|error"), (*_RUN, "owner", "tier", "state"))
    times = (
        _S("mpp_run_predicted_finish_timestamp_seconds"), _S("mpp_run_deadline_timestamp_seconds"),
    )  # fmt: skip
    return Section("Runs", (
        table(
            Id.RUNS, "Runs: how far, and will they be in time?",
            "Jobs that go on, and those that failed within the last minute. To spare: deadline less predicted finish.",
            Query(info, instant=True),
            Query(_open(latest(_S("mpp_run_progress_ratio"), _RUN)), instant=True),
            *(Query(_open(moment(latest(each, _RUN))), instant=True) for each in times),
            Query(_open(_margin()), instant=True),
            columns=(
                Column("job_id", "Run", links=[job, to_debug("Why", pipeline="${__data.fields.Pipeline}",
                                                            run="${__data.fields.Run}")]),
                Column("pipeline", "Pipeline", width=150), Column("owner", "Owner", width=110),
                Column("tier", "Tier", width=90),
                Column("state", "State", width=100, cell="color-background", mappings=words(STATES)),
                Column("Value #B", "Done", SHARE, 210, 0, Steps(base=BLUE), "gauge", (0, 1)),
                Column("Value #C", "Predicted finish", MOMENT, 150, mappings=nothing("no plan yet")),
                Column("Value #D", "Deadline", MOMENT, 150, mappings=nothing("none")),
                Column("Value #E", "To spare", AGE, 110, 0, Steps((0, AMBER), (60, GREEN), base=RED),
                       "color-background", mappings=nothing("–", "transparent")),
            ),
            order=("To spare", False), empty="Nothing runs.",
        ),
    ), Id.RUNS_ROW)  # fmt: skip


def _work() -> Section:
    """Return what fails of the work itself."""
    failed = grown(_S("mpp_shards_total", outcome="~failed|lost"), INTERVAL)
    attempts = sum_by(("pipeline",), rate(_S("mpp_attempts_total")))
    retries = sum_by(("pipeline",), rate(_S("mpp_retries_total"))) / (attempts > number(0))
    return Section("Work", (
        timeseries(
            Id.FAILED_SHARDS, "Shards failed or lost", "Shards that failed for good, or that the job ended without.",
            Query(sum_by(("pipeline", "outcome"), failed), "{{pipeline}} {{outcome}}"), unit=COUNT, width=8, bars=True,
            stacked=True,
        ),
        timeseries(
            Id.RETRY_RATE, "Retries, as a share of attempts", "Beyond a fifth, retries are the load: MppRetryStorm.",
            Query(retries, "{{pipeline}}"), unit=SHARE, steps=Steps((RETRY_SHARE_PERCENT / 100, RED)), width=8,
        ),
        timeseries(
            Id.ATTEMPTS, "Attempts by outcome", "Failure is the work's fault, error the platform's.",
            Query(sum_by(("outcome",), rate(_S("mpp_attempts_total"))), "{{outcome}}"), unit=PER_SECOND, width=8,
            stacked=True, overrides=coloured(tuple(AttemptOutcome)),
        ),
    ), Id.WORK_ROW)  # fmt: skip


def _platform() -> Section:
    """Return what the work stands on: coordinators, workers, network, storage."""
    beat = _S("mpp_coordinator_heartbeat_timestamp_seconds")
    working = sum_by(PIPELINE, _S("mpp_jobs_current")) > number(0)
    age = binary(call("time") - latest(beat, PIPELINE), "and", working, Match(on=PIPELINE))
    lost = grown(_S("mpp_workers_lost_total"), INTERVAL)
    return Section("Platform", (
        timeseries(
            Id.HEARTBEAT, "Coordinators: age of the last heartbeat", "Of pipelines that have work. At thirty seconds "
            "nothing is dispatched any more: MppCoordinatorDown.",
            Query(age, "{{pipeline}}"), unit=AGE, steps=Steps((HEARTBEAT_SECONDS, RED)), width=8,
        ),
        timeseries(
            Id.WORKERS, "Workers by state", "Worker processes that are alive.",
            Query(sum_by(("state",), _S("mpp_workers_current")), "{{state}}"), unit=COUNT, width=8, stacked=True,
            overrides=coloured(("busy", "draining")),
        ),
        timeseries(
            Id.LOSSES, "Workers lost", f"By reason. {WORKERS_LOST} in ten minutes raise MppWorkersLost.",
            Query(sum_by(("cluster", "reason"), lost), "{{reason}} ({{cluster}})"), unit=COUNT, width=8, bars=True,
            stacked=True,
        ),
        *_turned_away(),
        timeseries(
            Id.QUEUE, "Jobs and shards waiting", "Pending now. Grows beside idle workers: it is the scheduler.",
            Query(sum_by(("pipeline",), _S("mpp_shards_current", state="pending")), "{{pipeline}} shards"),
            Query(sum_by(("pipeline",), _S("mpp_jobs_current", state="pending")), "{{pipeline}} jobs"),
            unit=COUNT, width=8,
        ),
        timeseries(
            Id.CHECKPOINT_LAG, "Time since the last checkpoint", "Of the running job that is worst off: what would be "
            "done again if it died now.",
            Query(latest(_S("mpp_checkpoint_lag_seconds"), ("pipeline",)), "{{pipeline}}"), unit=AGE,
            steps=Steps((CHECKPOINT_SECONDS, RED)), width=24, height=5,
        ),
    ), Id.PLATFORM_ROW)  # fmt: skip


def _turned_away() -> tuple[Panel, ...]:
    """Return what the network and the storage refuse."""
    return (
        timeseries(
            Id.NETWORK_ERRORS, "Failed transfers", "Between workers, by kind.",
            Query(sum_by(("pipeline", "kind"), rate(_S("mpp_network_errors_total"))), "{{pipeline}} {{kind}}"),
            unit=PER_SECOND, steps=Steps((NETWORK_ERRORS_PER_SECOND, RED)), width=8,
        ),
        timeseries(
            Id.THROTTLED, "Requests that storage throttled", "By prefix class: one class far above the rest is hot.",
            Query(sum_by(("pipeline", "kind"), rate(_S("mpp_storage_throttled_requests_total"))),
                  "{{pipeline}} {{kind}}"),
            unit=PER_SECOND, steps=Steps((THROTTLED_PER_SECOND, RED)), width=8,
        ),
    )  # fmt: skip


def _history(settings: Settings) -> Section:
    runbook = Link("Runbook", f"{settings.sidecar_url}/runbooks/${{__field.labels.alertname}}", new_tab=True)
    return Section("Alert history", (
        timeline(
            Id.ALERT_HISTORY, "What fired when", "One lane per alert and pipeline.",
            Query(_severity(("alertname", "pipeline")), "{{alertname}} {{pipeline}}"), mappings=words(SEVERITY_WORDS),
            steps=SEVERITY_STEPS, links=[runbook],
        ),
    ), Id.HISTORY_ROW)  # fmt: skip
