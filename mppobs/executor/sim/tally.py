"""Figures of a simulation, counted as it goes: what a comparison of two policies, or of two cluster sizes, looks at."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Final

from mppobs.executor.events import Load
from mppobs.executor.sim.jobs import JobState
from mppobs.executor.sim.model import JobModel
from mppobs.executor.sim.observe import Observer, Tried
from mppobs.executor.sim.places import Node
from mppobs.model import AttemptOutcome, CostKind, JobOutcome, Reason, ShardOutcome

_HOUR_NS: Final = 3600e9


def percentile(values: array[float] | list[float], share: float) -> float:
    """
    Return the value below which this share of the values lies (nearest rank); 0 where there are none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([], 0.5)
    (2.0, 0.0)
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended."""

    model: JobModel
    outcome: JobOutcome
    submit_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Return how long it took from its submission."""
        return (self.end_ns - self.submit_ns) / 1e9

    @property
    def late(self) -> bool:
        """Return whether it missed its deadline."""
        return self.model.deadline > 0 and (
            self.outcome is not JobOutcome.SUCCESS or self.seconds > self.model.deadline
        )


COST_OF: Final[dict[AttemptOutcome, CostKind]] = {
    AttemptOutcome.SUCCESS: CostKind.USEFUL,
    AttemptOutcome.SUPERSEDED: CostKind.SPECULATION,
    AttemptOutcome.PREEMPTED: CostKind.PREEMPTED,
}
"""What the money of an attempt bought, by how it ended; all others are retries' cause."""


class Tally(Observer):
    """Counts over a whole simulation. Costs are those of lanes while attempts ran, by what the money bought."""

    def __init__(self, usd_per_lane_hour: float = 0.0, spot_usd_per_lane_hour: float = 0.0) -> None:
        """Begin at nothing; the prices are those of one worker."""
        self._usd = usd_per_lane_hour / _HOUR_NS
        self._spot_usd = spot_usd_per_lane_hour / _HOUR_NS
        self.attempts: Counter[AttemptOutcome] = Counter()
        self.begun = self.retries = self.speculative = self.splits = 0
        self.decisions: Counter[ShardOutcome] = Counter()
        self.seconds = array("d")
        """Of committed shards, from the start of the first attempt to the commit."""
        self.cost: dict[CostKind, float] = dict.fromkeys(CostKind, 0.0)
        self.jobs: list[Ended] = []
        self.lost: Counter[Reason] = Counter()
        """Workers, by reason."""
        self.network_errors = self.throttled = self.oom = 0
        self.story: list[tuple[int, str]] = []
        """What became of the coordinator and of nodes, by time."""

    @property
    def p99(self) -> float:
        """Return the 99th percentile of shard durations, in seconds."""
        return percentile(self.seconds, 0.99)

    @property
    def median(self) -> float:
        """Return the median of shard durations, in seconds."""
        return percentile(self.seconds, 0.5)

    @property
    def usd(self) -> float:
        """Return what the attempts cost."""
        return sum(self.cost.values())

    def split(self, job: JobState, stage: int, shard: int, parts: int, now_ns: int) -> None:
        """Count a split."""
        self.splits += 1

    def started(self, job: JobState, stage: int, shard: int, number: int, worker: str, speculative: bool) -> None:
        """Count an attempt that begins."""
        self.begun += 1
        self.speculative += speculative
        self.retries += number > 0 and not speculative

    def tried(self, tried: Tried) -> None:
        """Count an attempt and its cost."""
        self.attempts[tried.outcome] += 1
        usd = self._spot_usd if tried.node.spot else self._usd
        self.cost[COST_OF.get(tried.outcome, CostKind.RETRY)] += usd * (tried.end_ns - tried.start_ns)
        self.network_errors += tried.fate.network_errors
        self.throttled += tried.fate.throttled
        self.oom += tried.reason is Reason.OOM_KILLED

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """Count a shard."""
        self.decisions[outcome] += 1
        if outcome is ShardOutcome.COMMITTED:
            self.seconds.append((now_ns - job.stages[stage].first_starts[shard]) / 1e9)

    def ended(self, job: JobState, now_ns: int) -> None:
        """Keep a job that has ended."""
        assert job.end is not None
        self.jobs.append(Ended(job.model, job.end.outcome, job.submit_ns, now_ns))

    def worker_lost(self, worker: str, node: Node, reason: Reason, now_ns: int) -> None:
        """Count a worker."""
        self.lost[reason] += 1

    def control(self, what: str, now_ns: int) -> None:
        """Keep what became of the coordinator."""
        self.story.append((now_ns, what))


class Several(Observer):
    """Observers that are told the same, in their order."""

    def __init__(self, *observers: Observer) -> None:
        """Take in who is to be told."""
        self._observers = observers

    def submitted(self, job: JobState, now_ns: int) -> None:
        """Pass it on, as all of these do."""
        for each in self._observers:
            each.submitted(job, now_ns)

    def opened(self, job: JobState, stage: int, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.opened(job, stage, now_ns)

    def split(self, job: JobState, stage: int, shard: int, parts: int, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.split(job, stage, shard, parts, now_ns)

    def started(self, job: JobState, stage: int, shard: int, number: int, worker: str, speculative: bool) -> None:
        """Pass it on."""
        for each in self._observers:
            each.started(job, stage, shard, number, worker, speculative)

    def tried(self, tried: Tried) -> None:
        """Pass it on."""
        for each in self._observers:
            each.tried(tried)

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """Pass it on."""
        for each in self._observers:
            each.decided(job, stage, shard, number, outcome, reason, now_ns)

    def checkpointed(self, job: JobState, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.checkpointed(job, now_ns)

    def ended(self, job: JobState, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.ended(job, now_ns)

    def worker_up(self, worker: str, node: Node, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.worker_up(worker, node, now_ns)

    def worker_lost(self, worker: str, node: Node, reason: Reason, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.worker_lost(worker, node, reason, now_ns)

    def beat(self, load: Load, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.beat(load, now_ns)

    def control(self, what: str, now_ns: int) -> None:
        """Pass it on."""
        for each in self._observers:
            each.control(what, now_ns)
