"""
What a coordinator records of a job: its life, its plan, what it hands out and what it accepts.

All times are of the clock that is given, so a job that runs in simulated time leaves records of simulated time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mppobs.clock import Clock
from mppobs.executor.events import Load
from mppobs.instrument.carrier import carrier_of
from mppobs.instrument.run import Handoff
from mppobs.journal.interning import ContextHandle
from mppobs.journal.slots import Place
from mppobs.journal.writer import JournalWriter
from mppobs.model import (
    CommitRecord,
    Context,
    DispatchRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Shard,
    ShardOutcome,
)

DEFAULT_LEASE_NS: Final = 60 * 10**9
"""How long a job outlives a coordinator that died, as everywhere else in the project."""

_PIECE: Final = 256
"""Records in one piece: 24 KiB, which even the smallest segment has room for."""

Sink = Callable[[], JournalWriter | None]
"""Gives the journal to write into, which may be another one from call to call; `None` where nothing is recorded."""


def nowhere() -> None:
    """Give no journal: the sink of a job that nobody wants recorded."""
    return


class JobRecords:
    """
    One job's way into a journal. Cheap for each attempt; nothing raises for what cannot be recorded.

    >>> from mppobs.clock import ManualClock
    >>> records = JobRecords(Context("nightly", "nightly-1"), nowhere, ManualClock())
    >>> records.plan("map", 3)
    >>> records.carrier["mppobs-job-id"]
    'nightly-1'
    """

    def __init__(self, context: Context, sink: Sink, clock: Clock) -> None:
        self.context = context
        """Of the job itself; that of a stage has the stage's name as well."""
        self.carrier = carrier_of(context, Handoff())
        """What a worker attaches to take part in the job."""
        self._sink = sink
        self._clock = clock
        self._contexts: dict[str, tuple[JournalWriter, ContextHandle]] = {}
        self._place: tuple[JournalWriter, Place] | None = None
        self._later: list[DispatchRecord | CommitRecord] = []
        """What is written with the next `flush`, to this journal: a piece at a time costs half as much."""
        self._later_to: JournalWriter | None = None

    def start(self, lease_ns: int = DEFAULT_LEASE_NS, submit_ns: int = 0, traceparent: str = "") -> None:
        """Record that the job starts, or that it goes on under this coordinator."""
        journal = self._sink()
        if journal is None:
            return
        context_id, now = self._number(journal, ""), self._clock.time_ns()
        deadline_ns = self.context.deadline_ns
        journal.append(
            JobRecord(
                JobEvent.START, context_id, now, submit_ns=submit_ns, deadline_ns=deadline_ns, lease_ns=lease_ns,
                coordinated=True, traceparent=traceparent,
            )
        )  # fmt: skip
        place = journal.begin(context_id, start_ns=now, is_job=True)
        self._place = None if place is None else (journal, place)

    def checkpoint(self) -> None:
        """Record that what the job has so far is safe."""
        journal = self._sink()
        if journal is None:
            return
        journal.append(JobRecord(JobEvent.CHECKPOINT, self._number(journal, ""), self._clock.time_ns()))
        if self._place is not None and not self._place[0].closed:
            self._place[0].checkpoint(self._place[1])

    def end(self, outcome: JobOutcome, reason: Reason = Reason.NONE, error_type: str = "") -> None:
        """Record how the job ended. Once."""
        self.flush()
        journal = self._sink()
        if journal is None:
            return
        number, now = self._number(journal, ""), self._clock.time_ns()
        journal.append(JobRecord(JobEvent.END, number, now, outcome, reason, error_type))
        if self._place is not None and not self._place[0].closed:
            self._place[0].end(self._place[1])
        self._place = None
        self._contexts.clear()

    def plan(self, stage: str, shards: int, input_bytes: int = 0) -> None:
        """Record shards that are planned, and what they have to read as far as it is known."""
        journal = self._sink()
        if journal is not None:
            number = self._number(journal, stage)
            journal.append(PlanRecord(number, self._clock.time_ns(), shards, True, None, input_bytes))

    def split(self, stage: str, parent: Shard, children: int) -> None:
        """Record that a shard of the plan is replaced by smaller ones, which read what it would have read."""
        journal = self._sink()
        if journal is not None:
            number, key = self._number(journal, stage), journal.name_shard(parent)
            journal.append(PlanRecord(number, self._clock.time_ns(), children, False, key))

    def dispatch(
        self, stage: str, shard: Shard, attempt: int, worker: str, speculative: bool, input_bytes: int
    ) -> None:
        """Record that a worker has an attempt."""
        journal = self._sink()
        if journal is not None:
            number, key = self._number(journal, stage), journal.name_shard(shard)
            now = self._clock.time_ns()
            self._put(journal, DispatchRecord(number, key, attempt, now, speculative, worker, input_bytes))

    def commit(
        self,
        stage: str,
        shard: Shard,
        attempt: int,
        outcome: ShardOutcome,
        *,
        first_start_ns: int = 0,
        reason: Reason = Reason.NONE,
        error_type: str = "",
        output_bytes: int = 0,
        output_rows: int = 0,
    ) -> None:
        """Record that a shard is decided, and by which attempt."""
        journal = self._sink()
        if journal is not None:
            number, key = self._number(journal, stage), journal.name_shard(shard)
            record = CommitRecord(
                number, key, attempt, outcome, self._clock.time_ns(), first_start_ns, reason, error_type,
                output_bytes, output_rows,
            )  # fmt: skip
            self._put(journal, record)

    def flush(self) -> None:
        """Write what was handed out and accepted since the last time; done before anything is made of it."""
        later, self._later = self._later, []
        if self._later_to is not None:
            for start in range(0, len(later), _PIECE):
                self._later_to.append(*later[start : start + _PIECE])

    def heartbeat(self, load: Load) -> None:
        """Record that the coordinator is alive, and what it has on its hands."""
        journal = self._sink()
        if journal is not None:
            number = self._number(journal, "")
            journal.append(HeartbeatRecord(number, self._clock.time_ns(), *load))

    def mute(self) -> None:
        """Record nothing more, and show the job as running no more: it is another coordinator's."""
        self.flush()
        if self._place is not None and not self._place[0].closed:
            self._place[0].end(self._place[1])
        self._place = None
        self._sink = nowhere

    def _put(self, journal: JournalWriter, record: DispatchRecord | CommitRecord) -> None:
        if journal is not self._later_to:
            self.flush()
            self._later_to = journal
        self._later.append(record)

    def _number(self, journal: JournalWriter, stage: str) -> int:
        """Return the number of a stage's context in a journal, which knows it for as long as its handle is held."""
        known = self._contexts.get(stage)
        if known is None or known[0] is not journal:
            known = self._contexts[stage] = (journal, journal.context(self._context(stage)))
        return known[1].number

    def _context(self, stage: str) -> Context:
        return replace(self.context, stage=stage)
