"""What the dashboards share: their variables, marks, links from one to the next, and settings of a user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mppobs.catalog.alerts import ALERTS, Alert
from mppobs.catalog.panels import DEBUG, EXECUTIVE, ONCALL
from mppobs.render.dashboards.fields import AMBER, BLUE, GREEN, RED, Link, Steps
from mppobs.render.dashboards.model import Annotation, Variable
from mppobs.render.dashboards.queries import Scope
from mppobs.render.promql import Durations, Expr, metric
from mppobs.slo.windows import LEGS

TAG: Final = "mppobs"
PIPELINE: Final = ("cluster", "tenant", "pipeline")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose about dashboards."""

    sidecar_url: str = "http://127.0.0.1:9466"
    """Where a browser reaches the aggregator: its job pages and its runbooks."""
    traces: str = "tempo"
    """The uid of Grafana's data source for traces."""
    logs: str = "loki"
    """The uid of Grafana's data source for logs."""
    durations: Durations = field(default_factory=Durations)
    """How days are written; a drill divides them."""


def datasource() -> Variable:
    """Return the choice of the Prometheus to ask."""
    return Variable("datasource", "Data source", "prometheus", everything="", kind="datasource")


def narrowing(*names: str) -> tuple[Variable, ...]:
    """
    Return choices of label values, each narrowed by those before it.

    >>> narrowing("job", "pipeline")[1].query
    'label_values(mpp_pipeline_info{job=~"$job"}, pipeline)'
    """
    found: list[Variable] = []
    for name in names:
        label, words, source = _CHOICES[name]
        before = tuple(_CHOICES[each.name][0] for each in found if each.name != "instance")
        selector = Scope(before)(source)
        everything = ".+" if name in ("job", "instance") else ".*"
        found.append(Variable(name, words, f"label_values({selector}, {label})", everything))
    return tuple(found)


_CHOICES: Final[dict[str, tuple[str, str, str]]] = {
    "job": ("job", "Job", "mppobs_build_info"),
    "instance": ("instance", "Instance", "mppobs_build_info"),
    "cluster": ("cluster", "Cluster", "mpp_pipeline_info"),
    "tenant": ("tenant", "Tenant", "mpp_pipeline_info"),
    "pipeline": ("pipeline", "Pipeline", "mpp_pipeline_info"),
    "stage": ("stage", "Stage", "mpp_shards_total"),
    "run": ("job_id", "Run", "mpp_run_info"),
}
"""By variable: its label, its words, and a metric that has every value."""


def firing(**matchers: str) -> Expr:
    """Return the alerts of ours that fire. They carry no `job`, and those of the tool itself no pipeline."""
    return metric("ALERTS", alertname="~Mpp.+", alertstate="firing", **matchers)


SEVERITY_STEPS: Final = Steps((1, AMBER), (2, RED))
SEVERITY_WORDS: Final[dict[float | str, tuple[str, str]]] = {
    0: ("ok", GREEN), 1: ("TICKET", AMBER), 2: ("PAGE", RED),
}  # fmt: skip


def marks(scope: Scope) -> tuple[Annotation, ...]:
    """Return what is marked on every picture: alerts while they fire, jobs while they run."""
    runs = scope("mpp_run_info", state="running")
    return (
        Annotation("Alerts", firing(pipeline="~$pipeline|"), "{{alertname}} {{pipeline}}", RED),
        Annotation("Job runs", runs, "{{pipeline}}: {{job_id}}", BLUE, shown=False),
    )


def to_debug(title: str = "Why: the debug dashboard", **chosen: str) -> Link:
    """Return a link to the debug dashboard that keeps the time and what was chosen."""
    return _drill(DEBUG, title, chosen or {"pipeline": "${__data.fields.Pipeline}"})


def to_oncall(title: str = "What is wrong: the on-call dashboard", **chosen: str) -> Link:
    """Return a link to the on-call dashboard that keeps the time and what was chosen."""
    return _drill(ONCALL, title, chosen or {"pipeline": "${__data.fields.Pipeline}"})


def to_executive(title: str = "What it costs: the executive dashboard") -> Link:
    """Return a link to the executive dashboard that keeps the time and what was chosen."""
    return _drill(EXECUTIVE, title, {"pipeline": "${__data.fields.Pipeline}"})


def _drill(uid: str, title: str, chosen: dict[str, str]) -> Link:
    kept = ["${datasource:queryparam}", "${job:queryparam}", "${cluster:queryparam}", "${tenant:queryparam}"]
    given = [f"var-{name}={value}" for name, value in chosen.items()]
    return Link(title, f"/d/{uid}?" + "&".join(["${__url_time_range}", *kept, *given]))


def burn_steps(window: int) -> Steps:
    """
    Return the colours of a burn rate over a window: what a leg of that length would ask of somebody.

    >>> burn_steps(3600).bounds
    ((1.0, 'orange'), (14.4, 'red'))
    """
    legs = [leg for leg in LEGS if window in (leg.long_seconds, leg.short_seconds)]
    bounds: dict[float, str] = {1.0: AMBER}
    factors = sorted({leg.factor(30) for leg in legs if leg.severity.value == "page"})
    bounds |= {float(factor): RED for factor in factors[:1]}
    return Steps(*sorted(bounds.items()))


def alerts_by_command() -> dict[str, tuple[Alert, ...]]:
    """Return the alerts that say the same next command."""
    found: dict[str, tuple[Alert, ...]] = {}
    for alert in ALERTS:
        if alert.name != "Watchdog":
            found[alert.next_command] = (*found.get(alert.next_command, ()), alert)
    return found
