"""`mppobs slo status` and `mppobs slo report`, as people type them, against a sidecar that listens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mppobs.cli.main import run
from mppobs.sidecar.view import View
from mppobs.sidecar.web import build_app
from mppobs.slo.evaluate import Tally
from tests.sidecar.handmade import HandMade, listening, parts, populated, promises


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return where a sidecar with two SLOs listens."""
    with listening(build_app(parts(populated()))) as found:
        yield found


@pytest.fixture(autouse=True)
def _environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPPOBS_SIDECAR_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Return what a command prints."""
    assert run(("slo", *arguments)) == status
    out, err = capsys.readouterr()
    return err if status else out


def cells(line: str) -> list[str]:
    """Return the columns of a row."""
    return re.split(r"\s{2,}", line.strip())


def test_status_is_one_row_per_slo(capsys: pytest.CaptureFixture[str]) -> None:
    """Objective, events, what may still be bad in whole events, what is left, the burn and how long it lasts."""
    lines = shown(capsys, "status").splitlines()

    assert cells(lines[2]) == [
        "ads/hourly-shards", "–", "–", "99.9 %", "10,000", "4", "6", "60 %", "0.4", "0.4", "42 d 0 h",
    ]  # fmt: skip
    assert cells(lines[3])[:10] == [
        "risk/nightly-on-time", "scoring", "bad", "90 %", "3", "2", "1", "33.33 %", "6.67", "6.67",
    ]  # fmt: skip


def test_what_prometheus_counts_has_a_row_without_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody should miss the promise, or take a figure of this sidecar for its budget."""
    lines = shown(capsys, "status").splitlines()
    month = shown(capsys, "report", "--month", "2023-11").splitlines()

    assert cells(lines[4]) == ["web/gateway", "edge", "–", "99 %", "–", "–", "–", "in Prometheus", "–", "–", "–"]
    assert cells(month[4]) == ["web/gateway", "edge", "in Prometheus", "99 %", "–", "–", "–", "–", "–"]
    assert all("`mppobs slo status web/gateway` says" in " ".join(text[5:]) for text in (lines, month))


def test_an_slo_without_events_has_no_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been good yet: what alerts by its newest event waits for one."""
    nightly = promises()[0]
    unseen = replace(nightly, tally=Tally(nightly.slo.full_name, "", nightly.slo.objective, 0), latched=False)
    with listening(build_app(parts(HandMade(current=View(slos=[unseen]))))) as found:
        monkeypatch.setenv("MPPOBS_SIDECAR_URL", found)
        row = cells(shown(capsys, "status").splitlines()[2])

    assert row[:5] == ["risk/nightly-on-time", "scoring", "–", "90 %", "0"]


def test_status_of_one_that_prometheus_counts_says_what_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole queries, to be pasted."""
    text = shown(capsys, "status", "web/gateway")

    assert "web/gateway: 99 % of what its own queries count over 14 days" in text
    assert ["budget left", 'mpp_slo_budget_left_ratio{slo="web/gateway"}'] in [cells(line) for line in text.split("\n")]


@pytest.mark.parametrize("command", [["status"], ["report", "--month", "2023-11"]])
def test_a_narrow_terminal_keeps_what_matters(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, objectives and what is left, on eighty columns."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, *command).splitlines()

    assert {"SLO", "objective", "bad", "left"} <= set(cells(lines[1]))
    assert max(map(len, lines)) <= 80


def test_status_of_one_shows_its_windows_and_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """The words that a page's next command leads to: what is promised, what is left, window by window."""
    text = shown(capsys, "status", "risk/nightly-on-time")

    assert "risk/nightly-on-time: 90 % on-time of nightly over 30 days" in text
    assert "3 runs since 2023-11-14 22:13:20, 2 of them bad; 1 more may be. Budget left: 33.33 %" in text
    assert "running jobs that are predicted to become bad: 1" in text
    assert ["5m", "3", "2", "6.67"] in [cells(line) for line in text.splitlines()]
    assert "objective 95 % → 90 %" in text


def test_report_of_a_month_says_whether_the_promise_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Kept is what the events of that month say against the objective."""
    lines = shown(capsys, "report", "--month", "2023-11").splitlines()

    assert lines[0].strip() == "SLOs in 2023-11"
    assert cells(lines[2])[:7] == ["ads/hourly-shards", "–", "yes", "99.9 %", "99.96 %", "10,000", "4"]
    assert cells(lines[3])[:7] == ["risk/nightly-on-time", "scoring", "no", "90 %", "33.3 %", "3", "2"]
    empty = shown(capsys, "report", "--month", "2023-10")
    assert empty.count("no events") == 2


def test_json_is_what_the_api_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: every figure, nothing rounded."""
    found = json.loads(shown(capsys, "status", "--owner", "scoring", "--json"))
    (month,) = json.loads(shown(capsys, "report", "-p", "nightly", "--month", "2023-11", "--json"))["slos"]

    assert [each["slo"] for each in found["slos"]] == ["risk/nightly-on-time"]
    assert found["problem"] == ""
    assert month["period"]["good_ratio"] == 1 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "risk/nightly"], "did you mean 'risk/nightly-on-time'?"),
        (["report", "--month", "2023-13"], "month"),
        (["report", "--month", "2024-05"], "has not begun"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the nearest right word, and no traceback."""
    text = shown(capsys, *arguments, status=2)

    assert message in text
    assert "Traceback" not in text


def test_a_refused_change_and_no_slos_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody should take the SLOs before a mistake for those after it, or an empty table for a healthy one."""
    view = replace(View(), slo_problem="slo.yaml:3: unknown key 'objectvie'")
    with listening(build_app(parts(HandMade(current=view)))) as found:
        monkeypatch.setenv("MPPOBS_SIDECAR_URL", found)
        text = shown(capsys, "status")

    assert "slo.yaml:3: unknown key 'objectvie'" in text
    assert "mppobs sidecar --slo FILE" in text
