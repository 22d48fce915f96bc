"""What is to be done at a certain time besides what happens in the simulated world, and when the next of it is due."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from mppobs.executor.sim.model import JobModel

NEVER: Final = 1 << 62

Step = Callable[[], None]
"""Something that is done to the coordinator."""


class Timetable:
    """
    Jobs that arrive, the scheduler's alarm, the coordinator's heartbeat and what befalls it. In nanoseconds.

    >>> times = Timetable(0, 30, [])
    >>> times.due(), times.beats(0), times.due()
    (0, True, 30)
    """

    def __init__(self, start_ns: int, beat_ns: int, steps: Iterable[tuple[int, Step]]) -> None:
        """Begin at `start_ns` with a heartbeat every `beat_ns`, or none where that is 0, and steps in any order."""
        self.arrivals: list[tuple[int, int, JobModel]] = []
        """A heap: when, in which order of those submitted for the same time, what."""
        self.alarm_ns = NEVER
        """When the scheduler is to be woken."""
        self._steps = sorted(steps, key=lambda step: step[0])
        self._beat_ns = beat_ns
        self._next_beat = start_ns if beat_ns else NEVER
        self._submitted = 0

    def submit(self, job: JobModel, at_ns: int) -> None:
        """Have a job arrive."""
        self._submitted += 1
        heapq.heappush(self.arrivals, (at_ns, self._submitted, job))

    def due(self) -> int:
        """Return when the next of it is."""
        arrival = self.arrivals[0][0] if self.arrivals else NEVER
        step = self._steps[0][0] if self._steps else NEVER
        return min(self.alarm_ns, arrival, step, self._next_beat)

    def steps(self, now_ns: int) -> Iterator[Step]:
        """Yield the steps that are due, once."""
        while self._steps and self._steps[0][0] <= now_ns:
            yield self._steps.pop(0)[1]

    def arrived(self, now_ns: int) -> Iterator[JobModel]:
        """Yield the jobs that have arrived, once."""
        while self.arrivals and self.arrivals[0][0] <= now_ns:
            yield heapq.heappop(self.arrivals)[2]

    def rings(self, now_ns: int) -> bool:
        """Return whether the alarm goes off, which it does once."""
        due = self.alarm_ns <= now_ns
        if due:
            self.alarm_ns = NEVER
        return due

    def beats(self, now_ns: int) -> bool:
        """Return whether a heartbeat is due, and plan the next one."""
        due = self._next_beat <= now_ns
        if due:
            self._next_beat = now_ns + self._beat_ns
        return due
