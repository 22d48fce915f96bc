"""What a new segment must begin with, taken from an earlier one, so that records of some contexts can be read in it."""

from __future__ import annotations

from collections.abc import Collection

import mppobs.journal.columns as col
from mppobs.journal import format as fmt
from mppobs.journal.format import Kind, TextKind, unpair
from mppobs.model import WorkerEvent


def opening_for(words: col.Words, contexts: Collection[int]) -> bytes:
    """
    Return the TEXT, WORKER and CONTEXT records that a segment needs to stand alone, as bytes.

    `words` are the records of a segment that stands alone itself. Of its definitions, those of the worker that
    wrote it and of the given contexts are taken, with the texts that they name. A context that is not defined
    there is left out: records that name it make no sense in either segment.
    """
    workers = col.of_kind(words, Kind.WORKER)
    mine = workers[col.code(workers) == fmt.WORKER_EVENT_CODES[WorkerEvent.SELF]][:1]
    defined = col.of_kind(words, Kind.CONTEXT)
    wanted = defined[col.is_in(col.number(defined), contexts)]
    texts = {number for word in mine[:, 1:3].ravel().tolist() for number in unpair(word)}
    texts |= {number for word in wanted[:, [1, 2, 4, 5]].ravel().tolist() for number in unpair(word)}
    return b"".join((_texts(words, texts), mine.tobytes(), wanted.tobytes()))


def _texts(words: col.Words, numbers: Collection[int]) -> bytes:
    """Return the definitions of some texts, each with what continues it."""
    defines = (col.kind(words) == Kind.TEXT) & (col.code(words) == TextKind.INTERNED)
    places = (defines & col.is_in(col.number(words), numbers)).nonzero()[0].tolist()
    continued = col.detail(words[places]).tolist()
    return b"".join(words[place : place + 1 + more].tobytes() for place, more in zip(places, continued, strict=True))
