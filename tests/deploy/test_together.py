"""The configuration that is shipped, as it is: sidecar, Prometheus and Alertmanager start with it and work together."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import servers

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-is-long-enough-to-read"


@dataclass(frozen=True)
class Site:
    """Everything that runs."""

    sidecar: str
    prometheus: servers.Prometheus
    alertmanager: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start the three with the files of `deploy/` and `alerts/`; only who is where is the test's own."""
    directory = tmp_path_factory.mktemp("site")
    with (
        sidecar(directory / "sidecar") as aggregator,
        alertmanager(directory / "alertmanager") as alerts,
        prometheus(directory / "prometheus", aggregator, alerts) as url,
    ):
        yield Site(aggregator, servers.Prometheus(url), alerts)


def sidecar(directory: Path) -> AbstractContextManager[str]:
    """Return an aggregator with the shipped settings, in directories of its own."""
    for name in ("journals", "state"):
        (directory / name).mkdir(parents=True)
    (directory / "read-token").write_text(TOKEN)
    (directory / "write-token").write_text(TOKEN[::-1])
    port = servers.free_port()
    command = [
        sys.executable, "-m", "mppobs.cli.main", "sidecar", f"--config={ROOT}/deploy/sidecar/aggregator.yaml",
        f"--directory={directory}/journals", f"--state-directory={directory}/state", f"--port={port}",
        f"--read-token-file={directory}/read-token", f"--write-token-file={directory}/write-token",
        f"--slo={ROOT}/examples/slo.yaml", f"--price-file={ROOT}/examples/prices.yaml", "--host=127.0.0.1",
    ]  # fmt: skip
    return servers.serving(command, directory, f"http://127.0.0.1:{port}", "/healthz")


def alertmanager(directory: Path) -> AbstractContextManager[str]:
    """Return an Alertmanager with the generated routing and templates."""
    binary = servers.require("prometheus-alertmanager", "prometheus-alertmanager")
    directory.mkdir()
    shutil.copy(ROOT / "alerts/alertmanager.yml", directory)
    shutil.copytree(ROOT / "alerts/templates", directory / "templates")
    address = f"127.0.0.1:{servers.free_port()}"
    command = [
        binary, f"--config.file={directory}/alertmanager.yml", f"--storage.path={directory}/data",
        f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=warn",
    ]  # fmt: skip
    return servers.serving(command, directory, f"http://{address}", "/-/ready")


def prometheus(directory: Path, aggregator: str, alerts: str) -> AbstractContextManager[str]:
    """Return a Prometheus with the shipped configuration and the generated rules."""
    binary = servers.require("prometheus", "prometheus")
    directory.mkdir()
    shutil.copy(ROOT / "deploy/prometheus/prometheus.yml", directory)
    shutil.copytree(ROOT / "alerts/rules", directory / "rules")
    (directory / "read-token").write_text(TOKEN)
    (directory / "targets").mkdir()
    for name, url in {"aggregators": aggregator, "alertmanagers": alerts, "agents": ""}.items():
        targets = [{"targets": [url.removeprefix("http://")]}] if url else []
        (directory / "targets" / f"{name}.yaml").write_text(json.dumps(targets))
    address = f"127.0.0.1:{servers.free_port()}"
    command = [
        binary, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address={address}", "--enable-feature=exemplar-storage", "--log.level=warn",
    ]  # fmt: skip
    return servers.serving(command, directory, f"http://{address}", "/-/ready")


def test_configuration_passes_the_servers_own_checks(tmp_path: Path) -> None:
    """promtool and amtool take what is shipped."""
    promtool = servers.require("promtool", "prometheus")
    amtool = servers.require("amtool", "prometheus-alertmanager")
    shutil.copytree(ROOT / "deploy/prometheus", tmp_path / "p")
    shutil.copytree(ROOT / "alerts/rules", tmp_path / "p/rules")
    (tmp_path / "p/read-token").write_text(TOKEN)
    for command in (
        [promtool, "check", "config", str(tmp_path / "p/prometheus.yml")],
        [amtool, "check-config", str(ROOT / "alerts/alertmanager.yml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_the_sidecar_with_its_token(site: Site) -> None:
    """The target is up, which without the token it would not be."""
    assert httpx.get(f"{site.sidecar}/metrics").status_code == 401
    servers.wait_until("the first scrape", lambda: site.prometheus.query('up{job="mppobs"} == 1'), seconds=40)
    assert site.prometheus.query("count(mpp_slo_info)")[0]["value"][1] not in ("0", "")


def test_every_rule_is_loaded(site: Site) -> None:
    """Every generated file is a group, or more, of the running Prometheus."""
    loaded = {group["name"] for group in site.prometheus.get("rules")["groups"]}
    assert loaded == {path.stem for path in (ROOT / "alerts/rules").glob("*.yaml")}


def test_the_heartbeat_arrives(site: Site) -> None:
    """An alert goes the whole way: rule, Prometheus, Alertmanager, and the receiver that the routing names."""

    def beats() -> list[str]:
        found = httpx.get(f"{site.alertmanager}/api/v2/alerts", params={"filter": 'alertname="Watchdog"'}).json()
        return [receiver["name"] for alert in found for receiver in alert["receivers"]]

    servers.wait_until("the heartbeat", beats, seconds=60)
    assert beats() == ["heartbeat"]
