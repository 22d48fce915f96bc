"""
The byte layout of a journal, in one place. `docs/journal.md` says the same for other languages.

A journal is a head file (header and slots), a lock file and a chain of segment files. Segments hold
records of twelve little-endian 64-bit words, every word encoded so that it is never 0 in a complete
record: files start as zeros, so a record that was not finished, or not begun, shows at once.

Bits are counted from the least significant. `+1` means that the word holds the value plus one.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Final

from mppobs.model import (
    AttemptOutcome,
    DetailKind,
    JobEvent,
    JobOutcome,
    Reason,
    RunKind,
    Shard,
    ShardOutcome,
    Tier,
    WorkerEvent,
)  # fmt: skip

VERSION: Final = 1
WORD: Final = 8
RECORD_WORDS: Final = 12
RECORD_BYTES: Final = RECORD_WORDS * WORD

HEAD_MAGIC: Final = int.from_bytes(b"MPPJHEAD", "little")
SEGMENT_MAGIC: Final = int.from_bytes(b"MPPJSEGM", "little")

HEAD_SUFFIX: Final = ".journal"
LOCK_SUFFIX: Final = ".lock"
"""The owner holds an exclusive `flock` on this file for life; it is never mapped, read or written."""
SEGMENT_SUFFIX: Final = ".segment"

HEAD_BYTES: Final = 4096
"""The header proper; pages of slots follow it."""
SLOT_WORDS: Final = 8
SLOT_BYTES: Final = SLOT_WORDS * WORD
SLOT_PAGE_BYTES: Final = 4096
SLOTS_PER_PAGE: Final = SLOT_PAGE_BYTES // SLOT_BYTES
MAX_SLOTS: Final = 4096
NO_SLOT: Final = 0xFFFF

FIRST_SEGMENT_BYTES: Final = 64 * 1024
"""Small, so that a task of a second costs next to nothing."""
MAX_SEGMENT_BYTES: Final = 4 * 1024 * 1024
SEALER_RECORDS: Final = 64
"""Places at the end of each segment that the owner leaves to whoever seals the journal after its death."""

MAX_TEXT_BYTES: Final = 512
MAX_ATTEMPT: Final = 0xFFFF

TOP: Final = 1 << 63
"""Set in words that are made of parts, so that they are never 0."""

RECORD: Final = struct.Struct("<12Q")
SLOT_TAKE: Final = struct.Struct("<7Q")
"""Words 0 to 6 of a slot. Word 7 belongs to the agent."""


class HeadWord(IntEnum):
    """Indexes of the words of the header."""

    MAGIC = 0
    VERSION = 1
    UUID_HIGH = 2
    UUID_LOW = 3
    CREATED_NS = 4
    PID = 5
    DROPPED_ATTEMPTS = 16
    """The first of eight totals: attempts that were not recorded, by outcome code."""
    DROPPED_OTHER = 24
    """Records other than attempts that were not written."""
    UNSLOTTED = 25
    """Attempts that ran without a slot because all were taken."""


class SegmentWord(IntEnum):
    """Indexes of the words of a segment's header, which takes the place of one record."""

    MAGIC = 0
    VERSION = 1
    UUID_HIGH = 2
    UUID_LOW = 3
    INDEX = 4
    BYTES = 5
    CREATED_NS = 6


class SlotWord(IntEnum):
    """Indexes of the words of a slot."""

    IDENTITY = 0
    """0 while the slot is free. See `slot_identity`."""
    SHARD = 1
    """The shard's `shard_word`; of a job's slot, that of 0."""
    START = 2
    """Nanoseconds since the epoch."""
    CHECK = 3
    """Identity ^ shard ^ start ^ `SLOT_SALT`: a slot whose owner died while taking it does not add up."""
    PROGRESS = 4
    """0 for never said, or the ratio times 2^32, +1."""
    PROGRESSED_NS = 5
    CHECKPOINT_NS = 6
    SETTLED_NS = 7
    """Start of the newest attempt of this slot in a segment that the agent has deleted. Written by the agent alone."""


SLOT_SALT: Final = 0x6D7070_6F6273_0001
SLOT_ATTEMPT: Final = 1
SLOT_JOB: Final = 2
PROGRESS_ONE: Final = 1 << 32


class Kind(IntEnum):
    """The kind of a record: bits 0 to 7 of its first word."""

    TEXT = 1
    TEXT_MORE = 2
    CONTEXT = 3
    WORKER = 4
    JOB = 5
    PLAN = 6
    DISPATCH = 7
    ATTEMPT = 8
    COMMIT = 9
    DETAIL = 10
    SAMPLE = 11
    HEARTBEAT = 12
    DROP = 13
    PAD = 14
    """Fills the end of a segment that was left early."""
    END = 15


class TextKind(IntEnum):
    """What a text is for."""

    INTERNED = 1
    SHARD_NAME = 2


# Codes are part of the format: never renumber, only append.
ATTEMPT_CODES: Final = {outcome: code for code, outcome in enumerate(AttemptOutcome, 1)}
SHARD_CODES: Final = {outcome: code for code, outcome in enumerate(ShardOutcome, 1)}
JOB_CODES: Final = {outcome: code for code, outcome in enumerate(JobOutcome, 1)}
JOB_EVENT_CODES: Final = {event: code for code, event in enumerate(JobEvent, 1)}
WORKER_EVENT_CODES: Final = {event: code for code, event in enumerate(WorkerEvent, 1)}
DETAIL_CODES: Final = {kind: code for code, kind in enumerate(DetailKind, 1)}
TIER_CODES: Final = {tier: code for code, tier in enumerate(Tier, 1)}
RUN_KIND_CODES: Final = {kind: code for code, kind in enumerate(RunKind, 1)}
REASON_CODES: Final = {reason: code for code, reason in enumerate(Reason)}

# Flags: bits 24 to 31 of a record's first word, by kind.
FLAG_SPECULATIVE: Final = 1
"""ATTEMPT, DISPATCH."""
FLAG_NO_CPU: Final = 2
"""ATTEMPT: the CPU word says nothing."""
FLAG_HAS_DELAY: Final = 4
"""ATTEMPT: the delay word is meant."""
FLAG_FINAL: Final = 1
"""PLAN: the stage's plan is complete."""
FLAG_COORDINATED: Final = 1
"""JOB: shards are decided by commits alone."""
FLAG_SPOT: Final = 1
"""WORKER."""
FLAG_DEDICATED: Final = 2
"""WORKER."""

TEXT_FIRST_BYTES: Final = 9 * 7
TEXT_MORE_BYTES: Final = 11 * 7
"""Text travels seven bytes to a word; the eighth is 1, so that no word is 0."""

_INTEGER_SHARDS: Final = 1 << 61


def head_name(journal: str) -> str:
    """Return the file name of a journal's head. Files come into view by renaming: a leading dot means not yet."""
    return f"{journal}{HEAD_SUFFIX}"


def lock_name(journal: str) -> str:
    """Return the file name of a journal's lock."""
    return f"{journal}{LOCK_SUFFIX}"


def segment_name(journal: str, index: int) -> str:
    """
    Return the file name of a segment. Indexes grow by one; a journal's first is 0.

    >>> segment_name("ab" * 16, 3)
    'abababababababababababababababab.000003.segment'
    """
    return f"{journal}.{index:06d}{SEGMENT_SUFFIX}"


def head_word(kind: Kind, code: int = 0, detail: int = 0, flags: int = 0, number: int = 0) -> int:
    """
    Return the first word of a record.

    `code` (bits 8 to 15) is the record's outcome or event, `detail` (16 to 23) its reason or count,
    `number` (32 to 63) its context, or for a TEXT the number that it defines.

    >>> hex(head_word(Kind.ATTEMPT, code=1, number=7))
    '0x700000108'
    """
    return kind | code << 8 | detail << 16 | flags << 24 | number << 32


def pair(low: int, high: int = 0) -> int:
    """
    Return two numbers in one word: `low` in bits 0 to 31, `high` in bits 32 to 62.

    >>> unpair(pair(3, 4))
    (3, 4)
    """
    return TOP | high << 32 | low


def unpair(word: int) -> tuple[int, int]:
    """Return the two numbers of a word made by `pair`."""
    return word & 0xFFFFFFFF, (word >> 32) & 0x7FFFFFFF


def link(attempt: int, slot: int = NO_SLOT, error_type: int = 0) -> int:
    """
    Return the word that says which attempt this is: its number, its slot, and the text of its error type.

    >>> unlink(link(2, slot=5, error_type=9))
    (2, 5, 9)
    """
    return TOP | error_type << 32 | slot << 16 | min(attempt, MAX_ATTEMPT)


def unlink(word: int) -> tuple[int, int, int]:
    """Return attempt, slot and error type of a word made by `link`."""
    return word & 0xFFFF, (word >> 16) & 0xFFFF, (word >> 32) & 0x7FFFFFFF


def shard_key(shard: Shard) -> int:
    """
    Return the 62-bit number by which records name a shard, the same in every process.

    An integer from 0 to 2^61 - 1 is itself. Anything else is its name's hash with bit 61 set; a TEXT
    record carries the name. (Among a million names in one stage two collide with a chance of 2 in 10 million.)

    >>> shard_key(42)
    42
    >>> shard_key("part-00042") >= 2**61
    True
    """
    if type(shard) is int and 0 <= shard < _INTEGER_SHARDS:
        return shard
    digest = hashlib.blake2b(str(shard).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return _INTEGER_SHARDS | int.from_bytes(digest, "little") & (_INTEGER_SHARDS - 1)


def is_named(key: int) -> bool:
    """Return whether a shard key stands for a name."""
    return key >= _INTEGER_SHARDS


def shard_word(key: int) -> int:
    """Return the word in which a record carries a shard key."""
    return key << 1 | 1


def slot_identity(kind: int, context_id: int, attempt: int = 0, *, speculative: bool = False) -> int:
    """
    Return word 0 of an occupied slot: kind (bits 0-7), flags (8-15), attempt (16-31), context (32-62).

    >>> slot_identity(SLOT_ATTEMPT, 3, 2) & 0xFF
    1
    """
    return TOP | context_id << 32 | min(attempt, MAX_ATTEMPT) << 16 | speculative << 8 | kind


def text_records(kind: TextKind, text: str, number: int = 0, key: int = 0) -> bytes:
    """
    Return the TEXT record of a text and what it needs of TEXT_MORE records, to be written in one piece.

    Longer texts are cut to `MAX_TEXT_BYTES` of UTF-8, at a character's edge.

    >>> len(text_records(TextKind.INTERNED, "map", number=1)) == RECORD_BYTES
    True
    """
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_TEXT_BYTES:
        data = data[:MAX_TEXT_BYTES].decode("utf-8", "ignore").encode()
    rest = data[TEXT_FIRST_BYTES:]
    more = [rest[i : i + TEXT_MORE_BYTES] for i in range(0, len(rest), TEXT_MORE_BYTES)]
    first = head_word(Kind.TEXT, code=kind, detail=len(more), number=number)
    out = [RECORD.pack(first, len(data) + 1, shard_word(key), *_text_words(data[:TEXT_FIRST_BYTES], 9))]
    out += [RECORD.pack(head_word(Kind.TEXT_MORE), *_text_words(part, 11)) for part in more]
    return b"".join(out)


def text_of(words: list[int], length: int) -> str:
    """Return the text of a TEXT record's words 3 to 11 and of the words 1 to 11 of each TEXT_MORE after it."""
    data = b"".join((word & ((1 << 56) - 1)).to_bytes(7, "little") for word in words)
    return data[:length].decode("utf-8", "replace")


def _text_words(data: bytes, count: int) -> list[int]:
    """Return `count` words of seven bytes each."""
    return [int.from_bytes(data[i * 7 : i * 7 + 7], "little") | 1 << 56 for i in range(count)]
