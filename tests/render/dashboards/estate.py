"""
A small estate to look at: a sidecar with promises, and a real Prometheus with our rules that scrapes it and itself.

An hour of the rules passes in seconds, so that windows fill while a test waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mppobs.cli.main import run as mppobs
from mppobs.workloads import tpch
from tests.servers import Prometheus, free_port, process, require, serving

ROOT: Final = Path(__file__).parents[3]
TIME_SCALE: Final = 60
"""An hour of the rules is a minute here."""
SPEC: Final = """
team: demo
defaults: {period: 30d, owner: data}
pipelines:
  nightly-scoring:
    tier: critical
    owner: risk
    every: 10m
    deadline: 10s
    objectives: {on-time: 90%, shard-success: 99%, duration: {objective: 90%, at-most: 12s}}
  hourly-features: {owner: growth, every: 10m, objectives: {job-success: 99%}}
  ingest: {every: 10m, objectives: {job-success: 95%, shard-success: 99%}}
  reindex: {tier: besteffort, owner: search, every: 10m, objectives: {job-success: 90%}}
  training:
    owner: ml
    every: 10m
    deadline: 60s
    objectives: {on-time: 90%, spend: {objective: 99%, usd-per-period: 500}}
  thumbnails: {tier: besteffort, owner: media, every: 10m, deadline: 30s, objectives: {on-time: 95%}}
  tpch-pricing-summary: {every: 10m, deadline: 20s, objectives: {on-time: 95%, shard-success: 99.9%}}
  tpch-shipping-priority: {every: 10m, deadline: 20s, objectives: {on-time: 95%, job-success: 99%}}
"""
EVERYTHING: Final = """
  everything:
    tier: critical
    owner: sre
    every: 10m
    deadline: 5s
    objectives: {on-time: 90%, shard-success: 99%}
"""
"""A pipeline to which everything happens, for tests."""


@dataclass(frozen=True)
class Estate:
    """Everything that runs."""

    prometheus: Prometheus
    sidecar: str
    journals: Path
    directory: Path

    def start(self, stack: ExitStack, *command: str, name: str) -> subprocess.Popen[bytes]:
        """Start a Python program beside it, with its output in a file, stopped with the stack."""
        env = {**os.environ, "MPPOBS_DIR": str(self.journals), "PYTHONPATH": str(ROOT)}
        log = self.directory / f"{name}.log"
        return stack.enter_context(process([sys.executable, *command], log, env))


def prometheus_settings(directory: Path, sidecar: str, own: str, interval: str) -> dict[str, Any]:
    """Return a configuration that scrapes the sidecar and Prometheus itself, with the rules that were generated."""
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [f"{directory}/out/rules/*.yaml"],
        "scrape_configs": [
            {"job_name": "mppobs", "static_configs": [{"targets": [sidecar]}]},
            {"job_name": "prometheus", "static_configs": [{"targets": [own]}]},
        ],
    }


@contextmanager
def estate(
    directory: Path,
    *,
    interval: str = "2s",
    time_scale: int = TIME_SCALE,
    spec: str = SPEC,
    options: Sequence[str] = (),
) -> Iterator[Estate]:
    """Start everything, the sidecar with some options more; stop it at the end."""
    binary = require("prometheus", "prometheus")
    journals = directory / "journals"
    journals.mkdir(mode=0o700)
    (directory / "slo.yaml").write_text(spec)
    command = ["generate", f"{directory}/slo.yaml", "--out", f"{directory}/out", "--time-scale", str(time_scale)]
    assert mppobs([*command, "--force"]) == 0
    sidecar, own = (f"127.0.0.1:{free_port()}" for _ in range(2))
    settings = prometheus_settings(directory, sidecar, own, interval)
    (directory / "prometheus.yml").write_text(json.dumps(settings))
    with ExitStack() as stack:
        followed = [*_sidecar(directory, journals, sidecar), *options]
        stack.enter_context(serving(followed, directory, f"http://{sidecar}", "/readyz"))
        home = directory / "prometheus"
        home.mkdir()
        url = stack.enter_context(serving([
            binary, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={home}/tsdb",
            f"--web.listen-address={own}", "--enable-feature=exemplar-storage", "--log.level=warn",
        ], home, f"http://{own}", "/-/ready"))  # fmt: skip
        yield Estate(Prometheus(url), f"http://{sidecar}", journals, directory)


def _sidecar(directory: Path, journals: Path, address: str) -> list[str]:
    prices = Path(tpch.__file__).with_name("prices.yaml")
    return [
        sys.executable, "-m", "mppobs.cli.main", "sidecar", "--port", address.split(":")[1],
        "--directory", str(journals), "--state-directory", f"{directory}/state", "--poll-seconds", "0.2",
        "--settle-seconds", "1", "--slo", f"{directory}/slo.yaml", "--price-file", str(prices),
    ]  # fmt: skip
