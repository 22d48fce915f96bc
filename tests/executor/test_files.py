"""Where exchanged data lies: what is left behind is removed, what is in use is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mppobs.errors import ConfigError
from mppobs.executor.files import Workspace

LEAVE = """
import os, sys
from mppobs.executor.files import Workspace
files = Workspace(sys.argv[1]).job("job-1", 1)
files.begin(0, 0, 0).write_text("left")
os._exit(1)
"""


def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """Data of an executor that died goes when the next one starts in the same directory."""
    subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    assert len(list(tmp_path.rglob("data.exchange"))) == 1
    workspace = Workspace(tmp_path)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(workspace.root.name)] == []
    workspace.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    """Several executors may share a directory."""
    first = Workspace(tmp_path)
    data = first.job("job-1", 1).begin(0, 0, 0)
    data.write_text("mine")
    second = Workspace(tmp_path)
    second.close()
    second.close()
    assert data.read_text() == "mine"
    first.close()


def test_a_temporary_directory_goes_with_its_workspace() -> None:
    """Where no directory is given there is one, until the workspace is closed."""
    workspace = Workspace(None)
    place = workspace.root.parent
    assert place.is_dir()
    workspace.close()
    assert not place.exists()


def test_an_attempt_that_begins_again_begins_anew(tmp_path: Path) -> None:
    """What an earlier attempt of the same number left half written is gone."""
    files = Workspace(tmp_path).job("job-1", 1)
    files.begin(0, 0, 0).write_text("half")
    assert not files.begin(0, 0, 0).exists()


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """The error says which directory, and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        Workspace(tmp_path / "file")
