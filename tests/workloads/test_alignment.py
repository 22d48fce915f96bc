"""The k-mer scan: repeats make one shard the job's, and masking them is the fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from mppobs.executor.plan import Plan
from mppobs.executor.task import TaskInput
from mppobs.workloads.alignment import match_words, split_range, words_of
from mppobs.workloads.registry import workload
from tests.workloads.conftest import SCALE
from tests.workloads.serial import run_serially


def rows_by_word(tmp_path: Path, mask_above: str) -> int:
    """Return how many rows the most frequent word leads to."""
    found = workload("alignment").configured({"mask-above": mask_above})
    found.prepare(tmp_path, SCALE)
    plan = found.plan(tmp_path, SCALE, 1)
    index, seeds = (run_serially(Plan("p", (stage,))) for stage in plan.stages[:2])
    sources = {"index": index, "seeds": seeds}
    most = 0
    for word in (0, *np.random.default_rng(1).choice(np.asarray(index["word"]), 20).tolist()):
        chosen = {name: table.filter(pc.equal(table["word"], word)) for name, table in sources.items()}
        task = TaskInput("j", "match", 0, 0, plan.stage("match").arguments, lambda name, of=chosen: iter([of[name]]))  # type: ignore[misc]
        most = max(most, match_words(task).num_rows)
    return most


def test_one_word_makes_most_of_the_work_and_masking_takes_it_away(tmp_path: Path) -> None:
    """The word of one base over and over joins thousands of rows, any other a few; with a mask it joins none."""
    assert rows_by_word(tmp_path, "0") > 5_000
    assert rows_by_word(tmp_path, "20") < 100


def test_words_are_numbers_of_sixteen_bases() -> None:
    """A word reads as a number of base four, the first base the highest; each base begins one."""
    bases = np.random.default_rng(3).integers(0, 4, 40, np.uint8)
    expected = [int("".join(map(str, bases[at : at + 16])), 4) for at in range(25)]

    assert words_of(bases).tolist() == expected


def test_ranges_split_without_gap_or_overlap() -> None:
    """Children of a range follow each other from its first to its last, and there are never more than numbers."""
    parts = split_range({"first": 5, "last": 12, "directory": "d"}, 3)

    assert [part["first"] for part in parts] == [5, *(part["last"] for part in parts[:-1])]
    assert parts[-1]["last"] == 12
    assert all(part["directory"] == "d" and part["first"] < part["last"] for part in parts)
    assert len(split_range({"first": 0, "last": 2}, 10)) == 2


@pytest.mark.parametrize("mask_above", ["0", "100"])
def test_votes_are_the_same_where_shards_are_split(tmp_path: Path, mask_above: str) -> None:
    """Each part of a shard sees how often a word is there in all of the reference, so the same words are masked."""
    found = workload("alignment").configured({"mask-above": mask_above})
    found.prepare(tmp_path, SCALE)
    plan = found.plan(tmp_path, SCALE, 6)
    votes = [sum(run_serially(Plan("p", plan.stages[:3]), parts)["votes"].to_pylist()) for parts in (1, 3)]

    assert votes[0] == votes[1] > 0
    assert (votes[0] < 12_000) is (mask_above == "100")
