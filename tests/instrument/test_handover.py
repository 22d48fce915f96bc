"""Processes that a job starts take part in it, however they are started."""

from __future__ import annotations

import json
import multiprocessing.process
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import mppobs
from mppobs.instrument.handover import Exports, Handover
from mppobs.model import AttemptRecord, ContextRecord, JobEvent
from mppobs.testing import Captured

PROGRAM = """
import multiprocessing, subprocess, sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import mppobs

@mppobs.task(stage="map", shard="part")
def square(part):
    return part * part

def grandchild(part):
    child = multiprocessing.get_context("spawn").Process(target=square, args=(part,))
    child.start()
    child.join()

def pool(method, part, work=square):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        executor.submit(work, part).result()

def job(method, name, part):
    with mppobs.job(pipeline="nightly", job_id=name):
        pool(method, part)

if __name__ == "__main__":
    method = sys.argv[1]
    job(method, "first", 1)
    with mppobs.job(pipeline="nightly", job_id="outer"):
        pool(method, 2)
        job(method, "inner", 3)
        pool(method, 4, grandchild)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(job, (method, method), ("left", "right"), (5, 6)))
"""
"""Jobs one after the other, within each other and beside each other, each with workers of its own."""


def jobs_by_shard(captured: Captured) -> dict[int, str]:
    """Return the job of each shard that was worked on, over all journals."""
    found: dict[int, str] = {}
    jobs: dict[int, str] = {}
    for record in captured.records:  # journal by journal, each context before its attempts
        if isinstance(record, ContextRecord):
            jobs[record.context_id] = record.context.job_id
        elif isinstance(record, AttemptRecord):
            found[record.shard_key] = jobs[record.context_id]
    return found


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_every_start_method_take_part(tmp_path: Path, method: str) -> None:
    """A fork server that was started under an earlier job does not matter, nor do other jobs of the process."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(mppobs.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "MPPOBS_DIR": str(tmp_path / "journals")}
    done = subprocess.run(
        [sys.executable, program, method], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    captured = Captured(tmp_path / "journals")
    captured.keep()

    assert jobs_by_shard(captured) == {1: "first", 2: "outer", 3: "inner", 4: "outer", 5: "left", 6: "right"}
    assert len([record for record in captured.jobs if record.event is JobEvent.START]) == 5


def test_what_is_handed_over_needs_nothing_of_ours() -> None:
    """A child in whose environment this package is missing starts all the same: it gets a plain text."""
    data = pickle.dumps(Handover(lambda: "x"))

    assert b"mppobs" not in data
    assert pickle.loads(data) == "x"


def test_what_is_handed_over_is_the_job_of_the_code_that_starts_the_process(captured: Captured) -> None:
    """A job that is open, one that is attached, or nothing where the environment says it all."""

    def handed() -> str:
        config = vars(multiprocessing.process.current_process())["_config"]
        text = pickle.loads(pickle.dumps(config["mppobs"]))
        assert isinstance(text, str)
        return str(json.loads(text)["mppobs-job-id"]) if text else ""

    with mppobs.job(pipeline="p", job_id="open"):
        assert handed() == "open"
        with mppobs.attach({"mppobs-pipeline": "p", "mppobs-job-id": "attached"}), mppobs.attempt(stage="s", shard=1):
            assert handed() == "attached"
        assert handed() == "open"
    assert handed() == ""


def test_an_exported_job_is_in_the_environment_until_it_ends(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children of any kind inherit it; what was there before comes back."""
    monkeypatch.setenv("MPPOBS_CONTEXT", "before")
    with mppobs.job(pipeline="p", job_id="outer", export=True):
        assert {"MPPOBS_CONTEXT": os.environ["MPPOBS_CONTEXT"]} == mppobs.environment()
        with mppobs.job(pipeline="p", job_id="quiet"):
            assert "outer" in os.environ["MPPOBS_CONTEXT"]
        with suppress(ZeroDivisionError), mppobs.job(pipeline="p", job_id="inner", export=True):
            assert "inner" in os.environ["MPPOBS_CONTEXT"]
            raise ZeroDivisionError
        assert "outer" in os.environ["MPPOBS_CONTEXT"]
    assert os.environ["MPPOBS_CONTEXT"] == "before"


def test_a_decorated_job_can_be_exported(captured: Captured) -> None:
    """The environment has the job while the function runs."""

    @mppobs.job(pipeline="p", export=True)
    def run() -> str:
        return os.environ["MPPOBS_CONTEXT"]

    assert "mppobs-pipeline" in run()
    assert "MPPOBS_CONTEXT" not in os.environ


@pytest.mark.parametrize("order", [lambda a, b: (a, b), lambda a, b: (b, a)])
def test_exports_that_overlap_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, order: Callable[[str, str], tuple[str, str]]
) -> None:
    """Jobs of two threads may end in any order: the one that is left is in the environment, and then none."""
    monkeypatch.delenv("MPPOBS_CONTEXT", raising=False)
    exports = Exports()
    a, b = exports.add({"x": "a"}), exports.add({"x": "b"})
    first, second = order(a, b)

    exports.remove(first)
    assert os.environ["MPPOBS_CONTEXT"] == second
    exports.remove(second)
    assert "MPPOBS_CONTEXT" not in os.environ


def test_a_context_that_somebody_else_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was put there is taken back."""
    monkeypatch.delenv("MPPOBS_CONTEXT", raising=False)
    exports = Exports()
    text = exports.add({"x": "a"})
    monkeypatch.setenv("MPPOBS_CONTEXT", "theirs")

    exports.remove(text)

    assert os.environ["MPPOBS_CONTEXT"] == "theirs"
