"""`docs/journal.md` says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mppobs.journal import format as fmt
from mppobs.journal.codec import decode_all, encode
from mppobs.journal.reader import parse_segment_header
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

PAGE = (Path(__file__).parents[2] / "docs" / "journal.md").read_text()
START = 1_700_000_000_000_000_000

EXAMPLE: list[Record] = [
    WorkerRecord(WorkerEvent.SELF, START, WorkerInfo("w-1", pid=4711)),
    ContextRecord(1, Context("nightly", "nightly-1", stage="map", tenant="", cluster="")),
    AttemptRecord(
        1, 42, 0, AttemptOutcome.SUCCESS, START + 5 * 10**8, 25 * 10**7, cpu_ns=2 * 10**8, rows=1000,
        shuffle_written=4096, slot=3,
    ),
    EndRecord(START + 10**9, sealed=False),
]  # fmt: skip


def example() -> dict[int, bytes]:
    """Return the page's example: bytes by their offset."""
    (block,) = re.findall(r"^```\n(# segment header.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = {}
    for part in block.split("# ")[1:]:
        title, *lines = part.splitlines()
        words = [int(word, 16) for line in lines for word in line.split()]
        found[int(title.rsplit(" ", 1)[1])] = fmt.RECORD.pack(*words)
    return found


def test_the_example_is_what_a_reader_makes_of_it() -> None:
    """The words of the example decode to the records that the text describes."""
    parts = example()
    records = list(decode_all(fmt.RECORD.iter_unpack(b"".join(parts[at] for at in sorted(parts) if at))))

    assert sorted(parts) == [96 * place for place in range(len(parts))]
    assert [record for record in records if not hasattr(record, "text_id")] == EXAMPLE
    name = fmt.segment_name("0123456789abcdef" * 2, 0)
    assert parse_segment_header(parts[0], name).size == fmt.FIRST_SEGMENT_BYTES


def test_the_example_is_what_a_writer_writes() -> None:
    """The codec gives the words of the example."""
    texts: dict[str, int] = {}
    data = b""
    for record in EXAMPLE:
        before = len(texts)
        words = encode(record, lambda text: texts.setdefault(text, len(texts) + 1) if text else 0)
        for text, number in list(texts.items())[before:]:
            data += fmt.text_records(fmt.TextKind.INTERNED, text, number)
        data += words

    parts = example()
    assert data == b"".join(parts[at] for at in sorted(parts) if at)


CODES = {
    "attempt outcome": fmt.ATTEMPT_CODES,
    "shard outcome": fmt.SHARD_CODES,
    "job outcome": fmt.JOB_CODES,
    "job event": fmt.JOB_EVENT_CODES,
    "worker event": fmt.WORKER_EVENT_CODES,
    "kind of detail": fmt.DETAIL_CODES,
    "tier": fmt.TIER_CODES,
    "kind of run": fmt.RUN_KIND_CODES,
    "reason": fmt.REASON_CODES,
}


@pytest.mark.parametrize("name", CODES)
def test_the_codes_are_all_there(name: str) -> None:
    """Each table of codes lists what the format defines, no more and no less."""
    (line,) = re.findall(rf"^\| {name} \| (.*) \|$", PAGE, re.MULTILINE)

    assert line == ", ".join(f"{code} {member}" for member, code in CODES[name].items())


def test_the_kinds_are_all_there() -> None:
    """Each kind of record has its row, under its number."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE, re.MULTILINE)

    assert rows == [(str(int(kind)), kind.name) for kind in fmt.Kind]


def test_the_numbers_are_right() -> None:
    """Sizes, places and constants are those of the format."""
    assert f"{fmt.SLOT_SALT:#018x}" in PAGE
    assert "`MPPJHEAD`" in PAGE
    assert "`MPPJSEGM`" in PAGE
    places = fmt.FIRST_SEGMENT_BYTES // fmt.RECORD_BYTES
    assert f"A segment of {fmt.FIRST_SEGMENT_BYTES:,} bytes has {places} places" in PAGE
    assert f"{places - 1 - fmt.SEALER_RECORDS} for the owner and {fmt.SEALER_RECORDS} for the sealer" in PAGE
    assert f"at most {fmt.MAX_TEXT_BYTES} bytes" in PAGE
