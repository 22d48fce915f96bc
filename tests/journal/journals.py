"""Journals made by hand, for tests of whatever reads them: every byte is the test's own choice."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mppobs.journal import format as fmt
from mppobs.journal.codec import encode
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    Context,
    ContextRecord,
    EndRecord,
    Record,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)

START = 1_700_000_000_000_000_000
CREATED = START - 1_000_000_000


@dataclass
class HandWritten:
    """One journal in a directory, written with plain file operations; dead unless `owned`."""

    directory: Path
    journal: str = field(default_factory=lambda: uuid.uuid4().hex)
    texts: dict[str, int] = field(default_factory=dict)

    def path(self, segment: int) -> Path:
        """Return the path of a segment."""
        return self.directory / fmt.segment_name(self.journal, segment)

    @property
    def head(self) -> Path:
        """Return the path of the head."""
        return self.directory / fmt.head_name(self.journal)

    @property
    def lock(self) -> Path:
        """Return the path of the lock file."""
        return self.directory / fmt.lock_name(self.journal)

    def write_head(
        self, slots: dict[int, bytes] | None = None, dropped: dict[int, int] | None = None, pid: int = 2**22 + 1
    ) -> None:
        """Write the head with some slots and totals, and an empty lock file beside it."""
        words = [0] * (fmt.HEAD_BYTES // 8)
        high, low = int(self.journal, 16) >> 64, int(self.journal, 16) & (1 << 64) - 1
        words[:6] = [fmt.HEAD_MAGIC, fmt.VERSION, high, low, CREATED, pid]
        for word, total in (dropped or {}).items():
            words[word] = total
        table = bytearray(fmt.SLOT_PAGE_BYTES * (1 + max(slots or {0: b""}) // fmt.SLOTS_PER_PAGE))
        for index, slot in (slots or {}).items():
            table[index * fmt.SLOT_BYTES : index * fmt.SLOT_BYTES + len(slot)] = slot
        self.head.write_bytes(b"".join(word.to_bytes(8, "little") for word in words) + table)
        self.lock.touch()

    def header(self, segment: int, size: int) -> bytes:
        """Return the header of a segment."""
        high, low = int(self.journal, 16) >> 64, int(self.journal, 16) & (1 << 64) - 1
        return fmt.RECORD.pack(fmt.SEGMENT_MAGIC, fmt.VERSION, high, low, segment, size, CREATED, 0, 0, 0, 0, 0)

    def write_segment(
        self,
        segment: int,
        records: Iterable[Record] | bytes,
        *,
        size: int = fmt.FIRST_SEGMENT_BYTES,
        full: bool = False,
    ) -> bytes:
        """Write a segment; return its records as bytes. A full one is filled up as its owner leaves it."""
        if not isinstance(records, bytes):
            self.texts.clear()  # a segment stands alone
            records = self.encode(records)
        data = records
        if full:
            places = size // fmt.RECORD_BYTES - 1 - fmt.SEALER_RECORDS
            pad = fmt.RECORD.pack(fmt.head_word(fmt.Kind.PAD), *[1] * 11)
            data += pad * (places - len(data) // fmt.RECORD_BYTES)
        self.path(segment).write_bytes((self.header(segment, size) + data).ljust(size, b"\0"))
        return data

    def append(self, segment: int, place: int, data: bytes) -> None:
        """Write records into a segment at a place."""
        with self.path(segment).open("r+b") as file:
            file.seek((1 + place) * fmt.RECORD_BYTES)
            file.write(data)

    def encode(self, records: Iterable[Record]) -> bytes:
        """Return records as bytes, each after the texts that it names for the first time."""
        out = bytearray()
        for record in records:
            new: list[tuple[str, int]] = []
            data = encode(record, lambda text, new=new: self._number(text, new))  # type: ignore[misc]
            for text, number in new:
                out += fmt.text_records(fmt.TextKind.INTERNED, text, number)
            out += data
        return bytes(out)

    def _number(self, text: str, new: list[tuple[str, int]]) -> int:
        if text and text not in self.texts:
            self.texts[text] = len(self.texts) + 1
            new.append((text, self.texts[text]))
        return self.texts.get(text, 0)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the journal's lock, as a live owner does."""
        file = os.open(self.lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(file)


def slot(
    start_ns: int,
    *,
    context_id: int = 1,
    shard_key: int = 0,
    attempt: int = 0,
    is_job: bool = False,
    speculative: bool = False,
    progress: float | None = None,
    progressed_ns: int = 0,
    checkpoint_ns: int = 0,
    settled_ns: int = 0,
) -> bytes:
    """Return the words of an occupied slot."""
    kind = fmt.SLOT_JOB if is_job else fmt.SLOT_ATTEMPT
    identity = fmt.slot_identity(kind, context_id, attempt, speculative=speculative)
    word = fmt.shard_word(shard_key)
    ratio = 0 if progress is None else int(progress * fmt.PROGRESS_ONE) + 1
    check = identity ^ word ^ start_ns ^ fmt.SLOT_SALT
    taken = fmt.SLOT_TAKE.pack(identity, word, start_ns, check, ratio, progressed_ns, checkpoint_ns)
    return taken + settled_ns.to_bytes(8, "little")


def opening(pipeline: str = "nightly", job_id: str = "nightly-1", stage: str = "map") -> list[Record]:
    """Return what a segment begins with: the worker, and context 1."""
    return [
        WorkerRecord(WorkerEvent.SELF, CREATED, WorkerInfo("w1", node="n1", pid=7)),
        ContextRecord(1, Context(pipeline, job_id, stage=stage)),
    ]


def attempts(count: int, first: int = 0, slot: int = 0) -> list[Record]:
    """Return finished attempts, a second apart, of half a second each."""
    return [
        AttemptRecord(
            1,
            number,
            0,
            AttemptOutcome.SUCCESS,
            START + number * 10**9,
            5 * 10**8,
            cpu_ns=10**8,
            rows=number,
            slot=slot,
        )
        for number in range(first, first + count)
    ]


def end(sealed: bool = False) -> EndRecord:
    """Return the last record of a journal."""
    return EndRecord(START + 10**12, sealed)
