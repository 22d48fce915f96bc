"""Exchanged data on every kind of storage: the same promises on a file system and on stores of objects."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from mppobs.errors import ConfigError
from mppobs.executor import Executor, Plan, Stage
from mppobs.executor.exchange import ExchangeError, Output
from mppobs.executor.files import Files, open_files
from mppobs.executor.policies import Policy, Splitting
from mppobs.executor.shuffle import write_table
from mppobs.model import PlanRecord
from mppobs.testing import capture
from tests.executor.plans import as_dict, expected, group_by

TABLE = pa.table({"k": [i % 7 for i in range(1000)], "v": list(range(1000))})


@pytest.fixture(params=["local", "memory", "dir"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A place for a job: on a file system, and on what has no directories that could be renamed."""
    name = uuid.uuid4().hex
    match request.param:
        case "local":
            yield str(tmp_path / name)
        case "memory":
            yield f"memory://{name}"
            assert not fsspec.filesystem("memory").exists(f"/{name}")
        case _:
            yield f"dir::file://{tmp_path / name}"


@pytest.fixture
def files(root: str) -> Iterator[Files]:
    """Room for a job of two stages, removed after the test."""
    made = open_files(root, fence=3)
    made.prepare(2)
    yield made
    made.remove()
    made.remove()


def write(files: Files, number: int, table: pa.Table = TABLE, shard: int = 5) -> Output:
    """Write the output of an attempt."""
    with files.create(0, shard, number) as file:
        return write_table(file, table, ("k",), 4, attempt=number, compression="lz4")


def test_the_first_attempt_wins(files: Files) -> None:
    """Of two attempts one is in place, whole, and the other is told which one."""
    first, second = write(files, 0), write(files, 1, TABLE.slice(1))
    assert files.commit(0, 5, 1) is None
    assert files.commit(0, 5, 0) == second
    files.discard(0, 5, 0)
    files.discard(0, 5, 0)
    with files.opened(0, 5) as reader:
        assert reader.output() == second != first
        assert reader.everything()[0].num_rows == 999
    assert files.committed(0) == {5: second}
    assert files.committed(1) == {}


def test_many_commit_at_once_and_one_wins(root: str, files: Files) -> None:
    """Attempts that commit at the same moment agree on one winner, where the storage can refuse to create a file."""
    outputs = [write(files, number, TABLE.slice(number)) for number in range(8)]
    winners: list[Output | None] = []
    barrier = threading.Barrier(8)

    def commit(number: int) -> None:
        barrier.wait()
        winners.append(files.commit(0, 5, number))

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with files.opened(0, 5) as reader:
        assert reader.output() in outputs
    if not root.startswith("dir"):  # which cannot
        assert winners.count(None) == 1
        assert {other for other in winners if other is not None} == set(files.committed(0).values())


def test_partitions_are_read_alone(files: Files) -> None:
    """Each partition is what was written, and as many bytes."""
    output = write(files, 0)
    files.commit(0, 5, 0)
    with files.opened(0, 5) as reader:
        parts = [reader.partition(number) for number in range(4)]
    assert tuple(size for _, size in parts) == output.sizes
    assert pa.concat_tables([table for table, _ in parts]).sort_by("v") == TABLE


def test_what_is_gone_can_be_written_again(files: Files) -> None:
    """Output that is dropped is an error for readers, and leaves its place to another attempt."""
    write(files, 0)
    files.commit(0, 5, 0)
    files.drop(0, 5)
    files.drop(0, 5)
    with pytest.raises(ExchangeError), files.opened(0, 5):
        pass
    write(files, 1)
    assert files.commit(0, 5, 1) is None
    assert list(files.committed(0)) == [5]


def test_damaged_output_does_not_hold_a_place(root: str, files: Files) -> None:
    """An attempt that finds damaged output in its place takes the place; whoever looks for output removes it."""
    store, path = fsspec.core.url_to_fs(root)
    for shard in (5, 6):
        write(files, 0, shard=shard)
        files.commit(0, shard, 0)
    places = [found for found in store.find(path) if "/0/" in found]
    assert len(places) == 2
    for place in places:
        store.pipe_file(place, b"nonsense" * 10)
    output = write(files, 1)
    assert files.commit(0, 5, 1) is None
    assert files.committed(0) == {5: output}


def test_large_objects_are_read_in_parts(tmp_path: Path) -> None:
    """What lies before the end of an object that is read at once is read as well."""
    table = pa.table({"k": list(range(60_000)), "v": [random.Random(1).random()] * 60_000})
    made = open_files(f"memory://{uuid.uuid4().hex}")
    made.prepare(1)
    with made.create(0, 0, 0) as file:
        write_table(file, table, ("k",), 3, attempt=0, compression="none")
    made.commit(0, 0, 0)
    with made.opened(0, 0) as reader:
        assert sum(reader.partition(number)[0].num_rows for number in range(3)) == 60_000
        assert reader.everything()[0].sort_by("k") == table
    made.remove()


def test_a_job_exchanges_its_data_elsewhere(tmp_path: Path) -> None:
    """A whole job on storage that only has objects: the same answer and byte counts, and nothing is left of it."""
    elsewhere = tmp_path / "elsewhere"
    url = f"dir::file://{elsewhere}"
    with capture(), Executor(2, tmp_path / "x") as plain, Executor(2, tmp_path / "y", exchange=url) as other:
        here, there = plain.run(group_by()), other.run(group_by())
        assert as_dict(here) == as_dict(there) == expected()
        assert here.stages[0].shuffle_written == there.stages[1].shuffle_read > 0
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []


def test_storage_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """The error says where the data was to be, and why it cannot."""
    with capture(), Executor(1, tmp_path / "x", exchange="nonsense://bucket") as executor:
        with pytest.raises(ConfigError, match=r"no room for exchanged data in nonsense://bucket/job-.*nonsense"):
            executor.run(group_by())
        assert list((tmp_path / "x").iterdir()) == []


def test_skewed_partitions_are_split_and_named(tmp_path: Path) -> None:
    """A key that holds most rows is reported by whoever wrote it, and its partition is read by several shards."""
    numbers, sums = group_by(shards=6, partitions=4, keys=3).stages
    numbers = replace(numbers, task="tests.executor.tasks:skewed")
    sums = replace(sums, splittable=True, partition_by=("k",), partitions=2)
    total = Stage("total", "tests.executor.tasks:total", reads=("sums",))
    policy = Policy(splitting=Splitting(factor=1.5, least_bytes=1, most_parts=3))
    with capture() as captured, Executor(2, tmp_path / "x", policy=policy) as executor:
        result = executor.run(Plan("skewed", (numbers, sums, total))).check()
    rows = {row["k"]: row["v"] for row in result.answer.to_pylist()}
    assert rows == {0: 6 * 19_000, 1: 6 * 1_000}
    heaviest = result.stages[0].heaviest[0]
    assert heaviest.key == "0"
    assert heaviest.rows == pytest.approx(19_000, rel=0.1)
    assert result.stages[1].split >= 1
    assert result.stages[1].planned == result.stages[1].done > 4
    splits = [record for record in captured.of(PlanRecord) if record.parent_key is not None]
    assert len(splits) == result.stages[1].split
    assert 4 + sum(record.added - 1 for record in splits) == result.stages[1].planned
