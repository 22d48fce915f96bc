"""The sketch: its error, the laws of merging, its window, and its bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.errors import JournalError
from mppobs.sidecar.sketch import BUCKETS, WindowedSketch, bucket_of, value_of

SLICE = 600 * 10**9
DURATIONS = st.lists(st.integers(1, 10**17), min_size=1, max_size=200)


def _exact(values: list[int], q: float) -> float:
    return sorted(values)[max(1, math.ceil(q * len(values))) - 1] / 1e9


@settings(deadline=None)
@given(DURATIONS, st.floats(0, 1))
def test_every_quantile_is_within_one_percent(values: list[int], q: float) -> None:
    """Whatever the values, the quantile is at most 1 % from the exact one."""
    sketch = WindowedSketch()
    sketch.add(np.array(values), 0)
    found = sketch.quantile(q, 0)
    assert found is not None
    assert abs(found / _exact(values, q) - 1) <= 0.01


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), DURATIONS), min_size=1, max_size=8), st.randoms())
def test_merging_is_the_same_as_adding_to_one(parts: list[tuple[int, list[int]]], rng: object) -> None:
    """Workers that each keep their own and merge in any order tell what one that saw everything tells."""
    parts = sorted(parts, key=lambda part: part[0])
    whole = WindowedSketch()
    for slot, values in parts:
        whole.add(np.array(values), slot * SLICE)
    pieces = []
    for slot, values in parts:
        piece = WindowedSketch()
        piece.add(np.array(values), slot * SLICE)
        pieces.append(piece)
    rng.shuffle(pieces)  # type: ignore[attr-defined]
    merged = WindowedSketch()
    for piece in pieces:
        merged.merge(WindowedSketch.from_bytes(piece.to_bytes()))
    now = parts[-1][0] * SLICE
    assert merged.count(now) == whole.count(now)
    assert merged.quantiles((0.1, 0.5, 0.99), now) == whole.quantiles((0.1, 0.5, 0.99), now)


def test_what_is_older_than_the_window_goes_away() -> None:
    """Values count for at least 50 and at most 60 minutes, whether or not new ones come."""
    sketch = WindowedSketch()
    sketch.add(np.array([10**9]), 0)
    assert sketch.count(6 * SLICE - 1) == 1
    assert sketch.count(6 * SLICE) == 0
    sketch.add(np.array([10**9]), 7 * SLICE)
    assert sketch.count(7 * SLICE) == 1


def test_time_that_runs_back_goes_to_the_newest_slice() -> None:
    """A clock that was set back loses nothing."""
    sketch = WindowedSketch()
    sketch.add(np.array([10**9]), 5 * SLICE)
    sketch.add(np.array([10**9]), 0)
    assert sketch.count(5 * SLICE) == 2


@settings(deadline=None)
@given(DURATIONS, DURATIONS)
def test_bytes_bring_it_back(first: list[int], second: list[int]) -> None:
    """What is packed and unpacked is equal, and goes on the same."""
    sketch = WindowedSketch()
    sketch.add(np.array(first), 0)
    sketch.add(np.array(second), SLICE)
    again = WindowedSketch.from_bytes(sketch.to_bytes())
    assert again == sketch
    sketch.add(np.array(first), 2 * SLICE)
    again.add(np.array(first), 2 * SLICE)
    assert again == sketch


def test_counts_of_any_size_survive() -> None:
    """Counts take as many bytes as they need."""
    sketch = WindowedSketch()
    for power in (3, 9, 18):
        sketch.add(np.full(2**power, 10**power), 0)
    assert WindowedSketch.from_bytes(sketch.to_bytes()).count(0) == 2**3 + 2**9 + 2**18


@pytest.mark.parametrize("data", [b"", b"nonsense", b"WS1\x00", b"WS1" + bytes(11), b"WS1" + b"\xff" * 30])
def test_other_bytes_are_refused(data: bytes) -> None:
    """Bytes that no sketch packed raise."""
    with pytest.raises(JournalError):
        WindowedSketch.from_bytes(data)


def test_extreme_values_have_a_bucket() -> None:
    """Nothing and ages alike are counted somewhere."""
    assert bucket_of(np.array([-5, 0, 1, 2**62])).tolist() == [0, 0, 0, BUCKETS - 1]
    assert value_of(BUCKETS - 1) > 10 * 365 * 86_400


def test_an_empty_sketch_has_no_quantile() -> None:
    """No data is not 0."""
    assert WindowedSketch().quantile(0.5, 0) is None
    assert WindowedSketch().quantiles((0.5, 0.9), 0) == [None, None]
    assert WindowedSketch.from_bytes(WindowedSketch().to_bytes()) == WindowedSketch()
