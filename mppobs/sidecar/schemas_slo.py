"""The shapes of the API for SLOs, with their documentation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from mppobs.catalog.foresight import ChargeEnd, Foresight
from mppobs.model import RunKind, Tier
from mppobs.sidecar.schemas import Seconds, Shape
from mppobs.slo.model import EventUnit, IndicatorKind


class SloPeriod(Shape):
    """A stretch of time with its error budget."""

    start: datetime
    """When it begins, or when counting began where that is later."""
    end: datetime
    events: int
    bad_events: int
    good_ratio: float | None
    """`null` where there is no event."""
    allowed_bad_events: float
    """The budget: of the events that came, or of those expected where more are to come."""
    bad_events_left: float
    """Below 0 where too many were bad."""
    budget_left_ratio: float
    """1 is all of it; below 0 it is overspent."""


class SloWindow(Shape):
    """One of the windows that alerts look at, ending now."""

    window: str
    events: int
    bad_events: int
    burn_rate: float
    """1 spends exactly the whole budget in a period; 0 where there is no event."""


class SloChange(Shape):
    """A change of the objective: counts went on, the budget is another."""

    time: datetime
    before_ratio: float
    after_ratio: float


class SloForesight(Shape):
    """How good the predictions have been that jobs were charged by."""

    charges: dict[ChargeEnd, int]
    """Settled ones, by what became of them."""
    predictions: dict[Foresight, int]
    """Judged jobs, by what was predicted of them and how they ended."""
    runs: int
    """Recent runs that predictions are held against; ten are needed before one is charged."""
    coverage_ratio: float | None
    """Share of their intervals that held the finish; 0.9 is what they claim."""


class SloState(Shape):
    """One promise, and how it is kept."""

    counted_by: Literal["aggregator"] = "aggregator"
    slo: str
    """`team/name`."""
    description: str
    indicator: IndicatorKind
    unit: EventUnit
    """What one event is."""
    pipeline: str
    tenant: str
    """Empty for all of them, as `stage`."""
    stage: str
    owner: str
    tier: Tier
    exclude: list[RunKind]
    """Kinds of run whose events do not count."""
    objective_ratio: float
    period_days: int
    calendar: bool
    """Whether the period is the month of the calendar (UTC)."""
    revision: int
    """How many definitions of its events there have been."""
    since: datetime
    """When this revision began to count."""
    events: int
    """Since then, as the next."""
    bad_events: int
    provisional_bad_events: int
    """Running jobs that are predicted to become bad events. They burn the budget already."""
    warned_jobs: int
    """Running jobs that are likely to become bad events, and are not charged, since too few runs have ended yet."""
    foresight: SloForesight | None
    """How good such predictions have been; `null` where none can be made."""
    latched: bool | None
    """Whether the newest event was bad; `null` where there are events enough for a rate."""
    period: SloPeriod
    """The present one, or the month that was asked for."""
    windows: list[SloWindow]
    exhausted_in_seconds: Seconds | None
    """Until the present budget is gone at the pace of the last day with events; `null` where it does not shrink."""
    changes: list[SloChange]


class SloQueries(Shape):
    """What to ask Prometheus, in PromQL."""

    budget_left: str
    """A ratio: 1 is all of the period's budget; below 0 it is overspent."""
    events: str
    bad_events: str


class SloInPrometheus(Shape):
    """One promise that Prometheus counts by queries of its own: how it is kept is known there and not here."""

    counted_by: Literal["prometheus"] = "prometheus"
    slo: str
    """`team/name`."""
    description: str
    indicator: IndicatorKind
    unit: EventUnit
    pipeline: str
    """Empty where it is about none."""
    tenant: str
    owner: str
    tier: Tier
    objective_ratio: float
    period_days: int
    queries: SloQueries


class SloList(Shape):
    """SLOs by name, and where to go on."""

    slos: list[Annotated[SloState | SloInPrometheus, Field(discriminator="counted_by")]]
    """Who counts an SLO is in `counted_by`: only the aggregator's own have figures."""
    next: str | None
    """`cursor` of the next page; `null` where this is the last."""
    problem: str
    """Why the newest change of the files is refused, so that these are those before; empty where it is not."""
