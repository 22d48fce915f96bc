"""
The drill: everything that can go wrong goes wrong at once, to different pipelines, before a real Prometheus with the
generated rules and a real Alertmanager with the generated routing. An hour passes in five seconds.

What the windows look back on is back-filled, so that an SLO has the clean past that detection times are computed for.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from mppobs.cli.main import run as mppobs
from mppobs.render.rules import BAD, EVENTS, START
from mppobs.slo.model import IndicatorKind, Slo
from mppobs.slo.spec import load_spec
from mppobs.slo.windows import DAY
from tests.render.exposed import Exposition, Law, Series, constant, exposition, grows, while_, whole
from tests.servers import Prometheus, free_port, require, run, serving
from tests.webhook import Webhook, webhook

SCALE: Final = 720
SCRAPE: Final = 0.1
STEP: Final = 0.2
"""Seconds between back-filled samples."""
AHEAD: Final = 7.0
"""Seconds for which the past is written in advance: the servers start in the meantime, and no gap is left."""
RATE: Final = 10_000
"""Events of each SLO per second."""
SPEC: Final = """
team: drill
pipelines:
  outage: {tier: critical, owner: outage, objectives: {shard-success: 99%}}
  errors: {owner: errors, objectives: {shard-success: 99.9%}}
  bearable: {tier: critical, owner: bearable, objectives: {shard-success: 99.9%}}
  unseen: {tier: critical, owner: unseen, objectives: {shard-success: 99%}}
  silent-0: {tier: critical, owner: silent, objectives: {shard-success: 99%}}
  storm: {tier: critical, owner: storm, objectives: {shard-success: 99.9%}}
  failing: {tier: critical, owner: failing, objectives: {shard-success: 99.9%}}
  muted: {tier: critical, owner: muted, objectives: {shard-success: 99.9%}}
  awake: {tier: critical, owner: awake, objectives: {shard-success: 99.9%}}
  dear: {owner: dear, objectives: {shard-success: 99.9%}}
objectives:
  gateway:
    {indicator: promql, owner: gateway, tier: critical, objective: 99%,
     good: 'requests_total{code="200"}', total: requests_total}
"""
ROUTING: Final = """
webhook: {webhook}
maintenance:
  today: {{matchers: [pipeline="muted"], intervals: [{{weekdays: ['sunday:saturday']}}]}}
  another-day: {{matchers: [pipeline="awake"], intervals: [{{years: ['2001']}}]}}
"""


@dataclass(frozen=True)
class Errors:
    """When and how much of an SLO's work goes wrong: seconds into the drill, and a share of the events."""

    begin: float
    end: float
    share: float


ERRORS: Final = {
    "drill/outage-shard-success": Errors(1.0, 5.4, 1.0),
    "drill/errors-shard-success": Errors(1.0, 8.8, 0.05),
    "drill/bearable-shard-success": Errors(1.0, math.inf, 0.0009),
    "drill/silent-0-shard-success": Errors(2.0, 8.0, 1.0),
    "drill/unseen-shard-success": Errors(21.0, 28.0, 1.0),
}
REQUESTS_FAIL: Final = 21.0
"""When the gateway, which Prometheus counts by itself, has its first error, and from then on one request in two."""
SIDECAR_DOWN: Final = (19.0, 25.0)
LOOKS: Final = (5.2, 24.0)
"""When Alertmanager is asked: while the first causes last, and while nothing is known of anything."""
LENGTH: Final = 41.0
"""Seconds until everything that resets has reset."""


@dataclass(frozen=True)
class Standing:
    """What Alertmanager makes of an alert at some moment."""

    name: str
    labels: dict[str, str]
    silenced: bool
    """Whether a cause keeps it from being told."""


@dataclass(frozen=True)
class Drill:
    """A drill that has begun."""

    prometheus: Prometheus
    alertmanager: str
    webhook: Webhook
    slos: Sequence[Slo]
    zero: float
    """The time to which the seconds of the drill are relative."""
    looks: dict[float, list[Standing]]
    """How Alertmanager saw every alert, at some seconds into the drill."""

    def wait(self, until: float) -> None:
        """Wait until so many seconds into the drill."""
        time.sleep(max(0.0, self.zero + until - time.time()))

    def look(self) -> list[Standing]:
        """Return how Alertmanager sees every alert now."""
        answer = httpx.get(f"{self.alertmanager}/api/v2/alerts", timeout=10.0).raise_for_status()
        return [
            Standing(alert["labels"]["alertname"], alert["labels"], alert["status"]["state"] == "suppressed")
            for alert in answer.json()
        ]

    def told(self) -> set[tuple[str, str, str]]:
        """Return who was told of what: receiver, alert with leg, and the SLO, run, pipeline or cluster it is about."""
        return {(notice.receiver, notice.name, subject(notice.labels)) for notice in self.webhook.firing()}

    def samples(self, selector: str) -> list[tuple[float, float]]:
        """Return every sample of one series as it is stored, at seconds into the drill."""
        found = self.prometheus.query(f"{selector}[5m]")
        assert len(found) <= 1, selector
        return [(when - self.zero, float(value)) for series in found for when, value in series["values"]]


def subject(labels: Mapping[str, str]) -> str:
    """Return what an alert is about, the narrowest first."""
    return next((labels[name] for name in ("slo", "job_id", "pipeline", "cluster") if name in labels), "")


def work(zero: float) -> Iterator[Series]:
    """Yield what goes wrong beside the SLOs, each with its own cluster."""
    begin, later = zero + 1.0, zero + 1.7  # symptoms follow their causes

    def at(cluster: str, pipeline: str, **more: str) -> dict[str, str]:
        return {"cluster": cluster, "tenant": "acme", "pipeline": pipeline, **more}

    def info(cluster: str, pipeline: str, owner: str, tier: str = "critical") -> Series:
        return Series("mpp_pipeline_info", at(cluster, pipeline, owner=owner, tier=tier), constant(1))

    def run_of(cluster: str, pipeline: str, job: str, state: str) -> Series:
        labels = at(cluster, pipeline, job_id=job, owner=pipeline, tier="critical", state=state)
        return Series("mpp_run_info", labels, while_(begin, constant(1)))

    def late(where: dict[str, str]) -> Series:
        return Series("mpp_run_predicted_late_seconds", {**where, "kind": "charge"}, while_(later, constant(30)))

    # Nodes are lost, and what comes of it: retries, failed transfers.
    lost = at("lost", "shaken", stage="map")
    yield info("lost", "shaken", "shaken")
    yield Series("mpp_workers_lost_total", {"cluster": "lost", "reason": "node_lost"}, grows(begin, 30))
    yield Series("mpp_retries_total", lost, grows(later, 500))
    yield Series("mpp_attempts_total", {**lost, "outcome": "failure"}, grows(later, 1000))
    yield Series("mpp_network_errors_total", at("lost", "shaken", kind="reset"), grows(later, 500))
    # The same retries where no node is lost.
    storm = at("quiet", "storm", stage="map")
    yield info("quiet", "storm", "storm")
    yield Series("mpp_retries_total", storm, grows(begin, 500))
    yield Series("mpp_attempts_total", {**storm, "outcome": "failure"}, grows(begin, 1000))
    # One coordinator, three pipelines that hang on it, and what comes of it.
    for index in range(3):
        silent = at("silent", f"silent-{index}")
        yield info("silent", f"silent-{index}", "silent")
        yield Series("mpp_jobs_current", {**silent, "state": "running"}, while_(begin, constant(1)))
        heartbeat = "mpp_coordinator_heartbeat_timestamp_seconds"
        yield Series(heartbeat, silent, while_(begin, constant(begin - 60)))
        yield late({**silent, "job_id": "s-1"})
    # Two runs of one pipeline fail; both would have been late.
    for job in ("f-1", "f-2"):
        yield run_of("jobs", "failing", job, "failure")
        yield late(at("jobs", "failing", job_id=job))
    yield info("jobs", "failing", "failing")
    # A pipeline that has become dear: its money is `spent`.
    yield info("costs", "dear", "dear", "standard")
    # Somebody else's service, whose series of failures is born with the first one.
    yield Series("requests_total", {"code": "200"}, whole(grows(zero - 1000, RATE)))
    yield Series("requests_total", {"code": "500"}, while_(zero + REQUESTS_FAIL, whole(grows(zero + 20.9, RATE))))
    # In maintenance, and in a maintenance window that is not now.
    yield run_of("jobs-muted", "muted", "m-1", "failure")
    yield run_of("jobs-awake", "awake", "a-1", "failure")


def spent(zero: float) -> Series:
    """Return the money of a pipeline that costs the same for a week, and then a hundred times as much."""
    week, surge = grows(zero - 9 * DAY / SCALE, 1.0), grows(zero + 1.0, 99.0)
    labels = {"cluster": "costs", "tenant": "acme", "pipeline": "dear", "kind": "useful"}
    return Series("mpp_cost_usd_total", labels, lambda now: (week(now) or 0) + (surge(now) or 0))


def counted(slo: Slo, zero: float) -> tuple[Law, Law, float]:
    """Return the events and bad events of an SLO as functions of time, and when its counting began."""
    born = zero - 4 * DAY / SCALE
    events = grows(born, RATE)
    errors = ERRORS.get(slo.full_name)
    bad = grows(zero + errors.begin, RATE * errors.share, zero + errors.end) if errors else constant(0)
    return events, bad, born


def promised(slo: Slo, zero: float) -> Iterator[Series]:
    """Yield what an aggregator shows of an SLO."""
    events, bad, born = counted(slo, zero)
    own = {"slo": slo.full_name}
    whose = {"owner": slo.owner, "tier": slo.tier.value, "tenant": "acme", "pipeline": slo.pipeline}
    yield Series("mpp_slo_events_total", own, events)
    yield Series("mpp_slo_bad_events_total", own, bad)
    yield Series("mpp_slo_start_timestamp_seconds", own, constant(born))
    yield Series("mpp_slo_period_seconds", own, constant(slo.period_days * DAY))
    yield Series("mpp_slo_objective_ratio", own, constant(float(slo.objective)))
    yield Series("mpp_slo_info", {**own, **whose, "kind": slo.indicator.value}, constant(1))


def past(slos: Sequence[Slo], zero: float, sidecar: str) -> Iterator[str]:
    """Yield the clean past, as the rules and the scrapes would have left it."""
    for place, name in enumerate((EVENTS, BAD, START)):
        yield f"# TYPE {name} gauge\n"
        for slo in slos:
            events, bad, born = counted(slo, zero)
            law = (events, bad, constant(born))[place]
            yield from _steps(Series(name, {"slo": slo.full_name}, law), zero, 3 * DAY / SCALE + 3, STEP)
    up = {"job": "mppobs", "instance": sidecar}
    yield "# TYPE up gauge\n"
    yield from _steps(Series("up", up, constant(1)), zero, 10, STEP)
    yield "# TYPE mpp_cost_usd_total unknown\n"
    cost = spent(zero)
    for twin in range(2):
        labels = {**cost.labels, "job": f"work-{twin}", "instance": f"twin-{twin}"}
        yield from _steps(Series(cost.name, labels, cost.law), zero, 8 * DAY / SCALE, 5 * STEP)
    yield "# EOF\n"


def _steps(series: Series, end: float, seconds: float, step: float) -> Iterator[str]:
    count = round(seconds / step)
    for index in range(count + 1):
        now = end - (count - index) * step
        yield f"{series.key} {series.law(now)!r} {now:.3f}\n"


def _backfill(directory: Path, lines: Iterator[str]) -> None:
    with (directory / "past.om").open("w") as file:
        file.writelines(lines)
    blocks = [require("promtool", "prometheus"), "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
    made = run([*blocks, str(directory / "past.om"), str(directory / "tsdb")])
    assert made.returncode == 0, made.stderr


def _configure(directory: Path, exposition: str, alertmanager: str) -> None:
    """Write Prometheus's configuration: the twins that show the work, and the sidecar that is to be down."""
    jobs = [
        ("work-0", "/work", "twin-0", SCRAPE), ("work-1", "/work", "twin-1", SCRAPE),
        ("mppobs", "/sidecar", exposition, 5 * SCRAPE),  # a slow answer is no absence
    ]  # fmt: skip
    settings = {
        "rule_files": [f"{directory}/out/rules/*.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": job, "metrics_path": path, "scrape_interval": _pace(every), "scrape_timeout": _pace(every),
             "static_configs": [{"targets": [exposition], "labels": {"instance": instance}}]}
            for job, path, instance, every in jobs
        ],
    }  # fmt: skip
    (directory / "prometheus.yml").write_text(json.dumps(settings))


def _pace(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _generate(directory: Path, webhook: str) -> Sequence[Slo]:
    """Run `mppobs generate` as a user would, and return the SLOs that aggregators show."""
    (directory / "slo.yaml").write_text(SPEC)
    (directory / "routing.yaml").write_text(ROUTING.format(webhook=webhook))
    assert mppobs([
        "generate", f"{directory}/slo.yaml", "--out", f"{directory}/out", "--routing", f"{directory}/routing.yaml",
        "--time-scale", str(SCALE), "--force",
    ]) == 0  # fmt: skip
    slos = load_spec(directory / "slo.yaml").slos
    return [slo for slo in slos if slo.indicator is not IndicatorKind.PROMQL]


@contextmanager
def drill(directory: Path) -> Iterator[Drill]:
    """Start everything, let everything go wrong and pass; the servers stop at the end of the block."""
    with ExitStack() as stack:
        receivers = stack.enter_context(webhook())
        stage = stack.enter_context(exposition())
        slos = _generate(directory, receivers.url)
        address = f"127.0.0.1:{free_port()}"
        url = stack.enter_context(_alertmanager(directory, address))
        zero = time.time() + AHEAD
        _show(stage, slos, zero)
        _backfill(directory, past(slos, zero, stage.address))
        _configure(directory, stage.address, address)
        prometheus = stack.enter_context(_prometheus(directory))
        assert time.time() < zero, "the servers took too long to start"
        running = Drill(prometheus, url, receivers, slos, zero, {})
        for moment in LOOKS:
            running.wait(moment)
            running.looks[moment] = running.look()
        running.wait(LENGTH)
        yield running


def _show(stage: Exposition, slos: Sequence[Slo], zero: float) -> None:
    every = [*work(zero), spent(zero), *(series for slo in slos for series in promised(slo, zero))]
    stage.paths["/work"] = [replace(series, stamped=True) for series in every]  # a missed scrape makes none stale
    stage.paths["/sidecar"] = [Series("mppobs_lag_seconds", {}, constant(0))]
    stage.broken.append(("/sidecar", zero + SIDECAR_DOWN[0], zero + SIDECAR_DOWN[1]))


@contextmanager
def _alertmanager(directory: Path, address: str) -> Iterator[str]:
    own = directory / "alertmanager"
    own.mkdir()
    command = [
        require("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={directory}/out/alertmanager.yml", f"--storage.path={own}/data",
        f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=warn",
    ]  # fmt: skip
    with serving(command, own, f"http://{address}", "/-/ready") as url:
        yield url


@contextmanager
def _prometheus(directory: Path) -> Iterator[Prometheus]:
    own, address = directory / "prometheus", f"127.0.0.1:{free_port()}"
    own.mkdir()
    command = [
        require("prometheus", "prometheus"), f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/tsdb", f"--web.listen-address={address}", "--log.level=error",
        "--rules.alert.resend-delay=1s",
    ]  # fmt: skip
    with serving(command, own, f"http://{address}", "/-/ready") as url:
        yield Prometheus(url)
