"""A sidecar as a process beside: it starts, is asked and stops, and says why where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mppobs.cli.beside import BesideError, Peaks, SidecarProcess, Watcher

PRICES = Path(__file__).parents[2] / "examples" / "prices.yaml"


def pipeline(name: str, memory: float | None, lag: float | None) -> dict[str, Any]:
    """Return a pipeline's indicators of the present moment, and one other."""
    values = {"M1": 3.0, "M7": memory, "M11": lag}
    return {"pipeline": name, "indicators": {key: {"value": value, "headline": "now"} for key, value in values.items()}}


def test_it_starts_answers_and_stops(tmp_path: Path) -> None:
    """Inside the block the sidecar serves its indicators, and after it the process has gone."""
    with SidecarProcess(tmp_path / "sidecar", tmp_path / "journals", PRICES) as sidecar, Watcher(sidecar) as watcher:
        assert sidecar.indicators() == []
        sidecar.wait_until_judged([], seconds=1)
        with pytest.raises(BesideError, match=r"not judged within 0\.1 s: unknown-job"):
            sidecar.wait_until_judged(["unknown-job"], seconds=0.1)
    sidecar.wait()  # returns at once
    sidecar.stop()

    assert watcher.failed == 0
    assert (tmp_path / "sidecar" / "state").is_dir()


def test_sidecar_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error has the last words of the process."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("node_typos: {}\n")
    with (
        pytest.raises(BesideError, match=r"did not start; its log ends: .*did you mean 'node_types'"),
        SidecarProcess(tmp_path / "sidecar", tmp_path / "journals", prices),
    ):
        pytest.fail("it must not begin")


def test_settings_of_the_environment_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would make it an agent, or refuse to start, is not inherited."""
    monkeypatch.setenv("MPPOBS_SIDECAR_FORWARD", "http://127.0.0.1:9")
    monkeypatch.setenv("MPPOBS_SIDECAR_POLL_SECONDS", "nonsense")
    with SidecarProcess(tmp_path / "sidecar", tmp_path / "journals", PRICES) as sidecar:
        assert sidecar.indicators() == []


def test_peaks_are_the_worst_that_was_seen() -> None:
    """Indicators of the present moment keep their highest value and are marked as such; no other is touched."""
    peaks = Peaks()
    peaks.see([pipeline("a", 0.5, None)])
    peaks.see([pipeline("a", 0.75, 2.0)])
    peaks.see([pipeline("a", None, 1.0), pipeline("b", None, None)])
    filled = {
        each["pipeline"]: each["indicators"] for each in peaks.fill([pipeline("a", None, None), pipeline("b", 0, None)])
    }

    assert filled["a"]["M7"] == {"value": 0.75, "headline": "worst while running"}
    assert filled["a"]["M11"]["value"] == 2.0
    assert filled["a"]["M1"] == {"value": 3.0, "headline": "now"}
    assert filled["b"]["M11"] == {"value": None, "headline": "now"}
