"""
Alertmanager's configuration: who hears of what, once per cause.

Pages reach the on-call and the owner; tickets the owner; money also FinOps; the heartbeat a switch outside. Alerts
are grouped by failure mode and cluster; a cause silences its symptoms, a page the ticket for the same thing, a fast
leg the slower ones; maintenance windows mute without losing anything.

Inhibition compares labels, and a label that is missing on both sides counts as equal: every rule here compares only
labels that both sides carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mppobs.catalog.alerts import ALERTS, BY_NAME, Alert
from mppobs.render.expressions import BY_PIPELINE
from mppobs.render.files import Plain, dump
from mppobs.render.promql import Durations
from mppobs.slo.windows import LEGS
from mppobs.yamlfile import Item, load

ROLES: Final = ("oncall", "owner", "tickets", "finops", "heartbeat")
"""Receivers that always exist. `owner` stands for owners without a receiver of their own."""
GROUP_BY: Final = ("failure_mode", "cluster", "slo")
"""By cause and cluster; burn is about no cluster but about one SLO."""

PAGE_WAIT: Final = 10
PAGE_INTERVAL: Final = 60
"""How soon a page says what has joined it."""
PAGE_REPEAT: Final = 3600
TICKET_WAIT: Final = 60
TICKET_INTERVAL: Final = 900
TICKET_REPEAT: Final = 86400
HEARTBEAT_REPEAT: Final = 60


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A window in which the alerts of some pipelines or clusters notify nobody; they are still recorded."""

    name: str
    matchers: tuple[str, ...]
    """In Alertmanager's form, `pipeline="nightly"`; all must match."""
    intervals: Plain
    """In Alertmanager's form: lists of times, weekdays, days of month, months, years, and a location."""


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """Who the receivers are."""

    receivers: Mapping[str, Plain] = field(default_factory=dict)
    """Alertmanager's own receiver settings by role, or by `owner-NAME`; what is missing is a webhook on loopback."""
    maintenance: tuple[Maintenance, ...] = ()
    webhook: str = "http://127.0.0.1:9099"
    durations: Durations = field(default_factory=Durations)


def load_routing(path: Path) -> RoutingSettings:
    """Return what a `routing.yaml` says. Raises ConfigError naming file, line, key and the nearest right word."""
    keys = load(path).mapping(("receivers", "maintenance", "webhook"))
    receivers = keys["receivers"].mapping() if "receivers" in keys else {}
    for name, item in receivers.items():
        if name not in ROLES and not name.startswith("owner-"):
            raise item.error(f"unknown receiver {name!r}; one of {', '.join(ROLES)}, or owner-NAME")
    windows = keys["maintenance"].mapping() if "maintenance" in keys else {}
    default = RoutingSettings()
    return RoutingSettings(
        receivers={name: _plain(item) for name, item in receivers.items()},
        maintenance=tuple(_maintenance(name, item) for name, item in windows.items()),
        webhook=keys["webhook"].string().rstrip("/") if "webhook" in keys else default.webhook,
    )


def alertmanager(owners: Sequence[str], settings: RoutingSettings | None = None) -> str:
    """
    Return the text of `alertmanager.yml` for the owners that SLOs and pipelines name.

    >>> "receiver: owner-scoring" in alertmanager(["scoring"])
    True
    """
    chosen = settings or RoutingSettings()
    named = sorted({f"owner-{owner}" for owner in owners if owner})
    routes = [_heartbeat(chosen)]
    routes += [route for window in chosen.maintenance for route in _muted(window, named, chosen)]
    routes += _leaves(named, chosen)
    body: Plain = {
        "global": {"resolve_timeout": chosen.durations(300)},
        "templates": ["templates/*.tmpl"],
        "route": {
            "receiver": "tickets", "group_by": list(GROUP_BY),
            **_pace(TICKET_WAIT, TICKET_INTERVAL, TICKET_REPEAT, chosen), "routes": routes,
        },
        "inhibit_rules": list(inhibitions()),
        "time_intervals": [
            {"name": window.name, "time_intervals": window.intervals} for window in chosen.maintenance
        ],
        "receivers": [_receiver(name, chosen) for name in (*ROLES, *named)],
    }  # fmt: skip
    return dump(body)


def inhibitions() -> Iterator[Plain]:
    """Yield the rules by which a cause silences its symptoms, and a page the ticket about the same thing."""
    for target in ALERTS:
        counted = ['pipeline!=""'] if target.name == "MppSloBurn" else []  # what nobody's query of their own counts
        for cause in target.inhibited_by:
            yield {
                "source_matchers": [f'alertname="{cause}"'],
                "target_matchers": [*counted, f'alertname="{target.name}"'],
                "equal": list(_shared(BY_NAME[cause], target)),
            }
    yield {
        "source_matchers": ['severity="page"', 'alertname="MppSloBurn"'],
        "target_matchers": ['severity="ticket"', 'alertname="MppSloBurn"'],
        "equal": ["slo"],
    }
    yield from _faster_first()
    yield {
        "source_matchers": ['alertname="MppCriticalJobFailed"'],
        "target_matchers": ['alertname="MppDeadlineAtRisk"'],
        "equal": ["cluster", "tenant", "pipeline", "job_id"],
    }


def _faster_first() -> Iterator[Plain]:
    """Yield the rules by which a leg silences those of its severity that come after it in the table."""
    burn = 'alertname="MppSloBurn"'
    for place, leg in enumerate(LEGS):
        if slower := [other.name for other in LEGS[place + 1 :] if other.severity is leg.severity]:
            yield {
                "source_matchers": [f'leg="{leg.name}"', burn],
                "target_matchers": [f'leg=~"{"|".join(slower)}"', burn],
                "equal": ["slo"],
            }


def carried(alert: Alert) -> frozenset[str]:
    """Return the labels that every series of an alert carries and that say where it is."""
    if alert.name in BY_PIPELINE or alert.name == "MppCriticalJobFailed":
        return frozenset({"cluster", "tenant", "pipeline"})
    if alert.name in ("MppSloBurn", "MppQuotaExhausted"):
        return frozenset({"slo", "tenant", "pipeline"})
    return frozenset({"cluster"}) if alert.name == "MppWorkersLost" else frozenset()


def _shared(cause: Alert, symptom: Alert) -> list[str]:
    """Return the labels on which a cause and its symptom must agree: those that both always carry."""
    return sorted(carried(cause) & carried(symptom))


def _leaves(owners: Sequence[str], settings: RoutingSettings, mute: str = "") -> list[Plain]:
    """Return the routes that notify: a page goes to the on-call and on to the owner, a ticket to the owner."""
    pages = _pace(PAGE_WAIT, PAGE_INTERVAL, PAGE_REPEAT, settings)
    tickets = _pace(TICKET_WAIT, TICKET_INTERVAL, TICKET_REPEAT, settings)
    muted: dict[str, Plain] = {"mute_time_intervals": [mute]} if mute else {}
    money, page = ['route_finops="true"'], ['severity="page"', 'route_oncall="true"']
    out: list[Plain] = [
        {"matchers": money, "receiver": "finops", "continue": True, **tickets, **muted},
        {"matchers": page, "receiver": "oncall", "continue": True, **pages, **muted},
    ]
    for severity, pace in (("page", pages), ("ticket", tickets)):
        for name in owners:
            matchers = [f'severity="{severity}"', 'route_owner="true"', f'owner="{name.removeprefix("owner-")}"']
            out.append({"matchers": matchers, "receiver": name, **pace, **muted})
    out += [
        {"matchers": ['severity="page"', 'route_owner="true"'], "receiver": "owner", **pages, **muted},
        {"matchers": ['severity="ticket"'], "receiver": "tickets", **tickets, **muted},
        {"matchers": ['severity="page"', 'route_oncall!="true"'], "receiver": "oncall", **pages, **muted},
    ]
    return out


def _heartbeat(settings: RoutingSettings) -> Plain:
    """Return the route of the dead man's switch: at once, again and again, never muted, never grouped with others."""
    pace = _pace(0, HEARTBEAT_REPEAT, HEARTBEAT_REPEAT, settings)
    return {"matchers": ['route_heartbeat="true"'], "receiver": "heartbeat", "group_by": ["alertname"], **pace}


def _muted(window: Maintenance, owners: Sequence[str], settings: RoutingSettings) -> Iterator[Plain]:
    """Yield the routes of what a maintenance window is about: the usual ones, muted while it lasts."""
    yield {
        "matchers": list(window.matchers), "receiver": "tickets", "mute_time_intervals": [window.name],
        "routes": _leaves(owners, settings, window.name),
    }  # fmt: skip


def _pace(wait: int, interval: int, repeat: int, settings: RoutingSettings) -> dict[str, Plain]:
    durations = settings.durations
    return {
        "group_wait": durations(wait) if wait else "0s",
        "group_interval": durations(interval),
        "repeat_interval": durations(repeat),
    }


def _receiver(name: str, settings: RoutingSettings) -> Plain:
    """Return a receiver: as it was given, or a webhook on loopback."""
    given = settings.receivers.get(name)
    if isinstance(given, Mapping):
        return {"name": name, **given}
    return {"name": name, "webhook_configs": [{"url": f"{settings.webhook}/{name}", "send_resolved": True}]}


def _maintenance(name: str, item: Item) -> Maintenance:
    keys = item.mapping(("matchers", "intervals"))
    for key in ("matchers", "intervals"):
        if key not in keys:
            raise item.error(f"a maintenance window needs `{key}`")
    matchers = tuple(matcher.string() for matcher in keys["matchers"].items())
    if not matchers or any("=" not in matcher for matcher in matchers):
        raise keys["matchers"].error('write matchers as Alertmanager does, such as pipeline="nightly"')
    return Maintenance(name, matchers, _plain(keys["intervals"]))


def _plain(item: Item) -> Plain:
    """Return an item as plain values; texts stay as they were written."""
    if isinstance(item.value, dict):
        return {key: _plain(value) for key, value in item.value.items()}
    if isinstance(item.value, list):
        return [_plain(value) for value in item.value]
    return item.value
