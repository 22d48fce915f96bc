"""What a simulation tells whoever watches it. Times are nanoseconds of the simulated clock."""

from __future__ import annotations

from typing import NamedTuple

from mppobs.executor.events import Load
from mppobs.executor.sim.fate import Fate
from mppobs.executor.sim.jobs import JobState
from mppobs.executor.sim.places import Node
from mppobs.model import AttemptOutcome, Reason, ShardOutcome


class Tried(NamedTuple):
    """An attempt that is over."""

    job: JobState
    stage: int
    shard: int
    number: int
    """From 0, under all coordinators."""
    speculative: bool
    worker: str
    node: Node
    start_ns: int
    end_ns: int
    assigned_ns: int
    outcome: AttemptOutcome
    reason: Reason
    fate: Fate


class Observer:
    """Watches a simulation. Every method does nothing: override those that matter."""

    def submitted(self, job: JobState, now_ns: int) -> None:
        """A job is submitted."""

    def opened(self, job: JobState, stage: int, now_ns: int) -> None:
        """A stage may start; the sizes of its shards are known."""

    def split(self, job: JobState, stage: int, shard: int, parts: int, now_ns: int) -> None:
        """A shard was replaced by smaller ones."""

    def started(self, job: JobState, stage: int, shard: int, number: int, worker: str, speculative: bool) -> None:
        """An attempt begins, at the job's world's time."""

    def tried(self, tried: Tried) -> None:
        """An attempt is over."""

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """A shard is decided."""

    def checkpointed(self, job: JobState, now_ns: int) -> None:
        """All that a job has done so far is safe."""

    def ended(self, job: JobState, now_ns: int) -> None:
        """A job has ended: see its `end`."""

    def worker_up(self, worker: str, node: Node, now_ns: int) -> None:
        """A worker is ready."""

    def worker_lost(self, worker: str, node: Node, reason: Reason, now_ns: int) -> None:
        """A worker is gone."""

    def beat(self, load: Load, now_ns: int) -> None:
        """The coordinator is alive, and has so much on its hands."""

    def control(self, what: str, now_ns: int) -> None:
        """Something has become of the coordinator or its decisions: `killed`, `takeover`, `set aside node-3`."""
