"""`mppobs status`, `jobs`, `job` and `sidecar --check`, as people type them, against a sidecar that listens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mppobs.cli.client import SidecarClient, SidecarError
from mppobs.cli.main import run
from mppobs.cli.status import pipelines_table
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.sources import flag_name
from mppobs.sidecar.web import build_app
from tests.sidecar.handmade import HandMade, listening, parts, populated


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return where a sidecar with two pipelines and four jobs listens."""
    with listening(build_app(parts(populated()))) as found:
        yield found


@pytest.fixture(autouse=True)
def _environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPPOBS_SIDECAR_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Return what a command prints."""
    assert run(arguments) == status
    out, err = capsys.readouterr()
    return err if status else out


def test_status_shows_every_pipeline_in_columns_that_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    """One row each; the tenant is a column since it tells the rows apart, the cluster is not."""
    lines = shown(capsys, "status").splitlines()
    heads = lines[1].split()
    assert heads[:3] == ["pipeline", "tenant", "running"]
    ads, nightly = lines[2], lines[3]
    assert re.split(r"\s{2,}", nightly.strip())[:5] == ["nightly", "default", "1", "4", "1"]
    assert "99 %" in nightly
    assert "$12.00" in nightly
    assert len(ads) == len(nightly) == len(lines[1])


def test_json_is_what_the_api_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: no colour, no rounding, nothing left out."""
    found = json.loads(shown(capsys, "status", "--json"))
    assert [each["pipeline"] for each in found["pipelines"]] == ["hourly", "nightly"]
    found = json.loads(shown(capsys, "jobs", "--json", "-n", "2"))
    assert [job["job_id"] for job in found["jobs"]] == ["job-9", "job-3"]
    found = json.loads(shown(capsys, "job", "job-1", "--json", "--shards", "--outcome", "lost"))
    assert [row["shard"] for row in found["shard_list"]] == ["odd"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["job-9", "job-3", "job-2", "job-1"]),
        (["--pipeline", "hourly"], ["job-3"]),
        (["--state", "running"], ["job-9"]),
        (["--outcome", "success", "-n", "2"], ["job-3", "job-2"]),
        (["--since", "2023-11-14T22:13:22Z", "--until", "2023-11-14T22:13:23Z"], ["job-2"]),
        (["--since", "1h"], []),
    ],
)
def test_jobs_are_filtered(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]) -> None:
    """By the filters of the API, and by times as people say them."""
    lines = shown(capsys, "jobs", *arguments).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("job-")] == expected


def test_a_job_is_shown_from_the_general_to_the_particular(capsys: pytest.CaptureFixture[str]) -> None:
    """Facts, stages, stragglers, what runs, and its shards where they are asked for."""
    text = shown(capsys, "job", "job-9", "--shards", "--slowest", "-n", "2")
    order = [text.index(title) for title in ("Job job-9", "Stages", "Stragglers", "Running now", "Shards")]
    assert order == sorted(order)
    assert "$3.00 (useful $2.00, wasted $1.00)" in text
    assert "reads 4 times the median input" in text
    shards = text[text.index("Shards") :].splitlines()[2:4]
    assert [line.split()[1] for line in shards] == ["9", "8"]


def test_colours_mean_something_and_can_be_switched_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red for what failed; none where NO_COLOR is set or the output is no terminal."""
    assert "\x1b[" not in shown(capsys, "status")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert re.search(r"\x1b\[1;31m +1\x1b", shown(capsys, "status"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(capsys, "status")


def test_watching_goes_on_until_interrupted_and_survives_a_sidecar_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last table stays, with what is wrong below it."""
    looks = 0

    def look(client: SidecarClient, path: str, query: object) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise SidecarError("no sidecar answers")
        return {"pipelines": []}

    def sleep(_: float) -> None:
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(SidecarClient, "get", look)
    monkeypatch.setattr("mppobs.cli.status.time.sleep", sleep)
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = shown(capsys, "status", "--watch")
    assert "no sidecar answers" in text
    assert looks == 3


@pytest.mark.parametrize("command", [["status"], ["jobs"], ["job", "x"]])
def test_where_no_sidecar_answers_it_says_what_was_tried_and_what_to_do(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """One line, no traceback, exit status 2."""
    error = shown(capsys, *command, "--url", "http://127.0.0.1:9", status=2)
    assert error.startswith("mppobs: no sidecar answers at http://127.0.0.1:9 (")
    assert "mppobs sidecar" in error
    assert "MPPOBS_SIDECAR_URL" in error


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["job", "job-77"], "did you mean"),
        (["job", "nightly"], "is a pipeline: mppobs jobs --pipeline nightly"),
        (["jobs", "--outcome", "sucess"], "did you mean 'success'?"),
        (["jobs", "--since", "soon"], "'soon' is no time"),
        (["status", "--url", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_line(capsys: pytest.CaptureFixture[str], command: list[str], part: str) -> None:
    """The API's own hints come through."""
    error = shown(capsys, *command, status=2)
    assert part in error
    assert len(error.strip().splitlines()) == 1


def test_a_token_is_asked_for_and_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the flag or from the sidecar's own variable."""
    with listening(build_app(parts(HandMade(), read_token="r"))) as guarded:
        error = shown(capsys, "status", "--url", guarded, status=2)
        assert "MPPOBS_SIDECAR_READ_TOKEN" in error
        assert "no pipeline has written anything yet" in shown(capsys, "status", "--url", guarded, "--token", "r")
        monkeypatch.setenv("MPPOBS_SIDECAR_READ_TOKEN", "r")
        assert "Pipelines" in shown(capsys, "status", "--url", guarded)


def test_a_pipeline_of_which_nothing_is_known_shows_dashes_and_no_zeros() -> None:
    """What has not happened has no ratio."""
    unknown = dict.fromkeys(
        (
            "shard_success_ratio",
            "p50_seconds",
            "p99_seconds",
            "retry_ratio",
            "cost_per_job_usd",
            "cost_usd",
            "completeness_ratio",
        )
    )
    counts = {"jobs": {"failure": 0, "error": 0}, "shards": {}, "jobs_running": 0}
    table = pipelines_table([{"cluster": "c", "tenant": "t", "pipeline": "p", **counts, **unknown}])
    cells = [next(iter(column.cells)) for column in table.columns]
    assert [str(cell) for cell in cells] == ["p", "0", "0", "0", "0", "–", "–", "–", "–", "not priced", "–"]


def test_sidecar_help_documents_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its flag and its name in the environment."""
    text = shown(capsys, "sidecar", "--help")
    for name in SidecarSettings.model_fields:
        assert flag_name(name) in text
        assert f"MPPOBS_SIDECAR_{name.upper()}" in text


def test_sidecar_check_prints_what_is_in_force_and_where_it_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Secrets masked; a sidecar's address for readers is no setting of its own."""
    config = tmp_path / "sidecar.yaml"
    config.write_text("settle_seconds: 9s\nwrite_token: hunter2\n")
    monkeypatch.setenv("MPPOBS_SIDECAR_WORST_K", "3")
    text = shown(
        capsys,
        "sidecar",
        "--check",
        "--config",
        str(config),
        "--port",
        "0",
        "--directory",
        "/tmp/a",
        "--directory",
        "/tmp/b",
    )
    rows = {line.split()[0]: re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()}
    assert rows["settle_seconds"][1:] == ["9", f"{config}:1: settle_seconds"]
    assert rows["worst_k"][1:] == ["3", "MPPOBS_SIDECAR_WORST_K"]
    assert rows["port"][1:] == ["0", "--port"]
    assert rows["directories"][1:] == ["/tmp/a /tmp/b", "--directory"]
    assert "hunter2" not in text
    assert "role: aggregator" in text
    error = shown(capsys, "sidecar", "--check", "--host", "0.0.0.0", status=2)
    assert "read_token must be set" in error


def test_check_refuses_what_a_real_run_would(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit status 2 and one message, before anything is bound or made."""
    (tmp_path / "file").write_text("")
    cases = [
        (["--price-file", str(tmp_path / "none.yaml")], "none.yaml"),
        (["--write-token", "x", "--read-token", "x"], "are the same"),
        (["--slo", str(tmp_path / "none.yaml")], "none.yaml"),
        (["--state-directory", str(tmp_path / "file" / "state")], "is no directory"),
        (["--port", "abc"], "--port: must be a whole number"),
    ]
    for flags, message in cases:
        both = [shown(capsys, "sidecar", *check, *flags, status=2) for check in (["--check"], [])]
        assert message in both[0]
        assert both[0] == both[1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
