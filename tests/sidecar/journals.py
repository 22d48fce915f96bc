"""Blocks made of records, as a follower would read them from a journal: the way into a real fold without files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mppobs.cost.prices import PriceList
from mppobs.journal.codec import encode
from mppobs.journal.format import (
    ATTEMPT_CODES,
    RECORD_WORDS,
    SHARD_CODES,
    Kind,
    TextKind,
    head_word,
    is_named,
    link,
    pair,
    shard_key,
    text_records,
)
from mppobs.model import (
    AttemptOutcome,
    Context,
    ContextRecord,
    Record,
    Shard,
    ShardOutcome,
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
        words = np.frombuffer(bytes(self._data), "<u8").reshape(-1, RECORD_WORDS)
        block = Block(self.uuid, 0, self._taken, words)
        self._taken += len(words)
        self._data.clear()
        return block

    def done_at_once(self, context_id: int, first: int, count: int, start_ns: int, seconds: float = 1.0) -> None:
        """Write attempts and commits of many shards, one try each, without a Python object for each."""
        duration = round(seconds * SECOND)
        attempts = np.ones((count, RECORD_WORDS), np.uint64)
        keys = np.arange(first, first + count, dtype=np.uint64)
        attempts[:, 0] = head_word(Kind.ATTEMPT, ATTEMPT_CODES[AttemptOutcome.SUCCESS], number=context_id)
        attempts[:, 1] = keys << np.uint64(1) | np.uint64(1)
        attempts[:, 2] = link(0)
        attempts[:, 3] = start_ns + 1
        attempts[:, 4] = duration + 1
        attempts[:, 10] = pair(0)
        commits = np.ones((count, RECORD_WORDS), np.uint64)
        commits[:, 0] = head_word(Kind.COMMIT, SHARD_CODES[ShardOutcome.COMMITTED], number=context_id)
        commits[:, 1:3] = attempts[:, 1:3]
        commits[:, 3] = start_ns + duration + 1
        commits[:, 4] = start_ns + 1
        self._data += attempts.tobytes() + commits.tobytes()

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
