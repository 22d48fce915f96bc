"""`mppobs run`: what it says, in words and in JSON, and with which status it exits."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mppobs.cli.main import run
from mppobs.instrument.recorder import RECORDER
from mppobs.workloads.base import WrongAnswerError
from mppobs.workloads.registry import WORKLOADS, Workload

SMALL = ("tpch-q1", "--scale", "0.01", "--shards", "4", "--workers", "2")


@pytest.fixture(autouse=True)
def _own_recorder() -> Iterator[None]:
    """Put the recorder's settings back, which the command changes."""
    before = RECORDER.reset(None)
    yield
    RECORDER.reset(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tables are made, once."""
    return tmp_path_factory.mktemp("run-data")


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command; return its status and what it printed."""
    status = run(["run", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_list_tells_everything_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Every workload with its parameters, every backend, every fault; the same for programs."""
    status, words, _ = told(capsys, "--list")
    assert status == 0
    assert all(name in words for name in (*WORKLOADS, "local", "dask", "ray", "sim", "node-loss", "--set steps=24"))

    status, text, _ = told(capsys, "--list", "--json")
    listed = json.loads(text)
    assert set(listed["workloads"]) == set(WORKLOADS)
    assert listed["workloads"]["rnn-ring"]["parameters"]["steps"]["default"] == 24


def test_a_run_is_told_in_words(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """The job, how it ended, what it cost, the faults that were asked for, and whether the answer is right."""
    status, words, _ = told(capsys, *SMALL, "--data", data, "--fault", "long-tail:severity=1.5")
    assert status == 0
    assert "fault     long-tail at 0 s" in words
    assert "success" in words
    assert words.rstrip().endswith("answer    right")


def test_a_run_is_told_to_programs(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """One JSON object and nothing else; simulated, too, in simulated time."""
    for backend in ("local", "sim"):
        status, text, _ = told(capsys, *SMALL, "--data", data, "--backend", backend, "--json")
        found: dict[str, Any] = json.loads(text)
        assert (status, found["ok"], found["backend"], found["outcome"]) == (0, True, backend, "success")
        assert [stage["stage"] for stage in found["stages"]] == ["map", "combine", "reduce"]
        assert found["attempts"]["success"] == sum(stage["done"] for stage in found["stages"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fault", "skew:target=mpa"), "fault skew: the job has no target 'mpa': did you mean 'map'?"),
        (("--fault", "runaway:target=risk"), "fault runaway: the job has no target 'risk': leave it out"),
        (("--directory", "/dev/null"), "no room for exchanged data in /dev/null"),
        (("--backend", "sim", "--budgets", "http://127.0.0.1:1"), "--budgets: a simulated job is over before"),
        (("--budgets", "http://[nonsense"), "--budgets 'http://[nonsense' is no address"),
        (("--budgets", "sidecar:9466"), "--budgets 'sidecar:9466' is no address, such as http://127.0.0.1:9466"),
    ],
)
def test_what_the_job_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], data: Path, arguments: tuple[str, ...], message: str
) -> None:
    """A fault that would hit nobody and a directory that is none are told before anything runs."""
    status, _, errors = told(capsys, *SMALL, "--data", data, *arguments)
    assert (status, message in errors, errors.count("\n")) == (2, True, 1)


def test_data_that_has_no_room_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The message names the directory in which data was to be made, and what the system said."""
    file = tmp_path / "file"
    file.touch()
    for workload in ("tpch-q1", "reindex"):
        status, _, errors = told(capsys, workload, "--scale", "0.01", "--data", file / "below")
        assert (status, f"mppobs: {file}/below cannot hold the data: Not a directory\n") == (2, errors)


@pytest.mark.parametrize(
    ("workload", "package"), [("tpch-q1", "duckdb"), ("thumbnails", "PIL"), ("rnn-ring", "duckdb")]
)
def test_a_missing_package_is_told_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workload: str, package: str
) -> None:
    """What only tasks or the check would miss is told at once, with what to install; no data is made for it."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    status, _, errors = told(capsys, workload, "--data", tmp_path / "data")
    assert (status, errors) == (2, f"mppobs: {package} is not installed: pip install 'mppobs[demo]'\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_is_told(
    capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch, backend: str, package: str
) -> None:
    """With what to install, and what was not opened is closed without a word."""
    monkeypatch.setitem(sys.modules, package, None)
    status, _, errors = told(capsys, *SMALL, "--data", data, "--backend", backend)
    assert (status, errors) == (2, f"mppobs: the {backend} backend needs {package}: pip install 'mppobs[{backend}]'\n")


def test_a_fault_that_does_not_begin_is_told(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """Who asks for a fault after the end of the job is not left to think that it was survived."""
    status, words, _ = told(capsys, *SMALL, "--data", data, "--fault", "retry-storm:at=1h")
    assert status == 0
    assert "fault     retry-storm did not begin: the job had ended before 1 h" in words


def test_a_sidecar_beside_it_judges_the_job(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """With `--sidecar` the indicators of the pipeline are told as well."""
    status, text, _ = told(capsys, *SMALL, "--data", data, "--sidecar", "--json")

    found = json.loads(text)

    assert status == 0
    assert found["indicators"]["tpch-pricing-summary"]["M2"]["value"] == 1.0


def test_a_wrong_answer_is_a_failure(
    capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said how the answer differs, and the status is 1."""

    def differ(self: Workload, directory: Path, scale: float, answer: object) -> None:
        raise WrongAnswerError("row 0: 1, expected 2")

    monkeypatch.setattr(Workload, "check", differ)

    status, words, _ = told(capsys, *SMALL, "--data", data)

    assert status == 1
    assert "answer    WRONG: row 0: 1, expected 2" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which workload? mppobs run --list tells them"),
        (("tpch-q11",), "no workload 'tpch-q11': did you mean 'tpch-q1'?"),
        (("tpch-q1", "--backend", "dusk"), "no backend 'dusk': did you mean 'dask'?"),
        (("tpch-q1", "--address", "auto"), "the local backend has no address: it is for dask and ray"),
        (("tpch-q1", "--backend", "sim", "--nodes", "3"), "nodes, memory and spares are for the local backend"),
        (("tpch-q1", "--memory", "lots"), "--memory 'lots'"),
        (("tpch-q1", "--set", "steps"), "--set 'steps': write NAME=VALUE"),
        (("tpch-q1", "--fault", "node-los"), "no kind 'node-los': did you mean 'node-loss'?"),
        (("tpch-q1", "--standby"), "--standby needs the --directory"),
        (("tpch-q1", "--workers", "100000"), "the local backend has 512 workers, nodes and spares at most"),
        (
            ("tpch-q1", "--backend", "dask", "--address", "there"),
            "--address 'there': the dask backend takes tcp://HOST",
        ),
        (("tpch-q1", "--backend", "ray", "--address", "tcp://a:1"), "the ray backend takes auto or ray://HOST:10001"),
        (("tpch-q1", "--memory", "1"), "an attempt needs 16 MiB of memory at least"),
        (("tpch-q1", "--backend", "sim", "--fault", "coordinator"), "the sim backend has no coordinator"),
        (("tpch-q1", "--journal", "/dev/null"), "--journal /dev/null cannot be recorded to: File exists"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    """With the nearest right word, and status 2."""
    status, _, errors = told(capsys, *arguments)

    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
