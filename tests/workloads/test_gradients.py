"""Sums of gradients over sockets are the sums, and anything else on the wire ends the exchange in words."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest

from mppobs.workloads.frames import (
    BrokenExchangeError,
    Frame,
    decode,
    encode,
    frame_bytes,
    greet,
    listen,
    receive,
    send,
    swap,
    welcome,
)
from mppobs.workloads.gradients import ParameterServer, Pushing, Ring, all_reduce, slice_of

FRAME = Frame(1, 7)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two ends of a connection."""
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(5)
        right.settimeout(5)
        yield left, right


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return what the calls return, all made at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [each.result(timeout=30) for each in [pool.submit(call) for call in calls]]


def ring_of(ranks: int, stack: ExitStack) -> list[tuple[socket.socket, socket.socket]]:
    """Return for each rank its connection to the next and to the one before."""
    pairs = [socket.socketpair() for _ in range(ranks)]
    for ends in pairs:
        for end in ends:
            stack.enter_context(end)
    return [(pairs[rank][0], pairs[rank - 1][1]) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 4, 1000])
def test_all_ranks_of_a_ring_get_the_sum(ranks: int, length: int) -> None:
    """The same bits on every rank, equal to the sum but for rounding, also where there are more ranks than numbers."""
    vectors = np.random.default_rng(ranks).normal(size=(ranks, length))
    with ExitStack() as stack:
        ends = ring_of(ranks, stack)
        calls = [
            lambda rank=rank: all_reduce(rank, ranks, *ends[rank], 0, vectors[rank])  # type: ignore[misc]
            for rank in range(ranks)
        ]
        found = together(calls)

    for summed, sent in found:
        np.testing.assert_array_equal(summed, found[0][0])
        np.testing.assert_allclose(summed, vectors.sum(axis=0), rtol=1e-12, atol=1e-12)
        assert sent == pytest.approx(2 * (ranks - 1) / ranks * length * 8, abs=2 * ranks * (frame_bytes(0) + 8))


def test_vectors_that_no_buffer_holds_do_not_block_the_ring() -> None:
    """Each rank sends a share far beyond a socket's buffer, and none waits for another to read first."""
    with ExitStack() as stack:
        ends = ring_of(2, stack)
        vector = np.ones(1_000_000)
        found = together([lambda rank=rank: all_reduce(rank, 2, *ends[rank], 0, vector) for rank in range(2)])  # type: ignore[misc]

    assert all((summed == 2.0).all() for summed, _ in found)


@pytest.mark.parametrize("servers", [1, 2, 4])
def test_parameter_servers_take_the_step_that_a_ring_takes(servers: int) -> None:
    """Both give all ranks the same weights and the summed loss, whatever the number of servers."""
    ranks, weights = 3, np.arange(5.0)
    gradients = np.random.default_rng(1).normal(size=(ranks, 5))
    with ExitStack() as stack:
        ends = ring_of(ranks, stack)
        rings = [Ring(rank, ranks, *ends[rank], rate=0.1) for rank in range(ranks)]
        lines = [[socket.socketpair() for _ in range(servers)] for _ in range(ranks)]
        for line in lines:
            for pair in line:
                for end in pair:
                    stack.enter_context(end)
        pushers = [Pushing([pair[0] for pair in line]) for line in lines]
        served = []
        for server in range(servers):
            part, extra = slice_of(weights, server, servers)
            served.append(ParameterServer({rank: lines[rank][server][1] for rank in range(ranks)}, part, 0.1, extra))
        calls: list[Callable[[], Any]] = [
            lambda by=by, rank=rank: by.step(0, weights, gradients[rank], rank + 1.0)  # type: ignore[misc]
            for exchange in (rings, pushers)
            for rank, by in enumerate(exchange)
        ]
        found = together([*calls, *[lambda server=server: server.serve(0) for server in served]])  # type: ignore[misc]

    for after, loss in found[: 2 * ranks]:
        np.testing.assert_allclose(after, weights - 0.1 * gradients.sum(axis=0), rtol=1e-12)
        assert loss == pytest.approx(6.0)
    assert sum(found[2 * ranks :]) == sum(each.sent for each in pushers) == sum(each.received for each in pushers)


def test_a_vector_arrives_as_it_was_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    """Every bit, not-a-numbers and infinities included, and the bytes are as announced."""
    vector = np.array([0.1, -0.0, np.inf, np.nan, 5e-324])

    assert send(pair[0], FRAME, vector) == frame_bytes(5)
    np.testing.assert_array_equal(receive(pair[1], FRAME, 5).view(np.uint64), vector.view(np.uint64))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: b"HTTP" + data[4:], "expected 3 numbers"),
        (lambda data: data[:8] + struct.pack("<Q", 8) + data[16:], "expected 3 numbers of .*, got 24 bytes .* step 8"),
        (lambda data: data[:4] + struct.pack("<I", 2) + data[8:], "of kind 2"),
        (lambda data: data[:16] + struct.pack("<Q", 1 << 40) + data[24:], "expected 3 numbers"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "are not the 24 that were sent"),
    ],
    ids=["magic", "step", "kind", "length", "data"],
)
def test_what_is_not_expected_ends_the_exchange(damage: Callable[[bytes], bytes], told: str) -> None:
    """A frame of another protocol, step, kind or length, or with a bit that flipped, is refused and never used."""
    with pytest.raises(BrokenExchangeError, match=told):
        decode(damage(encode(FRAME, np.ones(3))), FRAME, 3)


def test_a_peer_that_is_gone_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Half a frame and then the end is an error that says how much is missing."""
    pair[0].sendall(encode(FRAME, np.ones(3))[:30])
    pair[0].close()
    with pytest.raises(BrokenExchangeError, match="22 of 52 bytes did not come"):
        receive(pair[1], FRAME, 3)


def test_strangers_are_turned_away() -> None:
    """Who does not know the token, or claims a rank that cannot be, gets no connection, and the others still do."""
    token, wrong = secrets.token_bytes(32), secrets.token_bytes(32)
    with listen() as server, ExitStack() as stack:
        port = server.getsockname()[1]
        sent = [
            stack.enter_context(greet(port, said, rank))
            for said, rank in ((wrong, 0), (token, 9), (token, 1), (token, 1), (token, 0))
        ]
        found = welcome(server, token, 2)
        for connection in found.values():
            stack.enter_context(connection)
        for number, connection in enumerate(sent):
            with suppress(OSError):  # those that were turned away
                connection.sendall(bytes([number]))

        assert {rank: connection.recv(1)[0] for rank, connection in found.items()} == {0: 4, 1: 2}


def test_a_peer_that_never_was_is_told() -> None:
    """No one behind a port is an error that names it, and one who does not come in time is counted."""
    with listen() as server:
        port = server.getsockname()[1]
        server.settimeout(0.01)
        with pytest.raises(BrokenExchangeError, match="1 of 1 peers did not connect"):
            welcome(server, b"0" * 32, 1)
    with pytest.raises(BrokenExchangeError, match=f"no connection to port {port}"):
        greet(port, b"0" * 32, 0)


def test_a_neighbour_that_dies_ends_the_ring(pair: tuple[socket.socket, socket.socket]) -> None:
    """Who is in the middle of an exchange with a rank that is gone notices, whichever side it is on."""
    right, left = pair
    other, end = socket.socketpair()
    with other, end:
        end.close()
        with pytest.raises(BrokenExchangeError, match=r"the peer is gone|Broken pipe"):
            swap(right, other, FRAME, np.ones(3), 3)
    left.close()
    with pytest.raises(BrokenExchangeError, match="could not be sent"):
        send(right, FRAME, np.ones(3))
