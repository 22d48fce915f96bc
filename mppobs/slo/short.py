"""SLOs written in the short form of `slo.yaml`, exactly: what is written here reads back to the same values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import yaml

from mppobs.errors import ConfigError
from mppobs.model import Tier
from mppobs.slo.model import SPEND_OBJECTIVE, UNITS, EventUnit, IndicatorKind, Slo
from mppobs.slo.spec import DAY, IN_SECONDS, SHARED_KEYS, parse_spec

_UNITS: Final = (("d", DAY), ("h", 3600), ("m", 60), ("s", 1))
_DIGITS: Final = 60
"""After the point; a fraction that needs more is no decimal."""


def exact_decimal(value: Fraction) -> str:
    """
    Return a fraction as a decimal without loss. Raises ConfigError where no decimal equals it.

    >>> exact_decimal(Fraction(999, 1000)), exact_decimal(Fraction(3))
    ('0.999', '3')
    """
    for digits in range(_DIGITS + 1):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            return format(Decimal(scaled.numerator).scaleb(-digits), "f")
    raise ConfigError(f"{value} cannot be written as a decimal")


def duration_text(seconds: Decimal) -> str:
    """
    Return a duration in the largest unit that divides it.

    >>> duration_text(Decimal(10800)), duration_text(Decimal("90")), duration_text(Decimal("0.25"))
    ('3h', '90s', '0.25s')
    """
    for unit, size in _UNITS:
        if seconds % size == 0:
            return f"{int(seconds) // size}{unit}"
    return f"{seconds:f}s"


def bounds_words(slo: Slo) -> dict[str, str | Decimal]:
    """
    Return the figures that an SLO compares with, by their keys in `slo.yaml` and as they are written there.

    >>> bounds_words(parse_spec("team: t\\npipelines: {p: {objectives: {tail: {objective: 95%, at-most: 2}}}}").slos[0])
    {'at-most': Decimal('2')}
    """
    bounds, number = slo.bounds, duration_text if slo.indicator in IN_SECONDS else _itself
    words: dict[str, str | Decimal] = {}
    if bounds.at_most is not None:
        words["at-most"] = number(bounds.at_most)
    if bounds.at_least is not None:
        words["at-least"] = number(bounds.at_least)
    if bounds.deadline_seconds is not None:
        words["deadline"] = duration_text(bounds.deadline_seconds)
    if bounds.usd_per_period is not None:
        words["usd-per-period"] = bounds.usd_per_period
    if slo.indicator is IndicatorKind.PROMQL:
        words |= {"good": bounds.good_query, "total": bounds.total_query}
    return words


def short_form(slos: Sequence[Slo]) -> str:
    """
    Return the SLOs of one team as the text of a `slo.yaml`, with what they share said once.

    Raises ConfigError where they are of several teams, or the short form cannot say one of them.
    """
    teams = sorted({slo.team for slo in slos})
    if len(teams) != 1:
        raise ConfigError(f"a file is for one team, these are of {', '.join(teams) or 'none'}: name one team for all")
    pipelines: dict[str, dict[str, Any]] = {}
    others: dict[str, dict[str, Any]] = {}
    for slo in slos:
        entries = pipelines.setdefault(slo.pipeline, {}) if slo.pipeline else others
        entries[_key(slo)] = _entry(slo)
    groups = {name: _lift(entries.values()) for name, entries in pipelines.items()}
    defaults = _lift([*groups.values(), *others.values()])
    document: dict[str, Any] = {"team": teams[0]}
    if defaults:
        document["defaults"] = defaults
    if pipelines:
        document["pipelines"] = {
            name: {**groups[name], "objectives": _plainest(entries)} for name, entries in pipelines.items()
        }
    if others:
        document["objectives"] = _plainest(others)
    text = dump(document)
    _check(text, slos)
    return text


def dump(document: object) -> str:
    """Return a document as YAML in the order in which it was built, without anchors."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes a shared value each time in full, for people and for tools that do not know anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _decimal(dumper: yaml.SafeDumper, value: Decimal) -> yaml.Node:
    """Write a decimal as a number, digit by digit."""
    text = f"{value:f}"
    return dumper.represent_scalar("tag:yaml.org,2002:float" if "." in text else "tag:yaml.org,2002:int", text)


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    """Write a text; one with breaks or invisible characters in quotes, which keep them all."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(Decimal, _decimal)
_Dumper.add_representer(str, _string)


def _itself(value: Decimal) -> Decimal:
    return value


def _key(slo: Slo) -> str:
    """Return the name of an SLO below its pipeline."""
    prefix = f"{slo.pipeline}-" if slo.pipeline else ""
    if not slo.name.startswith(prefix) or slo.name == prefix:
        raise ConfigError(f"{slo.full_name!r}: an SLO on {slo.pipeline!r} is called {prefix}NAME here")
    return slo.name.removeprefix(prefix)


def _entry(slo: Slo) -> dict[str, Any]:
    """Return everything that is to be said of one SLO; what is usual is left out."""
    own: dict[str, Any] = {}
    if _key(slo) != slo.indicator.value:
        own["indicator"] = slo.indicator.value
    if slo.indicator is not IndicatorKind.SPEND or slo.objective != SPEND_OBJECTIVE:
        own["objective"] = f"{exact_decimal(slo.objective * 100)}%"
    own |= {"description": slo.description, "stage": slo.stage}
    own |= {"tier": slo.tier.value if slo.tier is not Tier.STANDARD else "", "owner": slo.owner, "tenant": slo.tenant}
    own |= {"period": f"{slo.period_days}d" if slo.period_days != 30 else "", "exclude": [k.value for k in slo.exclude]}
    own |= {"calendar": slo.calendar, "every": _every(slo), **bounds_words(slo)}
    return {key: value for key, value in own.items() if value or value is None}


def _every(slo: Slo) -> str | None:
    """Return how often runs are expected, where the SLO says how many; None where it does not count runs."""
    if UNITS[slo.indicator] is not EventUnit.JOB:
        return None
    if not slo.expected_events:
        return ""
    interval = Fraction(slo.period_days * DAY, slo.expected_events)
    return duration_text(Decimal(int(interval * 10**6)) / 10**6)


def _lift(groups: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """
    Take the settings that are the same in all of the entries out of them, and return them.

    An entry whose setting is None does not care.
    """
    entries = list(groups)
    shared: dict[str, Any] = {}
    for key in SHARED_KEYS:
        values = [entry.get(key, "") for entry in entries]
        said = [value for value in values if value is not None]
        if len(said) > 1 and said[0] and all(value == said[0] for value in said):
            shared[key] = said[0]
            for entry in entries:
                del entry[key]
    return shared


def _plainest(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return entries without what does not concern them, and those that are an objective alone as that."""
    said = {name: {k: value for k, value in entry.items() if value is not None} for name, entry in entries.items()}
    return {name: entry["objective"] if entry.keys() == {"objective"} else entry for name, entry in said.items()}


def _check(text: str, slos: Sequence[Slo]) -> None:
    """Raise ConfigError where the text does not read back to the same SLOs."""
    read = {slo.full_name: slo for slo in parse_spec(text, "short form").slos}
    for slo in slos:
        if read.get(slo.full_name) != slo:
            raise ConfigError(f"{slo.full_name!r} cannot be said in the short form: {_differences(slo, read)}")


def _differences(slo: Slo, read: dict[str, Slo]) -> str:
    """Return what would be read instead."""
    other = read.get(slo.full_name)
    if other is None:
        return "it would have another name"
    names = [name for name in Slo.__dataclass_fields__ if getattr(slo, name) != getattr(other, name)]
    return ", ".join(f"{name} {getattr(slo, name)} would be {getattr(other, name)}" for name in names)
