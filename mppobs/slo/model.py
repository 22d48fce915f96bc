"""
What an SLO is, as frozen values. Objectives are exact: `0.999` is 999/1000 and leaves 1/1000.

An SLO maps events (finished jobs, decided shards, minutes) to good or bad. The aggregator decides each event once
and counts it; everything else (burn rate, budget, forecast, report) is arithmetic on those counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from mppobs.model import RunKind, Tier


class IndicatorKind(StrEnum):
    """The closed list of what an SLO can be about."""

    SHARD_SUCCESS = "shard-success"
    JOB_SUCCESS = "job-success"
    ON_TIME = "on-time"
    DURATION = "duration"
    TAIL = "tail"
    COST = "cost"
    SPEND = "spend"
    FRESHNESS = "freshness"
    SCHEDULER_LATENCY = "scheduler-latency"
    CHECKPOINT_LAG = "checkpoint-lag"
    COVERAGE = "coverage"
    PROMQL = "promql"


class EventUnit(StrEnum):
    """What one event of an indicator is; budgets are spoken of in these."""

    JOB = "job"
    SHARD = "shard"
    MINUTE = "minute"
    CENT = "cent"
    """Of US dollars: a `spend` SLO burns money as others burn runs."""
    QUERY = "query"
    """Whatever the user's own queries count."""


UNITS: dict[IndicatorKind, EventUnit] = {
    IndicatorKind.SHARD_SUCCESS: EventUnit.SHARD,
    IndicatorKind.JOB_SUCCESS: EventUnit.JOB,
    IndicatorKind.ON_TIME: EventUnit.JOB,
    IndicatorKind.DURATION: EventUnit.JOB,
    IndicatorKind.TAIL: EventUnit.JOB,
    IndicatorKind.COST: EventUnit.JOB,
    IndicatorKind.SPEND: EventUnit.CENT,
    IndicatorKind.FRESHNESS: EventUnit.MINUTE,
    IndicatorKind.SCHEDULER_LATENCY: EventUnit.MINUTE,
    IndicatorKind.CHECKPOINT_LAG: EventUnit.MINUTE,
    IndicatorKind.COVERAGE: EventUnit.JOB,
    IndicatorKind.PROMQL: EventUnit.QUERY,
}
"""The unit in which each indicator counts."""

SPEND_OBJECTIVE: Final = Fraction(19, 20)
"""Of an SLO on money that names none: its events are twenty times the money, so it can burn up to 20 times too fast."""

BY_RUN: Final = frozenset({EventUnit.JOB, EventUnit.SHARD})
"""Units whose events belong to a run, and so to a kind of run. Minutes and cents do not, and queries are not ours."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The figures that an indicator compares with; each indicator uses the ones it needs."""

    at_most: Decimal | None = None
    """Seconds (`duration`, `freshness`, and the lags), a ratio (`tail`) or US dollars (`cost`)."""
    at_least: Decimal | None = None
    """Seconds: a job that ends before this is suspicious (`duration`), or the ratio of planned shards (`coverage`)."""
    deadline_seconds: Decimal | None = None
    """After submission (`on-time`); absent where jobs carry their own deadline."""
    usd_per_period: Decimal | None = None
    """What may be spent in a period (`spend`)."""
    good_query: str = ""
    total_query: str = ""
    """Counters by PromQL (`promql`)."""


@dataclass(frozen=True, slots=True)
class Slo:
    """One promise."""

    team: str
    name: str
    """Unique within the team."""
    indicator: IndicatorKind
    objective: Fraction
    """In (0, 1): the share of events that must be good."""
    period_days: int
    pipeline: str
    """The pipeline that it is about; empty for `promql`."""
    tenant: str = ""
    """Empty for all tenants."""
    stage: str = ""
    """Empty for all stages."""
    owner: str = ""
    tier: Tier = Tier.STANDARD
    bounds: Bounds = Bounds()
    exclude: tuple[RunKind, ...] = ()
    """Kinds of run whose events do not count. Their data is kept."""
    calendar: bool = False
    """Whether reports follow the calendar month; alerts always roll."""
    description: str = ""
    expected_events: int = 0
    """Per period, as the owner expects; 0 for unknown. The linter does its arithmetic with it."""

    @property
    def full_name(self) -> str:
        """Return `team/name`, the value of the `slo` label."""
        return f"{self.team}/{self.name}"

    @property
    def budget(self) -> Fraction:
        """
        Return the share of events that may be bad.

        >>> Slo("t", "n", IndicatorKind.ON_TIME, Fraction("0.999"), 30, "p").budget
        Fraction(1, 1000)
        """
        return 1 - self.objective

    @property
    def unit(self) -> EventUnit:
        """Return what one event is."""
        return UNITS[self.indicator]


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of one SLO in some stretch of time."""

    total: int
    bad: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if not 0 <= self.bad <= self.total:
            raise ValueError(f"bad events must be between 0 and total: bad={self.bad}, total={self.total}")

    def __add__(self, other: Counts) -> Counts:
        """Return the events of both stretches."""
        return Counts(self.total + other.total, self.bad + other.bad)
