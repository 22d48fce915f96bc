"""Runs of complete records, read from segment files: what is new in one, and what was read before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import mppobs.journal.columns as col
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.format import Kind
from mppobs.journal.reader import SegmentHeader, opened, parse_segment_header

_FIRST_READ: Final = 42
"""Records read at first (4 KiB): most polls of most journals find little, so looking must be cheap."""
_GROWTH: Final = 16


class Cursor(NamedTuple):
    """How far a journal has been read."""

    segment: int
    record: int
    """Number of the next record to read in the segment."""
    ended: bool = False
    """Whether END has been read: there is no more."""


@dataclass(frozen=True, slots=True)
class Block:
    """Complete records that stand one after the other in one segment."""

    journal: str
    segment: int
    first: int
    """Number of the first of them in the segment."""
    words: col.Words
    """One row of twelve words each."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in a segment from some record on."""

    header: SegmentHeader
    first: int
    words: col.Words

    @property
    def has_end(self) -> bool:
        """Return whether the last of the records is END."""
        return len(self.words) > 0 and int(self.words[-1, 0]) & 0xFF == Kind.END


def read_new(path: Path, record: int, limit: int, *, live: bool) -> Reading:
    """
    Return the complete records of a segment from number `record` on, about `limit` at the most, none after END.

    They never end inside a text. Where there are none, and the owner was known to be dead before the call
    (`live` is false), the records of a sealer are looked for past whatever the owner left unfinished.
    Raises `JournalError` for what is no segment, `OSError` where it cannot be read now.
    """
    with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, _):
        header = parse_segment_header(os.pread(file, fmt.RECORD_BYTES, 0), path.name)
        found = Reading(header, record, _owned(file, header, record, limit))
        if len(found.words) or live:
            return found
        sealed = _sealed(file, header, record)
        if len(sealed.words) and record < header.owner_places:
            # What an agent ships may have arrived between the two looks: the owner's records come first.
            found = Reading(header, record, _owned(file, header, record, limit))
        return found if len(found.words) else sealed


def read_range(directories: Sequence[Path], journal: str, segment: int, first: int, count: int) -> Block:
    """
    Return exactly the records that were read before, for a replay.

    Raises `JournalError` or `OSError` where they are gone.
    """
    path = _path(directories, journal, segment)
    with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, _):
        parse_segment_header(os.pread(file, fmt.RECORD_BYTES, 0), path.name)
        words = _at(file, first, count)
    if len(words) < count or not words.all():
        raise JournalError(f"{path}: records {first} to {first + count - 1} are not all there")
    return Block(journal, segment, first, words)


def read_header(directories: Sequence[Path], journal: str, segment: int) -> bytes:
    """Return the bytes of a segment's header. Raises `JournalError` or `OSError` where there is none."""
    path = _path(directories, journal, segment)
    with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, _):
        data = os.pread(file, fmt.RECORD_BYTES, 0)
    parse_segment_header(data, path.name)
    return data


def _path(directories: Sequence[Path], journal: str, segment: int) -> Path:
    """Return where a segment is: the first of the directories that has it, as for a follower."""
    for directory in directories:
        path = directory / fmt.segment_name(journal, segment)
        if path.exists():
            return path
    raise JournalError(f"journal {journal}: segment {segment} is gone")


def _at(file: int, first: int, count: int) -> col.Words:
    return col.words_of(os.pread(file, count * fmt.RECORD_BYTES, (first + 1) * fmt.RECORD_BYTES))


def _owned(file: int, header: SegmentHeader, first: int, limit: int) -> col.Words:
    """Return the owner's complete records from one on."""
    room = max(0, min(header.owner_places - first, max(limit, _FIRST_READ)))
    words = _at(file, first, min(room, _FIRST_READ))
    whole = col.complete_prefix(words)
    if whole == _FIRST_READ < room:
        words, whole = _more(file, first, room)
    words = words[:whole]
    return _until_end(words[: whole - col.ends_inside_text(words)])


def _more(file: int, first: int, room: int) -> tuple[col.Words, int]:
    """Return records read in growing pieces, and how many of them are complete. Memory is taken as it is needed."""
    words = np.empty((room, fmt.RECORD_WORDS), dtype="<u8")
    there, step = 0, _FIRST_READ * _GROWTH
    while there < room:
        piece = words[there : there + step]
        size = os.preadv(file, [piece.data], (first + there + 1) * fmt.RECORD_BYTES)
        whole = col.complete_prefix(piece[: size // fmt.RECORD_BYTES])
        there += whole
        if whole < len(piece):
            break
        step *= _GROWTH
    return words, there


def _until_end(words: col.Words) -> col.Words:
    """Return the records up to the first END."""
    ends = np.flatnonzero(col.kind(words) == Kind.END)
    return words[: ends[0] + 1] if len(ends) else words


def _sealed(file: int, header: SegmentHeader, record: int) -> Reading:
    """Return the next run of a sealer's records. Places that it began and left are passed over."""
    first = max(record, header.owner_places)
    words = _at(file, first, header.places - first)
    begins = np.flatnonzero(col.complete(words))
    if not len(begins):
        return Reading(header, record, words[:0])
    words = words[begins[0] :]
    return Reading(header, first + int(begins[0]), _until_end(words[: col.complete_prefix(words)]))
