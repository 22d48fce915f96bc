"""
Removing what is safe elsewhere, in an order in which a kill at any point leaves nothing that counts twice.

A copy that an agent shipped leaves a mark behind, which says up to where its segments are done with: an agent whose
acknowledgement was lost sends them again, and must be told that they arrived.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import mppobs.journal.columns as col
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.format import Kind, SlotWord
from mppobs.journal.reader import JournalFiles, opened, parse_segment_header, read_slots
from mppobs.model import JobEvent, Slot

DONE_SUFFIX: Final = ".done"
ALL_SEGMENTS: Final = 10**9
"""Above every segment's index: the journal ended."""

_OVER: Final = (fmt.JOB_EVENT_CODES[JobEvent.END], fmt.JOB_EVENT_CODES[JobEvent.ORPHANED])


def remove_segment(files: JournalFiles, segment: int, *, ended: bool) -> None:
    """
    Delete one segment of a journal that has others.

    Of a journal that goes on, attempts that are recorded in it and still show in a slot are marked there first: a
    sealer would take them for unfinished once their record is gone. Raises `OSError` or `JournalError`.
    """
    path = files.segments[segment]
    if files.is_shipped:
        mark_done(files.directory, files.journal, segment + 1)
    elif files.head is not None and not ended:
        _settle(files.head, path)
    path.unlink(missing_ok=True)


def remove_journal(files: JournalFiles) -> None:
    """
    Delete what is left of a journal that ended: its last segment and whatever is beside it.

    END goes last but for the lock, so that nobody ever sees a head without it and seals the journal again.
    """
    if files.is_shipped:
        mark_done(files.directory, files.journal, ALL_SEGMENTS)
    for path in (files.head, *files.segments.values(), files.lock):
        if path is not None:
            path.unlink(missing_ok=True)


def mark_done(directory: Path, journal: str, below: int) -> None:
    """Note that all segments of a shipped journal below an index were received and are done with."""
    if below <= done_below(directory, journal):
        return
    path = directory / f"{journal}{DONE_SUFFIX}"
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(f"{below}\n", encoding="ascii")
    hidden.rename(path)


def done_below(directory: Path, journal: str) -> int:
    """Return the index below which all segments of a shipped journal are done with; 0 for none."""
    path = directory / f"{journal}{DONE_SUFFIX}"
    try:
        with opened(path, 64) as (file, _):
            found = re.fullmatch(rb"(\d{1,10})\n", os.pread(file, 64, 0))
    except JournalError:
        return 0
    return int(found[1]) if found else 0


def _settle(head: Path, segment: Path) -> None:
    """Mark the slots whose attempt or job is over according to a segment."""
    slots = read_slots(head)
    if not slots:
        return
    over = _over(segment, slots)
    file = os.open(head, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for slot in over:
            offset = fmt.HEAD_BYTES + slot.index * fmt.SLOT_BYTES + SlotWord.SETTLED_NS * fmt.WORD
            os.pwrite(file, slot.start_ns.to_bytes(fmt.WORD, "little"), offset)
    finally:
        os.close(file)


def _over(segment: Path, slots: list[Slot]) -> list[Slot]:
    """Return those slots of which a segment tells the end."""
    with opened(segment, fmt.MAX_SEGMENT_BYTES) as (file, size):
        data = os.pread(file, size, 0)
    header = parse_segment_header(data, segment.name)
    words = col.words_of(data)[1 : header.owner_places + 1]
    words = words[: col.complete_prefix(words)]
    attempts = col.of_kind(words, Kind.ATTEMPT)
    mine = attempts[col.is_in(col.value(attempts, 3), {slot.start_ns for slot in slots})]
    finished = set(zip(col.slot(mine).tolist(), col.value(mine, 3).tolist(), strict=True))
    jobs = col.of_kind(words, Kind.JOB)
    jobs = jobs[col.is_in(col.code(jobs), _OVER)]
    ended = dict(zip(col.number(jobs).tolist(), col.value(jobs, 3).tolist(), strict=True))
    return [
        slot
        for slot in slots
        if (ended.get(slot.context_id, -1) >= slot.start_ns if slot.is_job else (slot.index, slot.start_ns) in finished)
    ]
