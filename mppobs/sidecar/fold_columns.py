"""
The data records of a round as columns: gathered over all its blocks, checked, and sorted out by job and stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.journal.columns import Words
from mppobs.journal.format import (
    ATTEMPT_CODES,
    DETAIL_CODES,
    FLAG_HAS_DELAY,
    FLAG_NO_CPU,
    REASON_CODES,
    RECORD_WORDS,
    SHARD_CODES,
    TOP,
    Kind,
)
from mppobs.model import Context
from mppobs.sidecar.fold_journals import Source

Columns = NDArray[np.uint64]
"""Twelve rows, the words of a record, and a column for each record."""
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]

YEAR_2000_NS: Final = 946_684_800 * 10**9
DAY_NS: Final = 86_400 * 10**9
MAX_SPAN_NS: Final = 10 * 366 * DAY_NS
MAX_AMOUNT: Final = 1 << 53
"""Bytes or rows of one attempt: 8 PiB."""

BATCH: Final = 32768
"""Records folded at a time: many enough that the calls cost little, few enough that columns stay in the cache."""
_PIECE: Final = 2048
"""Records turned into columns at a time, likewise."""
_ONE: Final = np.uint64(1)
_SHARD_BITS: Final = np.uint64(TOP | 1)


@dataclass(frozen=True)
class Batch:
    """Records of one kind, in the order of the round."""

    kind: Kind
    words: Columns
    source: NDArray[np.int32]
    """Which of `sources` each record is from; never falls."""
    sources: Sequence[Source]
    slot: NDArray[np.int32]
    """Which of `contexts` each record names; −1 for none that its segment has defined."""
    contexts: Sequence[tuple[int, Context]]
    """With the source that defined it."""

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.source)

    def take(self, chosen: Mask | Numbers) -> Batch:
        """Return some of the records, in the order given."""
        return Batch(
            self.kind, self.words[:, chosen], self.source[chosen], self.sources, self.slot[chosen], self.contexts
        )

    def word(self, index: int) -> Columns:
        """Return one word of each record."""
        word: Columns = self.words[index]
        return word

    @cached_property
    def code(self) -> NDArray[np.uint8]:
        """Return each record's outcome, or what it is about."""
        return (self.word(0) >> np.uint64(8)).astype(np.uint8)

    @cached_property
    def detail(self) -> NDArray[np.uint8]:
        """Return each record's reason or count."""
        return (self.word(0) >> np.uint64(16)).astype(np.uint8)

    @cached_property
    def flags(self) -> NDArray[np.uint8]:
        """Return each record's flags."""
        return (self.word(0) >> np.uint64(24)).astype(np.uint8)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """Return each record's shard key."""
        return self.word(1) >> _ONE

    @cached_property
    def attempt(self) -> Numbers:
        """Return each record's attempt number."""
        return (self.word(2) & np.uint64(0xFFFF)).view(np.int64)

    def text(self, word: int = 2) -> Numbers:
        """Return the number of the text in the upper half of a word, of the error type by default."""
        return (self.word(word) >> np.uint64(32) & np.uint64(0x7FFFFFFF)).view(np.int64)

    def low(self, word: int) -> Numbers:
        """Return the lower half of a word made of two numbers."""
        return (self.word(word) & np.uint64(0xFFFFFFFF)).view(np.int64)

    def value(self, word: int) -> Numbers:
        """Return the number in a word; what is beyond 2^63 comes out negative."""
        return (self.word(word) - _ONE).view(np.int64)

    def runs(self) -> Iterator[tuple[int, slice]]:
        """Yield each source that has records here, with the place of its records."""
        edges = np.flatnonzero(np.diff(self.source)) + 1
        for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(self)], strict=True):
            if end > start:
                yield int(self.source[start]), slice(start, end)


class Phase:
    """All records of a kind in a round, block by block, as batches that fit the processor's cache."""

    def __init__(self, sources: Sequence[Source], kind: Kind) -> None:
        self.kind = kind
        self.sources = sources
        self.contexts: list[tuple[int, Context]] = []
        """Every context that a block of this phase may name, with the place of the block."""
        self._places: list[int] = []
        codes: list[Columns] = []
        for place, source in enumerate(sources):
            if kind in source.has:
                ids = source.tables.context_ids()
                self._places.append(place)
                self.contexts += [(place, source.tables.contexts[number]) for number in ids.tolist()]
                codes.append(ids | np.uint64(place << 32))
        self._codes = np.concatenate(codes) if codes else np.zeros(0, np.uint64)

    def batches(self) -> Iterator[Batch]:
        """Yield the records; a batch is good until the next one, which takes its memory."""
        words = np.empty((RECORD_WORDS, BATCH), np.uint64)
        pieces: list[tuple[int, int]] = []
        filled = 0
        for place in self._places:
            for rows in _pieces(self.sources[place], self.kind):
                done = 0
                while done < len(rows):
                    count = min(len(rows) - done, BATCH - filled)
                    words[:, filled : filled + count] = rows[done : done + count].T
                    pieces.append((place, count))
                    filled, done = filled + count, done + count
                    if filled == BATCH:
                        yield self._batch(words, pieces)
                        pieces, filled = [], 0
        if filled:
            yield self._batch(words[:, :filled], pieces)

    def _batch(self, words: Columns, pieces: Sequence[tuple[int, int]]) -> Batch:
        """Return records as a batch, with the context that each names."""
        places, counts = zip(*pieces, strict=True)
        source = np.repeat(np.array(places, np.int32), counts)
        return Batch(
            self.kind, words, source, self.sources, self._slots(words[0] >> np.uint64(32), source), self.contexts
        )

    def _slots(self, numbers: Columns, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return which context each record names, −1 for one that its segment has not defined."""
        if len(self._codes) == 0:
            return np.full(len(numbers), -1, np.int32)
        wanted = numbers | source.astype(np.uint64) << np.uint64(32)
        if len(self._codes) == 1:
            return np.where(wanted == self._codes[0], 0, -1).astype(np.int32)
        slots = np.minimum(np.searchsorted(self._codes, wanted), len(self._codes) - 1).astype(np.int32)
        slots[self._codes[slots] != wanted] = -1
        return slots


def _pieces(source: Source, kind: Kind) -> Iterator[Words]:
    """Yield the records of a kind in a block, a few at a time."""
    mixed = len(source.has) > 1
    for first in range(0, len(source.words), _PIECE):
        rows = source.words[first : first + _PIECE]
        yield rows[source.kinds[first : first + _PIECE] == kind] if mixed else rows


def nonsense(batch: Batch, now_ns: int) -> tuple[Mask | None, dict[str, int]]:
    """Return which records make no sense, `None` for none, and how many, by the first reason that applies."""
    if batch.kind == Kind.ATTEMPT and _all_plain(batch, now_ns):
        return None, {}
    bad = np.zeros(len(batch), np.bool_)
    counts: dict[str, int] = {}
    for reason, mask in _reasons(batch, now_ns):
        fresh = int(np.count_nonzero(mask & ~bad)) if mask.any() else 0
        if fresh:
            counts[reason] = counts.get(reason, 0) + fresh
            bad |= mask
    return (bad if counts else None), counts


def _all_plain(batch: Batch, now_ns: int) -> bool:
    """Return whether attempts are sure to make sense: the usual case, told by the extremes of each column."""
    words = batch.words
    return bool(
        words[3].min() > YEAR_2000_NS
        and words[3].max() <= now_ns + DAY_NS
        and words[4:7].max() <= MAX_SPAN_NS
        and words[7:10].max() <= MAX_AMOUNT
        and words[11].max() <= MAX_AMOUNT
        and batch.slot.min() >= 0
        and batch.code.min() > 0
        and batch.code.max() <= len(ATTEMPT_CODES)
        and batch.detail.max() < len(REASON_CODES)
        and not batch.text().any()
        and (batch.word(1) & _SHARD_BITS == 1).all()
    )


def _reasons(batch: Batch, now_ns: int) -> Iterator[tuple[str, Mask]]:
    """Yield reasons with the records that they apply to."""
    yield "malformed", (batch.word(1) & _SHARD_BITS) != 1
    if batch.kind == Kind.DETAIL:
        yield "malformed", batch.detail > 4
    yield "unknown_code", _unknown_codes(batch)
    yield "unknown_context", batch.slot < 0
    yield "unknown_text", _unknown_texts(batch)
    yield "absurd_time", _outside(batch.value(3), YEAR_2000_NS, now_ns + DAY_NS)
    if batch.kind == Kind.COMMIT:
        first = batch.value(4)
        yield "absurd_time", (first != 0) & _outside(first, YEAR_2000_NS, now_ns + DAY_NS)
    if batch.kind == Kind.ATTEMPT:
        yield "absurd_duration", _absurd_durations(batch)
    for word in {Kind.ATTEMPT: (7, 8, 9, 11), Kind.COMMIT: (5, 6), Kind.DISPATCH: (5,)}.get(batch.kind, ()):
        yield "absurd_amount", _outside(batch.value(word), 0, MAX_AMOUNT)
    if batch.kind == Kind.DETAIL:
        count = batch.detail
        for place in range(4):
            used = count > place
            yield "absurd_amount", used & _outside(batch.value(5 + 2 * place), 0, MAX_SPAN_NS)


def _outside(values: Numbers, least: int, most: int) -> Mask:
    """Return which values are not from `least` to `most`; one comparison, since a negative offset is a huge one."""
    outside: Mask = (values - least).view(np.uint64) > np.uint64(most - least)
    return outside


def _unknown_codes(batch: Batch) -> Mask:
    code = batch.code
    if batch.kind == Kind.DISPATCH:
        return np.zeros(len(batch), np.bool_)
    most = {Kind.ATTEMPT: len(ATTEMPT_CODES), Kind.COMMIT: len(SHARD_CODES), Kind.DETAIL: len(DETAIL_CODES)}[batch.kind]
    unknown: Mask = (code == 0) | (code > most)
    if batch.kind != Kind.DETAIL:
        unknown |= batch.detail >= len(REASON_CODES)
    return unknown


def _unknown_texts(batch: Batch) -> Mask:
    """Return which records name a text that their segment has not defined."""
    bad = np.zeros(len(batch), np.bool_)
    columns: list[tuple[Numbers, Mask | None]]
    if batch.kind == Kind.DISPATCH:
        columns = [(batch.low(4), None)]
    elif batch.kind == Kind.DETAIL:
        columns = [(batch.low(4 + 2 * place), batch.detail > place) for place in range(4)]
    else:
        columns = [(batch.text(), None)]
    for texts, used in columns:
        named = np.flatnonzero(texts if used is None else (texts > 0) & used)
        if len(named) == 0:
            continue
        codes = batch.source[named].astype(np.int64) << 32 | texts[named]
        for code in np.unique(codes).tolist():
            if code & 0xFFFFFFFF not in batch.sources[code >> 32].tables.texts:
                bad[named[codes == code]] = True
    return bad


def _absurd_durations(batch: Batch) -> Mask:
    flags = batch.flags
    bad: Mask = _outside(batch.value(4), 0, MAX_SPAN_NS)
    bad |= (flags & FLAG_NO_CPU == 0) & _outside(batch.value(5), 0, MAX_SPAN_NS)
    bad |= (flags & FLAG_HAS_DELAY > 0) & _outside(batch.value(6), 0, MAX_SPAN_NS)
    return bad


def distinct(codes: NDArray[np.integer]) -> list[int]:
    """
    Return each code once, in the order of first occurrence, so that the result does not depend on how they are coded.

    >>> distinct(np.array([7, 3, 7, 1]))
    [7, 3, 1]
    """
    found, first = np.unique(codes, return_index=True)
    ordered: list[int] = found[np.argsort(first)].tolist()
    return ordered


def exact_sum(values: Numbers) -> int:
    """
    Return the sum of values that are not negative, exactly, whatever their size.

    >>> exact_sum(np.array([2**62, 2**62, 2**62])) == 3 * 2**62
    True
    """
    if len(values) == 0:
        return 0
    if int(values.max()) < (1 << 63) // len(values):
        return int(values.sum())
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())
