"""
Looks at running jobs now and then, and predicts when they end: from the fold's shards and the slots of live journals.

What is remembered between looks (how many lanes a job has, when it was looked at, its pipeline's earlier runs) can be
had again after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np

from mppobs.model import AttemptOutcome, JobKey, ShardOutcome
from mppobs.sidecar.running import JobStage, RunningJob
from mppobs.sidecar.store_jobs import JobSummary, StageSummary
from mppobs.sidecar.tables import COMMITTED
from mppobs.sidecar.view import LiveAttempt
from mppobs.slo.draining import Prediction
from mppobs.slo.fitting import RECENT
from mppobs.slo.foresight import RunningFacts, Who
from mppobs.slo.past import RUNS, Run, StageRun, learn
from mppobs.slo.predict import predict
from mppobs.slo.progress import Finished, Going, Lanes, Past, Seconds, StageNow, progress_now
from mppobs.trace_ids import trace_id

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Between two looks at a job; a hundredth of the time that it is allowed where that is less."""
LEAST_SECONDS: Final = 1.0
"""Between two looks at any jobs: each goes over everything that runs."""
MOST_JOBS: Final = 24
"""That are predicted at one look, those that have waited longest first: a look costs a millisecond or two each."""
_NS: Final = 1e9

PastRuns = Callable[[Who], Sequence[JobSummary]]
"""From a pipeline to its newest successful runs."""


class Seen(NamedTuple):
    """One look at a job."""

    facts: RunningFacts
    prediction: Prediction | None


@dataclass(slots=True)
class _Job:
    """What is remembered of a job between looks."""

    looked_ns: int = 0
    lanes: Lanes = field(default_factory=Lanes)


class Onlooker:
    """Running jobs, looked at in turn. `past_runs` is asked once for each pipeline."""

    def __init__(self, past_runs: PastRuns) -> None:
        self._past_runs = past_runs
        self._jobs: dict[JobKey, _Job] = {}
        self._runs: dict[Who, list[Run]] = {}
        self._pasts: dict[Who, Past] = {}
        self._looked_ns = 0
        self.failed = 0
        """Predictions that could not be made because this code itself failed."""

    def due(self, running: Mapping[JobKey, RunningJob], now_ns: int) -> list[RunningJob]:
        """Return the jobs that are to be looked at now; those that have ended, and wait for judgement, always."""
        for key in [key for key in self._jobs if key not in running]:
            del self._jobs[key]
        waits = [
            (now_ns - self._jobs.setdefault(key, _Job()).looked_ns - _pause_ns(job), job)
            for key, job in running.items()
        ]  # fmt: skip
        ended = [job for job in running.values() if job.end_ns]
        if 0 <= now_ns - self._looked_ns < LEAST_SECONDS * _NS:
            return ended
        found = sorted((each for each in waits if each[0] >= 0 and not each[1].end_ns), key=lambda each: -each[0])
        if found:
            self._looked_ns = now_ns
        return [job for _, job in found[:MOST_JOBS]] + ended

    def look(self, job: RunningJob, attempts: Sequence[LiveAttempt], now_ns: int) -> Seen:
        """Return what is known of a job, and when it will end."""
        facts = facts_of(job)
        if job.end_ns:
            return Seen(facts, None)
        mine = self._jobs.setdefault(job.key, _Job())
        mine.looked_ns = now_ns
        past, stages = self._past(facts.who), stages_now(job, attempts, now_ns)
        if not job.planned:
            # Nobody says how many shards there will be: as many as there used to be, or nothing can be foretold.
            if not past.stages:
                return Seen(facts, None)
            stages = [_as_usual(stage, past) for stage in stages]
        mine.lanes = mine.lanes.after(stages)
        try:
            return Seen(facts, predict(stages, mine.lanes, past))
        except (ArithmeticError, ValueError, LookupError):
            # Journals may say anything, and a prediction is a comfort: what is counted must not wait for it.
            self.failed += 1
            _log.exception("the finish of %s cannot be predicted", job.key)
            return Seen(facts, None)

    def decided(self, jobs: Iterable[JobSummary]) -> None:
        """Take in the runs that were judged: those to come will be like them."""
        for job in jobs:
            who = who_of(job)
            if who in self._runs and job.outcome == "success":
                self._runs[who] = [*self._runs[who], past_run(job)][-RUNS:]
                self._pasts.pop(who, None)

    def _past(self, who: Who) -> Past:
        """Return what a pipeline's earlier runs say."""
        if who not in self._runs:
            self._runs[who] = [past_run(job) for job in reversed(self._past_runs(who))]
        if who not in self._pasts:
            self._pasts[who] = learn(self._runs[who])
        return self._pasts[who]


def _as_usual(stage: StageNow, past: Past) -> StageNow:
    """Return a stage with at least the shards that it had in earlier runs."""
    was = past.stages.get(stage.name)
    return stage if was is None else replace(stage, total=max(stage.total, round(was.shards)))


def facts_of(job: RunningJob) -> RunningFacts:
    """Return a running job as promises look at it."""
    who = Who(job.key.cluster, job.key.tenant, job.context.pipeline)
    return RunningFacts(
        uid=uid_of(job.key), who=who, run_kind=job.context.run_kind, submit_ns=job.submit_ns or job.start_ns,
        start_ns=job.start_ns, deadline_ns=job.deadline_ns, end_ns=job.end_ns, outcome=job.outcome,
    )  # fmt: skip


def uid_of(key: JobKey) -> str:
    """Return the name of a run that no other has, as `JobSummary.uid`."""
    return f"{trace_id(key):032x}"


def who_of(job: JobSummary) -> Who:
    """Return whose run it was."""
    return Who(job.key.cluster, job.key.tenant, job.pipeline)


def past_run(job: JobSummary) -> Run:
    """Return a judged run as those after it look back at it."""
    stages = [_past_stage(stage, job.start_ns) for stage in job.stages]
    return Run(max(0, job.end_ns - job.start_ns) / _NS, [stage for stage in stages if stage.shards])


def _past_stage(stage: StageSummary, start_ns: int) -> StageRun:
    times = (stage.first_start_ns, stage.last_end_ns)
    began, ended = ((time_ns - start_ns) / _NS if time_ns else 0.0 for time_ns in times)
    return StageRun(
        name=stage.stage, shards=stage.shards.get(ShardOutcome.COMMITTED, 0), seconds=stage.wall_ns / _NS,
        median=(stage.median_ns or 0) / _NS, p99=(stage.p99_ns or 0) / _NS, began=began, ended=ended,
    )  # fmt: skip


def stages_now(job: RunningJob, attempts: Sequence[LiveAttempt], now_ns: int) -> list[StageNow]:
    """Return the stages of a running job as the predictor looks at them."""
    nodes: dict[str, int] = {}
    numbers = [-1, *(nodes.setdefault(worker.node, len(nodes)) for worker in job.workers)]
    by_stage: dict[str, dict[object, LiveAttempt]] = {}
    for attempt in attempts:
        # Of a shard that two attempts are at, the one that began first is looked at: either may be its end.
        mine = by_stage.setdefault(attempt.stage, {})
        if attempt.shard not in mine or attempt.started_ns < mine[attempt.shard].started_ns:
            mine[attempt.shard] = attempt
    return [
        _stage_now(stage, np.array(numbers), nodes, list(by_stage.get(stage.name, {}).values()), now_ns)
        for stage in job.stages.values()
    ]  # fmt: skip


def _stage_now(
    stage: JobStage, numbers: np.ndarray[tuple[int], np.dtype[np.int64]], nodes: dict[str, int],
    attempts: Sequence[LiveAttempt], now_ns: int,
) -> StageNow:  # fmt: skip
    """Return one stage; `numbers` has the node of each worker, `nodes` the number of each node."""
    columns = stage.columns()
    rows = np.flatnonzero((columns.state == COMMITTED) & (columns.wall > 0))
    if len(rows) > RECENT:
        rows = rows[np.argpartition(columns.decided[rows], len(rows) - RECENT)[-RECENT:]]
    rows = rows[np.argsort(columns.decided[rows], kind="stable")]
    took: Seconds = columns.wall[rows].astype(np.float64) / _NS
    said = float(columns.input.sum(dtype=np.float64)) if stage.input_bytes else 0.0
    return StageNow(
        stage.name, stage.total, stage.decided,
        Finished(took, columns.input[rows].astype(float), numbers[columns.worker[rows]]),
        _going(attempts, nodes, now_ns),
        waiting_bytes=max(0.0, stage.input_bytes - said),
        failed=stage.attempts[AttemptOutcome.FAILURE] + stage.attempts[AttemptOutcome.TIMEOUT],
    )  # fmt: skip


def _going(attempts: Sequence[LiveAttempt], nodes: dict[str, int], now_ns: int) -> Going:
    """Return the attempts that run."""
    elapsed = np.array([max(0, now_ns - each.started_ns) / _NS for each in attempts])
    told = np.array([np.nan if not each.progress else each.progress for each in attempts])
    after = np.array([max(0, each.progressed_ns - each.started_ns) / _NS for each in attempts])
    return Going(
        elapsed, np.array([float(each.input_bytes) for each in attempts]),
        np.array([nodes.setdefault(each.node, len(nodes)) for each in attempts], np.int64),
        progress_now(told, after, elapsed) if len(attempts) else told,
    )  # fmt: skip


def _pause_ns(job: RunningJob) -> int:
    """Return how long to wait between two looks at a job."""
    begin_ns = job.submit_ns or job.start_ns
    allowed = (job.deadline_ns - begin_ns) / _NS if job.deadline_ns > begin_ns else 100 * LOOK_SECONDS
    return round(min(LOOK_SECONDS, allowed / 100) * _NS)
