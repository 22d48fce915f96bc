"""`mppobs simulate`: what it prints, writes and refuses. The figures are other tests' business."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mppobs.cli.main import run
from mppobs.executor.sim.scenarios import SCENARIOS

SLOW = pytest.mark.slow
LONGER = sorted(set(SCENARIOS) - {"scheduler-outage"})


def lines(text: str) -> list[dict[str, object]]:
    """Return the JSON objects of some lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_sizes_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object for each size: fewer workers are cheaper and later."""
    assert run(["simulate", "--pipelines", "3", "--days", "1", "--workers", "8,64", "--json"]) == 0
    small, large = lines(capsys.readouterr().out)

    assert (small["workers"], large["workers"]) == (8, 64)
    assert small["shards"] == large["shards"]
    assert float(str(small["p95_seconds"])) > float(str(large["p95_seconds"]))
    assert float(str(small["node_usd"])) < float(str(large["node_usd"]))


def test_an_estate_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Journals, series, promises and a summary; and the promises pass the linter of SLOs."""
    out = tmp_path / "estate"
    assert run(["simulate", "--pipelines", "3", "--days", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())

    assert f"{summary['workers']}" in shown
    assert {path.name for path in out.iterdir()} == {"journals", "metrics", "slo.yaml", "summary.json"}
    assert [path.name for path in (out / "metrics").iterdir()] == ["day-01.om"]
    assert run(["slo", "check", str(out / "slo.yaml")]) == 0


def test_faults_come_from_a_file_and_from_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are applied; comments and empty lines are not."""
    file = tmp_path / "faults"
    file.write_text("# a bad night\n\nretry-storm:severity=0.05,for=20h  # all day\n")
    arguments = ["simulate", "--pipelines", "3", "--days", "1", "--json"]
    assert run([*arguments]) == 0
    assert run([*arguments, "--faults", str(file)]) == 0
    assert run([*arguments, "--faults", str(file), "--fault", "runaway:severity=3"]) == 0
    quiet, stormy, runaway = lines(capsys.readouterr().out)

    assert quiet["retries"] == 0
    assert int(str(stormy["retries"])) > 0
    assert runaway["jobs"] == 3 * int(str(stormy["jobs"]))


def test_a_cluster_that_follows_the_work_costs_less(capsys: pytest.CaptureFixture[str]) -> None:
    """Nodes that are there only while they are needed cost less than half, and no deadline is missed for it."""
    arguments = ["simulate", "--pipelines", "5", "--days", "1", "--workers", "64", "--json"]
    assert run(arguments) == 0
    assert run([*arguments, "--autoscale"]) == 0
    fixed, scaled = lines(capsys.readouterr().out)

    assert float(str(scaled["node_usd"])) < 0.5 * float(str(fixed["node_usd"]))
    assert scaled["late"] == fixed["late"] == 0
    assert scaled["shards"] == fixed["shards"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--scenario", "cost-sped"], "did you mean 'cost-speed'?"),
        (["--fault", "skwe"], "did you mean 'skew'?"),
        (["--workers", "many"], "write whole numbers"),
        (["--workers", "0"], "a cluster needs workers"),
        (["--workers", "8,16", "--out", "x"], "one size of the cluster"),
        (["--workers", "8,1000000000000"], "100,000 at most"),
        (["--faults", "/nowhere/faults"], "--faults /nowhere/faults cannot be read: No such file or directory"),
        (["--faults", "/bin/sh"], "--faults /bin/sh cannot be read: it is no text, from byte"),
        (["--fault", "runaway:target=meda"], "the estate has no target 'meda': did you mean 'media'?"),
        (["--fault", "skew:target=jion"], "the estate has no target 'jion': did you mean 'join'?"),
        (["--scenario", "runaway", "--out", "x", "--spot", "0.5"], "leave out --spot, --out"),
        (["--out", "/dev/null"], "/dev/null/journals cannot hold a journal"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the nearest right word, and the status 2."""
    assert run(["simulate", *arguments]) == 2
    assert hint in " ".join(capsys.readouterr().err.split())


def test_a_faulty_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says in which file and in which line."""
    file = tmp_path / "faults"
    file.write_text("skew\nskew:at=soon\n")

    assert run(["simulate", "--faults", str(file)]) == 2
    assert f"{file}, line 2: fault 'skew:at=soon'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--pipelines", "--days", "--step", "--spot"])
@pytest.mark.parametrize("value", ["-1", "1000000000000"])
def test_absurd_numbers_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What no memory and no patience would do is refused at once, with the option's name."""
    assert run(["simulate", option, value]) == 2
    assert option in capsys.readouterr().err


def test_a_directory_takes_one_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that is there is written over, not even a file of promises alone."""
    (tmp_path / "slo.yaml").write_text("mine")
    assert run(["simulate", "--pipelines", "1", "--days", "1", "--out", str(tmp_path)]) == 2
    assert "slo.yaml is there already: a directory takes one simulation" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["slo.yaml"]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_leaves_nothing(tmp_path: Path, kind: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it with 130, without a traceback, and remove what was half written."""
    out = tmp_path / "estate"
    command = [sys.executable, "-m", "mppobs.cli.main", "simulate", "--days", "300", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "metrics").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(kind)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scheduler-outage", *(pytest.param(name, marks=SLOW) for name in LONGER)])
def test_a_scenario_prints_its_figures_and_timeline(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For people as a table, with what must be; for machines as one object per figure and event."""
    assert run(["simulate", "--scenario", name]) == 0
    text = capsys.readouterr().out
    assert run(["simulate", "--scenario", name, "--json"]) == 0
    told = lines(capsys.readouterr().out)

    assert "✗" not in text
    assert "What happened" in text
    assert all(each["scenario"] == name for each in told)
    assert {"figure", "value", "unit", "target", "met"} < set(told[0])
    assert told[-1]["event"] in ("everything has ended", "9 jobs wait")
