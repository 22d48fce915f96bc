"""Every workload: right in any cut, the same data every time, and a check that sees what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from mppobs.executor import Executor
from mppobs.executor.plan import resolve
from mppobs.executor.policies import Policy
from mppobs.executor.policies.settings import Splitting
from mppobs.workloads.base import WrongAnswerError
from mppobs.workloads.registry import WORKLOADS, Workload, workload
from tests.workloads.conftest import SCALE
from tests.workloads.serial import run_serially

SERIAL = [name for name in WORKLOADS if not name.startswith("rnn-")]
"""Those whose tasks start no processes of their own; `test_rnn` is about the others."""

Damage = Callable[[pa.Table], pa.Table]


def ready(name: str, directory: Path, **settings: str) -> Workload:
    """Return a workload whose data is made."""
    found = workload(name).configured({key.replace("_", "-"): value for key, value in settings.items()})
    found.prepare(directory, SCALE)
    return found


@pytest.mark.parametrize("name", SERIAL)
@pytest.mark.parametrize(("shards", "parts"), [(1, 1), (7, 1), (4, 3), (40, 1)])
def test_answers_are_right_in_any_cut(name: str, shards: int, parts: int, tables: Path) -> None:
    """One shard, some, split ones, and more than there is work for: the answer is that of one process."""
    found = ready(name, tables)
    answer = run_serially(found.plan(tables, SCALE, shards), parts)

    found.check(tables, SCALE, answer)
    assert all(isinstance(line, str) for line in found.tell(tables, SCALE, answer))


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("thumbnails", lambda answer: answer.slice(1), r"39 thumbnails of 40 images"),
        ("thumbnails", lambda answer: answer.set_column(1, "sha256", answer["sha256"].take(
            pa.array([1, 0, *range(2, 40)]))), r"2 thumbnails are not those .*, first \['customer-0/00000'\]"),
        ("reindex", lambda answer: answer.slice(1), r"terms, expected"),
        ("reindex", lambda answer: pa.concat_tables([answer.slice(0, 1).set_column(
            1, "documents", pa.array([1])), answer.slice(1)]), r"'error': documents and their checksum are \(1,"),
        ("alignment", lambda answer: answer.slice(1), r"reads were placed, expected"),
        ("alignment", lambda answer: answer.set_column(1, "start", pa.array([0] * answer.num_rows)),
         r"read, start and mismatches are \(0, 0, \d+\), expected"),
        ("lookups", lambda answer: answer.slice(1), r"shard 1: sum \d+, expected|shards are missing"),
        ("lookups", lambda answer: answer.set_column(2, "hits", pa.array([0] * answer.num_rows)), r"shard \d: 0 hits"),
    ],
)  # fmt: skip
def test_checks_see_what_is_wrong(name: str, damage: Damage, told: str, tables: Path) -> None:
    """What is missing and what is changed are told, with what is right."""
    found = ready(name, tables)
    answer = run_serially(found.plan(tables, SCALE, 4))
    with pytest.raises(WrongAnswerError, match=told):
        found.check(tables, SCALE, damage(answer))


@pytest.mark.parametrize("name", ["thumbnails", "reindex", "alignment", "lookups"])
def test_data_is_the_same_every_time_and_made_once(name: str, tmp_path: Path) -> None:
    """Two directories get the same bytes, and a second call leaves what is there alone."""
    trees = []
    for place in ("one", "other"):
        ready(name, tmp_path / place)
        files = sorted(path for path in (tmp_path / place).rglob("*") if path.is_file())
        trees.append({path.relative_to(tmp_path / place): hashlib.sha256(path.read_bytes()).digest() for path in files})
    made = {path: path.stat().st_mtime_ns for path in files}
    ready(name, tmp_path / "other")

    assert trees[0] == trees[1] != {}
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not [path for path in (tmp_path / "other").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", WORKLOADS)
def test_plans_name_what_workers_can_import(name: str, tables: Path) -> None:
    """Tasks, combiners and splits are import paths that lead somewhere, and every plan has owner and deadline."""
    plan = ready(name, tables).plan(tables, SCALE, 4)
    paths = [path for stage in plan.stages for path in (stage.task, stage.combiner, stage.split) if path]

    assert all(callable(resolve(path)) for path in paths)
    assert plan.owner
    assert plan.deadline > 0


@pytest.mark.parametrize("name", ["tpch-q5", "reindex"])
def test_answers_are_right_where_the_executor_splits_what_it_can(name: str, tables: Path) -> None:
    """With shards split that are barely larger than the median, the answer stays right, and some were split."""
    found = ready(name, tables)
    policy = Policy(splitting=Splitting(factor=1.0, least_bytes=0))
    with Executor(2, policy=policy) as executor:
        result = executor.run(found.plan(tables, SCALE, 6)).check()

    found.check(tables, SCALE, result.answer)
    assert sum(stage.split for stage in result.stages) > 0
