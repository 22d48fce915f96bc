"""A sidecar as a process beside this one: started, asked, stopped. What the demo shows comes through here alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from mppobs.cli.client import SidecarClient, SidecarError
from mppobs.errors import MppobsError

_ENV_PREFIX: Final = "MPPOBS_SIDECAR_"
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.2
_LIVE: Final = ("M7", "M11")
"""Indicators of the present moment."""


class BesideError(MppobsError):
    """Raised when the sidecar does not start, or does not judge the jobs in time. The message has its last words."""


class SidecarProcess:
    """
    A sidecar that follows `journals`, with its state, log and port file in `directory`. Use it as a context manager.

    It listens on a free port of the loopback interface unless `port` says which. Settings of this process's
    environment do not reach it.
    """

    def __init__(self, directory: Path, journals: Path, prices: Path, port: int = 0) -> None:
        self._directory = directory
        self._settings = {
            "DIRECTORIES": str(journals),
            "STATE_DIRECTORY": str(directory / "state"),
            "PORT": str(port),
            "PORT_FILE": str(directory / "port"),
            "PRICE_FILE": str(prices),
            "POLL_SECONDS": "0.1",
            "SETTLE_SECONDS": "2",
        }
        self._child: subprocess.Popen[bytes] | None = None
        self.url = ""
        """Where it listens, once it is ready."""

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        self._directory.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_ENV_PREFIX)}
        settings = {_ENV_PREFIX + name: value for name, value in self._settings.items()}
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "mppobs.cli.main", "sidecar"],
                env=inherited | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """Stop it gracefully, or else by force. May be called twice."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def wait(self) -> None:
        """Wait until it ends by itself; an interrupt ends the wait."""
        if self._child is not None:
            self._child.wait()

    def indicators(self) -> list[dict[str, Any]]:
        """Return the indicators of every pipeline, as the API has them now. Raises `SidecarError`."""
        with SidecarClient(self.url, timeout=5.0) as client:
            found: list[dict[str, Any]] = client.get("/slis")["pipelines"]
        return found

    def wait_until_judged(self, job_ids: Collection[str], seconds: float) -> None:
        """Wait until each of the jobs has been judged. Raises `BesideError` that names those that were not in time."""
        deadline = time.monotonic() + seconds
        while missing := set(job_ids) - self._judged():
            if time.monotonic() > deadline:
                raise BesideError(f"not judged within {seconds:g} s: {', '.join(sorted(missing))}{self._last_words()}")
            time.sleep(0.1)

    @property
    def _log(self) -> Path:
        return self._directory / "sidecar.log"

    def _judged(self) -> set[str]:
        with SidecarClient(self.url, timeout=5.0) as client:
            return {job["job_id"] for job in client.pages("/jobs", "jobs", {"state": "finished"}, limit=1000)}

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._child is None or self._child.poll() is not None:
                raise BesideError(f"the sidecar did not start{self._last_words()}")
            if time.monotonic() > deadline:
                raise BesideError(f"the sidecar was not ready within {_START_SECONDS:g} s{self._last_words()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        port_file = self._directory / "port"
        if not port_file.exists() or not (port := port_file.read_text().strip()):
            return False
        self.url = f"http://127.0.0.1:{port}"
        with suppress(httpx.TransportError):  # not listening yet: asked again until time is up
            return httpx.get(f"{self.url}/readyz", timeout=5.0).is_success
        return False

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        return f"; its log ends: {text[-800:]}" if text else ""


@dataclass(slots=True)
class Peaks:
    """The worst value seen of indicators that describe the present moment, and say nothing once a job has ended."""

    worst: dict[tuple[str, str], float] = field(default_factory=dict)
    """By pipeline and indicator key."""

    def see(self, pipelines: list[dict[str, Any]]) -> None:
        """Take note of what the API says now."""
        for pipeline in pipelines:
            for key in _LIVE:
                value = pipeline["indicators"][key]["value"]
                if value is not None:
                    place = (pipeline["pipeline"], key)
                    self.worst[place] = max(value, self.worst.get(place, 0.0))

    def fill(self, pipelines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the report with those values, each marked as what it is."""
        return [{**each, "indicators": self._filled(each["pipeline"], each["indicators"])} for each in pipelines]

    def _filled(self, pipeline: str, indicators: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        filled = dict(indicators)
        for key in _LIVE:
            worst = self.worst.get((pipeline, key))
            if worst is not None:
                filled[key] = {**indicators[key], "value": worst, "headline": "worst while running"}
        return filled


class Watcher:
    """A thread that looks at the sidecar while jobs run, some times a second, and keeps the peaks."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self.peaks = Peaks()
        self.failed = 0
        """Looks that got no answer; the next one may."""
        self._sidecar = sidecar
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mppobs-demo-watcher", daemon=True)

    def __enter__(self) -> Self:
        """Start to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and wait for the last look to end."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_SECONDS):
            try:
                self.peaks.see(self._sidecar.indicators())
            except SidecarError:
                self.failed += 1
