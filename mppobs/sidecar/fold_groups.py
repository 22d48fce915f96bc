"""
From a batch of records to the jobs and stages that they belong to: which are late, which open a job, which go where.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.sidecar.fold_columns import Batch, Phase, distinct
from mppobs.sidecar.fold_jobs import JobBook
from mppobs.sidecar.running import JobStage, RunningJob

_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Group:
    """The records of a batch that belong to one stage of one job, in the order of the round."""

    job: RunningJob
    stage: JobStage
    batch: Batch


class Homes:
    """
    Where the contexts of a phase lead, batch by batch.

    A context, whichever journals have it, leads to the job that it names when the phase begins. One that names none
    then is led by its first record that finds one or can open one, in the order of the round; what comes before
    that record is late.
    """

    def __init__(self, phase: Phase, book: JobBook, now_ns: int) -> None:
        self._book = book
        self._now_ns = now_ns
        self._contexts = [context for _, context in phase.contexts]
        self._jobs = {context: book.find(context) for context in self._contexts}
        self._group = np.full(len(self._contexts), -1, np.int32)
        self._stages: list[tuple[RunningJob, JobStage]] = []
        self._numbers: dict[tuple[int, str], int] = {}

    def groups(self, batch: Batch) -> tuple[list[Group], NDArray[np.int32]]:
        """Return the records of a batch by job and stage, and to which job each record leads: see `job`."""
        since = np.zeros(len(self._contexts), np.int64)
        homeless = []
        for slot in _used(batch, len(self._contexts)):
            job = self._jobs[self._contexts[slot]]
            if job is None:
                homeless.append(slot)
            elif self._group[slot] < 0:
                self._lead(slot, job)
        if homeless:
            self._open_jobs(batch, homeless, since)
        group = self._group[batch.slot]
        if homeless:
            group[np.arange(len(batch)) < since[batch.slot]] = -1
        return list(self._split(batch, group)), group

    def job(self, number: int) -> RunningJob:
        """Return the job behind one of the numbers that `groups` returned; negative ones are late and have none."""
        return self._stages[number][0]

    def _lead(self, slot: int, job: RunningJob) -> None:
        """Lead a context to its stage of a job, from now on."""
        stage = self._book.stage(job, self._contexts[slot].stage)
        number = self._numbers.setdefault((id(job), stage.name), len(self._stages))
        if number == len(self._stages):
            self._stages.append((job, stage))
        self._jobs[self._contexts[slot]], self._group[slot] = job, number

    def _open_jobs(self, batch: Batch, homeless: list[int], since: NDArray[np.int64]) -> None:
        """Find or begin jobs for contexts that name none, the earliest record first; each may suit several."""
        start = batch.value(3)
        waiting = {slot: self._first_to_open(batch, slot) for slot in homeless}
        while waiting:
            slot = min(waiting, key=lambda each: (waiting[each], each))
            position = waiting.pop(slot)
            if position == _NEVER:
                continue
            context = self._contexts[slot]
            job = self._jobs[context] or self._book.find(context) or self._book.open(context, int(start[position]))
            self._lead(slot, job)
            since[slot] = position
            for other in waiting:
                name = self._contexts[other]
                if name == context or self._book.find(name) is job:
                    waiting[other] = min(waiting[other], _first_after(batch, other, position))

    def _first_to_open(self, batch: Batch, slot: int) -> int:
        """Return the position of a context's first record that leads to a job; `_NEVER` where all are late."""
        mine = np.flatnonzero(batch.slot == slot)
        context = self._contexts[slot]
        if self._book.find(context) is None:
            until = self._book.closed_until(context, self._now_ns)
            if until is not None:
                mine = mine[batch.value(3)[mine] > min(until, (1 << 63) - 1)]
        return int(mine[0]) if len(mine) else _NEVER

    def _split(self, batch: Batch, group: NDArray[np.int32]) -> Iterator[Group]:
        """Yield the groups that have records, in the order of their first."""
        first = int(group[0])
        if first >= 0 and (group == first).all():
            yield Group(*self._stages[first], batch)
            return
        order = np.argsort(group.astype(np.int16) if len(self._stages) < 1 << 15 else group, kind="stable")
        edges = np.searchsorted(group[order], np.arange(len(self._stages) + 1))
        for number in distinct(group[group >= 0]):
            yield Group(*self._stages[number], batch.take(order[edges[number] : edges[number + 1]]))


def _used(batch: Batch, size: int) -> list[int]:
    """Return the contexts that have records, in the order of their first: that does not depend on blocks."""
    if (batch.slot == batch.slot[0]).all():
        return [int(batch.slot[0])]
    first = np.full(size, len(batch), np.int64)
    first[batch.slot[::-1]] = np.arange(len(batch) - 1, -1, -1)
    order = np.argsort(first)
    used: list[int] = order[: np.count_nonzero(first < len(batch))].tolist()
    return used


def _first_after(batch: Batch, slot: int, position: int) -> int:
    """Return the position of a context's first record after a position."""
    mine = np.flatnonzero(batch.slot == slot)
    after = mine[mine > position]
    return int(after[0]) if len(after) else _NEVER
