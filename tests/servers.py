"""
Real servers for tests: Prometheus, Alertmanager and Pushgateway on loopback, each with a free port and its own
directory, stopped at the end.

A server that is not installed is a visible skip that names the Debian package; with `REQUIRE_SERVERS` set, as CI
sets it, it is an error.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

START_SECONDS = 30.0


def require(binary: str, package: str) -> str:
    """Return the path of a program; skip the test where it is missing, or fail it where missing is an error."""
    found = shutil.which(binary)
    if found is not None:
        return found
    reason = f"{binary} is not installed: apt-get install {package}"
    if os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, done: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Call `done` until it returns something true; fail the test, naming `what`, when time is up."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Return whether a GET of the URL succeeds."""
    try:
        return httpx.get(url, timeout=2.0).is_success
    except httpx.TransportError:
        return False


@contextmanager
def process(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its output in a file, and end it (kill it, if need be) when the block ends."""
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, env=env)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def serving(command: Sequence[str], directory: Path, url: str, ready: str) -> Iterator[str]:
    """Run a server until the block ends; yield its URL once `url + ready` answers."""
    log = directory / "log"
    with process(command, log) as child:

        def is_up() -> bool:
            if child.poll() is not None:
                pytest.fail(f"{command[0]} ended with {child.returncode}: {log.read_text()[-2000:]}")
            return answers(url + ready)

        wait_until(f"{command[0]} at {url}{ready}", is_up)
        yield url


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer of the HTTP API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30.0)
        answer.raise_for_status()
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the vector that an instant query evaluates to."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result


@contextmanager
def prometheus(
    directory: Path, targets: Sequence[str], *, interval: str = "500ms", token: str = ""
) -> Iterator[Prometheus]:
    """
    Run a Prometheus that scrapes `/metrics` of each target (`host:port`) at the interval, exemplars included.

    Its configuration is JSON, which is YAML too.
    """
    binary = require("prometheus", "prometheus")
    directory.mkdir(parents=True, exist_ok=True)
    job: dict[str, Any] = {"job_name": "mppobs", "static_configs": [{"targets": list(targets)}]}
    if token:
        job["authorization"] = {"credentials": token}
    settings = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}
    (directory / "prometheus.yml").write_text(json.dumps(settings))
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address={address}", "--enable-feature=exemplar-storage", "--log.level=warn",
    ]  # fmt: skip
    with serving(command, directory, f"http://{address}", "/-/ready") as url:
        yield Prometheus(url)


@contextmanager
def alertmanager(directory: Path, webhook: str) -> Iterator[str]:
    """Run an Alertmanager that sends every alert to a webhook at once; yield its URL."""
    binary = require("prometheus-alertmanager", "prometheus-alertmanager")
    directory.mkdir(parents=True, exist_ok=True)
    route = {"receiver": "test", "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    receiver = {"name": "test", "webhook_configs": [{"url": webhook}]}
    (directory / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": [receiver]}))
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary, f"--config.file={directory}/alertmanager.yml", f"--storage.path={directory}/data",
        f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=warn",
    ]  # fmt: skip
    with serving(command, directory, f"http://{address}", "/-/ready") as url:
        yield url


@contextmanager
def pushgateway(directory: Path) -> Iterator[str]:
    """Run a Pushgateway; yield its URL."""
    binary = require("prometheus-pushgateway", "prometheus-pushgateway")
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    command = [binary, f"--web.listen-address={address}", "--log.level=warn"]
    with serving(command, directory, f"http://{address}", "/-/ready") as url:
        yield url


def run(command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end with a text on its standard input, and return what it said."""
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
