"""The network's gradient is that of its loss, and sums over parts of a batch are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from mppobs.workloads.rnn_model import Shape, batch_rows, initial_weights, loss_and_gradient, train_alone

SHAPE = Shape(features=3, hidden=4)


def data(sequences: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    return chance.normal(size=(sequences, 5, 3)), chance.normal(size=sequences)


def test_the_gradient_is_what_small_changes_of_each_weight_say() -> None:
    """Every component equals the central difference of the loss, to what differences are good for."""
    inputs, targets = data(7)
    weights = initial_weights(SHAPE, 3)
    _, gradient = loss_and_gradient(SHAPE, weights, inputs, targets)

    for index in range(SHAPE.size):
        step = np.zeros(SHAPE.size)
        step[index] = 1e-6
        above, below = (loss_and_gradient(SHAPE, weights + way * step, inputs, targets)[0] for way in (1, -1))
        assert gradient[index] == pytest.approx((above - below) / 2e-6, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_parts_add_up_to_the_whole(parts: int) -> None:
    """Losses and gradients of parts sum to those of all, also where a part is empty."""
    inputs, targets = data(7)
    weights = initial_weights(SHAPE, 3)
    loss, gradient = loss_and_gradient(SHAPE, weights, inputs, targets)
    found = [loss_and_gradient(SHAPE, weights, inputs[part::parts], targets[part::parts]) for part in range(parts)]

    assert sum(each[0] for each in found) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(np.sum([each[1] for each in found], axis=0), gradient, rtol=1e-9, atol=1e-12)


def test_training_learns() -> None:
    """What can be learnt is learnt: the loss of a target that follows from the inputs falls by half."""
    inputs, _ = data(64)
    targets = inputs[:, -1, 0] - 0.5 * inputs[:, -2, 1]
    _, losses, first = train_alone(SHAPE, inputs, targets, steps=200, batch=64, rate=0.1, seed=5)

    assert losses[-1] < losses[0] / 2
    assert np.abs(first).max() > 0


def test_batches_go_round_and_shapes_know_their_size() -> None:
    """Steps take the next rows and begin again at the end; a vector has a place for every weight."""
    assert batch_rows(2, 3, 4).tolist() == [2, 3, 0]
    assert Shape(4, 16).size == 4 * 16 + 16 * 16 + 16 + 16 + 1
