"""The simulated backend under the real loop: real answers, simulated time, every fault, and the same again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mppobs
from mppobs.executor import Executor, JobResult, Limits, Plan, ShardPlan, Stage
from mppobs.executor.backends.base import Down, Draining, Up
from mppobs.executor.backends.sim import START_NS, SimBackend
from mppobs.executor.faults import arm, parse_faults
from mppobs.executor.sim.model import Cluster
from mppobs.instrument.recorder import RECORDER
from mppobs.journal import reader
from mppobs.journal.codec import decode_all
from mppobs.model import AttemptOutcome, AttemptRecord, CommitRecord, DispatchRecord, JobOutcome, Reason
from tests.recompute import rows_of

WORDS = ["a b a", "b c"] * 20


@pytest.fixture(autouse=True)
def journal(tmp_path: Path) -> Iterator[Path]:
    """Have everything recorded below the test's directory, and return where."""
    before = RECORDER.reset()
    mppobs.configure(directory=tmp_path / "journal")
    yield tmp_path / "journal"
    RECORDER.reset(before)


def plan(limits: Limits | None = None) -> Plan:
    """Return a word count of forty shards and two partitions."""
    shards = tuple(ShardPlan(number, {"text": text}) for number, text in enumerate(WORDS))
    count = Stage(
        name="map", task="mppobs.executor.examples:split_words", shards=shards, partition_by=("word",), partitions=2,
        combiner="mppobs.executor.examples:sum_counts", limits=limits or Limits(attempts=8),
    )  # fmt: skip
    add = Stage(name="reduce", task="mppobs.executor.examples:count_words", reads=("map",))
    return Plan(pipeline="word-count", stages=(count, add), retry_share=1.0)


def run(tmp_path: Path, *faults: str, workers: int = 4, seed: int = 3) -> JobResult:
    """Run the word count in simulated time."""
    backend = SimBackend(workers, seed=seed, faults=parse_faults(faults))
    with Executor(backend=backend, clock=backend.clock, directory=tmp_path / "work") as executor:
        return executor.run(plan())


def counts(result: JobResult) -> dict[str, int]:
    """Return the answer."""
    return {row["word"]: row["count"] for row in result.check().answer.to_pylist()}


@pytest.mark.parametrize(
    "fault",
    ["", "retry-storm:severity=0.2", "node-loss:at=10,severity=0.5", "eviction:severity=1,for=30", "slow-node",
     "long-tail", "hot-prefix", "memory", "cpu", "zone-loss:at=15", "skew"],
)  # fmt: skip
def test_the_answer_is_right_whatever_happens(tmp_path: Path, fault: str) -> None:
    """Real tasks run once for each committed shard, whatever the world does to their attempts."""
    result = run(tmp_path, *filter(None, [fault]))

    assert counts(result) == {"a": 40, "b": 40, "c": 20}
    assert [stage.done for stage in result.stages] == [40, 2]


def test_time_is_simulated(tmp_path: Path) -> None:
    """Forty shards of ten seconds on four workers take their hundred seconds, and next to none of ours."""
    began = time.process_time()
    result = run(tmp_path)

    assert 100 < result.wall < 200
    assert time.process_time() - began < 20


def test_the_same_seed_gives_the_same_history(tmp_path: Path) -> None:
    """Time, attempts and answer are equal run by run, and those of another seed are not."""
    first, again, other = (
        run(tmp_path / name, "retry-storm:severity=0.2", "node-loss:at=20", seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )

    assert (first.wall, first.attempts) == (again.wall, again.attempts)
    assert first.wall != other.wall


def test_what_is_recorded_is_of_simulated_time(tmp_path: Path, journal: Path) -> None:
    """Dispatches, attempts and commits are there for every attempt, at the times of the simulated clock."""
    result = run(tmp_path, "retry-storm:severity=0.2")
    RECORDER.close()
    records = [
        record
        for found in reader.scan(journal)
        for path in found.segments.values()
        for record in decode_all(rows_of(path, 0, 1 << 20))
    ]
    attempts = [each for each in records if isinstance(each, AttemptRecord)]
    end_ns = START_NS + int(result.wall * 1e9)

    assert len(attempts) == sum(result.attempts.values())
    assert sum(each.outcome is AttemptOutcome.ERROR for each in attempts) == result.attempts[AttemptOutcome.ERROR]
    assert len([each for each in records if isinstance(each, DispatchRecord)]) == len(attempts)
    assert len([each for each in records if isinstance(each, CommitRecord)]) == 42
    assert all(START_NS <= each.start_ns <= each.start_ns + each.duration_ns <= end_ns for each in attempts)
    assert sum(each.rows for each in attempts) > 0


def test_faults_of_tasks_are_the_worlds_to_do(tmp_path: Path) -> None:
    """What an executor would have done to its tasks is not done a second time."""
    backend = SimBackend(2)
    armed = arm(parse_faults(["retry-storm:severity=1"]), 0)
    with Executor(backend=backend, clock=backend.clock, directory=tmp_path / "work", faults=armed) as executor:
        assert executor.run(plan()).outcome is JobOutcome.SUCCESS


def test_a_job_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    """When every attempt fails the job ends as the network's error."""
    backend = SimBackend(2, faults=parse_faults(["retry-storm:severity=1"]))
    with Executor(backend=backend, clock=backend.clock, directory=tmp_path / "work") as executor:
        result = executor.run(plan(Limits(attempts=2)))

    assert result.outcome is JobOutcome.ERROR
    assert result.failures[0].reason is Reason.NETWORK


def test_machines_come_and_go_as_they_are_told() -> None:
    """Kill, evict and resize do what every backend's do."""
    backend = SimBackend(cluster=Cluster(nodes=3, lanes=1, cold_start=1.0, notice=0.0), seed=1)
    up = {each.worker for each in backend.poll(2.0) if isinstance(each, Up)}
    victim, leaver, _ = sorted(up)
    backend.kill(victim, Reason.OOM_KILLED)
    backend.evict(leaver, 5.0)
    soon = backend.poll(0.1)
    later = [each for _ in range(8) for each in backend.poll(10.0)]

    assert len(up) == 3
    assert Down(victim, Reason.OOM_KILLED) in soon
    assert Draining(leaver) in soon
    assert Down(leaver, Reason.PREEMPTED) in later
    assert len(backend.places) == 3
    backend.resize(5)
    more = [each for _ in range(20) for each in backend.poll(20.0)]
    assert len([each for each in more if isinstance(each, Up)]) == 2
    assert backend.size == len(backend.places) == 5
    backend.close()
    backend.close()
