"""
The short form of `slo.yaml`, parsed into frozen SLOs. One file per team.

```yaml
team: risk
defaults:
  period: 28d
  exclude: [backfill, drill]
pipelines:
  nightly-scoring:
    tier: critical
    owner: scoring
    every: 1d
    deadline: 3h
    objectives:
      on-time: 95%
      shard-success: 99.9%
      tail: {objective: 95%, at-most: 2}
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar

from mppobs.errors import ConfigError, nearest
from mppobs.model import RunKind, Tier
from mppobs.slo.model import BY_RUN, SPEND_OBJECTIVE, UNITS, Bounds, EventUnit, IndicatorKind, Slo
from mppobs.units import parse_duration
from mppobs.yamlfile import Item, load, loads

DAY: Final = 86400
SHARED_KEYS: Final = ("tier", "owner", "tenant", "period", "exclude", "calendar", "deadline", "every")
"""What can stand in `defaults`, at a pipeline and at an objective; the innermost wins."""

BOUND_KEYS: Final[dict[IndicatorKind, tuple[str, ...]]] = {
    IndicatorKind.SHARD_SUCCESS: (),
    IndicatorKind.JOB_SUCCESS: (),
    IndicatorKind.ON_TIME: (),
    IndicatorKind.DURATION: ("at-most", "at-least"),
    IndicatorKind.TAIL: ("at-most",),
    IndicatorKind.COST: ("at-most",),
    IndicatorKind.SPEND: ("usd-per-period",),
    IndicatorKind.FRESHNESS: ("at-most",),
    IndicatorKind.SCHEDULER_LATENCY: ("at-most",),
    IndicatorKind.CHECKPOINT_LAG: ("at-most",),
    IndicatorKind.COVERAGE: ("at-least",),
    IndicatorKind.PROMQL: ("good", "total"),
}
"""The bounds that each indicator takes; it needs at least one of them where there are any, `promql` both."""

IN_SECONDS: Final = (
    IndicatorKind.DURATION,
    IndicatorKind.FRESHNESS,
    IndicatorKind.SCHEDULER_LATENCY,
    IndicatorKind.CHECKPOINT_LAG,
)
_E = TypeVar("_E", bound=StrEnum)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spec:
    """What one file promises."""

    team: str
    slos: tuple[Slo, ...]
    places: Mapping[str, Item]
    """Where each SLO stands, by full name; for the linter's messages."""


def load_spec(path: Path) -> Spec:
    """Return the SLOs of a file. Raises ConfigError with a line for each mistake: file, line, key, nearest word."""
    return _whole(*read_spec(load(path)))


def load_slos(paths: Iterable[Path]) -> list[Slo]:
    """Return the SLOs of several files. Raises ConfigError with a line for each mistake in any of them."""
    slos, errors = read_slos(paths)
    if errors:
        raise ConfigError("\n".join(map(str, errors)))
    return slos


def read_slos(paths: Iterable[Path]) -> tuple[list[Slo], list[ConfigError]]:
    """Return what can be understood of several files, and every mistake; names are unique over all of them."""
    slos: dict[str, Slo] = {}
    homes: dict[str, Path] = {}
    errors: list[ConfigError] = []
    for path in paths:
        spec, mistakes = read_spec(load(path))
        errors += mistakes
        for slo in spec.slos:
            name = slo.full_name
            if name in homes:
                errors.append(spec.places[name].error(f"{name!r} is in {homes[name]} too"))
            homes.setdefault(name, path)
            slos.setdefault(name, slo)
    return list(slos.values()), errors


def parse_spec(text: str, name: str = "<text>") -> Spec:
    """
    Return the SLOs of a text.

    >>> spec = parse_spec("team: risk\\npipelines: {nightly: {every: 1d, objectives: {job-success: 99.9%}}}")
    >>> [(slo.full_name, slo.objective, slo.expected_events) for slo in spec.slos]
    [('risk/nightly-job-success', Fraction(999, 1000), 30)]
    """
    return _whole(*read_spec(loads(text, name)))


def read_spec(root: Item) -> tuple[Spec, list[ConfigError]]:
    """Return what can be understood of a file, and every mistake in it: one must not hide the others."""
    errors: list[ConfigError] = []
    keys = _mapping(root, ("team", "defaults", "pipelines", "objectives"), errors)
    team = str(keys["team"].value or "") if "team" in keys else ""
    if not team:
        errors.append(root.error("a file needs `team: NAME`: SLOs are named team/name"))
    defaults = _mapping(keys["defaults"], SHARED_KEYS, errors) if "defaults" in keys else {}
    slos: dict[str, Slo] = {}
    places: dict[str, Item] = {}
    for slo, item in _objectives(team or "team", keys, defaults, errors):
        if slo.full_name in places:
            errors.append(item.error(f"{slo.full_name!r} is defined twice, first in line {places[slo.full_name].line}"))
            continue
        slos[slo.full_name], places[slo.full_name] = slo, item
    if not slos and not errors:
        errors.append(root.error("no objectives: write `pipelines: {NAME: {objectives: {job-success: 99%}}}`"))
    # What stands in `defaults` or at a pipeline is read once for each objective, and is one mistake all the same.
    return Spec(team, tuple(slos.values()), places), list({str(error): error for error in errors}.values())


def _whole(spec: Spec, errors: list[ConfigError]) -> Spec:
    """Return a spec without mistakes, or raise all of them as one."""
    if errors:
        raise ConfigError("\n".join(str(error) for error in errors))
    return spec


def parse_objective(item: Item) -> Fraction:
    """
    Return an objective exactly as it was written: `99.9%`, `99.9 %` or `0.999`.

    100 % parses; that nothing can keep it is the linter's to say.
    """
    if isinstance(item.value, list | dict) or item.value is None:
        raise item.error(f"an objective is written 99.9% or 0.999, got {item.describe()}")
    text = item.string().strip()
    number, percent = (text[:-1].strip(), True) if text.endswith("%") else (text, False)
    try:
        value = Fraction(Decimal(number)) / (100 if percent else 1)
    except (InvalidOperation, ValueError, OverflowError):
        raise item.error(f"{text!r} is no objective: write 99.9% or 0.999") from None
    if not 0 < value <= 1:
        hint = f"; did you mean {text}%?" if not percent and 1 < value <= 100 else ""
        raise item.error(f"an objective lies between 0 and 100%, got {text!r}{hint}")
    return value


def _mapping(item: Item, known: Iterable[str] | None, errors: list[ConfigError]) -> dict[str, Item]:
    """Return the keys and items of a mapping as far as there are any; what is wrong with it is noted."""
    try:
        return item.mapping(known)
    except ConfigError as error:
        errors.append(error)
        return item.value if isinstance(item.value, dict) else {}


def _objectives(
    team: str, keys: Mapping[str, Item], defaults: Mapping[str, Item], errors: list[ConfigError]
) -> Iterator[tuple[Slo, Item]]:
    """Yield every SLO with its place: those of pipelines, then those of the team at large (`promql`)."""
    for pipeline, item in _entries(keys, "pipelines", errors):
        own = _mapping(item, (*SHARED_KEYS, "objectives"), errors)
        if "objectives" not in own or own["objectives"].value == {}:
            errors.append(item.error("a pipeline needs `objectives`"))
        shared = {**defaults, **{key: value for key, value in own.items() if key in SHARED_KEYS}}
        yield from _slos(team, pipeline, _entries(own, "objectives", errors), shared, errors)
    yield from _slos(team, "", _entries(keys, "objectives", errors), defaults, errors)


def _slos(
    team: str,
    pipeline: str,
    entries: Iterable[tuple[str, Item]],
    shared: Mapping[str, Item],
    errors: list[ConfigError],
) -> Iterator[tuple[Slo, Item]]:
    """Yield the SLOs among the entries; mistakes are noted."""
    for name, item in entries:
        mistakes = len(errors)
        try:
            found = _slo(team, pipeline, name, item, shared, errors)
        except ConfigError as error:
            errors.append(error)
            continue
        if len(errors) == mistakes:
            yield found, item


def _noted(errors: list[ConfigError], fallback: _T, read: Callable[[], _T]) -> _T:
    """Return what is read, or something to go on with after a mistake, which is noted."""
    try:
        return read()
    except ConfigError as error:
        errors.append(error)
        return fallback


def _entries(keys: Mapping[str, Item], key: str, errors: list[ConfigError]) -> list[tuple[str, Item]]:
    """Return the entries below a key that may be absent."""
    if key not in keys:
        return []
    return list(_mapping(keys[key], None, errors).items())


def _slo(
    team: str, pipeline: str, name: str, item: Item, shared: Mapping[str, Item], errors: list[ConfigError]
) -> Slo:  # fmt: skip
    """Return one SLO from its entry: an objective alone, or keys and values. Mistakes in single keys are noted."""
    plain = not isinstance(item.value, dict)
    own = {"objective": item} if plain else item.mapping()
    indicator = _indicator(name, own, item)
    if not plain:
        known = ("objective", "indicator", "description", "stage", *BOUND_KEYS[indicator], *SHARED_KEYS)
        _mapping(item, known, errors)
    if indicator is not IndicatorKind.PROMQL and not pipeline:
        raise item.error(f"{indicator.value!r} is about a pipeline: put it under pipelines.NAME.objectives")
    keys = {**shared, **own}
    period = _noted(errors, 1, lambda: parse_period(keys.get("period")))
    return Slo(
        team=team,
        name=f"{pipeline}-{name}" if pipeline else name,
        indicator=indicator,
        objective=_noted(errors, SPEND_OBJECTIVE, lambda: _objective(indicator, keys, item)),
        period_days=period,
        pipeline=pipeline,
        tenant=_noted(errors, "", lambda: _text(keys, "tenant")),
        stage=_noted(errors, "", lambda: _text(keys, "stage")),
        owner=_noted(errors, "", lambda: _text(keys, "owner")),
        tier=_noted(errors, Tier.STANDARD, lambda: member(Tier, keys["tier"]) if "tier" in keys else Tier.STANDARD),
        bounds=_noted(errors, Bounds(), lambda: parse_bounds(indicator, keys, item)),
        exclude=_noted(errors, (), lambda: _exclude(indicator, keys, own)),
        calendar=_noted(errors, False, lambda: keys["calendar"].boolean() if "calendar" in keys else False),
        description=_noted(errors, "", lambda: _text(keys, "description")),
        expected_events=_noted(errors, 0, lambda: parse_expected(indicator, keys, period)),
    )


def _objective(indicator: IndicatorKind, keys: Mapping[str, Item], item: Item) -> Fraction:
    """Return what is promised; money needs no words for it."""
    if "objective" in keys:
        return parse_objective(keys["objective"])
    if indicator is IndicatorKind.SPEND:
        return SPEND_OBJECTIVE
    raise item.error("needs `objective`, such as 99.9%")


def _exclude(indicator: IndicatorKind, keys: Mapping[str, Item], own: Mapping[str, Item]) -> tuple[RunKind, ...]:
    """
    Return the kinds of run that do not count. What belongs to no run has none, whatever its pipeline leaves out.

    To ask for it there is a mistake, since it would change nothing.
    """
    if "exclude" not in keys:
        return ()
    kinds = tuple(member(RunKind, kind) for kind in keys["exclude"].items())
    if UNITS[indicator] in BY_RUN:
        return kinds
    if "exclude" in own:
        events = f"a {UNITS[indicator].value} belongs to no run"
        raise own["exclude"].error(f"`exclude` has no effect on {indicator.value!r}: {events}")
    return ()


def _indicator(name: str, own: Mapping[str, Item], item: Item) -> IndicatorKind:
    """Return the indicator that an entry names, by `indicator` or by its own name."""
    if "indicator" in own:
        return member(IndicatorKind, own["indicator"])
    try:
        return IndicatorKind(name)
    except ValueError:
        known = [kind.value for kind in IndicatorKind]
        raise item.error(f"{name!r} is no indicator; {nearest(name, known)} (or name one by `indicator:`)") from None


def parse_bounds(indicator: IndicatorKind, keys: Mapping[str, Item], item: Item) -> Bounds:
    """Return the figures that the indicator compares with; one that needs some and has none is an error."""
    wanted = BOUND_KEYS[indicator]
    missing = [key for key in wanted if key not in keys]
    if missing and (indicator is IndicatorKind.PROMQL or len(missing) == len(wanted)):
        raise item.error(f"{indicator.value!r} needs {' and '.join(f'`{key}`' for key in missing)}")
    if indicator is IndicatorKind.PROMQL:
        return Bounds(good_query=keys["good"].string(), total_query=keys["total"].string())
    number = _seconds if indicator in IN_SECONDS else _figure
    most, least = (number(keys[key]) if key in wanted and key in keys else None for key in ("at-most", "at-least"))
    if most is not None and least is not None and least > most:
        words = f"{keys['at-least'].describe()} at least and {keys['at-most'].describe()} at most"
        raise keys["at-least"].error(f"nothing is good: {words}")
    return Bounds(
        at_most=most,
        at_least=least,
        deadline_seconds=_seconds(keys["deadline"])
        if indicator is IndicatorKind.ON_TIME and "deadline" in keys
        else None,
        usd_per_period=_figure(keys["usd-per-period"]) if "usd-per-period" in wanted else None,
    )


def parse_expected(indicator: IndicatorKind, keys: Mapping[str, Item], period: int) -> int:
    """Return how many events a period is expected to see: runs by `every`, minutes by the calendar, else unknown."""
    if UNITS[indicator] is EventUnit.MINUTE:
        return period * 1440
    if UNITS[indicator] is EventUnit.JOB and "every" in keys:
        return int(period * DAY / _seconds(keys["every"]))
    return 0


def parse_period(item: Item | None) -> int:
    """Return a period in whole days; 30 where none is given."""
    if item is None:
        return 30
    seconds = _seconds(item)
    if seconds % DAY or not 1 <= seconds // DAY <= 366:
        raise item.error(f"a period is 1 to 366 whole days, got {item.describe()}")
    return int(seconds // DAY)


def _seconds(item: Item) -> Decimal:
    """Return a positive duration in seconds."""
    try:
        seconds = Decimal(str(parse_duration(item.string())))
    except ValueError as error:
        raise item.error(str(error)) from None
    if seconds <= 0:
        raise item.error(f"a duration is longer than nothing, got {item.describe()}")
    return seconds


def _figure(item: Item) -> Decimal:
    """Return a positive number exactly; a percentage becomes a ratio."""
    text = item.string().strip()
    try:
        value = Decimal(text.rstrip("%").strip()) / (100 if text.endswith("%") else 1)
    except InvalidOperation:
        raise item.error(f"expected a number, got {text!r}") from None
    if not value.is_finite() or value <= 0:
        raise item.error(f"expected a positive number, got {text!r}")
    return value


def _text(keys: Mapping[str, Item], key: str) -> str:
    return keys[key].string() if key in keys else ""


def member(enum: type[_E], item: Item) -> _E:
    """Return the member of a closed list that an item names."""
    try:
        return enum(item.string())
    except ValueError:
        raise item.error(f"unknown {item.string()!r}; {nearest(item.string(), [m.value for m in enum])}") from None
