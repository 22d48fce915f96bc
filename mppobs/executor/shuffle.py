"""
Writing exchange files: what one attempt puts out, cut into partitions by a hash, compressed and checked.

Byte counts are those of the partitions' streams, so what is written to an exchange and what is read from it are equal
when each partition is read once. `mppobs.executor.exchange` reads the files and knows their layout.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from mppobs.executor.exchange import CHECKED_ENTRY, CHECKED_TAIL, MAGIC, ExchangeError, Output
from mppobs.executor.exchange import read_everything as read_everything
from mppobs.executor.exchange import read_output as read_output
from mppobs.executor.exchange import read_partition as read_partition
from mppobs.executor.hashing import partition_ids
from mppobs.executor.result import HeavyKey

__all__ = [
    "ExchangeError", "Output", "read_everything", "read_output", "read_partition", "write_exchange", "write_table",
]  # fmt: skip

Places = npt.NDArray[np.int64]

_BATCH_ROWS: Final = 1 << 16
_SKEWED: Final = 2.0
"""A partition with so many times the mean's rows is looked into for the key that makes it so."""
_SKEWED_ROWS: Final = 10_000
"""Smaller partitions are not: no key of theirs is worth a word."""
_SAMPLE: Final = 1024
"""Rows looked at for the heaviest key: the estimate of one with half of the rows is right within 5 % (3 sigma)."""
_KEY_CHARS: Final = 100
_TAKE_ROWS: Final = 1 << 17


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

    Rows keep their order within a partition. `compression` is `lz4`, `zstd` or `none`.
    """
    options = ipc.IpcWriteOptions(compression=None if compression == "none" else compression, use_threads=False)
    entries: list[bytes] = []
    sizes: list[int] = []
    offset = 0
    counts, order = _ordered(table, partition_by, partitions)
    for part in _parts(table, counts, order):
        data = _stream(part, options)
        file.write(data)
        head = CHECKED_ENTRY.pack(offset, len(data), part.num_rows, zlib.crc32(data))
        entries.append(head + struct.pack("<I", zlib.crc32(head)))
        sizes.append(len(data))
        offset += len(data)
    tail = CHECKED_TAIL.pack(MAGIC, partitions, attempt, table.num_rows, 0)
    file.write(b"".join(entries) + tail + struct.pack("<I", zlib.crc32(tail)))
    return Output(attempt, table.num_rows, tuple(sizes), _heaviest(table, counts, order, partition_by))


def _ordered(table: pa.Table, partition_by: Sequence[str], partitions: int) -> tuple[list[int], Places]:
    """Return how many rows each partition has, and the places of the rows in the order of their partitions."""
    if partitions == 1:
        return [table.num_rows], np.empty(0, np.int64)
    ids = partition_ids(table, partition_by, partitions)
    # A stable sort of small integers is a radix sort: linear, and rows keep their order.
    return np.bincount(ids, minlength=partitions).tolist(), np.argsort(ids, kind="stable")


def _parts(table: pa.Table, counts: Sequence[int], order: Places) -> Iterator[pa.Table]:
    """Yield the rows of each partition, empty ones included; no more than some of the table is there twice."""
    if len(counts) == 1:
        yield table
        return
    start = end = taken = 0
    rows = table.slice(0, 0)
    for number, count in enumerate(counts):
        if end + count > taken:
            # This partition, and as many of the next as make up a batch: a copy for each small one would cost more.
            ahead = itertools.accumulate(counts[number:])
            start, taken = end, end + next((total for total in ahead if total >= _TAKE_ROWS), len(order) - end)
            rows = table.take(pa.array(order[start:taken]))
        yield rows.slice(end - start, count)
        end += count


def _heaviest(table: pa.Table, counts: Sequence[int], order: Places, partition_by: Sequence[str]) -> HeavyKey | None:
    """
    Return the key that makes one partition far larger than the others, where one does.

    Costs nothing where the partitions are even, and else a look at a thousand rows.
    """
    most = max(counts)
    if most < _SKEWED_ROWS or most * len(counts) < _SKEWED * sum(counts):
        return None
    partition = counts.index(most)
    places = order[sum(counts[:partition]) + np.linspace(0, most - 1, _SAMPLE).astype(np.int64)]
    keys = table.select(list(partition_by)).take(pa.array(places)).to_pylist()
    (key, seen), *_ = Counter(", ".join(map(str, row.values())) for row in keys).most_common(1)
    # Fewer say that many keys have met here by chance, and that no key is to blame.
    return HeavyKey(key[:_KEY_CHARS], partition, seen * most // _SAMPLE) if seen * 4 >= _SAMPLE else None


def _stream(table: pa.Table, options: Any) -> bytes:
    """Return a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()  # type: ignore[no-any-return]
