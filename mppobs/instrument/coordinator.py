"""What the coordinator of a job says: what it plans, hands out and accepts, that it is alive, and who works for it."""

from __future__ import annotations

import time
from collections.abc import Collection

from mppobs.instrument.carrier import carrier_of
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.recording import as_shard
from mppobs.instrument.run import Handoff, Run
from mppobs.model import (
    CommitRecord,
    DispatchRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    Shard,
    ShardOutcome,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)


class Coordinator:
    """
    Writes a job's records into the journal of the process that calls it. Safe to use from any thread.

    Nothing raises for what cannot be recorded; `ValueError` says that an outcome, an event or a reason is none.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def job_id(self) -> str:
        """Return the job's identifier."""
        return self.run.context.job_id

    @property
    def pipeline(self) -> str:
        """Return the pipeline."""
        return self.run.context.pipeline

    @property
    def trace_id(self) -> int:
        """Return the OpenTelemetry trace ID of the job."""
        return self.run.trace_id

    def context_id(self, stage: str = "") -> int:
        """Return the number of a stage's context in this process's journal; 0 where nothing is recorded."""
        binding = self.run.stages.get(stage)
        if binding is None or binding.journal.closed:
            binding = RECORDER.bind(self.run, stage, stage, "")
        return 0 if binding is None else binding.number

    def plan(self, stage: str, shards: int | Collection[Shard], *, final: bool = True, input_bytes: int = 0) -> None:
        """Add shards to the plan of a stage, which is complete with this call unless `final` is false."""
        added = shards if isinstance(shards, int) else len(shards)
        self._append(PlanRecord(self.context_id(stage), time.time_ns(), added, final, None, input_bytes))

    def split(self, stage: str, parent: Shard, children: int, *, input_bytes: int = 0) -> None:
        """Replace a shard of the plan by a number of smaller ones."""
        context_id = self.context_id(stage)
        self._append(PlanRecord(context_id, time.time_ns(), children, False, _key(parent), input_bytes))

    def dispatch(
        self,
        stage: str,
        shard: Shard,
        attempt: int = 0,
        *,
        worker: str = "",
        speculative: bool = False,
        input_bytes: int = 0,
    ) -> dict[str, str]:
        """Record that an attempt was handed to a worker; return what the worker needs to `attach`."""
        now = time.time_ns()
        record = DispatchRecord(self.context_id(stage), _key(shard), attempt, now, speculative, worker, input_bytes)
        self._append(record)
        return carrier_of(self.run.context, Handoff(stage, as_shard(shard), attempt, speculative, now))

    def commit(
        self,
        stage: str,
        shard: Shard,
        attempt: int = 0,
        *,
        outcome: ShardOutcome | str = ShardOutcome.COMMITTED,
        first_start_ns: int = 0,
        reason: Reason | str = Reason.NONE,
        error_type: str = "",
        output_bytes: int = 0,
        output_rows: int = 0,
    ) -> None:
        """Decide a shard, once and for good. `attempt` is the one that won, or the last that failed."""
        self._append(
            CommitRecord(
                self.context_id(stage),
                _key(shard),
                attempt,
                ShardOutcome(outcome),
                time.time_ns(),
                first_start_ns,
                Reason(reason),
                error_type,
                output_bytes,
                output_rows,
            )
        )

    def heartbeat(
        self,
        *,
        pending_jobs: int = 0,
        running_jobs: int = 1,
        pending_shards: int = 0,
        running_shards: int = 0,
        idle_workers: int = 0,
        busy_workers: int = 0,
        draining_workers: int = 0,
    ) -> None:
        """Say that the coordinator is alive, and what it has on its hands."""
        self._append(
            HeartbeatRecord(
                self.context_id(),
                time.time_ns(),
                pending_jobs,
                running_jobs,
                pending_shards,
                running_shards,
                idle_workers,
                busy_workers,
                draining_workers,
            )
        )

    def worker(
        self,
        name: str,
        event: WorkerEvent | str,
        *,
        node: str = "",
        zone: str = "",
        node_type: str = "",
        reason: Reason | str = Reason.NONE,
    ) -> None:
        """Record that a worker came (`up`), is leaving (`draining`) or was lost (`lost`, with the reason)."""
        info = WorkerInfo(name, node, zone, node_type)
        self._append(WorkerRecord(WorkerEvent(event), time.time_ns(), info, Reason(reason)))

    def _append_job(
        self,
        event: JobEvent,
        *,
        outcome: JobOutcome | None = None,
        reason: Reason = Reason.NONE,
        error_type: str = "",
    ) -> None:
        self._append(JobRecord(event, self.context_id(), time.time_ns(), outcome, reason, error_type))

    def _append(self, record: Record) -> None:
        journal = RECORDER.journal()
        if journal is not None:
            journal.append(record)


def _key(shard: Shard) -> int:
    """Return the key of a shard, naming it in this process's journal where it has a name."""
    journal = RECORDER.journal()
    return 0 if journal is None else journal.name_shard(as_shard(shard))
