"""Records survive encoding, and no word of any of them is ever 0."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode, decode_all, encode
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    ContextRecord,
    DetailKind,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    RunKind,
    SampleRecord,
    ShardOutcome,
    TextRecord,
    Tier,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)

NUMBERS = st.integers(0, 2**64 - 2)
LOW = st.integers(0, 2**32 - 1)
HIGH = st.integers(0, 2**31 - 1)
KEYS = st.integers(0, 2**62 - 1)
ATTEMPTS = st.integers(0, fmt.MAX_ATTEMPT)
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=100)
OPTIONAL = st.none() | NUMBERS

CONTEXTS = st.builds(
    Context, TEXTS, TEXTS, NUMBERS, TEXTS, TEXTS, TEXTS, TEXTS, st.sampled_from(Tier), TEXTS, st.sampled_from(RunKind),
    NUMBERS,
)  # fmt: skip
WORKERS = st.builds(WorkerInfo, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans(), st.booleans(), NUMBERS, NUMBERS)
DROPPED = st.dictionaries(st.sampled_from(AttemptOutcome), st.integers(1, 2**64 - 2))
AMOUNTS = st.lists(st.tuples(TEXTS, NUMBERS), max_size=4).map(tuple)

RECORDS: dict[type, st.SearchStrategy[Record]] = {
    ContextRecord: st.builds(ContextRecord, LOW, CONTEXTS),
    WorkerRecord: st.builds(WorkerRecord, st.sampled_from(WorkerEvent), NUMBERS, WORKERS, st.sampled_from(Reason)),
    JobRecord: st.builds(
        JobRecord, st.sampled_from(JobEvent), LOW, NUMBERS, st.none() | st.sampled_from(JobOutcome),
        st.sampled_from(Reason), TEXTS, NUMBERS, NUMBERS, NUMBERS, st.booleans(), TEXTS,
    ),
    PlanRecord: st.builds(PlanRecord, LOW, NUMBERS, NUMBERS, st.booleans(), st.none() | KEYS, NUMBERS),
    DispatchRecord: st.builds(DispatchRecord, LOW, KEYS, ATTEMPTS, NUMBERS, st.booleans(), TEXTS, NUMBERS),
    AttemptRecord: st.builds(
        AttemptRecord, LOW, KEYS, ATTEMPTS, st.sampled_from(AttemptOutcome), NUMBERS, NUMBERS, st.sampled_from(Reason),
        TEXTS, st.booleans(), OPTIONAL, OPTIONAL, NUMBERS, NUMBERS, NUMBERS, LOW, HIGH, NUMBERS, ATTEMPTS,
    ),
    CommitRecord: st.builds(
        CommitRecord, LOW, KEYS, ATTEMPTS, st.sampled_from(ShardOutcome), NUMBERS, NUMBERS, st.sampled_from(Reason),
        TEXTS, NUMBERS, NUMBERS,
    ),
    DetailRecord: st.builds(DetailRecord, st.sampled_from(DetailKind), LOW, KEYS, ATTEMPTS, NUMBERS, AMOUNTS),
    SampleRecord: st.builds(SampleRecord, LOW, *[NUMBERS] * 8),
    HeartbeatRecord: st.builds(HeartbeatRecord, LOW, NUMBERS, LOW, HIGH, LOW, HIGH, LOW, HIGH, LOW),
    DropRecord: st.builds(DropRecord, NUMBERS, DROPPED, NUMBERS),
    EndRecord: st.builds(EndRecord, NUMBERS, st.booleans()),
}  # fmt: skip


class Texts:
    """A table of texts that grows as they are named."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """Return the text's number."""
        return self.numbers.setdefault(text, len(self.numbers))

    def text(self, number: int) -> str:
        """Return the number's text."""
        return list(self.numbers)[number]

    def records(self) -> bytes:
        """Return the TEXT records of all that were named."""
        return b"".join(
            fmt.text_records(fmt.TextKind.INTERNED, text, number) for text, number in self.numbers.items() if number
        )


def words_of(data: bytes) -> list[tuple[int, ...]]:
    """Return the records of some bytes as words."""
    return list(fmt.RECORD.iter_unpack(data))


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_round_trip(kind: type) -> None:
    """Decoding what was encoded gives the same record, for every kind, and no word of it is 0."""

    @settings(max_examples=60, deadline=None)
    @given(RECORDS[kind])
    def holds(record: Record) -> None:
        texts = Texts()

        data = encode(record, texts.number)
        (words,) = words_of(data)

        assert all(words)
        assert record == decode(words, texts.text)
        assert record == list(decode_all(words_of(texts.records() + data)))[-1]

    holds()


@settings(max_examples=100, deadline=None)
@given(
    TEXTS.filter(lambda text: len(text.encode()) <= fmt.MAX_TEXT_BYTES),
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**62 - 1),
)
def test_texts_round_trip(text: str, number: int, key: int) -> None:
    """Texts survive whatever number of records they take; shard names keep their key."""
    for record in (TextRecord(text, number), TextRecord(text, 0, key)):
        words = words_of(encode(record, Texts().number))

        assert all(word for one in words for word in one)
        assert [record] == list(decode_all(words))


def test_long_texts_are_cut_at_a_character() -> None:
    """A text beyond the limit keeps what whole characters fit."""
    (record,) = decode_all(words_of(encode(TextRecord("é" * 400, 1), Texts().number)))

    assert isinstance(record, TextRecord)
    assert record.text == "é" * (fmt.MAX_TEXT_BYTES // 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXTS, NUMBERS), min_size=5, max_size=20).map(tuple))
def test_details_split(amounts: tuple[tuple[str, int], ...]) -> None:
    """More than four amounts become several records, each complete on its own."""
    texts = Texts()
    record = DetailRecord(DetailKind.ACTIVITY, 1, 2, 3, 4, amounts)

    parts = [decode(words, texts.text) for words in words_of(encode(record, texts.number))]

    assert record == replace(record, amounts=tuple(pair for part in parts for pair in part.amounts))  # type: ignore[union-attr]
    assert len(parts) == (len(amounts) + 3) // 4


def test_numbers_are_clamped() -> None:
    """A number that does not fit is recorded as the nearest that does; nothing raises, no word is 0."""
    record = AttemptRecord(
        1, 2, 70_000, AttemptOutcome.SUCCESS, -5, 2**70, cpu_ns=-1, network_errors=2**40, storage_throttled=2**40
    )

    (words,) = words_of(encode(record, Texts().number))
    back = decode(words, Texts().text)

    assert isinstance(back, AttemptRecord)
    assert all(words)
    assert (back.attempt, back.start_ns, back.duration_ns) == (fmt.MAX_ATTEMPT, 0, 2**64 - 2)
    assert (back.network_errors, back.storage_throttled) == (2**32 - 1, 2**31 - 1)


def attempt_words() -> list[int]:
    """Return the words of some attempt."""
    record = AttemptRecord(1, 2, 3, AttemptOutcome.SUCCESS, 4, 5)
    return list(words_of(encode(record, Texts().number))[0])


@pytest.mark.parametrize("place", range(fmt.RECORD_WORDS))
def test_a_zero_word_means_incomplete(place: int) -> None:
    """A record with any word still 0 is not a record yet."""
    words = attempt_words()
    words[place] = 0

    with pytest.raises(JournalError, match="incomplete"):
        decode(words, Texts().text)


NONSENSE: list[tuple[str, Callable[[list[int]], None]]] = [
    ("is no attempt outcome", lambda words: words.__setitem__(0, words[0] | 0xFF00)),
    ("is no reason", lambda words: words.__setitem__(0, words[0] | 0xFF0000)),
    ("no shard key", lambda words: words.__setitem__(1, 4)),
    ("kind 99", lambda words: words.__setitem__(0, 99)),
    ("kind 14", lambda words: words.__setitem__(0, 14)),
    ("text 7 is not defined", lambda words: words.__setitem__(2, fmt.link(0, 0, 7))),
]


@pytest.mark.parametrize(("message", "damage"), NONSENSE, ids=[message for message, _ in NONSENSE])
def test_unknown_codes_are_errors(message: str, damage: Callable[[list[int]], None]) -> None:
    """A code that nobody defined is named in a `JournalError`."""
    words = attempt_words()
    damage(words)
    if message == "kind 14":
        with pytest.raises(JournalError, match=message):
            decode(words, Texts().text)
        return

    with pytest.raises(JournalError, match=message):
        list(decode_all([words]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=fmt.RECORD_BYTES * 6))
def test_random_bytes_are_passed_over(data: bytes) -> None:
    """Bytes of any origin decode to records or to errors that name their place, never to anything else."""
    data = data[: len(data) // fmt.RECORD_BYTES * fmt.RECORD_BYTES]
    errors: list[int] = []

    records = list(decode_all(words_of(data), lambda place, error: errors.append(place)))

    assert len(records) + len(errors) <= len(data) // fmt.RECORD_BYTES
    assert errors == sorted(set(errors))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(fmt.Kind)), st.lists(st.integers(1, 2**64 - 1), min_size=12, max_size=12))
def test_random_words_of_known_kinds(kind: int, words: list[int]) -> None:
    """Complete records of nonsense decode or raise `JournalError`, whatever their kind."""
    words[0] = words[0] & ~0xFF | kind
    errors: list[JournalError] = []

    records = list(decode_all([words], lambda place, error: errors.append(error)))

    assert len(records) + len(errors) <= 1, "one record is nothing, itself, or an error"


def test_a_text_without_its_continuation_is_an_error() -> None:
    """A text that spans records and is cut off does not come out short."""
    data = fmt.text_records(fmt.TextKind.INTERNED, "x" * 100, 1)

    with pytest.raises(JournalError, match="ends early"):
        list(decode_all(words_of(data[: fmt.RECORD_BYTES])))


def test_a_torn_text_takes_nothing_with_it() -> None:
    """The record after a text that was cut off is read all the same."""
    text = fmt.text_records(fmt.TextKind.INTERNED, "x" * 100, 1)[: fmt.RECORD_BYTES]
    end = EndRecord(5, sealed=False)

    assert [end] == list(decode_all(words_of(text + encode(end, Texts().number)), lambda place, error: None))


def test_padding_is_silent() -> None:
    """Padding yields no record and no error."""
    pad = struct.pack("<12Q", fmt.Kind.PAD, *[1] * 11)

    assert list(decode_all(words_of(pad * 3))) == []
