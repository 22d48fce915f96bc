"""
What makes each alert fire and what just does not: one table, the only home of the proofs' inputs.

Thresholds are those of `mppobs.render.expressions`, imported; the figures beside them are one step to either side.
Series are lines: a value at the start and a growth per step, since a counter that grows steadily has the same rate
in every version of Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from mppobs.catalog.foresight import Weight
from mppobs.model import StragglerCause
from mppobs.render.expressions import (
    CHECKPOINT_SECONDS,
    COMPLETENESS_PERCENT,
    COST_FACTOR,
    HEARTBEAT_SECONDS,
    LAG_SECONDS,
    MEMORY_PERCENT,
    MIN_ATTEMPTS,
    NETWORK_ERRORS_PER_SECOND,
    RETRY_SHARE_PERCENT,
    TAIL_RATIO,
    THROTTLED_PER_SECOND,
    THROTTLED_SHARE_PERCENT,
    WORKERS_LOST,
)  # fmt: skip

Number = int | Fraction
WHERE: Final = {"cluster": "east", "tenant": "acme", "pipeline": "nightly"}
_STAGE: Final = {**WHERE, "stage": "join"}
_RUN: Final = {**WHERE, "job_id": "n-17"}
_SLO: Final = {"slo": "risk/spend"}
_SLO_INFO: Final = {**_SLO, "owner": "scoring", "tier": "standard", "tenant": "acme", "pipeline": "nightly"}
_TEN_MINUTES: Final = 10
"""Steps of a minute."""


@dataclass(frozen=True, slots=True)
class Line:
    """An input series: straight pieces, each a number of steps with one growth per step."""

    name: str
    labels: Mapping[str, str]
    start: Number
    pieces: tuple[tuple[Number, int], ...] = ()
    """Growth per step and number of steps; the last goes on to the end."""


@dataclass(frozen=True, slots=True)
class Case:
    """One situation."""

    what: str
    lines: tuple[Line, ...]
    fires: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the series that fires, beside those that every alert of the kind has."""
    value: Number = 0
    """What the alert reports."""
    grows: bool = False
    """Whether what it reports grows by one each second."""
    since: int = 0
    """Seconds into the test at which the condition holds."""
    sharp: bool = True
    """Whether it did not hold an evaluation earlier; rates have no such instant."""
    ticket: bool = False
    """Whether it opens a ticket for a critical pipeline too."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The situations of one alert."""

    cases: tuple[Case, ...]
    step: int = 60
    """Seconds between scrapes."""
    evaluation: int = 0
    """Seconds between evaluations; as many as between scrapes where 0."""

    @property
    def pace(self) -> int:
        """Return the seconds between evaluations."""
        return self.evaluation or self.step


def _flat(name: str, value: Number, labels: Mapping[str, str] = WHERE, /, **more: str) -> Line:
    return Line(name, {**labels, **more}, value)


def _grows(name: str, per_step: Number, labels: Mapping[str, str] = WHERE, /, **more: str) -> Line:
    return Line(name, {**labels, **more}, 1000, ((per_step, 0),))


def _rate(name: str, per_second: int, what: str, labels: Mapping[str, str] = WHERE, /, **more: str) -> Cause:
    """Return the situations of an alert on a rate per second, with a step of a minute."""
    above, below = per_second * 60 + 1, per_second * 60 - 1
    return Cause((
        Case(f"{what} just above", (_grows(name, above, labels, **more),), True, labels, Fraction(above, 60),
             since=900, sharp=False),
        Case(f"{what} just below", (_grows(name, below, labels, **more),)),
    ))  # fmt: skip


def _tail(tail: Number, idle: Number) -> tuple[Line, ...]:
    return (_flat("mpp_tail_ratio", tail, _STAGE), _flat("mpp_skew_idle_ratio", idle, _STAGE))


def _heart(start: int, per_step: int, running: int) -> tuple[Line, ...]:
    return (
        Line("mpp_coordinator_heartbeat_timestamp_seconds", WHERE, start, ((per_step, 0),)),
        _flat("mpp_jobs_current", running, state="running"),
        _flat("mpp_jobs_current", 0, state="pending"),
    )


def _attempts(retries: int, attempts: int) -> tuple[Line, ...]:
    return (
        _grows("mpp_retries_total", retries, _STAGE),
        _grows("mpp_attempts_total", attempts - retries, _STAGE, outcome="success"),
        _grows("mpp_attempts_total", retries, _STAGE, outcome="failure"),
    )


def _cpu(throttled: int) -> tuple[Line, ...]:
    return (
        _grows("mpp_cpu_throttled_seconds_total", throttled),
        _grows("mpp_attempt_wall_seconds_total", 100, _STAGE),
    )


def _cost(usual: Number, surge: Number) -> tuple[Line, ...]:
    """Return a week at the usual cost per five minutes, and then more."""
    return (Line("mpp_cost_usd_total", {**WHERE, "kind": "cpu"}, 1000, ((usual, 7 * _DAY), (surge, 0))),)


def _surge() -> Fraction:
    """
    Return how many times its usual a day costs when the surge is looked at.

    That is between two scrapes: Prometheus 3 leaves out a sample at the beginning of a window, Prometheus 2 does not.
    The steps between the samples in a window, of which there is one less than samples, stand for the whole of it.
    """
    day = Fraction(_DAY - 1 + _SURGE_STEPS * (_SURGED - 1), _DAY - 1) * _DAY
    week = Fraction(7 * _DAY - 1 + _SURGE_STEPS * (_SURGED - 1), 7 * _DAY - 1) * 7 * _DAY
    return 7 * day / week


def _late(kind: Weight) -> tuple[Line, ...]:
    return (_flat("mpp_run_predicted_late_seconds", 90, _RUN, kind=kind),)


def _ended(state: str, tier: str) -> tuple[Line, ...]:
    return (_flat("mpp_run_info", 1, _RUN, owner="scoring", tier=tier, state=state),)


def _failed(state: str) -> Case:
    labels = {**_RUN, "owner": "scoring", "tier": "critical", "state": state}
    return Case(f"a critical run ends with {state}", _ended(state, "critical"), True, labels, 1)


def _spent(left: Number, kind: str = "spend") -> tuple[Line, ...]:
    return (_flat("mpp_slo_budget_left_ratio", left, _SLO), _flat("mpp_slo_info", 1, _SLO_INFO, kind=kind))


def _up(job: str, *values: int) -> tuple[Line, ...]:
    return tuple(_flat("up", up, {"job": job, "instance": f"twin-{i}"}) for i, up in enumerate(values))


_SHARE_ABOVE: Final = RETRY_SHARE_PERCENT + 1
_LAG: Final = {"job": "mppobs", "instance": "twin-0"}
_RULES: Final = {"job": "prometheus", "rule_group": "/etc/prometheus/rules/mppobs-work.yaml;mppobs-work"}
_HEART_STEP: Final = 15
_SURGED: Final = 49
"""Times the usual: two hours of it make a day stand out of its week."""
_DAY: Final = 288
"""Steps of five minutes."""
_SURGE_STEPS: Final = 22
"""How old the surge is when it is looked at, and half a step more."""

_CAUSES: Final[Mapping[str, Cause]] = {
    "MppPartitionSkew": Cause((
        Case("a long tail and idle workers", _tail(TAIL_RATIO + Fraction(1, 10), Fraction(51, 100)), True, _STAGE,
             TAIL_RATIO + Fraction(1, 10)),
        Case("a straggler with more to do",
             (_flat("mpp_stragglers_current", 2, cause=StragglerCause.SKEW),
              _flat("mpp_straggler_seconds", 900, _STAGE, job_id="n-17", shard_id="7", rank="1",
                    cause=StragglerCause.SKEW)),
             True, _STAGE, 2),
        Case("a straggler that is not among the worst",
             (_flat("mpp_stragglers_current", 1, cause=StragglerCause.SKEW),), True, WHERE, 1),
        Case("a tail just short enough", _tail(TAIL_RATIO, Fraction(51, 100))),
        Case("a long tail that holds nobody up", _tail(TAIL_RATIO + 1, Fraction(50, 100))),
        Case("a straggler for another cause",
             (_flat("mpp_stragglers_current", 2, cause=StragglerCause.SLOW_NODE),
              _flat("mpp_straggler_seconds", 900, _STAGE, job_id="n-17", shard_id="7", rank="1",
                    cause=StragglerCause.SLOW_NODE))),
    )),
    "MppShuffleOverload": _rate(
        "mpp_network_errors_total", NETWORK_ERRORS_PER_SECOND, "failed transfers", kind="unspecified"),
    "MppStorageThrottled": _rate(
        "mpp_storage_throttled_requests_total", THROTTLED_PER_SECOND, "throttled requests",
        {**WHERE, "kind": "unspecified"}),
    "MppCoordinatorDown": Cause((
        Case("silence while a job runs", _heart(0, 0, 1), True, WHERE, grows=True,
             since=_HEART_STEP * (HEARTBEAT_SECONDS // _HEART_STEP + 1)),
        Case("a heartbeat just young enough", _heart(-HEARTBEAT_SECONDS, _HEART_STEP, 1)),
        Case("silence without work", _heart(0, 0, 0)),
    ), _HEART_STEP),
    "MppRetryStorm": Cause((
        Case("retries just above their share", _attempts(_SHARE_ABOVE, 100), True, WHERE, Fraction(_SHARE_ABOVE, 100),
             since=1200, sharp=False),
        Case("retries just below their share", _attempts(RETRY_SHARE_PERCENT - 1, 100)),
        Case("too few attempts to tell", _attempts(1, MIN_ATTEMPTS // _TEN_MINUTES - 1)),
    )),
    "MppWorkersLost": Cause((
        Case("one more lost than is an accident",
             (_grows("mpp_workers_lost_total", Fraction(WORKERS_LOST + 1, _TEN_MINUTES), {"cluster": "east"},
                     reason="node_lost"),),
             True, {"cluster": "east"}, WORKERS_LOST + 1, since=1200, sharp=False),
        Case("one fewer",
             (_grows("mpp_workers_lost_total", Fraction(WORKERS_LOST - 1, _TEN_MINUTES), {"cluster": "east"},
                     reason="node_lost"),)),
        Case("one loss that twins tell of",
             tuple(_grows("mpp_workers_lost_total", Fraction(WORKERS_LOST - 1, _TEN_MINUTES), {"cluster": "east"},
                          reason="node_lost", instance=f"twin-{i}") for i in range(2))),
        Case("workers that were taken back",
             (_grows("mpp_workers_lost_total", 1, {"cluster": "east"}, reason="preempted"),)),
    )),
    "MppWorkerStarved": Cause((
        Case("kills for memory", (_grows("mpp_oom_kills_total", 1),), True, WHERE, 10, since=1200, sharp=False),
        Case("memory nearly full",
             (_flat("mpp_worker_memory_ratio", Fraction(MEMORY_PERCENT + 1, 100), quantile="0.9"),), True, WHERE,
             Fraction(MEMORY_PERCENT + 1, 100)),
        Case("throttled CPU", _cpu(THROTTLED_SHARE_PERCENT + 1), True, WHERE,
             Fraction(THROTTLED_SHARE_PERCENT + 1, 100), since=900, sharp=False),
        Case("no kills", (_flat("mpp_oom_kills_total", 7),)),
        Case("memory just not full",
             (_flat("mpp_worker_memory_ratio", Fraction(MEMORY_PERCENT, 100), quantile="0.9"),
              _flat("mpp_worker_memory_ratio", 1, quantile="1"))),
        Case("hardly throttled CPU", _cpu(THROTTLED_SHARE_PERCENT - 1)),
    )),
    "MppCostSurge": Cause((
        Case("a day that costs more", _cost(1, _SURGED), True, WHERE, _surge(), since=7 * 86400 + 2700),
        Case("a day that costs hardly more", _cost(1, COST_FACTOR)),
        Case("more of a trifle", _cost(Fraction(1, 2000), Fraction(_SURGED, 2000))),
    ), 300, 4050),
    "MppDeadlineAtRisk": Cause((
        Case("a finish after the deadline", _late(Weight.CHARGE), True, _RUN, 90),
        Case("a finish that is feared to be late", _late(Weight.WARNING), True, _RUN, 90, ticket=True),
        Case("a finish just in time",
             (_flat("mpp_run_predicted_finish_timestamp_seconds", 5000, _RUN),
              _flat("mpp_run_deadline_timestamp_seconds", 5000, _RUN))),
    )),
    "MppCriticalJobFailed": Cause((
        _failed("failure"),
        _failed("error"),
        Case("a standard run fails", _ended("failure", "standard")),
        Case("a critical run succeeds", _ended("success", "critical")),
    )),
    "MppCheckpointStale": Cause((
        Case("too long since a checkpoint", (_flat("mpp_checkpoint_lag_seconds", CHECKPOINT_SECONDS + 1),), True, WHERE,
             CHECKPOINT_SECONDS + 1),
        Case("just not too long", (_flat("mpp_checkpoint_lag_seconds", CHECKPOINT_SECONDS),)),
    )),
    "MppQuotaExhausted": Cause((
        Case("nothing is left to spend", _spent(0), True, _SLO_INFO, 0),
        Case("a little is left", _spent(Fraction(1, 1000))),
        Case("a budget that is not money", _spent(0, "shard-success")),
    )),
    "MppTelemetryIncomplete": Cause((
        Case("too many attempts unrecorded",
             (_flat("mpp_telemetry_completeness_ratio", Fraction(COMPLETENESS_PERCENT - 1, 100)),), True, WHERE,
             Fraction(COMPLETENESS_PERCENT - 1, 100)),
        Case("nearly all recorded",
             (_flat("mpp_telemetry_completeness_ratio", Fraction(COMPLETENESS_PERCENT, 100)),)),
    )),
    "MppSidecarLagging": Cause((
        Case("too far behind", (_flat("mppobs_lag_seconds", LAG_SECONDS + 1, _LAG),), True, _LAG, LAG_SECONDS + 1),
        Case("just not too far", (_flat("mppobs_lag_seconds", LAG_SECONDS, _LAG),)),
    )),
    "MppRulesFailing": Cause((
        Case("a group of ours fails", (_grows("prometheus_rule_evaluation_failures_total", 1, _RULES),),
             True, _RULES, 5, since=900, sharp=False),
        Case("none fails any more", (_flat("prometheus_rule_evaluation_failures_total", 3, _RULES),)),
        Case("somebody else's group fails",
             (_grows("prometheus_rule_evaluation_failures_total", 1, {"rule_group": "/etc/node.yaml;node"}),)),
    )),
    "Watchdog": Cause((Case("always", (), True, {}, 1),)),
}  # fmt: skip
"""By alert, where the input does not depend on the settings."""


def causes(job: str) -> Mapping[str, Cause]:
    """
    Return the situations of every alert but `MppSloBurn`, which is proved leg by leg from simulated traffic.

    `job` is the label under which aggregators are scraped.
    """
    absent = Cause((
        Case("nobody is there to be scraped", (), True, {"job": job}, 1),
        Case("both twins are down", _up(job, 0, 0), True, {}, 0),
        Case("one twin is up", _up(job, 0, 1)),
    ))  # fmt: skip
    return {**_CAUSES, "MppTelemetryAbsent": absent}
