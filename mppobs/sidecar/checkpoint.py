"""
Checkpoint files: the state of running jobs as named parts of bytes, whole or not at all.

They lie beside the database and not in it: a part may be of hundreds of megabytes, which SQLite would write twice.
A file is complete and on disk before the database names it, with its size and checksum.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

SUFFIX: Final = ".checkpoint"

_PART: Final = struct.Struct("<HQ")
"""Before each part: the length of its name, and of its data."""


class CheckpointFile(NamedTuple):
    """What the database says of a checkpoint file."""

    name: str
    size: int
    checksum: int
    """CRC-32 of the whole file."""


class CheckpointFiles:
    """The directory of checkpoint files. Not for several threads at once."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def write(self, number: int, parts: Mapping[str, bytes]) -> CheckpointFile:
        """Write the parts as one file and return its description. Raises `OSError`; then there is no such file."""
        path = self._directory / f"{number:016d}{SUFFIX}"
        temporary = path.with_suffix(".partial")
        checksum = 0
        try:
            with temporary.open("wb") as out:
                for piece in _pieces(parts):
                    checksum = zlib.crc32(piece, checksum)
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
                size = out.tell()
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
        if len(data) != file.size or zlib.crc32(data) != file.checksum:
            raise ValueError(f"checkpoint {path} is not as it was written")
        return dict(_parts(memoryview(data)))

    def keep_only(self, name: str) -> None:
        """Remove every checkpoint but one, and what a killed process left half written."""
        for path in self._directory.iterdir():
            if path.name != name and path.suffix in (SUFFIX, ".partial"):
                path.unlink(missing_ok=True)


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


def _parts(data: memoryview) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(data):
        label, length = _PART.unpack_from(data, at)
        at += _PART.size
        yield bytes(data[at : at + label]).decode(), bytes(data[at + label : at + label + length])
        at += label + length
