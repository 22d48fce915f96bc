"""
From a failed job to the people who are woken: a real sidecar, a real Prometheus with the generated rules, a real
Alertmanager with the generated routing, and a webhook for every receiver. An hour passes in ten seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mppobs.cli.main import run as mppobs
from tests.servers import Prometheus, free_port, require, serving, wait_until
from tests.webhook import Webhook, webhook

ROOT = Path(__file__).parents[2]
SCALE = 360
SCRAPE = "200ms"
SPEC = """
team: risk
pipelines:
  nightly:
    tier: critical
    owner: scoring
    every: 1d
    objectives: {job-success: 95%}
  hourly:
    owner: data
    every: 1h
    objectives: {job-success: 99%}
"""
JOB = """
import sys, mppobs
with mppobs.job(pipeline=sys.argv[1], tier=sys.argv[2], owner=sys.argv[3]) as run:
    run.plan("map", 1)
    with mppobs.attempt(stage="map", shard=0):
        pass
    if sys.argv[4] == "fails":
        raise SystemExit("the work is wrong")
"""


@dataclass
class Estate:
    """Everything that runs."""

    prometheus: Prometheus
    webhook: Webhook
    journals: Path
    env: dict[str, str] = field(default_factory=dict)

    def job(self, pipeline: str, tier: str, owner: str, ends: str) -> None:
        """Run a job in a process of its own."""
        command = [sys.executable, "-c", JOB, pipeline, tier, owner, ends]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) == (ends == "fails"), done.stderr


def _configure(directory: Path, sidecar: str, alertmanager: str) -> None:
    job = {"job_name": "mppobs", "static_configs": [{"targets": [sidecar]}]}
    settings = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": [f"{directory}/out/rules/*.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [job],
    }
    (directory / "prometheus.yml").write_text(json.dumps(settings))


@contextmanager
def estate(directory: Path) -> Iterator[Estate]:
    """Start everything with what `mppobs generate` wrote; stop it at the end."""
    binaries = [require("prometheus", "prometheus"), require("prometheus-alertmanager", "prometheus-alertmanager")]
    journals = directory / "journals"
    journals.mkdir(mode=0o700)
    (directory / "slo.yaml").write_text(SPEC)
    env = {**os.environ, "MPPOBS_DIR": str(journals), "PYTHONPATH": str(ROOT)}
    sidecar, prometheus, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(3))
    with ExitStack() as stack:
        receivers = stack.enter_context(webhook())
        (directory / "routing.yaml").write_text(f"webhook: {receivers.url}\n")
        assert mppobs([
            "generate", f"{directory}/slo.yaml", "--out", f"{directory}/out", "--routing", f"{directory}/routing.yaml",
            "--time-scale", str(SCALE), "--force",
        ]) == 0  # fmt: skip
        _configure(directory, sidecar, alertmanager)
        stack.enter_context(serving([
            sys.executable, "-m", "mppobs.cli.main", "sidecar", "--port", sidecar.split(":")[1],
            "--directory", str(journals), "--state-directory", f"{directory}/state", "--poll-seconds", "0.05",
            "--settle-seconds", "0.1", "--slo", f"{directory}/slo.yaml",
        ], directory, f"http://{sidecar}", "/readyz"))  # fmt: skip
        notifier = directory / "alertmanager"
        notifier.mkdir()
        stack.enter_context(serving([
            binaries[1], f"--config.file={directory}/out/alertmanager.yml", f"--storage.path={notifier}/data",
            f"--web.listen-address={alertmanager}", "--cluster.listen-address=", "--log.level=warn",
        ], notifier, f"http://{alertmanager}", "/-/ready"))  # fmt: skip
        server = directory / "prometheus"
        server.mkdir()
        url = stack.enter_context(serving([
            binaries[0], f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address={prometheus}", "--log.level=warn",
            "--rules.alert.resend-delay=1s",
        ], server, f"http://{prometheus}", "/-/ready"))  # fmt: skip
        yield Estate(Prometheus(url), receivers, journals, env)


@pytest.mark.timeout(150)
def test_a_first_failure_burns_its_budget_and_wakes_whom_it_should(tmp_path: Path) -> None:
    """The very first job of a critical pipeline fails: its one event counts, and both receivers are paged."""
    with estate(tmp_path) as running:
        known = 'slo:mpp_slo_events:max{slo="risk/nightly-job-success"}'
        wait_until("the SLO to be known", lambda: running.prometheus.query(known))
        running.job("nightly", "critical", "scoring", "fails")
        running.job("hourly", "standard", "data", "succeeds")
        bad = 'max_over_time(slo:mpp_slo_bad_events:delta_1h{slo="risk/nightly-job-success"}[1m])'
        wait_until(
            "the failure to be counted in the window",
            lambda: [series["value"][1] for series in running.prometheus.query(bad)] == ["1"],
        )
        told = running.webhook.told
        wait_until("the on-call to be paged", lambda: "MppCriticalJobFailed" in told("oncall"))
        wait_until("the owner to be paged", lambda: "MppCriticalJobFailed" in told("owner-scoring"))
        wait_until("the latched SLO to page", lambda: "MppSloBurn/latched" in told("oncall"))
        wait_until("the heartbeat", lambda: "Watchdog" in told("heartbeat"))
        assert told("oncall")["MppCriticalJobFailed"]["pipeline"] == "nightly"
        assert told("oncall")["MppSloBurn/latched"]["slo"] == "risk/nightly-job-success"
        assert told("finops") == {}
        assert told("owner-data") == {}
        good = running.prometheus.query('slo:mpp_slo_bad_events:max{slo="risk/hourly-job-success"}')
        assert [series["value"][1] for series in good] == ["0"]
