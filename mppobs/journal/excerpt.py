"""What a new segment must begin with, taken from an earlier one, so that records of some contexts can be read in it."""

from __future__ import annotations

from collections.abc import Collection

import mppobs.journal.columns as col
from mppobs.journal import format as fmt
from mppobs.journal.format import Kind, TextKind, unpair
from mppobs.model import WorkerEvent


def opening_for(words: col.Words, contexts: Collection[int], shards: Collection[int]) -> bytes:
    """
    Return the TEXT, WORKER and CONTEXT records that a segment needs to stand alone, as bytes.

    `words` are the records of a segment that stands alone itself. Of its definitions, those of the worker that
    wrote it and of the given contexts are taken, with the texts that they name, and the names of the given shard
    keys. A context that is not defined
    there is left out: records that name it make no sense in either segment.
    """
    workers = col.of_kind(words, Kind.WORKER)
    mine = workers[col.code(workers) == fmt.WORKER_EVENT_CODES[WorkerEvent.SELF]][:1]
    defined = col.of_kind(words, Kind.CONTEXT)
    wanted = defined[col.is_in(col.number(defined), contexts)]
    texts = {number for word in mine[:, 1:3].ravel().tolist() for number in unpair(word)}
    texts |= {number for word in wanted[:, [1, 2, 4, 5]].ravel().tolist() for number in unpair(word)}
    interned = _defines(words, TextKind.INTERNED) & col.is_in(col.number(words), texts)
    named = _defines(words, TextKind.SHARD_NAME) & col.is_in(words[:, 2] >> 1, shards)
    return b"".join((_taken(words, interned), mine.tobytes(), wanted.tobytes(), _taken(words, named)))


def _defines(words: col.Words, kind: TextKind) -> col.Mask:
    return col.is_in(col.kind(words), (Kind.TEXT,)) & col.is_in(col.code(words), (kind,))


def _taken(words: col.Words, chosen: col.Mask) -> bytes:
    """Return some texts, each with what continues it."""
    places = chosen.nonzero()[0].tolist()
    continued = col.detail(words)[chosen].tolist()
    return b"".join(words[place : place + 1 + more].tobytes() for place, more in zip(places, continued, strict=True))
