"""From what the aggregator keeps of SLOs to what the API shows. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from mppobs.sidecar.answers import moment
from mppobs.sidecar.schemas_slo import (
    SloChange,
    SloForesight,
    SloInPrometheus,
    SloPeriod,
    SloQueries,
    SloState,
    SloWindow,
)
from mppobs.sidecar.view import ForesightFigures, SloFigures
from mppobs.slo.model import Slo
from mppobs.slo.standing import Burn, Period, month, standing
from mppobs.slo.windows import window_name


def slo_state(figures: SloFigures, now_ns: int, wanted: str | None = None) -> SloState:
    """
    Return how an SLO stands, in its period or in a month of the calendar.

    Raises ConfigError where `wanted` is no month, or one that has not begun.
    """
    slo, tally = figures.slo, figures.tally
    found = standing(slo, tally, now_ns)
    period = found.period if wanted is None else month(slo, tally, wanted, now_ns)
    return SloState(
        slo=slo.full_name, description=slo.description, indicator=slo.indicator, unit=slo.unit, pipeline=slo.pipeline,
        tenant=slo.tenant, stage=slo.stage, owner=slo.owner, tier=slo.tier, exclude=list(slo.exclude),
        objective_ratio=float(slo.objective), period_days=slo.period_days, calendar=slo.calendar,
        revision=tally.revision, since=_time(tally.start_ns), events=tally.counts.total,
        bad_events=tally.counts.bad, provisional_bad_events=figures.provisional,
        warned_jobs=figures.foresight.warned if figures.foresight else 0,
        foresight=_foresight(figures.foresight), latched=figures.latched,
        period=_period(period), windows=[_window(seconds, burn) for seconds, burn in found.burns.items()],
        exhausted_in_seconds=found.exhausted_in,
        changes=[
            SloChange(time=_time(mark.time_ns), before_ratio=float(mark.before), after_ratio=float(mark.after))
            for mark in tally.marks
        ],
    )  # fmt: skip


def slo_in_prometheus(slo: Slo) -> SloInPrometheus:
    """Return what is known here of an SLO that Prometheus counts, and what to ask it for the rest."""
    # PromQL escapes strings as JSON does
    chosen = f"{{slo={json.dumps(slo.full_name, ensure_ascii=False)}}}"
    return SloInPrometheus(
        slo=slo.full_name, description=slo.description, indicator=slo.indicator, unit=slo.unit, pipeline=slo.pipeline,
        tenant=slo.tenant, owner=slo.owner, tier=slo.tier, objective_ratio=float(slo.objective),
        period_days=slo.period_days,
        queries=SloQueries(
            budget_left=f"mpp_slo_budget_left_ratio{chosen}",
            events=f"mpp_slo_events_total{chosen}",
            bad_events=f"mpp_slo_bad_events_total{chosen}",
        ),
    )  # fmt: skip


def _foresight(figures: ForesightFigures | None) -> SloForesight | None:
    if figures is None:
        return None
    return SloForesight(
        charges=dict(figures.settled),
        predictions=dict(figures.verdicts),
        runs=figures.runs,
        coverage_ratio=figures.coverage,
    )


def _period(period: Period) -> SloPeriod:
    counts = period.counts
    return SloPeriod(
        start=_time(period.start_ns),
        end=_time(period.end_ns),
        events=counts.total,
        bad_events=counts.bad,
        good_ratio=(counts.total - counts.bad) / counts.total if counts.total else None,
        allowed_bad_events=float(period.allowed),
        bad_events_left=float(period.bad_left),
        budget_left_ratio=float(period.budget_left),
    )


def _window(seconds: int, burn: Burn) -> SloWindow:
    return SloWindow(
        window=window_name(seconds),
        events=burn.counts.total,
        bad_events=burn.counts.bad,
        burn_rate=float(burn.rate),
    )


def _time(time_ns: int) -> datetime:
    return moment(time_ns) or datetime.fromtimestamp(0, UTC)
