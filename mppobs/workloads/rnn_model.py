"""
A small recurrent network and its gradient by backpropagation through time, in plain numpy.

    h(t) = tanh(x(t)·A + h(t−1)·B + c)        prediction = h(T)·d + e        loss = Σ (prediction − target)²

Its weights are one flat vector, so that a gradient is what an exchange of vectors can carry. Losses and gradients are
sums over sequences and not means: sums of parts add up to the sum of the whole, whoever computed the parts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_INITIAL_DEVIATION: Final = 0.2
"""Small enough for tanh to be far from its ends, where gradients vanish."""


class Shape(NamedTuple):
    """How large the network is."""

    features: int
    hidden: int

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return self.features * self.hidden + self.hidden * self.hidden + 2 * self.hidden + 1


class _Parts(NamedTuple):
    """A flat vector seen as the parts of the network: views, so writing to a part writes to the vector."""

    inputs: Floats
    recurrent: Floats
    bias: Floats
    out: Floats
    offset: Floats


def initial_weights(shape: Shape, seed: int) -> Floats:
    """Return the weights that training begins with: the same for the same seed."""
    return np.random.default_rng(seed).normal(0.0, _INITIAL_DEVIATION, shape.size)


def loss_and_gradient(shape: Shape, weights: Floats, inputs: Floats, targets: Floats) -> tuple[float, Floats]:
    """
    Return the summed loss over sequences and its gradient. `inputs` is (sequence, step, feature); it may be empty.

    >>> shape = Shape(features=1, hidden=1)
    >>> loss, gradient = loss_and_gradient(shape, np.zeros(5), np.ones((2, 3, 1)), np.array([1.0, 2.0]))
    >>> loss, gradient.tolist()
    (5.0, [0.0, 0.0, 0.0, 0.0, -6.0])
    """
    parts = _parts(shape, weights)
    states = _states(parts, inputs, shape.hidden)
    error = states[-1] @ parts.out + parts.offset[0] - targets
    gradient = np.zeros(shape.size)
    into = _parts(shape, gradient)
    into.out[:] = 2.0 * states[-1].T @ error
    into.offset[0] = 2.0 * error.sum()
    back = 2.0 * np.outer(error, parts.out)
    for step in range(inputs.shape[1] - 1, -1, -1):
        back = back * (1.0 - states[step + 1] ** 2)
        into.inputs[:] += inputs[:, step].T @ back
        into.recurrent[:] += states[step].T @ back
        into.bias[:] += back.sum(axis=0)
        back = back @ parts.recurrent.T
    return float(error @ error), gradient


def batch_rows(step: int, batch: int, sequences: int) -> npt.NDArray[np.int64]:
    """
    Return which sequences a step learns from: the next ones, over and over.

    >>> batch_rows(1, 4, 6).tolist()
    [4, 5, 0, 1]
    """
    return (step * batch + np.arange(batch)) % sequences


def train_alone(
    shape: Shape, inputs: Floats, targets: Floats, *, steps: int, batch: int, rate: float, seed: int
) -> tuple[Floats, list[float], Floats]:
    """Return final weights, mean loss of each step and the first mean gradient, of training in this one process."""
    weights = initial_weights(shape, seed)
    losses: list[float] = []
    first = np.zeros(shape.size)
    for step in range(steps):
        rows = batch_rows(step, batch, len(inputs))
        loss, gradient = loss_and_gradient(shape, weights, inputs[rows], targets[rows])
        first = gradient / batch if step == 0 else first
        weights = weights - rate * (gradient / batch)
        losses.append(loss / batch)
    return weights, losses, first


def _states(parts: _Parts, inputs: Floats, hidden: int) -> list[Floats]:
    """Return the hidden states, the one before the first step included."""
    states = [np.zeros((len(inputs), hidden))]
    for step in range(inputs.shape[1]):
        states.append(np.tanh(inputs[:, step] @ parts.inputs + states[-1] @ parts.recurrent + parts.bias))
    return states


def _parts(shape: Shape, vector: Floats) -> _Parts:
    features, hidden = shape
    ends = np.cumsum([features * hidden, hidden * hidden, hidden, hidden, 1])
    inputs, recurrent, bias, out, offset = np.split(vector, ends[:-1])
    return _Parts(inputs.reshape(features, hidden), recurrent.reshape(hidden, hidden), bias, out, offset)
