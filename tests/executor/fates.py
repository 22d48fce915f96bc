"""What may become of attempts, workers and coordinators in a world, and how likely it is."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from mppobs.executor.events import AttemptEnded, AttemptId, WorkerLost
from mppobs.model import AttemptOutcome, Reason

MS = 1_000_000


@dataclass(frozen=True)
class Chances:
    """How likely things are to go wrong in a world."""

    failure: float = 0.0
    throttled: float = 0.0
    permanent: float = 0.0
    hang: float = 0.0
    """An attempt that never ends by itself."""
    loss: float = 0.0
    """That a worker dies while it runs an attempt."""
    eviction: float = 0.0
    node_loss: float = 0.0
    zone_loss: float = 0.0
    """That a worker in the first zone dies while it runs an attempt, besides."""
    memory: float = 0.0
    ghost: float = 0.0
    """That an attempt whose worker was declared lost succeeds all the same, later."""
    cancel: float = 0.0
    damage: float = 0.0
    """That committed output goes."""
    crash: float = 0.0
    """That the coordinator dies when an attempt begins."""
    crash_when_cancelled: float = 0.0
    """That it dies before a job has ended that was cancelled."""
    slow_node: float = 0.0

    def at(self, zone: str) -> Chances:
        """Return how likely things are to go wrong in a zone."""
        return replace(self, loss=self.loss + self.zone_loss) if zone == "z0" else self


@dataclass(frozen=True)
class Machines:
    """What a world's workers are like."""

    workers: int = 3
    nodes: int = 0
    """0: it is not known where they are."""
    spot: float = 0.0
    memory: tuple[int, ...] = (0,)
    zones: int = 0
    """0: none is known."""

    def place(self, chance: random.Random) -> tuple[str, str]:
        """Return a node and its zone."""
        number = chance.randrange(self.nodes) if self.nodes else -1
        zone = number % self.zones if self.nodes and self.zones else chance.randrange(self.zones or 1)
        return f"n{number}" if self.nodes else "", f"z{zone}" if self.zones else ""


class Crash(NamedTuple):
    """The coordinator dies. Another begins."""


class Ghost(NamedTuple):
    """An attempt of a coordinator that died puts its output in place."""

    job: str
    stage: int
    shard: int
    number: int


def fate_of(roll: float, odds: Chances, attempt: AttemptId, worker: str, took: int) -> AttemptEnded | WorkerLost | None:
    """Return how an attempt ends by itself; `None` for never."""
    failure, error = AttemptOutcome.FAILURE, AttemptOutcome.ERROR
    for likely, fate in (
        (odds.failure, AttemptEnded(attempt, failure, Reason.EXCEPTION)),
        (odds.throttled, AttemptEnded(attempt, error, Reason.STORAGE, throttled=True)),
        (odds.permanent, AttemptEnded(attempt, failure, Reason.EXCEPTION, permanent=True)),
        (odds.memory / 2, AttemptEnded(attempt, error, Reason.OOM_KILLED)),
        (odds.memory / 2, WorkerLost(worker, Reason.OOM_KILLED)),
        (odds.loss, WorkerLost(worker)),
        (odds.eviction, WorkerLost(worker, Reason.PREEMPTED)),
        (odds.node_loss, WorkerLost(worker, Reason.NODE_LOST)),
        (odds.hang, None),
    ):
        if roll < likely:
            return fate
        roll -= likely
    return AttemptEnded(attempt, AttemptOutcome.SUCCESS, duration_ns=took)
