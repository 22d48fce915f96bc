"""
One job from the coordinator's side: what its attempts are told, what they left, and what is said of it.

It does no scheduling and talks to no worker: the driver calls it where the scheduler has decided something.
"""

from __future__ import annotations

import pickle
import time
from array import array
from collections import Counter
from typing import Any, Final

import pyarrow as pa

import mppobs
from mppobs.executor.attempt import AttemptOrder, Input, Report, StageOrder
from mppobs.executor.events import AttemptId, JobEnded, JobSubmitted, StageSpec
from mppobs.executor.files import JobFiles
from mppobs.executor.plan import Plan, Stage
from mppobs.executor.result import JobResult, Progress, ShardFailure, StageProgress
from mppobs.executor.shuffle import read_everything
from mppobs.instrument.recorder import RECORDER
from mppobs.model import AttemptOutcome, DispatchRecord, JobOutcome, Reason, Shard, ShardOutcome

_MOST_FAILURES: Final = 100


class StageRun:
    """What a running job keeps of one stage."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.stage: Stage = plan.stages[index]
        self.shards = plan.shard_count(self.stage.name)
        self.read_by_later = any(self.stage.name in later.reads for later in plan.stages)
        self.first_starts = array("Q", bytes(8 * self.shards))
        """When the first attempt of each shard began; 0 while none has."""
        self.input_sizes = array("Q", bytes(8 * self.shards))
        self.partition_sizes = array("Q", bytes(8 * self.stage.partitions))
        """Bytes that committed shards have put into each partition."""
        self.done = self.failed = self.running = 0
        self.attempts = self.retries = self.read = self.written = self.rows = 0
        for position, part in enumerate(self.stage.shards or ()):
            self.input_sizes[position] = part.input_bytes

    def name(self, shard: int) -> Shard:
        """Return the identifier of the shard at a position."""
        return self.stage.shards[shard].shard if self.stage.shards is not None else shard

    def progress(self) -> StageProgress:
        """Return how far it has come."""
        return StageProgress(
            stage=self.stage.name,
            planned=self.shards,
            done=self.done,
            running=self.running,
            failed=self.failed,
            attempts=self.attempts,
            retries=self.retries,
            shuffle_read=self.read,
            shuffle_written=self.written,
            rows=self.rows,
        )


class JobRun:
    """A job that runs. Made when it is submitted, read for its result when it has ended."""

    def __init__(self, key: str, plan: Plan, files: JobFiles, handle: mppobs.RunHandle) -> None:
        """Take in a job; `key` is its name in the scheduler, `handle` its records' way into the journal."""
        self.key = key
        self.plan = plan
        self.handle = handle
        self.began = time.monotonic()
        self.end: JobEnded | None = None
        """Set once, when the scheduler says so."""
        self.stages = [StageRun(plan, index) for index in range(len(plan.stages))]
        self.outcomes: Counter[AttemptOutcome] = Counter()
        self.failures: list[ShardFailure] = []
        self._files = files
        context = mppobs.inject()
        self._orders = [self._order(stage, context) for stage in self.stages]
        self._values: dict[int, bytes] = {}
        self._reports: dict[tuple[int, int], Report] = {}

    def submission(self) -> JobSubmitted:
        """Return the event that submits the job to the scheduler."""
        plan = self.plan
        specs = tuple(
            StageSpec(run.shards, tuple(plan.index(need) for need in run.stage.needs), run.stage.limits)
            for run in self.stages
        )
        return JobSubmitted(self.key, specs, plan.on_failure, plan.retry_share, plan.retry_floor)

    def announce(self) -> None:
        """Record the plan of every stage. What an exchange will hold is added when it is known."""
        for run in self.stages:
            self.handle.plan(run.stage.name, run.shards, input_bytes=sum(run.input_sizes))

    def open(self, index: int) -> array[int]:
        """Return the input sizes of a stage's shards, now that everything it reads is there."""
        run = self.stages[index]
        for name in run.stage.reads:
            source = self.stages[self.plan.index(name)].partition_sizes
            whole = sum(source)
            for shard in range(run.shards):
                run.input_sizes[shard] += whole if run.stage.shards is not None else source[shard]
        if run.stage.reads:
            self.handle.plan(run.stage.name, 0, input_bytes=sum(run.input_sizes))
        return run.input_sizes

    def order(self, attempt: AttemptId, assigned_ns: int) -> tuple[StageOrder, AttemptOrder]:
        """Return what a worker needs for an attempt."""
        stage = self.stages[attempt.stage].stage
        if stage.shards is None:
            name: Shard = attempt.shard
            arguments = None
        else:
            part = stage.shards[attempt.shard]
            name, arguments = part.shard, part.arguments
        return self._orders[attempt.stage], AttemptOrder(attempt.shard, name, attempt.number, arguments, assigned_ns)

    def started(self, attempt: AttemptId, worker: str, start_ns: int) -> None:
        """Take in that a worker has begun an attempt."""
        run = self.stages[attempt.stage]
        run.running += 1
        run.attempts += 1
        run.retries += attempt.number > 0
        if run.first_starts[attempt.shard] == 0:
            run.first_starts[attempt.shard] = start_ns
        journal = RECORDER.journal()
        if journal is not None:
            # Not by the handle, which would make a carrier for the attempt as well: the worker has the job's.
            key = journal.name_shard(run.name(attempt.shard))
            context = self.handle.context_id(run.stage.name)
            size = run.input_sizes[attempt.shard]
            journal.append(DispatchRecord(context, key, attempt.number, time.time_ns(), False, worker, size))

    def ended(self, attempt: AttemptId, report: Report) -> None:
        """Take in how an attempt ended."""
        self.stages[attempt.stage].running -= 1
        self.outcomes[report.outcome] += 1
        self._reports[attempt[1:3]] = report

    def committed(self, attempt: AttemptId) -> None:
        """Take in that a shard is decided for an attempt, and count what it left."""
        run = self.stages[attempt.stage]
        report = self._reports.pop(attempt[1:3])
        size = rows = 0
        if report.output is not None:
            size, rows = report.output.size, report.output.rows
            for partition, part in enumerate(report.output.sizes):
                run.partition_sizes[partition] += part
        elif attempt.stage == len(self.stages) - 1:
            self._values[attempt.shard] = report.value
        run.done += 1
        run.rows += rows
        run.read += report.bytes_read
        run.written += size if run.read_by_later else 0
        self._decide(run, attempt, ShardOutcome.COMMITTED, output_bytes=size, output_rows=rows)

    def gave_up(self, attempt: AttemptId, reason: Reason) -> None:
        """Take in that a shard is given up."""
        run = self.stages[attempt.stage]
        # None where its workers died without a word.
        report = self._reports.pop(attempt[1:3], Report(AttemptOutcome.ERROR, reason))
        run.failed += 1
        if len(self.failures) < _MOST_FAILURES:
            name, tries = run.name(attempt.shard), attempt.number + 1
            self.failures.append(ShardFailure(run.stage.name, name, tries, reason, report.error_type, report.message))
        self._decide(run, attempt, ShardOutcome.FAILED, reason=reason, error_type=report.error_type)

    def progress(self, workers: int) -> Progress:
        """Return how far it has come."""
        return Progress(self.handle.job_id, self.plan.pipeline, self._elapsed(), self._stages(), workers)

    def result(self, outcome: JobOutcome, reason: Reason) -> JobResult:
        """Return the result of the job that has ended. Raises `ExchangeError` where the answer cannot be read."""
        wall = self._elapsed()
        return JobResult(
            job_id=self.handle.job_id,
            pipeline=self.plan.pipeline,
            outcome=outcome,
            reason=reason,
            answer=self._answer() if outcome is JobOutcome.SUCCESS else None,
            stages=self._stages(),
            attempts=dict(self.outcomes),
            failures=tuple(self.failures),
            wall=wall,
        )

    def _decide(
        self,
        run: StageRun,
        attempt: AttemptId,
        outcome: ShardOutcome,
        *,
        reason: Reason = Reason.NONE,
        error_type: str = "",
        output_bytes: int = 0,
        output_rows: int = 0,
    ) -> None:
        """Record that a shard is decided."""
        self.handle.commit(
            run.stage.name,
            run.name(attempt.shard),
            attempt.number,
            outcome=outcome,
            first_start_ns=run.first_starts[attempt.shard],
            reason=reason,
            error_type=error_type,
            output_bytes=output_bytes,
            output_rows=output_rows,
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _stages(self) -> tuple[StageProgress, ...]:
        return tuple(run.progress() for run in self.stages)

    def _order(self, run: StageRun, context: dict[str, str]) -> StageOrder:
        plan, stage = self.plan, run.stage
        inputs = {
            name: Input(plan.index(name), plan.shard_count(name), whole=stage.shards is not None)
            for name in stage.reads
        }
        return StageOrder(
            job_id=self.handle.job_id,
            root=self._files.root,
            index=plan.index(stage.name),
            name=stage.name,
            task=stage.task,
            combiner=stage.combiner,
            arguments=dict(stage.arguments),
            inputs=inputs,
            exchanged=run.read_by_later,
            partition_by=stage.partition_by,
            partitions=stage.partitions,
            compression=plan.compression,
            context=context,
        )

    def _answer(self) -> Any:
        """Return what the last stage put out."""
        last = len(self.stages) - 1
        parts = [self._part(last, shard) for shard in range(self.stages[last].shards)]
        return parts if self._values else pa.concat_tables(parts)

    def _part(self, stage: int, shard: int) -> Any:
        """Return what one shard of the last stage put out."""
        value = self._values.get(shard)
        if value is None:
            return read_everything(self._files.data(stage, shard))[0]
        return pickle.loads(value) if value else None
