"""
One process of a training: a worker that computes gradients, or a parameter server. Run by `mppobs.workloads.gang`.

It is told what to do by lines of JSON on its standard input, and says where it stands by lines of JSON on its standard
output. Before each step it waits for a word; when its input ends instead, whoever started it is gone, and it ends too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

import mppobs
from mppobs.workloads.checkpoints import Checkpoint, newest, save
from mppobs.workloads.frames import BrokenExchangeError, Floats, greet, listen, welcome
from mppobs.workloads.gradients import Exchange, ParameterServer, Pushing, Ring, slice_of
from mppobs.workloads.rnn_model import Shape, batch_rows, initial_weights, loss_and_gradient

STEP: Final = "step"
"""The stage of a worker's attempts, one for each step."""
SERVE: Final = "serve"
"""The stage of a server's attempts, one for each step."""
_FAREWELL: Final = 3
"""Exit status of a process that was left alone."""

Say = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Training:
    """What all processes of a training share."""

    directory: str
    """Where features and checkpoints are."""
    steps: int
    batch: int
    rate: float
    features: int
    hidden: int
    seed: int
    every: int
    """Steps from one checkpoint to the next."""
    workers: int
    servers: int
    """0 for a ring."""

    @property
    def shape(self) -> Shape:
        """Return the shape of the network."""
        return Shape(self.features, self.hidden)


@dataclass(frozen=True, slots=True)
class Membership:
    """What one process is told."""

    training: Training
    role: str
    """`worker` or `server`."""
    index: int
    token: str
    """32 bytes as hexadecimal text, which only members know."""
    tries: dict[str, int] = field(default_factory=dict)
    """How often each step was begun before, where it was."""
    kill_step: int = 0
    """The step at whose beginning it dies, once; 0 for none."""

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what a line says."""
        told = json.loads(line)
        return cls(**{**told, "training": Training(**told["training"])})

    def shard(self, step: int) -> int:
        """Return the number of the shard that this process's part of a step is."""
        count = self.training.servers if self.role == "server" else self.training.workers
        return step * count + self.index

    def number(self, step: int) -> int:
        """Return the number of the attempt at a step."""
        return self.tries.get(str(step), 0)


def start_of(training: Training) -> Checkpoint:
    """Return where a training goes on: at its newest checkpoint, or at its beginning."""
    found = newest(Path(training.directory))
    if found is not None:
        return found
    weights = initial_weights(training.shape, training.seed)
    return Checkpoint(0, weights, np.empty(0), np.zeros(training.shape.size))


def main() -> int:
    """Do what standard input says; return the exit status."""
    member = Membership.from_json(sys.stdin.readline())
    with listen() as server:
        _say("port", server.getsockname()[1])
        ports = json.loads(sys.stdin.readline() or "[]")
        if not ports:
            return _FAREWELL
        token = bytes.fromhex(member.token)
        run = _serve if member.role == "server" else _work
        run(member, server, ports, token)
    _say("done", member.training.steps)
    return 0


def _serve(member: Membership, server: socket.socket, ports: list[int], token: bytes) -> None:
    """Be a parameter server for all steps that are left."""
    training, start = member.training, start_of(member.training)
    workers = welcome(server, token, training.workers)
    weights, extra = slice_of(start.weights, member.index, training.servers)
    parameters = ParameterServer(workers, weights, training.rate / training.batch, extra)
    for step in range(start.step, training.steps):
        _begin(step)
        with mppobs.attempt(stage=SERVE, shard=member.shard(step), attempt=member.number(step)) as attempt:
            with attempt.activity("exchange"):
                size = parameters.serve(step)
            attempt.add(shuffle_read=size, shuffle_written=size)


def _work(member: Membership, server: socket.socket, ports: list[int], token: bytes) -> None:
    """Be a worker for all steps that are left."""
    training, state = member.training, start_of(member.training)
    rank = member.index
    # Each rank has its own rows of every batch, so it could hold them alone; the data of a test fits everywhere.
    inputs, targets = _features(Path(training.directory))
    exchange = _exchange(member, server, ports, token)
    for step in range(state.step, training.steps):
        _begin(step)
        with mppobs.attempt(stage=STEP, shard=member.shard(step), attempt=member.number(step)) as attempt:
            if member.kill_step and step == member.kill_step:
                os.kill(os.getpid(), signal.SIGKILL)
            sent, received = exchange.sent, exchange.received
            state = _learn(training, rank, state, inputs, targets, exchange)
            attempt.add(shuffle_written=exchange.sent - sent, shuffle_read=exchange.received - received)
            if rank == 0 and (state.step % training.every == 0 or state.step == training.steps):
                with attempt.activity("checkpoint"):
                    save(Path(training.directory), state)
                attempt.checkpoint()
                _say("checkpoint", state.step)


def _learn(
    training: Training, rank: int, state: Checkpoint, inputs: Floats, targets: Floats, exchange: Exchange
) -> Checkpoint:
    """Return the state after one more step."""
    attempt = mppobs.current()
    with attempt.activity("compute"):
        rows = batch_rows(state.step, training.batch, len(inputs))[rank :: training.workers]
        loss, gradient = loss_and_gradient(training.shape, state.weights, inputs[rows], targets[rows])
    attempt.add(rows=len(rows))
    with attempt.activity("exchange"):
        weights, total = exchange.step(state.step, state.weights, gradient, loss)
    first = (state.weights - weights) / training.rate if state.step == 0 else state.gradient
    return Checkpoint(state.step + 1, weights, np.append(state.losses, total / training.batch), first)


def _exchange(member: Membership, server: socket.socket, ports: list[int], token: bytes) -> Exchange:
    """Connect to the others: to all servers, or to the next rank of the ring."""
    training, rank = member.training, member.index
    if training.servers:
        return Pushing([greet(port, token, rank) for port in ports[training.workers :]])
    right = greet(ports[(rank + 1) % training.workers], token, 0)
    left = welcome(server, token, 1)[0]
    return Ring(rank, training.workers, right, left, training.rate / training.batch)


def _features(directory: Path) -> tuple[Floats, Floats]:
    """Return inputs and targets, as the launcher left them."""
    inputs = np.load(directory / "inputs.npy", allow_pickle=False)
    return inputs, np.load(directory / "targets.npy", allow_pickle=False)


def _say(event: str, step: int) -> None:
    """Tell the launcher."""
    line: dict[str, Any] = {"event": event, "step": step, "at_ns": time.time_ns()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _begin(step: int) -> None:
    """Have the launcher take note that a step begins, so that no attempt has a number that another had."""
    _say("begin", step)
    if not sys.stdin.readline():
        raise BrokenExchangeError("whoever started this training is gone")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenExchangeError:
        # Another process died, whose end says so; this one has only seen that it is gone.
        sys.exit(_FAREWELL)
