"""
Which attempts of a decided job get spans: tail sampling, from the records, when all is known.

Kept, in this order, until the job's cap is reached: attempts that failed, were killed or timed out; those of retried,
preempted and superseded work; those of slow shards, the slowest first; and then a sample of the ordinary ones, the
same shards in every run of a pipeline, so that runs can be compared.

A shard is *slow* past the smaller of its stage's p99 and 3 × median, but not below 1.5 × median: in a stage without
a tail one shard in a hundred is past the p99 and nothing is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mppobs.journal.format import ATTEMPT_CODES
from mppobs.model import AttemptOutcome, AttemptRecord, Reason, WorkerInfo
from mppobs.sidecar.kept import KeptAttempt, sample_ranks
from mppobs.sidecar.running import DecidedJob, JobStage
from mppobs.sidecar.tables import COMMITTED, FAILED, LOST, MAX_BIT, ShardColumns

SLOW_OVER_MEDIAN: Final = 3.0
SLOW_QUANTILE: Final = 0.99
SLOW_FLOOR: Final = 1.5
"""Times the median, below which nothing is slow."""

_REASONS: Final = tuple(Reason)
_OUTCOMES: Final = {code: outcome for outcome, code in ATTEMPT_CODES.items()}
_BAD: Final = frozenset({AttemptOutcome.FAILURE, AttemptOutcome.ERROR, AttemptOutcome.TIMEOUT})


class Why(IntEnum):
    """Why an attempt has a span, the most important first."""

    FAILED = 0
    REPEATED = 1
    """It is one of several attempts at its shard, or made way for another."""
    SLOW = 2
    SAMPLED = 3


class Identity(NamedTuple):
    """What no other attempt of a job has: its stage, the row of its shard in the stage's table, and its number."""

    stage: str
    row: int
    number: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """An attempt that is to have a span."""

    identity: Identity
    why: Why
    outcome: AttemptOutcome
    start_ns: int
    end_ns: int
    worker: WorkerInfo | None
    reason: Reason = Reason.NONE
    error_type: str = ""
    record: AttemptRecord | None = None
    """Where the fold kept it; of the others the table of shards knows the times, the outcome and the worker."""


@dataclass(frozen=True, slots=True)
class SpanSettings:
    """How many spans a job may have."""

    max_spans: int = 1000
    """All of a job's, with those of the job, its stages and its shards."""
    sample: int = 100
    """Ordinary attempts, beside those that stand out."""


def choose(job: DecidedJob, settings: SpanSettings) -> list[Chosen]:
    """Return the attempts of a job that are worth a span, the most important first, each once."""
    kept = _kept(job)
    why = {identity: _notable(each.record) for identity, each in kept.items() if _is_notable(each.record)}
    order = list(why)
    for name, stage in job.stages.items():
        for identity, reason in _from_table(name, stage):
            if identity not in why:
                why[identity] = reason
                order.append(identity)
    drawn = _sample(job, settings.sample + len(why)) if settings.sample else []
    ordinary = [identity for identity in drawn if identity not in why][: settings.sample]
    why.update(dict.fromkeys(ordinary, Why.SAMPLED))
    order += ordinary
    order.sort(key=why.__getitem__)
    return [_chosen(job, identity, why[identity], kept.get(identity)) for identity in order]


def slow_threshold(durations: NDArray[np.int64]) -> float:
    """
    Return the duration past which a shard is slow, in the unit of the durations; infinite for none.

    >>> slow_threshold(np.full(100, 10)), slow_threshold(np.array([10] * 95 + [100] * 5))
    (15.0, 30.0)
    """
    if len(durations) == 0:
        return float("inf")
    median, p99 = (float(value) for value in np.quantile(durations, (0.5, SLOW_QUANTILE)))
    return max(min(p99, SLOW_OVER_MEDIAN * median), SLOW_FLOOR * median)


def _kept(job: DecidedJob) -> dict[Identity, KeptAttempt]:
    """Return the attempts whose records the fold kept; of two records of one attempt, the first."""
    found: dict[Identity, KeptAttempt] = {}
    for name, stage in job.stages.items():
        mine = [each for each in job.kept if each.stage == name]
        rows = stage.table.index.find(np.array([each.shard_key for each in mine], np.uint64))
        for each, row in zip(mine, rows.tolist(), strict=True):
            found.setdefault(Identity(name, row, each.record.attempt), each)
    return found


def _is_notable(record: AttemptRecord) -> bool:
    return record.outcome is not AttemptOutcome.SUCCESS or record.attempt > 0 or record.speculative


def _notable(record: AttemptRecord) -> Why:
    return Why.FAILED if record.outcome in _BAD else Why.REPEATED


def _from_table(name: str, stage: JobStage) -> Iterator[tuple[Identity, Why]]:
    """
    Yield the attempts that vanished, and the newest or winning one of every shard that failed, was tried more than
    once, or was slow.
    """
    columns = stage.columns()
    tried = (columns.attempts > 0) & (columns.first_start > 0)
    committed = tried & (columns.state == COMMITTED)
    took = np.where(committed, columns.decided - columns.first_start, 0)
    repeated = committed & (columns.attempts > 1)
    slow = committed & ~repeated & (took > slow_threshold(columns.durations()))
    slowest = np.flatnonzero(slow)[np.argsort(-took[slow], kind="stable")]
    missing = columns.dispatched & ~columns.own
    for row in np.flatnonzero(missing).tolist():
        for number in range(int(missing[row]).bit_length()):
            if int(missing[row]) >> number & 1:
                yield Identity(name, row, number), Why.FAILED
    for row in np.flatnonzero(tried & np.isin(columns.state, (FAILED, LOST))).tolist():
        yield Identity(name, row, max(0, int(columns.own[row]).bit_length() - 1)), Why.FAILED
    for rows, why in ((np.flatnonzero(repeated), Why.REPEATED), (slowest, Why.SLOW)):
        for row in rows.tolist():
            yield Identity(name, row, int(columns.winner[row])), why


def _sample(job: DecidedJob, count: int) -> list[Identity]:
    """Return the winning attempts of `count` shards that were tried once, over all stages, as the fold draws them."""
    drawn: list[tuple[int, Identity]] = []
    for name, stage in job.stages.items():
        columns = stage.columns()
        rows = np.flatnonzero((columns.state == COMMITTED) & (columns.attempts == 1) & (columns.first_start > 0))
        numbers = columns.winner[rows].astype(np.int64)
        ranks = sample_ranks(name, stage.table.index.keys()[rows], numbers)
        highest = np.argpartition(ranks, -count)[-count:] if count < len(ranks) else np.arange(len(ranks))
        drawn += [(int(ranks[at]), Identity(name, int(rows[at]), int(numbers[at]))) for at in highest.tolist()]
    drawn.sort(reverse=True)
    return [identity for _, identity in drawn[:count]]


def _chosen(job: DecidedJob, identity: Identity, why: Why, kept: KeptAttempt | None) -> Chosen:
    """Return an attempt with what is known of it: from its record, or else from the table of shards."""
    if kept is None:
        return _from_row(job, identity, why, job.stages[identity.stage].columns())
    record = kept.record
    end_ns = record.start_ns + record.duration_ns
    return Chosen(
        identity, why, record.outcome, record.start_ns, end_ns, kept.worker, record.reason, record.error_type, record
    )


def _from_row(job: DecidedJob, identity: Identity, why: Why, columns: ShardColumns) -> Chosen:
    row = identity.row
    if int(columns.dispatched[row] & ~columns.own[row]) >> min(identity.number, MAX_BIT) & 1:
        # It was handed out and never heard of: all that is known is when that was given up.
        at = int(columns.decided[row])
        return Chosen(identity, why, AttemptOutcome.ERROR, at, at, None, Reason.NODE_LOST)
    first, wall = int(columns.first_start[row]), int(columns.wall[row])
    start = first if columns.attempts[row] == 1 else max(first, int(columns.decided[row]) - wall)
    number = int(columns.worker[row])
    worker = job.workers[number - 1] if number else None
    if columns.state[row] == COMMITTED:
        return Chosen(identity, why, AttemptOutcome.SUCCESS, start, start + wall, worker)
    outcome = _OUTCOMES.get(int(columns.last_outcome[row]), AttemptOutcome.ERROR)
    reason, error = _REASONS[int(columns.reason[row])], job.errors[int(columns.error[row])]
    return Chosen(identity, why, outcome, start, start + wall, worker, reason, error)
