"""
A second opinion on alerting: simulated traffic, and which legs it must fire, by counting events alone.

Nothing here is shared with the rules or with the arithmetic that they are rendered from. The table is copied by hand
from the Google SRE Workbook, chapter 5, table 5-8, and what fires is decided by its definition: a window in which more
than the given share of the whole period's error budget is spent. Whoever changes a window or a share changes it in
both places, or the proofs fail.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Final, NamedTuple

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

LEAST_BAD: Final = 2
"""Bad events without which no leg fires."""
OLDEST: Final = 15 * _MINUTE
"""How far before a window's start its first scrape may lie."""


class Pair(NamedTuple):
    """A long and a short window with what both must exceed."""

    name: str
    long: int
    short: int
    percent: int
    """Of the period's budget, spent at the pace that fires within the long window; 0 where `times` is given."""
    times: int = 0
    """The pace that fires, where 1 spends the budget just by the period's end."""
    critical_only: bool = False


WORKBOOK: Final = (
    Pair("fast", 1 * _HOUR, 5 * _MINUTE, 2),
    Pair("medium", 6 * _HOUR, 30 * _MINUTE, 5),
    Pair("slow", 24 * _HOUR, 2 * _HOUR, 10),
    Pair("pace", 24 * _HOUR, 2 * _HOUR, 0, times=2, critical_only=True),
    Pair("steady", 72 * _HOUR, 6 * _HOUR, 10),
)
"""Rows 1, 2, 3 and 5 are the Workbook's; row 4 is ours."""


class Traffic(StrEnum):
    """How the work of a pipeline comes in."""

    STEADY = "steady"
    """The same every minute."""
    BURSTY = "bursty"
    """A run each hour by day, of very different sizes; nothing by night."""
    NIGHTLY = "nightly"
    """One run a day, at two o'clock."""
    IDLE = "idle"
    """A run every five days."""


class Batch(NamedTuple):
    """Events that are decided at one moment, as the shards of a stage are."""

    time: int
    total: int


class Sample(NamedTuple):
    """What a scrape sees: how many events there have been, and how many of them were bad."""

    time: int
    total: int
    bad: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What of an SLO decides when it alerts."""

    objective: Fraction
    period_days: int
    critical: bool = True


@dataclass(slots=True)
class Stream:
    """The life of one SLO: events in the order in which they were decided."""

    begin: int
    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    bads: list[int] = field(default_factory=list)
    """Sums up to and including each time."""

    def add(self, batch: Batch, bad: int) -> None:
        """Append a batch of which `bad` events are bad."""
        self.times.append(batch.time)
        self.totals.append(batch.total + (self.totals[-1] if self.totals else 0))
        self.bads.append(bad + (self.bads[-1] if self.bads else 0))

    def at(self, time: int) -> Sample:
        """Return the counts up to and including a time."""
        index = bisect.bisect_right(self.times, time) - 1
        return Sample(time, self.totals[index], self.bads[index]) if index >= 0 else Sample(time, 0, 0)

    def scraped(self, times: Iterable[int]) -> list[Sample]:
        """Return what scrapes at some times see."""
        return [self.at(time) for time in times]


ErrorRate = Callable[[int], Fraction]
"""The share of bad events at a time."""


def arrivals(traffic: Traffic, begin: int, end: int, chance: random.Random, size: int = 1000) -> Iterator[Batch]:
    """
    Yield the batches of a pipeline from `begin` on and before `end`, of about `size` events each.

    >>> [batch.time for batch in arrivals(Traffic.NIGHTLY, 0, 3 * 86400, random.Random(1))]
    [7200, 93600, 180000]
    """
    if traffic is Traffic.STEADY:
        yield from (Batch(time, size) for time in range(begin, end, _MINUTE))
    elif traffic is Traffic.BURSTY:
        for time in range(begin, end, _HOUR):
            if time % _DAY >= 6 * _HOUR:
                yield Batch(time + chance.randrange(_HOUR), size * chance.choice((1, 1, 2, 20)) // 2)
    else:
        every = _DAY if traffic is Traffic.NIGHTLY else 5 * _DAY
        yield from (Batch(time + 2 * _HOUR, size) for time in range(begin, end, every))


def evenly(batches: Iterable[Batch], rate: ErrorRate, begin: int = 0) -> Stream:
    """
    Return a life in which exactly the share of events is bad, rounded down, with what is left over carried on.

    >>> evenly([Batch(60, 10), Batch(120, 10)], lambda time: Fraction(1, 4)).bads
    [2, 5]
    """
    stream, owed = Stream(begin), Fraction(0)
    for batch in batches:
        owed += batch.total * rate(batch.time)
        bad = math.floor(owed)
        owed -= bad
        stream.add(batch, bad)
    return stream


def by_chance(batches: Iterable[Batch], rate: float, chance: random.Random, begin: int = 0) -> Stream:
    """Return a life in which each event is bad with the same small chance, whatever the others do."""
    stream = Stream(begin)
    gap = _gap(rate, chance)
    for batch in batches:
        bad = 0
        while gap < batch.total:
            bad += 1
            gap += 1 + _gap(rate, chance)
        gap -= batch.total
        stream.add(batch, bad)
    return stream


def firing(samples: Sequence[Sample], promise: Promise, begin: int, keep_seconds: int) -> list[dict[str, Fraction]]:
    """
    Return, for each sample, the legs that fire when the rules are evaluated at its time, with the burn they report.

    A leg that has fired is kept until evaluations have found nothing for `keep_seconds`, and reports what it last saw.
    """
    times = [sample.time for sample in samples]
    seen: dict[str, Fraction] = {}
    quiet_since: dict[str, int] = {}
    out = []
    for index, now in enumerate(times):
        for pair in WORKBOOK:
            burn = _breach(samples, times, index, promise, begin, pair)
            if burn is not None:
                seen[pair.name] = burn
                quiet_since.pop(pair.name, None)
            elif now - quiet_since.setdefault(pair.name, now) >= keep_seconds:
                seen.pop(pair.name, None)
        out.append(dict(seen))
    return out


def _breach(
    samples: Sequence[Sample], times: Sequence[int], index: int, promise: Promise, begin: int, pair: Pair
) -> Fraction | None:
    """Return the burn over a pair's long window where both of its windows spend too much by a sample."""
    if pair.critical_only and not promise.critical:
        return None
    long = _held(samples, times, index, begin, pair.long)
    short = _held(samples, times, index, begin, pair.short)
    if long is None or short is None or long[1] < LEAST_BAD:
        return None
    if not (_too_fast(*long, promise, pair) and _too_fast(*short, promise, pair)):
        return None
    return Fraction(long[1], long[0]) / (1 - promise.objective)


def _too_fast(total: int, bad: int, promise: Promise, pair: Pair) -> bool:
    """Return whether this share of bad events, for the length of the long window, spends too much of the budget."""
    keep, out_of = promise.objective.numerator, promise.objective.denominator
    allowed = (out_of - keep) * total
    if pair.times:
        return bad * out_of > pair.times * allowed
    return 100 * bad * out_of * pair.long > pair.percent * allowed * promise.period_days * _DAY


def _held(
    samples: Sequence[Sample], times: Sequence[int], index: int, begin: int, seconds: int
) -> tuple[int, int] | None:
    """Return events and bad events of the last `seconds`; `None` where no scrape shows the window's start."""
    now = samples[index]
    edge = now.time - seconds
    if begin > edge:
        return now.total, now.bad
    first = bisect.bisect_right(times, edge) - 1
    if first < 0 or times[first] < edge - OLDEST:
        return None
    return now.total - samples[first].total, now.bad - samples[first].bad


def _gap(rate: float, chance: random.Random) -> int:
    """Return how many good events come before the next bad one."""
    return int(math.log(1 - chance.random()) / math.log(1 - rate)) if rate else 1 << 62
