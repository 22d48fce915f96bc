"""
The shards of one stage of a running job, as columns: some 60 bytes each, whatever their number.

A table lives as long as its job. What it held then goes to the archive, and the memory goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mppobs.journal.format import SHARD_CODES, is_named
from mppobs.model import Shard, ShardOutcome
from mppobs.sidecar.shard_index import Keys, Rows, ShardIndex, grown

PENDING: Final = 0
COMMITTED: Final = SHARD_CODES[ShardOutcome.COMMITTED]
FAILED: Final = SHARD_CODES[ShardOutcome.FAILED]
LOST: Final = SHARD_CODES[ShardOutcome.LOST]
SPLIT: Final = 4
"""Replaced by other shards: no longer counted."""

MAX_ERRORS: Final = 255
"""Error types of a job that are kept apart."""
MAX_BIT: Final = 31
"""Attempts with this number or a higher one share a bit of the masks."""

COLUMNS: Final[dict[str, type[np.generic]]] = {
    "first_start": np.int64,
    "decided": np.int64,
    "own": np.uint32,
    "dispatched": np.uint32,
    "worker": np.uint32,
    "cpu": np.float32,
    "wall": np.float32,
    "read": np.float32,
    "written": np.float32,
    "input": np.float32,
    "attempts": np.uint16,
    "winner": np.uint16,
    "error": np.uint8,
    "state": np.uint8,
    "succeeded": np.bool_,
    "last_outcome": np.uint8,
    "reason": np.uint8,
}


class ShardTable:
    """
    One row per shard of which there is any record; rows are numbered from 0 and never move.

    Columns are longer than the table: what is meant is what `rows` returned. They are replaced when the table
    grows, so keep none of them across a call of `rows`.
    """

    __slots__ = ("_marks", "index", *COLUMNS)

    first_start: NDArray[np.int64]
    """Smallest start of its attempts, in nanoseconds; 0 for none."""
    decided: NDArray[np.int64]
    """When it was decided, in nanoseconds; 0 while it is not."""
    own: NDArray[np.uint32]
    """A bit for each attempt of which there is a record."""
    dispatched: NDArray[np.uint32]
    """A bit for each attempt that the coordinator handed out."""
    worker: NDArray[np.uint32]
    """Of the first success, or else of the newest attempt, as the four columns after it; a number in the job's list."""
    cpu: NDArray[np.float32]
    wall: NDArray[np.float32]
    read: NDArray[np.float32]
    written: NDArray[np.float32]
    input: NDArray[np.float32]
    """Bytes of input, as the coordinator said."""
    attempts: NDArray[np.uint16]
    winner: NDArray[np.uint16]
    error: NDArray[np.uint8]
    """The error type of the newest attempt, or of the decision that the shard failed; a number in the job's list."""
    state: NDArray[np.uint8]
    succeeded: NDArray[np.bool_]
    last_outcome: NDArray[np.uint8]
    """How the newest attempt ended, by code."""
    reason: NDArray[np.uint8]

    def __init__(self, index: ShardIndex | None = None) -> None:
        self.index = index or ShardIndex()
        self._marks = np.zeros(self.index.count, np.uint16)
        for name, dtype in COLUMNS.items():
            setattr(self, name, np.zeros(self.index.count, dtype))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.index.count

    def rows(self, keys: Keys) -> tuple[Rows, Rows]:
        """Return the row of each key, made where it had none, and the positions of keys that had none."""
        rows, missing = self.index.rows(keys)
        if self.index.count > len(self.state):
            size, expected = self.index.count, self.index.expected
            self._marks = grown(self._marks, size, expected)
            for name in COLUMNS:
                setattr(self, name, grown(getattr(self, name), size, expected))
        return rows, missing

    def are_distinct(self, rows: Rows) -> bool:
        """Return whether no row is there twice; for fewer than 65,536 of them."""
        if (rows[1:] > rows[:-1]).all():
            return True
        numbers = np.arange(len(rows), dtype=np.uint16)
        self._marks[rows] = numbers
        return bool((self._marks[rows] == numbers).all())

    def columns(self) -> ShardColumns:
        """Return the rows as they are now. The columns are the table's own, not copies."""
        count = len(self)
        return ShardColumns(index=self.index, **{name: getattr(self, name)[:count] for name in COLUMNS})

    def shard(self, row: int) -> Shard:
        """Return the shard of a row: its integer, its name, or its key in hexadecimal where no name came."""
        return self.name_of(int(self.index.keys()[row]))

    def name_of(self, key: int) -> Shard:
        """Return the shard behind a key, likewise."""
        if not is_named(key):
            return key
        row = int(self.index.find(np.array([key], np.uint64))[0])
        return (self.index.name(row) if row >= 0 else None) or f"{key:x}"

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return what `load` needs, by name."""
        return {**{name: getattr(self, name)[: len(self)] for name in COLUMNS}, **self.index.dump()}

    @classmethod
    def load(cls, columns: dict[str, NDArray[Any]]) -> ShardTable:
        """Return a table with the same rows."""
        index = ShardIndex.load(*(columns[name] for name in ("keys", "text", "name_rows", "name_ends")))
        table = cls(index)
        for name in COLUMNS:
            setattr(table, name, columns[name])
        return table


@dataclass(frozen=True, slots=True)
class ShardColumns:
    """The shards of one stage of one job; the columns are those of `ShardTable`, all of one length."""

    index: ShardIndex
    first_start: NDArray[np.int64]
    decided: NDArray[np.int64]
    own: NDArray[np.uint32]
    dispatched: NDArray[np.uint32]
    worker: NDArray[np.uint32]
    cpu: NDArray[np.float32]
    wall: NDArray[np.float32]
    read: NDArray[np.float32]
    written: NDArray[np.float32]
    input: NDArray[np.float32]
    attempts: NDArray[np.uint16]
    winner: NDArray[np.uint16]
    error: NDArray[np.uint8]
    state: NDArray[np.uint8]
    succeeded: NDArray[np.bool_]
    last_outcome: NDArray[np.uint8]
    reason: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of shards, split ones included."""
        return len(self.state)

    def shards(self) -> list[Shard]:
        """Return the identifier of each shard: its integer, its name, or its key in hexadecimal."""
        names = dict(self.index.names())
        return [
            names.get(row, f"{key:x}") if is_named(key) else key for row, key in enumerate(self.index.keys().tolist())
        ]

    def durations(self) -> NDArray[np.int64]:
        """Return nanoseconds from first start to decision of the committed shards whose start is known."""
        known = (self.state == COMMITTED) & (self.first_start > 0)
        spans: NDArray[np.int64] = np.maximum(self.decided[known] - self.first_start[known], 0)
        return spans
