"""The attempt as the user's code sees it, and `with mppobs.attempt(...)`."""

from __future__ import annotations

import time

import pytest

import mppobs
from mppobs.instrument.recorder import RECORDER
from mppobs.journal.reader import read_slots, scan
from mppobs.model import AttemptOutcome, JobKey, Reason, Slot
from mppobs.testing import Captured
from mppobs.trace_ids import span_id, trace_id


def slots(captured: Captured) -> list[Slot]:
    """Return the attempts that run, as a reader sees them."""
    return [
        slot for files in scan(captured.directory) if files.head for slot in read_slots(files.head) if not slot.is_job
    ]


def test_an_attempt_knows_what_it_is(captured: Captured) -> None:
    """Job, pipeline, stage, shard, attempt and the derived IDs are those of its record's context."""
    with (
        mppobs.job(pipeline="nightly", job_id="n-1") as run,
        mppobs.attempt(stage="map", shard="p", attempt=2) as attempt,
    ):
        assert mppobs.current() is attempt
        context = run.run.context
        assert (attempt.pipeline, attempt.job_id, attempt.stage) == ("nightly", "n-1", "map")
        assert (attempt.shard, attempt.attempt, attempt.speculative) == ("p", 2, False)
        key = JobKey("default", "default", "n-1", context.incarnation)
        assert attempt.trace_id == trace_id(key) == run.trace_id
        assert attempt.span_id == span_id(key, "map", "p", 2)
        assert abs(attempt.start_ns - time.time_ns()) < 10**10

    (record,) = captured.attempts
    assert captured.context(record).job_key == key
    assert (record.attempt, record.start_ns) == (2, attempt.start_ns)


def test_a_running_attempt_is_in_a_slot_with_its_progress(captured: Captured) -> None:
    """While it runs a reader sees it, with progress and checkpoint; after the end it does not."""
    with mppobs.attempt(stage="map", shard=4, attempt=1, speculative=True) as attempt:
        attempt.progress(0.4)
        attempt.checkpoint()
        (slot,) = slots(captured)
        assert (slot.shard_key, slot.attempt, slot.speculative) == (4, 1, True)
        assert slot.progress == pytest.approx(0.4)
        assert abs(slot.progressed_ns - time.time_ns()) < 10**10
        assert abs(slot.checkpoint_ns - time.time_ns()) < 10**10
    assert slots(captured) == []

    with mppobs.attempt(stage="map", shard=5):
        attempt.progress(0.9)  # of the one that has ended: it must not touch the slot that it had
        (slot,) = slots(captured)
        assert (slot.shard_key, slot.progress, slot.checkpoint_ns) == (5, None, 0)


def test_attempts_nest(captured: Captured) -> None:
    """The inner attempt is current inside, the outer one again after it, and each keeps its own counts."""
    with mppobs.attempt(stage="outer", shard=1) as outer:
        outer.add(rows=1)
        with mppobs.attempt(stage="inner", shard=2):
            mppobs.current().add(rows=10)
        mppobs.current().add(rows=1)

    assert [(captured.context(record).stage, record.rows) for record in captured.attempts] == [
        ("inner", 10),
        ("outer", 2),
    ]


def test_the_scheduler_delay_is_measured_from_the_assignment(captured: Captured) -> None:
    """Delay is start minus assignment, never negative, and absent where nobody said when."""
    now = time.time_ns()
    with mppobs.attempt(stage="s", shard=1, assigned_ns=now - 5_000_000_000):
        pass
    with mppobs.attempt(stage="s", shard=2, assigned_ns=now + 60_000_000_000):
        pass
    with mppobs.attempt(stage="s", shard=3):
        pass

    first, second, third = captured.attempts
    assert first.delay_ns == first.start_ns - now + 5_000_000_000
    assert (second.delay_ns, third.delay_ns) == (0, None)


def test_code_can_say_how_its_attempt_ends(captured: Captured) -> None:
    """Errors that are values, and the loss of a race, are said by setters, which also win over exceptions."""
    with mppobs.attempt(stage="s", shard=1) as attempt:
        attempt.fail("BadRow")
    with mppobs.attempt(stage="s", shard=2) as attempt:
        attempt.superseded()
    with pytest.raises(ValueError, match="x"), mppobs.attempt(stage="s", shard=3) as attempt:  # noqa: PT012
        attempt.end_as(AttemptOutcome.ERROR, reason=Reason.STORAGE)
        raise ValueError("x")

    assert [(record.outcome, record.reason, record.error_type) for record in captured.attempts] == [
        (AttemptOutcome.FAILURE, Reason.NONE, "BadRow"),
        (AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED, ""),
        (AttemptOutcome.ERROR, Reason.STORAGE, ""),
    ]


def test_a_nonsensical_ending_is_noted_and_not_raised(captured: Captured) -> None:
    """The setters are part of recording: they never raise."""
    before = RECORDER.notes
    with mppobs.attempt(stage="s", shard=1) as attempt:
        attempt.end_as("splendid")  # type: ignore[arg-type]

    assert captured.attempts[0].outcome is AttemptOutcome.SUCCESS
    assert RECORDER.notes == before + 1


def test_outside_an_attempt_everything_is_taken_and_nothing_kept() -> None:
    """`current()` outside an attempt has every method and is nobody."""
    nobody = mppobs.current()
    nobody.add(rows=1, network_errors={"x": 1})
    nobody.progress(0.5)
    nobody.checkpoint()
    nobody.fail("x")
    nobody.superseded()

    assert (nobody.stage, nobody.job_id, nobody.pipeline, nobody.shard) == ("", "", "", 0)
    assert (nobody.trace_id, nobody.span_id, nobody.start_ns, nobody.speculative) == (0, 0, 0, False)


def test_attempt_numbers_beyond_their_bits_are_clamped(captured: Captured) -> None:
    """An attempt number that does not fit its sixteen bits does not spoil the record."""
    with mppobs.attempt(stage="s", shard=1, attempt=10**6):
        (slot,) = slots(captured)
        assert slot.attempt == 0xFFFF

    assert captured.attempts[0].attempt == 0xFFFF


def test_tens_of_thousands_of_attempts_over_many_segments(captured: Captured) -> None:
    """Across rotations every attempt is there once, in order, under its context."""

    @mppobs.task(stage="map", shard="part")
    def work(part: int) -> None:
        pass

    for part in range(12_000):
        work(part)

    assert [record.shard_key for record in captured.attempts] == list(range(12_000))
    assert {captured.context(record).stage for record in captured.attempts[::1000]} == {"map"}
