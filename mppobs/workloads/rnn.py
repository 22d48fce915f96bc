"""
Training of a small RNN on features that a query prepared: two fabrics, one job.

The executor cleans, joins and aggregates TPC-H tables next to the data (`rnn_features`); its last shard, `train`,
starts training processes (`gang`) that exchange gradients over sockets, by ring all-reduce or through parameter servers
(`gradients`). All of it has one job ID, and every step of every process is an attempt of its own.

**In production** a ring is as slow as its slowest member and stops when one dies; a parameter server drowns when
workers are added; and a checkpoint that is too rare loses hours, one that is too frequent costs them. The worst is the
job that holds its accelerators while it waits for features.

**Watch** checkpoint lag (M11), the share of `exchange` in the attempts of `step` against `compute`, the spread of step
times over ranks, retries of `step` after a restart (M8), and bytes received by `serve`.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

import mppobs
from mppobs.executor.plan import Limits, Plan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import Setup, Work, require, require_package
from mppobs.workloads.checkpoints import newest
from mppobs.workloads.data import Dataset, make_dataset, parts_of
from mppobs.workloads.gang import Gang, coordinator
from mppobs.workloads.gang_member import Training
from mppobs.workloads.made import sweep
from mppobs.workloads.rnn_features import FEATURES, arrays_of, expected_features, prepare_stages
from mppobs.workloads.rnn_model import Shape, train_alone

SEED: Final = 20_000
RATE: Final = 0.05
_TOLERANCE: Final = 1e-9
"""Sums of floats in another order differ in the last of 16 digits, and training carries that on for some steps."""


class Answer(TypedDict):
    """What a training comes back with: small enough to travel."""

    weights: list[float]
    losses: list[float]
    """The mean loss of each step."""
    gradient: list[float]
    """The mean gradient of the first step."""
    resumed_from: list[int]


def plan_ring(setup: Setup, shards: int) -> Plan:
    """Return the training by ring all-reduce as a plan."""
    return _plan(setup, shards, "rnn-ring", 0)


def plan_server(setup: Setup, shards: int) -> Plan:
    """Return the training with parameter servers as a plan."""
    return _plan(setup, shards, "rnn-parameter-server", setup.number("servers"))


def prepare(setup: Setup) -> None:
    """Make the tables."""
    require_package("duckdb")
    _tables(setup)


def train(task: TaskInput) -> Answer:
    """Train with a gang of processes, from the job's newest checkpoint if it has one, and return what was learnt."""
    arguments = dict(task.arguments)
    home, kill_step = Path(arguments.pop("home")), arguments.pop("kill_step")
    with _own_directory(home, task.job_id) as directory:
        with mppobs.current().activity("load"):
            inputs, targets = arrays_of(task.read("features"))
            np.save(directory / "inputs.npy", inputs, allow_pickle=False)
            np.save(directory / "targets.npy", targets, allow_pickle=False)
        training = Training(directory=str(directory), **arguments)
        gang = Gang(training, coordinator(), kill_step)
        with mppobs.current().activity("train"):
            gang.run()
        final = newest(directory)
    if final is None or final.step != training.steps:
        raise OSError(f"the last checkpoint of {task.job_id} cannot be read")
    return Answer(
        weights=final.weights.tolist(),
        losses=final.losses.tolist(),
        gradient=final.gradient.tolist(),
        resumed_from=gang.resumed_from,
    )


def check(setup: Setup, answer: Any) -> None:
    """Compare with training in this one process, on features that one query of DuckDB made."""
    inputs, targets = expected_features(_tables(setup))
    shape = Shape(FEATURES, setup.number("hidden"))
    weights, losses, gradient = train_alone(
        shape, inputs, targets, steps=setup.number("steps"), batch=setup.number("batch"), rate=RATE, seed=SEED
    )
    require(len(answer) == 1, f"{len(answer)} answers, expected 1")
    found: Answer = answer[0]
    pairs = (("gradient", found["gradient"], gradient), ("losses", found["losses"], losses))
    for what, got, wanted in (*pairs, ("weights", found["weights"], weights)):
        require(len(got) == len(wanted), f"{what}: {len(got)} numbers, expected {len(wanted)}")
        gap = float(np.max(np.abs(np.asarray(got) - np.asarray(wanted)), initial=0.0))
        require(gap <= _TOLERANCE, f"{what}: {gap:.3g} from those of one process")


def tell(setup: Setup, answer: Any) -> list[str]:
    """Return how the training went, in words."""
    found: Answer = answer[0]
    losses = found["losses"]
    lines = [f"loss {losses[0]:.4f} → {losses[-1]:.4f} in {len(losses)} steps on {setup.number('workers')} workers"]
    restarts = [f"a process died; all went on from the checkpoint after step {s}" for s in found["resumed_from"]]
    return lines + restarts


RING_WORK: Final = Work(prepare, plan_ring, check, tell)
SERVER_WORK: Final = Work(prepare, plan_server, check, tell)


def _plan(setup: Setup, shards: int, pipeline: str, servers: int) -> Plan:
    dataset = _tables(setup)
    arguments = {
        "home": str(setup.directory / "training"),
        "kill_step": setup.number("kill-step"),
        "steps": setup.number("steps"),
        "batch": setup.number("batch"),
        "rate": RATE,
        "features": FEATURES,
        "hidden": setup.number("hidden"),
        "seed": SEED,
        "every": setup.number("checkpoint-every"),
        "workers": setup.number("workers"),
        "servers": servers,
    }
    train_stage = Stage(
        name="train",
        task=path_of(train),
        reads=("features",),
        arguments=arguments,
        limits=Limits(attempts=3),
        priority=1,  # it has the most to lose by an eviction
    )
    stages = (*prepare_stages(dataset, min(shards, dataset.parts)), train_stage)
    return Plan(pipeline=pipeline, owner="forecasting", deadline=300.0, stages=stages)


def _tables(setup: Setup) -> Dataset:
    return make_dataset(setup.directory, setup.scale, parts_of(setup.scale))


@contextmanager
def _own_directory(home: Path, job_id: str) -> Iterator[Path]:
    """
    Take the directory of a job's checkpoints; a twin of this attempt waits until it is free.

    It goes when the block succeeds: what failed stays, to be gone on with by the next try of the same job.
    """
    home.mkdir(parents=True, exist_ok=True)
    sweep(home)
    directory = home / job_id
    with (home / f"{job_id}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory.mkdir(exist_ok=True)
        yield directory
        shutil.rmtree(directory)
        Path(lock.name).unlink(missing_ok=True)
