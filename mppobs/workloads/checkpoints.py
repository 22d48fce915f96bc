"""The state of a training that is worth keeping: one file for each checkpoint, complete where it is there at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from mppobs.workloads.frames import Floats

_KEPT: Final = 2
"""Checkpoints that stay: the newest, and the one before it should the newest not be readable."""


class Checkpoint(NamedTuple):
    """Where a training stands after some steps."""

    step: int
    """Steps that are done."""
    weights: Floats
    losses: Floats
    """The mean loss of each step that is done."""
    gradient: Floats
    """The mean gradient of the first step."""


def save(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, have it reach the disk, and drop those that are too old."""
    handle, name = tempfile.mkstemp(prefix=".checkpoint-", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                step=np.int64(checkpoint.step),
                weights=checkpoint.weights,
                losses=checkpoint.losses,
                gradient=checkpoint.gradient,
            )
            file.flush()
            os.fsync(file.fileno())
        final = directory / f"checkpoint-{checkpoint.step:08d}.npz"
        Path(name).replace(final)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    for old in sorted(directory.glob("checkpoint-*.npz"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return final


def newest(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint that can be read; `None` where there is none."""
    for path in sorted(directory.glob("checkpoint-*.npz"), reverse=True):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return Checkpoint(int(found["step"]), found["weights"], found["losses"], found["gradient"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # damaged: the one before it will do
            continue
    return None
