"""The executive dashboard: what was promised and kept, how much was done, what it cost and what was wasted."""

from __future__ import annotations

from typing import Final

from mppobs.catalog.panels import EXECUTIVE
from mppobs.catalog.panels import ExecutivePanel as Id
from mppobs.model import CostKind, JobOutcome
from mppobs.render.dashboards.common import (
    TAG,
    Settings,
    burn_steps,
    datasource,
    marks,
    narrowing,
    to_oncall,
)  # fmt: skip
from mppobs.render.dashboards.fields import (
    AGE,
    AMBER,
    COUNT,
    DOLLARS,
    FACTOR,
    GREEN,
    PER_HOUR,
    RED,
    SECONDS,
    SHARE,
    Column,
    Override,
    Steps,
    coloured,
    nothing,
    words,
)  # fmt: skip
from mppobs.render.dashboards.kinds import bars, stat, table, timeseries
from mppobs.render.dashboards.model import Dashboard, Panel, Query, Section
from mppobs.render.dashboards.queries import Scope, grown, latest, rate
from mppobs.render.expressions import COST_FACTOR
from mppobs.render.promql import Expr, call, number, sum_by
from mppobs.render.rules import BAD, EVENTS, OBJECTIVE, PERIOD
from mppobs.slo.windows import DAY, HOUR

_S: Final = Scope()
_WEEK: Final = 7
_ABOUT: Final = ("pipeline",)
_COST: Final = _S("mpp_cost_usd_total")
_WASTE: Final = _S("mpp_cost_usd_total", kind="~" + "|".join(kind for kind in CostKind if kind != CostKind.USEFUL))
_BUDGET: Final = Steps((0, AMBER), (0.25, GREEN), base=RED)
"""Overspent; nearly gone; fine."""


def dashboard(settings: Settings | None = None) -> Dashboard:
    """Return the executive dashboard."""
    chosen = settings or Settings()
    return Dashboard(
        uid=EXECUTIVE,
        title="MPP / Executive",
        description="Are the promises kept, how much is done, what does it cost? For leadership and FinOps.",
        tags=(TAG, "executive"),
        refresh="5m",
        since="now-28d",
        variables=(datasource(), *narrowing("job", "cluster", "tenant", "pipeline")),
        sections=(_figures(), _promises(), _throughput(chosen), _cost(chosen)),
        annotations=marks(_S),
    )


def _total(selector: Expr) -> Expr:
    return Expr(f"sum({grown(selector)})")


def _figures() -> Section:
    """Return the six figures of the time range."""
    bad, events = (Expr(f"sum({_S.slo(grown(Expr(name)), kind='on-time')})") for name in (BAD, EVENTS))
    failed = _S("mpp_jobs_total", outcome=f"~{JobOutcome.FAILURE}|{JobOutcome.ERROR}")
    return Section("", (
        stat(Id.ON_TIME, "Jobs on time", "Share of the runs in this time range that met their deadline, over all "
             "on-time promises. The worst promise is in the table below.",
             Query(number(1) - bad / (events > number(0)), instant=True), unit=SHARE, decimals=1,
             steps=Steps((0.9, AMBER), (0.95, GREEN), base=RED)),
        stat(Id.JOBS_FINISHED, "Jobs finished", "Runs that ended in this time range, however they ended.",
             Query(_total(_S("mpp_jobs_total")), instant=True), unit=COUNT),
        stat(Id.JOBS_FAILED, "Jobs failed", "Runs that ended as failure (the work's fault) or error (the platform's).",
             Query(_total(failed), instant=True), unit=COUNT, steps=Steps((1, AMBER), base=GREEN)),
        stat(Id.SHARDS_DONE, "Shards committed", "Units of work that were done and count.",
             Query(_total(_S("mpp_shards_total", outcome="committed")), instant=True), unit=COUNT),
        stat(Id.SPENT, "Spent", "What attempts and idle workers cost in this time range, waste included.",
             Query(_total(_COST), instant=True), unit=DOLLARS),
        stat(Id.WASTE_SHARE, "Of it wasted", "Share of the money that bought retries, losing copies, work of evicted "
             "workers, or idle time.",
             Query(_total(_WASTE) / (_total(_COST) > number(0)), instant=True), unit=SHARE, decimals=1,
             steps=Steps((0.15, AMBER), (0.3, RED))),
    ))  # fmt: skip


def _promises() -> Section:
    """Return every SLO with what is left of its budget, and when that is gone."""
    left = latest(_S("mpp_slo_budget_left_ratio"), ("slo",))
    burn = Expr("slo:mpp_slo_burn_rate:ratio_3d")
    kept = number(1) - grown(Expr(BAD)) / (grown(Expr(EVENTS)) > number(0))
    lasts = call("clamp_min", left, number(0)) * Expr(PERIOD) / (burn > number(0))
    queries = (_S(OBJECTIVE), kept, left, burn, lasts)
    link = to_oncall(pipeline="${__data.fields.Pipeline}")
    return Section("Promises", (
        table(
            Id.PROMISES, "Promises, and when their budgets run out",
            "Every objective within the variables. The budget is the share of bad events that the objective allows in "
            "its period; at the pace of the last three days it lasts as long as the last column says.",
            *(Query(_S.slo(query, *_ABOUT), instant=True) for query in queries),
            columns=(
                Column("slo", "Promise", links=[link]),
                Column("pipeline", "Pipeline", width=150),
                Column("Value #A", "Objective", SHARE, 100, decimals=2),
                Column("Value #B", "Kept", SHARE, 90, decimals=2),
                Column("Value #C", "Budget left", SHARE, 170, 0, _BUDGET, "gauge", (0, 1)),
                Column("Value #D", "Burn, 3 days", FACTOR, 110, 1, burn_steps(3 * DAY), "color-text"),
                Column("Value #E", "Budget lasts", AGE, 120,
                       mappings=[*words({0: ("gone", RED)}), *nothing("does not burn")]),
            ),
            width=15, order=("Budget left", False), empty="No promises: give the aggregator an slo.yaml",
        ),
        timeseries(
            Id.BUDGET_LEFT, "Error budgets left",
            "Share of each period's budget that is left. Below zero the promise is broken.",
            Query(_S.slo(left, "pipeline"), "{{slo}}"), unit=SHARE, steps=_BUDGET, width=9, bounds=(-1, 1),
        ),
    ), Id.PROMISES_ROW)  # fmt: skip


def _throughput(settings: Settings) -> Section:
    day = settings.durations(DAY)
    finished = grown(_S("mpp_jobs_total"), day)
    mean = sum_by(("pipeline",), grown(_S("mpp_job_duration_seconds_sum"), day)) / (
        sum_by(("pipeline",), grown(_S("mpp_job_duration_seconds_count"), day)) > number(0)
    )
    committed = sum_by(("pipeline",), rate(_S("mpp_shards_total", outcome="committed")))
    return Section("Throughput", (
        timeseries(
            Id.JOBS_PER_DAY, "Jobs per day", "Runs that ended, by how they ended. Each bar is a day.",
            Query(sum_by(("outcome",), finished), "{{outcome}}"), unit=COUNT, width=8, bars=True, stacked=True,
            overrides=coloured(tuple(JobOutcome)), interval=day, decimals=0,
        ),
        timeseries(
            Id.SHARDS_PER_HOUR, "Work done", "Shards committed per hour, by pipeline.",
            Query(committed * number(HOUR), "{{pipeline}}"), unit=PER_HOUR, width=8,
        ),
        timeseries(
            Id.JOB_DURATION, "How long a job takes", "Mean of a day's runs from submission to end, queue included.",
            Query(mean, "{{pipeline}}"), unit=SECONDS, width=8,
        ),
    ), Id.THROUGHPUT_ROW)  # fmt: skip


def _cost(settings: Settings) -> Section:
    day, week = settings.durations(DAY), settings.durations(_WEEK * DAY)
    usual = Expr(f"sum({grown(_COST, week)})") / number(_WEEK)
    return Section("Cost", (
        timeseries(
            Id.COST_PER_DAY, "Cost per day and pipeline",
            "What each day cost, by pipeline; the line is the average day of the last seven.",
            Query(sum_by(("pipeline",), grown(_COST, day)), "{{pipeline}}"), Query(usual, "average of 7 days"),
            unit=DOLLARS, width=12, bars=True, stacked=True, interval=day, overrides=[_AVERAGE],
        ),
        _trend(day, week),
        timeseries(
            Id.WASTE_BY_KIND, "Waste per day, by kind",
            "Money that bought no result: retries, losing speculative copies, evicted work, idle workers.",
            Query(sum_by(("kind",), grown(_WASTE, day)), "{{kind}}"), unit=DOLLARS, width=12, bars=True, stacked=True,
            overrides=coloured(tuple(CostKind)), interval=day,
        ),
        bars(
            Id.WASTE_TOTALS, "Where the money went", "Everything spent in this time range, by what it bought.",
            Query(sum_by(("kind",), grown(_COST)), "{{kind}}", instant=True), unit=DOLLARS, width=12,
            overrides=coloured(tuple(CostKind)),
        ),
    ), Id.COST_ROW)  # fmt: skip


_AVERAGE: Final = Override("average of 7 days", {
    "custom.drawStyle": "line", "custom.fillOpacity": 0, "custom.lineWidth": 2,
    "custom.stacking": {"mode": "none", "group": "B"}, "color": {"mode": "fixed", "fixedColor": "text"},
})  # fmt: skip


def _trend(day: str, week: str) -> Panel:
    """Return each pipeline's last day against its usual one."""

    def by_pipeline(selector: Expr, window: str) -> Expr:
        return sum_by(("pipeline",), grown(selector, window))

    last, usual = by_pipeline(_COST, day), by_pipeline(_COST, week) / number(_WEEK)
    jobs = by_pipeline(_S("mpp_job_cost_usd_count"), week) > number(0)
    queries = (
        last, usual, last / (usual > number(0)), by_pipeline(_S("mpp_job_cost_usd_sum"), week) / jobs,
        by_pipeline(_WASTE, week) / (by_pipeline(_COST, week) > number(0)),
    )  # fmt: skip
    return table(
        Id.COST_TREND, "Cost per pipeline, and its trend over 7 days",
        "The last day against the average day of the last seven; twice the usual raises MppCostSurge. Cost per job and "
        "waste are of the last seven days.",
        *(Query(query, instant=True) for query in queries),
        columns=(
            Column("pipeline", "Pipeline", links=[to_oncall()]),
            Column("Value #A", "Last day", DOLLARS, 100),
            Column("Value #B", "Usual day", DOLLARS, 100),
            Column("Value #C", "Trend", FACTOR, 90, 2, Steps((1.5, AMBER), (COST_FACTOR, RED)), "color-text"),
            Column("Value #D", "Per job", DOLLARS, 100),
            Column("Value #E", "Wasted", SHARE, 130, 0, Steps((0.15, AMBER), (0.3, RED)), "gauge", (0, 1)),
        ),
        width=12, order=("Last day", True),
    )  # fmt: skip
