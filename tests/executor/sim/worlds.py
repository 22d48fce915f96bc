"""Random simulations, and a book-keeper that counts again what they do, from what it is told alone."""

from __future__ import annotations

import random
from collections import Counter

from mppobs.executor.faults import Fault, FaultKind
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Policy
from mppobs.executor.sim.jobs import JobState
from mppobs.executor.sim.model import GIB, MIB, Cluster, JobModel, StageModel
from mppobs.executor.sim.observe import Observer, Tried
from mppobs.executor.sim.run import Simulation
from mppobs.model import AttemptOutcome, JobOutcome, Reason, ShardOutcome

Shard = tuple[int, int, int]
"""Job, stage and position."""


class Book(Observer):
    """Checks what it is told, and keeps it."""

    def __init__(self) -> None:
        self.decided_as: dict[Shard, ShardOutcome] = {}
        self.given_up: dict[Shard, int] = {}
        """Shards that were given up, and when."""
        self.replaced: dict[Shard, int] = {}
        """Shards that were split, and into how many."""
        self.begun: Counter[Shard] = Counter()
        self.running: Counter[str] = Counter()
        """Attempts by worker."""
        self.tries: list[Tried] = []
        self.story: list[str] = []

    def started(self, job: JobState, stage: int, shard: int, number: int, worker: str, speculative: bool) -> None:
        """A worker runs one attempt at a time, and none for a shard that was split."""
        self.running[worker] += 1
        assert self.running[worker] == 1, f"{worker} runs two attempts"
        self.begun[(job.number, stage, shard)] += 1

    def tried(self, tried: Tried) -> None:
        """An attempt ends after it began, on its own node, and none was given out for what was given up."""
        given_up_ns = self.given_up.get((tried.job.number, tried.stage, tried.shard))
        assert given_up_ns is None or tried.assigned_ns <= given_up_ns
        assert tried.end_ns >= tried.start_ns >= tried.assigned_ns
        assert tried.worker.startswith(tried.node.name + "-")
        self.running[tried.worker] -= 1
        self.tries.append(tried)

    def split(self, job: JobState, stage: int, shard: int, parts: int, now_ns: int) -> None:
        """A shard is replaced once, and not after it was decided."""
        key = (job.number, stage, shard)
        assert key not in self.replaced
        assert key not in self.decided_as
        self.replaced[key] = parts

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """A shard is decided once, by an attempt that has begun."""
        key = (job.number, stage, shard)
        assert key not in self.decided_as, f"{key} is decided twice"
        assert key not in self.replaced, f"{key} was split"
        assert job.end is None
        assert 0 <= number < max(self.begun[key], 1)
        self.decided_as[key] = outcome
        if outcome is ShardOutcome.FAILED:
            self.given_up[key] = now_ns

    def control(self, what: str, now_ns: int) -> None:
        """Keep it."""
        self.story.append(what)

    def check(self, job: JobState) -> None:
        """Hold the end of a job against what was seen of its shards."""
        assert job.end is not None, "every job ends"
        mine = {key: outcome for key, outcome in self.decided_as.items() if key[0] == job.number}
        wanted = set()
        for index, stage in enumerate(job.model.stages):
            parts = sum(count for key, count in self.replaced.items() if key[:2] == (job.number, index))
            every = {(job.number, index, shard) for shard in range(stage.shards + parts)}
            wanted |= every - set(self.replaced)
        committed = {key for key, outcome in mine.items() if outcome is ShardOutcome.COMMITTED}
        assert committed <= wanted
        assert (job.end.outcome is JobOutcome.SUCCESS) == (committed == wanted)
        successes = Counter(
            (tried.job.number, tried.stage, tried.shard)
            for tried in self.tries
            if tried.outcome is AttemptOutcome.SUCCESS and tried.job is job
        )
        assert max(successes.values(), default=0) <= 1, "no output is written twice"
        assert committed <= set(successes)


def random_fault(chance: random.Random) -> Fault:
    """Return any fault, soon and for a while."""
    kind = chance.choice([kind for kind in FaultKind if kind is not FaultKind.RUNAWAY])
    severity = chance.uniform(0.05, 0.6) if Fault(kind).is_share else chance.uniform(1.5, 10)
    return Fault(kind, at=chance.uniform(0, 60), lasts=chance.uniform(5, 60), severity=severity)


def _random_stage(chance: random.Random, index: int) -> StageModel:
    return StageModel(
        f"stage-{index}", chance.randint(1, 60), chance.uniform(0.5, 20), sigma=chance.choice((0.0, 0.4)),
        size_sigma=chance.choice((0.0, 0.3, 1.0)), memory_bytes=chance.choice((0, 2 * GIB)),
        shuffle_bytes=256 * MIB if index else 0, needs=(index - 1,) if index else (),
        limits=Limits(attempts=chance.randint(2, 5), backoff=1.0), priority=chance.choice((-1, 0, 1)),
    )  # fmt: skip


def random_job(chance: random.Random, number: int) -> JobModel:
    """Return a job of one to three stages."""
    stages = tuple(_random_stage(chance, index) for index in range(chance.randint(1, 3)))
    return JobModel(
        "random", f"random-{number}", stages, tenant=chance.choice(("a", "b")),
        on_failure=chance.choice(list(OnFailure)), retry_share=chance.choice((0.1, 1.0)),
    )  # fmt: skip


def random_simulation(seed: int, book: Observer) -> Simulation:
    """Return a few jobs on a small cluster on which up to three things go wrong."""
    chance = random.Random(seed)
    cluster = Cluster(
        nodes=chance.randint(2, 5), lanes=chance.randint(1, 3), spot_share=chance.choice((0.0, 0.5)),
        evictions_per_hour=chance.choice((0.0, 20.0)), notice=chance.choice((0.0, 20.0)), replacement=20.0,
        memory_bytes=chance.choice((8, 16)) * GIB, storage_requests_per_second=chance.choice((0.0, 5.0)),
    )  # fmt: skip
    faults = [random_fault(chance) for _ in range(chance.randint(0, 3))]
    if sum(fault.kind in (FaultKind.COORDINATOR, FaultKind.STALLED_CONTROL) for fault in faults) > 1:
        faults = faults[:1]
    policy = chance.choice((Policy(), Policy(), Policy.plain()))
    simulation = Simulation(cluster, seed=seed, policy=policy, faults=faults, observer=book)
    for number in range(chance.randint(1, 3)):
        simulation.submit(random_job(chance, number), chance.uniform(0, 30))
    return simulation
