"""
Reading exchange files, from any storage that can give a range of bytes. `mppobs.executor.shuffle` writes them.

A file is the partitions' Arrow IPC streams, one after the other, then an index of 32 bytes for each partition, then a
tail of 32 bytes. A reader takes the tail, its partition's entry, and that partition's bytes: three reads of known
places. Everything has a checksum, so what is damaged, cut or gone is an `ExchangeError` and never a wrong answer.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import pyarrow as pa
from isal.isal_zlib import crc32
from pyarrow import ipc

from mppobs.errors import MppobsError
from mppobs.executor.result import HeavyKey

MAGIC: Final = b"MPPXCHG1"
ENTRY: Final = struct.Struct("<QQQII")
"""Of the index: offset, length, rows, checksum of the partition, checksum of the entry so far."""
TAIL: Final = struct.Struct("<8sIIQII")
"""Magic, partitions, attempt, rows, kinds of the keys (`mppobs.executor.keys`), checksum of the tail so far."""
CHECKED_ENTRY: Final = struct.Struct("<QQQI")
CHECKED_TAIL: Final = struct.Struct("<8sIIQI")
_LARGE_READ: Final = 1 << 16


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
    heaviest: HeavyKey | None = None
    """The key that makes one partition far larger than the others, where one does. Known to the writer alone."""

    @property
    def size(self) -> int:
        """Return the bytes of all partitions."""
        return sum(self.sizes)


class Source(Protocol):
    """The bytes of a file, wherever they are."""

    @property
    def name(self) -> str:
        """Return what people find it by."""
        ...

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return so many bytes from there on, or fewer at its end. Raises `OSError`."""
        ...


class LocalSource:
    """A file of this machine, open."""

    def __init__(self, path: Path, handle: int) -> None:
        self.name = str(path)
        self.size = os.fstat(handle).st_size
        self._handle = handle

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return so many bytes from there on, or fewer at its end."""
        if length < _LARGE_READ:
            return os.pread(self._handle, length, offset)
        # Arrow's allocator keeps memory that was in use before: that of Python's own is new to the process each time,
        # and each page of it costs as much as reading it.
        data = memoryview(pa.allocate_buffer(max(min(length, self.size - offset), 0)))
        return data[: os.preadv(self._handle, [data], offset)]


@contextmanager
def opened(path: Path) -> Iterator[ExchangeReader]:
    """Open an exchange file of this machine, with its tail read and checked. Raises `ExchangeError`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ExchangeError(f"{path}: {error.strerror}") from error
    try:
        yield ExchangeReader(LocalSource(path, handle))
    finally:
        os.close(handle)


def read_output(path: Path) -> Output:
    """Return what a file says of itself. Raises `ExchangeError`."""
    with opened(path) as reader:
        return reader.output()


def read_partition(path: Path, partition: int) -> tuple[pa.Table, int]:
    """Return one partition of a file, and how many bytes it took. Raises `ExchangeError`."""
    with opened(path) as reader:
        return reader.partition(partition)


def read_everything(path: Path) -> tuple[pa.Table, int]:
    """Return all partitions of a file as one table, and how many bytes they took. Raises `ExchangeError`."""
    with opened(path) as reader:
        return reader.everything()


class ExchangeReader:
    """An exchange file that is open. Whatever is wrong with it is an `ExchangeError` that says what and where."""

    def __init__(self, source: Source) -> None:
        """Read and check the tail."""
        self._source = source
        self._end = source.size - TAIL.size
        tail = self._read(self._end, TAIL.size, "a tail")
        magic, self.partitions, self.attempt, self.rows, self.kinds, check = TAIL.unpack(tail)
        self._index = self._end - self.partitions * ENTRY.size
        if magic != MAGIC or check != crc32(tail[: CHECKED_TAIL.size]) or self._index < 0:
            raise ExchangeError(f"{source.name}: not a complete exchange file: its tail is damaged")

    def output(self) -> Output:
        """Return what the file says of itself."""
        return Output(self.attempt, self.rows, tuple(length for _, length, _, _ in self._entries()))

    def partition(self, partition: int) -> tuple[pa.Table, int]:
        """Return one partition, and how many bytes it took."""
        return self._table(partition, self._entry(partition))

    def everything(self) -> tuple[pa.Table, int]:
        """Return all partitions as one table, and how many bytes they took."""
        parts = [self._table(number, entry) for number, entry in enumerate(self._entries())]
        return pa.concat_tables([table for table, _ in parts]), sum(size for _, size in parts)

    def _entries(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield offset, length, rows and checksum of each partition."""
        data = self._read(self._index, self._end - self._index, "the index")
        for number in range(self.partitions):
            yield self._checked(number, data[number * ENTRY.size : (number + 1) * ENTRY.size])

    def _entry(self, partition: int) -> tuple[int, int, int, int]:
        """Return offset, length, rows and checksum of one partition."""
        if not 0 <= partition < self.partitions:
            raise ExchangeError(f"{self._source.name}: no partition {partition}, it has {self.partitions}")
        place = self._index + partition * ENTRY.size
        return self._checked(partition, self._read(place, ENTRY.size, f"the index entry of partition {partition}"))

    def _table(self, partition: int, entry: tuple[int, int, int, int]) -> tuple[pa.Table, int]:
        """Return the rows of a partition and its length in bytes, once its checksum is found right."""
        name, (offset, length, rows, checksum) = self._source.name, entry
        data = self._read(offset, length, f"partition {partition}")
        found = crc32(data)
        if found != checksum:
            raise ExchangeError(
                f"{name}: partition {partition} is damaged: {length} bytes at {offset} have checksum "
                f"{found:08x}, written was {checksum:08x}"
            )
        table = ipc.open_stream(pa.py_buffer(data), options=ipc.IpcReadOptions(use_threads=False)).read_all()
        if table.num_rows != rows:
            raise ExchangeError(f"{name}: partition {partition} has {table.num_rows} rows, written were {rows}")
        return table, length

    def _checked(self, partition: int, data: bytes | memoryview) -> tuple[int, int, int, int]:
        """Return an index entry whose own checksum is right."""
        offset, length, rows, checksum, check = ENTRY.unpack(data)
        if check != crc32(data[: CHECKED_ENTRY.size]):
            raise ExchangeError(f"{self._source.name}: the index entry of partition {partition} is damaged")
        return offset, length, rows, checksum

    def _read(self, offset: int, length: int, what: str) -> bytes | memoryview:
        """Return exactly the bytes asked for."""
        name = self._source.name
        if offset < 0:
            raise ExchangeError(f"{name}: too short to hold {what}")
        pieces: list[bytes | memoryview] = []
        missing = length
        while missing:
            try:
                piece = self._source.read(offset + length - missing, missing)
            except OSError as error:
                raise ExchangeError(f"{name}: {what} cannot be read: {error.strerror or error}") from error
            if not piece:
                raise ExchangeError(f"{name}: cut short: {missing} of {length} bytes of {what} are missing")
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
