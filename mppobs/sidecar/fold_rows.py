"""
The rows of a table that a group of records touches, and the records of each row in order: what the folds of
dispatches, attempts and commits have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mppobs.sidecar.aggregates import Exemplar, Histogram, StageTotals
from mppobs.sidecar.fold_columns import Mask, Numbers, exact_sum
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.fold_names import name_rows
from mppobs.sidecar.running import RunningJob
from mppobs.sidecar.tables import MAX_BIT, ShardTable
from mppobs.trace_ids import trace_id

_SHIFT: Final = np.int64(24)
"""Bits of a packed number that hold a position in a batch."""
_POSITION: Final = np.int64((1 << 24) - 1)

Number = TypeVar("Number", bound=np.generic)


Index: TypeAlias = slice | Numbers
"""Rows or positions: all of a run as a slice, which copies nothing, or any as numbers."""


@dataclass(frozen=True, slots=True)
class Touched:
    """The rows that some records touch, each once, and the records row by row, in order within each."""

    rows: Numbers
    order: Numbers
    """Positions of the records, those of the first row first."""
    starts: Numbers
    """Where in `order` the records of each row begin."""
    counts: Numbers
    """How many records each row has."""
    at: Index
    """All rows."""

    @property
    def distinct(self) -> bool:
        """Return whether every row has one record; then `order` is that of the records."""
        return len(self.rows) == len(self.order)

    def first_where(self, mask: Mask) -> tuple[Numbers, Numbers]:
        """Return which rows have a record that is meant, as places in `rows`, and the position of the first of each."""
        if self.distinct:
            found = np.flatnonzero(mask)
            return found, found
        found = np.flatnonzero(mask[self.order])
        places = np.searchsorted(self.starts, found, side="right") - 1
        new = np.ones(len(places), np.bool_)
        new[1:] = places[1:] != places[:-1]
        return places[new], self.order[found[new]]

    def last(self) -> Numbers:
        """Return the position of each row's last record."""
        last: Numbers = self.order if self.distinct else self.order[self.starts + self.counts - 1]
        return last

    def by_row(self, column: NDArray[Number], combine: np.ufunc) -> NDArray[Number]:
        """Return for each row what its records have in a column, combined."""
        if self.distinct:
            return column
        combined: NDArray[Number] = combine.reduceat(column[self.order], self.starts)
        return combined


def as_run(numbers: Numbers) -> Index:
    """
    Return numbers as a slice where they are one run upwards, as rows are that came in order.

    >>> as_run(np.array([4, 5, 6])), as_run(np.array([4, 6, 5])).tolist()
    (slice(4, 7, None), [4, 6, 5])
    """
    if len(numbers) == 0 or numbers[-1] - numbers[0] != len(numbers) - 1:
        return numbers
    if not (numbers[1:] > numbers[:-1]).all():
        return numbers
    return slice(int(numbers[0]), int(numbers[-1]) + 1)


def where(mask: Mask, *numbers: Numbers) -> tuple[Index, ...]:
    """Return of each list of numbers those that are meant: usually all."""
    if mask.all():
        return tuple(as_run(each) for each in numbers)
    return tuple(each[mask] for each in numbers)


def touch(group: Group) -> Touched:
    """Return the rows of the group's shards, made where they are new."""
    keys, table = group.batch.keys, group.stage.table
    rows, missing = table.rows(keys)
    if len(missing):
        sources = group.batch.sources
        name_rows(table, keys, rows, missing, ((sources[source], run) for source, run in group.batch.runs()))
    places = np.arange(len(rows))
    if table.are_distinct(rows):
        return Touched(rows, places, places, np.ones(len(rows), np.int64), as_run(rows))
    packed = rows << _SHIFT
    packed |= places
    packed.sort()
    order = packed & _POSITION
    packed >>= _SHIFT
    edges = np.ones(len(packed), np.bool_)
    edges[1:] = packed[1:] != packed[:-1]
    starts = np.flatnonzero(edges)
    rows = packed[starts]
    return Touched(rows, order, starts, np.diff(starts, append=len(packed)), as_run(rows))


def mark_attempts(table: ShardTable, touched: Touched, attempt: Numbers, *, dispatched: bool) -> tuple[int, int]:
    """
    Set the bits of attempts that were dispatched, or that have a record.

    Returns how many bits are new, and how many attempts now have both marks that had only one before.
    """
    at = touched.at
    bits = np.uint32(1) << np.minimum(attempt, MAX_BIT).astype(np.uint32)
    mine, other = (table.dispatched, table.own) if dispatched else (table.own, table.dispatched)
    before = mine[at]
    news: NDArray[np.uint32] = touched.by_row(bits, np.bitwise_or) & ~before
    mine[at] = before | news
    return int(np.bitwise_count(news).sum()), int(np.bitwise_count(news & other[at]).sum())


def observe_commits(group: Group, totals: StageTotals, rows: Numbers, positions: Numbers, now_ns: int) -> None:
    """Count the durations of newly committed shards: into the histogram and the sketch, with exemplars."""
    table = group.stage.table
    known = table.first_start[as_run(rows)] > 0
    if not known.all():
        rows, positions = rows[known], positions[known]
    if len(rows) == 0:
        return
    at = as_run(rows)
    durations: NDArray[np.int64] = np.maximum(table.decided[at] - table.first_start[at], 0)
    totals.sketch.add(durations, now_ns)
    for bucket, place in observe(totals.durations, durations, positions):
        shard = str(group.stage.table.name_of(int(group.batch.keys[positions[place]])))
        totals.durations.exemplars[bucket] = exemplar(group.job, shard, int(durations[place]), now_ns)


def observe(histogram: Histogram, values_ns: Numbers, positions: Numbers) -> list[tuple[int, int]]:
    """Count durations in a histogram; return for each bucket that got any the place of the one that came last."""
    seconds = values_ns / 1e9
    buckets = np.zeros(len(seconds), np.uint8)
    for bound in histogram.bounds:
        buckets += seconds > bound
    histogram.sum_ns += exact_sum(values_ns)
    for bucket, count in enumerate(np.bincount(buckets).tolist()):
        histogram.counts[bucket] += count
    in_order = isinstance(as_run(positions), slice)
    places = np.arange(len(positions)) if in_order else np.argsort(positions)
    newest = np.full(len(histogram.counts), -1, np.int64)
    newest[buckets[places]] = places  # of several with the same bucket the last one stays
    return [(bucket, place) for bucket, place in enumerate(newest.tolist()) if place >= 0]


def exemplar(job: RunningJob, shard: str, value_ns: int, now_ns: int) -> Exemplar:
    """Return one observation of a job's shard as an exemplar."""
    return Exemplar(job.key.job_id, shard, trace_id(job.key), value_ns / 1e9, now_ns)
