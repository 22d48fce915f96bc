"""
Records as columns: the parts of many words at once, for whoever folds, seals or follows millions of them.

The one module of this package that needs numpy; workers never load it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mppobs.journal import format as fmt
from mppobs.journal.format import Kind

Words: TypeAlias = NDArray[np.uint64]
"""Records: one row of twelve words each."""
Column: TypeAlias = NDArray[np.uint64]
"""One word, or one part of a word, of each record."""
Numbers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

_BYTE: Final = np.uint64(0xFF)
_SHORT: Final = np.uint64(0xFFFF)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HIGH: Final = np.uint64(0x7FFFFFFF)
_ONE: Final = np.uint64(1)
_MAX_INT: Final = np.uint64(2**63 - 1)
_MAX_TEXT_RECORDS: Final = 1 + -(-(fmt.MAX_TEXT_BYTES - fmt.TEXT_FIRST_BYTES) // fmt.TEXT_MORE_BYTES)


def words_of(data: bytes | bytearray | memoryview) -> Words:
    """
    Return the records of some bytes, without a copy. What is left over at the end, less than a record, is not theirs.

    >>> words_of(bytes(200)).shape
    (2, 12)
    """
    count = len(data) // fmt.RECORD_BYTES
    flat = np.frombuffer(data, dtype="<u8", count=count * fmt.RECORD_WORDS)
    return flat.reshape(count, fmt.RECORD_WORDS)


def complete_prefix(words: Words) -> int:
    """
    Return how many records are complete before the first that is not.

    >>> complete_prefix(words_of(b"x" * 96 + bytes(96) + b"x" * 96))
    1
    """
    if words.all():
        return len(words)
    return int(np.argmin(words.reshape(-1) != 0)) // fmt.RECORD_WORDS


def complete(words: Words) -> Mask:
    """Return which records are complete."""
    result: Mask = np.asarray(words.all(axis=1))
    return result


def touched(words: Words) -> int:
    """Return the number of records up to the last of which anything was written, complete or not."""
    rows = np.flatnonzero(np.asarray(words.any(axis=1)))
    return int(rows[-1]) + 1 if len(rows) else 0


def kind(words: Words) -> Column:
    """Return the kind of each record, as in `mppobs.journal.format.Kind`."""
    return words[:, 0] & _BYTE


def code(words: Words) -> Column:
    """Return each record's outcome or event."""
    return words[:, 0] >> np.uint64(8) & _BYTE


def detail(words: Words) -> Column:
    """Return each record's reason or count."""
    return words[:, 0] >> np.uint64(16) & _BYTE


def flags(words: Words) -> Column:
    """Return each record's flags."""
    return words[:, 0] >> np.uint64(24) & _BYTE


def number(words: Words) -> Column:
    """Return the context of each record, or the number that it defines."""
    return words[:, 0] >> np.uint64(32)


def shard_key(words: Words) -> Column:
    """Return the shard key of each ATTEMPT, DISPATCH, COMMIT, DETAIL or TEXT of a shard (of a TEXT it is in word 2)."""
    return words[:, 1] >> _ONE


def attempt(words: Words) -> Column:
    """Return the attempt number of each ATTEMPT, DISPATCH, COMMIT or DETAIL."""
    return words[:, 2] & _SHORT


def slot(words: Words) -> Column:
    """Return the slot of each ATTEMPT; `NO_SLOT` where it had none."""
    return words[:, 2] >> np.uint64(16) & _SHORT


def error_type(words: Words) -> Column:
    """Return the text number of the error type of each ATTEMPT or COMMIT; 0 for none."""
    return words[:, 2] >> np.uint64(32) & _HIGH


def value(words: Words, word: int) -> Numbers:
    """Return the numbers of a word that holds them plus one; what passes 2^63 - 1 comes out as that."""
    numbers: Numbers = np.minimum(words[:, word] - _ONE, _MAX_INT).astype(np.int64)
    return numbers


def low(words: Words, word: int) -> Column:
    """Return the lower number of a word made by `pair`."""
    return words[:, word] & _LOW


def high(words: Words, word: int) -> Column:
    """Return the upper number of a word made by `pair`."""
    return words[:, word] >> np.uint64(32) & _HIGH


def is_in(column: Column | Numbers, values: Collection[int]) -> Mask:
    """Return which entries of a column are among some values."""
    chosen: Mask = np.isin(column, np.fromiter(values, dtype=column.dtype, count=len(values)))
    return chosen


def of_kind(words: Words, *kinds: Kind) -> Words:
    """Return the records of some kinds, in their order."""
    return words[is_in(kind(words), kinds)]


def ends_inside_text(words: Words) -> int:
    """
    Return how many records at the end belong to a text whose continuation is not there yet.

    A text is written in one piece, but a reader may come by while it is being copied.
    """
    tail = words[-(_MAX_TEXT_RECORDS - 1) :]
    for back, row in enumerate(reversed(tail.tolist()), 1):
        if row[0] & 0xFF == Kind.TEXT:
            return back if (row[0] >> 16 & 0xFF) >= back else 0
        if row[0] & 0xFF != Kind.TEXT_MORE:
            return 0
    return 0
