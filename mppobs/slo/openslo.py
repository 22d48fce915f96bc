"""
SLOs from and to OpenSLO v1, the vendor-neutral format: <https://github.com/OpenSLO/OpenSLO>.

What is exported imports back unchanged: an indicator of ours travels as a metric source of type `mppobs`, and what
OpenSLO has no word for as annotations. Of what others wrote, ratios of two Prometheus queries have a meaning here;
the rest is an error that says why.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import promql_parser

from mppobs.errors import ConfigError, nearest
from mppobs.model import RunKind, Tier
from mppobs.slo.model import BY_RUN, UNITS, Bounds, IndicatorKind, Slo
from mppobs.slo.openslo_time import calendar_of, period_of, window_words
from mppobs.slo.short import bounds_words, dump, exact_decimal
from mppobs.slo.spec import BOUND_KEYS, member, parse_bounds, parse_expected, parse_objective
from mppobs.yamlfile import Item

VERSION: Final = "openslo/v1"
KINDS: Final = (
    "SLO", "SLI", "Service", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget",
)  # fmt: skip
PREFIX: Final = "mppobs/"
"""Of our annotations."""
DESCRIPTION_LENGTH: Final = 1050
"""Characters that the format allows."""
_ANNOTATIONS: Final = (
    "team", "name", "pipeline", "tenant", "stage", "owner", "tier", "exclude", "expected-events", "period",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Imported:
    """What could be understood, and what is to be said of the rest."""

    slos: tuple[Slo, ...]
    notes: tuple[str, ...]
    """What has been left out without harm, with its place."""
    errors: tuple[ConfigError, ...]
    """What has no meaning here, with its place and the reason."""


def read_openslo(documents: Iterable[Item], team: str = "") -> Imported:
    """
    Return the SLOs among OpenSLO documents, which may refer to each other.

    The team of an SLO is `team` where it is given, else its annotation `mppobs/team`, else its service.
    """
    reader = _Reader(team)
    slos: list[tuple[Item, dict[str, Item]]] = []
    for document in documents:
        try:
            keys = reader.known(document, "apiVersion", "kind", "metadata", "spec")
            if reader.sort(document, keys) == "SLO":
                slos.append((document, keys))
        except ConfigError as error:
            reader.errors.append(error)
    read: dict[str, Slo] = {}
    for document, keys in slos:
        try:
            for slo in reader.slos(document, keys):
                if slo.full_name in read:
                    raise document.error(f"{slo.full_name!r} is defined twice")
                read[slo.full_name] = slo
        except ConfigError as error:
            reader.errors.append(error)
    return Imported(tuple(read.values()), tuple(reader.notes), tuple(reader.errors))


@dataclass(slots=True)
class _Reader:
    """Reads documents one by one and keeps what they refer to."""

    team: str
    slis: dict[str, Item] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[ConfigError] = field(default_factory=list)

    def note(self, item: Item, text: str) -> None:
        """Keep a remark with its place."""
        self.notes.append(str(item.error(text)))

    def known(self, item: Item, *keys: str) -> dict[str, Item]:
        """Return the keys of a mapping; those that the format does not have are noted: the format is others'."""
        found = item.mapping()
        for key, value in found.items():
            if key not in keys:
                self.note(value, f"unknown key {key!r} is left out; {nearest(key, keys)}")
        return {key: value for key, value in found.items() if value.value is not None}

    def sort(self, document: Item, keys: Mapping[str, Item]) -> str:
        """Return the kind of a document, and keep it where others may refer to it."""
        version, kind = _need(document, keys, "apiVersion"), _need(document, keys, "kind").string()
        if version.string() != VERSION:
            raise version.error(f"{version.string()!r} cannot be read, {VERSION} can")
        if kind not in KINDS:
            raise keys["kind"].error(f"unknown kind {kind!r}; {nearest(kind, KINDS)}")
        if kind.startswith("Alert"):
            self.note(document, f"{kind} is left out: alerts follow from the objective")
        elif kind in ("SLI", "DataSource"):
            name = _need(document, _need(document, keys, "metadata").mapping(), "name").string()
            spec = _need(document, keys, "spec")
            if name in (self.slis if kind == "SLI" else self.sources):
                raise document.error(f"{kind} {name!r} is defined twice")
            if kind == "SLI":
                self.slis[name] = spec
            else:
                self.sources[name] = _need(spec, spec.mapping(), "type").string()
        return kind

    def slos(self, document: Item, keys: Mapping[str, Item]) -> list[Slo]:
        """Return an SLO for each objective of a document."""
        metadata = self.known(_need(document, keys, "metadata"), "name", "displayName", "labels", "annotations")
        spec_item = _need(document, keys, "spec")
        spec = self.known(
            spec_item, "description", "service", "indicator", "indicatorRef", "timeWindow", "budgetingMethod",
            "objectives", "alertPolicies",
        )  # fmt: skip
        _check_method(spec_item, spec)
        if "alertPolicies" in spec:
            self.note(spec["alertPolicies"], "left out: alerts follow from the objective")
        ours = _annotations(metadata)
        indicator, bounds = self._indicator(spec_item, spec)
        name = _need(document, metadata, "name").string()
        objectives = _need(spec_item, spec, "objectives").items()
        if not objectives:
            raise spec["objectives"].error("needs an objective")
        base = self._slo(spec_item, spec, ours, indicator, bounds, _own_name(name, indicator, ours, spec))
        found = [replace(base, objective=self._target(item)) for item in objectives]
        if len(found) > 1:
            self.note(spec["objectives"], f"each becomes an SLO of its own: {name}-1 to {name}-{len(found)}")
            found = [replace(slo, name=f"{slo.name}-{number}") for number, slo in enumerate(found, 1)]
        return found

    def _slo(
        self,
        item: Item,
        spec: Mapping[str, Item],
        ours: Mapping[str, Item],
        indicator: IndicatorKind,
        bounds: Bounds,
        name: str,
    ) -> Slo:
        """Return an SLO but for its objective."""
        service = _text(spec, "service")
        team = self.team or _text(ours, "team") or service
        if not team:
            raise item.error("needs `service`, or name the team")
        window = spec.get("timeWindow")
        if window is None:
            self.note(item, "no `timeWindow`: 30 days")
        period = period_of(window, ours.get("period"))
        promql = indicator is IndicatorKind.PROMQL
        expected = parse_expected(indicator, {}, period)
        return Slo(
            team=team,
            name=name,
            indicator=indicator,
            objective=Fraction(1, 2),
            period_days=period,
            pipeline=_text(ours, "pipeline") or ("" if promql else service),
            tenant=_text(ours, "tenant"),
            stage=_text(ours, "stage"),
            owner=_text(ours, "owner"),
            tier=member(Tier, ours["tier"]) if "tier" in ours else Tier.STANDARD,
            bounds=bounds,
            exclude=_run_kinds(ours["exclude"], indicator) if "exclude" in ours else (),
            calendar=calendar_of(window),
            description=_text(spec, "description"),
            expected_events=_count(ours["expected-events"]) if "expected-events" in ours else expected,
        )

    def _target(self, item: Item) -> Fraction:
        """Return what an objective demands, exactly."""
        keys = self.known(
            item, "displayName", "op", "value", "target", "targetPercent", "timeSliceTarget", "timeSliceWindow",
            "indicator", "indicatorRef", "compositeWeight",
        )  # fmt: skip
        for key in ("indicator", "indicatorRef", "compositeWeight"):
            if key in keys:
                raise keys[key].error("composite SLOs have no meaning here: write an SLO for each part")
        for key in keys.keys() & {"op", "value", "timeSliceTarget", "timeSliceWindow"}:
            self.note(keys[key], "left out: a ratio of counts does not need it")
        if ("target" in keys) == ("targetPercent" in keys):
            raise item.error("needs one of `target` and `targetPercent`")
        target = keys.get("target") or keys["targetPercent"]
        text = target.string() + ("" if "target" in keys else "%")
        objective = parse_objective(Item(text, target.file, target.line, target.path, text))
        if objective == 1:
            raise target.error("100% leaves no budget: OpenSLO targets are below it")
        return objective

    def _indicator(self, item: Item, spec: Mapping[str, Item]) -> tuple[IndicatorKind, Bounds]:
        """Return what an SLO is about."""
        if ("indicator" in spec) == ("indicatorRef" in spec):
            raise item.error("needs one of `indicator` and `indicatorRef`")
        if "indicator" in spec:
            sli = _need(spec["indicator"], self.known(spec["indicator"], "metadata", "spec"), "spec")
        else:
            name = spec["indicatorRef"].string()
            if name not in self.slis:
                raise spec["indicatorRef"].error(f"no SLI {name!r} in these files; {nearest(name, self.slis)}")
            sli = self.slis[name]
        keys = self.known(sli, "description", "thresholdMetric", "ratioMetric")
        if "thresholdMetric" in keys:
            raise keys["thresholdMetric"].error("a threshold counts no events: write a `ratioMetric`")
        ratio = _need(sli, keys, "ratioMetric")
        parts = self.known(ratio, "counter", "good", "bad", "total", "raw", "rawType")
        if "raw" in parts:
            raise parts["raw"].error("a ratio made before counts no events: write `good` and `total`")
        if ("good" in parts) == ("bad" in parts) or "total" not in parts:
            raise ratio.error("needs `total`, and one of `good` and `bad`")
        return self._ratio(parts)

    def _ratio(self, parts: Mapping[str, Item]) -> tuple[IndicatorKind, Bounds]:
        """Return the indicator of two metric sources of one type."""
        part = parts.get("good") or parts["bad"]
        kind, spec = self._source(part)
        total_kind, total = self._source(parts["total"])
        if kind != total_kind:
            raise parts["total"].error(f"is of type {total_kind!r} and the other of type {kind!r}")
        if kind == "mppobs":
            return self._own_indicator(part, spec, total, bad="bad" in parts)
        if kind != "prometheus":
            raise part.error(f"metric source {kind!r} cannot be read: only Prometheus and mppobs can")
        if "counter" in parts and not parts["counter"].boolean():
            raise parts["counter"].error("gauges are no counts: write queries of counters")
        good_query, total_query = self._query(spec), self._query(total)
        if "bad" in parts:
            good_query = f"({total_query}) - (({good_query}) or ({total_query}) * 0)"
        return IndicatorKind.PROMQL, Bounds(good_query=good_query, total_query=total_query)

    def _source(self, part: Item) -> tuple[str, Item]:
        """Return the type of a metric source in lower case, and its spec."""
        source = _need(part, self.known(part, "metricSource"), "metricSource")
        keys = self.known(source, "metricSourceRef", "type", "spec")
        kind = _text(keys, "type") or self.sources.get(_text(keys, "metricSourceRef"), "")
        if not kind:
            raise source.error("needs `type`, or a `metricSourceRef` to a DataSource in these files")
        return kind.lower(), _need(source, keys, "spec")

    def _query(self, spec: Item) -> str:
        """Return the query of a Prometheus source."""
        keys = self.known(spec, "query", "promql")
        item = keys.get("query") or _need(spec, keys, "promql" if "promql" in keys else "query")
        try:
            promql_parser.parse(item.string())
        except ValueError as error:
            raise item.error(f"is no PromQL: {error}") from None
        return item.string()

    def _own_indicator(self, part: Item, spec: Item, total: Item, *, bad: bool) -> tuple[IndicatorKind, Bounds]:
        """Return one of our own indicators with its bounds."""
        keys = spec.mapping()
        indicator = member(IndicatorKind, _need(spec, keys, "indicator"))
        about = {key: item.string() for key, item in total.mapping().items() if key != "events"}
        if (
            bad
            or indicator is IndicatorKind.PROMQL
            or about != {k: v.string() for k, v in keys.items() if k != "events"}
        ):
            raise part.error("`good` and `total` of type mppobs name the same indicator, and the same bounds")
        self.known(spec, "indicator", "events", "deadline", *BOUND_KEYS[indicator])
        return indicator, parse_bounds(indicator, keys, spec)


def openslo_text(slos: Sequence[Slo]) -> str:
    """
    Return SLOs as OpenSLO documents.

    Raises ConfigError for one that the format cannot say, such as an objective of 100%.
    """
    names: set[str] = set()
    documents = []
    for slo in slos:
        name = _label(slo.name, names)
        names.add(name)
        documents.append(dump(_document(slo, name)))
    return "---\n".join(documents)


def _document(slo: Slo, name: str) -> dict[str, Any]:
    """Return one SLO as an OpenSLO document."""
    if not 0 < slo.objective < 1:
        raise ConfigError(f"{slo.full_name!r}: OpenSLO has no objective of {exact_decimal(slo.objective * 100)}%")
    if len(slo.description) > DESCRIPTION_LENGTH:
        raise ConfigError(f"{slo.full_name!r}: a description has at most {DESCRIPTION_LENGTH} characters in OpenSLO")
    ratio = {"counter": True, **{part: {"metricSource": _metric_source(slo, part)} for part in ("good", "total")}}
    spec: dict[str, Any] = {"description": slo.description} if slo.description else {}
    spec |= {
        "service": _label(slo.pipeline or slo.team, ()),
        "indicator": {"metadata": {"name": name}, "spec": {"ratioMetric": ratio}},
        "timeWindow": [window_words(slo)],
        "budgetingMethod": "Occurrences",
        "objectives": [{"target": Decimal(exact_decimal(slo.objective))}],
    }
    metadata = {"name": name, "annotations": {f"{PREFIX}{key}": text for key, text in _annotated(slo).items()}}
    return {"apiVersion": VERSION, "kind": "SLO", "metadata": metadata, "spec": spec}


def _metric_source(slo: Slo, part: str) -> dict[str, Any]:
    """Return where the good or all events of an SLO are counted."""
    words = bounds_words(slo)
    if slo.indicator is IndicatorKind.PROMQL:
        return {"type": "Prometheus", "spec": {"query": words[part]}}
    return {"type": "mppobs", "spec": {"indicator": slo.indicator.value, "events": part, **words}}


def _annotated(slo: Slo) -> dict[str, str]:
    """Return what OpenSLO has no word for; what is usual is left out."""
    usual = parse_expected(slo.indicator, {}, slo.period_days)
    said = {
        "team": slo.team,
        "name": slo.name,
        "pipeline": slo.pipeline,
        "tenant": slo.tenant,
        "stage": slo.stage,
        "owner": slo.owner,
        "tier": slo.tier.value,
        "exclude": ",".join(kind.value for kind in slo.exclude),
        "expected-events": str(slo.expected_events) if slo.expected_events != usual else "",
        "period": f"{slo.period_days}d" if slo.calendar else "",
    }
    return {key: text for key, text in said.items() if text}


def _label(text: str, taken: Iterable[str]) -> str:
    """Return a name as the format wants one, unlike those that are taken."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:56].strip("-") or "slo"
    return next(name for n in itertools.count(1) if (name := label if n == 1 else f"{label}-{n}") not in taken)


def _need(item: Item, keys: Mapping[str, Item], key: str) -> Item:
    """Return what must be there."""
    if key not in keys or keys[key].value is None:
        raise item.error(f"needs `{key}`")
    return keys[key]


def _text(keys: Mapping[str, Item], key: str) -> str:
    return keys[key].string() if key in keys else ""


def _annotations(metadata: Mapping[str, Item]) -> dict[str, Item]:
    """Return our annotations without their prefix; those of others are theirs."""
    found = metadata["annotations"].mapping() if "annotations" in metadata else {}
    ours = {key.removeprefix(PREFIX): item for key, item in found.items() if key.startswith(PREFIX)}
    for key, item in ours.items():
        if key not in _ANNOTATIONS:
            raise item.error(f"unknown annotation {PREFIX}{key}; {nearest(key, _ANNOTATIONS)}")
    return ours


def _own_name(name: str, indicator: IndicatorKind, ours: Mapping[str, Item], spec: Mapping[str, Item]) -> str:
    """Return the name of an SLO: its own of ours, or one that begins with its pipeline as ours do."""
    if "name" in ours:
        return ours["name"].string()
    pipeline = _text(ours, "pipeline") or ("" if indicator is IndicatorKind.PROMQL else _text(spec, "service"))
    return name if not pipeline or name.startswith(f"{pipeline}-") else f"{pipeline}-{name}"


def _check_method(item: Item, spec: Mapping[str, Item]) -> None:
    """Raise ConfigError for budgets that are no counts of events."""
    method = _need(item, spec, "budgetingMethod")
    if method.string() in ("Timeslices", "RatioTimeslices"):
        raise method.error(f"{method.string()} counts slices of time; budgets are of events here: write Occurrences")
    if method.string() != "Occurrences":
        raise method.error(f"unknown {method.string()!r}; {nearest(method.string(), ['Occurrences'])}")


def _run_kinds(item: Item, indicator: IndicatorKind) -> tuple[RunKind, ...]:
    """Return the kinds of run in a text with commas."""
    if UNITS[indicator] not in BY_RUN:
        raise item.error(
            f"`exclude` has no effect on {indicator.value!r}: a {UNITS[indicator].value} belongs to no run"
        )
    words = [word.strip() for word in item.string().split(",")]
    return tuple(member(RunKind, Item(word, item.file, item.line, item.path, word)) for word in words if word)


def _count(item: Item) -> int:
    """Return a whole number written as a text, as annotations are."""
    if not re.fullmatch(r"\d{1,18}", item.string()):
        raise item.error(f"expected a whole number, got {item.describe()}")
    return int(item.string())
