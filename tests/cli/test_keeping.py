"""Raw records stay readable although the sidecar has deleted them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mppobs.cli.keeping import Keeper
from mppobs.errors import ConfigError
from tests.servers import wait_until


def test_files_of_journals_outlive_their_deletion(tmp_path: Path) -> None:
    """Journals and segments anywhere below the sources are kept with their content, locks and others are not."""
    source, kept = tmp_path / "source", tmp_path / "kept"
    (source / "deep").mkdir(parents=True)
    names = ["a.journal", "a.000000.segment", "deep/b.000001.segment"]
    with Keeper([source], kept):
        for name in [*names, "a.lock"]:
            (source / name).write_text("first")
        wait_until("the first look", lambda: len(list(kept.iterdir())) == 3, seconds=5)
        (source / names[0]).write_text("later")  # the same file: what is written after the look is kept too
        for name in names:
            (source / name).unlink()

    assert sorted(path.name for path in kept.iterdir()) == ["a.000000.segment", "a.journal", "b.000001.segment"]
    assert (kept / "a.journal").read_text() == "later"


def test_files_that_come_last_are_kept_too(tmp_path: Path) -> None:
    """What is there when the block ends is kept, however short the block was."""
    (tmp_path / "source").mkdir()
    with Keeper([tmp_path / "source"], tmp_path / "kept"):
        (tmp_path / "source" / "a.journal").touch()

    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a.journal"]


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    """A directory that holds something already is refused: two demos would mix."""
    (tmp_path / "old.journal").touch()
    with pytest.raises(ConfigError, match="is not empty"), Keeper([tmp_path], tmp_path):
        pytest.fail("it must not begin")
