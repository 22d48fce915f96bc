"""Processes that are killed at random, the job that they are to finish all the same, and what is left of them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mppobs.executor.workspace import Workspace
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.store_jobs import JobQuery, JobSummary

ROOT = Path(__file__).parents[2]
PROCESS = Path(__file__).with_name("survivor_process.py")
PATIENCE = 60.0
KINDS = ("coordinator", "standby", "worker", "fork server")


class Crew:
    """A coordinator, a standby, and whatever they started: everything below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lease = 60.0
        self.exchange = directory / "exchange"
        self._answer = directory / "answer"
        self._environ = {**os.environ, "MPPOBS_DIR": str(directory / "journal"), "PYTHONPATH": str(ROOT)}
        self.heads: list[subprocess.Popen[bytes]] = []

    def start(self, role: str) -> None:
        """Start a coordinator or a standby."""
        command = [sys.executable, str(PROCESS), role, str(self.exchange), str(self._answer), str(self.lease)]
        with (self.directory / "log").open("ab") as log:
            self.heads.append(subprocess.Popen(command, env=self._environ, stdout=log, stderr=log))

    def begin(self) -> None:
        """Start the coordinator, and a standby when the job is there."""
        self.start("coordinator")
        deadline = time.monotonic() + PATIENCE
        while not list(self.exchange.glob("job-*/decisions-*")):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)
        self.stand_by()

    def living(self) -> list[subprocess.Popen[bytes]]:
        """Return the coordinator and the standby, as far as they live."""
        return [head for head in self.heads if head.poll() is None]

    def coordinates(self) -> int:
        """Return the process that holds the newest lease; 0 where there is none."""
        for path in sorted(self.exchange.glob("job-*/lease-*"), reverse=True):
            try:
                return int(json.loads(path.read_text())["holder"].rsplit("-", 1)[1])
            except (OSError, ValueError):
                continue
        return 0

    def victims(self, kind: str) -> list[int]:
        """Return the processes of a kind that live."""
        heads = [head.pid for head in self.living()]
        match kind:
            case "coordinator":
                return [pid for pid in heads if pid == self.coordinates()]
            case "standby":
                return [pid for pid in heads if pid != self.coordinates()]
        forked = {pid for pid, words in self.processes().items() if "multiprocessing.forkserver" in words}
        return [pid for pid in forked if (_parent(pid) in forked) == (kind == "worker")]

    def processes(self) -> dict[int, str]:
        """Return the command lines of all processes that live and have the crew's environment."""
        mark = f"MPPOBS_DIR={self.directory}/".encode()
        found = {}
        for place in Path("/proc").iterdir():
            try:
                if place.name.isdigit() and mark in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def answers(self) -> list[dict[str, Any]]:
        """Return what the processes that ended the job said."""
        return [json.loads(line) for line in self._answer.read_text().splitlines()] if self._answer.exists() else []

    def kill(self, kind: str, chance: random.Random) -> bool:
        """Kill a process of a kind, if there is one, and replace a coordinator or a standby."""
        victims = self.victims(kind)
        if victims:
            victim = chance.choice(victims)
            with suppress(ProcessLookupError):  # it was faster
                os.kill(victim, 9)
            for head in self.heads:
                if head.pid == victim:
                    head.wait(PATIENCE)
            self.stand_by()
        return bool(victims)

    def stand_by(self) -> None:
        """Have two heads, as long as there is something to be done."""
        while len(self.living()) < 2 and not self.answers():
            self.start("standby")

    def wait_for_work(self) -> None:
        """Wait until somebody has workers, or there is nothing to do for them."""
        self._wait(lambda: bool(self.answers() or (self.victims("coordinator") and self.victims("worker"))))

    def settle(self) -> None:
        """Wait until the job has ended and every process with it."""
        self._wait(lambda: bool(self.answers()))
        self._wait(lambda: not self.victims("coordinator"))
        # A standby that came when the job was gone waits for it: it is not needed.
        for head in self.living():
            head.kill()
        self._wait(lambda: not self.processes())
        Workspace(self.exchange, 60.0)  # removes what was half removed, as the next executor would

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"{self.answers()}, {self.processes()}, {self.said()}"
            self.stand_by()
            time.sleep(0.05)

    def judgement(self) -> JobSummary:
        """Return the one run of the job, as a sidecar sees it from what all these processes recorded."""
        quick = EngineSettings(DecideSettings(settle_seconds=0.1))
        engine = open_engine(self.directory / "state", [self.directory / "journal"], quick)
        try:
            deadline = time.monotonic() + PATIENCE
            jobs: list[JobSummary] = []
            while [job.state for job in jobs] != ["settled"]:
                assert time.monotonic() < deadline, jobs
                engine.tick()
                time.sleep(0.02)
                jobs = list(engine.jobs(JobQuery(job_id="survivor")).jobs)
        finally:
            engine.close()
        return jobs[0]

    def said(self) -> str:
        """Return what the processes wrote."""
        return (self.directory / "log").read_text()[-3000:]

    def end(self) -> None:
        """Kill whatever is left."""
        for pid in self.processes():
            os.kill(pid, 9)
        for head in self.heads:
            head.wait()


def strikes(chance: random.Random, longest: float) -> Iterator[tuple[float, str]]:
    """Yield waits, more short ones than long ones, and kinds of process, each as often as the others."""
    while True:
        for kind in chance.sample(KINDS, len(KINDS)):
            yield longest * chance.random() ** 2, kind


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
