"""The hash that says which partition a row belongs to."""

from __future__ import annotations

import datetime
import struct
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.executor.hashing import hash_column, partition_ids

MASK = (1 << 64) - 1
PRIME = 0x100000001B3


def mix(word: int) -> int:
    """The finish of SplitMix64, one number at a time."""
    word = (word + 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def slow_hash(value: Any) -> int:
    """What `hash_column` gives, written the obvious way."""
    match value:
        case None:
            return 0x6E756C6C
        case bool() | int():
            return mix(value & MASK)
        case float():
            number = float("nan") if value != value else value + 0.0
            return mix(struct.unpack("<Q", struct.pack("<d", number))[0])
        case str():
            return slow_hash(value.encode())
        case bytes():
            total, weight = 0, 1
            for byte in value:
                weight = weight * PRIME & MASK
                total += (byte + 1) * weight
            return mix((total & MASK) ^ (len(value) << 48 & MASK))
    raise TypeError(value)


VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int8(): st.integers(-128, 127),
    pa.bool_(): st.booleans(),
    pa.float64(): st.floats(),
    pa.string(): st.text(max_size=40),
    pa.binary(): st.binary(max_size=40),
    pa.string_view(): st.text(max_size=40),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_it_is_as_the_slow_one(kind: pa.DataType) -> None:
    """Whole columns are hashed as one value after the other would be, nulls and empty texts included."""

    @given(st.lists(st.none() | VALUES[kind], max_size=30))
    def check(values: list[Any]) -> None:
        assert hash_column(pa.array(values, kind)).tolist() == [slow_hash(value) for value in values]

    check()


EVERY_KIND = pa.table(
    {
        "int32": pa.array([1, 2, None, -5], pa.int32()),
        "text": ["x", "", None, "höö"],
        "bytes": [b"a", None, b"", b"\0"],
        "date": [datetime.date(2020, 1, 1), None, datetime.date(1960, 1, 1), datetime.date(2020, 1, 1)],
        "moment": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None] * 2,
        "span": [datetime.timedelta(1), None] * 2,
        "money": [Decimal("1.50"), None, Decimal("-3.25"), Decimal(0)],
        "wide": pa.array([Decimal(1), None, Decimal(-3), Decimal(0)], pa.decimal256(50, 2)),
        "code": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "fixed": pa.array([b"ab", b"cd", None, b"zz"], pa.binary(2)),
        "no": pa.array([None] * 4, pa.dictionary(pa.int32(), pa.string())),
    }
)


@pytest.mark.parametrize("column", EVERY_KIND.column_names)
def test_neither_slices_nor_chunks_matter(column: str) -> None:
    """A row keeps its partition, however the table was cut or put together."""
    whole = partition_ids(EVERY_KIND, [column], 1000)
    pieces = pa.concat_tables([EVERY_KIND.slice(0, 1), EVERY_KIND.slice(1, 2), EVERY_KIND.slice(3)])
    assert partition_ids(pieces, [column], 1000).tolist() == whole.tolist()
    assert partition_ids(EVERY_KIND.slice(2), [column], 1000).tolist() == whole[2:].tolist()


def test_both_sides_of_a_join_meet() -> None:
    """Equal values of different widths and encodings belong to the same partition."""
    for kinds in ((pa.int32(), pa.int64(), pa.uint64()), (pa.float32(), pa.float64())):
        tables = [pa.table({"k": pa.array([0, 1, 100, None], kind)}) for kind in kinds]
        assert len({tuple(partition_ids(table, ["k"], 64)) for table in tables}) == 1
    words = pa.array(["a", "bb", None, "a"])
    for same in (words.dictionary_encode(), words.cast(pa.large_string()), words.cast(pa.string_view())):
        assert (
            partition_ids(pa.table({"k": same}), ["k"], 64).tolist()
            == partition_ids(pa.table({"k": words}), ["k"], 64).tolist()
        )
    assert hash_column(pa.array([0.0])).tolist() == hash_column(pa.array([-0.0])).tolist()


def test_it_never_changes() -> None:
    """These values are part of what exchanged files mean: two versions may work on one job."""
    table = pa.table({"k": [1, 2, 3, None], "s": ["a", "b", "", "long " * 10]})
    assert partition_ids(table, ["k"], 4096).tolist() == [1508, 1606, 3020, 524]
    assert partition_ids(table, ["s", "k"], 4096).tolist() == [3858, 3917, 1286, 1504]


@pytest.mark.parametrize("partitions", [2, 7, 16, 1000])
def test_rows_spread_evenly(partitions: int) -> None:
    """Consecutive numbers and similar texts fill the partitions as chance would."""
    count = 200 * partitions
    for table in (
        pa.table({"k": np.arange(count)}),
        pa.table({"k": np.arange(count) * 4096}),
        pa.table({"k": [f"Customer#{i:09d}" for i in range(count)]}),
    ):
        filled = np.bincount(partition_ids(table, ["k"], partitions), minlength=partitions)
        assert len(filled) == partitions
        assert abs(filled - 200).max() < 200 * 0.45  # six standard deviations and more


def test_what_cannot_be_a_key_is_refused() -> None:
    """Lists have no hash, and a column that is missing is named."""
    with pytest.raises(TypeError, match="list"):
        partition_ids(pa.table({"k": [[1]]}), ["k"], 2)
    with pytest.raises(KeyError, match="nothing"):
        partition_ids(pa.table({"k": [1]}), ["nothing"], 2)
    assert partition_ids(pa.table({"k": pa.array([], pa.int64())}), ["k"], 2).tolist() == []
