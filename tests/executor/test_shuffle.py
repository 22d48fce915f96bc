"""Exchange files: what is written is read, and damage is seen."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mppobs.executor.files import JobFiles
from mppobs.executor.hashing import partition_ids
from mppobs.executor.shuffle import (
    ExchangeError,
    Output,
    read_everything,
    read_output,
    read_partition,
    write_exchange,
)

TABLE = pa.table({"k": [i % 7 for i in range(1000)], "v": list(range(1000)), "s": [str(i) for i in range(1000)]})


def write(path: Path, table: pa.Table = TABLE, partitions: int = 4, compression: str = "lz4") -> Output:
    return write_exchange(path, table, ("k",), partitions, attempt=3, compression=compression)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_partitions_are_what_the_hash_says(tmp_path: Path, compression: str) -> None:
    """Each partition holds the rows of its hash in their order, and its size is what reading it counts."""
    output = write(tmp_path / "x", compression=compression)
    ids = partition_ids(TABLE, ["k"], 4)
    for partition in range(4):
        table, size = read_partition(tmp_path / "x", partition)
        assert table == TABLE.filter(pa.array(ids == partition))
        assert size == output.sizes[partition]


@pytest.mark.parametrize("partitions", [2, 7, 200])
def test_large_tables_are_ordered_a_block_at_a_time(tmp_path: Path, partitions: int) -> None:
    """What is larger than a block is partitioned as what is not: whole, in order, empty partitions included."""
    rows = 300_000
    keys = [row % 3 if row < rows // 2 else row for row in range(rows)]
    table = pa.table({"k": pa.chunked_array([keys[:1000], keys[1000:]]), "v": list(range(rows))})
    write(tmp_path / "x", table, partitions)
    ids = partition_ids(table, ["k"], partitions)
    for partition in {0, 1, partitions // 2, partitions - 1}:
        found, _ = read_partition(tmp_path / "x", partition)
        assert found["v"].to_pylist() == np.flatnonzero(ids == partition).tolist()
    assert read_everything(tmp_path / "x")[0].num_rows == rows


def test_sizes_are_exact(tmp_path: Path) -> None:
    """The bytes of the partitions, their index and the tail are the file, and what is read is what was written."""
    output = write(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size == output.size + 4 * 32 + 32
    assert sum(read_partition(tmp_path / "x", partition)[1] for partition in range(4)) == output.size
    assert read_everything(tmp_path / "x")[1] == output.size


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    """Attempt, rows and sizes can be read back from the file alone."""
    output = write(tmp_path / "x")
    assert output == read_output(tmp_path / "x")
    assert output[:2] == (3, 1000)


def test_empty_tables_keep_their_columns(tmp_path: Path) -> None:
    """A table without rows comes back with its schema, from every partition."""
    write(tmp_path / "x", TABLE.slice(0, 0))
    for partition in range(4):
        assert read_partition(tmp_path / "x", partition)[0] == TABLE.slice(0, 0)


def test_one_partition_needs_no_hash(tmp_path: Path) -> None:
    """With a single partition the rows are written as they are, whatever their columns."""
    table = pa.table({"k": [[1], [2]]})
    write_exchange(tmp_path / "x", table, (), 1, attempt=0, compression="none")
    assert read_everything(tmp_path / "x")[0] == table


def test_a_changed_byte_is_never_read(tmp_path: Path) -> None:
    """Whatever byte of a file is changed, reading gives the right rows or an error that names the file."""
    path = tmp_path / "x"
    write(path, TABLE.slice(0, 40))
    good = path.read_bytes()
    right = [read_partition(path, partition)[0] for partition in range(4)]
    errors: list[str] = []
    for place in random.Random(1).sample(range(len(good)), 400):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :])
        for partition in range(4):
            try:
                assert read_partition(path, partition)[0] == right[partition]
            except ExchangeError as error:
                errors.append(str(error))
    assert len(errors) >= 400
    assert all(str(path) in error for error in errors)


def test_a_file_that_is_cut_is_never_read(tmp_path: Path) -> None:
    """Wherever a file is cut, reading it is an error."""
    path = tmp_path / "x"
    write(path, TABLE.slice(0, 40))
    good = path.read_bytes()
    for length in range(0, len(good), 13):
        path.write_bytes(good[:length])
        with pytest.raises(ExchangeError):
            read_everything(path)


def test_damage_is_explained(tmp_path: Path) -> None:
    """The error says which partition, where, and which checksum was expected."""
    path = tmp_path / "x"
    write(path)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExchangeError, match=r"partition 0 is damaged: \d+ bytes at 0 have checksum \w{8}, written was"):
        read_partition(path, 0)
    with pytest.raises(ExchangeError, match="no partition 9"):
        read_partition(path, 9)
    with pytest.raises(ExchangeError, match="No such file"):
        read_partition(tmp_path / "gone", 0)


def test_the_first_attempt_wins(tmp_path: Path) -> None:
    """Of two attempts that commit the same shard one is in place, whole, and the other knows that it is not."""
    files = JobFiles(tmp_path / "job")
    files.prepare(1)
    for number in (0, 1):
        write_exchange(files.begin(0, 5, number), TABLE.slice(number), (), 1, attempt=number, compression="none")
    assert files.commit(0, 5, 1) is None
    winner = files.commit(0, 5, 0)
    assert winner is not None
    assert winner.attempt == 1
    assert read_output(files.data(0, 5)).attempt == 1
    assert read_everything(files.data(0, 5))[0] == TABLE.slice(1)
    files.discard(0, 5, 0)
    assert list((tmp_path / "job" / "attempts").iterdir()) == []
