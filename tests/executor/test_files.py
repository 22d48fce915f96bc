"""Where jobs lie: what is left behind is removed, what is in use is not, and one coordinator at a time has a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mppobs.errors import ConfigError
from mppobs.executor.files import JobFiles
from mppobs.executor.workspace import JobPlace, LeaseLostError, Workspace, newest_lease

LEAVE = """
import os, sys
from pathlib import Path
from mppobs.executor.files import JobFiles
from mppobs.executor.workspace import Workspace
place = Workspace(sys.argv[1], float(sys.argv[2])).create()
if len(sys.argv) > 3:
    place.decisions.write_text("something")
files = JobFiles(place.directory)
files.prepare(1)
files.begin(0, 0, 0).write_text("left")
os._exit(1)
"""


def leave(directory: Path, lease: float, *more: str) -> None:
    """Have another process make a job there, and die."""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", LEAVE, str(directory), str(lease), *more], check=False, cwd=root)
    assert len(list(directory.rglob("data.exchange"))) == 1


def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """Data of a job that nobody can go on with goes when the next executor starts in the same directory."""
    leave(tmp_path, 60.0)
    Workspace(tmp_path, 60.0)
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_gone_on_with_stays_for_its_lease(tmp_path: Path) -> None:
    """A job whose decisions are there is kept until its lease is over."""
    leave(tmp_path, 0.4, "decisions")
    (place,) = Workspace(tmp_path, 60.0).places()
    time.sleep(0.5)
    assert list(Workspace(tmp_path, 60.0).places()) == []
    assert not place.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    """Several executors may share a directory, and two threads of one process do not take each other's jobs."""
    place = Workspace(tmp_path, 60.0).create()
    (place.directory / "data").write_text("mine")
    second = Workspace(tmp_path, 60.0)
    assert second.take(place.directory) is None
    second.close()
    assert (place.directory / "data").read_text() == "mine"
    place.remove()
    place.remove()
    assert list(tmp_path.iterdir()) == []


def test_temporary_data_is_cleaned_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no directory is given, executors of a user share one, in which the next removes what a dead one left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    workspace = Workspace(None, 60.0)
    assert workspace.base.parent == tmp_path
    assert workspace.base.stat().st_mode & 0o777 == 0o700
    leave(workspace.base, 60.0)
    place = Workspace(None, 60.0).create()
    assert list(workspace.base.iterdir()) == [place.directory]
    workspace.close()
    place.remove()
    workspace.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others could write to, or a link to somewhere, is no place for data that is unpickled."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = Workspace(None, 60.0).base
    usual.chmod(0o777)
    first = Workspace(None, 60.0)
    usual.rmdir()
    usual.symlink_to(tmp_path)
    second = Workspace(None, 60.0)
    assert len({usual, first.base, second.base, tmp_path}) == 4
    first.close()
    second.close()


def test_the_dead_ones_place_is_taken_at_once(tmp_path: Path) -> None:
    """A lock that is free is enough, however young the lease; the new lease says who has the job and since when."""
    leave(tmp_path, 60.0, "decisions")
    (directory,) = Workspace(tmp_path, 60.0).places()
    place = Workspace(tmp_path, 60.0).take(directory)
    assert place is not None
    assert (place.fence, place.before.fence, place.before.locked) == (2, 1, True)
    assert newest_lease(directory).holder.endswith(f"-{os.getpid()}")
    assert [path.name for path in place.earlier_decisions()] == ["decisions-000001"]
    assert Workspace(tmp_path, 60.0).take(directory) is None
    place.remove()


def hung(tmp_path: Path, *, locked: bool) -> tuple[Workspace, JobPlace]:
    """Return a place whose holder lives, and has not said so for longer than its lease."""
    workspace = Workspace(tmp_path, 10.0)
    place = workspace.create()
    if not locked:
        said = {"holder": "elsewhere", "locked": False, "lasts_ns": 10_000_000_000}
        (place.directory / "lease-000001").write_text(json.dumps(said))
    place.renew(time.time_ns() - 11_000_000_000)
    return workspace, place


@pytest.mark.parametrize("locked", [True, False])
def test_who_hangs_is_fenced_off(tmp_path: Path, locked: bool) -> None:
    """A coordinator that has not renewed its lease loses the job, and is told when it comes back."""
    workspace, old = hung(tmp_path, locked=locked)
    new = workspace.take(old.directory)
    assert new is not None
    assert new.fence == 2
    for look in (old.check, lambda: old.renew(time.time_ns())):
        with pytest.raises(LeaseLostError, match="another coordinator than number 1"):
            look()
    new.renew(time.time_ns())
    assert workspace.take(old.directory) is None
    old.release()
    old.mark_ended()
    old.remove()
    assert not (new.directory / "ended").exists()
    assert workspace.take(old.directory) is None or not locked
    new.remove()


def test_cleaning_up_lets_the_living_be(tmp_path: Path) -> None:
    """An executor that starts removes nothing of a coordinator that lives, however late it is with its lease."""
    _, old = hung(tmp_path, locked=True)
    Workspace(tmp_path, 10.0)
    assert old.directory.is_dir()
    old.renew(time.time_ns())
    old.remove()
    assert not old.directory.exists()


def test_only_one_gets_a_lease(tmp_path: Path) -> None:
    """Of two that find the same lease over, the one that makes the next file has the job."""
    workspace, old = hung(tmp_path, locked=False)
    (old.directory / "lease-000002").write_text("")
    assert workspace.take(old.directory) is None
    old.remove()


def test_an_answer_that_waits_to_be_read_is_nobody_elses(tmp_path: Path) -> None:
    """A job that has ended is not renewed any more, and not taken over either while its process lives."""
    workspace, place = hung(tmp_path, locked=True)
    place.mark_ended()
    assert workspace.take(place.directory) is None
    assert list(Workspace(tmp_path, 1.0).places()) == [place.directory]
    place.remove()


def test_a_job_that_was_removed_is_lost(tmp_path: Path) -> None:
    """Whoever finds its directory gone has no job."""
    place = Workspace(tmp_path, 60.0).create()
    place.directory.rename(tmp_path / "elsewhere")
    with pytest.raises(LeaseLostError):
        place.check()
    place.release()


@pytest.mark.parametrize("make", [JobFiles])
def test_an_attempt_that_begins_again_begins_anew(tmp_path: Path, make: Callable[[Path], JobFiles]) -> None:
    """What an earlier attempt of the same number left half written is gone."""
    files = make(tmp_path / "job")
    files.prepare(1)
    files.begin(0, 0, 0).write_text("half")
    assert not files.begin(0, 0, 0).exists()


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """The error says which directory, and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        Workspace(tmp_path / "file", 60.0)


def test_a_job_that_ended_meanwhile_has_no_lease(tmp_path: Path) -> None:
    """Whoever looks at a directory that is gone finds nothing, and no error."""
    assert newest_lease(tmp_path / "job-gone").fence == 0
    assert Workspace(tmp_path, 10.0).take(tmp_path / "job-gone") is None
