"""A standby takes a job over from a coordinator that died or hangs: when, with what, and what is recorded of it."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mppobs.errors import ConfigError
from mppobs.executor import Executor
from mppobs.executor.workspace import Workspace
from mppobs.model import AttemptOutcome, JobOutcome, ShardOutcome
from mppobs.testing import capture
from tests.executor.plans import as_dict, expected, group_by
from tests.executor.survivor_process import SHARDS
from tests.executor.survivors import PATIENCE, Crew


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    """A coordinator and a standby, none of which outlives the test."""
    made = Crew(tmp_path)
    yield made
    made.end()


def wait_for_shards(crew: Crew, count: int) -> None:
    """Wait until so many shards of the first stage are in place."""
    deadline = time.monotonic() + PATIENCE
    while len(list(crew.exchange.glob("job-*/0/*"))) < count:
        assert time.monotonic() < deadline, crew.said()
        time.sleep(0.01)


def test_a_standby_finishes_the_job(crew: Crew, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The coordinator is killed half-way and the standby ends the job: right, with nothing committed twice, as one run.

    The timeline is that of scenario 3: the last heartbeat, the takeover, the end.
    """
    crew.begin()
    wait_for_shards(crew, SHARDS // 2)
    (coordinator,) = crew.victims("coordinator")
    killed_ns = time.time_ns()
    os.kill(coordinator, signal.SIGKILL)
    crew.settle()
    (answer,) = crew.answers()
    assert dict(answer["rows"]) == expected(shards=SHARDS)
    assert answer["done"] == [SHARDS, 4]
    takeover = answer["takeovers"][0]
    assert takeover["lost"].endswith(f"-{coordinator}")
    assert takeover["committed"] >= SHARDS // 2
    last_beat, taken = ((takeover[name] - killed_ns) / 1e9 for name in ("last_beat_ns", "taken_ns"))
    assert -3 < last_beat < 0 < taken < 10
    with capsys.disabled():
        print(f"\nlast heartbeat {last_beat:+.2f} s, killed 0, taken over {taken:+.2f} s with {takeover['committed']} "
              f"of {SHARDS + 4} shards committed")  # fmt: skip

    job = crew.judgement()
    assert job.outcome is JobOutcome.SUCCESS
    assert job.shards[ShardOutcome.COMMITTED] == job.planned == SHARDS + 4
    assert job.attempts[AttemptOutcome.SUCCESS] <= SHARDS + 4
    assert not job.shards[ShardOutcome.FAILED] + job.shards[ShardOutcome.LOST]


def test_a_coordinator_that_hangs_is_replaced_and_lets_go(tmp_path: Path, crew: Crew) -> None:
    """One that is stopped for longer than its lease loses the job; when it wakes up it ends, and changes nothing."""
    crew.lease = 3.0
    crew.begin()
    wait_for_shards(crew, 3)
    (coordinator,) = crew.victims("coordinator")
    os.kill(coordinator, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while crew.coordinates() in (0, coordinator) and not crew.answers():
        assert time.monotonic() < deadline, crew.said()
        crew.stand_by()  # the one that was stopped may have been the standby, on a busy machine
        time.sleep(0.05)
    os.kill(coordinator, signal.SIGCONT)
    crew.settle()
    assert "LeaseLostError" in crew.said()
    (answer,) = crew.answers()
    assert dict(answer["rows"]) == expected(shards=SHARDS)


def test_what_is_not_dead_is_not_taken(tmp_path: Path) -> None:
    """While a coordinator lives, nobody else gets its job; a standby ends without one when the job has ended."""
    with capture(), Executor(1, tmp_path / "x") as first, Executor(1, tmp_path / "x") as second:
        handle = first.submit(group_by(shards=3, pause=0.05))
        assert second.resume() == []
        assert second.stand_by(timeout=0.2) is None
        assert as_dict(handle.result()) == expected(shards=3)
        handle.remove()
        assert second.stand_by("other", timeout=0.2) is None


def test_a_standby_that_is_not_needed_ends(tmp_path: Path) -> None:
    """When the job that was there has ended without help, the standby returns with nothing."""
    with capture(), Executor(1, tmp_path / "x") as first, Executor(1, tmp_path / "x") as second:
        handle = first.submit(group_by(shards=3, pause=0.1, job_id="mine"))
        found: list[object] = []
        standby = threading.Thread(target=lambda: found.append(second.stand_by("mine", 60)))
        standby.start()
        assert as_dict(handle.result(30)) == expected(shards=3)
        time.sleep(0.3)
        assert found == [], "its answer is still there"
        handle.remove()
        standby.join(30)
        assert found == [None]


def test_an_answer_that_was_removed_is_gone(tmp_path: Path) -> None:
    """Data may be removed without being read: whoever asks for the answer then is told so."""
    with capture(), Executor(1, tmp_path / "x") as executor:
        handle = executor.submit(group_by(shards=2))
        assert handle.wait(30)
        handle.remove()
        with pytest.raises(LookupError, match="was not read before its data was removed"):
            handle.result()
        assert list((tmp_path / "x").iterdir()) == []


def test_a_plan_that_is_not_known_here_is_told(tmp_path: Path) -> None:
    """What cannot be gone on with is an error, and whoever knows more of it may try again at once."""
    with capture(), Executor(1, tmp_path / "x") as executor:
        place = Workspace(tmp_path / "x", 60.0).create()
        body = b"cnowhere.at.all\nthing\n."
        place.decisions.write_bytes(struct.pack("<II", len(body), zlib.crc32(body)) + body)
        place.release()
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError, match="nowhere"):
                executor.resume()
        assert list((tmp_path / "x").glob("job-*"))


def test_jobs_side_by_side(tmp_path: Path) -> None:
    """Several jobs run at once on the same workers, and each gives its own answer."""
    with capture() as captured, Executor(2, tmp_path / "x") as executor:
        handles = [executor.submit(group_by(shards=3 + n, pause=0.02)) for n in range(4)]
        for n, handle in enumerate(handles):
            assert as_dict(handle.result(30)) == expected(shards=3 + n)
            assert handle.done()
            assert handle.progress().ratio == 1.0
        assert len({handle.job_id for handle in handles}) == 4
        assert [job.outcome for job in captured.jobs if job.outcome] == [JobOutcome.SUCCESS] * 4
        starts = [job.time_ns for job in captured.jobs if job.outcome is None and str(job.event) == "start"]
        ends = [job.time_ns for job in captured.jobs if job.outcome]
        assert max(starts) < min(ends), "they ran one after the other"


def test_a_job_can_be_cancelled_beside_others(tmp_path: Path) -> None:
    """Cancelling one job leaves the others alone; waiting for it is bounded by what is asked for."""
    with capture(), Executor(2, tmp_path / "x") as executor:
        slow, quick = executor.submit(group_by(shards=30, pause=5.0)), executor.submit(group_by(shards=2))
        with pytest.raises(TimeoutError, match=slow.job_id):
            slow.result(0.2)
        slow.cancel()
        assert slow.result(30).outcome is JobOutcome.CANCELLED
        assert as_dict(quick.result(30)) == expected(shards=2)


def test_what_runs_when_the_executor_is_closed_is_cancelled(tmp_path: Path) -> None:
    """Whoever waits for a job of an executor that is closed is told so, and the job is recorded as cancelled."""
    with capture() as captured:
        executor = Executor(1, tmp_path / "x")
        handle = executor.submit(group_by(shards=9, pause=5.0))
        executor.close()
        with pytest.raises(ConfigError, match="closed while it ran"):
            handle.result()
        assert captured.jobs[-1].outcome is JobOutcome.CANCELLED
        assert list((tmp_path / "x").iterdir()) == []
