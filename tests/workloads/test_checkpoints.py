"""Checkpoints: the newest that is whole is where training goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mppobs.workloads.checkpoints import Checkpoint, newest, save


def at(step: int) -> Checkpoint:
    return Checkpoint(step, np.full(3, step / 7), np.arange(float(step)), np.ones(3))


def test_the_newest_comes_back_to_the_bit_and_old_ones_go(tmp_path: Path) -> None:
    """What was saved is what is read, and only the last two files stay."""
    for step in (8, 16, 24):
        save(tmp_path, at(step))
    found = newest(tmp_path)

    assert found is not None
    assert found.step == 24
    for got, saved in zip(found[1:], at(24)[1:], strict=True):
        np.testing.assert_array_equal(got, saved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000016.npz", "checkpoint-00000024.npz"]


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    """Where the newest cannot be read the one before it serves, and where none can there is none."""
    assert newest(tmp_path) is None
    save(tmp_path, at(8))
    last = save(tmp_path, at(16))
    last.write_bytes(last.read_bytes()[:100])
    found = newest(tmp_path)

    assert found is not None
    assert found.step == 8


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A file that holds objects, which loading would run, counts as damaged."""
    np.savez(tmp_path / "checkpoint-00000001.npz", step=np.array({"run": "me"}, object))

    assert newest(tmp_path) is None


def test_a_checkpoint_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """What cannot be written whole is not there at all, and the one before it still serves."""
    save(tmp_path, at(8))
    with pytest.raises(ValueError, match="no number"):
        save(tmp_path, Checkpoint(16, np.ones(1), np.ones(1), np.ones(1))._replace(step="no number"))  # type: ignore[arg-type]

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000008.npz"]
