"""Queries against what there is: the checks of pint that need no server, and units that fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import promql_parser as promql

from mppobs.catalog.metrics import BY_NAME, Type
from mppobs.errors import ConfigError
from mppobs.render.dashboards.check.findings import Problem, Rule, Target, targets, variables
from mppobs.render.dashboards.check.linter import with_parents
from mppobs.render.dashboards.check.meaning import Meaning, Powers, meaning
from mppobs.render.dashboards.fields import Json
from mppobs.render.dashboards.interpolate import words_of
from mppobs.render.dashboards.queries import base_name

_OWN_WORDS: Final = frozenset({
    "__rate_interval", "__interval", "__interval_ms", "__range", "__range_s", "__range_ms", "__from", "__to",
})  # fmt: skip
_FITS: Final[Mapping[str, tuple[Powers, ...]]] = {
    "s": ({"s": 1},),
    "dtdurations": ({"s": 1},),
    "bytes": ({"B": 1},),
    "binBps": ({"B": 1, "s": -1},),
    "currencyUSD": ({"usd": 1},),
    "percentunit": ({},),
    "short": ({"n": 1}, {}),
    "suffix:×": ({},),
    "cps": ({"n": 1, "s": -1},),
    "suffix: / h": ({"n": 1, "s": -1},),
}
"""By Grafana's unit: what a query may compute that is shown in it."""
_SCALED: Final = {"suffix: / h": 3600.0, "dateTimeAsIsoNoDateIfToday": 1000.0}
_LEGEND: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def _meanings(dashboard: Json) -> Iterator[tuple[Target, Meaning]]:
    """Yield what every query computes that can be understood; the others are another rule's."""
    for target in targets(dashboard):
        try:
            yield target, meaning(target.promql)
        except (ValueError, ConfigError):
            continue


def _known(dashboard: Json) -> Iterator[Problem]:
    """Every metric is one that somebody exposes, every label one that it carries there (pint: promql/series)."""
    for target in targets(dashboard):
        try:
            found = meaning(target.promql)
        except ConfigError as error:
            yield target.where, f"query {target.letter}: {error}"
        except ValueError:  # told by target-promql-rule
            continue
        else:
            yield from ((target.where, f"query {target.letter}: {wrong}") for wrong in found.wrong)


def _units(dashboard: Json) -> Iterator[Problem]:
    """What a query computes is what the unit of its field says."""
    for target, found in _meanings(dashboard):
        unit = _unit_of_field(target)
        if target.panel["type"] == "heatmap":  # whose unit is that of the buckets' bounds
            found = meaning(f"histogram_quantile(0.5, {target.promql})")
        if not unit or found.powers is None:
            continue
        if unit.startswith("dateTime"):
            if found.powers != {"t": 1} or found.scale != _SCALED.get(unit):
                yield target.where, f"query {target.letter}: {unit} wants a time in milliseconds"
        elif not _fits(found.powers, unit) or found.scale != _SCALED.get(unit, 1.0):
            yield target.where, f"query {target.letter}: it computes {dict(found.powers)}, shown as {unit}"


def _fits(powers: Powers, unit: str) -> bool:
    """Return whether a unit suits: dollars per job are dollars, seconds per run are seconds."""
    physical = {base: power for base, power in powers.items() if base != "n"}
    plain = physical if physical and physical != {"s": -1} else dict(powers)
    return plain in _FITS.get(unit, ())


def _unit_of_field(target: Target) -> str:
    """Return the unit in which the values of a query are shown: its column's in a table, else the panel's."""
    config = target.panel.get("fieldConfig", {})
    default = str(config.get("defaults", {}).get("unit", ""))
    if target.panel["type"] != "table":
        return default
    names = _column_names(target.panel)
    title = names.get(f"Value #{target.letter}") or names.get("Value", "")
    for override in config.get("overrides", []):
        if override["matcher"] == {"id": "byName", "options": title}:
            return next((str(each["value"]) for each in override["properties"] if each["id"] == "unit"), default)
    return default


def _column_names(panel: Json) -> dict[str, str]:
    """Return the columns of a table by where they come from."""
    for transformation in panel.get("transformations", []):
        if transformation["id"] == "organize":
            names: dict[str, str] = transformation["options"]["renameByName"]
            return names
    return {}


def _shown_labels(dashboard: Json) -> Iterator[Problem]:
    """Legends and columns name labels that are left of the query."""
    labels: dict[str, set[str]] = {}
    columns: dict[str, dict[str, str]] = {}
    for target, found in _meanings(dashboard):
        labels.setdefault(target.where, set()).update(found.labels)
        columns[target.where] = _column_names(target.panel)
        for label in _LEGEND.findall(target.legend):
            if label not in found.labels:
                yield target.where, f"query {target.letter}: the legend names {label!r}, which is not left"
    for where, names in columns.items():
        for source in names:
            if not source.startswith("Value") and source not in labels[where]:
                yield where, f"column {source!r}: no query has that label"


def _words(dashboard: Json) -> Iterator[Problem]:
    """Queries use only variables that exist."""
    names = {variable["name"] for variable in variables(dashboard)} | _OWN_WORDS
    for target in targets(dashboard):
        for word in sorted(words_of(target.written) - names):
            if not word.isdigit():  # a group of label_replace
                yield target.where, f"query {target.letter}: there is no variable {word!r}"


def _rates(dashboard: Json) -> Iterator[Problem]:
    """Rates are taken of counters, and before they are summed (pint: promql/rate, promql/counter)."""
    for target in targets(dashboard):
        for selector, above in with_parents(target.promql):
            name = selector.name or ""
            calls = {each.func.name for each in above if isinstance(each, promql.Call)}
            metric = BY_NAME.get(base_name(name))
            counts = name.endswith(("_total", "_bucket", "_count", "_sum"))
            if calls & {"rate", "irate", "increase"} and metric is not None and not counts:
                yield target.where, f"query {target.letter}: a rate of {name}, which is a {metric.type}"
            if calls & {"delta", "deriv"} and (counts or (metric is not None and metric.type is Type.COUNTER)):
                yield target.where, f"query {target.letter}: {name} is a counter: take its rate"


def _regexes(dashboard: Json) -> Iterator[Problem]:
    """Regular expressions are only where they are needed, and without anchors (pint: promql/regexp)."""
    for target in targets(dashboard):
        for name, operator, value in re.findall(r'(\w+)\s*(=~|!~)\s*"([^"]*)"', target.written):
            if value.startswith("^") or value.endswith("$") or value == "":
                yield target.where, f"query {target.letter}: {name}{operator}{value!r}: PromQL anchors by itself"
            elif not re.search(r"[\\^$.*+?()\[\]{}|]", value):
                yield target.where, f"query {target.letter}: {name}{operator}{value!r} needs no regular expression"


def _divisions(dashboard: Json) -> Iterator[Problem]:
    """No sum holds a quotient: one 0/0 in it would spoil it all (pint: promql/nan)."""
    for target in targets(dashboard):
        for _selector, above in with_parents(target.promql):
            for place, node in enumerate(above):
                inside = above[place + 1 :]
                sums = isinstance(node, promql.AggregateExpr) and str(node.op) in ("sum", "avg")
                if sums and any(isinstance(each, promql.BinaryExpr) and str(each.op) == "/" for each in inside):
                    yield target.where, f"query {target.letter}: a quotient inside {node.op}"  # type: ignore[attr-defined]


QUERIES: Final[Mapping[str, Rule]] = {
    "known-metrics-and-labels": _known,
    "unit-fits": _units,
    "shown-labels": _shown_labels,
    "known-variables": _words,
    "rate-of-counters": _rates,
    "needless-regex": _regexes,
    "quotient-in-sum": _divisions,
}
