"""Fork and spawn: every process has a journal of its own, and touches no other's."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import mppobs
from mppobs.instrument.recorder import RECORDER
from mppobs.journal.reader import owner_is_alive, read_slots, scan
from mppobs.model import AttemptOutcome, EndRecord, JobEvent, WorkerRecord
from mppobs.testing import Captured


@mppobs.task(stage="map", shard="part")
def square(part: int) -> int:
    """Return a square, as an attempt."""
    mppobs.current().add(rows=1)
    return part * part


def run_in_child(work: object) -> int:
    """Fork, run something in the child, and return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()  # type: ignore[operator]
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_records_in_a_journal_of_its_own(captured: Captured) -> None:
    """Parent and child write side by side under the job that the child inherited."""
    with mppobs.job(pipeline="nightly", job_id="n-1"):
        square(1)

        def child() -> None:
            square(2)
            RECORDER.close()

        assert run_in_child(child) == 0
        square(3)
        RECORDER.close()

    assert sorted(record.shard_key for record in captured.attempts) == [1, 2, 3]
    assert len({record.info.pid for record in captured.of(WorkerRecord)}) == 2
    starts = [record for record in captured.jobs if record.event is JobEvent.START]
    assert len(starts) == 1


def test_a_child_that_is_forked_in_an_attempt_leaves_it_to_its_parent(captured: Captured) -> None:
    """The child may end the scope that it inherited: nothing is recorded for it, no slot of the parent changes."""
    with mppobs.job(pipeline="nightly") as run, mppobs.attempt(stage="map", shard=5) as attempt:
        attempt.progress(0.5)

        def child() -> None:
            attempt.progress(0.9)
            attempt.checkpoint()
            attempt.add(rows=1000)
            with attempt.activity("late"):
                pass
            RECORDER.note = None  # type: ignore[assignment,method-assign] - any call would fail the child
            scopes_end(attempt)
            run.close(None)

        assert run_in_child(child) == 0
        slots = [slot for files in scan(captured.directory) if files.head for slot in read_slots(files.head)]
        assert [slot.progress for slot in slots if not slot.is_job] == [0.5]
        assert len(slots) == 2
        attempt.add(rows=1)

    (record,) = captured.attempts
    assert (record.shard_key, record.rows, record.outcome) == (5, 1, AttemptOutcome.SUCCESS)
    assert [record.event for record in captured.jobs] == [JobEvent.START, JobEvent.END]


def scopes_end(attempt: mppobs.Attempt) -> None:
    """End an attempt as its scope would."""
    from mppobs.instrument.recording import fail, succeed

    succeed(attempt)
    fail(attempt, ValueError("x"))


def test_the_parents_lock_is_not_kept_by_a_child(captured: Captured) -> None:
    """A child that outlives its parent does not make the parent look alive."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        square(1)
        grandchild = os.fork()
        if grandchild == 0:
            os.write(ready[1], b"x")
            os.close(done[1])
            os.read(done[0], 1)  # outlive the parent
            os._exit(0)
        os.read(ready[0], 1)
        os._exit(0)
    os.waitpid(pid, 0)

    (files,) = scan(captured.directory)
    assert not owner_is_alive(files)
    os.close(done[1])


FORKING = """
import json, os, threading
import mppobs
from mppobs.instrument.recorder import RECORDER

@mppobs.task(stage="map", shard="part")
def square(part):
    return part * part

def work(which):
    while not stop.is_set():
        square(which * 1_000_000 + counts[which])
        counts[which] += 1

def fork():
    pid = os.fork()
    if pid == 0:
        square(9_000_000)
        RECORDER.close()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

stop, counts = threading.Event(), [0, 0, 0]
threads = [threading.Thread(target=work, args=(which,)) for which in range(3)]
for thread in threads:
    thread.start()
statuses = [fork() for _ in range(10)]
stop.set()
for thread in threads:
    thread.join()
print(json.dumps([counts, statuses]))
"""


def test_forking_while_threads_run_attempts_loses_none(tmp_path: Path) -> None:
    """Forks in the middle of other threads' attempts neither deadlock nor lose or double a record."""
    # In an interpreter of its own: a coverage tool's lock, held by a thread at the fork, would stop the child.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environ = {**inherited, "MPPOBS_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    ran = subprocess.run(
        [sys.executable, "-c", FORKING], env=environ, capture_output=True, text=True, check=True, timeout=60
    )

    counts, statuses = json.loads(ran.stdout)
    assert statuses == [0] * 10
    shards = sorted(record.shard_key for record in Captured(tmp_path).attempts)
    expected = sorted([which * 1_000_000 + i for which in range(3) for i in range(counts[which])] + [9_000_000] * 10)
    assert shards == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pools_work_by_nature(captured: Captured, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A pool's workers record under the job that they inherit or that the environment carries to them."""
    monkeypatch.setenv("MPPOBS_DIR", str(captured.directory))
    with mppobs.job(pipeline="nightly", job_id="n-1"):
        for name, value in mppobs.environment(mppobs.inject()).items():
            monkeypatch.setenv(name, value)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            assert list(pool.map(square, range(20))) == [part * part for part in range(20)]

    assert sorted(record.shard_key for record in captured.attempts) == list(range(20))
    journals = scan(captured.directory)
    assert len(journals) >= 2
    contexts = {record.context.job_id for record in captured.records if hasattr(record, "context")}
    assert contexts == {"n-1"}


def test_a_daemon_thread_at_exit_is_recorded_as_shut_down(tmp_path: Path) -> None:
    """A process that ends while a daemon thread is in an attempt says so, and its journal is complete."""

    def child() -> None:
        mppobs.configure(directory=tmp_path)
        thread = threading.Thread(target=stuck, daemon=True)
        thread.start()
        time.sleep(0.1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)

    assert process.exitcode == 0
    found = Captured(tmp_path)
    (record,) = found.attempts
    assert record.outcome is AttemptOutcome.ERROR
    assert isinstance(found.records[-1], EndRecord)


@mppobs.task(shard="part")
def stuck(part: int = 1) -> None:
    """Never end."""
    time.sleep(3600)
