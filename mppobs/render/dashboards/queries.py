"""
Queries of panels: selectors that obey the dashboard's variables, and names that exist.

A name or label that the catalogue, the recording rules or the list of others' metrics does not have is refused while
the dashboard is built, with the nearest right word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mppobs.catalog.metrics import BY_NAME, Type
from mppobs.errors import ConfigError, nearest
from mppobs.render.promql import Expr, Match, binary, call, max_without, metric, number
from mppobs.render.rules import INFO, Recording, groups

RATE_INTERVAL: Final = "$__rate_interval"
"""Grafana's own: wide enough for four scrapes, and for one step of the picture."""
INTERVAL: Final = "$__interval"
"""Grafana's own: the distance of two points, so that bars add up to the whole."""
RANGE: Final = "$__range"
"""Grafana's own: what the time picker spans."""

SCRAPED: Final = ("job", "instance")
"""Labels that Prometheus adds to whatever it scrapes."""

OTHERS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "up": (SCRAPED, ""),
    "scrape_samples_scraped": (SCRAPED, ""),
    "scrape_duration_seconds": (SCRAPED, "seconds"),
    "ALERTS": ((), ""),
    "ALERTS_FOR_STATE": ((), "timestamp"),
    "prometheus_rule_group_last_duration_seconds": ((*SCRAPED, "rule_group"), "seconds"),
    "prometheus_rule_group_interval_seconds": ((*SCRAPED, "rule_group"), "seconds"),
    "prometheus_rule_evaluation_failures_total": ((*SCRAPED, "rule_group"), ""),
}
"""Metrics that Prometheus itself makes: their labels and units. Those of alerts carry whatever the alert carries."""

ALERT_LABELS: Final = frozenset({
    "alertname", "alertstate", "severity", "failure_mode", "pipeline", "cluster", "tenant", "slo", "leg", "window",
    "job_id", "owner", "tier", "stage", "kind", "state", "instance", "rule_group",
})  # fmt: skip
"""What an alert's series may be asked for."""

VARIABLES: Final[Mapping[str, str]] = {
    "job": "job", "instance": "instance", "cluster": "cluster", "tenant": "tenant", "pipeline": "pipeline",
    "stage": "stage", "job_id": "run",
}  # fmt: skip
"""The variable that narrows each label, where a dashboard has it."""

_SUFFIXES: Final = {
    Type.HISTOGRAM: ("_bucket", "_count", "_sum"),
    Type.SUMMARY: ("_count", "_sum"),
}


def _recorded() -> dict[str, frozenset[str]]:
    names = (rule.record for group in groups() for rule in group.rules if isinstance(rule, Recording))
    info = frozenset(BY_NAME["mpp_slo_info"].labels)
    return {name: info if name == INFO else frozenset({"slo"}) for name in names}


RECORDED: Final[Mapping[str, frozenset[str]]] = _recorded()
"""Every recording rule, with the labels that its series carry."""


def labels_of(name: str) -> frozenset[str]:
    """
    Return the labels that a metric's series carry. Raises ConfigError for a name that nobody exposes.

    >>> sorted(labels_of("mpp_worker_memory_ratio"))
    ['cluster', 'instance', 'job', 'pipeline', 'quantile', 'tenant']
    """
    if name.startswith("ALERTS"):
        return ALERT_LABELS
    if name in OTHERS:
        return frozenset(OTHERS[name][0])
    if name in RECORDED:
        return RECORDED[name]
    base = base_name(name)
    if base not in BY_NAME:
        raise ConfigError(f"no metric {name!r}: {nearest(name, [*BY_NAME, *OTHERS, *RECORDED])}")
    bucket = {"le"} if name.endswith("_bucket") else set()
    return frozenset({*BY_NAME[base].labels, *SCRAPED, *bucket})


def base_name(name: str) -> str:
    """
    Return the family that a sample's name belongs to.

    >>> base_name("mpp_job_cost_usd_count"), base_name("mpp_jobs_total")
    ('mpp_job_cost_usd', 'mpp_jobs_total')
    """
    for kind, suffixes in _SUFFIXES.items():
        for suffix in suffixes:
            base = name.removesuffix(suffix)
            if base != name and base in BY_NAME and BY_NAME[base].type is kind:
                return base
    return name


@dataclass(frozen=True, slots=True)
class Scope:
    """What a dashboard's variables narrow. Calling it selects a metric within them."""

    labels: tuple[str, ...] = ("job", "cluster", "tenant", "pipeline")

    def __call__(self, name: str, **matchers: str) -> Expr:
        """
        Return a selector of a metric that follows the variables for each label that the metric has.

        >>> print(Scope()("mpp_jobs_total", outcome="failure"))
        mpp_jobs_total{cluster=~"$cluster",job=~"$job",outcome="failure",pipeline=~"$pipeline",tenant=~"$tenant"}
        """
        known = labels_of(name)
        for label in matchers:
            if label not in known:
                raise ConfigError(f"{name} has no label {label!r}: {nearest(label, known)}")
        narrowed = {label: f"~${VARIABLES[label]}" for label in self.labels if label in known}
        if name.startswith("prometheus_"):  # of Prometheus, not of what it scrapes from us
            narrowed = {}
        return metric(name, **narrowed | matchers)

    def slo(self, figure: Expr | str, *carry: str, **info: str) -> Expr:
        """
        Return a figure of the SLOs within the variables, with further labels of what they are about.

        >>> print(Scope().slo("slo:mpp_slo_events:now", "pipeline"))
        slo:mpp_slo_events:now * on (slo) group_left (pipeline) \
slo:mpp_slo_info:max{pipeline=~"$pipeline",tenant=~"$tenant"}
        """
        of_slos = figure if isinstance(figure, Expr) else self(figure)
        return binary(of_slos, "*", self(INFO, **info), Match(on=("slo",), group_left=carry))


def rate(selector: Expr) -> Expr:
    """Return the per-second rate of a counter, over the interval that suits the picture."""
    return call("rate", Expr(f"{selector}[{RATE_INTERVAL}]"))


def increase(selector: Expr, window: str = RATE_INTERVAL) -> Expr:
    """Return the growth of a counter over an interval, which is Grafana's unless another is given."""
    return call("increase", Expr(f"{selector}[{window}]"))


def grown(selector: Expr, window: str = RANGE) -> Expr:
    """
    Return exactly how much a sparse counter grew: its count now less its count then, or all of it if it is younger.

    `increase()` would lose the first event of a counter and stretch the others: 1.4 failed jobs. An aggregator that
    comes back under another address goes on counting where it was, so the address must not matter.

    >>> print(grown(metric("mpp_jobs_total")))
    max without (instance, pod) (mpp_jobs_total) - (max without (instance, pod) (mpp_jobs_total offset $__range) or \
max without (instance, pod) (mpp_jobs_total) * 0)
    """
    now, then = (max_without(("instance", "pod"), each) for each in (selector, Expr(f"{selector} offset {window}")))
    return now - (then | now * number(0))


def quantile(share: str, buckets: Expr, *by: str) -> Expr:
    """Return a quantile estimated from a histogram's buckets."""
    return call("histogram_quantile", Expr(share), Expr(f"sum by ({', '.join(('le', *by))}) ({rate(buckets)})"))


def moment(seconds: Expr) -> Expr:
    """Return a time in milliseconds, as Grafana's date units want it."""
    return seconds * number(1000)


def latest(expr: Expr, labels: tuple[str, ...]) -> Expr:
    """Return the largest figure per label set, where twins or replicas may show the same one."""
    return Expr(f"max by ({', '.join(labels)}) ({expr})")
