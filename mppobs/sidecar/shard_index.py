"""
From shard keys to the rows of a table, a block at a time and in few bytes: no Python object per shard.

Small integers, the usual case, index an array. Whatever is far beyond what the table holds, sparse integers and
hashed names, goes into an open-addressed hash table. Names are kept as one run of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]

ALWAYS_DIRECT: Final = 1 << 16
"""Keys below this always index the array, so key 0 is never hashed and can mark an empty place."""
MAX_DIRECT: Final = 1 << 27
_MAX_EXPECTED: Final = 1 << 22
_SPARSE: Final = 8
"""A key may be this many times the number of rows and still index the array."""
_FULL: Final = 0.7
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MAX_TEXT: Final = (1 << 32) - 1

Number = TypeVar("Number", bound=np.generic)


class ShardIndex:
    """Rows by key, numbered from 0 in the order in which keys come, and the names behind named keys."""

    __slots__ = ("_bound", "_direct", "_filled", "_keys", "_name_count", "_name_ends", "_name_rows", "_rows", "_text",
                 "_text_used", "count", "expected")  # fmt: skip

    def __init__(self) -> None:
        self.count = 0
        self.expected = 0
        """Shards that are planned, as far as that can be believed."""
        self._bound = ALWAYS_DIRECT
        self._direct: NDArray[np.int32] = np.zeros(0, np.int32)
        """Row plus 1; 0 for none."""
        self._keys: Keys = np.zeros(0, np.uint64)
        self._rows: NDArray[np.int32] = np.zeros(0, np.int32)
        self._filled = 0
        self._text: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._text_used = 0
        self._name_rows: NDArray[np.int32] = np.zeros(0, np.int32)
        self._name_ends: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._name_count = 0

    def expect(self, shards: int) -> None:
        """Say how many shards are planned, so that their integers index the array in whatever order they come."""
        self._bound = max(self._bound, min(2 * shards, MAX_DIRECT))
        self.expected = min(shards, _MAX_EXPECTED)

    def find(self, keys: Keys) -> Rows:
        """Return the row of each key, −1 where it has none."""
        small = keys < len(self._direct)
        if small.all():
            found = self._direct[keys.view(np.int64)].astype(np.int64)
        else:
            found = np.zeros(len(keys), np.int64)
            found[small] = self._direct[keys[small].view(np.int64)]
        if self._filled:  # small keys too may have been hashed, before the array reached so far
            rest = np.flatnonzero(found == 0)
            found[rest] = self._probe(keys[rest])
        return found - 1

    def rows(self, keys: Keys) -> tuple[Rows, Rows]:
        """Return the row of each key, made where it had none, and the positions of keys that had none."""
        found = self.find(keys)
        missing = np.flatnonzero(found < 0)
        if len(missing) == 0:
            return found, missing
        wanted = keys[missing]
        self._bound = max(self._bound, min(_SPARSE * (self.count + len(wanted)), MAX_DIRECT))
        direct = wanted < self._bound
        if direct.all():
            self._add_direct(wanted.view(np.int64))
        else:
            self._add_direct(wanted[direct].view(np.int64))
            self._add_hashed(np.unique(wanted[~direct]))
        found[missing] = self.find(wanted)
        return found, missing

    def keys(self) -> Keys:
        """Return the key of each row."""
        keys = np.zeros(self.count, np.uint64)
        direct = np.flatnonzero(self._direct)
        keys[self._direct[direct] - 1] = direct.astype(np.uint64)
        hashed = np.flatnonzero(self._keys)
        keys[self._rows[hashed] - 1] = self._keys[hashed]
        return keys

    def add_names(self, rows: Rows, text: NDArray[np.uint8], lengths: NDArray[np.int64]) -> None:
        """Keep the names of rows: the bytes of all of them in one, and the length of each."""
        if self._text_used + len(text) > _MAX_TEXT:
            return  # 4 GB of names: from here on shards are shown by key
        end = self._text_used + len(text)
        count = self._name_count + len(rows)
        self._text = grown(self._text, end)
        self._name_rows = grown(self._name_rows, count)
        self._name_ends = grown(self._name_ends, count)
        self._text[self._text_used : end] = text
        self._name_rows[self._name_count : count] = rows
        self._name_ends[self._name_count : count] = self._text_used + np.cumsum(lengths)
        self._text_used, self._name_count = end, count

    def names(self) -> Iterator[tuple[int, str]]:
        """Yield the row and the name of every row that has one."""
        text = self._text[: self._text_used].tobytes()
        start = 0
        for row, end in zip(self._name_rows[: self._name_count].tolist(), self._name_ends.tolist(), strict=False):
            yield row, text[start:end].decode("utf-8", "replace")
            start = end

    def name(self, row: int) -> str | None:
        """Return the name of a row, `None` where it has none. Looks at every name: for people, not for loops."""
        places = np.flatnonzero(self._name_rows[: self._name_count] == row)
        if len(places) == 0:
            return None
        place = int(places[0])
        start = int(self._name_ends[place - 1]) if place else 0
        return self._text[start : int(self._name_ends[place])].tobytes().decode("utf-8", "replace")

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """Return what `load` needs, names in the order of their rows."""
        order = np.argsort(self._name_rows[: self._name_count])
        lengths = np.diff(self._name_ends[: self._name_count], prepend=np.uint32(0)).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        return {
            "keys": self.keys(),
            "text": self._text[ranges(starts[order], lengths[order])],
            "name_rows": self._name_rows[order],
            "name_ends": np.cumsum(lengths[order]),
        }

    @classmethod
    def load(cls, keys: Keys, text: NDArray[np.uint8], name_rows: Rows, name_ends: Rows) -> ShardIndex:
        """Return an index with the same keys in the same rows."""
        index = cls()
        direct = keys < min(max(ALWAYS_DIRECT, _SPARSE * len(keys)), MAX_DIRECT)
        numbers = np.arange(1, len(keys) + 1, dtype=np.int32)
        if direct.any():
            index._direct = np.zeros(int(keys[direct].max()) + 1, np.int32)
            index._direct[keys[direct].view(np.int64)] = numbers[direct]
        if not direct.all():
            index._place(keys[~direct], numbers[~direct])
        index.count = len(keys)
        index.add_names(name_rows, text, np.diff(name_ends, prepend=0).astype(np.int64))
        return index

    def _add_direct(self, keys: NDArray[np.int64]) -> None:
        """Give rows to keys that index the array; a key may be there more than once."""
        if len(keys) == 0:
            return
        self._direct = grown(self._direct, int(keys.max()) + 1, self.expected)
        if (keys[1:] > keys[:-1]).all():
            self._direct[keys] = np.arange(self.count + 1, self.count + len(keys) + 1, dtype=np.int32)
            self.count += len(keys)
            return
        marks = np.arange(1, len(keys) + 1, dtype=np.int32)
        self._direct[keys] = marks
        fresh = keys[self._direct[keys] == marks]
        self._direct[fresh] = np.arange(self.count + 1, self.count + len(fresh) + 1, dtype=np.int32)
        self.count += len(fresh)

    def _add_hashed(self, keys: Keys) -> None:
        """Give rows to distinct keys that are hashed."""
        self._place(keys, np.arange(self.count + 1, self.count + len(keys) + 1, dtype=np.int32))
        self.count += len(keys)

    def _place(self, keys: Keys, numbers: NDArray[np.int32]) -> None:
        """Put distinct new keys into the hash table, made larger first where it would get too full."""
        need = self._filled + len(keys)
        if need > _FULL * len(self._keys):
            old = self._keys, self._rows
            size = 1 << max(10, int(need / 0.5 - 1).bit_length())
            self._keys, self._rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
            used = np.flatnonzero(old[0])
            self._settle(old[0][used], old[1][used])
        self._settle(keys, numbers)
        self._filled = need

    def _settle(self, keys: Keys, numbers: NDArray[np.int32]) -> None:
        """Probe for an empty place for every key at once: of those that want the same, one gets it, the rest go on."""
        places = self._home(keys)
        last = len(self._keys) - 1
        while len(keys):
            empty = self._keys[places] == 0
            self._keys[places[empty]] = keys[empty]
            mine = empty & (self._keys[places] == keys)
            self._rows[places[mine]] = numbers[mine]
            left = ~mine
            keys, numbers, places = keys[left], numbers[left], (places[left] + 1) & last

    def _probe(self, keys: Keys) -> Rows:
        """Return row plus 1 of each key, 0 where it is not in the hash table."""
        found = np.zeros(len(keys), np.int64)
        places = self._home(keys)
        asked = np.arange(len(keys))
        last = len(self._keys) - 1
        while len(asked):
            there = self._keys[places]
            hit = there == keys
            found[asked[hit]] = self._rows[places[hit]]
            left = ~hit & (there != 0)
            asked, keys, places = asked[left], keys[left], (places[left] + 1) & last
        return found

    def _home(self, keys: Keys) -> Rows:
        """Return the first place to look for each key."""
        shift = np.uint64(64 - (len(self._keys) - 1).bit_length())
        return ((keys * _MIX) >> shift).astype(np.int64)


def grown(column: NDArray[Number], size: int, expected: int = 0) -> NDArray[Number]:
    """
    Return the column with room for `size` values: itself, or one twice as large or as expected, the rest zero.

    Zeros that nobody has touched take no memory, so the spare room costs nothing until it is used.
    """
    if size <= len(column):
        return column
    larger = np.zeros(max(size, 2 * len(column), expected, 16), column.dtype)
    larger[: len(column)] = column
    return larger


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    Return the positions of runs, one after the other.

    >>> ranges(np.array([10, 3]), np.array([2, 3])).tolist()
    [10, 11, 3, 4, 5]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    places: NDArray[np.int64] = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return places
