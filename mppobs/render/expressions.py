"""
What each alert of the catalogue watches for, as PromQL. Thresholds stand here with their source.

Every function returns the series that are in trouble, with the value that the alert's text speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from mppobs.catalog.foresight import Weight
from mppobs.model import StragglerCause, Tier
from mppobs.render.promql import (
    Durations,
    Expr,
    Match,
    all_of,
    binary,
    call,
    increase,
    max_by,
    max_without,
    metric,
    number,
    offset,
    rate,
    sum_by,
)  # fmt: skip

PIPELINE: Final = ("cluster", "tenant", "pipeline")
STAGE: Final = (*PIPELINE, "stage")
RUN: Final = (*PIPELINE, "job_id")

TAIL_RATIO: Final = 3
"""p99 ÷ median. Spark 4.0 speculates from 3 × the median on (SPARK-47720)."""
NETWORK_ERRORS_PER_SECOND: Final = 1
THROTTLED_PER_SECOND: Final = 1
HEARTBEAT_SECONDS: Final = 30
"""Six missed heartbeats of five seconds: dead, not late."""
RETRY_SHARE_PERCENT: Final = 20
"""Finagle and Envoy stop retrying at a fifth of the traffic: beyond that retries are the load."""
MIN_ATTEMPTS: Final = 20
"""In ten minutes: fewer say nothing about a rate."""
WORKERS_LOST: Final = 2
"""In ten minutes: one is an accident."""
MEMORY_PERCENT: Final = 95
THROTTLED_SHARE_PERCENT: Final = 25
COST_FACTOR: Final = 2
DAY: Final = 86400
CHECKPOINT_SECONDS: Final = 3600
COMPLETENESS_PERCENT: Final = 99
LAG_SECONDS: Final = 60

INSTANCE_LABELS: Final = ("instance", "pod", "job")
"""What tells twins of an aggregator apart; the larger figure of twins is the truth."""

Builder = Callable[[Durations, str], Expr]
"""Takes how durations are written and the `job` label of the aggregators."""


def _skew(durations: Durations, job: str) -> Expr:
    """
    A stage whose tail is long and idle; else stragglers, now, that are slow because they have more to do.

    Stragglers are counted by pipeline; the stages are those of the worst ones, where these are among the shown.
    """
    tail = metric("mpp_tail_ratio") > number(TAIL_RATIO)
    idle = metric("mpp_skew_idle_ratio") > _percent(50)
    ended = max_by(STAGE, all_of(tail, idle, on=STAGE))
    running = max_by(PIPELINE, metric("mpp_stragglers_current", cause=StragglerCause.SKEW.value)) > number(0)
    stages = max_by(STAGE, metric("mpp_straggler_seconds", cause=StragglerCause.SKEW.value)) * number(0)
    staged = binary(stages, "+", running, Match(on=PIPELINE, group_left=()))
    return ended | binary(staged, "or", running, Match(on=PIPELINE))


def _shuffle(durations: Durations, job: str) -> Expr:
    errors = sum_by(PIPELINE, _rate("mpp_network_errors_total", 300, durations))
    return errors > number(NETWORK_ERRORS_PER_SECOND)


def _throttled(durations: Durations, job: str) -> Expr:
    requests = sum_by((*PIPELINE, "kind"), _rate("mpp_storage_throttled_requests_total", 300, durations))
    return requests > number(THROTTLED_PER_SECOND)


def _coordinator(durations: Durations, job: str) -> Expr:
    """A heartbeat that is old although there is work: a pipeline that is idle owes nobody a heartbeat."""
    age = call("time") - max_by(PIPELINE, metric("mpp_coordinator_heartbeat_timestamp_seconds"))
    waiting = sum_by(PIPELINE, metric("mpp_jobs_current")) > number(0)
    return all_of(age > _scaled(HEARTBEAT_SECONDS, durations), waiting, on=PIPELINE)


def _retries(durations: Durations, job: str) -> Expr:
    retries = sum_by(PIPELINE, _growth(metric("mpp_retries_total"), 600, durations))
    attempts = sum_by(PIPELINE, _growth(metric("mpp_attempts_total"), 600, durations)) > number(MIN_ATTEMPTS)
    return retries / attempts > _percent(RETRY_SHARE_PERCENT)


def _workers_lost(durations: Durations, job: str) -> Expr:
    lost = metric("mpp_workers_lost_total", reason="~worker_lost|oom_killed|node_lost")
    return sum_by(("cluster",), _growth(lost, 600, durations)) >= number(WORKERS_LOST)


def _starved(durations: Durations, job: str) -> Expr:
    killed = sum_by(PIPELINE, _growth(metric("mpp_oom_kills_total"), 600, durations)) > number(0)
    full = max_by(PIPELINE, metric("mpp_worker_memory_ratio", quantile="0.9")) > _percent(MEMORY_PERCENT)
    stalled = sum_by(PIPELINE, _rate("mpp_cpu_throttled_seconds_total", 300, durations))
    working = sum_by(PIPELINE, _rate("mpp_attempt_wall_seconds_total", 300, durations)) > number(0)
    held_up = stalled / working > _percent(THROTTLED_SHARE_PERCENT)
    return killed | full | held_up


def _cost(durations: Durations, job: str) -> Expr:
    """
    The last day against the average day of a week, for pipelines that cost more than a trifle.

    Whole days, since a nightly run spends all of a day's money in an hour; and only once there is a week to compare.
    """
    spent = metric("mpp_cost_usd_total")
    day = sum_by(PIPELINE, _growth(spent, DAY, durations))
    usual = sum_by(PIPELINE, _growth(spent, 7 * DAY, durations)) / number(7) > number(0)
    week_ago = sum_by(PIPELINE, offset(spent, 7 * DAY, durations))
    return all_of(day / usual > number(COST_FACTOR), day > number(1), week_ago, on=PIPELINE)


def _deadline(durations: Durations, job: str) -> Expr:
    return max_by(RUN, metric("mpp_run_predicted_late_seconds"))


def _surely_late(durations: Durations, job: str) -> Expr:
    return max_by(RUN, metric("mpp_run_predicted_late_seconds", kind=Weight.CHARGE.value))


def _perhaps_late(durations: Durations, job: str) -> Expr:
    return max_by(RUN, metric("mpp_run_predicted_late_seconds", kind=Weight.WARNING.value))


def _critical_failed(durations: Durations, job: str) -> Expr:
    return max_by((*RUN, "owner", "tier", "state"), metric("mpp_run_info", tier="critical", state="~failure|error"))


def _checkpoint(durations: Durations, job: str) -> Expr:
    return max_by(PIPELINE, metric("mpp_checkpoint_lag_seconds")) > _scaled(CHECKPOINT_SECONDS, durations)


def _quota(durations: Durations, job: str) -> Expr:
    left = max_by(("slo",), metric("mpp_slo_budget_left_ratio"))
    spend = max_by(("slo", "owner", "tier", "pipeline", "tenant"), metric("mpp_slo_info", kind="spend"))
    joined = Match(on=("slo",), group_left=("owner", "tier", "pipeline", "tenant"))
    return binary(left <= number(0), "+", spend * number(0), joined)


def _absent(durations: Durations, job: str) -> Expr:
    up = metric("up", job=job)
    return call("absent", up) | (call("max", up) < number(1))


def _incomplete(durations: Durations, job: str) -> Expr:
    return max_by(PIPELINE, metric("mpp_telemetry_completeness_ratio")) < _percent(COMPLETENESS_PERCENT)


def _lagging(durations: Durations, job: str) -> Expr:
    return metric("mppobs_lag_seconds") > _scaled(LAG_SECONDS, durations)


def _rules(durations: Durations, job: str) -> Expr:
    return increase(
        metric("prometheus_rule_evaluation_failures_total", rule_group="~.*mppobs.*"), 300, durations
    ) > number(0)


def _watchdog(durations: Durations, job: str) -> Expr:
    return call("vector", number(1))


CONDITIONS: Final[Mapping[str, Builder]] = {
    "MppPartitionSkew": _skew,
    "MppShuffleOverload": _shuffle,
    "MppStorageThrottled": _throttled,
    "MppCoordinatorDown": _coordinator,
    "MppRetryStorm": _retries,
    "MppWorkersLost": _workers_lost,
    "MppWorkerStarved": _starved,
    "MppCostSurge": _cost,
    "MppDeadlineAtRisk": _deadline,
    "MppCriticalJobFailed": _critical_failed,
    "MppCheckpointStale": _checkpoint,
    "MppQuotaExhausted": _quota,
    "MppTelemetryAbsent": _absent,
    "MppTelemetryIncomplete": _incomplete,
    "MppSidecarLagging": _lagging,
    "MppRulesFailing": _rules,
    "Watchdog": _watchdog,
}
"""Every alert but `MppSloBurn`, whose legs are computed in `mppobs.render.rules`."""


CRITICAL: Final[Mapping[str, tuple[Builder, Builder]]] = {"MppDeadlineAtRisk": (_surely_late, _perhaps_late)}
"""
What pages for a critical pipeline, and what is a ticket for it too, where that is not the whole condition.

A prediction pages once the pipeline's predictions have proved right often enough.
"""

BY_PIPELINE: Final = frozenset({
    "MppPartitionSkew", "MppShuffleOverload", "MppStorageThrottled", "MppCoordinatorDown", "MppRetryStorm",
    "MppWorkerStarved", "MppCostSurge", "MppDeadlineAtRisk", "MppCheckpointStale", "MppTelemetryIncomplete",
})  # fmt: skip
"""Alerts whose series carry a pipeline, to which its owner and tier are added."""


def with_owner(expr: Expr, tiers: tuple[Tier, ...] = tuple(Tier)) -> Expr:
    """Return an expression by pipeline with `owner` and `tier` added, for the pipelines of some tiers only."""
    wanted = {} if len(tiers) == len(Tier) else {"tier": "~" + "|".join(tier.value for tier in tiers)}
    info = max_by((*PIPELINE, "owner", "tier"), metric("mpp_pipeline_info", **wanted))
    return binary(expr, "*", info, Match(on=PIPELINE, group_left=("owner", "tier")))


def _rate(counter: str, seconds: int, durations: Durations) -> Expr:
    """Return the rate of a busy counter, of twins once."""
    return max_without(INSTANCE_LABELS, rate(metric(counter), seconds, durations))


def _growth(counter: Expr, seconds: int, durations: Durations) -> Expr:
    """Return the growth of a busy counter, of twins once."""
    return max_without(INSTANCE_LABELS, increase(counter, seconds, durations))


def _percent(value: int) -> Expr:
    return number(Fraction(value, 100))


def _scaled(seconds: int, durations: Durations) -> Expr:
    return number(durations.scaled(seconds))
