"""
Two ways to add up gradients over processes, each with what it is known for.

- **Ring all-reduce:** every rank sends a share of its vector to the next and adds what comes from the one before, until
  each share has been round; then the sums go round. Each rank sends 2 × (n − 1) ÷ n of the vector, however many ranks
  there are; but a step is as slow as the slowest of them, and one that dies stops all.
- **Parameter server:** servers hold the weights, each a slice. Workers push gradients and pull weights. The work of a
  server grows with the number of workers, all of which call it at the same moment.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from mppobs.workloads.frames import Floats, Frame, frame_bytes, receive, send, swap

_SCATTER: Final = 1
_GATHER: Final = 2
_PUSH: Final = 3
_PULL: Final = 4


class Exchange(Protocol):
    """How a rank gets from its own gradient to the weights that follow from everybody's."""

    sent: int
    """Bytes sent so far."""
    received: int
    """Bytes received so far."""

    def step(self, step: int, weights: Floats, gradient: Floats, loss: float) -> tuple[Floats, float]:
        """Return the new weights and the loss, summed over all ranks. Raises `BrokenExchangeError`."""
        ...


def all_reduce(
    rank: int, ranks: int, right: socket.socket, left: socket.socket, step: int, vector: Floats
) -> tuple[Floats, int]:
    """
    Return the sum of the vectors of all ranks, the same bits on each of them, and how many bytes were sent.

    `right` leads to the next rank and `left` to the one before. Raises `BrokenExchangeError`.
    """
    shares = [np.array(share) for share in np.array_split(vector, ranks)]
    total = 0
    for turn in range(ranks - 1):
        own, other = (rank - turn) % ranks, (rank - turn - 1) % ranks
        came, size = swap(right, left, Frame(_SCATTER, step), shares[own], len(shares[other]))
        shares[other] = shares[other] + came
        total += size
    for turn in range(ranks - 1):
        own, other = (rank + 1 - turn) % ranks, (rank - turn) % ranks
        shares[other], size = swap(right, left, Frame(_GATHER, step), shares[own], len(shares[other]))
        total += size
    return np.concatenate(shares), total


class Ring:
    """Gradients by ring all-reduce; every rank then takes the same step by itself."""

    def __init__(self, rank: int, ranks: int, right: socket.socket, left: socket.socket, rate: float) -> None:
        """Take part as `rank`; `rate` is the learning rate over the number of sequences of a step."""
        self.sent = self.received = 0
        self._rank, self._ranks, self._right, self._left, self._rate = rank, ranks, right, left, rate

    def step(self, step: int, weights: Floats, gradient: Floats, loss: float) -> tuple[Floats, float]:
        """Return the new weights and the loss, summed over all ranks. Raises `BrokenExchangeError`."""
        vector = np.append(gradient, loss)
        total, size = all_reduce(self._rank, self._ranks, self._right, self._left, step, vector)
        self.sent += size
        self.received += size
        return weights - self._rate * total[:-1], float(total[-1])


class Pushing:
    """Gradients by parameter servers, each with a slice of the weights and the last also with the loss."""

    def __init__(self, servers: Sequence[socket.socket]) -> None:
        """Take part through a connection to each server, in the order of their slices."""
        self.sent = self.received = 0
        self._servers = servers

    def step(self, step: int, weights: Floats, gradient: Floats, loss: float) -> tuple[Floats, float]:
        """Return the new weights and the loss, summed over all ranks. Raises `BrokenExchangeError`."""
        slices = np.array_split(np.append(gradient, loss), len(self._servers))
        for server, part in zip(self._servers, slices, strict=True):
            self.sent += send(server, Frame(_PUSH, step), part)
        pulled = [
            receive(server, Frame(_PULL, step), len(part)) for server, part in zip(self._servers, slices, strict=True)
        ]
        self.received += sum(frame_bytes(len(part)) for part in pulled)
        whole = np.concatenate(pulled)
        return whole[: len(weights)], float(whole[-1])


class ParameterServer:
    """One server: its slice of the weights, and the workers that push to it."""

    def __init__(self, workers: Mapping[int, socket.socket], weights: Floats, rate: float, extra: int) -> None:
        """Serve these weights. `extra` numbers come after them in what is pushed, and are only added up."""
        self._workers = workers
        self._weights = weights
        self._rate = rate
        self._extra = extra

    def serve(self, step: int) -> int:
        """
        Add up what the workers push in one step, in the order of their ranks, take the step, and give each the result.

        Returns the bytes received, which are as many as those sent. Raises `BrokenExchangeError`.
        """
        length = len(self._weights) + self._extra
        total = np.zeros(length)
        for rank in sorted(self._workers):
            total = total + receive(self._workers[rank], Frame(_PUSH, step), length)
        self._weights = self._weights - self._rate * total[: len(self._weights)]
        answer = np.concatenate([self._weights, total[len(self._weights) :]])
        for rank in sorted(self._workers):
            send(self._workers[rank], Frame(_PULL, step), answer)
        return frame_bytes(length) * len(self._workers)


def slice_of(weights: Floats, server: int, servers: int) -> tuple[Floats, int]:
    """
    Return the weights that a server holds, and how many numbers beside weights are pushed to it.

    >>> [(part.tolist(), extra) for part, extra in (slice_of(np.arange(4.0), server, 2) for server in range(2))]
    [([0.0, 1.0, 2.0], 0), ([3.0], 1)]
    """
    whole = np.array_split(np.append(weights, 0.0), servers)[server]
    extra = int(server == servers - 1)
    return whole[: len(whole) - extra], extra
