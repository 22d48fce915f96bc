"""Rule files: the real promtool accepts them, and the same input gives the same bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from mppobs.render.files import Format, rule_files
from mppobs.render.promql import Durations
from mppobs.render.rules import RuleSettings, groups


def _write(directory: Path, target: Format, scale: int = 1) -> list[Path]:
    settings = RuleSettings(Durations(scale))
    written = []
    for name, text in rule_files(groups(settings), settings, target).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")
@pytest.mark.parametrize("scale", [1, 720])
@pytest.mark.parametrize("target", [Format.PROMETHEUS, Format.RULER])
def test_promtool_accepts_every_file(tmp_path: Path, target: Format, scale: int) -> None:
    """The real checker finds nothing wrong, duplicates included."""
    files = _write(tmp_path, target, scale)
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_objects_hold_the_same_groups(tmp_path: Path) -> None:
    """What prometheus-operator gets is what Prometheus itself would load."""
    plain = [yaml.safe_load(path.read_text())["groups"] for path in _write(tmp_path, Format.PROMETHEUS)]
    wrapped = [yaml.safe_load(path.read_text())["spec"]["groups"] for path in _write(tmp_path, Format.KUBERNETES)]
    assert plain == wrapped


def test_the_same_input_gives_the_same_bytes() -> None:
    """Generation depends on nothing but its input."""
    settings = RuleSettings()
    assert rule_files(groups(), settings, Format.RULER) == rule_files(groups(), settings, Format.RULER)
