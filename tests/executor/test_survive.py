"""A coordinator that dies at any moment: another goes on from what it left, and the outcome is as if none had died."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mppobs.executor import Plan, ShardPlan, Stage
from mppobs.executor.decisions import read_decisions
from mppobs.executor.policies import Policy, Splitting
from mppobs.model import DispatchRecord, JobOutcome
from mppobs.testing import Captured, capture
from tests.executor.lives import PATIENT, Life, lives
from tests.executor.plans import expected, group_by

PARTED = Policy(splitting=Splitting(factor=1.5, least_bytes=1, most_parts=4))


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


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
