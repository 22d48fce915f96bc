"""
The dashboards and their panels by number, so that alerts, runbooks and links can name them and not lose them.

A panel keeps its number for good: links hold it. New panels take free numbers; rows count in hundreds. The panels
themselves are in `mppobs.render.dashboards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

EXECUTIVE: Final = "mppobs-exec"
ONCALL: Final = "mppobs-oncall"
DEBUG: Final = "mppobs-debug"
SELF: Final = "mppobs-self"


class ExecutivePanel(IntEnum):
    """What leadership and FinOps look at."""

    ON_TIME = 1
    JOBS_FINISHED = 2
    JOBS_FAILED = 3
    SHARDS_DONE = 4
    SPENT = 5
    WASTE_SHARE = 6
    PROMISES_ROW = 100
    PROMISES = 101
    BUDGET_LEFT = 102
    THROUGHPUT_ROW = 200
    JOBS_PER_DAY = 201
    SHARDS_PER_HOUR = 202
    JOB_DURATION = 203
    COST_ROW = 300
    COST_PER_DAY = 301
    COST_TREND = 302
    WASTE_BY_KIND = 303
    WASTE_TOTALS = 304


class OncallPanel(IntEnum):
    """What the on-call looks at."""

    PIPELINES = 1
    PAGES = 2
    RUNS_AT_RISK = 3
    SHARDS_FAILED = 4
    WORKERS_LOST = 5
    ALERTS = 6
    BURN_ROW = 100
    BURN = 101
    BURN_HISTORY = 102
    RUNS_ROW = 200
    RUNS = 201
    WORK_ROW = 300
    FAILED_SHARDS = 301
    RETRY_RATE = 302
    ATTEMPTS = 303
    PLATFORM_ROW = 400
    HEARTBEAT = 401
    WORKERS = 402
    LOSSES = 403
    NETWORK_ERRORS = 404
    THROTTLED = 405
    QUEUE = 406
    CHECKPOINT_LAG = 407
    HISTORY_ROW = 500
    ALERT_HISTORY = 501


class DebugPanel(IntEnum):
    """What an engineer looks at who wants to know why a run is slow."""

    RUNS = 1
    LATENCY_ROW = 100
    LATENCY = 101
    QUANTILES = 102
    STRAGGLERS_ROW = 200
    STRAGGLERS = 201
    STRAGGLER_CAUSES = 202
    TAIL = 203
    IDLE = 204
    EXCHANGE_ROW = 300
    SHUFFLE = 301
    SHUFFLE_BASELINE = 302
    NETWORK_ERRORS = 303
    THROTTLED = 304
    WORKERS_ROW = 400
    CPU = 401
    MEMORY = 402
    CPU_THROTTLED = 403
    OOM_KILLS = 404
    TIME_ROW = 500
    ACTIVITY = 501
    SCHEDULER_DELAY = 502
    CHECKPOINT_LAG = 503
    OUTCOMES = 504


class SelfPanel(IntEnum):
    """What whoever runs the tool itself looks at."""

    UP = 1
    LAG_NOW = 2
    COMPLETENESS_NOW = 3
    DROPPED_NOW = 4
    RULE_FAILURES_NOW = 5
    VERSION = 6
    TRUST_ROW = 100
    COMPLETENESS = 101
    LAG = 102
    SET_ASIDE = 103
    PREDICTIONS = 104
    INGEST_ROW = 200
    RECORDS = 201
    FOLD = 202
    JOURNALS = 203
    SHIPPING = 204
    TROUBLE = 205
    STUCK = 206
    SERIES_ROW = 300
    SERIES = 301
    SCRAPE = 302
    FOLDED = 303
    RULES_ROW = 400
    RULE_COST = 401
    RULE_FAILURES = 402
    TRACES_ROW = 500
    SPANS = 501
    ARCHIVE = 502


ALERT_PANELS: Final[Mapping[str, IntEnum]] = {
    "MppPartitionSkew": DebugPanel.STRAGGLERS,
    "MppShuffleOverload": DebugPanel.NETWORK_ERRORS,
    "MppStorageThrottled": DebugPanel.THROTTLED,
    "MppCoordinatorDown": OncallPanel.HEARTBEAT,
    "MppRetryStorm": OncallPanel.RETRY_RATE,
    "MppWorkersLost": OncallPanel.LOSSES,
    "MppWorkerStarved": DebugPanel.MEMORY,
    "MppCostSurge": ExecutivePanel.COST_TREND,
    "MppSloBurn": OncallPanel.BURN,
    "MppDeadlineAtRisk": OncallPanel.RUNS,
    "MppCriticalJobFailed": OncallPanel.RUNS,
    "MppCheckpointStale": OncallPanel.CHECKPOINT_LAG,
    "MppQuotaExhausted": ExecutivePanel.PROMISES,
    "MppTelemetryAbsent": SelfPanel.UP,
    "MppTelemetryIncomplete": SelfPanel.COMPLETENESS,
    "MppSidecarLagging": SelfPanel.LAG,
    "MppRulesFailing": SelfPanel.RULE_FAILURES,
    "Watchdog": SelfPanel.RULE_COST,
}
"""The panel that shows what an alert is about, on the alert's own dashboard."""

DASHBOARDS: Final[Mapping[str, type[IntEnum]]] = {
    EXECUTIVE: ExecutivePanel,
    ONCALL: OncallPanel,
    DEBUG: DebugPanel,
    SELF: SelfPanel,
}
"""The panels of each dashboard, by its uid."""


def dashboard_of(panel: IntEnum) -> str:
    """
    Return the uid of the dashboard that a panel is on.

    >>> dashboard_of(ALERT_PANELS["MppSloBurn"])
    'mppobs-oncall'
    """
    return next(uid for uid, panels in DASHBOARDS.items() if isinstance(panel, panels))


def panel_path(alert: str) -> str:
    """
    Return the path, below Grafana's address, of the panel that shows what an alert is about.

    >>> panel_path("MppRetryStorm")
    '/d/mppobs-oncall?viewPanel=302'
    """
    panel = ALERT_PANELS[alert]
    return f"/d/{dashboard_of(panel)}?viewPanel={panel.value}"
