"""`mppobs slo check` as people read it: counts in good English, and room for the message."""

from __future__ import annotations

from pathlib import Path

import pytest

from mppobs.cli.main import run

SPEC = """
team: t
pipelines:
  a-pipeline-with-rather-a-long-name:
    owner: o
    objectives: {job-success: {objective: 99.9%, every: 1d}}
"""


def test_what_is_wrong_with_many_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five warnings of two kinds are two rows, and five all the same; programs get each by its name."""
    path = tmp_path / "slo.yaml"
    path.write_text(
        "team: t\ndefaults: {owner: o, every: 1h}\npipelines:\n"
        "  a: {objectives: {job-success: 99%, shard-success: 99%, on-time: 99%}}\n"
        "  b: {period: 20d, objectives: {job-success: 99%, on-time: 99%}}\n"
    )
    assert run(["slo", "check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if "window-over-retention" in line] == [
        "t/a-job-success and 2 more", "t/b-job-success and 1 more",
    ]  # fmt: skip
    assert lines[-1] == "5 SLOs: 0 errors, 5 warnings"
    assert run(["slo", "check", str(path), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize("width", [80, 200])
def test_a_finding_is_named_whole_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """On 80 columns the message stands below the name; one of a thing is no plural."""
    monkeypatch.setenv("COLUMNS", str(width))
    path = tmp_path / "slo.yaml"
    path.write_text(SPEC)
    assert run(["slo", "check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[-1] == "1 SLO: 0 errors, 2 warnings"
    name = "t/a-pipeline-with-rather-a-long-name-job-success"
    found = next(line for line in lines if line.startswith(f"{name}  warning  budget-under-one"))
    assert ("99.9 % of 30 runs" in found) == (width == 200)
    assert any("99.9 % of 30 runs" in line for line in lines)
