"""The public names: what they are, what importing them costs, and that their types survive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mppobs

ROOT = Path(__file__).parents[2]


def test_every_public_name_can_be_loaded() -> None:
    """What `__all__` promises is there, and `dir` shows it."""
    for name in mppobs.__all__:
        assert getattr(mppobs, name) is not None
        assert name in dir(mppobs)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """A typing error in a public name fails like that of any module."""
    with pytest.raises(AttributeError, match="tsk"):
        _ = mppobs.tsk


def test_importing_costs_little() -> None:
    """`import mppobs` takes no more than 60 ms of processor time."""
    code = "import time; t = time.process_time(); import mppobs; print(time.process_time() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) <= 0.06


def test_types_survive_decoration() -> None:
    """mypy in its strict form agrees with every assertion in the file of typing examples."""
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "tests/typing/instrumented.py"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
