"""What a writer has defined in the segment at hand: texts, contexts, shard names; and what it carries to the next."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from weakref import WeakValueDictionary

from mppobs.journal import format as fmt
from mppobs.journal._encode import encode
from mppobs.model import Context, ContextRecord, DropRecord, Record, WorkerRecord

CONTEXTS_KEPT: Final = 256
"""How many contexts are carried from segment to segment though nobody holds them."""
NAMES_KEPT: Final = 4096
"""Shard names in each of the two generations of the cache."""


class ContextHandle:
    """
    A context and its number in one journal. As long as somebody holds it, every new segment defines the context.

    Attempts hold it through their stage, so a record never names a context that its segment does not define.
    """

    __slots__ = ("__weakref__", "context", "number")

    def __init__(self, number: int, context: Context) -> None:
        self.number = number
        self.context = context


class ContextTable:
    """The contexts of a journal. Numbers grow for the journal's life; memory is bounded by what is in use."""

    def __init__(self) -> None:
        self._next = 1
        self._by_context: WeakValueDictionary[Context, ContextHandle] = WeakValueDictionary()
        self._by_number: WeakValueDictionary[int, ContextHandle] = WeakValueDictionary()
        self._recent: OrderedDict[int, ContextHandle] = OrderedDict()

    def handle(self, context: Context) -> ContextHandle:
        """Return a context's handle, with a new number where it is not in use, and keep it among the most recent."""
        handle = self._by_context.get(context)
        if handle is None:
            handle = ContextHandle(self._next, context)
            self._next += 1
            self._by_context[context] = self._by_number[handle.number] = handle
        self._recent[handle.number] = handle
        self._recent.move_to_end(handle.number)
        if len(self._recent) > CONTEXTS_KEPT:
            self._recent.popitem(last=False)
        return handle

    def find(self, number: int) -> ContextHandle | None:
        """Return the handle that has a number, if somebody holds it or it is recent."""
        return self._by_number.get(number)

    def in_use(self) -> list[ContextHandle]:
        """Return what a new segment must define, the newest first."""
        return sorted(self._by_number.values(), key=lambda handle: -handle.number)


class NameCache:
    """Names of shards that the segment at hand defines: two generations, so that old ones go without a scan."""

    def __init__(self) -> None:
        self.young: dict[str, int] = {}
        """Keys of the newest names. Read by anybody; written under the writer's lock."""
        self._old: dict[str, int] = {}

    def get(self, name: str) -> int | None:
        """Return the key of a name that is defined here, or `None`."""
        key = self.young.get(name)
        if key is None and (key := self._old.get(name)) is not None:
            self.add(name, key)
        return key

    def add(self, name: str, key: int) -> None:
        """Remember that a name is defined."""
        if len(self.young) >= NAMES_KEPT:
            self._old, self.young = self.young, {}
        self.young[name] = key

    def those_of(self, keys: set[int]) -> dict[str, int]:
        """Return the names behind some keys, as far as they are remembered."""
        return {name: key for names in (self._old, self.young) for name, key in names.items() if key in keys}


class Opening:
    """The records with which a segment begins, and what they define. Built aside, adopted when the segment is there."""

    def __init__(self, known: dict[str, int], next_text: int) -> None:
        self._known = known
        self._parts: list[bytes] = []
        self._size = 0
        self.texts: dict[str, int] = {}
        self.next_text = next_text
        self.contexts: set[int] = set()
        self.names = NameCache()

    def add(self, record: WorkerRecord | ContextRecord | DropRecord) -> None:
        """Add a record and the texts that it needs."""
        self._encode(record)

    def add_contexts(self, handles: list[ContextHandle]) -> None:
        """Add contexts, the newest first, as far as half of the largest segment holds them."""
        for handle in handles:
            if self._size > fmt.MAX_SEGMENT_BYTES // 2:
                break
            self._encode(ContextRecord(handle.number, handle.context))
            self.contexts.add(handle.number)

    def add_names(self, names: dict[str, int]) -> None:
        """Add the names of shards."""
        for name, key in names.items():
            self._put(fmt.text_records(fmt.TextKind.SHARD_NAME, name, key=key))
            self.names.add(name, key)

    def data(self) -> bytes:
        """Return the records."""
        return b"".join(self._parts)

    def _encode(self, record: Record) -> None:
        data = encode(record, self._text_id)
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    def _text_id(self, text: str) -> int:
        """Return the number of a text, the same as before where the last segment had it."""
        if not text:
            return 0
        number = self.texts.get(text)
        if number is None:
            number = self._known.get(text, self.next_text)
            self.next_text = max(self.next_text, number + 1)
            self.texts[text] = number
            self._put(fmt.text_records(fmt.TextKind.INTERNED, text, number))
        return number
