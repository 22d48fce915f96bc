"""
What policies are worth on this machine: small jobs on real processes, with a fault, the policy on and off.

Unlike the comparisons of `mppobs.executor.sim.effects` these run in real time, so what they are judged by are counts:
attempts, the largest piece of work that one attempt had, shards that were lost.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from mppobs.executor.backends.make import BackendSpec, make_backend
from mppobs.executor.driver import Executor
from mppobs.executor.faults import Layer, arm, of_layer, parse_faults
from mppobs.executor.plan import Limits, OnFailure, Plan, ShardPlan, Stage
from mppobs.executor.policies import Policy, Speculation, Splitting
from mppobs.executor.result import JobResult
from mppobs.executor.task import TaskInput
from mppobs.model import AttemptOutcome, JobOutcome

_HERE: Final = "mppobs.executor.rehearsal"
_ITEM_SECONDS: Final = 0.005
_WORKERS: Final = 4
_KILLED_AT: Final = 0.7
_PATIENCE: Final = 60.0


class Outcome(NamedTuple):
    """What came of one run."""

    outcome: JobOutcome | None
    """`None` where nobody was there to end it."""
    planned: int
    attempts: int
    largest: int
    """Items of the largest piece that one attempt did."""
    failed: int
    done: int
    superseded: int
    seconds: float

    @property
    def attempts_ratio(self) -> float:
        """Return attempts for each planned shard."""
        return self.attempts / self.planned


@dataclass(frozen=True, slots=True)
class LocalEffect:
    """One comparison on local processes."""

    name: str
    mode: str
    faults: tuple[str, ...]
    policy: str
    plan: Callable[[], Plan]
    on: Policy
    off: Policy
    shows: str
    """A field or property of `Outcome`."""
    off_plan: Callable[[], Plan] | None = None
    nodes: int = 0

    def run(self) -> tuple[Outcome, Outcome]:
        """Return the outcome with the policy on, and with it off."""
        without = self.off_plan or self.plan
        return self._run(self.plan(), self.on), self._run(without(), self.off)

    def _run(self, plan: Plan, policy: Policy) -> Outcome:
        made = make_backend(BackendSpec(workers=_WORKERS, nodes=self.nodes, seed=7, faults=parse_faults(self.faults)))
        armed = arm(of_layer(parse_faults(self.faults), Layer.TASK), made.clock.time_ns())
        with Executor(backend=made.backend, clock=made.clock, policy=policy, seed=7, faults=armed) as executor:
            return _outcome(plan, executor.run(plan))


def do_items(task: TaskInput) -> int:
    """Take a while for each of the shard's items, and return how many there were: the task of these jobs."""
    time.sleep(_ITEM_SECONDS * task.arguments["items"])
    return int(task.arguments["items"])


def split_items(arguments: Mapping[str, Any], parts: int) -> Sequence[Mapping[str, Any]]:
    """Share the items of a shard out to parts."""
    items = arguments["items"]
    return [{**arguments, "items": items * (part + 1) // parts - items * part // parts} for part in range(parts)]


def job(shards: int, *, skew: int = 1, limits: Limits | None = None, on_failure: OnFailure = OnFailure.FINISH) -> Plan:
    """Return a job of shards of ten items, of which the first has `skew` times as many."""
    parts = tuple(
        ShardPlan(number, {"items": 10 * (skew if number == 0 else 1)}, (10 << 20) * (skew if number == 0 else 1))
        for number in range(shards)
    )
    stage = Stage(
        name="map", task=f"{_HERE}:do_items", shards=parts, splittable=True, split=f"{_HERE}:split_items",
        limits=limits or Limits(backoff=0.01),
    )  # fmt: skip
    return Plan(pipeline="rehearsal", stages=(stage,), on_failure=on_failure)


_SPLITTING: Final = Policy(splitting=Splitting(factor=4.0, least_bytes=1 << 20))
_COPIES: Final = Policy(speculation=Speculation(done=0.5, least_done=5, floor=0.15, share=0.5), locality_wait=0.0)

LOCAL_EFFECTS: Final[tuple[LocalEffect, ...]] = (
    LocalEffect(
        "8 x skew", "F1", (), "splitting", lambda: job(24, skew=8), _SPLITTING, replace(_SPLITTING, splitting=None),
        "largest",
    ),
    LocalEffect(
        "a worker 40 x slower", "F1", ("slow-node:severity=40",), "speculation", lambda: job(24), _COPIES,
        replace(_COPIES, speculation=None, slow_nodes=None), "seconds", nodes=4,
    ),
    LocalEffect(
        "30 % of attempts fail", "F5", ("retry-storm:severity=0.3",), "retry budget, backoff", lambda: job(100),
        Policy(), Policy(retry_budget=False, backoff=False), "attempts_ratio",
    ),
    LocalEffect(
        "half of the nodes die", "F6", ("node-loss:severity=0.5,at=0.3",), "losses are reassigned", lambda: job(60),
        Policy(), Policy(), "failed", lambda: job(60, limits=Limits(losses=0, preemptions=0)), nodes=4,
    ),
)  # fmt: skip
"""Comparisons on this machine. The takeover (F4) takes two processes: see `takeover`."""


def takeover(*, standby: bool) -> Outcome:
    """
    Have a coordinator killed in the middle of a job, with a standby that waits for it or with none.

    Raises `RuntimeError` where the coordinator does not begin, or is not killed as it should be.
    """
    with tempfile.TemporaryDirectory(prefix="mppobs-takeover-") as directory:
        plan, began = job(80), time.monotonic()
        command = [sys.executable, "-m", _HERE, directory]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as coordinator:
            _wait_for_job(Path(directory), coordinator)
            if standby:
                with Executor(workers=_WORKERS, directory=directory, lease=30.0) as executor:
                    handle = executor.stand_by(timeout=_PATIENCE)
                    result = handle.result() if handle is not None else None
            else:
                result = None
            coordinator.wait(_PATIENCE)
        if result is None:
            return Outcome(None, 80, 0, 0, 0, 0, 0, time.monotonic() - began)
        return _outcome(plan, result)


def doomed(directory: str) -> None:
    """Run the job of `takeover` as the coordinator that is killed."""
    made = make_backend(BackendSpec(workers=_WORKERS, faults=parse_faults([f"coordinator:at={_KILLED_AT}"])))
    with Executor(backend=made.backend, directory=directory, clock=made.clock, lease=30.0) as executor:
        executor.run(job(80))


def _wait_for_job(directory: Path, coordinator: subprocess.Popen[bytes]) -> None:
    """Wait until a coordinator has written down what it decides."""
    deadline = time.monotonic() + _PATIENCE
    while not list(directory.glob("job-*/decisions-*")):
        if coordinator.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the coordinator ended with {coordinator.returncode} before it began")
        time.sleep(0.01)


def _outcome(plan: Plan, result: JobResult) -> Outcome:
    stage = result.stages[0]
    values = [value for value in result.answer or () if value is not None]
    return Outcome(
        result.outcome, plan.shard_count("map"), sum(result.attempts.values()), max(values, default=0), stage.failed,
        stage.done, result.attempts.get(AttemptOutcome.SUPERSEDED, 0), result.wall,
    )  # fmt: skip


if __name__ == "__main__":
    doomed(sys.argv[1])
