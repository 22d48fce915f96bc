"""
Checkpoint files: the state of running jobs as named parts of bytes, whole or not at all.

They lie beside the database and not in it: a part may be of hundreds of megabytes, which SQLite would write twice.
A file is complete and on disk before the database names it, with its size and checksum.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

SUFFIX: Final = ".checkpoint"

_PART: Final = struct.Struct("<HQ")
"""Before each part: the length of its name, and of its data."""


class CheckpointFile(NamedTuple):
    """What the database says of a checkpoint file."""

    name: str
    size: int
    checksum: int
    """Of the whole file: see `checksum_of`."""


class CheckpointFiles:
    """The directory of checkpoint files. Not for several threads at once."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def write(self, number: int, parts: Mapping[str, bytes]) -> CheckpointFile:
        """Write the parts as one file and return its description. Raises `OSError`; then there is no such file."""
        path = self._directory / f"{number:016d}{SUFFIX}"
        temporary = path.with_suffix(".partial")
        checksum = size = 0
        try:
            with temporary.open("wb", buffering=0) as out:
                for piece in _pieces(parts):
                    checksum = checksum_of(piece, checksum)
                    size += write_all(out, piece)
                os.fsync(out.fileno())
            temporary.replace(path)
            sync_directory(self._directory)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return CheckpointFile(path.name, size, checksum)

    def read(self, file: CheckpointFile) -> dict[str, bytes]:
        """Return the parts of a file. Raises `ValueError` where it is missing or not as it was written."""
        path = self._directory / file.name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"checkpoint {path} cannot be read: {error}") from error
        if len(data) != file.size:
            raise ValueError(f"checkpoint {path} has {len(data)} bytes of {file.size}")
        parts, checksum = {}, 0
        for head, name, part in _parts(memoryview(data)):
            checksum = checksum_of(part, checksum_of(head, checksum))
            parts[name] = bytes(part)
        if checksum != file.checksum:
            raise ValueError(f"checkpoint {path} is not as it was written")
        return parts

    def keep_only(self, name: str) -> None:
        """Remove every checkpoint but one, and what a killed process left half written."""
        for path in self._directory.iterdir():
            if path.name != name and path.suffix in (SUFFIX, ".partial"):
                path.unlink(missing_ok=True)


def checksum_of(data: bytes | memoryview, before: int = 0) -> int:
    """
    Return a checksum of bytes that follow others, whose checksum is `before`.

    The sum of 64-bit words, the position of the piece mixed in: every flipped bit shows, and a hundred megabytes
    cost some 10 ms, where a CRC would cost more than the writing.

    >>> checksum_of(b"abcdefgh" * 2) == checksum_of(b"abcdefgh" + b"abcdefgi")
    False
    """
    whole = len(data) // 8 * 8
    words = int(np.frombuffer(data[:whole], "<u8").sum(dtype=np.uint64)) if whole else 0
    rest = int.from_bytes(data[whole:], "little")
    return zlib.crc32(struct.pack("<QQQQ", before, words, rest, len(data)))


def write_all(out: io.FileIO, data: bytes) -> int:
    """Write all of the bytes, however many the system takes at a time, and return how many there were."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]
    return len(data)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable, as `fsync` of a file does for its bytes."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pieces(parts: Mapping[str, bytes]) -> Iterator[bytes]:
    for name, data in parts.items():
        label = name.encode()
        yield _PART.pack(len(label), len(data)) + label
        yield data


def _parts(data: memoryview) -> Iterator[tuple[bytes, str, memoryview]]:
    """Yield the head, the name and the data of each part. Raises `ValueError` where a part ends early."""
    at = 0
    while at < len(data):
        if at + _PART.size > len(data):
            raise ValueError("a checkpoint ends early")
        label, length = _PART.unpack_from(data, at)
        begin = at + _PART.size + label
        if begin + length > len(data):
            raise ValueError("a checkpoint ends early")
        head = bytes(data[at:begin])
        yield head, head[_PART.size :].decode(), data[begin : begin + length]
        at = begin + length
