"""
A store of objects that throttles each prefix by itself, as S3 and its like do: a directory with a limit of writes.

The limit is a token bucket in a file, under a lock, so it holds over all processes that write.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import Final

import mppobs
from mppobs.executor.task import Throttled

_BUCKET: Final = struct.Struct("<dd")
"""Tokens, and when they were counted."""
_BURST_SECONDS: Final = 0.1
"""How long a prefix that was idle takes more than its rate."""
_TRIES: Final = 6
"""Of one write, before the attempt gives up and leaves it to the scheduler; a storm is no place to insist."""
_LONGEST_WAIT: Final = 0.5


class PrefixStore:
    """Objects by name, `prefix/rest`. A value but for the directory: every process makes its own."""

    def __init__(self, root: Path, writes_per_second: float) -> None:
        """Use a directory, with so many writes a second on each prefix."""
        self._root = root
        self._rate = writes_per_second

    def put(self, name: str, data: bytes) -> None:
        """
        Write an object, whole or not at all; one that is there already is replaced.

        Raises `Throttled`, with the time until there is room, where its prefix has taken too many.
        """
        prefix = name.partition("/")[0]
        wait = self._take(prefix)
        if wait > 0:
            raise Throttled(f"slow down: {prefix}/ takes {self._rate:g} writes a second", retry_after=wait)
        final = self._root / name
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(prefix=".put-", dir=final.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(made).replace(final)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise

    def put_patiently(self, name: str, data: bytes) -> None:
        """Write an object, waiting a few times where the store says so; each time counts as a throttled request."""
        for attempt in range(_TRIES):
            try:
                return self.put(name, data)
            except Throttled as error:
                mppobs.current().add(storage_throttled={name.partition("/")[0]: 1})
                if attempt == _TRIES - 1:
                    raise
                # Half of it is enough on average where others give up too, and doubles while they do not.
                with mppobs.current().activity("throttled"):
                    time.sleep(min(max(error.retry_after, 0.001) * 2**attempt / 2, _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def get(self, name: str) -> bytes:
        """Return an object. Raises `FileNotFoundError`."""
        return (self._root / name).read_bytes()

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all objects below a prefix, in order."""
        found = (path.relative_to(self._root) for path in (self._root / prefix).rglob("[!.]*") if path.is_file())
        return sorted(str(path) for path in found if not str(path).startswith("."))

    def _take(self, prefix: str) -> float:
        """Take a token and return 0, or return how many seconds there will be none."""
        path = self._root / ".limits" / prefix
        path.parent.mkdir(parents=True, exist_ok=True)
        burst = max(1.0, self._rate * _BURST_SECONDS)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            data = os.pread(handle, _BUCKET.size, 0)
            now = time.monotonic()
            tokens, counted = _BUCKET.unpack(data) if len(data) == _BUCKET.size else (burst, now)
            # A clock that begins anew with the machine may be behind what an earlier boot left.
            tokens = min(burst, tokens + max(0.0, now - counted) * self._rate) if counted <= now else burst
            taken = tokens >= 1.0
            os.pwrite(handle, _BUCKET.pack(tokens - taken, now), 0)
        finally:
            os.close(handle)
        return 0.0 if taken else (1.0 - tokens) / self._rate
