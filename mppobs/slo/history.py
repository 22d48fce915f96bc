"""
The counts of one SLO over time, as a staircase: how many events there had been at the end of each five minutes.

A stretch of time is then a subtraction, whatever its length, and an empty five minutes costs nothing. Older steps are
thinned to one an hour and later to one a day: a stretch that begins at a full hour, or day, stays exact.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mppobs.slo.model import Counts

SLOT_SECONDS: Final = 300
SLOTS_PER_HOUR: Final = 3600 // SLOT_SECONDS
SLOTS_PER_DAY: Final = 24 * SLOTS_PER_HOUR
FINE_DAYS: Final = 4
"""How far back every five minutes are kept: the longest alerting window and a day."""
HOURLY_DAYS: Final = 63
"""How far back every hour is kept: two months and a day."""
KEPT_DAYS: Final = 800
"""How far back every day is kept: this year and the one before."""


class Step(NamedTuple):
    """Everything that had been counted at the end of a slot."""

    slot: int
    """Number of five minutes since the Unix epoch."""
    total: int
    bad: int


class History:
    """
    The staircase of one SLO.

    >>> history = History()
    >>> history.put(10, Counts(3, 0)); history.put(12, Counts(5, 1))
    >>> history.before(10), history.before(12), history.before(99)
    (Counts(total=0, bad=0), Counts(total=3, bad=0), Counts(total=5, bad=1))
    """

    __slots__ = ("_bads", "_slots", "_totals")

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        """Take up steps, in the order of their slots."""
        self._slots, self._totals, self._bads = array("q"), array("q"), array("q")
        for step in steps:
            self._append(step)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._slots)

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps, oldest first."""
        return map(Step, self._slots, self._totals, self._bads)

    @property
    def newest(self) -> Step | None:
        """Return the newest step."""
        return Step(self._slots[-1], self._totals[-1], self._bads[-1]) if self._slots else None

    def put(self, slot: int, counts: Counts) -> None:
        """Say what had been counted by the end of a slot. Raises `ValueError` for one that is before the newest."""
        if self._slots and slot < self._slots[-1]:
            raise ValueError(f"slot {slot} is before {self._slots[-1]}")
        if self._slots and slot == self._slots[-1]:
            self._totals[-1], self._bads[-1] = counts.total, counts.bad
        else:
            self._append(Step(slot, counts.total, counts.bad))

    def before(self, slot: int) -> Counts:
        """Return what had been counted when a slot began."""
        place = bisect_left(self._slots, slot) - 1
        return Counts(0, 0) if place < 0 else Counts(self._totals[place], self._bads[place])

    def between(self, first: int, last: int) -> Counts:
        """Return the events of the slots from `first` up to and without `last`."""
        return minus(self.before(last), self.before(first))

    def thin(self, now_slot: int) -> list[int]:
        """Forget the steps that age makes unnecessary, and return their slots."""
        newest: dict[tuple[int, int], Step] = {}
        for step in self:
            newest[_bucket(step.slot, now_slot)] = step
        kept = {step.slot for step in newest.values()}
        gone = [slot for slot in self._slots if slot not in kept]
        if gone:
            self._slots, self._totals, self._bads = array("q"), array("q"), array("q")
            for step in newest.values():
                self._append(step)
        return gone

    def _append(self, step: Step) -> None:
        self._slots.append(step.slot)
        self._totals.append(step.total)
        self._bads.append(step.bad)


def minus(now: Counts, then: Counts) -> Counts:
    """Return the events between two moments of one staircase."""
    return Counts(now.total - then.total, now.bad - then.bad)


def slot_of(time_ns: int) -> int:
    """
    Return the slot that a time is in.

    >>> slot_of(299_999_999_999), slot_of(300_000_000_000)
    (0, 1)
    """
    return time_ns // (SLOT_SECONDS * 10**9)


def begin_of(slot: int) -> int:
    """Return when a slot begins, in nanoseconds since the epoch."""
    return slot * SLOT_SECONDS * 10**9


def first_slot(now_ns: int, seconds: int) -> int:
    """
    Return the slot with which a window that ends now begins: the one that its first moment is in.

    A window of four days or more begins at a full hour, one of nine weeks or more at a full day (UTC).

    >>> first_slot(90_000 * 10**9, 3600), first_slot(90_000 * 10**9, 3700)
    (288, 287)
    """
    slot = slot_of(now_ns - seconds * 10**9)
    if seconds >= FINE_DAYS * 86_400:
        step = SLOTS_PER_HOUR if seconds < HOURLY_DAYS * 86_400 else SLOTS_PER_DAY
        slot -= slot % step
    return slot


def _bucket(slot: int, now_slot: int) -> tuple[int, int]:
    """Return what a slot shares one step with, at its age; everything beyond what is kept shares one."""
    age = now_slot - slot
    if age <= FINE_DAYS * SLOTS_PER_DAY:
        return 0, slot
    if age <= HOURLY_DAYS * SLOTS_PER_DAY:
        return 1, slot // SLOTS_PER_HOUR
    if age <= KEPT_DAYS * SLOTS_PER_DAY:
        return 2, slot // SLOTS_PER_DAY
    return 3, 0
