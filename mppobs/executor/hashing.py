"""
Which partition a row belongs to: a hash of its key columns, whole columns at a time.

The same values give the same partition in every process, on every run and machine, whatever the chunks, offsets or
integer widths of the table, so that both sides of a join meet. Integers, floats, text, bytes, dates, times, decimals,
booleans and dictionaries of these can be keys. A null is a value like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_BYTE_FACTOR: Final = np.uint64(0x100000001B3)
"""The prime of FNV: odd, so that no byte's weight modulo 2^64 is ever lost."""
_NULL: Final = np.uint64(0x6E756C6C)
_BATCH: Final = 1 << 16
"""Rows hashed at a time: hashing text takes about 30 bytes of memory for each byte of text."""


def partition_ids(table: pa.Table, columns: Sequence[str], partitions: int) -> npt.NDArray[np.uint16]:
    """
    Return the partition of each row, from 0 to `partitions` - 1.

    Raises `KeyError` for a column that is not there and `TypeError` for one that cannot be a key.

    >>> table = pa.table({"k": [1, 2, 1, None], "s": ["a", "b", "a", "b"]})
    >>> ids = partition_ids(table, ["k", "s"], 16)
    >>> bool(ids[0] == ids[2]), ids.dtype.name
    (True, 'uint16')
    """
    parts = [_batch_ids(batch, partitions) for batch in table.select(list(columns)).to_batches(max_chunksize=_BATCH)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint16)


def _batch_ids(batch: pa.RecordBatch, partitions: int) -> npt.NDArray[np.uint16]:
    """Return the partition of each row of a batch that holds the key columns alone."""
    total = np.zeros(batch.num_rows, np.uint64)
    for column in batch.columns:
        total = _mix(total * _BYTE_FACTOR ^ hash_column(column))
    # The high half times the number of partitions, without the bias and the cost of a remainder.
    return ((total >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)).astype(np.uint16)


def hash_column(column: pa.Array) -> Words:
    """Return a 64-bit hash for each value of a column; raises `TypeError` for a type that cannot be a key."""
    if pa.types.is_dictionary(column.type):
        return _hash_dictionary(column)
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    if column.null_count == 0:
        return _mix(_words(column))
    hashed = np.full(len(column), _NULL, np.uint64)
    hashed[column.is_valid().to_numpy(zero_copy_only=False)] = _mix(_words(column.drop_null()))
    return hashed


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
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if kind == pa.uint64():
            return np.asarray(column.to_numpy(), np.uint64)
        return column.cast(pa.int64()).to_numpy().view(np.uint64)  # type: ignore[no-any-return]
    if pa.types.is_floating(kind):
        numbers = np.asarray(column.cast(pa.float64()).to_numpy(), np.float64) + 0.0  # -0.0 becomes 0.0
        return np.where(np.isnan(numbers), np.nan, numbers).view(np.uint64)
    if pa.types.is_temporal(kind):
        return _words(column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()))
    if pa.types.is_decimal128(kind) or pa.types.is_decimal256(kind):
        return _decimal_words(column)
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        return _text_words(column.cast(pa.large_binary()))
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _text_words(column.cast(pa.large_binary()))
    raise TypeError(f"rows cannot be partitioned by a column of type {kind}")


def _decimal_words(column: pa.Array) -> Words:
    """Return the words of decimals, which are equal for equal values of one scale, mixed into one."""
    width = column.type.bit_width // 64
    words = np.frombuffer(column.buffers()[1], np.uint64)
    words = words[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
    total = np.zeros(len(column), np.uint64)
    for index in range(width):
        total = _mix(total * _BYTE_FACTOR ^ words[:, index])
    return total


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
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))
