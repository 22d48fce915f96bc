"""What the readers of a sidecar print on a narrow terminal, of late jobs, and of shards that went wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.client import SidecarClient, job_path
from mppobs.cli.main import run
from mppobs.model import Reason, ShardOutcome
from mppobs.sidecar.reading import ShardRow
from mppobs.sidecar.view import View
from mppobs.sidecar.web import build_app
from tests.sidecar.handmade import SECOND, START_NS, HandMade, listening, parts, summary, totals

NAME = "risk.nightly-revaluation-of-everything"
JOB = "risk.nightly-revaluation/2026-01-31T04:00Z.a"
ODD = ("..", "a/../b", "a//b", "a.b", "a?b#c%2F", "./x")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return where a sidecar with long names, a late job and shards that went wrong listens."""
    pipeline, stage = totals(NAME)
    late = replace(summary(1, pipeline=NAME, job_id=JOB), dispatched=0, recorded=0)
    late = replace(late, deadline_ns=late.end_ns - 90 * SECOND, shards={ShardOutcome.LOST: 1, ShardOutcome.FAILED: 1})
    rows = [
        ShardRow("map", "part-1", ShardOutcome.FAILED, 4, START_NS, START_NS + SECOND, 0, Reason.EXCEPTION, "OSError"),
        ShardRow("map", 7, ShardOutcome.LOST, 2, 0, 0, 0, Reason.NODE_LOST, wall_seconds=42.0),
        ShardRow("map", 8, None, 2, START_NS, 0, 0, Reason.NODE_LOST),
    ]
    named = [summary(number + 2, job_id=name) for number, name in enumerate(ODD)]
    view = View(pipelines={pipeline.key: pipeline}, stages={stage.key: stage})
    with listening(build_app(parts(HandMade(finished=[late, *named], shard_rows=rows, current=view)))) as found:
        yield found


def shown(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> str:
    """Return what a command prints."""
    assert run([*arguments, "--url", url]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("arguments", "names"),
    [(["status"], [NAME]), (["jobs", "-p", NAME], [JOB]), (["job", JOB, "--shards"], [JOB, NAME, "part-1"])],
)
def test_names_stay_whole_and_lines_fit(
    url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    arguments: list[str],
    names: list[str],
) -> None:
    """What has no room is left out, and named."""
    monkeypatch.setenv("COLUMNS", str(width))
    text = shown(capsys, url, *arguments)
    lines = text.splitlines()
    assert all(any(name in line for line in lines) for name in names)
    assert max(map(len, lines)) <= width
    assert ("(wider terminal: " in text) == (width == 80 or "jobs" in arguments)


def test_a_late_job_says_by_how_much(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the listing and by itself."""
    monkeypatch.setenv("COLUMNS", "200")
    assert "1 m 30 s" in shown(capsys, url, "jobs")
    assert "late by 1 m 30 s when it ended" in shown(capsys, url, "job", JOB)


def test_the_worst_shards_are_named_with_their_reason(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed, lost and undecided; what is not known is not 0; and a job that nobody dispatched says so."""
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(capsys, url, "job", JOB)
    words = [line.split() for line in text[text.index("Worst shards") :].splitlines()]
    assert ["map", "part-1", "failed", "exception,", "OSError", "4", "1", "s"] in words
    assert ["map", "7", "lost", "node_lost", "2", "42", "s"] in words
    assert ["map", "8", "undecided", "node_lost", "2", "–"] in words
    assert "no dispatch records: completeness unknown" in text


def test_a_pipeline_that_is_misspelt_is_hinted_at(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list says why it may be empty."""
    text = " ".join(shown(capsys, url, "jobs", "--pipeline", NAME[:-1]).split())
    assert f"there is no pipeline '{NAME[:-1]}': did you mean '{NAME}'?" in text


@pytest.mark.parametrize("name", ODD)
def test_a_job_is_found_by_any_name(url: str, name: str) -> None:
    """Dots and slashes are no paths."""
    with SidecarClient(url) as client:
        assert client.get(job_path(name))["job_id"] == name


@given(st.lists(st.tuples(st.text("ab[]/. ", min_size=1, max_size=90), st.integers(0, 10**6)), max_size=5),
       st.integers(62, 130), st.booleans())  # fmt: skip
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, int]], width: int, prose: bool) -> None:
    """Whatever the names; short ones are whole, and nothing is taken for markup."""
    made = show.table("T", ["name", "what"], ["a", "b"], "c", less=("a",), prose=("what",) if prose else ())
    for name, number in rows:
        made.add_row(name, "some words " * (number % 9), str(number), Text("x"))
    out = io.StringIO()
    Console(file=out, width=width).print(made)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(any(line.startswith(name) for line in lines) for name, _ in rows if len(name) <= 60)
