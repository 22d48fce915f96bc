"""
A gang: processes that must all run at once, started by one task, and started again together when one dies.

The task is one shard of a job of the executor; the processes are another fabric, as containers of a training service
would be. Both belong to the same job: what the processes do is planned, dispatched and committed here under the job's
ID, so one trace, one budget and one progress bar hold for all of it. A step counts as committed when a checkpoint
holds it, since only then nothing can take it back.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import mppobs
from mppobs.errors import MppobsError
from mppobs.instrument.coordinator import Coordinator
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import current_run
from mppobs.workloads.gang_member import SERVE, STEP, Membership, Training, start_of

MAX_RESTARTS: Final = 3
"""As many as attempts may die with their worker: a fourth death is no accident."""
_SILENCE: Final = 60.0
"""Seconds without a word from any process after which the gang counts as hung."""
_ROOT: Final = Path(__file__).parents[2]


class GangError(MppobsError):
    """Raised when a gang has died too often, or says nothing any more."""


@dataclass(slots=True)
class Ledger:
    """What was begun and committed, kept in a file, so that a task that is tried again goes on with it."""

    path: Path
    begun: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each shard of each stage was begun."""
    committed: int = 0
    """Steps that are committed."""
    planned: bool = False

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Return what the file says; a line that was cut off by a kill is passed over."""
        ledger = cls(path)
        for line in path.read_text().splitlines() if path.exists() else []:
            match line.split():
                case ["begin", stage, shard]:
                    ledger.begun[stage, int(shard)] += 1
                case ["commit", step]:
                    ledger.committed = int(step)
                case ["plan"]:
                    ledger.planned = True
                case _:
                    continue
        return ledger

    def note(self, line: str) -> None:
        """Add a line."""
        with self.path.open("a") as file:
            file.write(line + "\n")


class Gang:
    """The processes of one training, over all their restarts."""

    def __init__(self, training: Training, job: Coordinator, kill_step: int) -> None:
        """Set up; `kill_step` is where the last worker dies once, on purpose, 0 for nowhere."""
        self.resumed_from: list[int] = []
        """The step at which each restart went on."""
        self._training = training
        self._job = job
        self._kill_step = kill_step
        self._ledger = Ledger.open(Path(training.directory) / "ledger")
        self._first_starts: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        """Train to the end, from where checkpoints say that it stands. Raises `GangError` where that cannot be."""
        self._plan()
        runs = 0
        while (step := self._commit_what_is_safe()) < self._training.steps:
            if runs > MAX_RESTARTS:
                raise GangError(f"a process of the training died {runs} times")
            if runs:
                self.resumed_from.append(step)
            runs += 1
            self._run_once()

    def _commit_what_is_safe(self) -> int:
        """Commit the steps that the newest checkpoint holds, also where none lived to say so; return how many."""
        step = start_of(self._training).step
        self._commit(step)
        return step

    def _plan(self) -> None:
        """Say what there is to do, unless an earlier try of the task has."""
        if self._ledger.planned:
            return
        # Noted first: steps that a kill leaves unplanned are committed all the same; those planned twice could not be.
        self._ledger.note("plan")
        for stage, count in self._roles():
            self._job.plan(stage, self._training.steps * count)

    def _roles(self) -> list[tuple[str, int]]:
        """Return the stages and how many processes work in each."""
        servers = [(SERVE, self._training.servers)] if self._training.servers else []
        return [(STEP, self._training.workers), *servers]

    def _run_once(self) -> None:
        """Start all processes and follow them until all are done or one is gone."""
        members = self._members()
        with _started(members) as processes:
            self._follow(members, processes)

    def _members(self) -> list[Membership]:
        """Return what each process is told; the secret is another one each time."""
        token = secrets.token_bytes(32).hex()
        last = self._training.workers - 1
        members = []
        for stage, count in self._roles():
            for index in range(count):
                dies = stage == STEP and index == last and not self._ledger.begun
                role = "server" if stage == SERVE else "worker"
                member = Membership(self._training, role, index, token, kill_step=self._kill_step if dies else 0)
                members.append(dataclasses.replace(member, tries=self._tries(stage, member)))
        return members

    def _tries(self, stage: str, member: Membership) -> dict[str, int]:
        """Return how often a process's part of each step was begun, where it was."""
        counts = {step: self._ledger.begun[stage, member.shard(step)] for step in range(self._training.steps)}
        return {str(step): count for step, count in counts.items() if count}

    def _follow(self, members: list[Membership], processes: list[subprocess.Popen[bytes]]) -> None:
        """Take in what the processes say until all are done, or one has ended before that."""
        done = 0
        ports: dict[int, int] = {}
        for index, event, step, at_ns in _lines(processes):
            match event:
                case "port":
                    ports[index] = step
                    if len(ports) == len(members):
                        _tell_all(processes, json.dumps([ports[index] for index in range(len(members))]))
                case "begin":
                    self._begin(members[index], step, at_ns, processes[index].pid)
                    _tell(processes[index], "go")
                case "checkpoint":
                    self._commit(step)
                case "done":
                    done += 1
                case _:
                    return
            if done == len(members):
                return

    def _begin(self, member: Membership, step: int, at_ns: int, pid: int) -> None:
        """Give a step to a process. It is noted first: a number that is lost with this process is used by no other."""
        stage, shard = SERVE if member.role == "server" else STEP, member.shard(step)
        self._ledger.note(f"begin {stage} {shard}")
        self._job.dispatch(stage, shard, self._ledger.begun[stage, shard], worker=f"{member.role}-{pid}")
        self._ledger.begun[stage, shard] += 1
        self._first_starts.setdefault((stage, shard), at_ns)

    def _commit(self, until: int) -> None:
        """Commit all steps before `until` that are not yet. After a kill some are said again: the first one counts."""
        first = self._ledger.committed
        for stage, count in self._roles():
            for shard in range(first * count, until * count):
                number = max(self._ledger.begun[stage, shard] - 1, 0)
                self._job.commit(stage, shard, number, first_start_ns=self._first_starts.pop((stage, shard), 0))
        if until > first:
            self._ledger.committed = until
            self._ledger.note(f"commit {until}")
            attempt = mppobs.current()
            attempt.checkpoint()
            attempt.progress(until / self._training.steps)


def coordinator() -> Coordinator:
    """Return what writes records of the job that this code takes part in."""
    return Coordinator(current_run.get() or RECORDER.present())


@contextmanager
def _started(members: list[Membership]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each member; none is left when the block ends, however it ends."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.extend(_start(member) for member in members)
        for process, member in zip(processes, members, strict=True):
            _tell(process, member.to_json())
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def _start(member: Membership) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mppobs.workloads.gang_member"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(member),
    )


def _environment(member: Membership) -> dict[str, str]:
    """Return the environment of a process: it takes part in the job, records as this one does, and has one core."""
    settings = RECORDER.settings()
    info = settings.worker_info()
    return {
        **os.environ,
        **mppobs.environment(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
        "OPENBLAS_NUM_THREADS": "1",
        "MPPOBS_DIR": str(settings.directory),
        "MPPOBS_DISABLED": "false" if settings.enabled else "true",
        "MPPOBS_CLUSTER": settings.cluster,
        "MPPOBS_WORKER": f"{info.worker}-{member.role}{member.index}-{secrets.token_hex(3)}",
        "MPPOBS_NODE": info.node,
        "MPPOBS_ZONE": info.zone,
        "MPPOBS_NODE_TYPE": info.node_type,
        "MPPOBS_SAMPLE_SECONDS": f"{settings.sample_seconds:g}",
    }


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    """Write a line to a process; one that is gone is noticed by its output's end."""
    try:
        _pipe(process.stdin).write(line.encode() + b"\n")
        _pipe(process.stdin).flush()
    except BrokenPipeError:
        return


def _tell_all(processes: list[subprocess.Popen[bytes]], line: str) -> None:
    for process in processes:
        _tell(process, line)


def _lines(processes: list[subprocess.Popen[bytes]]) -> Iterator[tuple[int, str, int, int]]:
    """
    Yield what the processes say: which one, event, step, when. The event `gone` says that one has ended.

    Raises `GangError` where all are silent for too long.
    """
    parts = [b"" for _ in processes]
    with selectors.DefaultSelector() as selector:
        for index, process in enumerate(processes):
            selector.register(_pipe(process.stdout), selectors.EVENT_READ, index)
        while selector.get_map():
            ready = selector.select(_SILENCE)
            if not ready:
                raise GangError(f"no process of the training has said anything for {_SILENCE:g} s")
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                *lines, parts[key.data] = (parts[key.data] + data).split(b"\n")
                for line in lines:
                    told: dict[str, Any] = json.loads(line)
                    yield key.data, told["event"], told["step"], told["at_ns"]
                if not data:
                    selector.unregister(key.fileobj)
                    yield key.data, "gone", 0, time.time_ns()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe that is there because it was asked for."""
    assert pipe is not None
    return pipe
