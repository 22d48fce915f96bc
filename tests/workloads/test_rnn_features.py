"""Features from the executor's stages are those of one query, to the last bit, however the work was cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mppobs.executor.plan import Plan
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import WrongAnswerError
from mppobs.workloads.data import Dataset, make_dataset, parts_of
from mppobs.workloads.rnn_features import (
    FEATURES,
    STEPS,
    arrays_of,
    expected_features,
    make_sequences,
    normalise,
    prepare_stages,
    standardised,
)
from tests.workloads.conftest import SCALE
from tests.workloads.serial import run_serially


@pytest.fixture
def dataset(tables: Path) -> Dataset:
    """Return the tables."""
    return make_dataset(tables, SCALE, parts_of(SCALE))


@pytest.mark.parametrize(("shards", "parts"), [(1, 1), (8, 1), (4, 2)])
def test_features_are_those_of_one_query(dataset: Dataset, shards: int, parts: int) -> None:
    """Inputs and targets equal DuckDB's, sequence by sequence, in any cut of the data, also where shards are split."""
    inputs, targets = arrays_of(run_serially(Plan("features", prepare_stages(dataset, shards)), parts))
    expected = expected_features(dataset)

    np.testing.assert_array_equal(inputs, expected[0])
    np.testing.assert_array_equal(targets, expected[1])
    assert inputs.shape[1:] == (STEPS, FEATURES)
    assert len(inputs) > 500


def test_features_are_centred_and_scaled() -> None:
    """Each feature has mean 0 and deviation 1 over inputs and targets together; one that is constant becomes 0."""
    values = np.random.default_rng(1).integers(-50, 5000, (40, STEPS + 1, FEATURES))
    values[:, :, 1] = 7
    inputs, targets = standardised(values)
    prices = np.concatenate([inputs[:, :, 0].ravel(), targets])

    assert prices.mean() == pytest.approx(0, abs=1e-12)
    assert prices.std() == pytest.approx(1)
    assert (inputs[:, :, 1] == 0).all()


def test_data_that_is_too_small_is_told() -> None:
    """Customers with too few orders have no sequence; where none has enough the job says so, and what to do."""
    orders = pa.table({
        name: pa.array([1, 2, 3, 4, 5, 6], pa.int64())
        for name in ("o_orderkey", "o_custkey", "day", "price", "lines", "discount")
    })  # fmt: skip
    sequences = make_sequences(TaskInput("j", "sequences", 0, 0, {}, lambda stage: iter([orders])))

    assert (
        sequences.num_rows == make_sequences(TaskInput("j", "s", 0, 0, {}, lambda _: iter([orders[:0]]))).num_rows == 0
    )
    with pytest.raises(WrongAnswerError, match="take a larger scale"):
        normalise(TaskInput("j", "features", 0, 0, {}, lambda stage: iter([sequences])))


def test_the_last_orders_count_and_the_first_gap_looks_before_them() -> None:
    """A customer of eight orders gives the last seven, in time, each with the days since the one before."""
    days = [10, 11, 13, 16, 20, 25, 31, 38]
    columns = {"o_orderkey": range(8), "o_custkey": [5] * 8, "day": days, "price": range(100, 108)}
    orders = pa.table(
        {**{name: list(column) for name, column in columns.items()}, "discount": [3] * 8, "lines": [2] * 8}
    )
    shuffled = orders.take(pa.array([5, 0, 7, 2, 1, 6, 3, 4]))
    found = make_sequences(TaskInput("j", "sequences", 0, 0, {}, lambda stage: iter([shuffled])))

    assert found.to_pylist() == [
        {"o_custkey": 5, "values": [n for i in range(1, 8) for n in (100 + i, 2, 3, days[i] - days[i - 1])]}
    ]
