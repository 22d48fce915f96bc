"""Shards as columns: the index against a dict, names, and how many bytes a shard takes."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.journal.format import shard_key
from mppobs.sidecar.shard_index import ShardIndex, grown, ranges
from mppobs.sidecar.tables import COLUMNS, ShardTable

KEYS = st.one_of(
    st.integers(0, 50), st.integers(65_000, 66_000), st.integers(0, 2**61 - 1), st.integers(2**61, 2**62 - 1)
)


@settings(deadline=None)
@given(st.lists(st.lists(KEYS, max_size=60), max_size=12), st.sampled_from([0, 10, 70_000]))
def test_the_index_is_a_dict(batches: list[list[int]], planned: int) -> None:
    """Every key gets one row, new ones count on, and what was found once is found again, also after a reload."""
    index, known = ShardIndex(), dict[int, int]()
    index.expect(planned)
    for batch in batches:
        keys = np.array(batch, np.uint64)
        assert index.find(keys).tolist() == [known.get(key, -1) for key in batch]
        rows, missing = index.rows(keys)
        assert missing.tolist() == [place for place, key in enumerate(batch) if key not in known]
        for key, row in zip(batch, rows.tolist(), strict=True):
            assert known.setdefault(key, row) == row
        assert sorted(known.values()) == list(range(index.count))
    assert {int(key): row for row, key in enumerate(index.keys())} == known
    dumped = index.dump()
    again = ShardIndex.load(*(dumped[name] for name in ("keys", "text", "name_rows", "name_ends")))  # type: ignore[arg-type]
    every = np.array(sorted(known), np.uint64)
    assert again.find(every).tolist() == index.find(every).tolist()


def test_names_belong_to_their_rows() -> None:
    """Names are given in any order and found by row and by key."""
    table = ShardTable()
    names = ["b", "", "a longer name", "é"]
    keys = np.array([shard_key(name) for name in names], np.uint64)
    rows, _ = table.rows(keys)
    data = [name.encode() for name in names]
    text = np.frombuffer(b"".join(data), np.uint8)
    table.index.add_names(rows, text, np.array([len(each) for each in data]))
    assert [table.index.name(int(row)) for row in rows] == names
    assert table.name_of(int(keys[2])) == "a longer name"
    assert table.columns().shards()[int(rows[3])] == "é"
    again = ShardTable.load(table.dump())
    assert again.columns().shards() == table.columns().shards()


def test_a_row_twice_is_noticed() -> None:
    """Whatever the order, rows are distinct or not."""
    table = ShardTable()
    table.rows(np.arange(100, dtype=np.uint64))
    assert table.are_distinct(np.array([3, 5, 9]))
    assert table.are_distinct(np.array([9, 3, 5]))
    assert not table.are_distinct(np.array([9, 3, 9]))
    assert not table.are_distinct(np.array([3, 3]))


def _bytes_per_shard(keys: np.ndarray, names: bool) -> float:
    """Return what a table takes per shard once it holds these, in batches, as the fold fills it."""
    gc.collect()
    tracemalloc.start()
    try:
        table = ShardTable()
        table.index.expect(len(keys))
        for batch in np.array_split(keys, 100):
            rows, _ = table.rows(batch)
            if names:
                text = np.full(len(rows) * 22, ord("x"), np.uint8)
                table.index.add_names(rows, text, np.full(len(rows), 22))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / len(keys)
    finally:
        tracemalloc.stop()


def test_a_shard_takes_64_bytes_and_140_with_its_name() -> None:
    """The budget holds for a planned stage; what is allocated and not yet touched is counted here too."""
    rng = np.random.default_rng(1)
    assert _bytes_per_shard(rng.permutation(200_000).astype(np.uint64), names=False) <= 64
    named = np.unique(rng.integers(2**61, 2**62, 200_000, dtype=np.uint64))
    rng.shuffle(named)
    assert _bytes_per_shard(named, names=True) <= 140


def test_the_columns_alone_leave_room_for_the_index() -> None:
    """57 bytes of columns, two of marks, four of index."""
    assert sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values()) + 2 + 4 <= 63


def test_growing_keeps_what_is_there() -> None:
    """A column doubles, or grows to what is expected, and the new part is zero."""
    column = np.arange(100)
    larger = grown(column, 101, expected=500)
    assert len(larger) == 500
    assert larger[:100].tolist() == column.tolist()
    assert not larger[100:].any()
    assert grown(larger, 400) is larger


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9)), max_size=20))
def test_ranges_are_the_runs_one_after_the_other(runs: list[tuple[int, int]]) -> None:
    """Likewise for empty runs."""
    starts, lengths = np.array([run[0] for run in runs], int), np.array([run[1] for run in runs], int)
    assert ranges(starts, lengths).tolist() == [start + i for start, length in runs for i in range(length)]
