"""
The linter does the arithmetic that a reader of `slo.yaml` would have to do: what can never fire, or never be kept.

It finds what parses and is wrong all the same. Errors make `mppobs slo check` exit with 1; warnings do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

import promql_parser

from mppobs.catalog.metrics import BY_NAME
from mppobs.errors import nearest
from mppobs.slo.budget import allowed_bad, is_sparse
from mppobs.slo.model import EventUnit, IndicatorKind, Slo
from mppobs.slo.series import MAX_SERIES, series_of
from mppobs.slo.windows import DAY, LEGS, Leg, window_name

SCRAPES_PER_WINDOW: Final = 4

_UNIT_WORDS: Final = {EventUnit.JOB: "runs", EventUnit.SHARD: "shards", EventUnit.MINUTE: "minutes"}


class Level(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


class Check(StrEnum):
    """What a finding is about; stable, for machines and for excuses."""

    OBJECTIVE_100 = "objective-100"
    UNREACHABLE_LEG = "unreachable-leg"
    BUDGET_UNDER_ONE = "budget-under-one"
    WINDOW_TOO_SHORT = "window-too-short"
    WINDOW_OVER_RETENTION = "window-over-retention"
    NOBODY_EMITS = "nobody-emits"
    TOO_MANY_SERIES = "too-many-series"
    NO_OWNER = "no-owner"
    SPEC = "spec"
    """The file itself is wrong: an unknown key, a value without meaning, a name that stands twice."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to do about it."""

    level: Level
    check: Check
    slo: str
    """Full name; empty for what concerns the whole file."""
    message: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the linter is told about where the SLOs will live."""

    scrape_seconds: int = 30
    retention_days: int = 15
    """Prometheus's own default."""
    max_series: int = MAX_SERIES
    """What SLOs may add to a Prometheus."""
    emitted: frozenset[str] | None = None
    """Pipelines that some aggregator knows; `None` where nobody was asked."""
    time_scale: int = 1


def lint(slos: Sequence[Slo], where: Surroundings | None = None) -> list[Finding]:
    """
    Return what is wrong with a set of SLOs, the worst first, in the order of the SLOs.

    >>> from mppobs.slo.spec import parse_spec
    >>> spec = parse_spec("team: t\\npipelines: {p: {owner: o, every: 1d, objectives: {job-success: 100%}}}")
    >>> [finding.check.value for finding in lint(spec.slos)]
    ['objective-100']
    """
    chosen = where or Surroundings()
    found = [finding for slo in slos for finding in _of_slo(slo, chosen)]
    found += list(_of_all(slos, chosen))
    return sorted(found, key=lambda finding: finding.level is not Level.ERROR)


def legs_of(slo: Slo) -> list[Leg]:
    """Return the legs that an SLO's tier has; on spend only those of a day or more, since money comes in bursts."""
    legs = [leg for leg in LEGS if slo.tier in leg.tiers]
    return [leg for leg in legs if leg.long_seconds >= DAY] if slo.indicator is IndicatorKind.SPEND else legs


def _of_slo(slo: Slo, where: Surroundings) -> Iterator[Finding]:
    """Yield what is wrong with one SLO by itself."""
    if slo.objective == 1:
        yield _finding(
            slo, Level.ERROR, Check.OBJECTIVE_100,
            "100 % leaves no budget: the first bad event ends it for the whole period; promise less",
        )  # fmt: skip
        return
    yield from _budget(slo)
    if not is_sparse(slo):
        yield from _unreachable(slo)
    yield from _windows(slo, where)
    yield from _emitted(slo, where)
    if not slo.owner:
        yield _finding(slo, Level.WARNING, Check.NO_OWNER, "its pages reach the on-call alone; add `owner`")


def _budget(slo: Slo) -> Iterator[Finding]:
    """Yield whether the budget is less than one event: then a single failure breaks the promise."""
    if slo.expected_events == 0:
        return
    budget = allowed_bad(slo.expected_events, slo.objective)
    if budget < 1:
        unit = _UNIT_WORDS.get(slo.unit, "events")
        best = 1 - Fraction(1, slo.expected_events)
        yield _finding(
            slo, Level.WARNING, Check.BUDGET_UNDER_ONE,
            f"{_percent(slo.objective)} of {slo.expected_events} {unit} in {slo.period_days} days leaves a budget of "
            f"{float(budget):.3g} {unit}: one bad one breaks it. At most {_percent(best)} can survive one, "
            "or take a longer period",
        )  # fmt: skip


def _unreachable(slo: Slo) -> Iterator[Finding]:
    """Yield the legs that no error rate can fire."""
    dead = [leg for leg in legs_of(slo) if not leg.reachable(slo.objective, slo.period_days)]
    if dead:
        names = ", ".join(f"{leg.name} ({float(leg.factor(slo.period_days)):.4g} ×)" for leg in dead)
        least = max(1 - 1 / leg.factor(slo.period_days) for leg in dead)
        yield _finding(
            slo, Level.ERROR, Check.UNREACHABLE_LEG,
            f"can never fire: {names}, since even 100 % bad events burn only {float(1 / slo.budget):.4g} ×; "
            f"these legs need an objective above {_percent(least)}",
        )  # fmt: skip


def _windows(slo: Slo, where: Surroundings) -> Iterator[Finding]:
    """Yield windows that hold too few scrapes, and those that reach further back than Prometheus does."""
    least = SCRAPES_PER_WINDOW * where.scrape_seconds * where.time_scale
    short = [leg for leg in legs_of(slo) if leg.short_seconds < least]
    if short:
        leg = short[0]
        yield _finding(
            slo, Level.ERROR, Check.WINDOW_TOO_SHORT,
            f"the {window_name(leg.short_seconds)} window of leg {leg.name!r} holds fewer than {SCRAPES_PER_WINDOW} "
            f"scrapes at one every {where.scrape_seconds} s: {leg.short_seconds // SCRAPES_PER_WINDOW} s will do",
        )  # fmt: skip
    longest = max((leg.long_seconds for leg in legs_of(slo)), default=0)
    if longest > where.retention_days * DAY:
        yield _finding(
            slo, Level.ERROR, Check.WINDOW_OVER_RETENTION,
            f"the {window_name(longest)} window reaches past Prometheus's retention of {where.retention_days} days",
        )  # fmt: skip
    elif slo.period_days > where.retention_days:
        yield _finding(
            slo, Level.WARNING, Check.WINDOW_OVER_RETENTION,
            f"its period of {slo.period_days} days passes Prometheus's retention of {where.retention_days}: "
            + ("its budget is known to nobody" if slo.indicator is IndicatorKind.PROMQL
               else "budget and report come from the aggregator alone"),
        )  # fmt: skip


def _emitted(slo: Slo, where: Surroundings) -> Iterator[Finding]:
    """Yield what the SLO refers to and nobody emits."""
    if slo.pipeline and where.emitted is not None and slo.pipeline not in where.emitted:
        hint = nearest(slo.pipeline, where.emitted) if where.emitted else "none is known yet"
        message = f"no aggregator knows a pipeline {slo.pipeline!r}; {hint}"
        yield _finding(slo, Level.ERROR, Check.NOBODY_EMITS, message)
    for key, query in (("good", slo.bounds.good_query), ("total", slo.bounds.total_query)):
        if query:
            yield from _query(slo, key, query)


def _query(slo: Slo, key: str, query: str) -> Iterator[Finding]:
    """Yield whether a query of the user's own parses, and names metrics of ours that exist."""
    try:
        parsed = promql_parser.parse(query)
        promql_parser.parse(f"sum({query}\n)")  # which only a vector can be
    except ValueError as error:
        yield _finding(slo, Level.ERROR, Check.SPEC, f"`{key}` is no PromQL that can be counted: {error}")
        return
    for name in sorted(_metrics(parsed)):
        base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        if name.startswith(("mpp_", "mppobs_")) and not {name, base} & BY_NAME.keys():
            message = f"`{key}` names {name!r}, which nobody emits; {nearest(name, BY_NAME)}"
            yield _finding(slo, Level.ERROR, Check.NOBODY_EMITS, message)


def _metrics(node: object) -> set[str]:
    """Return the metric names below a node of a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        return {node.name} if node.name else set()
    children = (getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector"))
    found = {name for child in children if child is not None for name in _metrics(child)}
    arguments = getattr(node, "args", None) or ()
    return found | {name for argument in arguments for name in _metrics(argument)}


def _of_all(slos: Sequence[Slo], where: Surroundings) -> Iterator[Finding]:
    """Yield what is wrong with all of them together."""
    series = sum(series_of(slo, where.retention_days) for slo in slos)
    if series > where.max_series:
        yield Finding(
            Level.ERROR, Check.TOO_MANY_SERIES, "",
            f"{len(slos):,} SLOs make {series:,} series, more than the {where.max_series:,} allowed: "
            "promise less, or raise --max-series if Prometheus has the memory, some 4 kB for each",
        )  # fmt: skip


def _finding(slo: Slo, level: Level, check: Check, message: str) -> Finding:
    return Finding(level, check, slo.full_name, message)


def _percent(ratio: Fraction) -> str:
    """Return a ratio as people read it, with as many digits as it needs."""
    return f"{float(ratio * 100):.6g} %"
