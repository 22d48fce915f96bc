"""
Every alert with its one failure mode, its severity, who hears of it, and what to do next.

The expressions are in `mppobs.render.rules`; the pages in `runbooks/`. Alerts, runbooks and drills are one-to-one.
Annotations are Prometheus templates: `$labels` and `$value` are filled in when an alert fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mppobs.model import Severity


class Route(StrEnum):
    """Who hears of an alert. A page goes to the on-call and to the owner of the service."""

    ONCALL = "oncall"
    OWNER = "owner"
    FINOPS = "finops"
    HEARTBEAT = "heartbeat"
    """The dead man's switch: something outside notices when it stops."""


class FailureMode(StrEnum):
    """What goes wrong, as the requirements number it."""

    SKEW = "F1"
    SHUFFLE = "F2"
    HOT_KEY = "F3"
    COORDINATOR = "F4"
    RETRY_STORM = "F5"
    NODE_LOSS = "F6"
    STARVATION = "F7"
    COST = "cost"
    SLO = "slo"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, for exactly one failure mode."""

    name: str
    failure_mode: FailureMode
    severity: Severity
    """What it is for a standard pipeline; `critical_severity` where the tier is critical."""
    routes: tuple[Route, ...]
    summary: str
    """One plain sentence: what is breaking, for whom."""
    description: str
    """What it means and how long there is."""
    next_command: str
    """What to type first."""
    dashboard: str = "mppobs-oncall"
    for_seconds: int = 0
    keep_firing_seconds: int = 300
    critical_severity: Severity | None = None
    by_leg: tuple[tuple[str, str, str], ...] = ()
    """Summary and description for a value of the `leg` label, where the alert's own would not be true."""
    inhibited_by: tuple[str, ...] = ()
    """Alerts that are its likely cause: while one fires for the same pipeline or cluster, this one stays silent."""
    group: str = "mppobs-work"
    """The rule group that it is evaluated in."""

    @property
    def runbook(self) -> str:
        """Return the file name of its page, without the ending."""
        return self.name


_ONCALL: Final = (Route.ONCALL, Route.OWNER)
_JOB: Final = "{{ $labels.pipeline }} ({{ $labels.cluster }})"
_STATUS: Final = "mppobs status --pipeline {{ $labels.pipeline }}"
_JOBS: Final = "mppobs jobs --pipeline {{ $labels.pipeline }} --state running"

ALERTS: Final[tuple[Alert, ...]] = (
    Alert(
        "MppPartitionSkew", FailureMode.SKEW, Severity.TICKET, _ONCALL,
        f"{_JOB}: a few shards hold the job",
        "The slowest shards have far more to do than the others, and the other workers wait for them.",
        _JOBS, dashboard="mppobs-debug", for_seconds=300, inhibited_by=("MppWorkersLost",),
    ),
    Alert(
        "MppShuffleOverload", FailureMode.SHUFFLE, Severity.TICKET, _ONCALL,
        f"{_JOB}: transfers between workers fail",
        "{{ $value | humanize }} transfers per second fail, so shards are read again and the network gets no rest.",
        _JOBS, dashboard="mppobs-debug", for_seconds=300, inhibited_by=("MppWorkersLost",),
    ),
    Alert(
        "MppStorageThrottled", FailureMode.HOT_KEY, Severity.TICKET, _ONCALL,
        f"{_JOB}: storage throttles requests on {{{{ $labels.kind }}}}",
        "{{ $value | humanize }} requests per second are turned away; many workers are on one prefix.",
        _JOBS, dashboard="mppobs-debug", for_seconds=300,
    ),
    Alert(
        "MppCoordinatorDown", FailureMode.COORDINATOR, Severity.PAGE, _ONCALL,
        f"{_JOB}: the coordinator has gone silent",
        "No heartbeat for {{ $value | humanizeDuration }} while jobs are pending or running: nothing is dispatched.",
        _JOBS, for_seconds=30,
    ),
    Alert(
        "MppRetryStorm", FailureMode.RETRY_STORM, Severity.TICKET, _ONCALL,
        f"{_JOB}: shards are tried again and again",
        "{{ $value | humanizePercentage }} of all attempts are retries; each one is paid for.",
        _JOBS, for_seconds=300, critical_severity=Severity.PAGE,
        inhibited_by=("MppWorkersLost", "MppStorageThrottled", "MppShuffleOverload", "MppWorkerStarved"),
    ),
    Alert(
        "MppWorkersLost", FailureMode.NODE_LOSS, Severity.TICKET, (Route.ONCALL,),
        "Cluster {{ $labels.cluster }}: workers are being lost",
        "{{ $value | humanize }} workers were lost in ten minutes; jobs run with less and take longer.",
        "mppobs status", for_seconds=0,
    ),
    Alert(
        "MppWorkerStarved", FailureMode.STARVATION, Severity.TICKET, _ONCALL,
        f"{_JOB}: workers have too little memory or CPU",
        "Workers are killed for memory, are close to their limit, or are throttled by their CPU quota.",
        _JOBS, dashboard="mppobs-debug", for_seconds=300,
    ),
    Alert(
        "MppCostSurge", FailureMode.COST, Severity.TICKET, (Route.FINOPS, Route.OWNER),
        f"{_JOB}: costs {{{{ $value | humanize }}}} times its usual",
        "The last day cost far more than the average day of the past week.",
        _STATUS, dashboard="mppobs-exec", for_seconds=900,
    ),
    Alert(
        "MppSloBurn", FailureMode.SLO, Severity.TICKET, _ONCALL,
        "{{ $labels.slo }} spends its error budget {{ $value | humanize }} times too fast ({{ $labels.leg }})",
        "At this pace the budget of the period is gone long before the period is.",
        "mppobs slo status {{ $labels.slo }}", group="mppobs-slo",
        by_leg=((
            "latched",
            "{{ $labels.slo }}: the last run was bad",
            "It has too few runs for a rate, so this stays until a run is good again.",
        ),),
        inhibited_by=("MppCoordinatorDown", "MppTelemetryAbsent"),
    ),
    Alert(
        "MppDeadlineAtRisk", FailureMode.SLO, Severity.TICKET, _ONCALL,
        f"{_JOB}: run {{{{ $labels.job_id }}}} will miss its deadline",
        "It is expected to finish {{ $value | humanizeDuration }} too late at its present rate.",
        "mppobs job {{ $labels.job_id }}", for_seconds=60, critical_severity=Severity.PAGE,
        inhibited_by=("MppCoordinatorDown", "MppTelemetryAbsent"),
    ),
    Alert(
        "MppCriticalJobFailed", FailureMode.SLO, Severity.PAGE, _ONCALL,
        f"{_JOB}: run {{{{ $labels.job_id }}}} failed",
        "A run of a critical pipeline ended with {{ $labels.state }}; what waits for its output does not get it.",
        "mppobs job {{ $labels.job_id }}", keep_firing_seconds=900,
    ),
    Alert(
        "MppCheckpointStale", FailureMode.SLO, Severity.TICKET, _ONCALL,
        f"{_JOB}: no checkpoint for {{{{ $value | humanizeDuration }}}}",
        "If the job dies now, this much work is done again.",
        _JOBS, for_seconds=300, inhibited_by=("MppCoordinatorDown",),
    ),
    Alert(
        "MppQuotaExhausted", FailureMode.COST, Severity.PAGE, (Route.ONCALL, Route.OWNER, Route.FINOPS),
        "{{ $labels.slo }} has nothing left to spend in this period",
        "The spend budget is used up; further runs are over budget.",
        "mppobs slo status {{ $labels.slo }}", dashboard="mppobs-exec", group="mppobs-slo",
    ),
    Alert(
        "MppTelemetryAbsent", FailureMode.TOOL, Severity.PAGE, (Route.ONCALL,),
        "No sidecar answers: jobs run unseen",
        "Nothing is scraped from any aggregator, so silence of the other alerts means nothing.",
        "systemctl status mppobs-sidecar", dashboard="mppobs-self", for_seconds=120, group="mppobs-self",
    ),
    Alert(
        "MppTelemetryIncomplete", FailureMode.TOOL, Severity.TICKET, (Route.ONCALL,),
        f"{_JOB}: only {{{{ $value | humanizePercentage }}}} of the attempts are recorded",
        "Attempts were dispatched of which no record came; every figure of this pipeline is a lower bound.",
        _STATUS, dashboard="mppobs-self", for_seconds=300, inhibited_by=("MppTelemetryAbsent", "MppWorkersLost"),
    ),
    Alert(
        "MppSidecarLagging", FailureMode.TOOL, Severity.TICKET, (Route.ONCALL,),
        "{{ $labels.instance }} is {{ $value | humanizeDuration }} behind the journals",
        "What is shown and alerted on is as old as the lag.",
        "mppobs status", dashboard="mppobs-self", for_seconds=300, group="mppobs-self",
    ),
    Alert(
        "MppRulesFailing", FailureMode.TOOL, Severity.PAGE, (Route.ONCALL,),
        "Prometheus cannot evaluate {{ $labels.rule_group }}",
        "Alerts of the group do not work until it can.",
        "promtool check rules rules/*.yaml", dashboard="mppobs-self", for_seconds=300, group="mppobs-self",
    ),
    Alert(
        "Watchdog", FailureMode.TOOL, Severity.TICKET, (Route.HEARTBEAT,),
        "The alerting pipeline works",
        "This alert always fires. The receiver outside raises the alarm when it stops.",
        "amtool alert query Watchdog", dashboard="mppobs-self", keep_firing_seconds=0, group="mppobs-self",
    ),
)  # fmt: skip

BY_NAME: Final[dict[str, Alert]] = {alert.name: alert for alert in ALERTS}
"""The table by alert name."""
