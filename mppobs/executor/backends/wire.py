"""
Messages between the coordinator and one worker process: pickled objects over a private pair of pipes.

Only a process and the child that it started itself ever share such a pipe. There are no locks and no queues in common:
a worker that is killed at any instant can harm no pipe but its own.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator
from typing import Any, Final

_LENGTH: Final = struct.Struct("<I")
_READ_BYTES: Final = 1 << 20


def frame(message: object) -> bytes:
    """Return a message as it travels: its length, then itself."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class Inbox:
    """
    The reading end of a pipe.

    >>> inbox = Inbox(-1)
    >>> list(inbox.take(frame("a") + frame("b")[:5])), list(inbox.take(frame("b")[5:]))
    (['a'], ['b'])
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.closed = False
        """Whether the other end is closed and everything has been read."""
        self.drained = False
        """Whether the last read found nothing more; only where the handle is set not to wait."""
        self._buffer = bytearray()

    def read(self) -> Iterator[Any]:
        """Yield the messages that are complete after one read, which waits unless the handle is set not to."""
        try:
            data = os.read(self.handle, _READ_BYTES)
        except BlockingIOError:
            self.drained = True
            return
        self.drained = False
        self.closed = not data
        yield from self.take(data)

    def take(self, data: bytes) -> Iterator[Any]:
        """Yield the messages that are complete with this data."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            end = start + _LENGTH.size + _LENGTH.unpack_from(buffer, start)[0]
            if len(buffer) < end:
                break
            message = pickle.loads(memoryview(buffer)[start + _LENGTH.size : end])
            start = end
            yield message
        del buffer[:start]


class Outbox:
    """The writing end of a pipe that must never wait: what does not fit is kept and written later."""

    def __init__(self, handle: int) -> None:
        os.set_blocking(handle, False)
        self.handle = handle
        self._waiting = bytearray()

    def put(self, data: bytes) -> None:
        """Keep some frames until `flush`."""
        self._waiting += data

    def flush(self) -> bool:
        """Write what waits; return whether all is written. What a closed pipe does not take is forgotten."""
        waiting = self._waiting
        while waiting:
            try:
                written = os.write(self.handle, waiting)
            except BlockingIOError:
                return False
            except BrokenPipeError:
                # Its process is dead or dying, which its sentinel tells, and its attempts with it.
                waiting.clear()
                break
            del waiting[:written]
        return True


def write_all(handle: int, data: bytes) -> None:
    """Write everything to a pipe, waiting for room. Raises `BrokenPipeError` when nobody reads any more."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
