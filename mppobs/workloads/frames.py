"""
Vectors over a socket: what training processes send each other. Numbers only, nothing that could be run.

A frame is a header of 28 bytes and the vector's 64-bit floats. What it says of itself is held against what the receiver
expects at this moment: step, kind, length and checksum; anything else ends the exchange.
"""

from __future__ import annotations

import hmac
import select
import socket
import struct
import zlib
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mppobs.errors import MppobsError

Floats = npt.NDArray[np.float64]

_HEADER: Final = struct.Struct("<4sIQQI")
"""Magic, kind, step, bytes, checksum."""
_MAGIC: Final = b"MPPV"
_HELLO: Final = struct.Struct("<32sI")
TIMEOUT: Final = 30.0
"""Seconds of silence after which a peer counts as gone. A step takes milliseconds."""


class BrokenExchangeError(MppobsError, ConnectionError):
    """Raised when a peer is gone, or sends what is not expected: the platform's fault, reason `network`."""


class Frame(NamedTuple):
    """What a frame is for; both ends must mean the same."""

    kind: int
    step: int


def listen() -> socket.socket:
    """Return a socket that other processes of this machine can connect to, and no one else."""
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    server.settimeout(TIMEOUT)
    return server


def greet(port: int, token: bytes, rank: int) -> socket.socket:
    """Connect to a process of this machine and say who this is. Raises `BrokenExchangeError`."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    except OSError as error:
        raise BrokenExchangeError(f"no connection to port {port}: {error}") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_HELLO.pack(token, rank))
    return connection


def welcome(server: socket.socket, token: bytes, ranks: int) -> dict[int, socket.socket]:
    """
    Return a connection from each of the ranks below `ranks`.

    Whoever does not know the token is turned away. Raises `BrokenExchangeError` where one does not come in time.
    """
    found: dict[int, socket.socket] = {}
    while len(found) < ranks:
        try:
            connection, _ = server.accept()
        except TimeoutError as error:
            raise BrokenExchangeError(f"{ranks - len(found)} of {ranks} peers did not connect") from error
        connection.settimeout(TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said, rank = _HELLO.unpack(receive_exactly(connection, _HELLO.size))
        if not hmac.compare_digest(said, token) or rank >= ranks or rank in found:
            connection.close()
            continue
        found[rank] = connection
    return found


def encode(frame: Frame, vector: Floats) -> bytes:
    """Return a vector as the bytes of a frame."""
    data = np.ascontiguousarray(vector, "<f8").tobytes()
    return _HEADER.pack(_MAGIC, frame.kind, frame.step, len(data), zlib.crc32(data)) + data


def decode(data: bytes, frame: Frame, length: int) -> Floats:
    """Return the vector of a frame that must be this one and so long. Raises `BrokenExchangeError`."""
    magic, kind, step, size, checksum = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if (magic, kind, step, size) != (_MAGIC, frame.kind, frame.step, length * 8):
        raise BrokenExchangeError(f"expected {length} numbers of {frame}, got {size} bytes of kind {kind}, step {step}")
    if len(body) != size or zlib.crc32(body) != checksum:
        raise BrokenExchangeError(f"{frame}: {len(body)} bytes are not the {size} that were sent")
    return np.frombuffer(body, "<f8").astype(np.float64)


def frame_bytes(length: int) -> int:
    """Return how many bytes the frame of a vector of this length takes."""
    return _HEADER.size + length * 8


def send(connection: socket.socket, frame: Frame, vector: Floats) -> int:
    """Send a vector; return the bytes that it took. Raises `BrokenExchangeError`."""
    data = encode(frame, vector)
    try:
        connection.sendall(data)
    except OSError as error:
        raise BrokenExchangeError(f"{frame} could not be sent: {error}") from error
    return len(data)


def receive(connection: socket.socket, frame: Frame, length: int) -> Floats:
    """Return the vector that must come next. Raises `BrokenExchangeError`."""
    return decode(receive_exactly(connection, frame_bytes(length)), frame, length)


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes. Raises `BrokenExchangeError` where they do not come."""
    data = bytearray()
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except OSError as error:
            raise BrokenExchangeError(f"{size - len(data)} of {size} bytes did not come: {error}") from error
        if not piece:
            raise BrokenExchangeError(f"the peer is gone: {size - len(data)} of {size} bytes did not come")
        data += piece
    return bytes(data)


def swap(right: socket.socket, left: socket.socket, frame: Frame, vector: Floats, length: int) -> tuple[Floats, int]:
    """
    Send a vector to one peer while one of the given length comes from another; return it and the bytes sent.

    Both at once: in a ring where all send first, all would wait for each other once a vector fills a socket's buffer.
    Raises `BrokenExchangeError`.
    """
    out = memoryview(encode(frame, vector))
    sent, wanted = 0, frame_bytes(length)
    got = bytearray()
    while sent < len(out) or len(got) < wanted:
        ready = select.select([left] if len(got) < wanted else [], [right] if sent < len(out) else [], [], TIMEOUT)
        if not (ready[0] or ready[1]):
            raise BrokenExchangeError(f"{frame}: nothing moved for {TIMEOUT:g} s")
        try:
            if ready[1]:
                sent += right.send(out[sent : sent + (1 << 16)], socket.MSG_DONTWAIT)
            piece = left.recv(wanted - len(got), socket.MSG_DONTWAIT) if ready[0] else None
        except BlockingIOError:  # what was ready is no more: ask again
            continue
        except OSError as error:
            raise BrokenExchangeError(f"{frame}: {error}") from error
        if piece == b"":
            raise BrokenExchangeError(f"{frame}: the peer is gone")
        got += piece or b""
    return decode(bytes(got), frame, length), len(out)
