"""
A synthetic estate: pipelines of several tenants with daily schedules, on one cluster, for days.

It is a load to test detection with, a history to fill dashboards with, and a way to ask how many workers are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mppobs.errors import ConfigError
from mppobs.executor.faults import Fault, FaultKind
from mppobs.executor.policies import Policy, Share
from mppobs.executor.sim.draw import lognormal, uniform
from mppobs.executor.sim.journals import Journals
from mppobs.executor.sim.model import GIB, MIB, Cluster, JobModel, StageModel
from mppobs.executor.sim.observe import Observer
from mppobs.executor.sim.run import Simulation
from mppobs.executor.sim.series import Series
from mppobs.executor.sim.tally import Several, Tally
from mppobs.executor.sim.world import World
from mppobs.model import Tier

DAY: Final = 86_400.0
START_NS: Final = 1_760_054_400_000_000_000
"""When the first day begins: midnight (UTC) of 2025-10-10."""
BEAT: Final = 60.0
"""Seconds between heartbeats; a month has 43,200 of them."""
_WORDS: Final = (
    "scoring", "ranking", "ledger", "thumbnails", "reindex", "churn", "fraud", "pricing", "genome", "clicks",
    "invoices", "forecast", "features", "dedup", "sessions", "audit", "routing", "catalog", "training", "exports",
)  # fmt: skip
_TENANTS: Final = ("risk", "search", "media", "finance", "growth")
_TIERS: Final = (Tier.CRITICAL, Tier.STANDARD, Tier.STANDARD, Tier.STANDARD, Tier.BESTEFFORT)
_TARGET_USE: Final = 0.6
"""Share of the lanes that is busy in the busiest hours, where nobody says how many nodes there are."""
_BUSY_HOURS: Final = 8.0
"""Most pipelines start in the first hours of the day."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Recurring work: what each run does, when, and for whom."""

    model: JobModel
    """A run of ordinary size; its ID is the pipeline's name."""
    begins: float
    """Seconds after midnight."""

    def runs(self, days: int, seed: int, number: int, faults: Sequence[Fault]) -> Iterator[tuple[float, JobModel]]:
        """Yield the runs of some days with the time of each: sizes vary, grow a little, and may run away."""
        for day in range(days):
            at = day * DAY + self.begins + 120 * uniform(seed, number, day, 11)
            grown = (1.003**day) * lognormal(0.15, seed, number, day, 12) * (0.6 if day % 7 in (1, 2) else 1.0)
            for copy in range(_copies(faults, at, self.model)):
                job_id = f"{self.model.pipeline}-{day + 1:03}" + (f"-{copy}" if copy else "")
                yield at, replace(self.model, job_id=job_id, stages=tuple(_grown(s, grown) for s in self.model.stages))


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of an estate."""

    workers: int
    jobs: int
    succeeded: int
    late: int
    """Jobs that missed their deadlines."""
    shards: int
    attempts: int
    retries: int
    speculative: int
    splits: int
    p95_seconds: float
    """Of the jobs' durations."""
    attempt_usd: float
    node_usd: float
    """What the nodes cost, idle hours included."""
    busy: float
    """Share of the lane hours in which attempts ran."""
    events: int
    """Events that the scheduler was told."""
    samples: int = 0
    """Of time series, where they were written."""


def pipelines(count: int, seed: int) -> list[Pipeline]:
    """
    Return so many pipelines: the same for the same seed, and the first ones the same for any count.

    >>> [pipeline.model.pipeline for pipeline in pipelines(2, 7)]
    ['nightly-scoring', 'nightly-ranking']
    """
    return [_pipeline(number, seed) for number in range(count)]


def enough_nodes(estate: Sequence[Pipeline], lanes: int) -> int:
    """Return how many nodes are busy for most of the busy hours, but not all: what a planner would begin with."""
    work = sum(stage.shards * stage.seconds for each in estate for stage in each.model.stages)
    return max(2, round(work / (_BUSY_HOURS * 3600) / _TARGET_USE / lanes))


def slo_yaml(estate: Sequence[Pipeline]) -> str:
    """Return the promises of an estate, for `mppobs generate` and the sidecar."""
    lines = ["# What the simulated estate promises.", "team: estate", "defaults: {period: 30d}", "pipelines:"]
    for each in estate:
        model = each.model
        lines += [
            f"  {model.pipeline}:",
            f"    tier: {model.tier}",
            "    every: 1d",
            f"    deadline: {round(model.deadline / 60)}m",
            f"    owner: {model.owner}",
            "    objectives: {on-time: 95%, shard-success: 99.9%}",
        ]
    return "\n".join(lines) + "\n"


def simulate_estate(
    estate: Sequence[Pipeline],
    *,
    days: int,
    seed: int,
    cluster: Cluster,
    faults: Sequence[Fault] = (),
    policy: Policy | None = None,
    out: Path | None = None,
    step: float = 900.0,
    on_day: Callable[[int], None] | None = None,
) -> Summary:
    """
    Run an estate for some days and return what came of it; `on_day` is told of each day that is over.

    With `out`, journals are written to `out/journals` and time series, every `step` seconds, to `out/metrics`.
    Raises `ConfigError` where these are there already.
    """
    tally = Tally(cluster.usd_per_hour / cluster.lanes, cluster.spot_usd_per_hour / cluster.lanes)
    clock = _Clock()
    watchers: list[Observer] = [tally]
    journals, series = _outputs(out, clock, seed, cluster, step)
    watchers += [each for each in (journals, series) if each is not None]
    simulation = Simulation(
        cluster, seed=seed, policy=policy or usual_policy(), faults=faults, observer=Several(*watchers),
        start_ns=START_NS, beat=BEAT,
    )  # fmt: skip
    clock.world = simulation.world
    for number, pipeline in enumerate(estate):
        for at, job in pipeline.runs(days, seed, number, faults):
            simulation.submit(job, at)
    for day in range(days):
        simulation.run(until=DAY)
        if on_day is not None:
            on_day(day + 1)
    simulation.run()
    if journals is not None:
        journals.close()
    if series is not None:
        series.close(simulation.world.now_ns)
    return _summary(simulation, tally, cluster, series.samples if series is not None else 0)


class _Clock:
    """The clock of a world that is made after it."""

    def __init__(self) -> None:
        self.world: World | None = None

    def time_ns(self) -> int:
        """Return the simulated time."""
        return self.world.now_ns if self.world is not None else START_NS

    def monotonic_ns(self) -> int:
        """Return the same."""
        return self.time_ns()


def _outputs(
    out: Path | None, clock: _Clock, seed: int, cluster: Cluster, step: float
) -> tuple[Journals | None, Series | None]:
    """Return what writes below a directory, which must not hold an earlier simulation."""
    if out is None:
        return None, None
    for name in ("journals", "metrics"):
        if (out / name).exists():
            raise ConfigError(f"{out / name} is there already: a directory takes one simulation")
    prices = (cluster.usd_per_hour / cluster.lanes, cluster.spot_usd_per_hour / cluster.lanes)
    return Journals(out / "journals", clock, seed, cluster.lanes), Series(out / "metrics", step, START_NS, prices)


def _summary(simulation: Simulation, tally: Tally, cluster: Cluster, samples: int) -> Summary:
    """Return the figures of a simulation that is over."""
    now = simulation.world.now_ns
    durations = sorted(job.seconds for job in tally.jobs)
    lane_usd = tally.usd
    node_usd = simulation.world.bill(now)
    return Summary(
        workers=cluster.workers,
        jobs=len(tally.jobs),
        succeeded=sum(1 for job in tally.jobs if job.outcome == "success"),
        late=sum(1 for job in tally.jobs if job.late),
        shards=sum(tally.decisions.values()),
        attempts=tally.begun,
        retries=tally.retries,
        speculative=tally.speculative,
        splits=tally.splits,
        p95_seconds=durations[int(len(durations) * 0.95)] if durations else 0.0,
        attempt_usd=lane_usd,
        node_usd=node_usd,
        busy=lane_usd / node_usd if node_usd else 0.0,
        events=simulation.events,
        samples=samples,
    )


def usual_policy() -> Policy:
    """Return the scheduler's usual policies, with weights for the estate's tenants: who earns more gets more."""
    return Policy(
        tenants={tenant: Share(weight=weight) for tenant, weight in zip(_TENANTS, (3, 2, 1, 2, 1), strict=True)}
    )


def _pipeline(number: int, seed: int) -> Pipeline:
    """Return one pipeline: one to three stages of tens to hundreds of shards, mostly at night."""
    name = f"nightly-{_WORDS[number % len(_WORDS)]}" + (
        f"-{number // len(_WORDS) + 1}" if number >= len(_WORDS) else ""
    )
    tenant = _TENANTS[number % len(_TENANTS)]
    width = max(8, round(120 * lognormal(0.6, seed, number, 1)))
    seconds = 40 * lognormal(0.4, seed, number, 2)
    first = StageModel("map", width, seconds, sigma=0.25, memory_bytes=GIB, rows=100_000)
    middle = StageModel("join", max(4, width // 2), seconds * 1.2, shuffle_bytes=256 * MIB, memory_bytes=2 * GIB,
                        needs=(0,), rows=150_000)  # fmt: skip
    last = StageModel("reduce", max(2, width // 8), seconds / 2, shuffle_bytes=128 * MIB, needs=(1,), rows=50_000)
    stages = (first, middle, last)[: 1 + int(3 * uniform(seed, number, 3))]
    # About what a run takes with a fair share of the cluster, twice over.
    usual = 600 + sum(stage.seconds * 4 for stage in stages)
    model = JobModel(
        name, name, stages, tenant, owner=f"{tenant}-team", tier=_TIERS[int(5 * uniform(seed, number, 4))],
        deadline=60 * round(2 * usual / 60),
    )  # fmt: skip
    return Pipeline(model, _BUSY_HOURS * 3600 * uniform(seed, number, 5) ** 1.5)


def _grown(stage: StageModel, factor: float) -> StageModel:
    return replace(stage, shards=max(1, round(stage.shards * factor)))


def _copies(faults: Sequence[Fault], at: float, model: JobModel) -> int:
    """Return how many jobs are submitted in place of one."""
    copies = 1.0
    for fault in faults:
        on = fault.kind is FaultKind.RUNAWAY and fault.at <= at and (not fault.lasts or at < fault.at + fault.lasts)
        if on and fault.target in ("", model.tenant, model.pipeline):
            copies *= fault.severity
    return max(1, round(copies))
