"""
What key columns hold, as far as the hash of `mppobs.executor.hashing` knows, and which of them can meet in a join.

An exchange file says of what kinds its keys were, so that whoever reads two side by side is told where equal values
went to different partitions, and does not miss them in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import pyarrow as pa

from mppobs.errors import nearest
from mppobs.executor.task import TaskError

_BITS: Final = 4
_PACKED: Final = 8
"""Key columns whose kinds have a place in an exchange file's tail; nobody is told of the ninth."""


class KeyKind(IntEnum):
    """What the values of a key column are, as far as their hash knows. Numbers of exchange files: they never change."""

    ANYTHING = 0
    """Nothing but nulls."""
    INTEGER = 1
    """Booleans too."""
    FLOAT = 2
    DECIMAL = 3
    TEXT = 4
    """Bytes too."""
    MOMENT = 5
    """Timestamps without a zone, and dates, which are their midnights."""
    INSTANT = 6
    """Timestamps with a zone, whichever."""
    TIME = 7
    """Of day."""
    SPAN = 8

    @property
    def said(self) -> str:
        """Return it in a word for people."""
        return {KeyKind.MOMENT: "a time without a zone", KeyKind.INSTANT: "a time with a zone"}.get(
            self, self.name.lower()
        )


_MEETING: Final = frozenset(
    {frozenset({KeyKind.INTEGER, KeyKind.FLOAT}), frozenset({KeyKind.INTEGER, KeyKind.DECIMAL})}
)


def may_meet(one: KeyKind, other: KeyKind) -> bool:
    """
    Return whether equal values of two kinds have the same hash.

    >>> may_meet(KeyKind.INTEGER, KeyKind.FLOAT), may_meet(KeyKind.FLOAT, KeyKind.DECIMAL)
    (True, False)
    """
    return one == other or KeyKind.ANYTHING in (one, other) or frozenset({one, other}) in _MEETING


def key_kinds(schema: pa.Schema, columns: Sequence[str]) -> tuple[KeyKind, ...]:
    """Return the kinds of some key columns. Raises `TaskError` for one that is not there or cannot be a key."""
    kinds = []
    for name in columns:
        found = schema.get_all_field_indices(name)
        if len(found) != 1:
            what = f"is there {len(found)} times" if found else f"is not there: {nearest(name, schema.names)}"
            raise TaskError(f"rows are to be partitioned by column {name!r}, which {what}")
        try:
            kinds.append(kind_of(schema.field(found[0]).type))
        except TypeError as error:
            raise TaskError(f"column {name!r}: {error}") from None
    return tuple(kinds)


def kind_of(kind: pa.DataType) -> KeyKind:
    """Return what the values of a type are; raises `TypeError` for a type that cannot be a key."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind_of(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return kind_of(kind.value_type)
    for found, tests in _KINDS.items():
        if any(test(kind) for test in tests):
            return found
    if pa.types.is_timestamp(kind):
        return KeyKind.INSTANT if kind.tz else KeyKind.MOMENT
    raise TypeError(
        f"rows cannot be partitioned by values of type {kind}, but by numbers, booleans, text, bytes, dates and times"
    )


_KINDS: Final = {
    KeyKind.ANYTHING: (pa.types.is_null,),
    KeyKind.INTEGER: (pa.types.is_integer, pa.types.is_boolean),
    KeyKind.FLOAT: (pa.types.is_floating,),
    KeyKind.DECIMAL: (pa.types.is_decimal,),
    KeyKind.TEXT: (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
        pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
    ),
    KeyKind.MOMENT: (pa.types.is_date,),
    KeyKind.TIME: (pa.types.is_time,),
    KeyKind.SPAN: (pa.types.is_duration,),
}  # fmt: skip


def packed(kinds: Sequence[KeyKind]) -> int:
    """
    Return kinds as a number of 32 bits, those of the first eight columns.

    >>> unpacked(packed([KeyKind.TEXT, KeyKind.SPAN]))[:3]
    (<KeyKind.TEXT: 4>, <KeyKind.SPAN: 8>, <KeyKind.ANYTHING: 0>)
    """
    return sum(kind << _BITS * place for place, kind in enumerate(kinds[:_PACKED]))


def unpacked(number: int) -> tuple[KeyKind, ...]:
    """Return the kinds of eight columns; those that were not there are of any kind."""
    return tuple(KeyKind(number >> _BITS * place & (1 << _BITS) - 1) for place in range(_PACKED))
