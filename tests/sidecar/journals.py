"""Blocks made of records, as a follower would read them from a journal: the way into a real fold without files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mppobs.cost.prices import PriceList
from mppobs.journal.codec import encode
from mppobs.journal.format import RECORD_WORDS, TextKind, is_named, shard_key, text_records
from mppobs.model import (
    Context,
    ContextRecord,
    Record,
    Shard,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.sidecar.blocks import Block
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.fold_labels import FoldSettings

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


@dataclass
class FakeJournal:
    """One journal of one segment, written in memory."""

    uuid: str = "0" * 32
    info: WorkerInfo = field(default_factory=lambda: WorkerInfo("worker-1", "node-1", "zone-1", pid=7))
    _texts: dict[str, int] = field(default_factory=lambda: {"": 0})
    _contexts: dict[Context, int] = field(default_factory=dict)
    _data: bytearray = field(default_factory=bytearray)
    _taken: int = 0

    def __post_init__(self) -> None:
        """Open with who writes."""
        self.append(WorkerRecord(WorkerEvent.SELF, NOW, self.info))

    def context(self, context: Context) -> int:
        """Return the number of a context, defined where it is new."""
        if context not in self._contexts:
            number = self._contexts[context] = len(self._contexts) + 1
            self.append(ContextRecord(number, context))
        return self._contexts[context]

    def shard(self, shard: Shard) -> int:
        """Return the key of a shard; a name is written."""
        key = shard_key(shard)
        if is_named(key):
            self._data += text_records(TextKind.SHARD_NAME, str(shard), key=key)
        return key

    def append(self, *records: Record) -> None:
        """Write records, and before each the texts that it names first."""
        for record in records:
            data = encode(record, self._text)
            self._data += data

    def take(self) -> Block:
        """Return what was written since the last call."""
        words = np.frombuffer(bytes(self._data), "<u8").reshape(-1, RECORD_WORDS)[self._taken :]
        block = Block(self.uuid, 0, self._taken, words)
        self._taken += len(words)
        return block

    def _text(self, text: str) -> int:
        if text not in self._texts:
            self._texts[text] = len(self._texts)
            self._data += text_records(TextKind.INTERNED, text, number=self._texts[text])
        return self._texts[text]


def new_fold(settings: FoldSettings | None = None) -> Fold:
    """Return an empty fold that charges nothing."""
    return Fold(settings or FoldSettings(), PriceList())


def fold_all(fold: Fold, journals: Iterable[FakeJournal], now_ns: int) -> None:
    """Fold what journals have that is new, in one round."""
    fold.round([journal.take() for journal in journals], now_ns)
