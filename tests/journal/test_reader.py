"""Files of journals are read as they are, and anything else is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.clock import ManualClock
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode_all
from mppobs.journal.reader import (
    MAX_HEAD_BYTES,
    owner_is_alive,
    read_head,
    read_records,
    read_segment_header,
    read_slots,
    scan,
)
from mppobs.journal.writer import JournalWriter
from mppobs.model import AttemptOutcome, Context, Slot, WorkerInfo
from tests.journal.journals import START, HandWritten, attempts, opening, slot


@pytest.fixture
def journal(tmp_path: Path) -> HandWritten:
    """Return a journal with a head and one segment of ten attempts."""
    made = HandWritten(tmp_path)
    made.write_head({0: slot(START, shard_key=3, attempt=1)})
    made.write_segment(0, opening() + attempts(10))
    return made


def test_scan_finds_the_files_of_each_journal(tmp_path: Path, journal: HandWritten) -> None:
    """A directory is read as journals, segments in their order; other names are nobody's."""
    journal.write_segment(10, b"")
    journal.write_segment(2, b"")
    for name in ("notes.txt", f".{journal.journal}.000003.segment", f"{journal.journal}.x.segment", "A" * 32 + ".lock"):
        (tmp_path / name).touch()

    (found,) = scan(tmp_path)

    assert (found.journal, found.head, found.lock) == (journal.journal, journal.head, journal.lock)
    assert list(found.segments.items()) == [(index, journal.path(index)) for index in (0, 2, 10)]
    assert not found.is_shipped


def test_scan_of_nothing(tmp_path: Path) -> None:
    """A directory that is not there has no journals."""
    assert scan(tmp_path / "gone") == []


def test_head_and_slots_are_read(journal: HandWritten) -> None:
    """The head says whose it is and what was dropped, its slots what runs."""
    journal.write_head(
        {1: slot(START, shard_key=3, attempt=1, progress=0.5, progressed_ns=9), 70: slot(START, is_job=True)},
        {fmt.HeadWord.DROPPED_ATTEMPTS + 1: 4, fmt.HeadWord.DROPPED_OTHER: 2, fmt.HeadWord.UNSLOTTED: 1},
        pid=77,
    )

    head = read_head(journal.head)

    assert (head.journal, head.pid) == (journal.journal, 77)
    assert (head.dropped, head.dropped_other, head.unslotted) == ({AttemptOutcome.SUCCESS: 4}, 2, 1)
    assert read_slots(journal.head) == [
        Slot(1, 1, START, shard_key=3, attempt=1, progress=0.5, progressed_ns=9),
        Slot(70, 1, START, is_job=True),
    ]


@pytest.mark.parametrize("word", range(4))
def test_a_slot_that_does_not_add_up_is_left_out(journal: HandWritten, word: int) -> None:
    """A slot caught while it was being taken shows nothing."""
    torn = bytearray(slot(START, shard_key=3))
    torn[word * 8 : word * 8 + 8] = bytes(8)
    journal.write_head({0: bytes(torn)})

    assert read_slots(journal.head) == []


def test_a_settled_slot_is_left_out(journal: HandWritten) -> None:
    """A slot whose attempt is recorded in a deleted segment shows nothing; the next attempt in it does."""
    journal.write_head({0: slot(START, settled_ns=START), 1: slot(START + 1, settled_ns=START)})

    assert [each.index for each in read_slots(journal.head)] == [1]


def test_a_writer_is_read_as_it_means_it(tmp_path: Path) -> None:
    """What the real writer shows and records is what readers see."""
    writer = JournalWriter(tmp_path, WorkerInfo("w1"), clock=ManualClock(START))
    context = writer.context_id(Context("nightly", "nightly-1", stage="map"))
    place = writer.begin(context, 5, 2, start_ns=START, speculative=True)
    assert place is not None
    writer.progress(place, 0.25)
    writer.append(attempts(1)[0])

    (files,) = scan(tmp_path)
    assert files.head is not None
    (running,) = read_slots(files.head)
    records = list(decode_all(fmt.RECORD.iter_unpack(read_records(files.segments[0], 0, 1000))))

    assert (running.context_id, running.shard_key, running.attempt) == (context, 5, 2)
    assert (running.speculative, running.progress, running.progressed_ns) == (True, 0.25, START)
    assert records[-1] == attempts(1)[0]
    assert read_head(files.head).pid == os.getpid()
    assert owner_is_alive(files)
    writer.close()
    assert not owner_is_alive(files)


def test_records_end_at_the_first_incomplete_one(journal: HandWritten) -> None:
    """A prefix of complete records is returned, wherever one asks it to begin."""
    data = journal.write_segment(0, opening() + attempts(10))
    count = len(data) // fmt.RECORD_BYTES
    torn = bytearray(data)
    torn[-5 * 96 + 40 : -5 * 96 + 48] = bytes(8)
    journal.write_segment(0, bytes(torn))

    assert read_records(journal.path(0), 0, 1000) == data[: -5 * 96]
    assert read_records(journal.path(0), 3, 2) == data[3 * 96 : 5 * 96]
    assert read_records(journal.path(0), count - 4, 1000) == data[-4 * 96 :]
    assert read_records(journal.path(0), -1, 5) == b""


def test_links_and_other_files_are_refused(tmp_path: Path, journal: HandWritten) -> None:
    """Nothing but a regular file is opened: a link, a pipe or a directory in a journal's place is an error."""
    link = tmp_path / fmt.segment_name(journal.journal, 1)
    link.symlink_to(journal.path(0))
    pipe = tmp_path / fmt.segment_name(journal.journal, 2)
    os.mkfifo(pipe)
    folder = tmp_path / fmt.segment_name(journal.journal, 3)
    folder.mkdir()

    for path in (link, pipe, folder, tmp_path / "gone"):
        with pytest.raises(JournalError, match=path.name):
            read_records(path, 0, 1)


def test_absurd_sizes_are_refused(journal: HandWritten) -> None:
    """A file larger than any journal's is not read, however little of it is asked for."""
    os.truncate(journal.path(0), fmt.MAX_SEGMENT_BYTES + 1)
    os.truncate(journal.head, MAX_HEAD_BYTES + 1)

    with pytest.raises(JournalError, match="more than any journal"):
        read_records(journal.path(0), 0, 1)
    with pytest.raises(JournalError, match="more than any journal"):
        read_slots(journal.head)


@pytest.mark.parametrize("size", [0, 96, 6 * 1024, fmt.MAX_SEGMENT_BYTES + 96, 2**60])
def test_a_segment_of_an_impossible_size_is_refused(journal: HandWritten, size: int) -> None:
    """What the header says of the size is not believed beyond reason."""
    journal.path(0).write_bytes(journal.header(0, size).ljust(65536, b"\0"))

    with pytest.raises(JournalError, match="does not have"):
        read_segment_header(journal.path(0))


def test_a_segment_under_another_name_is_refused(tmp_path: Path, journal: HandWritten) -> None:
    """A segment that was renamed, or copied from another journal, is no segment of this one."""
    path = journal.path(0).rename(tmp_path / fmt.segment_name(journal.journal, 1))

    with pytest.raises(JournalError, match="holds segment 0"):
        read_segment_header(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_bytes_never_break_a_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes of any origin in a head or a segment give values or `JournalError`."""
    made = HandWritten(tmp_path_factory.mktemp("random"))
    noise = data.draw(st.binary(max_size=12_000))
    made.head.write_bytes(noise)
    made.path(0).write_bytes(made.header(0, 65536) + noise if data.draw(st.booleans()) else noise)

    for read in (read_head, read_slots):
        try:
            read(made.head)
        except JournalError:
            continue
    try:
        read_segment_header(made.path(0))
    except JournalError:
        return
    found = read_records(made.path(0), 0, 10_000)
    assert all(all(words) for words in fmt.RECORD.iter_unpack(found))


def test_a_head_cut_at_every_size(journal: HandWritten) -> None:
    """A head that is shorter than it should be gives the slots that are whole, or an error, never anything else."""
    whole = journal.head.read_bytes()
    for size in [*range(0, 300, 7), *range(fmt.HEAD_BYTES - 9, fmt.HEAD_BYTES + 140)]:
        journal.head.write_bytes(whole[:size])
        expected = 1 if size >= fmt.HEAD_BYTES + fmt.SLOT_BYTES else 0
        assert len(read_slots(journal.head)) == expected


def test_the_owner_lives_as_long_as_the_lock(journal: HandWritten) -> None:
    """Life is told by the lock; where somebody removed its file, by the process; a shipped copy has no owner."""
    (files,) = scan(journal.directory)
    with journal.owned():
        assert owner_is_alive(files)
    assert not owner_is_alive(files)

    journal.lock.unlink()
    (files,) = scan(journal.directory)
    assert not owner_is_alive(files)
    journal.write_head(pid=os.getpid())
    journal.lock.unlink()
    assert owner_is_alive(files)

    journal.head.unlink()
    (files,) = scan(journal.directory)
    assert files.is_shipped
    assert not owner_is_alive(files)
