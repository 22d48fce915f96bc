"""How many workers there are to be, from the work at hand: up at once, down when that has lasted."""

from __future__ import annotations

from collections import deque
from typing import Final

from mppobs.executor import policies
from mppobs.executor.events import Scale
from mppobs.executor.policies import SECOND, Autoscale
from mppobs.executor.scheduling.book import Book
from mppobs.executor.scheduling.jobs import Job

_UNKNOWN_NS: Final = 1 << 62


class Scaler:
    """Asks for more and fewer workers. Looks at the work now and then, not at every event."""

    def __init__(self, book: Book, rules: Autoscale) -> None:
        self._book = book
        self._rules = rules
        self._target = -1
        """How many there are to be; negative until the first look."""
        self._raised_ns = -_UNKNOWN_NS
        self._wanted: deque[tuple[int, int]] = deque()
        """When how many were wanted, of late: each less than the one before it. The first is the most."""
        self._next_ns = -1
        """When the next look is due; negative while none is."""

    def look_soon(self, now_ns: int) -> None:
        """Look at the work now, or as soon as another step up is allowed."""
        self._look_at(max(now_ns, self._raised_ns + int(self._rules.up_after * SECOND)), now_ns)

    def _look_at(self, time_ns: int, now_ns: int) -> None:
        if self._next_ns < 0 or time_ns < self._next_ns:
            self._next_ns = time_ns
            if time_ns <= now_ns:
                self._look(now_ns)
            else:
                self._book.timers.at(time_ns, self._on_time)

    def _on_time(self, now_ns: int) -> None:
        if 0 <= self._next_ns <= now_ns:
            self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        """Compare the workers that there are to be with those that are wanted, and come back while they differ."""
        self._next_ns = -1
        rules = self._rules
        if self._target < 0:
            self._target = len(self._book.pool.workers)
        wanted = self._work()
        most = self._most_of_late(wanted, now_ns)
        if policies.is_enough_more(rules, self._target, wanted):
            self._raised_ns = now_ns
            self._set(wanted)
        elif policies.is_enough_fewer(rules, self._target, most):
            self._set(most)
        if self._book.jobs:
            self._look_at(now_ns + max(int(rules.up_after * SECOND), SECOND), now_ns)
        elif policies.is_enough_fewer(rules, self._target, wanted):
            self._look_at(self._wanted[0][0] + int(rules.down_after * SECOND) + 1, now_ns)

    def _set(self, workers: int) -> None:
        self._target = workers
        self._book.out.append(Scale(workers))

    def _most_of_late(self, wanted: int, now_ns: int) -> int:
        """Return the most workers that were wanted within the time for which fewer must have been enough."""
        recent = self._wanted
        while recent and recent[-1][1] <= wanted:
            recent.pop()
        recent.append((now_ns, wanted))
        while recent[0][0] + int(self._rules.down_after * SECOND) < now_ns:
            recent.popleft()
        return recent[0][1]

    def _work(self) -> int:
        """Return how many workers the work at hand wants."""
        work, shards = 0.0, 0
        for job in self._book.jobs.values():
            if not (job.tenant.spent and self._book.policy.budgets and not job.critical):
                job_work, job_shards = _work_of(job)
                work += job_work
                shards += job_shards
        return policies.workers_wanted(self._rules, work, shards)


def _work_of(job: Job) -> tuple[float, int]:
    """Return the time that a job's open shards will take, and how many of them can run at a time."""
    work, shards = 0.0, 0
    for stage in job.stages:
        if stage.opened and not stage.closed and not stage.needs:
            left = stage.shards - stage.decided
            # What is not known yet is taken to be long: one worker for each shard.
            work += left * (stage.timing.mean_ns or _UNKNOWN_NS)
            shards += min(left, stage.pressure.limit)
    return work, min(shards, job.cap)
