"""
Exchanged data on any storage that `fsspec` knows: object stores, and whatever else several machines can reach.

    <root>/attempts/<name>          what one attempt wrote: an object that is there as a whole, or not at all
    <root>/<stage>/<shard>          which of them is the shard's output: a few bytes with its name

There is nothing to rename, so an attempt commits by creating the small object, which the store refuses where there is
one (`If-None-Match` on S3, `ifGenerationMatch=0` on Google Cloud Storage). The first wins, as on a file system. On a
store that cannot refuse, two attempts that end at the same moment may both take themselves for the first: what is read
is then the later one, whole, and the coordinator counts the one that it heard of first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final

import fsspec

from mppobs.executor.exchange import ExchangeError, ExchangeReader, Output

_TAIL_BYTES: Final = 1 << 16
"""Read at once from the end of an object: the tail and an index of 2,000 partitions. A request costs milliseconds."""


class ObjectSource:
    """An object of a store. Its end is read once and kept."""

    def __init__(self, store: Any, path: str) -> None:
        self.name = path
        self._store = store
        self.size = int(store.size(path))
        self._start = max(self.size - _TAIL_BYTES, 0)
        self._end: bytes = store.cat_file(path, self._start, self.size)

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes from there on, or fewer at its end."""
        if offset >= self._start:
            return self._end[offset - self._start : offset - self._start + length]
        return self._store.cat_file(self.name, offset, min(offset + length, self.size))  # type: ignore[no-any-return]


class ObjectFiles:
    """The objects of one job below a URL."""

    def __init__(self, root: str, fence: int = 0) -> None:
        """Connect to the store. Raises `ValueError` or `ImportError` where `fsspec` does not know it."""
        self._store: Any
        self._store, path = fsspec.core.url_to_fs(root)
        self._root = path.rstrip("/")
        self._fence = fence

    def prepare(self, stages: int) -> None:
        """Make directories, where the storage has such a thing."""
        for name in ("attempts", *map(str, range(stages))):
            self._store.makedirs(f"{self._root}/{name}", exist_ok=True)

    @contextmanager
    def create(self, stage: int, shard: int, number: int) -> Iterator[BinaryIO]:
        """Open a new object for an attempt to write."""
        with self._store.open(self._attempt(stage, shard, number), "wb") as file:
            yield file

    def commit(self, stage: int, shard: int, number: int) -> Output | None:
        """Make an attempt's object its shard's output; return what is if another was the first."""
        name = self._attempt(stage, shard, number).rsplit("/", 1)[1].encode()
        while True:
            try:
                self._store.pipe_file(self._shard(stage, shard), name + b" %08x" % zlib.crc32(name), mode="create")
            except FileExistsError:
                try:
                    with self.opened(stage, shard) as reader:
                        return reader.output()
                except ExchangeError:
                    self.drop(stage, shard)
            else:
                return None

    def discard(self, stage: int, shard: int, number: int) -> None:
        """Remove what an attempt wrote that came to nothing."""
        with suppress(OSError):
            self._store.rm_file(self._attempt(stage, shard, number))

    @contextmanager
    def opened(self, stage: int, shard: int) -> Iterator[ExchangeReader]:
        """Open a shard's committed output. Raises `ExchangeError`."""
        yield ExchangeReader(self._winner(self._shard(stage, shard)))

    def _winner(self, place: str) -> ObjectSource:
        """Return the object that is named in a shard's place."""
        try:
            name, _, check = self._store.cat_file(place).partition(b" ")
            if name and check == b"%08x" % zlib.crc32(name):
                return ObjectSource(self._store, f"{self._root}/attempts/{name.decode()}")
        except OSError as error:
            raise ExchangeError(f"{place}: {error}") from error
        raise ExchangeError(f"{place}: names no object: damaged")

    def committed(self, stage: int) -> dict[int, Output]:
        """Return the shards of a stage whose output is in place, and what it is."""
        found: dict[int, Output] = {}
        for path in self._store.ls(f"{self._root}/{stage}", detail=False):
            shard = int(path.rstrip("/").rsplit("/", 1)[1])
            try:
                with self.opened(stage, shard) as reader:
                    found[shard] = reader.output()
            except ExchangeError:
                self.drop(stage, shard)
        return found

    def drop(self, stage: int, shard: int) -> None:
        """Let another attempt take a shard's place. What the old one wrote goes with the job."""
        with suppress(FileNotFoundError):
            self._store.rm_file(self._shard(stage, shard))

    def remove(self) -> None:
        """Remove everything of the job."""
        with suppress(FileNotFoundError):
            self._store.rm(self._root, recursive=True)

    def _attempt(self, stage: int, shard: int, number: int) -> str:
        return f"{self._root}/attempts/{self._fence}-{stage}-{shard}-{number}"

    def _shard(self, stage: int, shard: int) -> str:
        return f"{self._root}/{stage}/{shard}"
