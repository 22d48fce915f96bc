"""
What runs now, from the fold's running jobs and the slots of live journals. Pure: the time is an argument.

Nothing here is durable or counted: every figure is of this moment and can be had again at the next.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from mppobs.diagnose.stragglers import (
    RunningShard,
    StageProfile,
    StragglerSettings,
    find_stragglers,
    profile,
)  # fmt: skip
from mppobs.model import Context, JobKey, SampleRecord, Slot, WorkerInfo
from mppobs.sidecar.aggregates import PipelineKey, StageKey
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.running import DecidedJob, JobStage, RunningJob
from mppobs.sidecar.tables import COMMITTED, MAX_BIT
from mppobs.sidecar.view import Foreseen, Live, LiveAttempt, LivePipeline, LiveRun, LiveStraggler
from mppobs.trace_ids import trace_id

PROFILE_SHARDS: Final = 4096
"""Finished shards from which a stage's profile is drawn, evenly: it may have millions, and a scrape cannot wait."""
RECENT_SECONDS: Final = 60.0
"""How long a judged job is shown: several scrapes."""
MAX_RECENT: Final = 1000
_NS: Final = 1e9


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """When something that runs is worth a remark."""

    stragglers: StragglerSettings = field(default_factory=StragglerSettings)
    stuck_seconds: float = 300.0
    """An attempt that reports progress is stuck when it has reported none for so long."""


class Folded(Protocol):
    """What is asked of the fold: `mppobs.sidecar.fold.Fold` says what each means."""

    @property
    def running(self) -> Mapping[JobKey, RunningJob]: ...

    def resolve(self, journal: str, context_id: int) -> Context | None: ...

    def worker(self, journal: str) -> WorkerInfo | None: ...

    def sample(self, journal: str) -> tuple[SampleRecord, Context | None] | None: ...

    def cluster(self, journal: str) -> str | None: ...

    def job_of(self, context: Context) -> RunningJob | None: ...

    def pipeline_of(self, context: Context) -> PipelineKey: ...


@dataclass(slots=True)
class _Job:
    """A running job with what of it runs."""

    job: RunningJob
    attempts: list[LiveAttempt] = field(default_factory=list)
    checkpoint_ns: int = 0


def live_view(
    fold: Folded,
    live: Iterable[LiveJournal],
    now_ns: int,
    settings: LiveSettings,
    *,
    recent: Sequence[LiveRun] = (),
    foreseen: Callable[[str], Foreseen] = lambda _uid: Foreseen(),
) -> Live:
    """
    Return what runs now.

    `live` is what the follower saw in the slots of journals, and `recent` the jobs that were judged a moment ago,
    which are shown beside those that run. `foreseen` says what is foretold of a job, by the name of its trace.
    """
    seen = list(live)
    followed = [each for each in seen if each.alive]
    jobs = {key: _Job(job, checkpoint_ns=job.checkpoint_ns) for key, job in fold.running.items()}
    _place_slots(jobs, followed, fold)
    pipelines: dict[PipelineKey, LivePipeline] = {}
    stragglers: list[LiveStraggler] = []
    for each in jobs.values():
        pipeline = pipelines.setdefault(each.job.pipeline, LivePipeline())
        found = list(_stragglers(each, now_ns, settings.stragglers))
        _count(pipeline, each, found, now_ns, settings)
        stragglers += found
    for key, queued in _queued(fold.running).items():
        pipelines[key].jobs["pending"] += queued
    for key, ratios in _memory(followed, fold).items():
        pipelines.setdefault(key, LivePipeline()).memory = _peaks(ratios)
    runs = [_run(each, foreseen, now_ns) for each in jobs.values()] + list(recent)
    return Live(
        pipelines=pipelines,
        runs=sorted(runs, key=lambda run: _worst_first(run, now_ns)),
        stragglers=sorted(stragglers, key=lambda straggler: (-straggler.left, -straggler.elapsed)),
        attempts=[attempt for each in jobs.values() for attempt in each.attempts],
        workers=_workers(followed, fold),
        journals={"live": len(followed), "dead": len(seen) - len(followed)},
    )


def _place_slots(jobs: Mapping[JobKey, _Job], live: Iterable[LiveJournal], fold: Folded) -> None:
    """Give every occupied slot to its job. A slot whose context has not been folded yet waits for the next look."""
    for journal in live:
        worker = fold.worker(journal.journal) or WorkerInfo("")
        for slot in journal.slots:
            context = fold.resolve(journal.journal, slot.context_id)
            job = fold.job_of(context) if context is not None else None
            if context is None or job is None:
                continue
            mine = jobs[job.key]
            mine.checkpoint_ns = max(mine.checkpoint_ns, slot.checkpoint_ns)
            attempt = None if slot.is_job else _attempt(job, context.stage, slot, worker)
            if attempt is not None:
                mine.attempts.append(attempt)


def _attempt(job: RunningJob, name: str, slot: Slot, worker: WorkerInfo) -> LiveAttempt | None:
    """Return what runs in a slot; `None` where its record has been folded since the slots were looked at."""
    stage = job.stages.get(name)
    row = int(stage.table.index.find(np.array([slot.shard_key], np.uint64))[0]) if stage is not None else -1
    input_bytes = 0
    if stage is not None and row >= 0:
        if slot.attempt < MAX_BIT and int(stage.table.own[row]) >> slot.attempt & 1:
            return None
        input_bytes = int(stage.table.input[row])
    return LiveAttempt(
        key=stage.key if stage is not None else StageKey(*job.pipeline, name), job=job.key,
        shard=job.shard(name, slot.shard_key), attempt=slot.attempt, speculative=slot.speculative,
        started_ns=slot.start_ns, progress=slot.progress, progressed_ns=slot.progressed_ns,
        checkpoint_ns=slot.checkpoint_ns, worker=worker.worker, node=worker.node, input_bytes=input_bytes, stage=name,
    )  # fmt: skip


def _count(
    pipeline: LivePipeline, each: _Job, stragglers: Sequence[LiveStraggler], now_ns: int, settings: LiveSettings
) -> None:
    """Add a running job to the figures of its pipeline."""
    job = each.job
    if not job.end_ns:
        pipeline.jobs[_state(each)] += 1
        shards = len({(attempt.stage, attempt.shard) for attempt in each.attempts})
        pipeline.shards["running"] += shards
        pipeline.shards["pending"] += max(0, job.total - job.decided - shards)
        if each.checkpoint_ns:
            lag = max(0, now_ns - each.checkpoint_ns) / _NS
            pipeline.checkpoint_lag = max(lag, pipeline.checkpoint_lag or 0.0)
    if job.coordinated:
        pipeline.recorded += job.recorded
        pipeline.dispatched += max(job.recorded, job.dispatched - len(each.attempts))
    for straggler in stragglers:
        pipeline.stragglers[straggler.cause] += 1
    pipeline.stuck += sum(_is_stuck(attempt, now_ns, settings.stuck_seconds) for attempt in each.attempts)


def _queued(running: Mapping[JobKey, RunningJob]) -> dict[PipelineKey, int]:
    """
    Return how many jobs wait at the coordinators of each pipeline that have not been started yet.

    Every job of a coordinator repeats its queue, so the longest that is said is taken and not the sum.
    """
    found: dict[PipelineKey, int] = {}
    for job in running.values():
        if job.heartbeat is not None and not job.end_ns:
            found[job.pipeline] = max(found.get(job.pipeline, 0), job.heartbeat.pending_jobs)
    return found


def _state(each: _Job) -> str:
    """Return `running` once any attempt of a job has begun, `pending` before."""
    begun = each.attempts or any(stage.first_start_ns for stage in each.job.stages.values())
    return "running" if begun else "pending"


def _is_stuck(attempt: LiveAttempt, now_ns: int, stuck_seconds: float) -> bool:
    return attempt.progressed_ns > 0 and now_ns - attempt.progressed_ns > stuck_seconds * _NS


def _stragglers(each: _Job, now_ns: int, settings: StragglerSettings) -> Iterator[LiveStraggler]:
    """Yield the stragglers of a job. Stages with no attempt beyond the floor are not looked at."""
    by_stage: dict[str, list[LiveAttempt]] = {}
    for attempt in each.attempts:
        by_stage.setdefault(attempt.stage, []).append(attempt)
    for name, attempts in by_stage.items():
        stage = each.job.stages.get(name)
        running = [_running(attempt, now_ns) for attempt in attempts]
        if stage is None or max(shard.elapsed for shard in running) <= settings.floor_seconds:
            continue
        found = {id(shard): attempt for shard, attempt in zip(running, attempts, strict=True)}
        for verdict in find_stragglers(stage_profile(each.job, stage), running, settings):
            yield LiveStraggler(
                found[id(verdict.running)], verdict.running.elapsed, verdict.left, verdict.cause, verdict.evidence
            )


def _running(attempt: LiveAttempt, now_ns: int) -> RunningShard:
    elapsed = max(0, now_ns - attempt.started_ns) / _NS
    return RunningShard(attempt.shard, attempt.attempt, elapsed, attempt.progress, attempt.input_bytes, attempt.node)


def stage_profile(job: RunningJob, stage: JobStage) -> StageProfile:
    """Return what a stage's finished shards were like, by a sample of them that is spread evenly."""
    columns = stage.columns()
    rows = np.flatnonzero((columns.state == COMMITTED) & (columns.wall > 0))
    rows = rows[:: max(1, math.ceil(len(rows) / PROFILE_SHARDS))]
    nodes = ["", *(worker.node for worker in job.workers)]
    found = profile(
        stage.total,
        (columns.wall[rows] / np.float32(_NS)).tolist(),
        columns.input[rows].astype(np.int64).tolist(),
        nodes=[nodes[number] for number in columns.worker[rows].tolist()],
        io_errors=job.network_errors + job.storage_throttled,
    )
    return replace(found, done=stage.committed)


def _run(each: _Job, foreseen: Callable[[str], Foreseen], now_ns: int) -> LiveRun:
    job = each.job
    found = foreseen(f"{trace_id(job.key):032x}")
    outlook, deadline_ns = found.outlook, job.deadline_ns or found.deadline_ns
    finish_ns = job.end_ns or (outlook.middle_ns if outlook is not None else None)
    return LiveRun(
        key=job.pipeline, job=job.key, owner=job.context.owner, tier=job.context.tier,
        state=str(job.outcome) if job.end_ns and job.outcome else _state(each), started_ns=job.start_ns,
        progress=_progress(job.stages.values()),
        predicted_finish_ns=finish_ns, deadline_ns=deadline_ns,
        finish_bounds_ns=(outlook.low_ns, outlook.high_ns) if outlook is not None and not job.end_ns else None,
        weight=found.weight,
        late_ns=max(0, (job.end_ns or max(finish_ns or 0, now_ns)) - deadline_ns) if found.weight is not None else 0,
    )  # fmt: skip


def _progress(stages: Iterable[JobStage]) -> float | None:
    """Return decided over planned shards; `None` where nothing is planned, since nobody knows then what is to come."""
    planned = [(stage.planned, stage.total, stage.decided) for stage in stages]
    if not any(count for count, _, _ in planned):
        return None
    return min(1.0, sum(decided for _, _, decided in planned) / sum(total for _, total, _ in planned))


def _worst_first(run: LiveRun, now_ns: int) -> tuple[float, int, str]:
    """Order by the time to the deadline, those past it first; then the longest running, those without one after."""
    slack = float(run.deadline_ns - now_ns) if run.deadline_ns else math.inf
    return slack, run.started_ns, run.job.job_id


def _memory(live: Iterable[LiveJournal], fold: Folded) -> dict[PipelineKey, list[float]]:
    """Return the peak memory over the limit of live workers that have one, by the pipeline that they ran last."""
    found: dict[PipelineKey, list[float]] = {}
    for journal in live:
        sample, context = fold.sample(journal.journal) or (None, None)
        if sample is not None and context is not None and sample.memory_limit:
            found.setdefault(fold.pipeline_of(context), []).append(sample.peak_rss / sample.memory_limit)
    return found


def _peaks(ratios: Iterable[float]) -> dict[str, float]:
    """Return the 90th percentile, as the smallest ratio that nine in ten do not pass, and the maximum."""
    ordered = sorted(ratios)
    return {"0.9": ordered[math.ceil(0.9 * len(ordered)) - 1], "1": ordered[-1]}


def _workers(live: Iterable[LiveJournal], fold: Folded) -> dict[str, dict[str, int]]:
    """
    Return workers by cluster and state.

    A worker is a process that exists to run attempts, runs one, or ran one last; coordinators are none. How many are
    draining only their coordinators know, who count each of them among the busy or the idle as well.
    """
    found: dict[str, dict[str, int]] = {}
    for journal in live:
        name = journal.journal
        info, cluster = fold.worker(name), fold.cluster(name)
        if info is None or cluster is None:
            continue
        _, ran = fold.sample(name) or (None, None)
        busy = any(not slot.is_job for slot in journal.slots)
        if busy or info.dedicated or (ran is not None and ran.stage):
            states = found.setdefault(cluster, {"idle": 0, "busy": 0, "draining": 0})
            states["busy" if busy else "idle"] += 1
    for cluster, draining in _draining(fold.running).items():
        states = found.get(cluster, {})
        for state_name in ("idle", "busy"):
            taken = min(draining, states.get(state_name, 0))
            states |= {state_name: states.get(state_name, 0) - taken, "draining": states.get("draining", 0) + taken}
            draining -= taken
    return found


def _draining(running: Mapping[JobKey, RunningJob]) -> Mapping[str, int]:
    """Return how many workers the coordinators of each cluster are draining; each coordinator says so in every job."""
    said = {
        (job.key.cluster, job.coordinator): job.heartbeat.draining_workers
        for job in running.values()
        if job.heartbeat is not None
    }
    total: Counter[str] = Counter()
    for (cluster, _), count in said.items():
        total[cluster] += count
    return total


class RecentRuns:
    """
    The jobs that were judged a moment ago, so that a scrape that comes just after the end still sees how it went.

    Not for several threads at once.
    """

    def __init__(self, keep_seconds: float = RECENT_SECONDS) -> None:
        self._keep_ns = round(keep_seconds * _NS)
        self._runs: deque[tuple[int, LiveRun]] = deque(maxlen=MAX_RECENT)

    def add(self, jobs: Iterable[DecidedJob]) -> None:
        """Take in jobs as they are judged."""
        for job in jobs:
            run = LiveRun(
                key=job.pipeline, job=job.key, owner=job.context.owner, tier=job.context.tier, state=str(job.outcome),
                started_ns=job.start_ns, progress=_progress(job.stages.values()),
                predicted_finish_ns=job.end_ns, deadline_ns=job.deadline_ns,
            )  # fmt: skip
            self._runs.append((job.settled_ns, run))

    def runs(self, now_ns: int) -> list[LiveRun]:
        """Return those that are recent enough, the oldest first."""
        while self._runs and self._runs[0][0] + self._keep_ns < now_ns:
            self._runs.popleft()
        return [run for _, run in self._runs]
