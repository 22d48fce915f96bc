"""What one worker's own journal adds up to, for a worker that is scraped directly: a small fold of its records."""

from __future__ import annotations

from collections import Counter
from typing import Final

from mppobs.catalog.metrics import DELAY_BUCKETS, OTHER
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import Words, decode
from mppobs.journal.format import Kind
from mppobs.model import (
    AttemptRecord,
    Context,
    ContextRecord,
    DetailKind,
    DetailRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    SampleRecord,
)

MAX_SERIES: Final = 500
"""How many series a family with names of the user's own may have before further ones go into one."""

Labels = tuple[str, ...]
"""Values of a metric's labels, in the catalogue's order."""


class LocalTotals:
    """Counters of one process over all the journals that it wrote. Feed it records in the order of their journal."""

    def __init__(self) -> None:
        self.outcomes: Counter[Labels] = Counter()
        self.retries: Counter[Labels] = Counter()
        self.cpu_ns: Counter[Labels] = Counter()
        self.cpu_wall_ns: Counter[Labels] = Counter()
        """Wall time of the attempts whose CPU time is counted."""
        self.shuffle: Counter[Labels] = Counter()
        self.activity_ns: Counter[Labels] = Counter()
        self.network: Counter[Labels] = Counter()
        self.throttled: Counter[Labels] = Counter()
        self.jobs: Counter[Labels] = Counter()
        self.delays: dict[Labels, tuple[list[int], int]] = {}
        """Counts by bucket of `DELAY_BUCKETS`, the last of what passes them all, and the sum in nanoseconds."""
        self.memory_ratio: float | None = None
        self._texts: dict[int, str] = {0: ""}
        self._contexts: dict[int, Context] = {}

    def begin_journal(self) -> None:
        """Forget the numbers of the journal before: those of the next are its own."""
        self._texts = {0: ""}
        self._contexts = {}

    def add(self, data: bytes) -> None:
        """Add complete records of the journal at hand."""
        rows = list(fmt.RECORD.iter_unpack(data))
        for place, words in enumerate(rows):
            kind = words[0] & 0xFF
            if kind == Kind.TEXT:
                self._add_text(rows, place)
            elif kind in _READ:
                self._add(words)

    def _add_text(self, rows: list[tuple[int, ...]], place: int) -> None:
        first = rows[place]
        more = rows[place + 1 : place + 1 + (first[0] >> 16 & 0xFF)]
        if first[0] >> 8 & 0xFF == fmt.TextKind.INTERNED:
            words = [*first[3:], *(word for row in more for word in row[1:])]
            self._texts[first[0] >> 32] = fmt.text_of(words, first[1] - 1)

    def _add(self, words: Words) -> None:
        record = decode(words, self._text)
        if isinstance(record, ContextRecord):
            self._contexts[record.context_id] = record.context
            return
        if isinstance(record, SampleRecord):
            if record.memory_limit:
                self.memory_ratio = record.peak_rss / record.memory_limit
            return
        context = self._contexts.get(words[0] >> 32)
        match record:
            case AttemptRecord() if context is not None:
                self._add_attempt(record, context)
            case DetailRecord() if context is not None:
                self._add_detail(record, context)
            case JobRecord(event=JobEvent.END) if context is not None:
                self.jobs[*_pipeline(context), str(record.outcome or JobOutcome.ERROR)] += 1

    def _text(self, number: int) -> str:
        try:
            return self._texts[number]
        except KeyError:
            raise JournalError(f"text {number} is not defined") from None

    def _add_attempt(self, record: AttemptRecord, context: Context) -> None:
        pipeline = _pipeline(context)
        stage = (*pipeline, context.stage)
        self.outcomes[*stage, str(record.outcome)] += 1
        self.retries[stage] += record.attempt > 0 and not record.speculative
        if record.cpu_ns is not None:
            self.cpu_ns[stage] += record.cpu_ns
            self.cpu_wall_ns[stage] += record.duration_ns
        self.shuffle[*stage, "read"] += record.shuffle_read
        self.shuffle[*stage, "written"] += record.shuffle_written
        self.network[*pipeline, _UNSPECIFIED] += record.network_errors
        self.throttled[*pipeline, _UNSPECIFIED] += record.storage_throttled
        if record.delay_ns is not None:
            self._observe_delay(pipeline, record.delay_ns)

    def _observe_delay(self, pipeline: Labels, delay_ns: int) -> None:
        counts, total = self.delays.get(pipeline) or ([0] * (len(DELAY_BUCKETS) + 1), 0)
        place = next((i for i, bound in enumerate(DELAY_BUCKETS) if delay_ns <= bound * 1e9), len(DELAY_BUCKETS))
        counts[place] += 1
        self.delays[pipeline] = counts, total + delay_ns

    def _add_detail(self, record: DetailRecord, context: Context) -> None:
        pipeline = _pipeline(context)
        for name, amount in record.amounts:
            if record.what is DetailKind.ACTIVITY:
                stage = (*pipeline, context.stage)
                self.activity_ns[*stage, _capped(name, len(self.activity_ns))] += amount
            else:
                counts = self.network if record.what is DetailKind.NETWORK_ERROR else self.throttled
                counts[*pipeline, _capped(name, len(counts))] += amount
                counts[*pipeline, _UNSPECIFIED] -= amount  # the attempt's record, which comes next, adds the whole


def _capped(name: str, series: int) -> str:
    return name if series < MAX_SERIES else OTHER


_UNSPECIFIED: Final = "unspecified"
_READ: Final = frozenset({Kind.CONTEXT, Kind.ATTEMPT, Kind.DETAIL, Kind.JOB, Kind.SAMPLE})


def _pipeline(context: Context) -> Labels:
    return context.cluster, context.tenant, context.pipeline
