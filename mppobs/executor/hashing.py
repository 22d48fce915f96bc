"""
Which partition a row belongs to: a hash of its key columns, whole columns at a time.

The same values give the same partition in every process, on every run and machine, whatever the chunks, offsets or
types of the table, so that both sides of a join meet. Integers, booleans, floats, text, bytes, dates, times, decimals
and dictionaries of these can be keys, and extension types that are stored as one of them. A null is a value like any
other. Equal values of two types meet where `mppobs.executor.keys.may_meet` says so of their kinds: integers of any
width and floats or decimals of any scale, text and its bytes, dates and times of any unit. What does not meet, such as
a float and a decimal, is an error when both sides are read (`mppobs.executor.attempt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mppobs.executor.keys import KeyKind, key_kinds, kind_of

Words = npt.NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_BYTE_FACTOR: Final = np.uint64(0x100000001B3)
"""The prime of FNV: odd, so that no byte's weight modulo 2^64 is ever lost."""
_NULL: Final = np.uint64(0x6E756C6C)
_BATCH: Final = 1 << 16
"""Rows hashed at a time: hashing text takes about 30 bytes of memory for each byte of text."""
_MAX_PARTITIONS: Final = 1 << 16
"""What 16 bits can number; a plan allows fewer."""
_TICKS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY: Final = 86_400 * 10**9
_LIMB: Final = np.uint64(32)
_TEN: Final = np.uint64(10)


def partition_ids(table: pa.Table, columns: Sequence[str], partitions: int) -> npt.NDArray[np.uint16]:
    """
    Return the partition of each row, from 0 to `partitions` - 1.

    Raises `TaskError` for a column that is not there or cannot be a key, and `ValueError` for more partitions than
    65,536 or none.

    >>> table = pa.table({"k": [1, 2, 1, None], "s": ["a", "b", "a", "b"]})
    >>> ids = partition_ids(table, ["k", "s"], 16)
    >>> bool(ids[0] == ids[2]), ids.dtype.name
    (True, 'uint16')
    """
    if not 1 <= partitions <= _MAX_PARTITIONS:
        raise ValueError(f"partitions must be 1 to {_MAX_PARTITIONS}, not {partitions}")
    key_kinds(table.schema, columns)
    parts = [_batch_ids(batch, partitions) for batch in table.select(list(columns)).to_batches(max_chunksize=_BATCH)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint16)


def _batch_ids(batch: pa.RecordBatch, partitions: int) -> npt.NDArray[np.uint16]:
    """Return the partition of each row of a batch that holds the key columns alone."""
    total = np.zeros(batch.num_rows, np.uint64)
    for place, column in enumerate(batch.columns):
        hashed = hash_column(column)
        total = _mix(total * _BYTE_FACTOR ^ hashed if place else hashed)
    # The high half times the number of partitions, without the bias and the cost of a remainder.
    total >>= np.uint64(32)
    total *= np.uint64(partitions)
    total >>= np.uint64(32)
    return total.astype(np.uint16)


def hash_column(column: pa.Array) -> Words:
    """Return a 64-bit hash for each value of a column; raises `TypeError` for a type that cannot be a key."""
    column = _plain(column)
    if pa.types.is_dictionary(column.type):
        return _hash_dictionary(column)
    if column.null_count == 0:
        return _mix(_words(column))
    hashed = np.full(len(column), _NULL, np.uint64)
    if column.null_count < len(column):
        hashed[column.is_valid().to_numpy(zero_copy_only=False)] = _mix(_words(column.drop_null()))
    return hashed


def _plain(column: pa.Array) -> pa.Array:
    """Return a column without what wraps its values; text and bytes with offsets of 64 bits."""
    if isinstance(column, pa.ExtensionArray):
        return _plain(column.storage)
    if pa.types.is_run_end_encoded(column.type):
        return _plain(pc.run_end_decode(column))
    if not pa.types.is_dictionary(column.type) and kind_of(column.type) is KeyKind.TEXT:
        return column.cast(pa.large_binary())
    return column


def _hash_dictionary(column: pa.Array) -> Words:
    """Return the hashes of a dictionary's values, looked up for each row."""
    if len(column.dictionary) == 0:
        return np.full(len(column), _NULL, np.uint64)
    found: Words = hash_column(column.dictionary)[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    if column.null_count:
        found[column.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return found


def _words(column: pa.Array) -> Words:
    """Return one word for each value of a column without nulls, equal for equal values."""
    kind = column.type
    match kind_of(kind):
        case KeyKind.INTEGER:
            return _integer_words(column)
        case KeyKind.FLOAT:
            return _float_words(column)
        case KeyKind.DECIMAL:
            return _decimal_words(column)
        case KeyKind.TEXT:
            return _text_words(column)
        case KeyKind.ANYTHING:
            return np.zeros(len(column), np.uint64)
        case _:  # points and lengths of time
            ticks = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
            # Nanoseconds modulo 2^64: equal for equal times, and what is further apart than 584 years may collide.
            return _integer_words(ticks) * np.uint64(_nanoseconds(kind))


def _nanoseconds(kind: pa.DataType) -> int:
    """Return how many nanoseconds the unit of a type of times has."""
    if pa.types.is_date(kind):
        return _DAY if pa.types.is_date32(kind) else _TICKS["ms"]
    return _TICKS[kind.unit]


def _integer_words(column: pa.Array) -> Words:
    if column.type == pa.uint64():
        return np.asarray(column.to_numpy(), np.uint64)
    return column.cast(pa.int64()).to_numpy().view(np.uint64)  # type: ignore[no-any-return]


def _float_words(column: pa.Array) -> Words:
    """Return the words of integers for numbers that are whole, and those of the bits for the others."""
    numbers = np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    words = np.where(np.isnan(numbers), np.nan, numbers).view(np.uint64)
    whole = np.floor(numbers) == numbers
    signed = whole & (numbers >= -(2.0**63)) & (numbers < 2.0**63)
    words[signed] = numbers[signed].astype(np.int64).view(np.uint64)
    unsigned = whole & (numbers >= 2.0**63) & (numbers < 2.0**64)
    words[unsigned] = numbers[unsigned].astype(np.uint64)
    return words


def _decimal_words(column: pa.Array) -> Words:
    """Return the words of integers for numbers that are whole, and those of the digits and their scale for others."""
    if column.type.scale < 0:
        column = column.cast(pa.decimal256(76, 0))
    width, scale = column.type.bit_width // 32, column.type.scale
    digits = np.frombuffer(column.buffers()[1], np.uint32)[
        column.offset * width : (column.offset + len(column)) * width
    ]
    limbs = digits.reshape(-1, width).astype(np.uint64)
    negative = limbs[:, -1] >= 2**31
    limbs[negative] = _negated(limbs[negative])
    while limbs.shape[1] > 1 and not limbs[:, -1].any():
        limbs = limbs[:, :-1]
    scales = np.full(len(limbs), scale, np.uint64)
    rows = np.arange(len(limbs))
    for _ in range(scale):
        tenth, rest = _tenth(limbs[rows])
        whole = rest == 0
        rows = rows[whole]
        limbs[rows] = tenth[whole]
        scales[rows] -= np.uint64(1)
    words = np.zeros(len(limbs), np.uint64)
    for place in range(limbs.shape[1]):  # the first two are the low 64 bits, as those of an integer
        words += limbs[:, place] * (_BYTE_FACTOR ** np.uint64(place) if place > 1 else np.uint64(1 << 32 * place))
    words[negative] = -words[negative]
    return words ^ scales * _GOLDEN


def _negated(limbs: Words) -> Words:
    """Return numbers of the other sign: rows of 32 bits each, the lowest first."""
    result, carry = np.empty_like(limbs), np.ones(len(limbs), np.uint64)
    for place in range(limbs.shape[1]):
        total = (limbs[:, place] ^ np.uint64(2**32 - 1)) + carry
        result[:, place], carry = total & np.uint64(2**32 - 1), total >> _LIMB
    return result


def _tenth(limbs: Words) -> tuple[Words, Words]:
    """Return a tenth of numbers, and what is left."""
    result, rest = np.empty_like(limbs), np.zeros(len(limbs), np.uint64)
    for place in reversed(range(limbs.shape[1])):
        result[:, place], rest = np.divmod((rest << _LIMB) | limbs[:, place], _TEN)
    return result, rest


def _text_words(column: pa.Array) -> Words:
    """Return for each text the sum of its bytes, each plus 1 and weighted by its place, and its length in the mix."""
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    totals = np.zeros(len(column), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        first, last = int(offsets[0]), int(offsets[-1])
        data = np.frombuffer(column.buffers()[2], np.uint8)[first:last]
        starts = (offsets[:-1] - first)[filled]
        places = np.arange(last - first) - np.repeat(starts, lengths[filled])
        weights = np.cumprod(np.full(int(lengths.max()), _BYTE_FACTOR, np.uint64))
        totals[filled] = np.add.reduceat((data.astype(np.uint64) + np.uint64(1)) * weights[places], starts)
    return totals ^ (lengths.astype(np.uint64) << np.uint64(48))


def _mix(words: Words) -> Words:
    """Return words whose every bit depends on all bits of the given ones (the finish of SplitMix64)."""
    words = words + _GOLDEN
    # In place, since memory that is new to the process costs more than the arithmetic.
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= _MIX_1
    np.right_shift(words, np.uint64(27), out=shifted)
    words ^= shifted
    words *= _MIX_2
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted
    return words
