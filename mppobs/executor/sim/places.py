"""A simulated node, its workers, and what they run."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from mppobs.executor.events import AttemptId
from mppobs.executor.sim.fate import Demand, Fate
from mppobs.model import AttemptOutcome

_HOUR_NS: Final = 3600 * 10**9
NOTHING_YET: Final = Fate(0.0)


@dataclass(slots=True, eq=False)
class Node:
    """A machine."""

    name: str
    number: int
    zone: str
    spot: bool
    speed: float
    """1 is what times are given for."""
    up_ns: int = 0
    down_ns: int = -1
    """When it was gone; -1 while it is not."""
    leaving: bool = False
    """Whether it has been told that it will be taken away."""
    memory_used: int = 0
    workers: list[SimWorker] = field(default_factory=list)

    @property
    def busy(self) -> int:
        """Return how many of its workers have something to run."""
        return sum(1 for worker in self.workers if worker.queue)

    def hours(self, now_ns: int) -> float:
        """Return for how long it has been there."""
        return ((self.down_ns if self.down_ns >= 0 else now_ns) - self.up_ns) / _HOUR_NS


@dataclass(slots=True, eq=False)
class SimWorker:
    """A process on a node, which runs one attempt after the other."""

    name: str
    node: Node
    queue: deque[Running]
    """The first of these runs."""


class Running:
    """An attempt that a worker has."""

    __slots__ = (
        "assigned_ns", "attempt", "demand", "ends_ns", "fate", "over", "speculative", "started_ns", "stopped", "worker",
    )  # fmt: skip

    def __init__(
        self, attempt: AttemptId, worker: SimWorker, demand: Demand, speculative: bool, assigned_ns: int
    ) -> None:
        self.attempt = attempt
        self.speculative = speculative
        self.assigned_ns = assigned_ns
        self.fate = NOTHING_YET
        self.worker = worker
        self.demand = demand
        self.started_ns = -1
        self.ends_ns = 0
        self.over = False
        self.stopped: AttemptOutcome | None = None

    def age(self, now_ns: int) -> int:
        """Return for how long it has run."""
        return now_ns - self.started_ns if self.started_ns >= 0 else 0
