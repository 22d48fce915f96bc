"""
A journal looked at by hand: every record with its place, and everything about the files that is not as it should be.

For people and tests. Standard library only, so that it works where only the bare package is installed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode_placed
from mppobs.journal.format import Kind
from mppobs.journal.reader import (
    Head,
    JournalFiles,
    SegmentHeader,
    opened,
    owner_is_alive,
    parse_segment_header,
    read_head,
    scan,
)
from mppobs.model import AttemptOutcome, EndRecord, Record

Row = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """A record and where it stands."""

    segment: int
    place: int
    """Its number in the segment."""
    kind: Kind
    record: Record

    @property
    def offset(self) -> int:
        """Return where it begins in the file, in bytes."""
        return (self.place + 1) * fmt.RECORD_BYTES


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a file that is not as `docs/journal.md` says."""

    path: Path
    offset: int
    what: str


@dataclass(slots=True)
class Segment:
    """What a segment holds."""

    records: list[Placed] = field(default_factory=list)
    """Those that a reader counts, in its order."""
    padding: int = 0
    incomplete: int = 0
    """Places that were begun and not finished: one, where a process was killed in the middle of a record."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Examination:
    """What there is to say of one journal."""

    journal: str
    owner: str
    """`alive`, `dead`, or `elsewhere` for a copy that was shipped."""
    end: str = "open"
    """`closed` by its owner, `sealed` after the owner's death, or `open`."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Records by kind."""
    incomplete: int = 0
    dropped: dict[AttemptOutcome, int] = field(default_factory=dict)
    """Attempts that could not be recorded, by outcome."""
    dropped_other: int = 0
    problems: list[Problem] = field(default_factory=list)


def journals_at(path: Path) -> list[JournalFiles]:
    """
    Return the journals of a directory, the one that a file belongs to, or the one segment that a path names.

    Raises `JournalError` where there is none.
    """
    if path.is_dir():
        return scan(path)
    for files in scan(path.parent):
        if path in files.segments.values():
            index = next(index for index, segment in files.segments.items() if segment == path)
            return [JournalFiles(files.journal, files.directory, files.head, files.lock, {index: path})]
        if path in (files.head, files.lock):
            return [files]
    raise JournalError(f"{path}: no journal, segment or directory of journals")


def examine(files: JournalFiles) -> Examination:
    """Return everything there is to say of a journal. Raises `OSError` where a file cannot be read."""
    owner = "elsewhere" if files.is_shipped else "alive" if owner_is_alive(files) else "dead"
    found = Examination(files.journal, owner)
    if files.head is not None:
        _head(found, files.head)
    for index, path in files.segments.items():
        segment = read_segment(path, cut=files.is_shipped)
        found.kinds.update(placed.kind.name.lower() for placed in segment.records)
        found.kinds.update({"pad": segment.padding} if segment.padding else {})
        found.incomplete += segment.incomplete
        found.problems += segment.problems
        if index - 1 not in files.segments and index != min(files.segments):
            found.problems.append(Problem(path, 0, f"segment {index - 1} is missing"))
        for placed in segment.records:
            if isinstance(placed.record, EndRecord):
                found.end = "sealed" if placed.record.sealed else "closed"
    return found


def read_segment(path: Path, *, cut: bool = False) -> Segment:
    """
    Return the records of a segment and what is wrong with it.

    `cut` says that the file may end before its size, as one does that is still being shipped.
    """
    found = Segment()
    try:
        with opened(path, fmt.MAX_SEGMENT_BYTES) as (file, size):
            data = os.pread(file, size, 0)
        header = parse_segment_header(data, path.name)
    except JournalError as error:
        found.problems.append(Problem(path, 0, str(error).removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")))
        return found
    if len(data) < header.size and not cut:
        found.problems.append(Problem(path, len(data), f"cut short by {header.size - len(data)} bytes"))
    body = data[fmt.RECORD_BYTES : (1 + header.places) * fmt.RECORD_BYTES]
    rows = list(fmt.RECORD.iter_unpack(body[: len(body) // fmt.RECORD_BYTES * fmt.RECORD_BYTES]))
    _decode(found, path, rows, _counted(found, path, rows, header))
    return found


def _head(found: Examination, path: Path) -> None:
    try:
        head: Head = read_head(path)
    except JournalError as error:
        found.problems.append(Problem(path, 0, str(error).removeprefix(f"{path}: ")))
        return
    found.dropped, found.dropped_other = head.dropped, head.dropped_other
    if head.journal != found.journal:
        found.problems.append(Problem(path, fmt.HeadWord.UUID_HIGH * fmt.WORD, f"the head of journal {head.journal}"))


def _counted(found: Segment, path: Path, rows: Sequence[Row], header: SegmentHeader) -> list[int]:
    """Return the places that a reader counts: the owner's up to the first incomplete, and all complete of a sealer."""
    whole = [all(row) for row in rows]
    owned = next((place for place in range(min(len(rows), header.owner_places)) if not whole[place]), None)
    owned = min(len(rows), header.owner_places) if owned is None else owned
    found.incomplete = sum(any(row) and not all(row) for row in rows)
    behind = next((place for place in range(owned, min(len(rows), header.owner_places)) if whole[place]), None)
    if behind is not None:
        what = "a complete record behind one that is not: readers never come to it"
        found.problems.append(Problem(path, (behind + 1) * fmt.RECORD_BYTES, what))
    return [*range(owned), *(place for place in range(header.owner_places, len(rows)) if whole[place])]


def _decode(found: Segment, path: Path, rows: Sequence[Row], places: Sequence[int]) -> None:
    """Decode the records at some places."""

    def on_error(index: int, error: JournalError) -> None:
        found.problems.append(Problem(path, (places[index] + 1) * fmt.RECORD_BYTES, str(error)))

    counted = [rows[place] for place in places]
    index = path.name.split(".")[1]
    found.padding = sum(row[0] & 0xFF == Kind.PAD for row in counted)
    found.records = [
        Placed(int(index), places[at], Kind(rows[places[at]][0] & 0xFF), record)
        for at, record in decode_placed(counted, on_error)
    ]
    found.problems.sort(key=lambda problem: problem.offset)


def records_of(files: JournalFiles) -> Iterator[Placed]:
    """Yield the records of a journal, segment by segment, leaving out what makes no sense."""
    for path in files.segments.values():
        yield from read_segment(path).records
