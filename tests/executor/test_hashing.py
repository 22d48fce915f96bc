"""The hash that says which partition a row belongs to."""

from __future__ import annotations

import datetime
import struct
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.executor.hashing import hash_column, partition_ids
from mppobs.executor.keys import KeyKind, kind_of, may_meet, packed, unpacked
from mppobs.executor.task import TaskError

MASK = (1 << 64) - 1
PRIME = 0x100000001B3
WIDE = Context(prec=80)


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
        case float() if value.is_integer() and -(2**63) <= value < 2**64:
            return mix(int(value) & MASK)
        case float():
            number = float("nan") if value != value else value
            return mix(struct.unpack("<Q", struct.pack("<d", number))[0])
        case Decimal():
            sign, digits, exponent = value.normalize(WIDE).as_tuple()
            assert isinstance(exponent, int)
            scale = max(0, -exponent)
            number = int("".join(map(str, digits))) * 10 ** max(0, exponent)
            weights = [1, 1 << 32, *(PRIME**place for place in range(2, 8))]
            total = sum((number >> 32 * place & 0xFFFFFFFF) * weight for place, weight in enumerate(weights))
            return mix((-total if sign else total) & MASK ^ scale * 0x9E3779B97F4A7C15 & MASK)
        case datetime.timedelta():
            return mix((value // datetime.timedelta(microseconds=1)) * 1000 & MASK)
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
    pa.decimal32(7, 3): st.decimals(-9999, 9999, places=3),
    pa.decimal128(38, 10): st.decimals(-(10**28) + 1, 10**28 - 1, places=10),
    pa.decimal256(76, 20): st.decimals(-(10**50), 10**50, places=20),
    pa.decimal64(18, 0): st.decimals(-(10**17), 10**17, places=0),
    pa.duration("us"): st.timedeltas(datetime.timedelta(-(10**8)), datetime.timedelta(10**8)),
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


def ids(column: pa.Array, partitions: int = 1 << 16) -> list[int]:
    found: list[int] = partition_ids(pa.table({"k": column}), ["k"], partitions).tolist()
    return found


NOON = datetime.datetime.fromisoformat("2024-02-29T12:30")
FAR = datetime.datetime.fromisoformat("9999-12-31")
DAY = datetime.date(1950, 1, 1)
WORDS = ["a", "bb", None, "", "é" * 50]
UNITS = ("s", "ms", "us", "ns")

SAME = {
    "integers": [pa.array([0, 1, 100, None], kind) for kind in (pa.int8(), pa.int32(), pa.int64(), pa.uint64())],
    "negative": [pa.array([-1, -100], kind) for kind in (pa.int8(), pa.int64(), pa.float32(), pa.decimal128(5, 2))],
    "truth": [pa.array([True, False, None]), pa.array([1, 0, None])],
    "floats": [pa.array([0.5, 3.0, None, float("nan")], kind) for kind in (pa.float16(), pa.float32(), pa.float64())],
    "zeros": [pa.array([0.0]), pa.array([-0.0]), pa.array([0])],
    "whole floats": [pa.array([1.0, -7.0, 2.0**62, None]), pa.array([1, -7, 2**62, None])],
    "large floats": [pa.array([2.0**63]), pa.array([2**63], pa.uint64())],
    "decimals": [
        pa.array([Decimal("1.5"), Decimal(-3), Decimal("10.25"), None], kind)
        for kind in (pa.decimal32(9, 2), pa.decimal64(9, 4), pa.decimal128(30, 2), pa.decimal256(76, 30))
    ],
    "long decimals": [
        pa.array([Decimal(10**20), -Decimal(10**20) - Decimal("0.5")], kind)
        for kind in (pa.decimal128(38, 1), pa.decimal256(60, 9))
    ],
    "round decimals": [pa.array([Decimal(1200), Decimal(-100)], pa.decimal128(5, -2)), pa.array([1200, -100])],
    "text": [
        pa.array(WORDS).cast(kind)
        for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    ],
    "dictionaries": [
        pa.array(WORDS),
        pa.array(WORDS).dictionary_encode(),
        pa.array(WORDS).dictionary_encode(null_encoding="encode"),
        pa.array(WORDS, pa.large_string()).dictionary_encode().cast(pa.dictionary(pa.uint8(), pa.large_string())),
    ],
    "fixed": [pa.array([b"ab", None], pa.binary(2)), pa.array([b"ab", None])],
    "stored": [
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16], pa.binary(16))), pa.array([b"a" * 16]),
    ],
    "runs": [pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), pa.array(["a", "a", "b"])],
    "moments": [pa.array([NOON, None], pa.timestamp(unit)) for unit in UNITS],
    "far moments": [pa.array([FAR, None], pa.timestamp(unit)) for unit in UNITS[:3]],
    "instants": [pa.array([NOON], pa.timestamp("s", zone)) for zone in ("UTC", "Europe/Berlin")],
    "days": [pa.array([DAY]).cast(kind) for kind in (pa.date32(), pa.date64(), pa.timestamp("ns"))],
    "times": [pa.array([NOON.time()], kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("ns"))],
    "spans": [pa.array([datetime.timedelta(-2)], pa.duration(unit)) for unit in UNITS],
    "nothing": [pa.nulls(2), pa.nulls(2, pa.int8()), pa.nulls(2, pa.string()), pa.nulls(2, pa.decimal128(5, 2))],
}  # fmt: skip


@pytest.mark.parametrize("values", SAME)
def test_both_sides_of_a_join_meet(values: str) -> None:
    """Equal values of different types belong to the same partition, and their kinds are said to meet."""
    first, *others = SAME[values]
    for other in others:
        assert ids(other) == ids(first), other.type
        assert may_meet(kind_of(first.type), kind_of(other.type))


@given(st.decimals(-(10**15), 10**15, places=4), st.integers(4, 12))
def test_the_scale_of_a_decimal_does_not_matter(number: Decimal, scale: int) -> None:
    """A decimal written with more noughts is the same key."""
    assert ids(pa.array([number], pa.decimal128(38, scale))) == ids(pa.array([number], pa.decimal256(76, 4)))


@given(st.integers(-(2**63), 2**63 - 1).map(float))
def test_whole_floats_are_integers(number: float) -> None:
    """A column of integers that a null made floats still meets the integers."""
    whole = pa.array([int(number)], pa.int64() if number < 2**63 else pa.uint64())
    assert ids(pa.array([number])) == ids(whole)


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


@pytest.mark.parametrize(
    ("column", "error"),
    [
        (pa.array([[1]]), "column 'k': rows cannot be partitioned by values of type list"),
        (pa.array([{"a": 1}]), "type struct"),
        (pa.array([pa.MonthDayNano([1, 2, 3])]), "type month_day_nano_interval, but by numbers"),
    ],
)
def test_what_cannot_be_a_key_is_refused(column: pa.Array, error: str) -> None:
    """What has no hash is told with the column, its type and what would do; there is no retry."""
    with pytest.raises(TaskError, match=error):
        ids(column, 2)


def test_a_wrong_column_is_named() -> None:
    """A key that is not there is told with the nearest one, one that is there twice as such."""
    with pytest.raises(TaskError, match="column 'amonut', which is not there: did you mean 'amount'"):
        partition_ids(pa.table({"amount": [1], "k": [1]}), ["amonut"], 2)
    with pytest.raises(TaskError, match="column 'k', which is there 2 times"):
        partition_ids(pa.table([pa.array([1]), pa.array([1])], names=["k", "k"]), ["k"], 2)


def test_partitions_have_bounds() -> None:
    """As many partitions as 16 bits can number, and never a number that wrapped."""
    assert max(partition_ids(pa.table({"k": range(300_000)}), ["k"], 1 << 16)) > 65_000
    for count in (0, -1, (1 << 16) + 1):
        with pytest.raises(ValueError, match="1 to 65536"):
            partition_ids(pa.table({"k": [1]}), ["k"], count)
    assert ids(pa.array([], pa.int64())) == []


def test_kinds_that_do_not_meet_are_known() -> None:
    """Every pair of kinds that has equal values in different partitions is one that `may_meet` refuses."""
    half, zoned = Decimal("0.5"), pa.timestamp("s", "UTC")
    apart = [
        (pa.array([0.5]), pa.array([half])),
        (pa.array([1]), pa.array(["1"])),
        (pa.array([NOON], zoned), pa.array([NOON])),
    ]
    for one, other in apart:
        assert not may_meet(kind_of(one.type), kind_of(other.type))
    assert all(may_meet(kind, KeyKind.ANYTHING) for kind in KeyKind)
    assert unpacked(packed(list(KeyKind)[1:])) == tuple(KeyKind)[1:]
