"""
A node that is lost for good: its workers and its agent are killed together, and what they had not shipped is gone.

What is known of it then is what the coordinator recorded, which another agent ships to the aggregator.
"""

from __future__ import annotations

import os
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mppobs.executor import Executor, JobHandle, Limits, Plan, ShardPlan, Stage
from mppobs.executor.backends.local import LocalBackend
from mppobs.model import AttemptOutcome, JobOutcome, Reason, ShardOutcome
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.reading import ShardQuery, ShardRow
from mppobs.sidecar.store_jobs import JobQuery, JobSummary
from mppobs.testing import capture
from tests.sidecar.crash_tools import EVERYTHING, Sidecar, agent, aggregator, engine_on, wait_for

JOB = "lost-node"
SHARDS = 12
LEASE = 2.0
"""Seconds that attempts which were seen running get after the job has ended."""


@pytest.fixture
def sidecars(tmp_path: Path) -> Iterator[list[Sidecar]]:
    """An aggregator, the agent beside the coordinator and the one beside the workers, on directories of their own."""
    top = aggregator(tmp_path / "aggregator", tmp_path / "state", "--settle-seconds", "1s")
    top.start()
    made = [top]
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        made.append(agent(tmp_path / f"agent-{name}", tmp_path / name, top.url))
        made[-1].start()
    yield made
    for each in made:
        each.kill()


def started(executor: Executor) -> JobHandle:
    """Return a job of which some shards are done, and two run that will not end by themselves."""
    shards = tuple(ShardPlan(number) for number in range(SHARDS))
    arguments = {"slow": list(range(SHARDS // 2, SHARDS)), "kind": True}
    limits = Limits(losses=0)
    stage = Stage("only", "tests.executor.tasks:hang", shards, arguments=arguments, limits=limits)
    handle = executor.submit(Plan("crash", (stage,), job_id=JOB))

    def is_there() -> bool:
        (progress,) = handle.progress().stages
        return (progress.done, progress.running) == (SHARDS // 2, 2)

    wait_for("two attempts that run", is_there)
    return handle


def count_at(top: Sidecar, name: str, outcome: str) -> int:
    """Return how many of something the aggregator says have ended in a way."""
    with urllib.request.urlopen(f"{top.url}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(f"{name}{{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if f'outcome="{outcome}"' in line)


def judged(engine: Engine) -> tuple[JobSummary, dict[object, ShardRow]]:
    """Return the one run of the job, and its shards."""
    for _ in range(20):
        engine.tick()
    (job,) = engine.jobs(JobQuery(job_id=JOB)).jobs
    return job, {row.shard: row for row in engine.shards(job.key, ShardQuery(limit=EVERYTHING))}


@pytest.mark.parametrize("shipped", [True, False], ids=["shipped before", "never shipped"])
def test_what_vanished_with_a_node_is_counted_once(tmp_path: Path, sidecars: list[Sidecar], shipped: bool) -> None:
    """Attempts in flight are errors of the node, those that were done stay done, and the job is judged once."""
    top, here, there = sidecars
    if not shipped:
        there.kill()
    with capture():
        workers = LocalBackend(2, {"directory": tmp_path / "there", "dedicated": True}, "there")
        with Executor(2, tmp_path / "exchange", backend=workers, lease=LEASE, journal=tmp_path / "here") as executor:
            handle = started(executor)
            if shipped:
                done = SHARDS // 2
                wait_for("what is done", lambda: count_at(top, "mpp_attempts_total", "success") == done)
            there.kill()
            for pid in workers.pids.values():
                os.kill(pid, signal.SIGKILL)
            result = handle.result(60)
    assert (result.outcome, result.reason) == (JobOutcome.ERROR, Reason.WORKER_LOST)
    dispatched = result.stages[0].attempts

    wait_for("the judgement", lambda: count_at(top, "mpp_jobs_total", "error") == 1)
    here.stop()
    top.stop()
    with engine_on(tmp_path / "state", [tmp_path / "state" / "spool"]) as engine:
        job, rows = judged(engine)
    assert (job.outcome, job.state) == (JobOutcome.ERROR, "settled")
    assert (job.planned, job.dispatched) == (SHARDS, dispatched) == (SHARDS, SHARDS // 2 + 2)
    assert job.recorded == job.attempts[AttemptOutcome.SUCCESS] == (SHARDS // 2 if shipped else 0)
    assert job.attempts[AttemptOutcome.ERROR] == dispatched - job.recorded
    assert sum(job.attempts.values()) == dispatched
    assert job.shards == {ShardOutcome.COMMITTED: SHARDS // 2, ShardOutcome.FAILED: 1, ShardOutcome.LOST: 5}
    reasons = Counter(row.reason for row in rows.values() if row.outcome is not ShardOutcome.COMMITTED)
    # One was given up by the coordinator, which saw its worker die; the other was still its own when it ended the job.
    assert reasons == {Reason.WORKER_LOST: 1, Reason.NODE_LOST: 1}
