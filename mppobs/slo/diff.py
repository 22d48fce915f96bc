"""What a change of promises means, in words: what now pages at which error rate, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from fractions import Fraction

from mppobs.model import Severity, Tier
from mppobs.slo.budget import is_sparse
from mppobs.slo.evaluate import definition
from mppobs.slo.lint import legs_of
from mppobs.slo.model import Bounds, Slo
from mppobs.slo.windows import DAY, Leg, window_name
from mppobs.units import human_seconds


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one SLO."""

    slo: str
    what: str
    """`added`, `removed` or `changed`."""
    lines: tuple[str, ...]
    """One sentence each."""
    new_revision: bool = False
    """Whether what counts as an event changes, so that its history is no longer comparable."""


def diff(old: Sequence[Slo], new: Sequence[Slo]) -> list[Change]:
    """
    Return what becomes of every SLO that is not the same in both, by name.

    >>> from mppobs.slo.spec import parse_spec
    >>> text = "team: t\\npipelines: {p: {objectives: {shard-success: %s}}}"
    >>> changes = diff(parse_spec(text % "99%").slos, parse_spec(text % "99.9%").slos)
    >>> print(changes[0].lines[0])
    objective 99 % → 99.9 %: the budget of a period is 0.1 % of its events, was 1 %
    """
    before = {slo.full_name: slo for slo in old}
    after = {slo.full_name: slo for slo in new}
    changes = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            changes.append(Change(name, "added", tuple(_alerts(after[name]))))
        elif name not in after:
            changes.append(Change(name, "removed", ("nothing watches it any more; its counts are kept",)))
        elif before[name] != after[name]:
            changes.append(_changed(before[name], after[name]))
    return changes


def fires_at(slo: Slo, leg: Leg) -> Fraction:
    """
    Return the error rate from which a leg fires; above 1 it never does.

    >>> from mppobs.slo.windows import LEGS
    >>> from mppobs.slo.model import IndicatorKind
    >>> fires_at(Slo("t", "n", IndicatorKind.ON_TIME, Fraction("0.999"), 30, "p"), LEGS[0])
    Fraction(9, 625)
    """
    return leg.factor(slo.period_days) * slo.budget


def detection_seconds(slo: Slo, leg: Leg, error_rate: Fraction = Fraction(1)) -> float | None:
    """
    Return how long a steady error rate runs, from a clean state, until a leg fires; `None` for never.

    Burn in the long window rises linearly while bad events fill it: `long × factor × budget ÷ error rate`. The short
    window, a twelfth of it, is full of them by then. Where events are few, the leg waits for as many bad ones as it
    needs, evenly spaced, and never fires if its window does not hold them. Scrape and evaluation come on top.

    >>> from mppobs.slo.windows import LEGS
    >>> from mppobs.slo.model import IndicatorKind
    >>> detection_seconds(Slo("t", "n", IndicatorKind.ON_TIME, Fraction("0.999"), 30, "p"), LEGS[0])
    51.84
    >>> hourly = Slo("t", "n", IndicatorKind.ON_TIME, Fraction("0.99"), 30, "p", expected_events=720)
    >>> [detection_seconds(hourly, leg) for leg in LEGS[:2]]
    [None, 3600.0]
    """
    threshold = fires_at(slo, leg)
    until_enough = (leg.min_bad - 1) * spacing_seconds(slo) / error_rate
    if threshold >= error_rate or until_enough >= leg.long_seconds:
        return None
    return float(max(leg.long_seconds * threshold / error_rate, until_enough))


def spacing_seconds(slo: Slo) -> Fraction:
    """Return the time from one event to the next, as the owner expects them; 0 where nobody said how many there are."""
    return Fraction(slo.period_days * DAY, slo.expected_events) if slo.expected_events else Fraction(0)


def latched_severity(slo: Slo) -> Severity:
    """Return what a bad event of an SLO does that sees too few of them for a rate."""
    return Severity.PAGE if slo.tier is Tier.CRITICAL else Severity.TICKET


def _changed(old: Slo, new: Slo) -> Change:
    lines = list(_fields(old, new))
    if is_sparse(old) != is_sparse(new):
        lines.append("alerts by " + ("the last event, until a good one" if is_sparse(new) else "burn rate"))
    elif is_sparse(new) and latched_severity(old) is not latched_severity(new):
        lines.append(f"a bad event {_does(latched_severity(new))}, until a good one; it {_did(latched_severity(old))}")
    elif not is_sparse(new):
        lines += _legs(old, new)
    anew = definition(old) != definition(new)
    if anew:
        lines.append("what counts as an event changes: counting starts anew (a new revision)")
    return Change(new.full_name, "changed", tuple(lines), anew)


def _fields(old: Slo, new: Slo) -> Iterator[str]:
    """Yield what is written differently."""
    if old.objective != new.objective:
        yield (
            f"objective {_percent(old.objective)} → {_percent(new.objective)}: "
            f"the budget of a period is {_percent(new.budget)} of its events, was {_percent(old.budget)}"
        )
    for field in fields(Slo):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was != now and field.name not in ("objective", "bounds"):
            yield f"{field.name.replace('_', ' ')} {_word(was)} → {_word(now)}"
    for field in fields(Bounds):
        was, now = getattr(old.bounds, field.name), getattr(new.bounds, field.name)
        if was != now:
            yield f"{field.name.replace('_', ' ')} {_word(was)} → {_word(now)}"


def _legs(old: Slo, new: Slo) -> Iterator[str]:
    """Yield how alerting shifts, leg by leg."""
    before = {leg.name: leg for leg in legs_of(old)}
    after = {leg.name: leg for leg in legs_of(new)}
    for name, leg in after.items():
        if name not in before:
            yield _alert(new, leg)
        elif _pace(old, before[name]) != _pace(new, leg):
            yield f"{_alert(new, leg)}; was {_pace(old, before[name])}"
    for name in before.keys() - after.keys():
        yield f"leg {name} no longer {_does(before[name].severity)}"


def _alerts(slo: Slo) -> Iterator[str]:
    """Yield how an SLO alerts."""
    if is_sparse(slo):
        yield f"a bad event {_does(latched_severity(slo))}, until a good one: its budget is too few events for a rate"
    else:
        yield from (_alert(slo, leg) for leg in legs_of(slo))


def _alert(slo: Slo, leg: Leg) -> str:
    """Return one leg in words."""
    outage = detection_seconds(slo, leg)
    over = window_name(leg.long_seconds)
    if fires_at(slo, leg) >= 1:
        return f"leg {leg.name} can never fire"
    if outage is None:
        apart = human_seconds(float(spacing_seconds(slo)))
        return f"leg {leg.name} does not fire: with an event each {apart}, {over} holds no {leg.min_bad} bad ones"
    rate = _percent(fires_at(slo, leg))
    return f"{_does(leg.severity)} at {rate} bad events over {over}, {human_seconds(outage)} into a total outage"


def _does(severity: Severity) -> str:
    return "pages" if severity is Severity.PAGE else "opens a ticket"


def _did(severity: Severity) -> str:
    return "paged" if severity is Severity.PAGE else "opened a ticket"


def _pace(slo: Slo, leg: Leg) -> str:
    """Return from which error rate a leg fires, and how soon in a total outage."""
    outage = detection_seconds(slo, leg)
    return "silent" if outage is None else f"{_percent(fires_at(slo, leg))}, {human_seconds(outage)}"


def _percent(ratio: Fraction) -> str:
    return f"{float(ratio * 100):.6g} %"


def _word(value: object) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, tuple):
        return ", ".join(str(entry) for entry in value) or "nothing"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value) if value not in ("", None) else "nothing"
