"""Routing: the real amtool says who hears of what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mppobs.catalog.alerts import ALERTS, Alert, Route
from mppobs.errors import ConfigError
from mppobs.model import Severity
from mppobs.render.files import alert_annotations, alert_labels
from mppobs.render.filling import fill
from mppobs.render.routing import ROLES, alertmanager, carried, inhibitions, load_routing
from mppobs.render.rules import Alerting, RuleSettings, groups
from mppobs.render.templates import TEMPLATE
from tests.servers import require, run

ROOT = Path(__file__).parents[2]
MAINTENANCE = """
receivers:
  oncall: {webhook_configs: [{url: 'http://127.0.0.1:1/pager'}]}
maintenance:
  sunday:
    matchers: [pipeline="nightly"]
    intervals: [{weekdays: [sunday], times: [{start_time: '02:00', end_time: '04:00'}], location: Europe/Zurich}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with two owners and a maintenance window."""
    (tmp_path / "routing.yaml").write_text(MAINTENANCE)
    (tmp_path / "templates").mkdir()
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager(["scoring", "data"], load_routing(tmp_path / "routing.yaml")))
    return path


def _receivers(config: Path, **labels: str) -> set[str]:
    """Return the receivers that amtool finds for labels."""
    given = [f"{key}={value}" for key, value in labels.items()]
    done = run(
        [require("amtool", "prometheus-alertmanager"), "config", "routes", "test", f"--config.file={config}", *given]
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.strip().split(","))


def test_amtool_accepts_the_configuration(config: Path) -> None:
    """Every receiver, interval and matcher is defined and well formed."""
    done = run([require("amtool", "prometheus-alertmanager"), "check-config", str(config)])
    assert done.returncode == 0, done.stdout + done.stderr


def _rules() -> list[Alerting]:
    return [rule for group in groups() for rule in group.rules if isinstance(rule, Alerting)]


@pytest.mark.parametrize("owner", ["scoring", "nobody", ""])
@pytest.mark.parametrize("pipeline", ["nightly", "hourly"])
def test_each_alert_reaches_those_that_the_catalogue_names(config: Path, owner: str, pipeline: str) -> None:
    """Pages wake the on-call and the owner, tickets wait for the owner, money goes to FinOps and wakes nobody."""
    for rule in _rules():
        labels = {**alert_labels(rule), "alertname": rule.alert.name, "owner": owner, "pipeline": pipeline}
        labels = {key: value for key, value in labels.items() if value}
        found = _receivers(config, **labels)
        routes = {route.value for route in rule.alert.routes}
        mine = f"owner-{owner}" if owner == "scoring" else "owner" if rule.severity == "page" else "tickets"
        expected = set()
        if routes == {"heartbeat"}:
            expected = {"heartbeat"}
        elif rule.severity == "page":
            expected = ({"oncall"} & routes) | ({mine} if "owner" in routes else set()) | ({"finops"} & routes)
        else:
            expected = ({mine} if "owner" in routes else {"tickets"}) | ({"finops"} & routes)
        assert found == expected, (rule.alert.name, rule.severity)


def test_a_notification_says_what_breaks_how_long_there_is_and_what_to_type(config: Path) -> None:
    """amtool fills the templates in for a burning SLO and one more alert of its group."""
    (config.parent / "templates/mppobs.tmpl").write_text(TEMPLATE)
    settings = RuleSettings(dashboards_url="http://grafana")
    by_leg = {dict(rule.labels).get("leg"): alert_annotations(rule, settings) for rule in _rules()}
    burning = {"slo": "risk/nightly"}
    alerts = [
        {"status": "firing", "annotations": {name: fill(text, burning, 20) for name, text in by_leg[leg].items()}}
        for leg in ("fast", "medium")
    ]
    (config.parent / "data.json").write_text(json.dumps({"status": "firing", "alerts": alerts}))
    said = [
        run([
            require("amtool", "prometheus-alertmanager"), "template", "render",
            f"--template.glob={config.parent}/templates/*.tmpl", f"--template.data={config.parent}/data.json",
            f'--template.text={{{{ template "{name}" . }}}}',
        ]) for name in ("mppobs.title", "mppobs.text")
    ]  # fmt: skip
    assert [done.returncode for done in said] == [0, 0], said
    title, text = (done.stdout.strip() for done in said)
    assert title == "risk/nightly spends its error budget 20 times too fast (fast) (and 1 more)"
    for line in (
        "risk/nightly spends its error budget 20 times too fast (medium).",
        "At this pace or faster, a whole period's budget is gone in 2 d 2 h.",
        "Next: mppobs slo status risk/nightly",
        "Runbook: http://127.0.0.1:9466/runbooks/MppSloBurn",
        "Dashboard: http://grafana/d/mppobs-oncall?viewPanel=101",
    ):
        assert line in text.splitlines()


def test_inhibition_compares_only_what_both_sides_carry() -> None:
    """A label that both sides lack would count as equal and silence strangers."""
    by_name = {alert.name: alert for alert in ALERTS}
    for rule in inhibitions():
        assert isinstance(rule, dict)
        (source,), (target,) = rule["source_matchers"][-1:], rule["target_matchers"][-1:]
        cause, symptom = (by_name[text.split('"')[1]] for text in (source, target))
        own = {"job_id"} if cause.name == "MppCriticalJobFailed" else set()
        assert set(rule["equal"]) <= (carried(cause) & carried(symptom)) | own


def test_no_alert_silences_itself() -> None:
    """No cause is, through its own causes, inhibited by its symptom."""
    causes = {alert.name: set(alert.inhibited_by) for alert in ALERTS}
    for name in causes:
        seen, todo = set(), set(causes[name])
        while todo:
            cause = todo.pop()
            seen.add(cause)
            todo |= causes[cause] - seen
        assert name not in seen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recievers: {}", "did you mean 'receivers'"),
        ("receivers: {boss: {}}", "unknown receiver 'boss'"),
        ("maintenance: {w: {matchers: [nightly], intervals: []}}", "as Alertmanager does"),
        ("maintenance: {w: {matchers: [a=b]}}", "needs `intervals`"),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    """A routing.yaml that means nothing says where and why."""
    (tmp_path / "routing.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"routing\.yaml:1: .*{message}"):
        load_routing(tmp_path / "routing.yaml")


def test_the_example_is_accepted(tmp_path: Path) -> None:
    """Every kind of receiver, and a maintenance window, as the example names them."""
    settings = load_routing(ROOT / "examples/routing.yaml")
    (tmp_path / "templates").mkdir()
    (tmp_path / "alertmanager.yml").write_text(alertmanager(["scoring"], settings))
    done = run([require("amtool", "prometheus-alertmanager"), "check-config", str(tmp_path / "alertmanager.yml")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*ROLES, "owner-scoring"} == {*settings.receivers, "owner"}
    assert _receivers(tmp_path / "alertmanager.yml", severity="ticket", route_owner="true", owner="scoring") == {
        "owner-scoring"
    }


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_page_about_alerts_tells_the_truth(alert: Alert) -> None:
    """Each alert stands in the table with how urgent it is and who hears of it."""
    row = next(
        line for line in (ROOT / "docs/alerting.md").read_text().splitlines() if line.startswith(f"| `{alert.name}`")
    )
    urgent, who = row.split(" | ")[2:4]
    if alert.name != "Watchdog":
        assert (alert.severity.value in urgent, "critical" in urgent) == (True, alert.critical_severity is not None)
    words = {Route.ONCALL: "on-call", Route.OWNER: "owner", Route.FINOPS: "FinOps", Route.HEARTBEAT: "heartbeat"}
    pages = Severity.PAGE in (alert.severity, alert.critical_severity) or alert.name == "MppSloBurn"
    told = {words[route] for route in alert.routes if route is not Route.ONCALL or pages} or {"tickets"}
    assert {word for word in (*words.values(), "tickets") if word in who} == told


def test_receivers_are_as_given_or_loopback(config: Path) -> None:
    """Nothing leaves the machine unless somebody said so."""
    receivers = {receiver["name"]: receiver for receiver in yaml.safe_load(config.read_text())["receivers"]}
    assert receivers["oncall"]["webhook_configs"][0]["url"] == "http://127.0.0.1:1/pager"
    assert receivers["finops"]["webhook_configs"][0]["url"] == "http://127.0.0.1:9099/finops"
