"""The tables of docs/executor.md are those that its script writes: faults from their table, effects from simulation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "executor_page.py"


def test_the_page_is_up_to_date() -> None:
    """`python scripts/executor_page.py` would change nothing."""
    assert subprocess.run([sys.executable, str(SCRIPT), "--check"], check=False).returncode == 0, f"run {SCRIPT}"
