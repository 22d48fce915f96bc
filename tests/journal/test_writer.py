"""The owner's side of a journal: layout, rotation, drops, slots, and the end."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mppobs.clock import ManualClock
from mppobs.errors import ConfigError
from mppobs.journal import format as fmt
from mppobs.journal import mounts, reader, segments
from mppobs.journal.codec import decode_all
from mppobs.journal.turns import Turns
from mppobs.journal.writer import RETRY_NS, JournalWriter
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    Context,
    ContextRecord,
    DetailKind,
    DetailRecord,
    DropRecord,
    EndRecord,
    JobEvent,
    JobRecord,
    Reason,
    Record,
    TextRecord,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.testing import make_record

INFO = WorkerInfo("w1", node="n1", zone="z", lanes=2, pid=7)
CONTEXT = Context("nightly", "nightly-1", stage="map")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    """Give a writer over an empty directory, and close it."""
    made = JournalWriter(tmp_path, INFO)
    yield made
    made.close()


def segments_of(directory: Path) -> dict[int, list[Record]]:
    """Return the records of the only journal, by segment; each segment is decoded on its own."""
    (files,) = reader.scan(directory)
    found = {}
    for index, path in sorted(files.segments.items()):
        data = reader.read_records(path, 0, fmt.MAX_SEGMENT_BYTES // fmt.RECORD_BYTES)
        found[index] = list(decode_all(fmt.RECORD.iter_unpack(data)))
    return found


def records_of(directory: Path) -> list[Record]:
    """Return all records of the only journal."""
    return [record for records in segments_of(directory).values() for record in records]


def attempt(context_id: int, shard: int = 0, error_type: str = "") -> AttemptRecord:
    """Return an attempt, failed where it has an error's type."""
    outcome = AttemptOutcome.FAILURE if error_type else AttemptOutcome.SUCCESS
    return make_record(
        AttemptRecord, context_id=context_id, shard_key=shard, outcome=outcome, error_type=error_type, cpu_ns=1
    )


def packed(context_id: int, shard: int) -> bytes:
    """Return the words of a success, as the hot path writes them."""
    head = fmt.head_word(fmt.Kind.ATTEMPT, 1, number=context_id)
    return fmt.RECORD.pack(head, fmt.shard_word(shard), fmt.link(0), 2, 2, 2, 1, 1, 1, 1, fmt.pair(0, 0), 1)


def fill(writer: JournalWriter, count: int, context_id: int) -> None:
    """Write attempts as the hot path does."""
    for shard in range(count):
        data = packed(context_id, shard)
        try:
            writer.write(data)
        except ValueError:
            writer.overflow(data, 1)


def test_a_journal_begins_with_its_worker_and_ends_with_end(tmp_path: Path, writer: JournalWriter) -> None:
    """A segment opens by saying who writes it; a closed journal ends with END, not sealed."""
    writer.close()

    records = [record for record in records_of(tmp_path) if not isinstance(record, TextRecord)]

    assert isinstance(records[0], WorkerRecord)
    assert records[0].info == INFO
    assert isinstance(records[-1], EndRecord)
    assert not records[-1].sealed


def test_records_come_back_as_they_were_appended(tmp_path: Path, writer: JournalWriter) -> None:
    """What is appended is read back equal, and in order, with the texts that it names."""
    number = writer.context_id(CONTEXT)
    given = [
        make_record(JobRecord, context_id=number, lease_ns=5, traceparent="00-a-b-01"),
        attempt(number, 4, "KeyError"),
        make_record(DetailRecord, context_id=number, what=DetailKind.ACTIVITY, amounts=(("read", 5), ("other", 7))),
    ]

    for record in given:
        writer.append(record)

    found = records_of(tmp_path)
    assert [record for record in found if not isinstance(record, (TextRecord, ContextRecord, WorkerRecord))] == given
    assert [record.context for record in found if isinstance(record, ContextRecord)] == [CONTEXT]


def test_segments_grow_fourfold_and_keep_places_for_the_sealer(tmp_path: Path, writer: JournalWriter) -> None:
    """Segments are 64 KiB, 256 KiB, 1 MiB; the owner fills each but for the sealer's places, and the blocks exist."""
    number = writer.context_id(CONTEXT)
    fill(writer, 4000, number)

    (files,) = reader.scan(tmp_path)
    sizes = {index: path.stat().st_size for index, path in files.segments.items()}
    assert sizes == {0: 65536, 1: 262144, 2: 1048576}
    assert files.segments[2].stat().st_blocks * 512 >= 1048576
    data = files.segments[0].read_bytes()
    used = (1 + segments.places(65536)) * fmt.RECORD_BYTES
    assert not any(data[used:])
    assert all(all(words) for words in fmt.RECORD.iter_unpack(data[fmt.RECORD_BYTES : used]))


def test_every_segment_stands_alone(tmp_path: Path, writer: JournalWriter) -> None:
    """A context that is held is defined in every segment under the same number, so each can be decoded by itself."""
    handle = writer.context(CONTEXT)
    fill(writer, 3000, handle.number)
    writer.append(attempt(handle.number, 1, "KeyError"))

    for records in segments_of(tmp_path).values():
        contexts = {record.context_id: record.context for record in records if isinstance(record, ContextRecord)}
        assert contexts == {handle.number: CONTEXT}
        assert {record.context_id for record in records if isinstance(record, AttemptRecord)} <= {handle.number}
    shards = [record.shard_key for record in records_of(tmp_path) if isinstance(record, AttemptRecord)]
    assert shards == [*range(3000), 1]


def test_numbers_are_never_reused(tmp_path: Path, writer: JournalWriter) -> None:
    """A number that stood for one text or context in any segment stands for no other in a later one."""
    for i in range(900):
        number = writer.context_id(Context("nightly", f"job-{i}"))
        writer.append(attempt(number, i, f"Error{i}"))

    texts: dict[int, str] = {}
    contexts: dict[int, Context] = {}
    for record in records_of(tmp_path):
        if isinstance(record, TextRecord) and record.text_id:
            assert texts.setdefault(record.text_id, record.text) == record.text
        if isinstance(record, ContextRecord):
            assert contexts.setdefault(record.context_id, record.context) == record.context
    assert len(contexts) == 900


def test_a_context_that_is_held_outlives_the_recent_ones(tmp_path: Path, writer: JournalWriter) -> None:
    """However many contexts come after it, a held one is defined in each new segment; one that nobody holds is not."""
    held = writer.context(CONTEXT)
    dropped = writer.context_id(Context("nightly", "gone"))
    for i in range(600):
        writer.context_id(Context("nightly", f"job-{i}"))
    fill(writer, 9000, held.number)

    last = segments_of(tmp_path)[max(segments_of(tmp_path))]
    defined = {record.context_id for record in last if isinstance(record, ContextRecord)}
    assert held.number in defined
    assert dropped not in defined


def test_the_name_of_a_shard_is_written_once_per_segment(tmp_path: Path, writer: JournalWriter) -> None:
    """A name is written before its first use and not again; integers need none."""
    keys = {writer.name_shard("part-1") for _ in range(5)}
    assert writer.name_shard(17) == 17

    names = [record for record in records_of(tmp_path) if isinstance(record, TextRecord) and record.shard_key]
    assert [(record.text, record.shard_key) for record in names] == [("part-1", fmt.shard_key("part-1"))]
    assert keys == {fmt.shard_key("part-1")}


def test_a_shard_that_runs_keeps_its_name_across_segments(tmp_path: Path, writer: JournalWriter) -> None:
    """A segment that begins while a named shard runs defines the name again."""
    number = writer.context_id(CONTEXT)
    place = writer.begin(number, writer.name_shard("slow"), start_ns=5)
    writer.name_shard("done")
    fill(writer, 1000, number)

    second = segments_of(tmp_path)[1]
    assert [record.text for record in second if isinstance(record, TextRecord) and record.shard_key] == ["slow"]
    assert place is not None
    writer.end(place)


def test_names_are_forgotten_by_generations(writer: JournalWriter) -> None:
    """The cache of names is bounded, and a name that is used again stays."""
    for i in range(20_000):
        writer.name_shard(f"part-{i}")
        writer.name_shard("often")

    assert len(writer.names.young) <= 4096
    assert writer.names.get("often") == fmt.shard_key("often")


def test_a_long_text_that_does_not_fit_goes_whole_into_the_next_segment(tmp_path: Path, writer: JournalWriter) -> None:
    """A text of several records is never split over two segments: the rest of the first is padded."""
    number = writer.context_id(CONTEXT)
    segment = writer.segment()
    assert segment is not None
    free = (len(segment) - segment.tell()) // fmt.RECORD_BYTES
    fill(writer, free - 2, number)
    writer.append(attempt(number, 1, "E" * 500))

    found = segments_of(tmp_path)
    errors = [record.error_type for record in found[1] if isinstance(record, AttemptRecord) and record.error_type]
    assert errors == ["E" * 500]
    raw = reader.read_records(next(iter(reader.scan(tmp_path))).segments[0], 0, 10_000)
    kinds = [words[0] & 0xFF for words in fmt.RECORD.iter_unpack(raw)]
    assert kinds[-2:] == [fmt.Kind.PAD, fmt.Kind.PAD]


def test_threads_write_without_holes(tmp_path: Path, writer: JournalWriter) -> None:
    """Eight threads that write at once, across segments, leave every record exactly once and no hole."""
    number = writer.context_id(CONTEXT)

    def work(first: int) -> None:
        for shard in range(first, first + 1000):
            data = packed(number, shard)
            try:
                writer.write(data)
            except ValueError:
                writer.overflow(data, 1)
            if shard % 100 == 0:
                writer.append(attempt(number, shard + 100_000, f"Error{shard}"))

    threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()

    shards = Counter(record.shard_key for record in records_of(tmp_path) if isinstance(record, AttemptRecord))
    assert shards == Counter([*range(8000), *(100_000 + shard for shard in range(0, 8000, 100))])


# Drops


def test_what_the_budget_does_not_hold_is_counted_by_outcome(tmp_path: Path) -> None:
    """Past its budget a journal counts attempts by outcome and other records apart; nothing raises."""
    writer = JournalWriter(tmp_path, INFO, budget_bytes=fmt.FIRST_SEGMENT_BYTES)
    number = writer.context_id(CONTEXT)
    fill(writer, 1000, number)
    for _ in range(3):
        writer.append(attempt(number, 1, "KeyError"))
    writer.append(make_record(JobRecord, context_id=number))

    kept = [record for record in records_of(tmp_path) if isinstance(record, AttemptRecord)]
    head = reader.read_head(reader.scan(tmp_path)[0].head or Path())
    assert head.dropped == {AttemptOutcome.SUCCESS: 1000 - len(kept), AttemptOutcome.FAILURE: 3}
    assert head.dropped_other == 1
    writer.close()


def test_totals_are_said_in_the_journal_once_there_is_room(tmp_path: Path) -> None:
    """When an agent has made room, the next segment begins with the running totals, and recording goes on."""
    clock = ManualClock()
    writer = JournalWriter(tmp_path, INFO, clock=clock, budget_bytes=fmt.FIRST_SEGMENT_BYTES)
    number = writer.context_id(CONTEXT)
    fill(writer, 1000, number)
    kept = len([record for record in records_of(tmp_path) if isinstance(record, AttemptRecord)])

    next(tmp_path.glob("*.segment")).unlink()
    fill(writer, 5, number)  # within the second in which no room is looked for
    clock.advance(nanoseconds=RETRY_NS)
    fill(writer, 5, number)

    records = records_of(tmp_path)
    assert [record for record in records if isinstance(record, DropRecord)] == [
        DropRecord(clock.time_ns(), {AttemptOutcome.SUCCESS: 1000 - kept + 5}, 0)
    ]
    assert len([record for record in records if isinstance(record, AttemptRecord)]) == 5
    writer.close()


def test_a_full_disk_falls_back_to_small_segments_and_then_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a large segment cannot be allocated a small one is tried; where none can, records are counted."""
    writer = JournalWriter(tmp_path, INFO)
    number = writer.context_id(CONTEXT)
    room = fmt.FIRST_SEGMENT_BYTES

    def allocate(descriptor: int, offset: int, length: int) -> None:
        if length > room:
            raise OSError(errno.ENOSPC, "no space left on device")
        os.truncate(descriptor, length)

    monkeypatch.setattr(segments.os, "posix_fallocate", allocate)
    fill(writer, 1000, number)
    assert {path.stat().st_size for path in tmp_path.glob("*.segment")} == {room}
    room = 0
    fill(writer, 1000, number)

    kept = len([record for record in records_of(tmp_path) if isinstance(record, AttemptRecord)])
    assert kept >= 1000
    assert writer.dropped().attempts == {AttemptOutcome.SUCCESS: 2000 - kept}
    assert not list(tmp_path.glob(".*")), "what could not be allocated is left behind"
    writer.close()


def test_a_directory_that_vanished_costs_records_and_nothing_else(tmp_path: Path) -> None:
    """Somebody removes the directory: recording goes on as far as it is mapped, then counts, and closing is quiet."""
    directory = tmp_path / "journals"
    writer = JournalWriter(directory, INFO)
    number = writer.context_id(CONTEXT)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()

    fill(writer, 1000, number)

    assert writer.dropped().attempts[AttemptOutcome.SUCCESS] > 300
    writer.close()
    writer.close()


def test_on_a_real_small_file_system_nothing_raises(tmp_path: Path) -> None:
    """On a tmpfs of 256 KiB the head, the first segments and the count of what did not fit are all there is."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        writer = JournalWriter(tmp_path, INFO)
        number = writer.context_id(CONTEXT)
        fill(writer, 5000, number)
        kept = len([record for record in records_of(tmp_path) if isinstance(record, AttemptRecord)])
        assert 600 < kept < 5000
        assert writer.dropped().attempts == {AttemptOutcome.SUCCESS: 5000 - kept}
        places = [writer.begin(number, shard, start_ns=1) for shard in range(5000)]
        assert None in places
        assert writer.unslotted() == places.count(None)
        writer.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


# Slots


def test_a_slot_shows_what_runs_until_it_ends(tmp_path: Path, writer: JournalWriter) -> None:
    """Identity, start, progress and checkpoint are read back; after the end the slot is free and clean."""
    number = writer.context_id(CONTEXT)
    place = writer.begin(number, 42, 3, start_ns=1000, speculative=True)
    assert place is not None
    writer.progress(place, 0.25)
    writer.checkpoint(place)
    head = reader.scan(tmp_path)[0].head or Path()

    (slot,) = reader.read_slots(head)
    assert (slot.context_id, slot.shard_key, slot.attempt, slot.start_ns) == (number, 42, 3, 1000)
    assert (slot.speculative, slot.is_job, slot.progress) == (True, False, 0.25)
    assert abs(slot.checkpoint_ns - time.time_ns()) < 10**9

    writer.end(place)
    assert reader.read_slots(head) == []
    again = writer.begin(number, 43, start_ns=2000)
    assert reader.read_slots(head)[0].progress is None
    assert again is place


@pytest.mark.parametrize("ratio", [-1.0, 0.0, 0.5, 1.0, 7.0])
def test_progress_is_kept_within_its_bounds(tmp_path: Path, writer: JournalWriter, ratio: float) -> None:
    """A ratio outside [0, 1] is stored as the nearest end."""
    place = writer.begin(1, 1, start_ns=1)
    assert place is not None
    writer.progress(place, ratio)

    assert reader.read_slots(reader.scan(tmp_path)[0].head or Path())[0].progress == min(max(ratio, 0.0), 1.0)


def test_slots_are_added_by_the_page_up_to_the_limit(tmp_path: Path, writer: JournalWriter) -> None:
    """Thousands of attempts at once get further pages; past the limit attempts go without and are counted."""
    places = [writer.begin(1, shard, start_ns=5) for shard in range(fmt.MAX_SLOTS + 10)]

    head = reader.scan(tmp_path)[0].head or Path()
    assert places.count(None) == 10
    assert reader.read_head(head).unslotted == 10
    assert {slot.shard_key for slot in reader.read_slots(head)} == set(range(fmt.MAX_SLOTS))
    assert {slot.index for slot in reader.read_slots(head)} == set(range(fmt.MAX_SLOTS))


# Opening and the end


def test_the_lock_is_held_before_the_head_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment in which the head comes into view, its lock cannot be had by anybody else."""
    seen = []
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        result = rename(path, target)
        if str(target).endswith(fmt.HEAD_SUFFIX):
            (lock,) = tmp_path.glob(f"*{fmt.LOCK_SUFFIX}")
            with lock.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(target)
        return result

    monkeypatch.setattr(Path, "rename", watched)
    writer = JournalWriter(tmp_path, INFO)

    assert len(seen) == 1
    assert reader.owner_is_alive(reader.scan(tmp_path)[0])
    writer.close()
    assert not reader.owner_is_alive(reader.scan(tmp_path)[0])


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3", "ceph", "lustre", "fuse.sshfs"])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A directory on a network file system is an error that names it, before any file is made."""
    monkeypatch.setattr(mounts, "filesystem_type", lambda directory, table: kind)

    with pytest.raises(ConfigError, match=kind):
        JournalWriter(tmp_path, INFO)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A path through a file cannot hold a journal: the error says which."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="file/journals"):
        JournalWriter(tmp_path / "file" / "journals", INFO)


def test_what_still_runs_is_recorded_when_the_journal_is_closed(tmp_path: Path, writer: JournalWriter) -> None:
    """An attempt in a slot becomes an error of the shutdown and a job an orphan: END means that nothing is missing."""
    number = writer.context_id(CONTEXT)
    writer.begin(number, start_ns=1, is_job=True)
    writer.begin(number, 8, 2, start_ns=time.time_ns() - 10**9, speculative=True)
    writer.close()

    records = records_of(tmp_path)
    (interrupted,) = [record for record in records if isinstance(record, AttemptRecord)]
    assert (interrupted.outcome, interrupted.reason) == (AttemptOutcome.ERROR, Reason.SHUTDOWN)
    assert (interrupted.shard_key, interrupted.attempt, interrupted.speculative) == (8, 2, True)
    assert 10**9 <= interrupted.duration_ns < 10**10
    assert [record.event for record in records if isinstance(record, JobRecord)] == [JobEvent.ORPHANED]
    assert isinstance(records[-1], EndRecord)


def test_an_attempt_that_is_recorded_but_not_freed_is_not_recorded_again(tmp_path: Path, writer: JournalWriter) -> None:
    """Closing between an attempt's record and the freeing of its slot adds nothing."""
    number = writer.context_id(CONTEXT)
    writer.begin(number, 8, start_ns=77)
    writer.append(make_record(AttemptRecord, context_id=number, shard_key=8, start_ns=77, slot=0, cpu_ns=1))
    writer.close()

    assert len([record for record in records_of(tmp_path) if isinstance(record, AttemptRecord)]) == 1


def test_nothing_comes_after_the_end(tmp_path: Path, writer: JournalWriter) -> None:
    """Whatever a thread that outlived the journal does with it changes nothing and raises nothing."""
    number = writer.context_id(CONTEXT)
    late = writer.write
    place = writer.begin(number, 1, start_ns=1)
    writer.close()

    with pytest.raises(ValueError, match="closed"):
        late(packed(number, 1))
    writer.overflow(packed(number, 1), 1)
    writer.append(attempt(number))
    writer.name_shard("late")
    writer.context_id(Context("late", "late"))
    writer.sync()
    assert writer.take_slot() is None
    assert place is not None
    writer.end(place)

    assert isinstance(records_of(tmp_path)[-1], EndRecord)
    assert writer.running() == []


def test_a_journal_without_room_for_its_end_is_left_to_be_sealed(tmp_path: Path) -> None:
    """Where END does not fit, closing releases the lock and leaves slots and totals to the sealer."""
    writer = JournalWriter(tmp_path, INFO, budget_bytes=fmt.FIRST_SEGMENT_BYTES)
    number = writer.context_id(CONTEXT)
    writer.begin(number, 5, start_ns=9)
    fill(writer, 1000, number)
    writer.close()

    (files,) = reader.scan(tmp_path)
    assert not reader.owner_is_alive(files)
    assert not any(isinstance(record, EndRecord) for record in records_of(tmp_path))
    assert [slot.shard_key for slot in reader.read_slots(files.head or Path())] == [5]


# Turns


def test_an_action_that_interrupts_another_waits_for_its_end() -> None:
    """An action taken in the middle of another, in the same thread, runs after it, and its own failure is counted."""
    turns = Turns()
    said: list[str] = []

    def failing() -> None:
        said.append("inner")
        raise RuntimeError("ours")

    def outer() -> None:
        turns.take(failing)
        turns.take(lambda: said.append("last"))
        said.append("outer")

    turns.take(outer)

    assert said == ["outer", "inner", "last"]
    assert turns.errors == 1


def test_a_record_that_comes_while_a_segment_is_made_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser that records something while the writer allocates neither deadlocks nor loses its record."""
    writer = JournalWriter(tmp_path, INFO)
    number = writer.context_id(CONTEXT)
    allocate = os.posix_fallocate

    def interrupted(descriptor: int, offset: int, length: int) -> None:
        writer.append(attempt(number, 999_999, "Inner"))
        allocate(descriptor, offset, length)

    monkeypatch.setattr(segments.os, "posix_fallocate", interrupted)
    fill(writer, 700, number)
    writer.close()

    shards = [record.shard_key for record in records_of(tmp_path) if isinstance(record, AttemptRecord)]
    assert shards.count(999_999) == 1
    assert set(shards) == {*range(700), 999_999}
