"""
From a batch of records to the jobs and stages that they belong to: which are late, which open a job, which go where.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.sidecar.fold_columns import Batch
from mppobs.sidecar.fold_jobs import JobBook
from mppobs.sidecar.running import JobStage, RunningJob

_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Group:
    """The records of a batch that belong to one stage of one job, in the order of the round."""

    job: RunningJob
    stage: JobStage
    batch: Batch


@dataclass(slots=True)
class _Places:
    """Where the contexts of a batch lead: a group for each, from a position on; what is before it is late."""

    group: NDArray[np.int32]
    since: NDArray[np.int64]
    stages: list[tuple[RunningJob, JobStage]] = field(default_factory=list)
    numbers: dict[tuple[int, str], int] = field(default_factory=dict)

    def lead(self, slot: int, job: RunningJob, stage: JobStage, since: int) -> None:
        """Lead the records of a context from a position on to a stage."""
        number = self.numbers.setdefault((id(job), stage.name), len(self.stages))
        if number == len(self.stages):
            self.stages.append((job, stage))
        self.group[slot], self.since[slot] = number, since


def groups(batch: Batch, book: JobBook, now_ns: int) -> tuple[list[Group], int]:
    """
    Return the records by job and stage, and how many came too late for theirs.

    Contexts are resolved when the batch begins. One that names no running job is resolved by its first record that
    can open one, in the order of the round.
    """
    places = _resolve(batch, book, now_ns)
    group = places.group[batch.slot]
    late = (group < 0) | (places.since[batch.slot] > 0) & (np.arange(len(batch)) < places.since[batch.slot])
    count = int(np.count_nonzero(late))
    if count:
        group[late] = -1
    return list(_split(batch, group, places)), count


def _resolve(batch: Batch, book: JobBook, now_ns: int) -> _Places:
    """Return where each context leads, and begin the jobs that are new."""
    size = len(batch.contexts)
    places = _Places(np.full(size, -1, np.int32), np.zeros(size, np.int64))
    homeless: list[int] = []
    for slot in _used(batch, size):
        _, context = batch.contexts[slot]
        job = book.find(context)
        if job is None:
            homeless.append(slot)
        else:
            places.lead(slot, job, book.stage(job, context.stage), 0)
    if homeless:
        _open_jobs(batch, book, places, homeless, now_ns)
    return places


def _used(batch: Batch, size: int) -> list[int]:
    """Return the contexts that have records, in the order of their first: that does not depend on blocks."""
    first = np.full(size, len(batch), np.int64)
    first[batch.slot[::-1]] = np.arange(len(batch) - 1, -1, -1)
    order = np.argsort(first)
    used: list[int] = order[: np.count_nonzero(first < len(batch))].tolist()
    return used


def _open_jobs(batch: Batch, book: JobBook, places: _Places, homeless: list[int], now_ns: int) -> None:
    """Begin jobs for contexts that name none, the earliest record first; each may be what others were waiting for."""
    start = batch.value(3)
    waiting = {slot: _first_to_open(batch, book, slot, now_ns) for slot in homeless}
    while waiting:
        slot = min(waiting, key=lambda each: (waiting[each], each))
        position = waiting.pop(slot)
        if position == _NEVER:
            continue
        _, context = batch.contexts[slot]
        job = book.find(context) or book.open(context, int(start[position]))
        places.lead(slot, job, book.stage(job, context.stage), position)
        for other in list(waiting):
            if book.find(batch.contexts[other][1]) is job:
                waiting[other] = min(waiting[other], _first_after(batch, other, position))


def _first_to_open(batch: Batch, book: JobBook, slot: int, now_ns: int) -> int:
    """Return the position of the first record of a context that can open its job; `_NEVER` where all are late."""
    mine = np.flatnonzero(batch.slot == slot)
    until = book.closed_until(batch.contexts[slot][1], now_ns)
    if until is not None:
        mine = mine[batch.value(3)[mine] > min(until, (1 << 63) - 1)]
    return int(mine[0]) if len(mine) else _NEVER


def _first_after(batch: Batch, slot: int, position: int) -> int:
    """Return the position of a context's first record after a position."""
    mine = np.flatnonzero(batch.slot == slot)
    after = mine[mine > position]
    return int(after[0]) if len(after) else _NEVER


def _split(batch: Batch, group: NDArray[np.int32], places: _Places) -> Iterator[Group]:
    """Yield the groups that have records."""
    if len(places.stages) == 1 and (group == 0).all():
        yield Group(*places.stages[0], batch)
        return
    order = np.argsort(group.astype(np.int16) if len(places.stages) < 1 << 15 else group, kind="stable")
    ordered = group[order]
    edges = np.searchsorted(ordered, np.arange(len(places.stages) + 1))
    for number, (job, stage) in enumerate(places.stages):
        chosen = order[edges[number] : edges[number + 1]]
        if len(chosen):
            yield Group(job, stage, batch.take(chosen))
