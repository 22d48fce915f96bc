"""How an owner ends its journal: nothing that runs is forgotten, and nothing comes after END."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import Final

from mppobs.journal import format as fmt
from mppobs.journal._encode import encode
from mppobs.journal.format import Kind
from mppobs.journal.slots import Running
from mppobs.model import AttemptOutcome, AttemptRecord, DropRecord, EndRecord, JobEvent, JobRecord, Reason

_LOOK_BACK: Final = 4096
"""How many records back the record of an attempt may be whose slot was not freed yet."""


def close_segment(segment: mmap.mmap, running: Iterable[Running], drops: DropRecord | None, now_ns: int) -> bool:
    """
    Write the last records of a journal: what still runs, what was dropped, END. `False` where they do not fit.

    `running` is read after the last append of another thread: the position is moved to the end first, which makes
    every later `write` fail, and the true end is then found from the words themselves.
    """
    end = segment.tell()
    segment.seek(0, os.SEEK_END)
    while end < len(segment) and segment[end] != 0:
        end += fmt.RECORD_BYTES
    slots = list(running)
    finished = _finished(segment, end) if slots else frozenset()
    last = [_interrupted(slot, now_ns) for slot in slots if (slot.number, slot.start_ns + 1) not in finished]
    if drops is not None:
        last.append(encode(drops, _no_text))
    last.append(encode(EndRecord(now_ns, sealed=False), _no_text))
    data = b"".join(last)
    if end + len(data) > len(segment):
        return False
    segment[end : end + len(data)] = data
    return True


def _finished(segment: mmap.mmap, end: int) -> frozenset[tuple[int, int]]:
    """Return slot and start word of the attempts among the newest records."""
    first = max(end - _LOOK_BACK * fmt.RECORD_BYTES, fmt.RECORD_BYTES)
    records = fmt.RECORD.iter_unpack(segment[first:end])
    return frozenset((fmt.unlink(words[2])[1], words[3]) for words in records if words[0] & 0xFF == Kind.ATTEMPT)


def _interrupted(slot: Running, now_ns: int) -> bytes:
    """Return the record of what a slot says runs."""
    context_id = slot.identity >> 32 & 0x7FFFFFFF
    if slot.identity & 0xFF == fmt.SLOT_JOB:
        job = JobRecord(JobEvent.ORPHANED, context_id, now_ns, reason=Reason.SHUTDOWN)
        return encode(job, _no_text)
    attempt = AttemptRecord(
        context_id,
        shard_key=slot.shard_word >> 1,
        attempt=slot.identity >> 16 & 0xFFFF,
        outcome=AttemptOutcome.ERROR,
        start_ns=slot.start_ns,
        duration_ns=max(now_ns - slot.start_ns, 0),
        reason=Reason.SHUTDOWN,
        speculative=bool(slot.identity >> 8 & fmt.FLAG_SPECULATIVE),
        slot=slot.number,
    )
    return encode(attempt, _no_text)


def total_of(drops: DropRecord) -> int:
    """Return how many records a DROP stands for."""
    return sum(drops.attempts.values()) + drops.other


def _no_text(text: str) -> int:
    """Number the only text that these records have, the empty one."""
    return 0
