"""The public test helpers."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

import mppobs
from mppobs.journal.codec import encode
from mppobs.model import (
    AttemptRecord,
    CommitRecord,
    ContextRecord,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobRecord,
    PlanRecord,
    SampleRecord,
    TextRecord,
    WorkerRecord,
)  # fmt: skip
from mppobs.testing import ManualClock, Script, ScriptedFailure, capture, make_record

KINDS = (
    AttemptRecord, CommitRecord, ContextRecord, DetailRecord, DispatchRecord, DropRecord, EndRecord, HeartbeatRecord,
    JobRecord, PlanRecord, SampleRecord, TextRecord, WorkerRecord,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_every_kind_can_be_made(kind: type) -> None:
    """With nothing given, a record of any kind is complete and can be encoded."""
    assert len(encode(make_record(kind), lambda text: 1)) == 96


def test_capture_keeps_what_was_recorded_and_restores_what_was_configured() -> None:
    """Records can be read during and after the scope, and the recorder goes back to where it wrote before."""
    with capture() as outer:
        with mppobs.attempt(stage="s", shard=1):
            pass
        with capture() as inner:
            with mppobs.attempt(stage="s", shard=2):
                assert inner.attempts == []
            assert [record.shard_key for record in inner.attempts] == [2]
        with mppobs.attempt(stage="s", shard=3):
            pass
    assert [record.shard_key for record in inner.attempts] == [2]
    assert sorted(record.shard_key for record in outer.attempts) == [1, 3]
    assert not outer.directory.exists()


def run_script(directory: str) -> int:
    """Run one attempt of a script in a process of its own."""
    return Script(Path(directory), {5: [-0.0, -0.0, 0]}).run(5)


def test_a_script_counts_attempts_across_processes(tmp_path: Path) -> None:
    """The third attempt succeeds, whichever process runs it."""
    script = Script(tmp_path, {5: [-0.0, -0.0, 0]})
    with pytest.raises(ScriptedFailure, match="attempt 0"):
        script.run(5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(ScriptedFailure, match="attempt 1"):
            pool.apply(run_script, (str(tmp_path),))
        assert pool.apply(run_script, (str(tmp_path),)) == 2
    assert (script.attempts(5), script.attempts(6)) == (3, 0)


def test_a_script_takes_the_time_that_it_says(tmp_path: Path) -> None:
    """The magnitude is how long the attempt runs, the sign whether it fails."""
    script = Script(tmp_path, {"slow": [-0.02, 0.01]})
    started = time.monotonic()
    with pytest.raises(ScriptedFailure):
        script.run("slow")
    assert script.run("slow") == 1
    assert script.run("not in the script") == 0
    assert 0.03 <= time.monotonic() - started < 5


def test_the_manual_clock_is_at_hand() -> None:
    """Tests find the clock that they move by hand beside the other helpers."""
    clock = ManualClock(5)
    clock.advance(nanoseconds=2)
    assert clock.monotonic_ns() == 7
