"""Columns say of many records what the codec says of each."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import mppobs.journal.columns as col
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode
from mppobs.journal.format import Kind
from mppobs.model import AttemptRecord
from tests.journal.journals import HandWritten, attempts, opening
from tests.journal.test_codec import RECORDS, Texts, encode, words_of

ATTEMPTS = st.lists(RECORDS[AttemptRecord], min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(ATTEMPTS)
def test_columns_agree_with_the_codec(records: list[AttemptRecord]) -> None:
    """Every column of attempts holds what decoding one by one gives."""
    texts = Texts()
    words = col.words_of(b"".join(encode(record, texts.number) for record in records))

    assert col.kind(words).tolist() == [Kind.ATTEMPT] * len(records)
    assert col.code(words).tolist() == [fmt.ATTEMPT_CODES[record.outcome] for record in records]
    assert col.detail(words).tolist() == [fmt.REASON_CODES[record.reason] for record in records]
    assert (col.flags(words) & np.uint64(1)).tolist() == [record.speculative for record in records]
    assert col.number(words).tolist() == [record.context_id for record in records]
    assert col.shard_key(words).tolist() == [record.shard_key for record in records]
    assert col.attempt(words).tolist() == [record.attempt for record in records]
    assert col.slot(words).tolist() == [record.slot for record in records]
    assert [texts.text(number) for number in col.error_type(words).tolist()] == [each.error_type for each in records]
    assert col.value(words, 3).tolist() == [min(record.start_ns, 2**63 - 1) for record in records]
    assert col.low(words, 10).tolist() == [record.network_errors for record in records]
    assert col.high(words, 10).tolist() == [record.storage_throttled for record in records]
    assert records == [decode(row, texts.text) for row in words.tolist()]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 5, 2**63]), max_size=12 * 8))
def test_complete_prefix_is_the_naive_one(flat: list[int]) -> None:
    """The prefix ends before the first record with a word that is 0, and `complete` and `touched` agree with it."""
    flat = flat[: len(flat) // 12 * 12]
    words = col.words_of(np.array(flat, dtype="<u8").tobytes())
    rows = [flat[i : i + 12] for i in range(0, len(flat), 12)]
    naive = next((i for i, row in enumerate(rows) if 0 in row), len(rows))

    assert col.complete_prefix(words) == naive
    assert col.complete(words).tolist() == [0 not in row for row in rows]
    assert col.touched(words) == max((i + 1 for i, row in enumerate(rows) if any(row)), default=0)


def test_kinds_are_picked_in_order(tmp_path: object) -> None:
    """Records of some kinds come out in the order in which they stand."""
    data = HandWritten(tmp_path).encode(opening() + attempts(3))  # type: ignore[arg-type]
    words = col.words_of(data)

    assert col.of_kind(words, Kind.ATTEMPT)[:, 3].tolist() == [row[3] for row in words_of(data) if row[0] & 0xFF == 8]
    assert col.kind(col.of_kind(words, Kind.CONTEXT, Kind.WORKER)).tolist() == [Kind.WORKER, Kind.CONTEXT]


def test_a_text_in_the_making_is_seen() -> None:
    """However many of a text's records are there, it is known how many of them to leave for later."""
    before = fmt.text_records(fmt.TextKind.INTERNED, "short", 1)
    text = fmt.text_records(fmt.TextKind.INTERNED, "x" * fmt.MAX_TEXT_BYTES, 2)
    whole = len(text) // fmt.RECORD_BYTES

    for there in range(whole + 1):
        words = col.words_of(before + text[: there * fmt.RECORD_BYTES])
        assert col.ends_inside_text(words) == (0 if there == whole else there)
    after = col.words_of(before + text + before)
    assert col.ends_inside_text(after) == 0
    assert col.ends_inside_text(col.words_of(b"")) == 0
