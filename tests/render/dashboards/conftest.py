"""The dashboards as Grafana reads them, and the schemas of Grafana's own types."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from mppobs.render.dashboards.build import text_of
from mppobs.render.dashboards.sources import dashboards

ROOT: Final = Path(__file__).parents[3]
SCRIPT: Final = ROOT / "scripts" / "grafana-schemas"
_BUILT: Final = {name: text_of(dashboard) for name, dashboard in dashboards().items()}


@pytest.fixture
def books() -> dict[str, dict[str, Any]]:
    """Return every dashboard's JSON by its name, to be changed at will."""
    return {name: json.loads(text) for name, text in _BUILT.items()}


@pytest.fixture
def oncall(books: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the on-call dashboard, to be changed at will."""
    return copy.deepcopy(books["oncall"])


@pytest.fixture(scope="session")
def schemas() -> Path:
    """
    Return the directory of the schemas, made once by npm and kept in the user's cache.

    Without npm or its network this is a visible skip, and an error where servers are required, as CI does.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mppobs" / "grafana-schemas"
    made = cache / hashlib.sha256(SCRIPT.read_bytes() + SCRIPT.with_suffix(".mjs").read_bytes()).hexdigest()[:12]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a test run make them once
        if not any(made.glob("*.*.*")):
            _make(made)
    return made


def _make(target: Path) -> None:
    reason = "npm is not installed: apt-get install npm"
    if shutil.which("npm") is not None:
        done = subprocess.run([SCRIPT, target], capture_output=True, text=True, check=False, timeout=600)
        if done.returncode == 0:
            return
        reason = f"schemas of Grafana's types cannot be made: {done.stderr[-500:]}"
    if os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(reason)
    pytest.skip(reason)
