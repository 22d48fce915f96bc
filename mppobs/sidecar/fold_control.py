"""
The rare records, one by one: the life of jobs, plans, heartbeats, workers that came and went.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Final

import numpy as np

from mppobs.model import (
    Context,
    HeartbeatRecord,
    JobEvent,
    JobRecord,
    PlanRecord,
    Reason,
    WorkerEvent,
    WorkerRecord,
)
from mppobs.sidecar.fold_columns import DAY_NS, MAX_SPAN_NS, YEAR_2000_NS
from mppobs.sidecar.fold_jobs import JobBook
from mppobs.sidecar.fold_journals import Source
from mppobs.sidecar.fold_labels import Labels
from mppobs.sidecar.fold_ledger import Ledger
from mppobs.sidecar.fold_names import name_rows
from mppobs.sidecar.fold_settle import settle
from mppobs.sidecar.running import DecidedJob, RunningJob
from mppobs.sidecar.tables import PENDING, SPLIT

MAX_PLANNED: Final = 1 << 40
_REMEMBERED_WORKERS: Final = 10_000


class NonsenseError(Exception):
    """Raised for a record that makes no sense; its text is the reason that is counted."""


class Control:
    """Folds control records into jobs and totals. What they judge is left in `decided`."""

    def __init__(self, labels: Labels, book: JobBook, ledger: Ledger) -> None:
        self.decided: list[DecidedJob] = []
        self.lost_workers: OrderedDict[tuple[str, str], bool] = OrderedDict()
        """By cluster and name, so that a death that several saw counts once; whether it was for want of memory."""
        self._labels = labels
        self._book = book
        self._ledger = ledger

    def job(self, source: Source, record: JobRecord, now_ns: int) -> None:
        """Fold a step in the life of a job."""
        context = context_of(source, record.context_id)
        check_time(record.time_ns, now_ns)
        for moment, ahead in ((record.submit_ns, DAY_NS), (record.deadline_ns, MAX_SPAN_NS)):
            if moment and not YEAR_2000_NS <= moment <= now_ns + ahead:
                raise NonsenseError("absurd_time")
        if record.lease_ns > MAX_SPAN_NS:
            raise NonsenseError("absurd_duration")
        match record.event:
            case JobEvent.START:
                folded = self._start(source, context, record, now_ns)
            case JobEvent.END:
                folded = self._end(context, record, now_ns)
            case _:
                folded = self._event(source, context, record, now_ns)
        self._count("job", folded)

    def plan(self, source: Source, record: PlanRecord, now_ns: int) -> None:
        """Fold shards that were planned, or a shard that was split."""
        context = context_of(source, record.context_id)
        check_time(record.time_ns, now_ns)
        if record.added > MAX_PLANNED or record.input_bytes > 1 << 60:
            raise NonsenseError("absurd_amount")
        job = self._book.resolve(context, record.time_ns, now_ns)
        self._count("plan", job is not None)
        if job is None:
            return
        job.last_record_ns = now_ns
        stage = self._book.stage(job, context.stage)
        stage.planned += record.added
        stage.input_bytes += record.input_bytes
        stage.plan_final |= record.final
        stage.table.index.expect(stage.planned)
        if record.parent_key is not None:
            keys = np.array([record.parent_key], np.uint64)
            rows, fresh = stage.table.rows(keys)
            name_rows(stage.table, keys, rows, fresh, [(source, slice(0, 1))])
            if stage.table.state[rows[0]] == PENDING:
                stage.table.state[rows[0]] = SPLIT
                stage.split += 1
                stage.planned = max(0, stage.planned - 1)

    def heartbeat(self, source: Source, record: HeartbeatRecord, now_ns: int) -> None:
        """Fold a coordinator's sign of life. It opens no job."""
        context = context_of(source, record.context_id)
        check_time(record.time_ns, now_ns)
        self._labels.folded("heartbeat")
        key = self._labels.pipeline_key(context)
        totals = self._labels.pipeline(key)
        totals.heartbeat_ns = max(totals.heartbeat_ns, record.time_ns)
        job = self._book.find(context)
        if job is not None:
            job.last_record_ns = now_ns
            if record.time_ns >= job.heartbeat_ns:
                job.heartbeat = record

    def worker(self, source: Source, record: WorkerRecord) -> None:
        """Fold what a process says of itself, or a coordinator of its workers."""
        self._labels.folded("worker")
        if record.event is WorkerEvent.LOST:
            self.lost(source.tables.cluster, record.info.worker, record.reason)

    def lost(self, cluster: str, worker: str, reason: Reason) -> bool:
        """
        Count a worker that died or vanished, once, whoever says so.

        Returns whether this is the first to say that it was for want of memory.
        """
        name = (cluster, worker)
        seen = self.lost_workers.get(name) if worker else None
        starved = reason is Reason.OOM_KILLED
        self.lost_workers[name] = bool(seen) or starved
        if len(self.lost_workers) > _REMEMBERED_WORKERS:
            self.lost_workers.popitem(last=False)
        if seen is None:
            counts = self._labels.cluster(cluster).workers_lost
            kind = str(Reason.WORKER_LOST if reason is Reason.NONE else reason)
            counts[kind] = counts.get(kind, 0) + 1
        return starved and not seen

    def _count(self, kind: str, folded: bool) -> None:
        if folded:
            self._labels.folded(kind)
        else:
            self._labels.late(kind)

    def _start(self, source: Source, context: Context, record: JobRecord, now_ns: int) -> bool:
        """Begin a job or go on with one; return whether the record was in time."""
        named = context if context.incarnation else replace(context, incarnation=record.time_ns)
        job = self._book.find(named)
        if job is None:
            if self._book.closed_until(named, now_ns) is not None:
                return False
            job = self._resumable(context, record.time_ns) or self._book.open(named, record.time_ns)
        if job.end_ns:
            return False
        if named.incarnation not in (job.key.incarnation, *job.aliases):
            job.aliases.append(named.incarnation)
        if job.implicit:
            job.start_ns, job.submit_ns = record.time_ns, record.submit_ns
        job.implicit = job.unnamed = False
        job.orphaned_ns = 0
        job.coordinator = source.state.journal
        job.coordinated = record.coordinated
        job.deadline_ns = record.deadline_ns or context.deadline_ns or job.deadline_ns
        job.lease_ns = record.lease_ns or job.lease_ns
        job.traceparent = job.traceparent or record.traceparent
        job.last_record_ns = now_ns
        return True

    def _resumable(self, context: Context, time_ns: int) -> RunningJob | None:
        """Return the running job that a start of a new incarnation goes on with, the newest where there are several."""
        standard = self._labels.settings.lease_ns
        fits = [
            job
            for job in self._book.siblings(context)
            if not job.end_ns
            and (job.unnamed or (job.orphaned_ns and time_ns - job.orphaned_ns < (job.lease_ns or standard)))
        ]
        return max(fits, key=lambda job: job.key.incarnation, default=None)

    def _end(self, context: Context, record: JobRecord, now_ns: int) -> bool:
        """Fix how and when a job ended; return whether this is the first that says so."""
        if record.outcome is None:
            raise NonsenseError("unknown_code")
        job = self._book.resolve(context, record.time_ns, now_ns)
        if job is None or job.end_ns:
            return False
        job.end_ns, job.outcome, job.reason = record.time_ns, record.outcome, record.reason
        job.error_type = record.error_type
        job.ended_ns = job.last_record_ns = now_ns
        return True

    def _event(self, source: Source, context: Context, record: JobRecord, now_ns: int) -> bool:
        """Fold an event that opens no job; return whether it was in time."""
        job = self._book.find(context)
        if job is None:
            if self._book.closed_until(context, now_ns) is None:
                raise NonsenseError("unknown_job")
            return False
        if record.event is JobEvent.CHECKPOINT:
            job.checkpoint_ns = max(job.checkpoint_ns, record.time_ns)
        elif record.event is JobEvent.ORPHANED:
            if job.end_ns or not (job.implicit or job.coordinator == source.state.journal):
                return False
            job.orphaned_ns = record.time_ns
        elif job.end_ns:
            with self._ledger.watching(job, job.stages.values()):
                self.decided.append(settle(job, self._labels, now_ns))
            self._book.close(job, now_ns)
        else:
            raise NonsenseError("unended_job")
        job.last_record_ns = now_ns
        return True


def context_of(source: Source, number: int) -> Context:
    """Return the context that a record names. Raises `NonsenseError` where its segment has not defined it."""
    context = source.tables.contexts.get(number)
    if context is None:
        raise NonsenseError("unknown_context")
    return context


def check_time(time_ns: int, now_ns: int) -> None:
    """Raise `NonsenseError` for a time before the year 2000 or more than a day ahead."""
    if not YEAR_2000_NS <= time_ns <= now_ns + DAY_NS:
        raise NonsenseError("absurd_time")
