"""A follower hands on every complete record once, in order, whatever else lies in its directories."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.clock import ManualClock, SystemClock
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode_all
from mppobs.journal.reader import read_slots
from mppobs.journal.writer import JournalWriter
from mppobs.model import AttemptOutcome, AttemptRecord, Context, EndRecord, JobEvent, JobRecord, Record, WorkerInfo
from mppobs.sidecar import removal
from mppobs.sidecar.follow import Block, Cursor, Follower, read_range
from tests.journal.journals import START, HandWritten, attempts, end, opening, slot

SECOND = 10**9
PLENTY = 1 << 30


def follower(*directories: Path, cursors: dict[str, Cursor] | None = None, seal: bool = True) -> Follower:
    """Return a follower of some directories whose clock stands still."""
    return Follower(directories, cursors or {}, clock=ManualClock(START + 1000 * SECOND), seal=seal)


def rows(blocks: Sequence[Block]) -> list[list[int]]:
    """Return the records of blocks as words."""
    return [row for block in blocks for row in block.words.tolist()]


def words(data: bytes) -> list[list[int]]:
    """Return the records of some bytes as words."""
    return [list(row) for row in fmt.RECORD.iter_unpack(data)]


def decoded(blocks: Sequence[Block]) -> list[Record]:
    """Return the records of one journal's blocks, decoded."""
    return list(decode_all(rows(blocks)))


def test_what_is_new_is_read_once(tmp_path: Path) -> None:
    """Each poll gives what was appended since the last, and says where it stands."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    first = journal.write_segment(0, opening() + attempts(3))
    count = len(first) // 96
    more = journal.encode(attempts(2, first=3))
    with journal.owned():
        reading = follower(tmp_path)
        (block,) = reading.poll(PLENTY)
        assert (block.journal, block.segment, block.first) == (journal.journal, 0, 0)
        assert rows([block]) == words(first)
        assert reading.poll(PLENTY) == []

        journal.append(0, count, more)
        (block,) = reading.poll(PLENTY)

        assert block.first == count
        assert rows([block]) == words(more)
        assert reading.cursors == {journal.journal: Cursor(0, count + 2)}


def test_segments_are_read_in_their_order(tmp_path: Path) -> None:
    """A live owner's segment is left when it is full and there is a next one; blocks never cross segments."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    journal.write_segment(0, opening() + attempts(3))
    journal.write_segment(1, opening() + attempts(3))
    with journal.owned():
        reading = follower(tmp_path)
        assert [block.segment for block in reading.poll(PLENTY)] == [0]
        assert reading.poll(PLENTY) == []

        journal.write_segment(0, opening() + attempts(3), full=True)
        blocks = reading.poll(PLENTY)
        journal.write_segment(2, [*opening(), end()])

        assert [block.segment for block in blocks] == [0, 1]
        assert reading.cursors[journal.journal].segment == 1


def test_end_is_the_last_that_is_read(tmp_path: Path) -> None:
    """After END nothing counts, in this segment or another, and the journal is done with."""
    journal = HandWritten(tmp_path)
    journal.write_segment(0, [*opening(), end(), *attempts(2)])
    journal.write_segment(1, opening() + attempts(3))
    reading = follower(tmp_path)

    records = decoded(reading.poll(PLENTY))

    assert records[-1] == end()
    assert reading.cursors[journal.journal].ended
    assert reading.poll(PLENTY) == []


def test_cursors_are_taken_up(tmp_path: Path) -> None:
    """A follower begins where its cursors say; journals without one begin at their first segment."""
    known, new = HandWritten(tmp_path, "a" * 32), HandWritten(tmp_path, "b" * 32)
    data = known.write_segment(4, opening() + attempts(5))
    known.write_segment(3, opening() + attempts(1))
    fresh = new.write_segment(7, opening() + attempts(2))
    count = len(data) // 96

    blocks = follower(tmp_path, cursors={known.journal: Cursor(4, count - 2)}).poll(PLENTY)

    assert [(block.journal, block.segment, block.first) for block in blocks] == [
        (known.journal, 4, count - 2),
        (new.journal, 7, 0),
    ]
    assert rows(blocks) == words(data)[-2:] + words(fresh)


def test_a_dead_owner_is_seen_and_its_journal_ends(tmp_path: Path) -> None:
    """Once the lock is free, what ran comes as records in the same poll, up to when the owner was last seen alive."""
    journal = HandWritten(tmp_path)
    journal.write_head({2: slot(START, shard_key=5)})
    journal.write_segment(0, opening() + attempts(3))
    clock = ManualClock(START + 10 * SECOND)
    reading = Follower([tmp_path], {}, clock=clock, seal=True)
    with journal.owned():
        reading.poll(PLENTY)
        assert [(live.alive, live.pid, len(live.slots)) for live in reading.live()] == [(True, 2**22 + 1, 1)]
        clock.advance(seconds=5)
        reading.poll(PLENTY)
    clock.advance(seconds=3)

    records = list(decode_all(rows(reading.poll(PLENTY))))

    assert isinstance(records[0], AttemptRecord)
    assert (records[0].outcome, records[0].shard_key) == (AttemptOutcome.ERROR, 5)
    assert records[0].duration_ns == 15 * SECOND
    assert records[1:] == [EndRecord(START + 18 * SECOND, sealed=True)]
    assert reading.figures.sealed_attempts == 1
    assert reading.live() == []


def test_whoever_does_not_seal_waits_for_who_does(tmp_path: Path) -> None:
    """A follower that only reads shows the dead, writes nothing, and picks up what another seals."""
    journal = HandWritten(tmp_path)
    journal.write_head({2: slot(START, shard_key=5)})
    journal.write_segment(0, opening() + attempts(3))
    reading = follower(tmp_path, seal=False)

    reading.poll(PLENTY)
    assert [live.alive for live in reading.live()] == [False]
    assert reading.poll(PLENTY) == []
    follower(tmp_path).poll(0)

    assert [type(record) for record in decoded(reading.poll(PLENTY))] == [AttemptRecord, EndRecord]


def test_what_lies_behind_a_hole_is_passed_over(tmp_path: Path) -> None:
    """Past an incomplete record of the dead come the sealer's, less the places that a sealer left unfinished."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    data = bytearray(journal.encode(opening() + attempts(5)))
    data[-3 * 96 + 8 : -3 * 96 + 16] = bytes(8)
    journal.write_segment(0, bytes(data))
    torn = journal.encode([end()])[:40]
    journal.append(0, 617 + 2, torn)

    blocks = follower(tmp_path).poll(PLENTY)

    assert [(block.first, len(block.words)) for block in blocks] == [(0, len(data) // 96 - 3), (620, 1)]
    assert isinstance(decoded(blocks)[-1], EndRecord)


def test_a_sealer_at_work_is_followed(tmp_path: Path) -> None:
    """Another's sealing is read as far as it has come, poll by poll."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(3)])
    reading = follower(tmp_path, seal=False)
    seen: list[Block] = []
    for place, record in enumerate([*attempts(3, first=10), end(sealed=True)], 617):
        seen += reading.poll(PLENTY)
        journal.append(0, place, journal.encode([record]))
    seen += reading.poll(PLENTY)

    assert [(block.first, len(block.words)) for block in seen] == [
        (0, len(data) // 96), (617, 1), (618, 1), (619, 1), (620, 1),
    ]  # fmt: skip
    assert reading.cursors[journal.journal] == Cursor(0, 621, ended=True)


def test_texts_come_whole(tmp_path: Path) -> None:
    """A block ends before a text whose continuation is not there yet."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    data = journal.encode(opening())
    text = fmt.text_records(fmt.TextKind.INTERNED, "x" * 300, 99)
    journal.write_segment(0, data + text[:192])
    with journal.owned():
        reading = follower(tmp_path)
        assert rows(reading.poll(PLENTY)) == words(data)
        journal.append(0, len(data) // 96, text)
        assert rows(reading.poll(PLENTY)) == words(text)


def test_limits_are_kept_and_turns_taken(tmp_path: Path) -> None:
    """A poll gives about what it is asked for, and the next begins with another journal."""
    journals = [HandWritten(tmp_path, digit * 32) for digit in "abc"]
    data = [each.write_segment(0, opening() + attempts(400), size=65536) for each in journals]
    reading = follower(tmp_path)
    seen: list[Block] = []
    firsts = []
    for _ in range(20):
        blocks = reading.poll(100 * 96)
        assert sum(len(block.words) for block in blocks) <= 100 + 42
        firsts.append(blocks[0].journal if blocks else "")
        seen += blocks

    assert set(firsts[:3]) == {each.journal for each in journals}
    for each, expected in zip(journals, data, strict=True):
        assert rows([block for block in seen if block.journal == each.journal]) == words(expected)


@pytest.mark.parametrize("shipped", [True, False])
def test_a_journal_cut_at_every_byte(tmp_path: Path, shipped: bool) -> None:
    """However short a file is cut, what comes out is a prefix of its complete records, and nothing raises."""
    journal = HandWritten(tmp_path)
    data = journal.write_segment(0, opening() + attempts(3))
    whole = journal.path(0).read_bytes()
    expected = words(data)
    for size in range(96 + len(data) + 97):
        journal.path(0).write_bytes(whole[:size])
        if not shipped:
            journal.write_head()
        found = rows(follower(tmp_path, seal=False).poll(PLENTY))
        complete = max(0, size // 96 - 1)
        assert found == expected[:complete] or (found == expected[: len(found)] and complete - len(found) <= 7)
        assert all(all(row) for row in found)


def test_a_journal_zeroed_from_every_byte(tmp_path: Path) -> None:
    """The same where the rest of the file is zeros, as after a kill, with the sealer at work."""
    for cut in range(96, 96 * 14, 5):
        directory = tmp_path / str(cut)
        directory.mkdir()
        journal = HandWritten(directory, "c" * 32)
        data = journal.write_segment(0, opening() + attempts(3))
        whole = journal.path(0).read_bytes()
        journal.path(0).write_bytes(whole[:cut].ljust(len(whole), b"\0"))
        journal.write_head({0: slot(START + 2 * SECOND, shard_key=2)})

        blocks = follower(directory).poll(PLENTY)

        found = rows(blocks)
        kept = [row for row in found if row in words(data)]
        assert kept == words(data)[: len(kept)]
        assert found[-1][0] & 0xFF == fmt.Kind.END
        # The attempt in the slot is told once, by its owner or by the sealer.
        starts = [row[3] for row in found if row[0] & 0xFF == fmt.Kind.ATTEMPT]
        assert starts.count(START + 2 * SECOND + 1) == 1


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_random_bytes_never_raise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever the bytes of head, segments and lock are, polling gives complete records and never raises."""
    directory = tmp_path_factory.mktemp("noise")
    journal = HandWritten(directory)
    journal.write_head({0: slot(START)})
    journal.write_segment(0, opening() + attempts(20))
    journal.write_segment(1, opening() + attempts(20))
    paths = [journal.head, journal.path(0), journal.path(1)]
    for path in data.draw(st.lists(st.sampled_from(paths), max_size=3)):
        content = bytearray(path.read_bytes())
        noise = data.draw(st.binary(min_size=1, max_size=2000))
        at = data.draw(st.integers(0, 5000))
        content[at : at + len(noise)] = noise
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    reading = follower(directory)

    for _ in range(3):
        blocks = reading.poll(PLENTY)
        reading.live()
        assert all(block.words.all() for block in blocks)
    reading.release(reading.cursors)


def test_garbage_is_ignored_and_counted(tmp_path: Path) -> None:
    """Links, directories and files of strangers are passed over; journals beside them are read."""
    good = HandWritten(tmp_path, "d" * 32)
    data = good.write_segment(0, opening() + attempts(3))
    (tmp_path / fmt.segment_name("e" * 32, 0)).symlink_to(good.path(0))
    (tmp_path / fmt.segment_name("f" * 32, 0)).mkdir()
    (tmp_path / fmt.segment_name("0" * 32, 0)).write_bytes(b"x" * 70_000)
    large = tmp_path / fmt.segment_name("1" * 32, 0)
    large.touch()
    os.truncate(large, 2**40)
    (tmp_path / "README").write_text("hello")
    reading = follower(tmp_path)

    assert rows(reading.poll(PLENTY)) == words(data)
    assert reading.figures.unreadable == 4


def test_a_directory_that_comes_later(tmp_path: Path) -> None:
    """A directory may be missing, appear, and vanish again."""
    directory = tmp_path / "later"
    reading = follower(directory)
    assert reading.poll(PLENTY) == []
    directory.mkdir()
    journal = HandWritten(directory)
    journal.write_segment(0, opening())
    assert reading.poll(PLENTY) != []
    journal.path(0).unlink()
    directory.rmdir()
    assert reading.poll(PLENTY) == []
    assert reading.live() == []


def test_a_journal_in_two_directories_is_read_once(tmp_path: Path) -> None:
    """Of two copies the one in the first directory counts."""
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
        HandWritten(directory, "a" * 32).write_segment(0, opening() + attempts(2))

    (block,) = follower(here, there).poll(PLENTY)

    assert rows([block]) == words(HandWritten(here, "a" * 32).encode(opening() + attempts(2)))


def test_a_segment_that_shrinks_or_goes_while_it_is_read(tmp_path: Path) -> None:
    """A file that is cut or deleted between two polls gives nothing more, and nothing raises."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    journal.write_segment(0, opening() + attempts(10))
    with journal.owned():
        reading = follower(tmp_path)
        reading.poll(PLENTY)
        os.truncate(journal.path(0), 500)
        assert reading.poll(PLENTY) == []
        journal.path(0).unlink()
        assert reading.poll(PLENTY) == []


def test_ranges_are_read_again(tmp_path: Path) -> None:
    """A replay gets the records that a poll gave, or an error where they are gone."""
    journal = HandWritten(tmp_path)
    journal.write_segment(0, opening() + attempts(10))
    (block,) = follower(tmp_path).poll(PLENTY)

    again = read_range([tmp_path / "none", tmp_path], journal.journal, 0, 5, 7)

    assert np.array_equal(again.words, block.words[5:12])
    for segment, first, count in ((0, 5, 1000), (1, 0, 1)):
        with pytest.raises(JournalError):
            read_range([tmp_path], journal.journal, segment, first, count)


# Deletion.


def test_only_what_was_read_to_its_end_is_deleted(tmp_path: Path) -> None:
    """A live owner's newest segment stays, and so does what has not been read."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    for index in range(3):
        journal.write_segment(index, opening() + attempts(3), full=index < 2)
    with journal.owned():
        reading = follower(tmp_path)
        reading.poll(100 * 96)
        assert not reading.delete(journal.journal, 1)
        reading.poll(PLENTY)

        assert reading.delete(journal.journal, 0)
        reading.release({journal.journal: Cursor(2, 5)})

        assert not reading.delete(journal.journal, 2)
    assert [journal.path(index).exists() for index in range(3)] == [False, False, True]
    assert journal.head.exists()


def test_an_attempt_told_in_a_deleted_segment_is_not_told_again(tmp_path: Path) -> None:
    """Before a segment goes, slots that it settles are marked, so that a later sealer says nothing of them."""
    journal = HandWritten(tmp_path)
    over = JobRecord(JobEvent.END, 1, START + 50 * SECOND)
    journal.write_segment(0, [*opening(), *attempts(3, slot=4), over], full=True)
    journal.write_segment(1, opening())
    slots = {
        4: slot(START + SECOND, shard_key=1),
        5: slot(START + SECOND, shard_key=9),
        6: slot(START + SECOND, is_job=True),
        7: slot(START + 60 * SECOND, is_job=True),
    }
    journal.write_head(slots)
    reading = follower(tmp_path)
    with journal.owned():
        reading.poll(PLENTY)
        reading.release(reading.cursors)
        assert not journal.path(0).exists()
        assert [each.index for each in read_slots(journal.head)] == [5, 7]

    told = decoded(reading.poll(PLENTY))

    assert [type(record) for record in told] == [AttemptRecord, JobRecord, EndRecord]
    assert isinstance(told[0], AttemptRecord)
    assert told[0].shard_key == 9


def test_an_ended_journal_goes_altogether(tmp_path: Path) -> None:
    """Once END is safe, head, segments and lock are deleted and the journal is forgotten."""
    journal = HandWritten(tmp_path)
    journal.write_head({0: slot(START)})
    journal.write_segment(0, opening() + attempts(3))
    reading = follower(tmp_path)
    reading.poll(PLENTY)

    reading.release(reading.cursors)

    assert list(tmp_path.iterdir()) == []
    assert reading.cursors == {}
    assert reading.poll(PLENTY) == []


class Killed(BaseException):
    """Ends a deletion in the middle."""


@pytest.mark.parametrize("steps", range(5))
def test_a_deletion_interrupted_anywhere_tells_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """However far a deletion came, a new follower with the old cursors reads nothing, and finishes it."""
    journal = HandWritten(tmp_path)
    journal.write_head({0: slot(START + 70 * SECOND)})
    journal.write_segment(0, opening() + attempts(3), full=True)
    journal.write_segment(1, opening() + attempts(3))
    reading = follower(tmp_path)
    reading.poll(PLENTY)
    cursors = dict(reading.cursors)
    left = steps
    unlink = Path.unlink

    def killing(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killing)
        with suppress(Killed):
            reading.release(cursors)

    again = follower(tmp_path, cursors=cursors)
    assert again.poll(PLENTY) == []
    again.release(cursors)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_shipped_copy_leaves_a_mark(tmp_path: Path) -> None:
    """What is deleted of a shipped journal is remembered, so that it can be acknowledged when it comes again."""
    journal = HandWritten(tmp_path)
    journal.write_segment(0, opening() + attempts(3), full=True)
    journal.write_segment(1, opening() + attempts(3))
    reading = follower(tmp_path)
    reading.poll(PLENTY)

    reading.release(reading.cursors)
    assert removal.done_below(tmp_path, journal.journal) == 1
    journal.append(1, 300, journal.encode([end()]))
    journal.write_segment(1, [*opening(), *attempts(3), end()])
    reading.poll(PLENTY)
    reading.release(reading.cursors)

    assert removal.done_below(tmp_path, journal.journal) == removal.ALL_SEGMENTS
    assert [path.suffix for path in tmp_path.iterdir()] == [".done"]


def test_an_abandoned_copy_makes_room(tmp_path: Path) -> None:
    """A shipped journal that has not grown for a week goes; if it comes again it is read on from where it was."""
    journal = HandWritten(tmp_path)
    data = journal.write_segment(0, [*opening(), *attempts(3)])
    now = START / 1e9 + 1000
    os.utime(journal.path(0), (now, now - 6 * 86400))
    reading = follower(tmp_path)
    reading.poll(PLENTY)
    reading.release(reading.cursors)
    assert journal.path(0).exists()

    os.utime(journal.path(0), (now, now - 8 * 86400))
    reading.release(reading.cursors)
    assert list(tmp_path.iterdir()) == []

    more = journal.encode(attempts(2, first=3))
    journal.write_segment(0, data + more)
    assert rows(reading.poll(PLENTY)) == words(more)


def test_a_journal_about_to_be_born_is_not_touched(tmp_path: Path) -> None:
    """A lock file alone is left alone: its owner is about to lock it."""
    journal = HandWritten(tmp_path)
    journal.lock.touch()

    assert follower(tmp_path).poll(PLENTY) == []
    assert list(tmp_path.iterdir()) == [journal.lock]


def test_a_damaged_segment_of_the_dead_is_passed_over(tmp_path: Path) -> None:
    """What follows a segment that cannot be read is read all the same, once its owner is dead."""
    journal = HandWritten(tmp_path)
    journal.write_head()
    journal.path(0).write_bytes(b"x" * 65536)
    data = journal.write_segment(1, [*opening(), *attempts(3), end()])
    with journal.owned():
        reading = follower(tmp_path)
        assert reading.poll(PLENTY) == []
    again = follower(tmp_path)

    assert rows(again.poll(PLENTY)) == words(data)
    assert again.figures.unreadable == 1


def test_a_disk_that_fails_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that cannot be opened for the moment are counted and read a second later; nothing is sealed meanwhile."""
    journal = HandWritten(tmp_path)
    journal.write_head({5: slot(START)})
    data = journal.write_segment(0, [*opening(), *attempts(3)])
    clock = ManualClock(START + 1000 * SECOND)
    reading = Follower([tmp_path], {}, clock=clock, seal=True)

    def broken(*_arguments: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", broken)
        assert reading.poll(PLENTY) == []
        assert reading.live() == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", broken)
        assert reading.poll(PLENTY) == []
    assert reading.figures.unreadable >= 2
    clock.advance(seconds=2)

    found = rows(reading.poll(PLENTY))
    assert found[: len(data) // 96] == words(data)
    assert len(found) == len(data) // 96 + 2


# The real writer.


def test_a_busy_writer_is_followed_record_by_record(tmp_path: Path) -> None:
    """While two threads append over several segments, every record arrives once and in the order of the file."""
    writer = JournalWriter(tmp_path, WorkerInfo("w1"))
    context = writer.context_id(Context("nightly", "nightly-1", stage="map"))
    total = 6000

    def work(lane: int) -> None:
        for number in range(total):
            writer.append(AttemptRecord(context, number, lane, AttemptOutcome.SUCCESS, START, 1))

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(2)]
    reading = Follower([tmp_path], {}, clock=SystemClock(), seal=True)
    blocks: list[Block] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        blocks += reading.poll(PLENTY)
        reading.release(reading.cursors)
    writer.close()
    blocks += reading.poll(PLENTY)

    found = decoded(blocks)
    for lane in range(2):
        mine = [each.shard_key for each in found if isinstance(each, AttemptRecord) and each.attempt == lane]
        assert mine == list(range(total))
    assert isinstance(found[-1], EndRecord)
    reading.release(reading.cursors)
    assert list(tmp_path.iterdir()) == []


WORKER = """
import sys, time
from pathlib import Path
from mppobs.journal.writer import JournalWriter
from mppobs.model import *
writer = JournalWriter(Path(sys.argv[1]), WorkerInfo("w1"))
context = writer.context_id(Context("nightly", "nightly-1", stage="map"))
number = 0
while True:
    place = writer.begin(context, number, start_ns=time.time_ns())
    start = time.time_ns()
    writer.append(AttemptRecord(context, number, 0, AttemptOutcome.SUCCESS, start, 1, slot=63))
    if place is not None:
        writer.end(place)
    number += 1
    if number % 64 == 0:
        print(number, flush=True)
"""


def test_a_killed_process_is_seen_at_once(tmp_path: Path) -> None:
    """SIGKILL in full flight: what it said it had finished is there, what it had begun is told as lost, then END."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(20)][-1]
    reading = Follower([tmp_path], {}, clock=SystemClock(), seal=True)
    blocks = reading.poll(PLENTY)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    began = time.monotonic()
    while not any(cursor.ended for cursor in reading.cursors.values()):
        blocks += reading.poll(PLENTY)
        assert time.monotonic() - began < 5

    found = [record for record in decoded(blocks) if isinstance(record, AttemptRecord)]
    finished = [record.shard_key for record in found if record.outcome is AttemptOutcome.SUCCESS]
    assert finished == list(range(len(finished)))
    assert len(finished) >= said
    lost = [record for record in found if record.outcome is AttemptOutcome.ERROR]
    assert len(lost) <= 1
    assert isinstance(decoded(blocks)[-1], EndRecord)
