"""The job that code runs under, its stages as this process's journal knows them, and the variables that carry both."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from mppobs.journal import format as fmt
from mppobs.journal.format import Kind
from mppobs.journal.interning import ContextHandle
from mppobs.journal.writer import JournalWriter
from mppobs.model import AttemptOutcome, Context, Shard
from mppobs.trace_ids import trace_id

_SUCCESS: Final = fmt.ATTEMPT_CODES[AttemptOutcome.SUCCESS]


class Handoff:
    """What whoever hands work to this code says of the attempt: which shard it is, and when it was assigned."""

    __slots__ = ("_assigned_ns", "attempt", "shard", "speculative", "stage")

    def __init__(
        self,
        stage: str = "",
        shard: Shard | None = None,
        attempt: int = 0,
        speculative: bool = False,
        assigned_ns: int | None = None,
    ) -> None:
        self.stage = stage
        self.shard = shard
        self.attempt = attempt
        self.speculative = speculative
        self._assigned_ns = [assigned_ns]

    def take_assigned(self) -> int | None:
        """Return when the attempt was assigned, once: a second attempt under the same handoff was not assigned then."""
        try:
            return self._assigned_ns.pop()
        except IndexError:
            return None


class Run:
    """One job as this process takes part in it. Its stages are bound to the journal when they are first used."""

    __slots__ = ("_trace_id", "context", "handoff", "stages")

    def __init__(
        self, context: Context, handoff: Handoff | None = None, stages: dict[object, StageBinding] | None = None
    ) -> None:
        self.context = context
        self.handoff = handoff
        self.stages: dict[object, StageBinding] = {} if stages is None else stages
        self._trace_id = 0

    @property
    def trace_id(self) -> int:
        """Return the job's trace ID, the same in every process."""
        self._trace_id = self._trace_id or trace_id(self.context.job_key)
        return self._trace_id


class StageBinding:
    """One stage of a job in one journal, with every word prepared that the recording of an attempt needs."""

    __slots__ = ("check", "context", "handle", "identity", "journal", "number", "run", "success")

    def __init__(self, run: Run, journal: JournalWriter, handle: ContextHandle) -> None:
        self.run = run
        self.journal = journal
        self.handle = handle
        """Held so that every segment defines the context."""
        self.context = handle.context
        self.number = handle.number
        self.identity = fmt.slot_identity(fmt.SLOT_ATTEMPT, handle.number)
        """Word 0 of the slot of a first attempt that is not speculative."""
        self.check = self.identity ^ fmt.SLOT_SALT
        self.success = fmt.head_word(Kind.ATTEMPT, _SUCCESS, number=handle.number)
        """First word of the record of a success, without flags."""


current_run: ContextVar[Run | None] = ContextVar("mppobs_run", default=None)
