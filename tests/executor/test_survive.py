"""A coordinator that dies at any moment: another goes on from what it left, and the outcome is as if none had died."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mppobs.executor import Limits, OnFailure, Plan, ShardPlan, Stage
from mppobs.executor.backends.sim import SimBackend
from mppobs.executor.coordinator import JobRun, ended_early
from mppobs.executor.decisions import Begun, DecisionLog, read_decisions, recover
from mppobs.executor.files import JobFiles
from mppobs.executor.loop import Loop
from mppobs.executor.policies import Policy, Splitting
from mppobs.executor.records import JobRecords
from mppobs.executor.scheduler import Scheduler
from mppobs.instrument.recorder import RECORDER
from mppobs.model import AttemptOutcome, Context, DispatchRecord, JobOutcome, Reason, ShardOutcome, WorkerInfo
from mppobs.testing import Captured, capture
from tests.executor.plans import expected, group_by

PATIENT = Limits(attempts=200, losses=200, backoff=0.1)
WHOLE = Policy()
PARTED = Policy(splitting=Splitting(factor=1.5, least_bytes=1, most_parts=4))


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


@dataclass
class Life:
    """One coordinator after the other of one job, on simulated workers. None of them says that it dies."""

    directory: Path
    plan: Plan
    policy: Policy = WHOLE
    context: Context = field(default_factory=lambda: Context("pipe", "job-1", incarnation=7))
    fence: int = 0
    job: JobRun | None = None

    def live(self, steps: int, seed: int) -> bool:
        """Coordinate the job for so many steps of the loop; return whether it has ended."""
        self.fence += 1
        backend = SimBackend(3, seed=seed, seconds=1.0)
        files = JobFiles(self.directory, self.fence)
        log = DecisionLog(self.directory / f"decisions-{self.fence:06}")
        records = JobRecords(self.context, RECORDER.journal, backend.clock)
        job = self.job = JobRun(
            "job", self.plan, records, backend.clock, root=str(self.directory), fence=self.fence, log=log
        )
        node = WorkerInfo(f"node-{self.fence}")
        loop = Loop(Scheduler(random.Random(seed), self.policy), backend, node, RECORDER.journal, backend.clock)
        if self.fence == 1:
            files.prepare(len(self.plan.stages))
            log.add(Begun(self.plan, self.context, str(self.directory), backend.clock.time_ns()))
            log.flush()
        else:
            old = recover(self.directory / f"decisions-{number:06}" for number in range(1, self.fence))
            assert old is not None
            job.restore(old, {index: files.committed(index) for index in range(len(self.plan.stages))})
            end = ended_early(old)
            if end is not None:
                job.finish(end)
        if job.end is None:
            loop.submit(job, announce=self.fence == 1)
        while loop.jobs and steps:
            loop.step()
            steps -= 1
        return job.end is not None

    def answer(self) -> list[Any]:
        """Return what the last stage left: values, or the rows of its tables."""
        assert self.job is not None
        last = self.job.stages[-1]
        if self.job.values:
            return [self.job.values[shard] for shard in last.positions()]
        files = JobFiles(self.directory)
        rows: list[Any] = []
        for shard in last.positions():
            with files.opened(last.index, shard) as reader:
                rows += reader.everything()[0].to_pylist()
        return rows


def lives(directory: Path, plan: Plan, chance: random.Random, policy: Policy = WHOLE) -> Life:
    """Kill coordinators at random steps until one lives to the end."""
    directory.mkdir()
    life = Life(directory, plan, policy)
    while not life.live(chance.randrange(1, 18) if life.fence < 6 else 10_000, chance.randrange(1000)):
        pass
    return life


@pytest.mark.parametrize("seed", range(30))
def test_a_job_goes_on_wherever_its_coordinator_dies(tmp_path: Path, captured: Captured, seed: int) -> None:
    """Killed between any two steps, again and again: the answer is right, each shard is committed by one attempt."""
    chance = random.Random(seed)
    life = lives(tmp_path / "job", group_by(shards=9, limits=PATIENT), chance)
    assert life.fence > 1
    assert {row["k"]: row["v"] for row in life.answer()} == expected(shards=9)
    assert len(life.answer()) == 50
    winners = {(record.context_id, record.shard_key, record.attempt) for record in captured.commits}
    assert len(winners) == len({winner[:2] for winner in winners}) == 13
    attempts = Counter((record.context_id, record.shard_key, record.attempt) for record in captured.of(DispatchRecord))
    assert set(attempts.values()) == {1}, "a number was given twice"
    assert [job.outcome for job in captured.jobs if job.outcome] == [JobOutcome.SUCCESS]
    assert life.job is not None
    assert [stage.done for stage in life.job.stage_progress()] == [9, 4]


@pytest.mark.parametrize("seed", range(10))
def test_values_outlive_their_coordinator(tmp_path: Path, captured: Captured, seed: int) -> None:
    """What tasks returned that is no table is in the decisions, and its shards do not run again."""
    shards = tuple(ShardPlan(number, {"what": number}) for number in range(20))
    plan = Plan("pipe", (Stage("only", "tests.executor.tasks:value", shards, limits=PATIENT),))
    life = lives(tmp_path / "job", plan, random.Random(seed))
    assert [pickle.loads(value) for value in life.answer()] == list(range(20))
    committed = {record.shard_key for record in captured.commits}
    assert committed == set(range(20))
    again = Counter(record.shard_key for record in captured.attempts)
    assert sum(again.values()) < 20 * life.fence


@pytest.mark.parametrize("seed", range(20))
def test_split_shards_outlive_their_coordinator(tmp_path: Path, captured: Captured, seed: int) -> None:
    """Parts of split shards stand in their parent's place, whoever coordinates, and their output is read once."""
    numbers, sums = group_by(shards=6, partitions=3, keys=2, limits=PATIENT).stages
    sums = replace(sums, splittable=True, partition_by=("k",), partitions=2)
    total = Stage("total", "tests.executor.tasks:total", reads=("sums",), limits=PATIENT)
    life = lives(tmp_path / "job", Plan("pipe", (numbers, sums, total)), random.Random(seed), PARTED)
    assert life.job is not None
    assert life.job.stages[1].replaced, "nothing was split"
    assert {row["k"]: row["v"] for row in life.answer()} == expected(shards=6, keys=2)
    done = [(stage.done, stage.planned) for stage in life.job.stage_progress()]
    assert all(made == planned for made, planned in done)


def test_a_job_that_was_failing_is_ended(tmp_path: Path, captured: Captured) -> None:
    """A shard that was given up is not tried by the next coordinator, which ends the job and says why."""
    shards = tuple(ShardPlan(number, {"what": number}) for number in range(12) if number != 3)
    bad = ShardPlan(3, {"what": "unknown"}, input_bytes=100)  # and so the first
    stage = Stage("only", "tests.executor.tasks:value", (*shards, bad))
    plan = Plan("pipe", (stage,), on_failure=OnFailure.FINISH)
    for steps in range(1, 100):
        directory = tmp_path / f"job-{steps}"
        directory.mkdir()
        life = Life(directory, plan)
        assert not life.live(steps, 1)
        old = recover([directory / "decisions-000001"])
        if old is not None and old.failures:
            break
    assert life.live(10_000, 2)
    assert life.job is not None
    assert life.job.end is not None
    assert life.job.end.outcome is JobOutcome.FAILURE
    assert [failure.shard for failure in life.job.failures] == [3]
    assert sum(record.outcome is ShardOutcome.FAILED for record in captured.commits) >= 1


def test_retries_are_spent_once(tmp_path: Path, captured: Captured) -> None:
    """The budget of retries is the job's, not the coordinator's: what was spent is not there for the next one."""
    shards = tuple(ShardPlan(number) for number in range(4))
    script = {number: [-0.0] * 9 for number in range(4)}
    stage = Stage(
        "only", "tests.executor.tasks:scripted", shards, limits=PATIENT,
        arguments={"directory": str(tmp_path), "script": script},
    )  # fmt: skip
    (tmp_path / "job").mkdir()
    life = Life(tmp_path / "job", Plan("pipe", (stage,), retry_floor=8))
    while not life.live(6, life.fence):
        assert life.fence < 30
    assert life.job is not None
    assert life.job.end is not None
    assert life.job.end.reason is Reason.RETRIES_EXHAUSTED
    failed = [record for record in captured.attempts if record.outcome is AttemptOutcome.FAILURE]
    assert 9 <= len(failed) <= 9 + 3, "one more than the budget, and those that ran beside it"
    assert life.fence > 2


def test_decisions_are_read_up_to_the_last_whole_one(tmp_path: Path) -> None:
    """A file that is cut anywhere, or changed anywhere, gives a beginning of what was written and nothing else."""
    life = Life(tmp_path / "job", group_by(shards=3))
    (tmp_path / "job").mkdir()
    with capture():
        life.live(1000, 1)
    path = tmp_path / "job" / "decisions-000001"
    whole, data = list(read_decisions(path)), path.read_bytes()
    assert len(whole) > 20
    chance = random.Random(3)
    other = tmp_path / "other"
    for _ in range(100):
        at = chance.randrange(len(data))
        changed = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
        for damaged in (data[:at], changed):
            other.write_bytes(damaged)
            found = list(read_decisions(other))
            assert found == whole[: len(found)]
            assert len(found) < len(whole)
