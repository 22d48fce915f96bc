"""Requests made from the OpenAPI document, well formed and not: what comes back is always what the document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mppobs.sidecar.web import build_app
from tests.sidecar.handmade import HandMadeSpool, listening, parts, populated

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


def fuzz(directory: Path, url: str, *options: str) -> None:
    """Run schemathesis with all its checks against a sidecar, and fail with its report where it finds anything."""
    command = [
        SCHEMATHESIS, "run", f"{url}/openapi.json", "--header", "Authorization: Bearer w", "--mode", "all",
        "--phases", "examples,coverage,fuzzing", "--no-color", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unresolvable" not in done.stdout


def test_every_answer_is_as_documented(tmp_path: Path) -> None:
    """No 500, no undocumented status, valid requests accepted and invalid ones refused, without and with tokens."""
    made = parts(populated(), HandMadeSpool(), write_token="w")
    with listening(build_app(made)) as url:
        fuzz(tmp_path, url, "--max-examples", "15", "--seed", "1")
    assert "internal" not in made.refusals.totals()


@pytest.mark.slow
def test_every_answer_is_as_documented_however_long_one_looks(tmp_path: Path) -> None:
    """The same with many more requests, different ones each time."""
    made = parts(populated(), HandMadeSpool(), write_token="w")
    with listening(build_app(made)) as url:
        fuzz(tmp_path, url, "--max-examples", "500")
    assert "internal" not in made.refusals.totals()
