"""
Exchange files: what one attempt puts out, cut into partitions, each of which can be read alone and is checked.

A file is the partitions' Arrow IPC streams, one after the other, then an index of 32 bytes for each partition, then a
tail of 32 bytes. A reader takes the tail, its partition's entry, and that partition's bytes: three reads of known
places, which any storage can serve. Byte counts are those of the streams, so what is written to an exchange and what is
read from it are equal when each partition is read once.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from mppobs.errors import MppobsError
from mppobs.executor.hashing import partition_ids

_MAGIC: Final = b"MPPXCHG1"
_ENTRY: Final = struct.Struct("<QQQII")
"""Of the index: offset, length, rows, checksum of the partition, checksum of the entry so far."""
_TAIL: Final = struct.Struct("<8sIIQII")
"""Magic, partitions, attempt, rows, 0, checksum of the tail so far."""
_CHECKED_ENTRY: Final = struct.Struct("<QQQI")
_CHECKED_TAIL: Final = struct.Struct("<8sIIQI")
_BATCH_ROWS: Final = 1 << 16


class ExchangeError(MppobsError, OSError):
    """Raised when exchanged data is gone or is not what was written: the platform's fault, reason `storage`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EIO


class Output(NamedTuple):
    """What an attempt wrote. Small enough to be sent to the coordinator."""

    attempt: int
    rows: int
    sizes: tuple[int, ...]
    """Bytes of each partition."""

    @property
    def size(self) -> int:
        """Return the bytes of all partitions."""
        return sum(self.sizes)


def write_exchange(
    path: Path, table: pa.Table, partition_by: tuple[str, ...], partitions: int, *, attempt: int, compression: str
) -> Output:
    """
    Write a table to a new file, its rows partitioned by the hash of some columns, and return what was written.

    Rows keep their order within a partition. `compression` is `lz4`, `zstd` or `none`.
    """
    options = ipc.IpcWriteOptions(compression=None if compression == "none" else compression, use_threads=False)
    entries: list[bytes] = []
    sizes: list[int] = []
    offset = 0
    with path.open("xb") as file:
        for part in _partitioned(table, partition_by, partitions):
            data = _stream(part, options)
            file.write(data)
            head = _CHECKED_ENTRY.pack(offset, len(data), part.num_rows, zlib.crc32(data))
            entries.append(head + struct.pack("<I", zlib.crc32(head)))
            sizes.append(len(data))
            offset += len(data)
        tail = _CHECKED_TAIL.pack(_MAGIC, partitions, attempt, table.num_rows, 0)
        file.write(b"".join(entries) + tail + struct.pack("<I", zlib.crc32(tail)))
    return Output(attempt, table.num_rows, tuple(sizes))


def read_output(path: Path) -> Output:
    """Return what a file says of itself. Raises `ExchangeError`."""
    with _opened(path) as reader:
        return Output(reader.attempt, reader.rows, tuple(entry[1] for entry in reader.entries()))


def read_partition(path: Path, partition: int) -> tuple[pa.Table, int]:
    """Return one partition of a file, and how many bytes it took. Raises `ExchangeError`."""
    with _opened(path) as reader:
        return reader.table(partition, reader.entry(partition))


def read_everything(path: Path) -> tuple[pa.Table, int]:
    """Return all partitions of a file as one table, and how many bytes they took. Raises `ExchangeError`."""
    with _opened(path) as reader:
        parts = [reader.table(number, entry) for number, entry in enumerate(reader.entries())]
    return pa.concat_tables([table for table, _ in parts]), sum(size for _, size in parts)


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    """Open an exchange file, with its tail read and checked."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ExchangeError(f"{path}: {error.strerror}") from error
    try:
        yield _Reader(path, file)
    finally:
        os.close(file)


class _Reader:
    """An exchange file that is open. Whatever is wrong with it is an `ExchangeError` that says what and where."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        self._end = os.fstat(file).st_size - _TAIL.size
        tail = self._read(self._end, _TAIL.size, "a tail")
        magic, self.partitions, self.attempt, self.rows, _, check = _TAIL.unpack(tail)
        self._index = self._end - self.partitions * _ENTRY.size
        if magic != _MAGIC or check != zlib.crc32(tail[: _CHECKED_TAIL.size]) or self._index < 0:
            raise ExchangeError(f"{path}: not a complete exchange file: its tail is damaged")

    def entries(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield offset, length, rows and checksum of each partition."""
        data = self._read(self._index, self._end - self._index, "the index")
        for number in range(self.partitions):
            yield self._checked(number, data[number * _ENTRY.size : (number + 1) * _ENTRY.size])

    def entry(self, partition: int) -> tuple[int, int, int, int]:
        """Return offset, length, rows and checksum of one partition."""
        if not 0 <= partition < self.partitions:
            raise ExchangeError(f"{self._path}: no partition {partition}, it has {self.partitions}")
        place = self._index + partition * _ENTRY.size
        return self._checked(partition, self._read(place, _ENTRY.size, f"the index entry of partition {partition}"))

    def table(self, partition: int, entry: tuple[int, int, int, int]) -> tuple[pa.Table, int]:
        """Return the rows of a partition and its length in bytes, once its checksum is found right."""
        offset, length, rows, checksum = entry
        data = self._read(offset, length, f"partition {partition}")
        found = zlib.crc32(data)
        if found != checksum:
            raise ExchangeError(
                f"{self._path}: partition {partition} is damaged: {length} bytes at {offset} have checksum "
                f"{found:08x}, written was {checksum:08x}"
            )
        table = ipc.open_stream(pa.py_buffer(data), options=ipc.IpcReadOptions(use_threads=False)).read_all()
        if table.num_rows != rows:
            raise ExchangeError(f"{self._path}: partition {partition} has {table.num_rows} rows, written were {rows}")
        return table, length

    def _checked(self, partition: int, data: bytes) -> tuple[int, int, int, int]:
        """Return an index entry whose own checksum is right."""
        offset, length, rows, checksum, check = _ENTRY.unpack(data)
        if check != zlib.crc32(data[: _CHECKED_ENTRY.size]):
            raise ExchangeError(f"{self._path}: the index entry of partition {partition} is damaged")
        return offset, length, rows, checksum

    def _read(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly the bytes asked for."""
        if offset < 0:
            raise ExchangeError(f"{self._path}: too short to hold {what}")
        pieces: list[bytes] = []
        missing = length
        while missing:
            try:
                piece = os.pread(self._file, missing, offset + length - missing)
            except OSError as error:
                raise ExchangeError(f"{self._path}: {what} cannot be read: {error.strerror}") from error
            if not piece:
                raise ExchangeError(f"{self._path}: cut short: {missing} of {length} bytes of {what} are missing")
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _partitioned(table: pa.Table, partition_by: tuple[str, ...], partitions: int) -> Iterator[pa.Table]:
    """Yield the rows of each partition, empty ones included."""
    if partitions == 1:
        yield table
        return
    ids = partition_ids(table, partition_by, partitions)
    # A stable sort of small integers is a radix sort: linear, and rows keep their order.
    ordered = table.take(pa.array(np.argsort(ids, kind="stable")))
    start = 0
    for count in np.bincount(ids, minlength=partitions).tolist():
        yield ordered.slice(start, count)
        start += count


def _stream(table: pa.Table, options: Any) -> bytes:
    """Return a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    return sink.getvalue()  # type: ignore[no-any-return]
