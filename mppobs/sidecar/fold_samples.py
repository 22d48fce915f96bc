"""
What workers say of themselves on a timer, and what follows from two such samples: idle time and throttling.

Idle time is what a dedicated worker's lanes did not run between two samples of the same journal, by the records in
between. Throttling is counted by the kernel for a whole cgroup, which several processes may share: it counts once
for all workers of one node with the same memory limit, as the increase over the highest figure seen.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import numpy as np

from mppobs.cost.attribution import amount, idle_ns, lane_rate
from mppobs.cost.prices import PriceList
from mppobs.journal.format import Kind
from mppobs.model import AttemptOutcome, Context, CostKind, DropRecord, SampleRecord
from mppobs.sidecar.fold_columns import Mask, Numbers, exact_sum
from mppobs.sidecar.fold_control import NonsenseError, check_time, context_of
from mppobs.sidecar.fold_jobs import JobBook
from mppobs.sidecar.fold_journals import JournalState, Source
from mppobs.sidecar.fold_labels import Labels

MAX_GAP_NS: Final = 3600 * 10**9
"""Samples come every few seconds; what happened in a longer gap nobody knows, so it is nobody's idle time."""
_CGROUPS: Final = 10_000
_MAX_TOTAL_NS: Final = 1 << 62
"""146 years, of all lanes together."""


class Cgroup(NamedTuple):
    """What several workers may share, as far as their records tell."""

    cluster: str
    node: str
    limit: int


class Throttling(NamedTuple):
    """The newest figure of a cgroup."""

    time_ns: int
    throttled_ns: int


class SampleFold:
    """Folds samples and drops into the totals of pipelines."""

    def __init__(self, labels: Labels, book: JobBook, prices: PriceList) -> None:
        self.cgroups: OrderedDict[Cgroup, Throttling] = OrderedDict()
        self._labels = labels
        self._book = book
        self._prices = prices

    def sample(self, source: Source, record: SampleRecord, ran_ns: int, now_ns: int) -> None:
        """Fold a sample; `ran_ns` is the time of the attempts that ended since the one before it."""
        context = context_of(source, record.context_id) if record.context_id else None
        check_time(record.time_ns, now_ns)
        spans = (record.cpu_ns, record.throttled_ns, record.in_flight_ns)
        if max(spans) > _MAX_TOTAL_NS:
            raise NonsenseError("absurd_duration")
        if max(record.rss, record.peak_rss, record.memory_limit) > 1 << 60:
            raise NonsenseError("absurd_amount")
        self._labels.folded("sample")
        state = source.state
        context = context or state.sampled
        if context is not None:
            self._idle(source, record, context, ran_ns)
            self._throttling(source, record, context)
            job = self._book.find(context)
            if job is not None:
                job.last_record_ns = now_ns
        state.sample, state.sampled = record, context

    def drop(self, state: JournalState, record: DropRecord, now_ns: int) -> None:
        """Count what a journal could not hold, as the increase over what it said before."""
        check_time(record.time_ns, now_ns)
        self._labels.folded("drop")
        before = state.dropped or DropRecord(0)
        most = {each: max(record.attempts.get(each, 0), before.attempts.get(each, 0)) for each in AttemptOutcome}
        state.dropped = DropRecord(record.time_ns, most, max(record.other, before.other))
        dropped = self._labels.own.dropped
        more = sum(most.values()) - sum(before.attempts.values())
        dropped["attempt"] = dropped.get("attempt", 0) + more
        dropped["other"] = dropped.get("other", 0) + state.dropped.other - before.other

    def _idle(self, source: Source, record: SampleRecord, context: Context, ran_ns: int) -> None:
        """Charge the time in which a dedicated worker ran nothing."""
        before, worker = source.state.sample, source.tables.info
        if before is None or not worker.dedicated or not 0 < record.time_ns - before.time_ns <= MAX_GAP_NS:
            return
        ran = ran_ns + record.in_flight_ns - before.in_flight_ns
        idle = idle_ns(worker.lanes, record.time_ns - before.time_ns, ran)
        price = self._prices.usd_per_hour(worker.node_type, spot=worker.spot)
        cost = amount(idle, lane_rate(price or 0.0, worker.lanes))
        if cost:
            self._labels.pipeline(self._labels.pipeline_key(context)).cost_pusd[CostKind.IDLE] += cost
            job = self._book.find(context)
            if job is not None:
                job.cost_pusd[CostKind.IDLE] += cost

    def _throttling(self, source: Source, record: SampleRecord, context: Context) -> None:
        """Count by how much a cgroup was throttled since any of its workers was sampled."""
        group = Cgroup(context.cluster, source.tables.info.node, record.memory_limit)
        before = self.cgroups.get(group)
        if before is not None and record.throttled_ns > before.throttled_ns:
            totals = self._labels.pipeline(self._labels.pipeline_key(context))
            totals.throttled_ns += record.throttled_ns - before.throttled_ns
        if before is None or record.throttled_ns > before.throttled_ns or record.time_ns > before.time_ns:
            # A lower figure at a later time is a new cgroup of the same name, which begins anew.
            self.cgroups[group] = Throttling(record.time_ns, record.throttled_ns)
            self.cgroups.move_to_end(group)
            if len(self.cgroups) > _CGROUPS:
                self.cgroups.popitem(last=False)


class RanBetween:
    """How long attempts ran between the samples of a block, by their places in the file."""

    def __init__(self, source: Source, nonsense: Mask | None) -> None:
        """`nonsense` says which of the block's attempts do not count, `None` that all do."""
        self._state = source.state
        self._places = np.zeros(0, np.int64)
        if source.tables.info.dedicated:
            self._places = np.flatnonzero(source.kinds == Kind.ATTEMPT)
            if nonsense is not None:
                self._places = self._places[~nonsense]
        self._durations: Numbers = (source.words[self._places, 4] - np.uint64(1)).view(np.int64)
        self._done = 0

    def until(self, row: int) -> int:
        """Return the time of attempts since the last call, or since the sample before this block, up to a row."""
        end = int(np.searchsorted(self._places, row))
        ran = self._state.ran_ns + exact_sum(self._durations[self._done : end])
        self._done, self._state.ran_ns = end, 0
        return ran

    def close(self) -> None:
        """Carry what ran since the last sample over to the next block."""
        self._state.ran_ns += exact_sum(self._durations[self._done :])
