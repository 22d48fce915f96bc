"""
The owner's side of a journal: appending records, taking slots, and never harming the work that it records.

Appending is one call of `mmap.write`, which reserves and stores under the interpreter's lock. Everything else, from
naming a text to allocating the next segment, is the slow path, whose actions take turns (`mppobs.journal.turns`).
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from mppobs.clock import Clock, SystemClock
from mppobs.errors import ConfigError
from mppobs.journal import format as fmt
from mppobs.journal._encode import encode
from mppobs.journal.closing import close_segment, total_of
from mppobs.journal.format import HeadWord, SlotWord
from mppobs.journal.interning import ContextHandle, ContextTable, NameCache, Opening
from mppobs.journal.mounts import require_local
from mppobs.journal.segments import PAD, SegmentChain, refuse
from mppobs.journal.slots import Head, Place, Running, occupy, vacate
from mppobs.journal.turns import Turns
from mppobs.model import (
    AttemptRecord,
    Context,
    ContextRecord,
    DetailRecord,
    DropRecord,
    Record,
    Shard,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)  # fmt: skip

DEFAULT_BUDGET_BYTES: Final = 256 * 1024 * 1024
RETRY_NS: Final = 1_000_000_000
"""How long a writer that found no room drops records before it looks again."""
_INTEGER_SHARDS: Final = 1 << 61


class _Full(Exception):
    """Raised inside the slow path when the segment has no place for what is to be written."""


class JournalWriter:
    """
    One process's journal. Safe to use from any thread; not in a forked child, which calls `abandon` and makes its own.

    Construction raises `ConfigError` where the directory cannot hold a journal. Nothing raises after that: what
    cannot be written is counted in the head, by outcome, and said in a DROP record once there is room.

    >>> import tempfile
    >>> from mppobs.model import Context, WorkerInfo
    >>> writer = JournalWriter(Path(tempfile.mkdtemp()), WorkerInfo("w1"))
    >>> writer.context_id(Context("nightly", "nightly-1"))
    1
    >>> writer.close()
    """

    def __init__(
        self,
        directory: Path,
        info: WorkerInfo,
        *,
        clock: Clock | None = None,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
        identity: str = "",
    ) -> None:
        """Open a journal. With `identity` (32 hexadecimal digits) equal records give equal bytes: for simulations."""
        self._clock: Clock = clock or SystemClock()
        self._turns = Turns()
        self._contexts = ContextTable()
        self._defined: set[int] = set()
        self._texts: dict[str, int] = {}
        self._next_text = 1
        self._retry_ns = 0
        self._said_drops = 0
        self._segment: mmap.mmap | None = None
        self.names = NameCache()
        self.directory = directory
        self.info = info
        self.closed = False
        self.last_context = 0
        """Number of the context that ran last; set by whoever runs attempts."""
        self.peak_word = 1
        """The last word of an attempt's record: the process's peak memory as last sampled, plus one."""
        self.retired: deque[mmap.mmap] | None = None
        """Where full segments go for a reader in this process; `None` where there is none."""
        self.write: Callable[[bytes], int] = refuse
        """Appends records that name no text. Raises `ValueError` where they do not fit: see `overflow`."""
        self.journal = identity or os.urandom(16).hex()
        """The journal's identity, as in the names of its files."""
        self._open(budget_bytes, info.pid if identity else os.getpid())

    def _open(self, budget_bytes: int, pid: int) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_local(self.directory)
            uuid = int(self.journal, 16)
            self._chain = SegmentChain(self.directory, uuid, budget_bytes)
            self._head = Head(self.directory, uuid, self._clock.time_ns(), pid)
        except OSError as error:
            raise ConfigError(f"{self.directory} cannot hold a journal: {error}") from error
        self.free_slots = self._head.slots.free
        with self._turns.lock:
            self._rotate()

    # Records

    def append(self, *records: Record) -> None:
        """Append records, in one piece, of any kind but TEXT and CONTEXT, which are written where they are needed."""
        self._turns.take(partial(self._append, records))

    def append_attempt(self, attempt: AttemptRecord, details: Sequence[DetailRecord] = ()) -> None:
        """Append an attempt that needs more than `write`: details, which go before it, or the name of an error."""
        self._turns.take(partial(self._append, (*details, attempt)))

    def overflow(self, data: bytes, code: int) -> None:
        """Append the record of an attempt that `write` refused; `code` is its outcome."""
        self._turns.take(partial(self._overflow, data, code))

    def context(self, context: Context) -> ContextHandle:
        """
        Return the handle of a context, defining it where it is new.

        Every new segment defines it again for as long as the handle is held.
        """
        with self._turns.lock:
            handle = self._contexts.handle(context)
            if handle.number not in self._defined:
                self._turns.take(partial(self._define, handle))
        return handle

    def context_id(self, context: Context) -> int:
        """Return the number of a context. Ask again rather than keep it: the 256 asked for last stay defined."""
        return self.context(context).number

    def name_shard(self, shard: Shard) -> int:
        """Return the key of a shard, writing its name where the segment does not have it yet."""
        if type(shard) is int and 0 <= shard < _INTEGER_SHARDS:
            return shard
        name = str(shard)
        with self._turns.lock:
            key = self.names.get(name)
            if key is None:
                key = fmt.shard_key(shard)
                self._turns.take(partial(self._name, name, key))
        return key

    # Slots

    def begin(
        self,
        context_id: int,
        shard_key: int = 0,
        attempt: int = 0,
        *,
        start_ns: int,
        speculative: bool = False,
        is_job: bool = False,
    ) -> Place | None:
        """Show an attempt or a job as running. `None`, and counted, where every slot is taken."""
        place = self.take_slot()
        if place is not None:
            kind = fmt.SLOT_JOB if is_job else fmt.SLOT_ATTEMPT
            identity = fmt.slot_identity(kind, context_id, attempt, speculative=speculative)
            occupy(place, identity, fmt.shard_word(shard_key), start_ns)
        return place

    def end(self, place: Place) -> None:
        """Show that what ran in a slot is over. Its record comes first."""
        if not self.closed:
            vacate(place)
            self.free_slots.append(place)

    def take_slot(self) -> Place | None:
        """Return a free slot, making more where there is none. `None`, and counted, past the limit."""
        try:
            return self.free_slots.pop()
        except IndexError:
            pass
        with self._turns.lock:
            if self.closed:
                return None
            place = self._head.slots.grow()
            if place is None:
                self._head.count(HeadWord.UNSLOTTED)
            return place

    def progress(self, place: Place, ratio: float) -> None:
        """Store how far an attempt or a job has come, in [0, 1]."""
        words, base = place.words, place.base
        words[base + SlotWord.PROGRESS] = int(min(max(ratio, 0.0), 1.0) * fmt.PROGRESS_ONE) + 1
        words[base + SlotWord.PROGRESSED_NS] = self._clock.time_ns()

    def checkpoint(self, place: Place) -> None:
        """Store that a checkpoint was taken now."""
        words, base = place.words, place.base
        words[base + SlotWord.CHECKPOINT_NS] = self._clock.time_ns()

    def running(self) -> list[Running]:
        """Return what the occupied slots say."""
        with self._turns.lock:
            return [] if self.closed else list(self._head.slots.running())

    # What this process may ask of its own journal

    def dropped(self) -> DropRecord:
        """Return what could not be written so far."""
        with self._turns.lock:
            return DropRecord(self._clock.time_ns()) if self.closed else self._drops()

    @property
    def errors(self) -> int:
        """Return how often this code itself failed; none of it reached the caller."""
        return self._turns.errors

    def unslotted(self) -> int:
        """Return how many attempts ran without a slot because all were taken."""
        with self._turns.lock:
            return 0 if self.closed else self._head.unslotted()

    def segment(self) -> mmap.mmap | None:
        """Return the mapping that is being written, for a reader in this process: complete up to its position."""
        return self._segment

    def sync(self) -> None:
        """Have the kernel write the segment to the disk. Raises `OSError` where that fails; waits for the disk."""
        segment = self._segment
        if segment is not None:
            segment.flush()

    # Life

    def close(self) -> None:
        """
        Record what still runs as ended by the shutdown, write END, and let go. Later calls change nothing.

        Where there is no room for that, the journal is left to be sealed, like that of a process that died.
        """
        with self._turns.lock:
            if self.closed:
                return
            self._turns.take(self._finish)
            self._release()

    def abandon(self) -> None:
        """Let go of an inherited journal, in a forked child: its parent goes on writing it."""
        self._turns = Turns()  # the parent's may be held by a thread that does not exist here
        self._release()

    def _finish(self) -> None:
        if self._segment is not None:
            drops = self._drops()
            unsaid = drops if total_of(drops) != self._said_drops else None
            close_segment(self._segment, self._head.slots.running(), unsaid, self._clock.time_ns())

    def _release(self) -> None:
        self.closed = True
        self.write = refuse
        if self._segment is not None:
            if self.retired is None:
                self._segment.close()
            else:
                self.retired.append(self._segment)
        self._segment = None
        try:
            self._head.release()
        except (OSError, ValueError):
            self._turns.errors += 1  # a descriptor that somebody else closed: nothing is left to let go of

    # The slow path

    def _append(self, records: tuple[Record, ...]) -> None:
        if not self._fitting(lambda: self._put_all(records)):
            for record in records:
                code = fmt.ATTEMPT_CODES[record.outcome] if isinstance(record, AttemptRecord) else 0
                self._drop(code)

    def _overflow(self, data: bytes, code: int) -> None:
        if not self._fitting(lambda: self._put(data)):
            self._drop(code)

    def _define(self, handle: ContextHandle) -> None:
        def put() -> None:
            if handle.number not in self._defined:
                self._put(encode(ContextRecord(handle.number, handle.context), self._text_id))
                self._defined.add(handle.number)

        self._fitting(put)  # else the next segment defines it: whoever needs it holds the handle

    def _name(self, name: str, key: int) -> None:
        def put() -> None:
            if self.names.get(name) is None:
                self._put(fmt.text_records(fmt.TextKind.SHARD_NAME, name, key=key))
                self.names.add(name, key)

        if not self._fitting(put):
            self._drop(0)

    def _fitting(self, put: Callable[[], None]) -> bool:
        """Call `put`, once more in a new segment where this one is full; `False` without room."""
        for _ in range(2):
            try:
                put()
            except _Full:
                if not self._rotate():
                    return False
            else:
                return True
        return False

    def _put_all(self, records: tuple[Record, ...]) -> None:
        """Write records in one piece, after what they name."""
        parts = []
        for record in records:
            handle = self._contexts.find(getattr(record, "context_id", 0))
            if handle is not None and handle.number not in self._defined:
                self._put(encode(ContextRecord(handle.number, handle.context), self._text_id))
                self._defined.add(handle.number)
            parts.append(encode(record, self._text_id))
        self._put(b"".join(parts))

    def _put(self, data: bytes) -> None:
        try:
            self.write(data)
        except ValueError:
            raise _Full from None

    def _text_id(self, text: str) -> int:
        if not text:
            return 0
        number = self._texts.get(text)
        if number is None:
            number = self._next_text
            self._put(fmt.text_records(fmt.TextKind.INTERNED, text, number))
            self._texts[text] = number
            self._next_text = number + 1
        return number

    def _drop(self, code: int) -> None:
        """Count an attempt by its outcome's code, or with 0 another record, as not written."""
        if not self.closed:
            self._head.count(HeadWord.DROPPED_ATTEMPTS + code if code else HeadWord.DROPPED_OTHER)

    def _rotate(self) -> bool:
        """Go on in a new segment. `False` where there is no room, which is then not looked for again for a second."""
        now = self._clock.monotonic_ns()
        if self.closed or now < self._retry_ns:
            return False
        drops = self._drops()
        opening = self._opening(drops)
        try:
            segment = self._chain.extend(self._clock.time_ns(), opening.data())
        except OSError:
            self._retry_ns = now + RETRY_NS
            return False
        self._retire()
        self._segment = segment
        self._texts, self._next_text = opening.texts, opening.next_text
        self._defined, self.names = opening.contexts, opening.names
        self._said_drops = total_of(drops)
        self.write = segment.write
        return True

    def _opening(self, drops: DropRecord) -> Opening:
        """Return what a new segment begins with, so that a reader may start at it."""
        opening = Opening(self._texts, self._next_text)
        opening.add(WorkerRecord(WorkerEvent.SELF, self._clock.time_ns(), self.info))
        opening.add_contexts(self._contexts.in_use())
        running = {slot.shard_word >> 1 for slot in self._head.slots.running()}
        opening.add_names(self.names.those_of(running))
        if total_of(drops):
            opening.add(drops)
        return opening

    def _retire(self) -> None:
        """Fill up the segment that is left: nothing more is written to it, and a reader sees that it is complete."""
        segment = self._segment
        if segment is None:
            return
        with suppress(ValueError):
            while True:
                segment.write(PAD)
        if self.retired is None:
            segment.close()
        else:
            self.retired.append(segment)

    def _drops(self) -> DropRecord:
        attempts, other = self._head.dropped()
        return DropRecord(self._clock.time_ns(), attempts, other)
