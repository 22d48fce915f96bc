"""
The rows of a table that a group of records touches, and the records of each row in order: what the folds of
dispatches, attempts and commits have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.model import trace_id
from mppobs.sidecar.aggregates import Exemplar, Histogram, StageTotals
from mppobs.sidecar.fold_columns import Mask, Numbers, exact_sum
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.fold_names import name_rows
from mppobs.sidecar.running import RunningJob
from mppobs.sidecar.tables import MAX_BIT, ShardTable

_SHIFT: Final = np.int64(24)
"""Bits of a packed number that hold a position in a batch."""
_POSITION: Final = np.int64((1 << 24) - 1)


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

    @property
    def distinct(self) -> bool:
        """Return whether every row has one record."""
        return len(self.rows) == len(self.order)

    @property
    def last(self) -> Numbers:
        """Return the position of each row's last record."""
        last: Numbers = self.order if self.distinct else self.order[self.starts + self.counts - 1]
        return last

    def first_where(self, mask: Mask) -> tuple[Numbers, Numbers]:
        """Return which rows have a record that is meant, as places in `rows`, and the position of the first of each."""
        found = np.flatnonzero(mask[self.order])
        if self.distinct:
            return found, self.order[found]
        places = np.searchsorted(self.starts, found, side="right") - 1
        new = np.ones(len(places), np.bool_)
        new[1:] = places[1:] != places[:-1]
        return places[new], self.order[found[new]]


def touch(group: Group) -> Touched:
    """Return the rows of the group's shards, made where they are new."""
    keys, table = group.batch.keys, group.stage.table
    rows, missing = table.rows(keys)
    if len(missing):
        sources = group.batch.sources
        name_rows(table, keys, rows, missing, ((sources[source], run) for source, run in group.batch.runs()))
    places = np.arange(len(rows))
    if table.are_distinct(rows):
        return Touched(rows, places, places, np.ones(len(rows), np.int64))
    packed = rows << _SHIFT
    packed |= places
    packed.sort()
    order = packed & _POSITION
    packed >>= _SHIFT
    edges = np.ones(len(packed), np.bool_)
    edges[1:] = packed[1:] != packed[:-1]
    starts = np.flatnonzero(edges)
    return Touched(packed[starts], order, starts, np.diff(starts, append=len(packed)))


def mark_attempts(table: ShardTable, touched: Touched, attempt: Numbers, *, dispatched: bool) -> tuple[int, int]:
    """
    Set the bits of attempts that were dispatched, or that have a record.

    Returns how many bits are new, and how many attempts now have both marks that had only one before.
    """
    rows = touched.rows
    bits = np.uint32(1) << np.minimum(attempt, MAX_BIT).astype(np.uint32)
    news = bits[touched.order]
    if not touched.distinct:
        news = np.bitwise_or.reduceat(news, touched.starts)
    mine, other = (table.dispatched, table.own) if dispatched else (table.own, table.dispatched)
    news &= ~mine[rows]
    mine[rows] |= news
    return int(np.bitwise_count(news).sum()), int(np.bitwise_count(news & other[rows]).sum())


def observe_commits(group: Group, totals: StageTotals, rows: Numbers, positions: Numbers, now_ns: int) -> None:
    """Count the durations of newly committed shards: into the histogram and the sketch, with exemplars."""
    table = group.stage.table
    known = table.first_start[rows] > 0
    rows, positions = rows[known], positions[known]
    if len(rows) == 0:
        return
    durations: NDArray[np.int64] = np.maximum(table.decided[rows] - table.first_start[rows], 0)
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
    newest = []
    for bucket, count in enumerate(np.bincount(buckets).tolist()):
        histogram.counts[bucket] += count
        if count:
            mine = np.flatnonzero(buckets == bucket)
            newest.append((bucket, int(mine[np.argmax(positions[mine])])))
    return newest


def exemplar(job: RunningJob, shard: str, value_ns: int, now_ns: int) -> Exemplar:
    """Return one observation of a job's shard as an exemplar."""
    return Exemplar(job.key.job_id, shard, trace_id(job.key), value_ns / 1e9, now_ns)
