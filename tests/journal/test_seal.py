"""A journal whose owner died says what was running, once, however often the sealer itself is interrupted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mppobs.clock import ManualClock
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal import seal as sealing
from mppobs.journal.codec import decode_all
from mppobs.journal.format import HeadWord
from mppobs.journal.reader import JournalFiles, scan
from mppobs.journal.seal import SealReport, SealStatus, seal
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    ContextRecord,
    DropRecord,
    EndRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    Reason,
    Record,
    SampleRecord,
    TextRecord,
    WorkerRecord,
)
from tests.journal.journals import START, HandWritten, attempts, end, opening, slot

SECOND = 10**9
NOW = START + 1000 * SECOND
PWRITE = os.pwrite
CLOCK = ManualClock(NOW)
LATER = START + 100 * SECOND
"""A start that no finished attempt has."""


@pytest.fixture
def journal(tmp_path: Path) -> HandWritten:
    """Return a journal of a dead owner with three finished attempts and nothing that runs."""
    made = HandWritten(tmp_path)
    made.write_head()
    made.write_segment(0, opening() + attempts(3))
    return made


def files_of(journal: HandWritten) -> JournalFiles:
    """Return the files of the only journal of a directory."""
    (files,) = scan(journal.directory)
    return files


def close(journal: HandWritten, alive_ns: int = 0, kills: int = 0) -> SealReport:
    """Seal a journal."""
    return seal(files_of(journal), clock=CLOCK, oom_kills=lambda files: kills, alive_ns=alive_ns)


def added(journal: HandWritten, segment: int = 0) -> list[Record]:
    """Return the records in the sealer's places of a segment, those that are complete."""
    data = journal.path(segment).read_bytes()
    rows = list(fmt.RECORD.iter_unpack(data[: len(data) // 96 * 96]))[-fmt.SEALER_RECORDS :]
    return list(decode_all(row for row in rows if all(row)))


def records(journal: HandWritten, segment: int) -> list[Record]:
    """Return the complete records of a segment from its first to the first that is not."""
    rows = list(fmt.RECORD.iter_unpack(journal.path(segment).read_bytes()[: 65536 // 96 * 96]))[1:]
    count = next((i for i, row in enumerate(rows) if not all(row)), len(rows))
    return list(decode_all(rows[:count]))


def test_nothing_ran(journal: HandWritten) -> None:
    """A journal of a dead process that ran nothing gets its END and nothing else."""
    assert close(journal) == SealReport(SealStatus.SEALED)
    assert added(journal) == [EndRecord(NOW, sealed=True)]


def test_a_live_owner_is_left_alone(journal: HandWritten) -> None:
    """While the lock is held nothing is written."""
    before = journal.path(0).read_bytes()
    with journal.owned():
        assert close(journal) == SealReport(SealStatus.ALIVE)
    assert journal.path(0).read_bytes() == before


def test_what_ran_becomes_records(journal: HandWritten) -> None:
    """Attempts in flight end as errors, jobs are orphaned, drops are told, and END comes last, in this order."""
    begun = START + 10 * SECOND
    journal.write_head(
        {0: slot(begun, is_job=True), 1: slot(begun, shard_key=9, attempt=2, speculative=True)},
        {HeadWord.DROPPED_ATTEMPTS + 1: 7, HeadWord.DROPPED_OTHER: 1},
    )

    assert close(journal, alive_ns=begun + 4 * SECOND) == SealReport(SealStatus.SEALED, attempts=1, jobs=1)

    assert added(journal) == [
        AttemptRecord(1, 9, 2, AttemptOutcome.ERROR, begun, 4 * SECOND, Reason.WORKER_LOST, speculative=True, slot=1),
        JobRecord(JobEvent.ORPHANED, 1, begun + 4 * SECOND, reason=Reason.WORKER_LOST),
        DropRecord(NOW, {AttemptOutcome.SUCCESS: 7}, 1),
        EndRecord(NOW, sealed=True),
    ]


def test_an_oom_kill_is_told(journal: HandWritten) -> None:
    """Where the cgroup counted a kill, that is the reason."""
    journal.write_head({0: slot(LATER, shard_key=9)})

    close(journal, kills=1)

    record = added(journal)[0]
    assert isinstance(record, AttemptRecord)
    assert record.reason is Reason.OOM_KILLED


SIGNS: list[tuple[str, dict[str, int], int, list[Record], int]] = [
    ("nothing but its start", {}, 0, [], 0),
    ("progress", {"progressed_ns": START + 30 * SECOND}, 0, [], 20),
    ("a checkpoint", {"progressed_ns": START + 15 * SECOND, "checkpoint_ns": START + 25 * SECOND}, 0, [], 15),
    ("the lock, seen held", {"progressed_ns": START + 15 * SECOND}, START + 40 * SECOND, [], 30),
    ("another record of the process", {}, 0, [SampleRecord(1, START + 50 * SECOND, 0, 0, 0, 0, 0, 0, 0)], 40),
    ("the end of another attempt", {}, 0, attempts(1, first=60), 50),
    ("a sign from the future", {"progressed_ns": NOW + SECOND}, 0, [], 990),
]


@pytest.mark.parametrize(("sign", "words", "alive_ns", "others", "seconds"), SIGNS, ids=[sign for sign, *_ in SIGNS])
def test_duration_is_up_to_the_last_sign_of_life(
    journal: HandWritten, sign: str, words: dict[str, int], alive_ns: int, others: list[Record], seconds: int
) -> None:
    """A killed attempt ran until the newest sign that its process lived, and never beyond the present."""
    journal.write_segment(0, opening() + others)
    journal.write_head({3: slot(START + 10 * SECOND, **words)})

    close(journal, alive_ns=alive_ns)

    record = added(journal)[0]
    assert isinstance(record, AttemptRecord)
    half = 5 * 10**8 if sign == "the end of another attempt" else 0
    assert record.duration_ns == seconds * SECOND + half


def test_finished_attempts_are_not_told_again(journal: HandWritten) -> None:
    """A slot whose attempt has its record, in whatever segment, says nothing new; slot and start tell."""
    done = [each for each in attempts(3, slot=5) if isinstance(each, AttemptRecord)]
    journal.write_segment(0, opening() + list(done), full=True)
    journal.write_segment(1, opening() + attempts(1, first=80))
    journal.write_head({5: slot(done[1].start_ns, shard_key=1), 6: slot(done[2].start_ns, shard_key=2)})

    assert close(journal).attempts == 1

    told = added(journal, segment=1)[0]
    assert isinstance(told, AttemptRecord)
    assert (told.slot, told.shard_key) == (6, 2)


@pytest.mark.parametrize("event", [JobEvent.END, JobEvent.ORPHANED])
def test_ended_jobs_are_not_orphaned(journal: HandWritten, event: JobEvent) -> None:
    """A job's slot after the record of its end says nothing; an earlier end of the same context does not count."""
    over = JobRecord(event, 1, START + 20 * SECOND, JobOutcome.SUCCESS if event is JobEvent.END else None)
    journal.write_segment(0, [*opening(), over])
    journal.write_head({0: slot(START + 10 * SECOND, is_job=True)})
    assert close(journal).jobs == 0

    journal.write_segment(0, [*opening(), over])
    journal.write_head({0: slot(START + 30 * SECOND, is_job=True)})
    assert close(journal).jobs == 1


def test_sealing_twice_changes_nothing(journal: HandWritten) -> None:
    """What is sealed stays as it is."""
    journal.write_head({0: slot(LATER)})
    close(journal)
    before = journal.path(0).read_bytes()

    assert close(journal) == SealReport(SealStatus.SEALED)
    assert journal.path(0).read_bytes() == before


def test_a_closed_journal_is_left_alone(journal: HandWritten) -> None:
    """After the owner's own END nothing is added, whatever the slots say."""
    journal.write_segment(0, [*opening(), end()])
    journal.write_head({0: slot(LATER)})

    assert close(journal) == SealReport(SealStatus.SEALED)
    assert added(journal) == []


class Killed(BaseException):
    """Ends a sealer in the middle of a write."""


def cut_after(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let the sealer write so many bytes, then die."""
    left = size

    def pwrite(file: int, data: bytes, offset: int) -> int:
        nonlocal left
        if left == 0:
            raise Killed
        written = PWRITE(file, data[:left], offset)
        left -= written
        return written

    monkeypatch.setattr(sealing.os, "pwrite", pwrite)  # type: ignore[attr-defined]


@pytest.mark.parametrize("pause", [1, 8])
def test_a_sealer_killed_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: int) -> None:
    """However much a sealer wrote before it died, the next one makes it whole: every record once, END last."""
    whole = 3 * fmt.RECORD_BYTES
    for size in range(whole + 1):
        made = HandWritten(tmp_path / str(size))
        made.directory.mkdir()
        made.write_head({0: slot(LATER), 1: slot(LATER, is_job=True)})
        made.write_segment(0, opening() + attempts(3))
        for _ in range(pause):
            with monkeypatch.context() as patch:
                cut_after(patch, size)
                try:
                    close(made)
                except Killed:
                    continue

        report = close(made)

        kinds = [type(record) for record in added(made)]
        assert kinds == [AttemptRecord, JobRecord, EndRecord], size
        assert report.status is SealStatus.SEALED


def test_more_than_the_places_hold(tmp_path: Path, journal: HandWritten) -> None:
    """Where there is more to say than places, segments follow that stand alone: worker, contexts, names, records."""
    name = fmt.shard_key("part-7")
    slots = {i: slot(LATER, shard_key=i, context_id=1 + i % 2) for i in range(1200)}
    slots[1200] = slot(LATER, shard_key=name)
    journal.write_head(slots)
    journal.texts.clear()
    text = fmt.text_records(fmt.TextKind.SHARD_NAME, "part-7", key=name)
    other = fmt.text_records(fmt.TextKind.SHARD_NAME, "part-8", key=fmt.shard_key("part-8"))
    journal.write_segment(0, journal.encode(opening()) + text + other)

    assert close(journal) == SealReport(SealStatus.SEALED, attempts=1201)

    assert added(journal) == []
    assert list(files_of(journal).segments) == [0, 1, 2, 3]
    told = [record for index in (1, 2, 3) for record in records(journal, index)]
    assert sorted(record.slot for record in told if isinstance(record, AttemptRecord)) == list(range(1201))
    assert isinstance(told[-1], EndRecord)
    for index in (1, 2, 3):
        alone = records(journal, index)
        assert sum(isinstance(record, WorkerRecord) for record in alone) == 1
        assert [record.context_id for record in alone if isinstance(record, ContextRecord)] == [1]
        names = [record.text for record in alone if isinstance(record, TextRecord) and record.shard_key]
        assert names == (["part-7"] if index == 3 else [])
    assert close(journal) == SealReport(SealStatus.SEALED)


def test_a_sealer_killed_between_segments(journal: HandWritten, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment comes into view whole or not at all, and the next sealer goes on after it."""
    journal.write_head({i: slot(LATER, shard_key=i) for i in range(1200)})
    written = 0

    def count(file: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += len(data)
        return PWRITE(file, data, offset)

    for size in range(0, 130_000, 9_999):
        with monkeypatch.context() as patch:
            cut_after(patch, size)
            try:
                close(journal)
            except Killed:
                continue
    monkeypatch.setattr(sealing.os, "pwrite", count)  # type: ignore[attr-defined]
    close(journal)

    files = files_of(journal)
    told = [record for index in files.segments if index for record in records(journal, index)]
    assert sorted(record.slot for record in told if isinstance(record, AttemptRecord)) == list(range(1200))
    assert [type(record) for record in told].count(EndRecord) == 1


def no_room(*_arguments: object) -> None:
    """Stand in for an allocation on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_waited_for(journal: HandWritten, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a new segment is needed and there is no room, nothing is left behind, and sealing succeeds later."""
    journal.write_head({i: slot(LATER) for i in range(100)})
    names = sorted(os.listdir(journal.directory))
    with monkeypatch.context() as patch:
        patch.setattr(sealing.os, "posix_fallocate", no_room)  # type: ignore[attr-defined]
        assert close(journal) == SealReport(SealStatus.WAITING)

    assert sorted(os.listdir(journal.directory)) == names
    assert close(journal).attempts == 100


def damage_header(journal: HandWritten) -> None:
    """Overwrite the last segment's header."""
    journal.path(1).write_bytes(bytes(65536))


def damage_length(journal: HandWritten) -> None:
    """Cut the last segment within the sealer's places."""
    os.truncate(journal.path(1), 65536 - 20 * 96)


@pytest.mark.parametrize("damage", [damage_header, damage_length])
def test_a_damaged_segment_gets_a_successor(journal: HandWritten, damage: Callable[[HandWritten], None]) -> None:
    """Where the last segment cannot be relied upon, END goes to a new one, and what is readable counts as told."""
    journal.write_segment(1, opening() + attempts(2, slot=4))
    damage(journal)
    journal.write_head({4: slot(START + SECOND)})

    report = close(journal)

    # A header that is gone takes its records along; a cut leaves them.
    assert report.attempts == (1 if damage is damage_header else 0)
    assert isinstance(records(journal, 2)[-1], EndRecord)


def test_records_after_a_hole_do_not_count_as_told(journal: HandWritten) -> None:
    """What a reader never reaches is told again by the sealer, so that it counts once."""
    journal.texts.clear()
    data = bytearray(journal.encode(opening() + attempts(3, slot=4)))
    data[-2 * 96 : -96] = bytes(96)
    journal.write_segment(0, bytes(data))
    journal.write_head({4: slot(START + 2 * SECOND)})

    assert close(journal).attempts == 1


@pytest.mark.parametrize("content", [b"", b"x" * 4096, os.urandom(8192)])
def test_a_damaged_head_tells_of_nothing(journal: HandWritten, content: bytes) -> None:
    """Without a readable head the journal still ends."""
    journal.head.write_bytes(content)

    assert close(journal) == SealReport(SealStatus.SEALED)
    assert added(journal) == [EndRecord(NOW, sealed=True)]


def test_a_journal_without_segments_ends(tmp_path: Path) -> None:
    """A process killed before its first segment leaves a journal that holds END alone."""
    made = HandWritten(tmp_path)
    made.write_head()

    assert close(made) == SealReport(SealStatus.SEALED)
    assert records(made, 0) == [EndRecord(NOW, sealed=True)]


def test_a_lost_lock_file_is_made_again(journal: HandWritten) -> None:
    """Somebody who cleaned up lock files does not keep a dead process from being seen, nor kill a live one."""
    journal.lock.unlink()
    assert close(journal) == SealReport(SealStatus.SEALED)
    assert journal.lock.exists()

    journal.write_segment(0, opening())
    journal.write_head(pid=os.getpid())
    journal.lock.unlink()
    assert close(journal) == SealReport(SealStatus.ALIVE)


def test_only_one_seals(journal: HandWritten, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one sealer is at work another keeps away."""
    journal.write_head({0: slot(LATER)})
    inner: list[SealReport] = []
    missing = sealing._missing

    def meanwhile(*arguments: object) -> object:
        inner.append(close(journal))
        return missing(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sealing, "_missing", meanwhile)

    assert close(journal).attempts == 1
    assert inner == [SealReport(SealStatus.ALIVE)]


def test_a_disk_that_fails_is_an_error(journal: HandWritten, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no want of room is reported, with the journal's name, and nothing is taken for sealed."""

    def broken(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sealing.os, "pwrite", broken)  # type: ignore[attr-defined]
    with pytest.raises(JournalError, match=journal.journal):
        close(journal)
