"""Exchange files hold whatever a table can hold: types, chunks, names and metadata come back as they were given."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mppobs.executor import shuffle
from mppobs.executor.exchange import opened
from mppobs.executor.hashing import partition_ids
from mppobs.executor.keys import KeyKind, packed
from mppobs.executor.shuffle import read_everything, read_partition, write_exchange
from mppobs.executor.task import TaskError

ROWS = 20
HALF = ROWS // 2
NUMBERS = pa.array(range(ROWS))
WORDS = ["x" * (row % 13) if row % 3 else None for row in range(ROWS)]


def chunked(*chunks: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array(list(chunks))


def listed(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)


def coded(letter: str, count: int = HALF, different: int = 3) -> pa.Array:
    """Return a dictionary column; those of two letters have no value in common."""
    values = pa.array([f"{letter}{number}" for number in range(different)])
    return pa.DictionaryArray.from_arrays(pa.array([row % different for row in range(count)], pa.int8()), values)


COLUMNS = {
    "codes of several dictionaries": chunked(coded("a"), coded("b")),
    "lists of codes": chunked(listed(coded("a")), listed(coded("b"))),
    "records of codes": chunked(*(pa.StructArray.from_arrays([coded(letter)], ["code"]) for letter in "ab")),
    "codes of lists": pa.DictionaryArray.from_arrays(pa.array([0, 1] * HALF), pa.array([[1], [2, 3]])),
    "lists": [[row] * (row % 3) if row % 4 else None for row in range(ROWS)],
    "records": [{"a": row, "b": [str(row)]} if row % 5 else None for row in range(ROWS)],
    "maps": pa.array([[("x", row)] for row in range(ROWS)], pa.map_(pa.string(), pa.int64())),
    "pairs": pa.array([[row, row] for row in range(ROWS)], pa.list_(pa.int64(), 2)),
    "views of lists": pa.array([[row] for row in range(ROWS)], pa.list_view(pa.int64())),
    "nothing": pa.nulls(ROWS),
    "text views": pa.array(WORDS, pa.string_view()),
    "byte views": pa.array(WORDS, pa.string()).cast(pa.binary()).cast(pa.binary_view()),
    "lists of views": pa.array([[word] for word in WORDS], pa.list_(pa.string_view())),
    "records of views": pa.array([{"a": word} for word in WORDS], pa.struct([("a", pa.string_view())])),
    "runs": pa.RunEndEncodedArray.from_arrays([HALF, ROWS], ["a", "b"]),
    "identifiers": pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([bytes([row]) * 16 for row in range(ROWS)], pa.binary(16))
    ),
    "unions": pa.UnionArray.from_sparse(
        pa.array([0, 1] * HALF, pa.int8()), [NUMBERS, pa.array([str(row) for row in range(ROWS)])]
    ),
    "wide decimals": pa.array([Decimal(row) / 8 for row in range(ROWS)], pa.decimal256(60, 3)),
    "half floats": pa.array(np.arange(ROWS, dtype=np.float16)),
    "intervals": pa.array([pa.MonthDayNano([1, 2, row]) for row in range(ROWS)]),
}  # fmt: skip


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rows put in order three at a time, so that a partition is made of many blocks."""
    monkeypatch.setattr(shuffle, "_BLOCK_ROWS", 3)
    monkeypatch.setattr(shuffle, "_PART_ROWS", 1)


def check(path: Path, table: pa.Table, by: Sequence[str] = ("k",), partitions: int = 4) -> None:
    """Write a table, and compare every partition, its schema and its metadata with rows that were picked one by one."""
    output = write_exchange(path, table, by, partitions, attempt=0, compression="lz4")
    ids = partition_ids(table, by, partitions).tolist() if partitions > 1 else [0] * table.num_rows
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    for partition in range(partitions):
        part, size = read_partition(path, partition)
        part.validate(full=True)
        assert part.schema.equals(table.schema, check_metadata=True)
        assert size == output.sizes[partition]
        found = list(zip(*(column.to_pylist() for column in part.columns), strict=True))
        assert found == [row for row, number in zip(rows, ids, strict=True) if number == partition]
    assert read_everything(path)[0].num_rows == table.num_rows == output.rows


@pytest.mark.parametrize("blocks", ["one block", "many blocks"])
@pytest.mark.parametrize("what", COLUMNS)
def test_every_type_comes_back(tmp_path: Path, request: pytest.FixtureRequest, what: str, blocks: str) -> None:
    """A column of any type is what it was, in one block or in many, hashed or in a single partition."""
    if blocks == "many blocks":
        request.getfixturevalue("tiny_blocks")
    table = pa.table({"k": NUMBERS, "v": COLUMNS[what]})
    check(tmp_path / "hashed", table)
    check(tmp_path / "whole", table, partitions=1)
    check(tmp_path / "empty", table.slice(0, 0))


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize(
    "key",
    ["codes of several dictionaries", "nothing", "text views", "byte views", "runs", "identifiers", "wide decimals"],
)
def test_every_key_decides(tmp_path: Path, key: str) -> None:
    """Whatever can be a key decides the partition, also where its chunks are encoded differently."""
    check(tmp_path / "x", pa.table({"k": COLUMNS[key], "v": NUMBERS}))


@pytest.mark.parametrize("nested", [False, True])
def test_dictionaries_too_large_to_be_one(tmp_path: Path, nested: bool) -> None:
    """Chunks whose dictionaries together have more values than their indices can number stay apart, none is lost."""
    codes = [coded(letter, 100, 100) for letter in "abc"]
    column = chunked(*(map(listed, codes) if nested else codes))
    table = pa.table({"k": range(300), "v": column})
    check(tmp_path / "hashed", table)
    check(tmp_path / "whole", table, partitions=1)


@pytest.mark.usefixtures("tiny_blocks")
def test_shapes_and_names(tmp_path: Path) -> None:
    """Uneven chunks, slices, one row, names that are there twice, and metadata of table and column all come back."""
    field = pa.field("k", pa.int64(), nullable=False, metadata={"unit": "s"})
    tables = [
        pa.table({"k": chunked(pa.array([1, 2, 3]), pa.array([4]), pa.array([5, 6])), "v": list("abcdef")}),
        pa.concat_tables([pa.table({"k": [row], "v": [str(row)]}) for row in range(ROWS)]),
        pa.table({"k": range(100), "v": [[row] for row in range(100)], "c": coded("a", 100)}).slice(37, 21),
        pa.table({"k": [1]}),
        pa.table([NUMBERS, NUMBERS, pa.array(WORDS)], names=["k", "v", "v"]),
        pa.table([NUMBERS], schema=pa.schema([field], metadata={"made": "here"})),
        pa.Table.from_batches([], pa.schema([("k", pa.int64())])),
    ]
    for number, table in enumerate(tables):
        check(tmp_path / str(number), table)
    check(tmp_path / "wide", pa.table({"k": NUMBERS}), partitions=3000)


def test_rows_without_columns_are_refused(tmp_path: Path) -> None:
    """Arrow forgets how many rows there are where there is no column, so nobody is to rely on it."""
    with pytest.raises(TaskError, match="a table of 20 rows has no columns"):
        check(tmp_path / "x", pa.table({"k": NUMBERS}).select([]), (), 1)
    check(tmp_path / "y", pa.table({}), (), 1)


def test_what_cannot_be_put_in_order_is_told(tmp_path: Path) -> None:
    """Where Arrow has no way to order a type, the error names the column and the type."""
    runs = pa.StructArray.from_arrays([pa.RunEndEncodedArray.from_arrays([ROWS], ["a"])], ["r"])
    with pytest.raises(TaskError, match=r"column 'v' of type struct<r: run_end_encoded<.*cannot be partitioned"):
        check(tmp_path / "x", pa.table({"k": NUMBERS, "v": runs}))


def test_heavy_keys_of_any_type_are_found(tmp_path: Path) -> None:
    """A key that has most rows is named, also where it is a text view or a code of several dictionaries."""
    count = 12_000
    for number, key in enumerate((pa.array(["a0"] * count, pa.string_view()), chunked(coded("a", count, 1)))):
        table = pa.table({"k": key, "v": range(count)})
        heaviest = write_exchange(tmp_path / str(number), table, ("k",), 4, attempt=0, compression="none").heaviest
        assert heaviest is not None
        assert (heaviest.key, heaviest.rows) == ("a0", count)


def test_a_file_knows_the_kinds_of_its_keys(tmp_path: Path) -> None:
    """What was hashed is told by the file, so that a reader of two sees where equal values cannot meet."""
    table = pa.table({"k": NUMBERS, "v": WORDS})
    write_exchange(tmp_path / "hashed", table, ("v", "k"), 4, attempt=0, compression="none")
    with opened(tmp_path / "hashed") as reader:
        assert reader.kinds == packed([KeyKind.TEXT, KeyKind.INTEGER])
    write_exchange(tmp_path / "whole", table, ("v", "k"), 1, attempt=0, compression="none")
    with opened(tmp_path / "whole") as reader:
        assert reader.kinds == 0
