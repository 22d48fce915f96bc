"""
Writing exchange files: what one attempt puts out, cut into partitions by a hash, compressed and checked.

Byte counts are those of the partitions' streams, so what is written to an exchange and what is read from it are equal
when each partition is read once. `mppobs.executor.exchange` reads the files and knows their layout.
"""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal.isal_zlib import crc32
from pyarrow import ipc

from mppobs.executor.exchange import CHECKED_ENTRY, CHECKED_TAIL, MAGIC, ExchangeError, Output
from mppobs.executor.exchange import read_everything as read_everything
from mppobs.executor.exchange import read_output as read_output
from mppobs.executor.exchange import read_partition as read_partition
from mppobs.executor.hashing import partition_ids
from mppobs.executor.keys import key_kinds, packed
from mppobs.executor.result import HeavyKey
from mppobs.executor.task import TaskError

__all__ = [
    "ExchangeError", "Output", "read_everything", "read_output", "read_partition", "write_exchange", "write_table",
]  # fmt: skip

_BATCH_ROWS: Final = 1 << 16
_SKEWED: Final = 2.0
"""A partition with so many times the mean's rows is looked into for the key that makes it so."""
_SKEWED_ROWS: Final = 10_000
"""Smaller partitions are not: no key of theirs is worth a word."""
_SAMPLE: Final = 1024
"""Rows looked at for the heaviest key: the estimate of one with half of the rows is right within 5 % (3 sigma)."""
_KEY_CHARS: Final = 100
_BLOCK_ROWS: Final = 1 << 17
_PART_ROWS: Final = 1 << 12


class _Block(NamedTuple):
    """Some rows of a table, ordered by partition."""

    rows: pa.RecordBatch
    starts: tuple[int, ...]
    """Where each partition starts, and where the last one ends."""

    def part(self, partition: int) -> pa.RecordBatch:
        """Return the rows of one partition."""
        return self.rows.slice(self.starts[partition], self.starts[partition + 1] - self.starts[partition])

    def counts(self) -> Iterator[int]:
        """Yield how many rows each partition has."""
        return (end - start for start, end in itertools.pairwise(self.starts))


def write_exchange(
    path: Path, table: pa.Table, partition_by: Sequence[str], partitions: int, *, attempt: int, compression: str
) -> Output:
    """Write a table to a new file of this machine, as `write_table` does."""
    with path.open("xb") as file:
        return write_table(file, table, partition_by, partitions, attempt=attempt, compression=compression)


def write_table(
    file: BinaryIO, table: pa.Table, partition_by: Sequence[str], partitions: int, *, attempt: int, compression: str
) -> Output:
    """
    Write a table, its rows partitioned by the hash of some columns, and return what was written.

    Rows keep their order within a partition. `compression` is `lz4`, `zstd` or `none`. Where there are several
    partitions, the rows are in memory twice meanwhile: as they were given and in the order of their partitions. Raises
    `TaskError` for a key that is not there or has no hash, for values that cannot be put in order, and for rows without
    columns, which no reader could count.
    """
    if table.num_rows and not table.num_columns:
        raise TaskError(f"a table of {table.num_rows:,} rows has no columns: there is nothing to write")
    kinds = packed(key_kinds(table.schema, partition_by)) if partitions > 1 else 0
    options = ipc.IpcWriteOptions(compression=None if compression == "none" else compression, use_threads=False)
    entries: list[bytes] = []
    sizes: list[int] = []
    offset = 0
    blocks = list(_blocks(table, partition_by, partitions))
    for partition in range(partitions):
        part = _together(_part(table.schema, blocks, partition))
        data = _stream(part, options)
        file.write(data)
        head = CHECKED_ENTRY.pack(offset, len(data), part.num_rows, crc32(data))
        entries.append(head + struct.pack("<I", crc32(head)))
        sizes.append(len(data))
        offset += len(data)
    tail = CHECKED_TAIL.pack(MAGIC, partitions, attempt, table.num_rows, kinds)
    file.write(b"".join(entries) + tail + struct.pack("<I", crc32(tail)))
    return Output(attempt, table.num_rows, tuple(sizes), _heaviest(table.schema, blocks, partition_by))


def _blocks(table: pa.Table, partition_by: Sequence[str], partitions: int) -> Iterator[_Block]:
    """
    Yield the rows of a table in blocks, each ordered by partition; rows of one partition keep their order.

    A block fits the processor's cache, where its rows are put in order several times as fast as all of them at once,
    and is large enough to have some thousand rows for each partition.
    """
    if partitions == 1:
        for batch in table.to_batches():
            yield _Block(batch, (0, batch.num_rows))
        return
    size = max(_BLOCK_ROWS, _PART_ROWS * partitions)
    for start in range(0, table.num_rows, size):
        for batch in _together(table.slice(start, size)).to_batches():
            ids = partition_ids(pa.Table.from_batches([batch]), partition_by, partitions)
            # A stable sort of small integers is a radix sort: linear, and rows keep their order.
            order = pa.array(np.argsort(ids, kind="stable"))
            starts = itertools.accumulate(np.bincount(ids, minlength=partitions).tolist(), initial=0)
            yield _Block(_taken(batch, order), tuple(starts))


def _part(schema: pa.Schema, blocks: Sequence[_Block], partition: int) -> pa.Table:
    """Return the rows of one partition."""
    return pa.Table.from_batches([block.part(partition) for block in blocks], schema)


def _together(table: pa.Table) -> pa.Table:
    """Return a table in one chunk, or in the fewest that its offsets and the indices of its dictionaries allow."""
    try:
        return table.combine_chunks()
    except pa.ArrowInvalid:  # more values than its dictionaries can number, or than a nested offset can count
        return table


def _taken(batch: pa.RecordBatch, order: pa.Array) -> pa.RecordBatch:
    """Return rows in an order. Raises `TaskError` for a type that Arrow cannot put in order."""
    try:
        return batch.take(order)
    except pa.ArrowNotImplementedError:
        columns = [
            _taken_column(field, column, order) for field, column in zip(batch.schema, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _taken_column(field: pa.Field, column: pa.Array, order: pa.Array) -> pa.Array:
    """Return a column in an order, by way of a type that Arrow has this for."""
    try:
        if pa.types.is_run_end_encoded(field.type):
            return pc.run_end_encode(pc.run_end_decode(column).take(order), run_end_type=field.type.run_end_type)
        return column.cast(_orderly(field.type)).take(order).cast(field.type)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise TaskError(f"column {field.name!r} of type {field.type} cannot be partitioned: {error}") from error


def _orderly(kind: pa.DataType) -> pa.DataType:
    """Return a type of the same values without views, which Arrow cannot put in order."""
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = kind.value_field.with_type(_orderly(kind.value_type))
        return pa.list_(value) if pa.types.is_list(kind) else pa.large_list(value)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_orderly(field.type)) for field in kind.fields])
    return kind


def _heaviest(schema: pa.Schema, blocks: Sequence[_Block], partition_by: Sequence[str]) -> HeavyKey | None:
    """
    Return the key that makes one partition far larger than the others, where one does.

    Costs nothing where the partitions are even, and else a look at a thousand rows.
    """
    counts = [sum(rows) for rows in zip(*(block.counts() for block in blocks), strict=True)] or [0]
    most = max(counts)
    if most < _SKEWED_ROWS or most * len(counts) < _SKEWED * sum(counts):
        return None
    partition = counts.index(most)
    keys = _together(_part(schema, blocks, partition).select(list(partition_by)))
    places = np.linspace(0, most - 1, _SAMPLE).astype(np.int64).tolist()
    rows = [keys.slice(place, 1).to_pylist()[0] for place in places]
    (key, seen), *_ = Counter(", ".join(map(str, row.values())) for row in rows).most_common(1)
    # Fewer say that many keys have met here by chance, and that no key is to blame.
    return HeavyKey(key[:_KEY_CHARS], partition, seen * most // _SAMPLE) if seen * 4 >= _SAMPLE else None


def _stream(table: pa.Table, options: Any) -> bytes:
    """Return a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()  # type: ignore[no-any-return]
