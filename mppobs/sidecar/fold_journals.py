"""
What the fold knows of each journal: the texts, contexts and names of its current segment, and its running totals.

A segment stands alone: its records name only what it has defined itself. So only the newest segment's tables are
kept, and those of a journal that ends are forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.errors import JournalError
from mppobs.journal import columns
from mppobs.journal.codec import decode
from mppobs.journal.columns import Words
from mppobs.journal.format import TEXT_FIRST_BYTES, Kind, TextKind, text_of
from mppobs.model import (
    Context,
    ContextRecord,
    DropRecord,
    Record,
    SampleRecord,
    TextRecord,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.sidecar.shard_index import Keys, ranges

DATA: Final = (Kind.DISPATCH, Kind.DETAIL, Kind.ATTEMPT, Kind.COMMIT)
"""Kinds that are folded by column. All others are rare and folded one by one, but for names of shards."""


class UnknownTextError(JournalError):
    """Raised when a record names a text that its segment has not defined."""


class ShardNames:
    """The names of shards that one segment has defined, by key. Of a name given twice the first counts."""

    __slots__ = ("_ends", "_keys", "_new", "_text")

    def __init__(self) -> None:
        self._keys: Keys = np.zeros(0, np.uint64)
        self._ends: NDArray[np.int64] = np.zeros(0, np.int64)
        self._text: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._new: list[tuple[Keys, NDArray[np.int64], NDArray[np.uint8]]] = []

    def add(self, keys: Keys, lengths: NDArray[np.int64], text: NDArray[np.uint8]) -> None:
        """Take in names: their keys, the length of each, and the bytes of all of them in one."""
        if len(keys):
            self._new.append((keys, lengths, text))

    def take(self, keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.uint8]]:
        """Return which keys have a name, the lengths of those names, and their bytes in one."""
        self._merge()
        if len(self._keys) == 0:
            return np.zeros(len(keys), np.bool_), self._ends, self._text
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[places] == keys
        places = places[known]
        starts = np.where(places > 0, self._ends[places - 1], 0)
        lengths = self._ends[places] - starts
        return known, lengths, self._text[ranges(starts, lengths)]

    def _merge(self) -> None:
        """Bring what is new into the one run that is sorted by key."""
        if not self._new:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _, _ in self._new)])
        lengths = np.concatenate([np.diff(self._ends, prepend=0), *(lengths for _, lengths, _ in self._new)])
        text = np.concatenate([self._text, *(text for _, _, text in self._new)])
        starts = np.cumsum(lengths) - lengths
        self._keys, first = np.unique(keys, return_index=True)
        self._text = text[ranges(starts[first], lengths[first])]
        self._ends = np.cumsum(lengths[first])
        self._new = []


class SegmentTables:
    """What one segment has defined so far. The first definition of a number counts."""

    __slots__ = ("_ids", "cluster", "contexts", "info", "names", "texts")

    def __init__(self) -> None:
        self.texts: dict[int, str] = {0: ""}
        self.contexts: dict[int, Context] = {}
        self.info = WorkerInfo("")
        self.cluster = "default"
        """Of the newest context, for records that have none."""
        self.names = ShardNames()
        self._ids: NDArray[np.uint64] | None = None

    def text(self, number: int) -> str:
        """Return the text of a number. Raises `UnknownTextError` where there is none."""
        try:
            return self.texts[number]
        except KeyError:
            raise UnknownTextError(f"text {number} is not defined") from None

    def context_ids(self) -> NDArray[np.uint64]:
        """Return the numbers of all contexts, in order."""
        if self._ids is None:
            self._ids = np.array(sorted(self.contexts), np.uint64)
        return self._ids

    def define(self, record: Record) -> None:
        """Take in a definition; other records define nothing."""
        match record:
            case TextRecord():
                if record.shard_key:
                    data = record.text.encode("utf-8", "replace")
                    key = np.array([record.shard_key], np.uint64)
                    self.names.add(key, np.array([len(data)]), np.frombuffer(data, np.uint8))
                else:
                    self.texts.setdefault(record.text_id, record.text)
            case ContextRecord():
                if record.context_id not in self.contexts:
                    self.contexts[record.context_id] = record.context
                    self.cluster = record.context.cluster
                    self._ids = None
            case WorkerRecord(event=WorkerEvent.SELF):
                self.info = record.info
            case _:
                return


@dataclass(slots=True)
class JournalState:
    """One journal between rounds."""

    journal: str
    tables: SegmentTables = field(default_factory=SegmentTables)
    before: SegmentTables | None = None
    """Of the segment before: slots taken then may still name its contexts."""
    sample: SampleRecord | None = None
    """The newest."""
    sampled: Context | None = None
    """What `sample` says ran last."""
    ran_ns: int = 0
    """Time of attempts that ended since that sample."""
    dropped: DropRecord | None = None
    """The newest totals of what could not be written."""
    ended: bool = False

    def turn(self) -> None:
        """Begin a new segment."""
        self.before, self.tables = self.tables, SegmentTables()

    @property
    def described(self) -> SegmentTables:
        """Return the tables of the newest segment that says who writes it: a new one may not have been read so far."""
        return self.tables if self.tables.info.worker or self.before is None else self.before

    def context(self, number: int) -> Context | None:
        """Return the context that a slot names."""
        found = self.tables.contexts.get(number)
        if found is None and self.before is not None:
            return self.before.contexts.get(number)
        return found


@dataclass(frozen=True, slots=True)
class Source:
    """One block of a round, with what its journal knew when it was read."""

    state: JournalState
    tables: SegmentTables
    words: Words
    kinds: NDArray[np.uint8]
    has: frozenset[int]
    """Which kinds there are."""


def take_shard_names(source: Source) -> tuple[NDArray[np.bool_], int, int]:
    """
    Take in the names of shards that a block defines.

    Returns which rows these were, how many names that were, and how many of them made no sense.
    """
    if Kind.TEXT not in source.has:
        return np.zeros(len(source.kinds), np.bool_), 0, 0
    head = source.words[:, 0]
    rows = (source.kinds == Kind.TEXT) & (head & np.uint64(0xFF00) == np.uint64(TextKind.SHARD_NAME << 8))
    is_long = rows & (head & np.uint64(0xFF0000) > 0)
    count = int(np.count_nonzero(rows))
    bad = _take_short_names(source, rows & ~is_long)
    for row in np.flatnonzero(is_long).tolist():
        try:
            record, size = decode_row(source, row)
        except JournalError:
            bad += 1  # and so the caller counts it
        else:
            source.tables.define(record)
            rows[row : row + size] = True
    return rows, count, bad


def _take_short_names(source: Source, rows: NDArray[np.bool_]) -> int:
    """Take in names that fit one record, all at once; return how many made no sense."""
    chosen = source.words[rows]
    keys = chosen[:, 2] >> np.uint64(1)
    lengths = (chosen[:, 1] - np.uint64(1)).astype(np.int64)
    sane = (chosen[:, 2] & np.uint64(1 << 63 | 1) == 1) & (keys > 0) & (lengths >= 0) & (lengths <= TEXT_FIRST_BYTES)
    chosen, keys, lengths = chosen[sane], keys[sane], lengths[sane]
    text = np.ascontiguousarray(chosen[:, 3:]).view(np.uint8).reshape(len(chosen), 9, 8)[:, :, :7]
    flat = text.reshape(len(chosen) * TEXT_FIRST_BYTES)
    starts = np.arange(len(chosen)) * TEXT_FIRST_BYTES
    source.tables.names.add(keys, lengths, flat[ranges(starts, lengths)])
    return int(len(sane) - np.count_nonzero(sane))


def decode_row(source: Source, row: int) -> tuple[Record, int]:
    """
    Return the record that begins at a row, and how many rows it takes. Raises `JournalError` for nonsense.

    A text takes as many rows as it says; they were written in one piece, and a block never ends inside of one.
    """
    words: list[int] = source.words[row].tolist()
    if words[0] & 0xFF != Kind.TEXT:
        return decode(words, source.tables.text), 1
    size = 1 + (words[0] >> 16 & 0xFF)
    more = source.words[row + 1 : row + size]
    if len(more) < size - 1 or (source.kinds[row + 1 : row + size] != Kind.TEXT_MORE).any():
        raise JournalError("a text ends early")
    text = text_of([*words[3:], *more[:, 1:].reshape(-1).tolist()], words[1] - 1)
    if words[0] >> 8 & 0xFF == TextKind.INTERNED:
        return TextRecord(text, words[0] >> 32), size
    if words[0] >> 8 & 0xFF == TextKind.SHARD_NAME and words[2] & (1 << 63 | 1) == 1:
        return TextRecord(text, words[0] >> 32, words[2] >> 1), size
    raise JournalError("a text of no known kind")


def source_of(state: JournalState, words: Words) -> Source:
    """Return a block with what its journal knows."""
    kinds = columns.kind(words).astype(np.uint8)
    has = frozenset(np.flatnonzero(np.bincount(kinds, minlength=1)).tolist())
    return Source(state, state.tables, words, kinds, has)
