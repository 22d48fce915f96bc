"""SIGKILL to any process at any moment: the job ends with the right answer, and nothing is there twice or left."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mppobs.model import JobOutcome, ShardOutcome
from tests.executor.plans import expected
from tests.executor.survivor_process import SHARDS
from tests.executor.survivors import KINDS, Crew, strikes

MANY = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.fixture
def crews(tmp_path: Path) -> Iterator[list[Crew]]:
    """Crews, none of which outlives the test."""
    made: list[Crew] = []
    yield made
    for crew in made:
        crew.end()


@pytest.mark.parametrize("kills", [8, MANY])
def test_a_job_survives_its_processes(tmp_path: Path, crews: list[Crew], kills: int) -> None:
    """Coordinators, standbys, workers and fork servers are killed while jobs run: each job ends right, once."""
    chance = random.Random(kills)
    killed: Counter[str] = Counter()
    plan = strikes(chance, 1.2)
    while killed.total() < kills:
        directory = tmp_path / f"crew-{len(crews)}"
        directory.mkdir()
        crew = Crew(directory)
        crews.append(crew)
        crew.begin()
        while not crew.answers() and killed.total() < kills:
            pause, kind = next(plan)
            if chance.random() < 0.7:  # else whoever is about to start may be struck
                crew.wait_for_work()
            time.sleep(pause)
            killed[kind] += crew.kill(kind, chance)
        crew.settle()
        # Whoever dies after it has given the answer may be followed by one that gives it again.
        answer, *again = crew.answers()
        assert answer["outcome"] == "success", answer
        assert all(other["rows"] == answer["rows"] for other in again)
        assert dict(answer["rows"]) == expected(shards=SHARDS)
        assert len(answer["rows"]) == 50
        assert answer["done"] == [SHARDS, 4]
        assert list(crew.exchange.iterdir()) == []
        job = crew.judgement()
        assert job.outcome is JobOutcome.SUCCESS
        assert {outcome: count for outcome, count in job.shards.items() if count} == {
            ShardOutcome.COMMITTED: SHARDS + 4
        }
    assert all(killed[kind] for kind in KINDS), killed
