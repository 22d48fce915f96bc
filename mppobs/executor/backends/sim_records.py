"""What simulated attempts leave in the journal of the process that simulates them: records of simulated time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.sim.places import Running
from mppobs.instrument.activities import Activity
from mppobs.instrument.attempt import Attempt, current_attempt
from mppobs.instrument.carrier import run_of
from mppobs.instrument.outcomes import Ending
from mppobs.instrument.recorder import RECORDER
from mppobs.model import AttemptRecord, Context, Reason


class SimAttempt(Attempt):
    """The attempt as its task sees it: what it counts is kept, and recorded once its simulated end is known."""

    __slots__ = ("network", "read", "rows", "throttled", "written")

    def __init__(self) -> None:
        self._place = None
        self._flags = self._start = self.attempt = self.shard = 0
        self.rows = self.read = self.written = self.network = self.throttled = 0

    stage = pipeline = job_id = property(lambda self: "")
    trace_id = span_id = start_ns = property(lambda self: 0)

    def run(self, call: Callable[[Attempt], Report]) -> Report:
        """Call something within which this is the current attempt."""
        token = current_attempt.set(self)
        try:
            return call(self)
        finally:
            current_attempt.reset(token)

    def add(
        self,
        *,
        rows: int = 0,
        shuffle_read: int = 0,
        shuffle_written: int = 0,
        network_errors: int | Mapping[str, int] = 0,
        storage_throttled: int | Mapping[str, int] = 0,
    ) -> None:
        """Add to what the attempt has done."""
        self.rows += max(rows, 0)
        self.read += max(shuffle_read, 0)
        self.written += max(shuffle_written, 0)
        self.network += _total(network_errors)
        self.throttled += _total(storage_throttled)

    def progress(self, ratio: float) -> None:
        """Say nothing: how far it is, the simulated world says."""

    def checkpoint(self) -> None:
        """Say nothing: nobody could see it."""

    def activity(self, name: str) -> Activity:
        """Return a timer that measures nothing: no real time belongs to it."""
        return Activity(None, name)

    def _ends_as(self, ending: Ending) -> None:
        """Keep nothing: the report says how it ended."""


def record_attempt(
    stage: StageOrder, order: AttemptOrder, report: Report, running: Running, counted: SimAttempt
) -> None:
    """Record an attempt as its worker would have, at its simulated times. Does nothing where nothing is recorded."""
    journal = RECORDER.journal()
    if journal is None or running.started_ns < 0:
        return
    context_id = journal.context_id(_context(stage))
    journal.append_attempt(
        AttemptRecord(
            context_id, journal.name_shard(order.name), order.number, report.outcome, running.started_ns,
            report.duration_ns, report.reason or Reason.NONE, report.error_type, order.speculative,
            cpu_ns=int(report.duration_ns * running.fate.cpu_share),
            delay_ns=max(running.started_ns - order.assigned_ns, 0), rows=counted.rows, shuffle_read=counted.read,
            shuffle_written=counted.written, network_errors=counted.network + running.fate.network_errors,
            storage_throttled=counted.throttled + running.fate.throttled, peak_rss=report.peak_memory_bytes,
        )
    )  # fmt: skip


def _context(stage: StageOrder) -> Context:
    """Return the context of a stage's attempts."""
    run = run_of(stage.context, RECORDER.settings(), None)
    job = run.context
    return Context(
        job.pipeline, job.job_id, job.incarnation, stage.name, stage.task, job.tenant, job.owner, job.tier, job.cluster,
        job.run_kind, job.deadline_ns,
    )  # fmt: skip


def _total(amount: int | Mapping[str, int]) -> int:
    return sum(amount.values()) if isinstance(amount, Mapping) else max(amount, 0)
