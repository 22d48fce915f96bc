"""
Folding what a coordinator says of shards, attempts handed out and shards decided, and what attempts say in detail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from mppobs.journal.format import DETAIL_CODES, SHARD_CODES
from mppobs.model import DetailKind, ShardOutcome
from mppobs.sidecar.fold_attempts import error_numbers
from mppobs.sidecar.fold_columns import Batch, Mask, Numbers, distinct, exact_sum
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.fold_labels import Labels
from mppobs.sidecar.fold_rows import as_run, mark_attempts, observe_commits, touch
from mppobs.sidecar.running import RunningJob
from mppobs.sidecar.tables import COMMITTED, PENDING

UNSPECIFIED: Final = "unspecified"
"""The kind of network errors and throttled requests that no detail explains."""

_ACTIVITY: Final = DETAIL_CODES[DetailKind.ACTIVITY]
_NETWORK: Final = DETAIL_CODES[DetailKind.NETWORK_ERROR]


def fold_dispatches(group: Group) -> None:
    """Fold attempts that were handed to workers."""
    touched = touch(group)
    table = group.stage.table
    new, matched = mark_attempts(table, touched, group.batch.attempt, dispatched=True)
    group.stage.dispatched += new
    group.stage.recorded += matched
    at, size = touched.at, group.batch.value(5)[as_run(touched.last())]
    table.input[at] = np.where(size > 0, size, table.input[at])
    if group.job.implicit:
        group.job.start_ns = min(group.job.start_ns, int(group.batch.value(3).min()))


def fold_commits(group: Group, labels: Labels, now_ns: int) -> int:
    """Fold decisions about shards; return how many came after the shard was decided, or split."""
    touched = touch(group)
    table, stage, batch = group.stage.table, group.stage, group.batch
    rows, first = touched.rows, touched.order[touched.starts]
    pending = table.state[touched.at] == PENDING
    if not pending.all():
        rows, first = rows[pending], first[pending]
    if len(rows) == 0:
        return len(batch)
    at, chosen = as_run(rows), as_run(first)
    code = batch.code[chosen]
    time, first_start = batch.value(3)[chosen], batch.value(4)[chosen]
    table.state[at] = code
    table.decided[at] = time
    table.first_start[at] = np.where(first_start > 0, first_start, table.first_start[at])
    table.winner[at] = batch.attempt[chosen]
    bad = code != COMMITTED
    table.error[rows[bad]] = error_numbers(group, first[bad])
    table.reason[rows[bad]] = batch.detail[first[bad]]
    stage.output_bytes += exact_sum(batch.value(5)[chosen])
    stage.output_rows += exact_sum(batch.value(6)[chosen])
    stage.last_end_ns = max(stage.last_end_ns, int(time.max()))
    group.job.last_end_ns = max(group.job.last_end_ns, stage.last_end_ns)
    totals = labels.stage(stage.key)
    for outcome in ShardOutcome:
        count = int(np.count_nonzero(code == SHARD_CODES[outcome]))
        stage.shards[outcome] += count
        totals.shards[outcome] += count
    good = code == COMMITTED
    observe_commits(group, totals, rows[good], first[good], now_ns)
    return len(batch) - len(rows)


def fold_details(group: Group, labels: Labels) -> None:
    """Fold amounts by name: time by activity, network errors and throttled requests by kind."""
    code = group.batch.code
    activities = code == _ACTIVITY
    totals = labels.stage(group.stage.key)
    for name, amount in _amounts(group.batch, activities):
        labels.add_kind(totals.activity_ns, name, amount, "activity")
        labels.add_kind(group.stage.activity_ns, name, amount, "activity")
    if activities.all():
        return
    pipeline = labels.pipeline(group.job.pipeline)
    for name, amount in _amounts(group.batch, code == _NETWORK):
        labels.add_kind(pipeline.network_errors, name, amount, "network_error")
    for name, amount in _amounts(group.batch, ~activities & (code != _NETWORK)):
        labels.add_kind(pipeline.storage_throttled, name, amount, "storage_throttled")
    _explain(group, np.flatnonzero(~activities), code == _NETWORK, labels.settings.max_unexplained)


def fold_errors(group: Group, labels: Labels) -> None:
    """Count the network errors and throttled requests of attempts that none of their details explained."""
    network, throttled = group.batch.low(10), group.batch.text(10)
    job, stage = group.job, group.stage.name
    start = group.batch.value(3)
    rest = [0, 0]
    for place in np.flatnonzero(network | throttled).tolist():
        job.network_errors += int(network[place])
        job.storage_throttled += int(throttled[place])
        explained = job.unexplained.pop(_identity(group.batch, stage, start, place), (0, 0))
        rest[0] += max(0, int(network[place]) - explained[0])
        rest[1] += max(0, int(throttled[place]) - explained[1])
    if any(rest):
        pipeline = labels.pipeline(job.pipeline)
        for counts, amount in zip((pipeline.network_errors, pipeline.storage_throttled), rest, strict=True):
            if amount:
                counts[UNSPECIFIED] = counts.get(UNSPECIFIED, 0) + amount


def _explain(group: Group, places: Numbers, network: Mask, most: int) -> None:
    """Remember what details explained, until the record of their attempt comes."""
    job: RunningJob = group.job
    start = group.batch.value(3)
    counts = group.batch.detail
    amounts = np.stack([np.where(counts > i, group.batch.value(5 + 2 * i), 0) for i in range(4)]).sum(axis=0)
    for place in places.tolist():
        identity = _identity(group.batch, group.stage.name, start, place)
        if identity in job.unexplained or len(job.unexplained) < most:
            known = job.unexplained.get(identity, (0, 0))
            amount = int(amounts[place])
            job.unexplained[identity] = (
                (known[0] + amount, known[1]) if network[place] else (known[0], known[1] + amount)
            )


def _identity(batch: Batch, stage: str, start: Numbers, place: int) -> tuple[str, int, int, int]:
    """Return what a detail and the record of its attempt have in common."""
    return stage, int(batch.word(1)[place]) >> 1, int(batch.word(2)[place]) & 0xFFFF, int(start[place])


def _amounts(batch: Batch, chosen: Mask) -> Iterator[tuple[str, int]]:
    """Yield names and amounts of details, summed by the segment that defined the name."""
    if not chosen.any():
        return
    counts = batch.detail
    for place in range(4):
        used = np.flatnonzero(chosen & (counts > place))
        if len(used) == 0:
            return
        codes = batch.source[used].astype(np.int64) << 32 | batch.low(4 + 2 * place)[used]
        values = batch.value(5 + 2 * place)[used]
        for code in distinct(codes):
            name = batch.sources[code >> 32].tables.text(code & 0xFFFFFFFF)
            yield name, exact_sum(values[codes == code])
