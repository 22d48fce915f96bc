"""Kills at random instants: what was counted afterwards is what the workers themselves noted, attempt by attempt."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mppobs.model import AttemptOutcome, JobOutcome, Reason, ShardOutcome
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.store_jobs import JobQuery
from tests.sidecar.crash_tools import (
    JOB,
    PATIENCE,
    ROOT,
    STAGE,
    Coordinator,
    Fleet,
    Sidecar,
    agent,
    aggregator,
    engine_on,
    moments,
    rows_of,
    settle_accounts,
    wait_for,
)

ENGINE = Path(__file__).with_name("engine_process.py")
VICTIMS = ("aggregator", "agent", "both")
MANY = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Workers, none of which outlives the test."""
    made = Fleet(tmp_path / "notes")
    yield made
    made.stop()


@contextmanager
def running(engine: Engine) -> Iterator[Engine]:
    """Run an engine in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        yield engine
    finally:
        stop.set()
        thread.join(PATIENCE)


@pytest.mark.parametrize("kills", [8, MANY])
def test_killed_workers_lose_no_attempt_and_double_none(tmp_path: Path, fleet: Fleet, kills: int) -> None:
    """Each finished attempt counts once, and each that was in flight is reported as worker_lost soon after the kill."""
    journals = tmp_path / "journals"
    waits = []
    with engine_on(tmp_path / "state", [journals]) as engine, running(engine):
        for pause in moments(kills, 0.1, seed=1):
            worker = fleet.start(journals)
            worker.work()
            time.sleep(pause)
            worker.kill()
            killed = time.monotonic()
            inside = worker.said("inside")[-1]

            def is_known(shard: int = inside) -> bool:
                with engine.lock:
                    return shard in rows_of(engine)

            wait_for("the attempt in flight", is_known)
            waits.append(time.monotonic() - killed)
    with engine_on(tmp_path / "state", [journals]) as engine:
        done, lost = settle_accounts(engine, fleet)
    assert done >= kills
    assert lost >= kills // 4
    assert sorted(waits)[len(waits) // 2] < 10


def start_engine(state: Path, journals: Path) -> subprocess.Popen[bytes]:
    """Start an engine in a process of its own, and return when it runs."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(ENGINE), str(state), str(journals)], env=environ, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("kills", [4, MANY])
def test_a_killed_engine_goes_on_exactly(tmp_path: Path, fleet: Fleet, kills: int) -> None:
    """While workers write, come and are killed, the engine is killed again and again, and counts nothing twice."""
    journals, state = tmp_path / "journals", tmp_path / "state"
    chance = random.Random(7)
    for _ in range(2):
        fleet.start(journals)
    for pause in moments(kills, 0.5, seed=2):
        process = start_engine(state, journals)
        if chance.random() < 0.5:
            next(worker for worker in fleet.workers if worker.process.poll() is None).kill()
            fleet.start(journals)
        time.sleep(pause)
        process.kill()
        process.wait()
    fleet.stop()

    with engine_on(state, [journals]) as engine:
        done, _ = settle_accounts(engine, fleet)
        assert engine.figures.unreadable == 0
    assert done > 10


class Cluster:
    """An aggregator and two agents, each with a directory of journals of its own, as processes."""

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        self.fleet = fleet
        self.state = directory / "state"
        self.journals = [directory / "journals-0", directory / "journals-1"]
        for path in self.journals:
            path.mkdir()
        self.aggregator = aggregator(directory / "aggregator", self.state)
        self.aggregator.start()
        url = self.aggregator.url
        self.agents = [agent(directory / f"agent-{at}", journals, url) for at, journals in enumerate(self.journals)]
        for each in self.agents:
            each.start()

    @property
    def sidecars(self) -> list[Sidecar]:
        """Return all three."""
        return [self.aggregator, *self.agents]

    def is_shipped(self) -> bool:
        """Return whether the agents have nothing left: all journals have ended, been shipped and deleted."""
        return not any(path.suffix == ".segment" for journals in self.journals for path in journals.iterdir())

    def finish(self) -> None:
        """Let everything arrive, then stop it all."""
        self.fleet.stop()
        for each in self.sidecars:
            if each.process is not None and each.process.poll() is not None:
                each.start()
        wait_for("the agents to ship everything", self.is_shipped)
        for each in self.sidecars:
            each.stop()

    def kill(self) -> None:
        """Leave nothing running."""
        for each in self.sidecars:
            each.kill()


@pytest.fixture
def cluster(tmp_path: Path, fleet: Fleet) -> Iterator[Cluster]:
    """An aggregator with two agents, none of which outlives the test."""
    made = Cluster(tmp_path, fleet)
    yield made
    made.kill()


@pytest.mark.parametrize(
    ("victims", "kills"), [("both", 2), *(pytest.param(victims, 200, marks=MANY.marks) for victims in VICTIMS)]
)
def test_killed_sidecars_lose_nothing_on_the_way(cluster: Cluster, fleet: Fleet, victims: str, kills: int) -> None:
    """While four processes write through an agent, it, the aggregator or both are killed: every attempt counts once."""
    for _ in range(4):
        fleet.start(cluster.journals[0])
    struck = {"aggregator": [cluster.aggregator], "agent": [cluster.agents[0]]}
    for pause in moments(kills, 1.0, seed=3):
        time.sleep(0.5 + pause)
        for sidecar in struck.get(victims, [cluster.aggregator, cluster.agents[0]]):
            sidecar.kill()
            sidecar.start()
    for worker in fleet.workers:
        worker.work()
    cluster.finish()

    with engine_on(cluster.state, [cluster.state / "spool"]) as engine:
        done, lost = settle_accounts(engine, fleet)
    assert done >= 4
    assert lost <= 4


def test_a_job_under_two_agents_is_one_job(cluster: Cluster, fleet: Fleet) -> None:
    """Shards that ran under both agents are in one run of one job at the one aggregator."""
    for journals in cluster.journals * 2:
        fleet.start(journals, count=20)
    for worker in fleet.workers:
        assert worker.process.wait(PATIENCE) == 0
    cluster.finish()

    with engine_on(cluster.state, [cluster.state / "spool"]) as engine:
        done, lost = settle_accounts(engine, fleet)
        assert len(engine.jobs(JobQuery(job_id=JOB)).jobs) == 1
    assert (done, lost) == (80, 0)


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of a few megabytes, in memory or in a file."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path, image = tmp_path / "small", tmp_path / "image"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if request.param == "ext4":
        with image.open("wb") as out:
            out.truncate(6 * 2**20)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True)
        if made.returncode != 0:
            pytest.skip(f"no ext4 here: {made.stderr.decode()}")
        command = ["mount", "-o", "loop", str(image), str(path)]
    mounted = subprocess.run(command, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small file system here: {mounted.stderr.decode()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> Path:
    """Take all the room that is left on a file system; return the file that holds it."""
    hog = path / "hog"
    with hog.open("wb", buffering=0) as out:
        for size in (1 << 16, 1 << 12):
            try:
                while out.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return hog


def test_a_full_disk_under_the_journals_harms_no_work_and_is_counted(
    small_disk: Path, fleet: Fleet, tmp_path: Path
) -> None:
    """Workers go on and end well; what had no room is counted, and recorded plus dropped is what they did."""
    journals = small_disk / "journals"
    journals.mkdir()
    worker = fleet.start(journals, count=2000)
    worker.work()
    fill(small_disk)

    assert worker.process.wait(PATIENCE) == 0

    assert len(worker.said("end")) == 2000
    (small_disk / "hog").unlink()
    with engine_on(tmp_path / "state", [journals]) as engine:
        for _ in range(20):
            engine.tick()
        totals = engine.store.totals()
        rows = rows_of(engine)
    dropped = totals.own.dropped["attempt"]
    assert totals.stages[STAGE].attempts[AttemptOutcome.SUCCESS] == len(rows)
    assert len(rows) + dropped == 2000
    assert dropped > 0


def test_a_full_disk_under_the_store_stops_counting_until_there_is_room(
    small_disk: Path, fleet: Fleet, tmp_path: Path
) -> None:
    """The store takes nothing, health says so, and when there is room again every attempt is there once."""
    journals, state = tmp_path / "journals", small_disk / "state"
    worker = fleet.start(journals, count=300)
    with engine_on(state, [journals]) as engine:
        worker.work()
        engine.tick()
        hog = fill(small_disk)
        before = engine.store.totals().own.records["attempt"]
        worker.process.wait(PATIENCE)
        refused = [engine.tick() for _ in range(5)]
        assert not engine.health.ok
        assert engine.store.totals().own.records["attempt"] == before
        assert not any(report.committed for report in refused[1:])
        hog.unlink()

        done, lost = settle_accounts(engine, fleet)
        assert engine.health.ok
    assert (done, lost) == (300, 0)


def test_an_agent_killed_with_its_workers_is_seen_from_the_coordinators_records(tmp_path: Path, fleet: Fleet) -> None:
    """Attempts that vanished with their node count as errors, and the job is judged by what the coordinator wrote."""
    here, there, state = tmp_path / "here", tmp_path / "there", tmp_path / "state"
    coordinator = Coordinator(here, JOB)
    quick = EngineSettings(DecideSettings(settle_seconds=0.5))
    with engine_on(state, [here], quick) as engine:
        coordinator.start(shards=3)
        coordinator.dispatch(0)
        coordinator.attempt(0)
        coordinator.commit(0)
        coordinator.dispatch(1)
        worker = fleet.start(there, count=10)
        worker.work()
        worker.kill()
        coordinator.end(JobOutcome.FAILURE)

        def is_judged() -> bool:
            engine.tick()
            time.sleep(0.1)
            return [job.state for job in engine.jobs(JobQuery(job_id=JOB)).jobs] == ["settled"]

        wait_for("the judgement", is_judged)
        (job,) = engine.jobs(JobQuery(job_id=JOB)).jobs
        rows = rows_of(engine)
    coordinator.close()
    assert (job.dispatched, job.recorded) == (2, 1)
    assert job.attempts[AttemptOutcome.ERROR] == 1
    assert {shard: row.outcome for shard, row in rows.items()} == {0: ShardOutcome.COMMITTED, 1: ShardOutcome.LOST}
    assert job.shards[ShardOutcome.LOST] == 2
    assert rows[1].reason is Reason.NODE_LOST
