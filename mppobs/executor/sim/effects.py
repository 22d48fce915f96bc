"""
What each policy is worth: the same job, cluster, seed and fault, with the policy on and with it off.

Every comparison is one simulated run against another, so its figures are the same wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from mppobs.executor.faults import Fault, parse_faults
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Policy
from mppobs.executor.sim.model import GIB, MIB, Cluster, JobModel, StageModel
from mppobs.executor.sim.run import Simulation
from mppobs.executor.sim.tally import Tally
from mppobs.model import JobOutcome, ShardOutcome

_ON: Final = Policy()
_CLUSTER: Final = Cluster(nodes=10, lanes=4)


class Outcome(NamedTuple):
    """What came of one run."""

    outcome: JobOutcome | None
    """`None` where the job never ended."""
    seconds: float
    """From submission to end."""
    p99: float
    """Of shard durations, in seconds."""
    attempts: int
    planned: int
    committed: int
    """Shards; those that replaced others count instead of them."""
    failed: int
    usd: float
    splits: int
    speculative: int

    @property
    def attempts_ratio(self) -> float:
        """Return attempts for each planned shard."""
        return self.attempts / self.planned


@dataclass(frozen=True, slots=True)
class Effect:
    """One comparison: a fault, the policy against it, and how the runs are looked at."""

    name: str
    mode: str
    """The failure mode."""
    faults: tuple[str, ...]
    policy: str
    """What is switched on in one run and off in the other, in words."""
    off: Policy
    shows: str
    """The figure that it is about: a field or property of `Outcome`."""
    job: Callable[[], JobModel]
    off_job: Callable[[], JobModel] | None = None
    """Where the policy is a property of the job."""
    on: Policy = _ON
    cluster: Cluster = _CLUSTER

    def run(self, seed: int = 7) -> tuple[Outcome, Outcome]:
        """Return the outcome with the policy on, and with it off."""
        faults = parse_faults(self.faults)
        without = self.off_job or self.job
        return (
            run_once(self.job(), self.on, faults, self.cluster, seed),
            run_once(without(), self.off, faults, self.cluster, seed),
        )


def run_once(job: JobModel, policy: Policy, faults: Sequence[Fault], cluster: Cluster, seed: int) -> Outcome:
    """Run one job on a cluster and return what came of it."""
    tally = Tally(cluster.usd_per_hour / cluster.lanes, cluster.spot_usd_per_hour / cluster.lanes)
    simulation = Simulation(cluster, seed=seed, policy=policy, faults=faults, observer=tally)
    simulation.submit(job)
    simulation.run()
    state = simulation.jobs[0]
    assert state.end is not None
    return Outcome(
        outcome=state.end.outcome,
        seconds=(state.end_ns - state.submit_ns) / 1e9,
        p99=tally.p99,
        attempts=tally.begun,
        planned=job.shards,
        committed=tally.decisions[ShardOutcome.COMMITTED],
        failed=tally.decisions[ShardOutcome.FAILED],
        usd=tally.usd,
        splits=tally.splits,
        speculative=tally.speculative,
    )


def one_stage() -> JobModel:
    """Return a job of 400 shards of about a minute: ten for each worker."""
    return JobModel("effects", "effects-1", (StageModel("map", 400, 60.0),))


def few_waves() -> JobModel:
    """Return a job of three shards for each worker, as stages are that are meant to end together."""
    return JobModel("effects", "effects-1", (StageModel("map", 120, 60.0),))


def finishing() -> JobModel:
    """Return the same job, which goes on when a shard has failed."""
    return replace(one_stage(), on_failure=OnFailure.FINISH)


def reading() -> JobModel:
    """Return a job whose second stage reads the first one's output."""
    last = StageModel("reduce", 80, 30.0, needs=(0,), shuffle_bytes=512 * MIB)
    return JobModel("effects", "effects-1", (*one_stage().stages, last))


def hungry() -> JobModel:
    """Return the job with shards that need most of a worker's memory."""
    stage = replace(one_stage().stages[0], memory_bytes=6 * GIB, size_sigma=0.1, sigma=0.1, splittable=False)
    return JobModel("effects", "effects-1", (stage,))


def touchy() -> JobModel:
    """Return the job with shards that are given up when a worker dies with them."""
    stage = replace(one_stage().stages[0], limits=Limits(losses=0, preemptions=0))
    return JobModel("effects", "effects-1", (stage,))


def _dying(minutes: int) -> tuple[str, ...]:
    """Return the faults that kill all nodes of a zone every minute; others come in their place soon."""
    return tuple(f"zone-loss:at={60 * minute},target=zone-b" for minute in range(1, minutes + 1))


EFFECTS: Final[tuple[Effect, ...]] = (
    Effect(
        "8 x skew", "F1", ("skew:severity=8",), "splitting", replace(_ON, splitting=None), "p99", one_stage,
    ),
    Effect(
        "a node 8 x slower", "F1", ("slow-node:severity=8",), "speculation, slow nodes set aside",
        replace(_ON, speculation=None, slow_nodes=None), "p99", few_waves,
    ),
    Effect(
        "long tail", "tail", ("long-tail:severity=20",), "speculation", replace(_ON, speculation=None), "seconds",
        one_stage,
    ),
    Effect(
        "30 % of attempts fail", "F5", ("retry-storm:severity=0.3",), "retry budget, backoff",
        replace(_ON, retry_budget=False, backoff=False), "attempts_ratio", finishing,
    ),
    Effect(
        "the fabric is gone for 45 s", "F2", ("fabric:severity=1,at=30,for=45",), "backoff",
        replace(_ON, backoff=False), "failed", lambda: _patient(finishing()),
    ),
    Effect(
        "a hot prefix", "F3", (), "backoff, back-pressure",
        replace(_ON, backoff=False, back_pressure=False), "attempts_ratio", lambda: _storing(finishing()),
        cluster=replace(_CLUSTER, storage_requests_per_second=4.0),
    ),
    Effect(
        "a quarter of the nodes dies", "F6", ("node-loss:at=120,severity=0.25",), "losses are reassigned", _ON,
        "failed", lambda: _going_on(one_stage()), lambda: _going_on(touchy()),
    ),
    Effect(
        "a zone dies", "F6", ("zone-loss:at=120",), "losses are reassigned", _ON, "failed",
        lambda: _going_on(one_stage()), lambda: _going_on(touchy()),
    ),
    Effect(
        "a zone dies every minute", "F6", _dying(30), "lost shards go to another zone",
        replace(_ON, zones=False), "failed", lambda: _going_on(one_stage()),
        cluster=replace(_CLUSTER, replacement=15.0),
    ),
    Effect(
        "3 x memory in a tenth of the shards", "F7", ("memory:severity=3",), "memory-aware retry",
        replace(_ON, memory_retry=False), "failed", lambda: _going_on(_budgeted(hungry())),
    ),
)  # fmt: skip
"""Every comparison. Takeover by a standby is told by `mppobs.executor.sim.scenarios`, with its timeline."""


def _going_on(job: JobModel) -> JobModel:
    return replace(job, on_failure=OnFailure.FINISH)


def _budgeted(job: JobModel) -> JobModel:
    """Return a job that may retry every shard once: what is compared is where retries go, not how many there are."""
    return replace(job, retry_share=1.0)


def _patient(job: JobModel) -> JobModel:
    """Return a job whose backoff can outlast an outage of a minute, with retries for everybody."""
    stage = replace(job.stages[0], limits=Limits(attempts=6, backoff=8.0, backoff_cap=60.0))
    return replace(job, stages=(stage,), retry_share=2.0)


def _storing(job: JobModel) -> JobModel:
    """Return a job of short shards that each ask the store once."""
    stage = replace(job.stages[0], seconds=5.0, requests=1, limits=Limits(attempts=12, backoff=1.0))
    return replace(job, stages=(stage,), retry_share=4.0)
