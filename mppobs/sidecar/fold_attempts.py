"""
Folding attempts, a block at a time: what each stage and job did, what it cost, which shards it decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.cost.attribution import KINDS, MAX_AMOUNT, byte_rate, lane_rate
from mppobs.cost.prices import PriceList
from mppobs.journal.format import (
    ATTEMPT_CODES,
    FLAG_HAS_DELAY,
    FLAG_NO_CPU,
    FLAG_SPECULATIVE,
    REASON_CODES,
)
from mppobs.model import AttemptOutcome, CostKind, Reason, ShardOutcome, WorkerInfo
from mppobs.sidecar.aggregates import StageTotals
from mppobs.sidecar.fold_columns import Batch, Mask, Numbers, distinct, exact_sum
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.fold_labels import Labels
from mppobs.sidecar.fold_rows import (
    Index,
    Touched,
    as_run,
    exemplar,
    mark_attempts,
    observe,
    observe_commits,
    touch,
    where,
)
from mppobs.sidecar.running import RunningJob
from mppobs.sidecar.tables import COMMITTED, FAILED, LOST, MAX_ERRORS, PENDING

SUCCESS: Final = ATTEMPT_CODES[AttemptOutcome.SUCCESS]
_OUTCOMES: Final = tuple(AttemptOutcome)
_COSTS: Final = tuple(CostKind)
_KIND_OF: Final = np.array([0, *(_COSTS.index(KINDS[outcome]) for outcome in _OUTCOMES)], np.uint8)
"""What the time of an attempt was for, as an index of `_COSTS`, by outcome code."""
_DEAD: Final = np.array([REASON_CODES[each] for each in (Reason.WORKER_LOST, Reason.OOM_KILLED, Reason.NODE_LOST)])
_NO_START: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one group, in numbers."""

    outcome: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    number: Numbers
    start: Numbers
    duration: Numbers
    read: Numbers
    written: Numbers

    @classmethod
    def of(cls, batch: Batch) -> Attempts:
        """Return the columns that every step needs."""
        return cls(
            outcome=batch.code,
            flags=batch.flags,
            number=batch.attempt,
            start=batch.value(3),
            duration=batch.value(4),
            read=batch.value(8),
            written=batch.value(9),
        )

    @property
    def speculative(self) -> Mask:
        """Return which attempts are speculative."""
        return (self.flags & FLAG_SPECULATIVE).astype(np.bool_)


class AttemptFold:
    """Folds groups of attempts into jobs and totals."""

    def __init__(self, labels: Labels, prices: PriceList) -> None:
        self._labels = labels
        self._prices = prices
        self._byte_rate = byte_rate(prices.shuffle_usd_per_gb)
        self.unpriced: set[str] = set()
        """Node types that have run attempts and have no price; empty for those that named none."""

    def fold(self, group: Group, now_ns: int) -> None:
        """Fold attempts of one stage of one job."""
        attempts = Attempts.of(group.batch)
        totals = self._labels.stage(group.stage.key)
        touched = touch(group)
        _count(group, attempts, totals)
        self._delays(group, now_ns)
        succeeded, deciding = touched.first_where(attempts.outcome == SUCCESS)
        again = group.stage.table.succeeded[as_run(touched.rows[succeeded])]
        if again.any():
            succeeded, deciding = succeeded[~again], deciding[~again]
        self._cost(group, attempts, deciding)
        _update(group, attempts, touched, succeeded, deciding)
        if not group.job.coordinated:
            self._decide(group, attempts, totals, touched.rows[succeeded], deciding, now_ns)

    def lane_rate(self, worker: WorkerInfo) -> float:
        """Return what a nanosecond of one lane of a worker costs, in picodollars; 0 where it is not priced."""
        price = self._prices.usd_per_hour(worker.node_type, spot=worker.spot)
        if price is None:
            self.unpriced.add(worker.node_type)
            return 0.0
        return lane_rate(price, worker.lanes)

    def _delays(self, group: Group, now_ns: int) -> None:
        """Count the delays from assignment to start, where they are known."""
        known = np.flatnonzero(group.batch.flags & FLAG_HAS_DELAY)
        if len(known) == 0:
            return
        delays = group.batch.value(6)[known]
        histogram = self._labels.pipeline(group.job.pipeline).delays
        for bucket, place in observe(histogram, delays, known):
            shard = str(group.stage.table.name_of(int(group.batch.keys[known[place]])))
            histogram.exemplars[bucket] = exemplar(group.job, shard, int(delays[place]), now_ns)

    def _cost(self, group: Group, attempts: Attempts, deciding: Numbers) -> None:
        """Attribute what the attempts cost; `deciding` are the first successes of their shards."""
        cost = np.empty(len(attempts.duration), np.int64)
        for source, run in group.batch.runs():
            cost[run] = amounts(attempts.duration[run], self.lane_rate(group.batch.sources[source].tables.info))
        counts = [self._labels.pipeline(group.job.pipeline).cost_pusd, group.job.cost_pusd]
        for kind, chosen in _by_kind(attempts, deciding):
            total = exact_sum(cost[chosen])
            for count in counts:
                count[kind] += total
        if self._byte_rate:
            total = exact_sum(amounts(attempts.read + attempts.written, self._byte_rate))
            for count in counts:
                count[CostKind.USEFUL] += total

    def _decide(
        self, group: Group, attempts: Attempts, totals: StageTotals, rows: Numbers, deciding: Numbers, now_ns: int
    ) -> None:
        """Commit the shards that succeeded for the first time: a job without coordinator has no other sign."""
        table = group.stage.table
        pending = table.state[as_run(rows)] == PENDING
        if not pending.all():
            rows, deciding = rows[pending], deciding[pending]
        at, chosen = as_run(rows), as_run(deciding)
        table.state[at] = COMMITTED
        table.decided[at] = attempts.start[chosen] + attempts.duration[chosen]
        table.winner[at] = attempts.number[chosen]
        group.stage.shards[ShardOutcome.COMMITTED] += len(rows)
        totals.shards[ShardOutcome.COMMITTED] += len(rows)
        observe_commits(group, totals, rows, deciding, now_ns)


def _update(group: Group, attempts: Attempts, touched: Touched, succeeded: Numbers, deciding: Numbers) -> None:
    """Bring the shards of attempts up to date; `deciding` are the first successes, of the rows at `succeeded`."""
    table, at = group.stage.table, touched.at
    group.stage.recorded += mark_attempts(table, touched, attempts.number, dispatched=False)[1]
    table.attempts[at] = np.minimum(table.attempts[at] + touched.counts, 0xFFFF)
    start = attempts.start
    if not (group.job.coordinated or touched.distinct):
        start = _up_to(start, touched, succeeded, deciding)
    earliest = touched.by_row(start, np.minimum)
    before, state = table.first_start[at], table.state[at]
    earliest = np.minimum(earliest, np.where(before == 0, _NO_START, before))
    table.first_start[at] = np.where(state == PENDING, earliest, before)
    last = touched.last()
    rows, newest = where((state != FAILED) & (state != LOST), touched.rows, last)
    table.last_outcome[rows] = attempts.outcome[newest]
    table.reason[rows] = group.batch.detail[newest]
    table.error[rows] = error_numbers(group, newest)
    shown = last.copy()
    shown[succeeded] = deciding
    rows, shown_at = where(~table.succeeded[at], touched.rows, shown)
    _show(group, attempts, rows, shown_at)
    table.succeeded[as_run(touched.rows[succeeded])] = True


def _by_kind(attempts: Attempts, deciding: Numbers) -> Iterator[tuple[CostKind, Mask | slice]]:
    """Yield what the time of attempts was for, and of which; `deciding` are the first successes of their shards."""
    if len(deciding) == len(attempts.outcome):
        yield CostKind.USEFUL, slice(None)
        return
    kinds = _KIND_OF[attempts.outcome]
    kinds[attempts.outcome == SUCCESS] = _COSTS.index(CostKind.SPECULATION)
    kinds[deciding] = _COSTS.index(CostKind.USEFUL)
    for kind in np.flatnonzero(np.bincount(kinds)).tolist():
        yield _COSTS[kind], kinds == kind


def amounts(quantities: Numbers, rate: float) -> Numbers:
    """Return picodollars for each quantity: `mppobs.cost.attribution.amount`, many at a time."""
    rounded: Numbers = np.minimum(np.rint(quantities * rate), MAX_AMOUNT).astype(np.int64)
    return rounded


def died(batch: Batch) -> Numbers:
    """Return the positions of attempts that died with their worker."""
    errors = np.flatnonzero(batch.code == ATTEMPT_CODES[AttemptOutcome.ERROR])
    return errors if len(errors) == 0 else errors[np.isin(batch.detail[errors], _DEAD)]


def _count(group: Group, attempts: Attempts, totals: StageTotals) -> None:
    """Add the attempts to the figures of their stage, of the job and of all time."""
    stage, job = group.stage, group.job
    has_cpu = group.batch.flags & FLAG_NO_CPU == 0
    wall = exact_sum(attempts.duration)
    whole = bool(has_cpu.all())
    cpu_wall = wall if whole else exact_sum(attempts.duration[has_cpu])
    cpu = group.batch.value(5)
    sums = {
        "retries": int(np.count_nonzero((attempts.number > 0) & ~attempts.speculative)),
        "wall_ns": wall,
        "cpu_wall_ns": cpu_wall,
        "cpu_ns": exact_sum(cpu if whole else cpu[has_cpu]),
        "shuffle_read": exact_sum(attempts.read),
        "shuffle_written": exact_sum(attempts.written),
        "rows": exact_sum(group.batch.value(7)),
    }
    for name, amount in sums.items():
        setattr(stage, name, getattr(stage, name) + amount)
        setattr(totals, name, getattr(totals, name) + amount)
    for code, count in enumerate(np.bincount(attempts.outcome, minlength=8).tolist()[1:]):
        stage.attempts[_OUTCOMES[code]] += count
        totals.attempts[_OUTCOMES[code]] += count
    first, last = int(attempts.start.min()), int((attempts.start + attempts.duration).max())
    stage.first_start_ns = min(stage.first_start_ns or first, first)
    stage.last_end_ns = max(stage.last_end_ns, last)
    job.last_end_ns = max(job.last_end_ns, last)
    if job.implicit:
        job.start_ns = min(job.start_ns, first)


def _up_to(start: Numbers, touched: Touched, succeeded: Numbers, deciding: Numbers) -> Numbers:
    """Return the starts, but of attempts folded after the one that decided their shard one that never counts."""
    decided_at = np.full(len(touched.rows), len(start), np.int64)
    decided_at[succeeded] = deciding
    after = np.empty(len(start), np.bool_)
    after[touched.order] = touched.order > np.repeat(decided_at, touched.counts)
    return np.where(after, _NO_START, start)


def _show(group: Group, attempts: Attempts, rows: Index, positions: Index) -> None:
    """Let attempts stand for their shards: who ran it, how long, and what went through."""
    table, batch = group.stage.table, group.batch
    table.wall[rows] = attempts.duration[positions]
    cpu = batch.value(5)[positions].astype(np.float32)
    cpu[attempts.flags[positions] & FLAG_NO_CPU > 0] = np.nan
    table.cpu[rows] = cpu
    table.read[rows] = attempts.read[positions]
    table.written[rows] = attempts.written[positions]
    workers = [(run, worker_number(group.job, batch.sources[source].tables.info)) for source, run in batch.runs()]
    if len(workers) == 1:
        table.worker[rows] = workers[0][1]
        return
    numbers = np.empty(len(batch), np.uint32)
    for run, number in workers:
        numbers[run] = number
    table.worker[rows] = numbers[positions]


def worker_number(job: RunningJob, worker: WorkerInfo) -> int:
    """Return the number of a worker in a job's list, added where it is new; 0 is nobody."""
    number = job.worker_numbers.get(worker.worker)
    if number is None:
        number = job.worker_numbers[worker.worker] = len(job.workers) + 1
        job.workers.append(worker)
    return number


def error_numbers(group: Group, positions: Index) -> NDArray[np.uint8]:
    """Return the error types of the records at some positions as numbers in their job's list."""
    texts = group.batch.text()[positions]
    numbers = np.zeros(len(texts), np.uint8)
    named = np.flatnonzero(texts)
    if len(named):
        codes = group.batch.source[positions][named].astype(np.int64) << 32 | texts[named]
        for code in distinct(codes):
            text = group.batch.sources[code >> 32].tables.text(code & 0xFFFFFFFF)
            numbers[named[codes == code]] = _error_number(group.job, text)
    return numbers


def _error_number(job: RunningJob, text: str) -> int:
    """Return the number of an error type, 0 (none) where there are too many to keep apart."""
    if text in job.errors:
        return job.errors.index(text)
    if len(job.errors) >= MAX_ERRORS:
        return 0
    job.errors.append(text)
    return len(job.errors) - 1
