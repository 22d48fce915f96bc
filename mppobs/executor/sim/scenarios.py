"""
Situations from end to end, rehearsed in simulation: what happens, what it costs, and whether the promise is kept.

Each has a name, runs in seconds, and returns its figures beside what they must be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mppobs.executor.events import Load
from mppobs.executor.faults import Fault, parse_faults
from mppobs.executor.policies import Policy, Share
from mppobs.executor.sim.jobs import JobState
from mppobs.executor.sim.model import GIB, MIB, Cluster, JobModel, StageModel
from mppobs.executor.sim.observe import Tried
from mppobs.executor.sim.places import Node
from mppobs.executor.sim.run import Simulation
from mppobs.executor.sim.tally import Tally
from mppobs.model import AttemptOutcome, JobOutcome, Reason, ShardOutcome, Tier

HOUR: Final = 3600.0
_BEAT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure of a scenario, and what it must be."""

    figure: str
    value: float
    unit: str
    target: str = ""
    """In words; empty where the figure is only told."""
    met: bool = True


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of a scenario."""

    scenario: str
    findings: tuple[Finding, ...]
    timeline: tuple[tuple[float, str], ...] = ()
    """What happened, by seconds from the start."""

    @property
    def met(self) -> bool:
        """Return whether every figure is as it must be."""
        return all(finding.met for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A situation that can be rehearsed."""

    name: str
    about: str
    rehearse: Callable[[int], Rehearsal]
    """Takes the seed."""


class Witness(Tally):
    """Also keeps what a judge asks: every write that counted, twice or not, and what was seen when."""

    def __init__(self, cluster: Cluster) -> None:
        """Begin at nothing, with the prices of a cluster."""
        super().__init__(cluster.usd_per_hour / cluster.lanes, cluster.spot_usd_per_hour / cluster.lanes)
        self.written: set[tuple[int, int, int]] = set()
        self.twice = 0
        """Shards that were committed more than once."""
        self.usd_of: defaultdict[str, float] = defaultdict(float)
        """Cost of attempts by tenant, in US dollars."""
        self.critical_evicted = 0
        """Attempts of critical jobs that lost their node to an eviction."""

    def submitted(self, job: JobState, now_ns: int) -> None:
        """Keep when a job came."""
        self.story.append((now_ns, f"job {job.model.job_id} is submitted: {job.model.shards} shards"))

    def tried(self, tried: Tried) -> None:
        """Count an attempt."""
        before = self.usd
        super().tried(tried)
        self.usd_of[tried.job.model.tenant] += self.usd - before
        critical = tried.job.model.tier is Tier.CRITICAL
        self.critical_evicted += critical and tried.outcome is AttemptOutcome.PREEMPTED

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """Count a decision, and whether it was the first about this shard."""
        super().decided(job, stage, shard, number, outcome, reason, now_ns)
        if outcome is ShardOutcome.COMMITTED:
            self.twice += (job.number, stage, shard) in self.written
            self.written.add((job.number, stage, shard))

    def checkpointed(self, job: JobState, now_ns: int) -> None:
        """Keep when a stage was done."""
        self.story.append((now_ns, f"job {job.model.job_id}: a stage is done"))

    def ended(self, job: JobState, now_ns: int) -> None:
        """Keep when a job ended."""
        super().ended(job, now_ns)
        assert job.end is not None
        self.story.append((now_ns, f"job {job.model.job_id} ends: {job.end.outcome}"))

    def worker_lost(self, worker: str, node: Node, reason: Reason, now_ns: int) -> None:
        """Keep when a node was gone."""
        super().worker_lost(worker, node, reason, now_ns)
        if worker == node.workers[-1].name:
            self.story.append((now_ns, f"{node.name} in {node.zone} is gone: {reason}"))

    def beat(self, load: Load, now_ns: int) -> None:
        """Keep what the coordinator had on its hands."""
        self.story.append(
            (now_ns, f"heartbeat: {load.pending_jobs + load.running_jobs} jobs, {load.pending_shards} shards pending, "
             f"{load.running_shards} running")
        )  # fmt: skip


def inference(size: float = 1.5) -> JobModel:
    """
    Return the batch inference job: 2,000 shards of 100,000 records, scored and then validated by an aggregator.

    At `size` 1 it is 200 million records. A record takes about 1.8 ms of a worker.
    """
    records = round(100_000 * size)
    score = StageModel(
        "score", 2000, seconds=0.0018 * records, sigma=0.2, size_sigma=0.3, input_bytes=int(256 * MIB * size),
        memory_bytes=2 * GIB, rows=records,
    )  # fmt: skip
    collect = StageModel("aggregate", 20, 60.0 * size, shuffle_bytes=int(2 * GIB * size), needs=(0,), priority=1)
    return JobModel(
        "batch-inference", "batch-inference-1", (score, collect), "scoring", "scoring-team", Tier.CRITICAL,
        deadline=3 * HOUR,
    )  # fmt: skip


def batch_inference(seed: int) -> Rehearsal:
    """Rehearse batch inference at 1.5 times its size on a warm pool, while 5 % of the nodes are evicted."""
    cluster = Cluster(nodes=40, lanes=2, spot_share=0.5, cold_start=0.0)
    faults = parse_faults(["eviction:severity=0.1,at=10m,for=1h", "slow-node:severity=4,target=node-3"])
    job = inference(1.5)
    simulation, witness = _run(cluster, seed, [job], Policy(), faults)
    plain, _ = _run(cluster, seed, [job], Policy.plain(), faults)
    state = simulation.jobs[0]
    hours = _seconds(simulation) / HOUR
    evicted = sum(1 for node in simulation.world.gone if node.leaving) / cluster.nodes
    succeeded = state.end is not None and state.end.outcome is JobOutcome.SUCCESS
    ratio = witness.begun / job.shards
    return Rehearsal(
        "batch-inference",
        (
            Finding("records", 2000 * job.stages[0].rows, "records"),
            Finding("share of the nodes evicted", evicted, "ratio", "at least 0.05", evicted >= 0.05),
            Finding("completion", hours, "hours", "at most 3", hours <= 3),
            Finding("completion, policies off", _seconds(plain) / HOUR, "hours"),
            Finding("job succeeded", succeeded, "", "1", succeeded),
            Finding("shards committed twice", witness.twice, "shards", "0", witness.twice == 0),
            Finding("attempts per shard", ratio, "ratio", "at most 1.1", ratio <= 1.1),
            Finding("p99 of a shard over its median", witness.p99 / witness.median, "ratio"),
            Finding("cost", simulation.world.bill(state.end_ns), "usd"),
        ),
        _timeline(witness, simulation),
    )


def cost_speed(seed: int) -> Rehearsal:
    """Compare all on demand with spot for what is of low priority: the same work, evictions included."""
    jobs = _mixed()
    dear, _ = _run(Cluster(nodes=20, lanes=8), seed, jobs)
    cheap, witness = _run(Cluster(nodes=20, lanes=8, spot_share=0.7, evictions_per_hour=0.2), seed, jobs)
    usd = [each.world.bill(each.world.now_ns) for each in (dear, cheap)]
    hours = [_seconds(each) / HOUR for each in (dear, cheap)]
    saved, slower = 1 - usd[1] / usd[0], hours[1] / hours[0]
    evicted, hurt = sum(1 for node in cheap.world.gone if node.leaving), witness.critical_evicted
    return Rehearsal(
        "cost-speed",
        (
            Finding("on demand: completion", hours[0], "hours"),
            Finding("on demand: cost", usd[0], "usd"),
            Finding("spot for low priority: completion", hours[1], "hours"),
            Finding("spot for low priority: cost", usd[1], "usd"),
            Finding("nodes evicted", evicted, "nodes"),
            Finding("saved", saved, "ratio", "at least 0.3", saved >= 0.3),
            Finding("completion, spot over on demand", slower, "ratio", "at most 1.2", slower <= 1.2),
            Finding("critical attempts evicted", hurt, "attempts", "0", hurt == 0),
        ),
        _timeline(witness, cheap),
    )  # fmt: skip


def scheduler_outage(seed: int) -> Rehearsal:
    """Kill the coordinator in the middle of a job, and let a standby take over when the lease is over."""
    cluster, killed, lease = Cluster(nodes=10, lanes=8), 300.0, 30.0
    job = JobModel("ledger", "ledger-1", (StageModel("post", 1000, 60.0), StageModel("sum", 40, 30.0, needs=(0,))))
    waiting = JobModel("audit", "audit-1", (StageModel("check", 40, 30.0),))
    faults = parse_faults([f"coordinator:at={killed},for={lease}"])
    simulation, witness = _run(cluster, seed, [job, waiting], Policy(), faults, later=killed + 10)
    usual, _ = _run(cluster, seed, [job, waiting], later=killed + 10)
    delay = _seconds(simulation) - _seconds(usual)
    committed, planned = witness.decisions[ShardOutcome.COMMITTED], job.shards + waiting.shards
    superseded = witness.attempts[AttemptOutcome.SUPERSEDED]
    return Rehearsal(
        "scheduler-outage",
        (
            Finding("outputs in place that nobody had committed", simulation.found, "shards"),
            Finding("attempts that found another's output in place", superseded, "attempts"),
            Finding("shards committed", committed, "shards", f"{planned}", committed == planned),
            Finding("shards committed twice", witness.twice, "shards", "0", witness.twice == 0),
            Finding("completion", _seconds(simulation), "seconds"),
            Finding("completion without the outage", _seconds(usual), "seconds"),
            Finding("delay over the lease", delay / lease, "ratio", "at most 3", delay <= 3 * lease),
        ),
        _timeline(witness, simulation),
    )


def runaway(seed: int) -> Rehearsal:
    """Have a tenant submit four times its jobs at once, with a budget, a quota and fair shares, and with none."""
    cluster, planned = Cluster(nodes=10, lanes=8), 3
    stage = StageModel("render", 600, 60.0)
    usual = planned * stage.shards * stage.seconds * 1.1 / 3600 * cluster.usd_per_hour / cluster.lanes
    jobs = [JobModel("scoring", "scoring-1", (StageModel("score", 800, 60.0),), "risk", tier=Tier.CRITICAL)]
    jobs += [JobModel("thumbnails", f"thumbnails-{number}", (stage,), "media") for number in range(4 * planned)]
    shares = Policy(tenants={"media": Share(quota=cluster.workers // 2, jobs=planned)})
    spent, critical = [], []
    for policy, budgets in ((shares, {"media": 1.25 * usual}), (Policy.plain(), {})):
        witness = Witness(cluster)
        simulation = Simulation(cluster, seed=seed, policy=policy, observer=witness, beat=_BEAT, budgets=budgets)
        for job in reversed(jobs):
            simulation.submit(job)
        simulation.run(until=6 * HOUR)
        spent.append(witness.usd_of["media"])
        critical.append(next(job for job in simulation.jobs if job.model.tenant == "risk").end_ns / 1e9)
        if budgets:
            told, first = witness, simulation
    over, sooner = spent[0] / (1.25 * usual), critical[0] / critical[1]
    return Rehearsal(
        "runaway",
        (
            Finding("budget of the tenant", 1.25 * usual, "usd"),
            Finding("spent, with budget, quota and shares", spent[0], "usd"),
            Finding("spent over the budget", over, "ratio", "at most 1.1", over <= 1.1),
            Finding("spent, with none of them", spent[1], "usd"),
            Finding("critical job of another tenant", critical[0], "seconds"),
            Finding("critical job, with none of them", critical[1], "seconds"),
            Finding("critical job, with over without", sooner, "ratio", "at most 0.5", sooner <= 0.5),
        ),
        _timeline(told, first),
    )


SCENARIOS: Final[dict[str, Scenario]] = {
    each.name: each
    for each in (
        Scenario(
            "batch-inference",
            "2,000 shards at 1.5 times the size, 5 % of the nodes evicted, three hours.",
            batch_inference,
        ),
        Scenario("cost-speed", "Spot for shards of low priority against all on demand.", cost_speed),
        Scenario(
            "scheduler-outage",
            "The coordinator dies, a standby takes over, nothing is written twice.",
            scheduler_outage,
        ),
        Scenario("runaway", "Four times the jobs at once: what budget, quota and fair shares leave of it.", runaway),
    )
}
"""Every scenario by name."""


def _mixed() -> list[JobModel]:
    """Return the work of an evening: a critical job of a quarter of the work, and jobs that can wait."""
    critical = StageModel("score", 2000, 120.0, priority=1)
    jobs = [JobModel("scoring", "scoring-1", (critical,), "risk", tier=Tier.CRITICAL, deadline=2 * HOUR)]
    for number in range(3):
        stage = StageModel("rebuild", 2000, 120.0, priority=-1)
        jobs.append(JobModel("reindex", f"reindex-{number}", (stage,), "search", tier=Tier.BESTEFFORT))
    return jobs


def _run(
    cluster: Cluster,
    seed: int,
    jobs: Sequence[JobModel],
    policy: Policy | None = None,
    faults: Sequence[Fault] = (),
    later: float = 0.0,
) -> tuple[Simulation, Witness]:
    """Run jobs to their ends, the first one at once and the others at `later` seconds."""
    witness = Witness(cluster)
    simulation = Simulation(cluster, seed=seed, policy=policy, faults=faults, observer=witness, beat=_BEAT)
    for number, job in enumerate(jobs):
        simulation.submit(job, later if number else 0.0)
    simulation.run()
    return simulation, witness


def _seconds(simulation: Simulation) -> float:
    """Return when the last job ended that did, in seconds from the start."""
    return max(job.end_ns for job in simulation.jobs) / 1e9


def _timeline(witness: Witness, simulation: Simulation) -> tuple[tuple[float, str], ...]:
    """Return what happened, but of the heartbeats only those beside something else."""
    story = sorted(witness.story, key=lambda entry: entry[0])
    kept = [
        (now_ns / 1e9, what)
        for index, (now_ns, what) in enumerate(story)
        if not what.startswith("heartbeat")
        or any(not near.startswith("heartbeat") for _, near in story[max(index - 1, 0) : index + 2])
    ]
    waiting = sum(1 for job in simulation.jobs if job.end is None)
    over = max(_seconds(simulation), kept[-1][0])
    return (*kept, (over, f"{waiting} jobs wait" if waiting else "everything has ended"))
