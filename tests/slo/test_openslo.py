"""OpenSLO in and out: what we write reads back unchanged, what others write is understood or refused with a reason."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.errors import ConfigError
from mppobs.model import RunKind, Tier
from mppobs.slo.model import BY_RUN, UNITS, Bounds, EventUnit, IndicatorKind, Slo
from mppobs.slo.openslo import Imported, openslo_text, read_openslo
from mppobs.slo.short import short_form
from mppobs.slo.spec import DAY, IN_SECONDS, parse_spec
from mppobs.yamlfile import loads_all

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=12)
texts = st.one_of(st.just(""), words)
figures = st.decimals("0.001", "100000", places=3)
queries = st.sampled_from(["sum(a)", 'sum(http_requests_total{code!~"5.."})', "a", "sum by (job) (rate(b[5m]))"])


@st.composite
def bounds(draw: st.DrawFn, kind: IndicatorKind) -> Bounds:
    """Draw bounds as the indicator takes them."""
    if kind is IndicatorKind.PROMQL:
        return Bounds(good_query=draw(queries), total_query=draw(queries))
    if kind is IndicatorKind.SPEND:
        return Bounds(usd_per_period=draw(figures))
    if kind is IndicatorKind.ON_TIME:
        return Bounds(deadline_seconds=draw(st.none() | figures))
    if kind is IndicatorKind.COVERAGE:
        return Bounds(at_least=draw(figures))
    if kind is IndicatorKind.DURATION:
        least, most = sorted((draw(figures), draw(figures)))
        return Bounds(at_most=most, at_least=draw(st.sampled_from([None, least])))
    return Bounds(at_most=draw(figures)) if kind in (*IN_SECONDS, IndicatorKind.TAIL, IndicatorKind.COST) else Bounds()


@st.composite
def slos(draw: st.DrawFn) -> Slo:
    """Draw an SLO as `slo.yaml` could say it."""
    kind = draw(st.sampled_from(IndicatorKind))
    pipeline = draw(texts if kind is IndicatorKind.PROMQL else words)
    slo = Slo(
        team=draw(words),
        name=f"{pipeline}-{draw(words)}" if pipeline else draw(words),
        indicator=kind,
        objective=Fraction(draw(st.decimals("0.000000001", "0.999999999", places=9))),
        period_days=draw(st.integers(1, 366)),
        pipeline=pipeline,
        tenant=draw(texts),
        stage=draw(texts),
        owner=draw(texts),
        tier=draw(st.sampled_from(Tier)),
        bounds=draw(bounds(kind)),
        exclude=tuple(draw(st.lists(st.sampled_from(RunKind), unique=True))) if UNITS[kind] in BY_RUN else (),
        calendar=draw(st.booleans()),
        description=draw(st.text(max_size=40)),
    )
    runs = draw(st.integers(0, 100_000)) if slo.unit is EventUnit.JOB else 0
    events = slo.period_days * DAY // 60 if slo.unit is EventUnit.MINUTE else runs
    return Slo(**{**{name: getattr(slo, name) for name in Slo.__dataclass_fields__}, "expected_events": events})


def read(text: str, team: str = "") -> Imported:
    """Read OpenSLO documents from a text."""
    return read_openslo(loads_all(text, "o.yaml"), team)


@settings(max_examples=40)
@given(st.lists(slos(), min_size=1, max_size=4, unique_by=lambda slo: slo.full_name))
def test_what_is_exported_imports_back_unchanged(given_slos: list[Slo]) -> None:
    """Export and import is the identity for every indicator, to the last digit of an objective."""
    found = read(openslo_text(given_slos))
    assert found == Imported(tuple(given_slos), (), ())


@settings(max_examples=40)
@given(st.lists(slos(), min_size=1, max_size=4, unique_by=lambda slo: slo.name))
def test_the_short_form_reads_back_to_the_same(given_slos: list[Slo]) -> None:
    """What is imported can be written as `slo.yaml`, which means the same."""
    ours = [Slo(**{**{n: getattr(s, n) for n in Slo.__dataclass_fields__}, "team": "risk"}) for s in given_slos]
    assert set(parse_spec(short_form(ours)).slos) == set(ours)


def prometheus(query: str) -> dict[str, Any]:
    """Return a metric source of Prometheus."""
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def slo(**spec: Any) -> dict[str, Any]:
    """Return an SLO document as another tool writes it; None takes a key away."""
    ratio = {"counter": True, "good": prometheus("sum(ok)"), "total": prometheus("sum(every)")}
    whole = {
        "service": "shop",
        "indicator": {"metadata": {"name": "served"}, "spec": {"ratioMetric": ratio}},
        "timeWindow": [{"duration": "4w", "isRolling": True}],
        "budgetingMethod": "Occurrences",
        "objectives": [{"displayName": "Well served", "target": 0.9995}],
        **spec,
    }
    metadata = {"name": "availability", "displayName": "Availability", "labels": {"team": ["web", "ops"]}}
    kept = {key: value for key, value in whole.items() if value is not None}
    return {"apiVersion": "openslo/v1", "kind": "SLO", "metadata": metadata, "spec": kept}


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """Return a document of another kind."""
    return {"apiVersion": "openslo/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def imported(*documents: dict[str, Any], team: str = "") -> Imported:
    """Read documents given as values."""
    return read("---\n".join(yaml.safe_dump(each, sort_keys=False) for each in documents), team)


def ratio(**parts: Any) -> dict[str, Any]:
    """Return an inline indicator of a ratio."""
    return {"metadata": {"name": "x"}, "spec": {"ratioMetric": parts}}


def test_a_ratio_of_two_queries_is_understood() -> None:
    """The usual document of another tool becomes an SLO of the service's team."""
    found = imported(slo())
    assert (found.errors, found.notes) == ((), ())
    (only,) = found.slos
    assert (only.full_name, only.objective, only.period_days) == ("shop/availability", Fraction(9995, 10000), 28)
    assert (only.indicator, only.bounds) == (
        IndicatorKind.PROMQL,
        Bounds(good_query="sum(ok)", total_query="sum(every)"),
    )
    assert imported(slo(), team="web").slos[0].full_name == "web/availability"


def test_documents_refer_to_each_other_in_any_order() -> None:
    """An SLI by name, whose sources have the type of a DataSource, and percent of several objectives."""
    source = {"metricSource": {"metricSourceRef": "main", "spec": {"promql": "sum(x)"}}}
    found = imported(
        slo(
            indicator=None,
            indicatorRef="failures",
            objectives=[{"targetPercent": 99.9}, {"targetPercent": "99"}],
            alertPolicies=[{"alertPolicyRef": "fast"}],
        ),
        document("SLI", "failures", ratioMetric={"counter": True, "bad": source, "total": source}),
        document("DataSource", "main", type="prometheus", connectionDetails={"url": "http://127.0.0.1"}),
        document("Service", "shop", description="sells"),
        document("AlertPolicy", "fast", conditions=[]),
    )
    assert not found.errors
    assert [(each.name, each.objective) for each in found.slos] == [
        ("availability-1", Fraction(999, 1000)),
        ("availability-2", Fraction(99, 100)),
    ]
    assert found.slos[0].bounds.good_query == "(sum(x)) - ((sum(x)) or (sum(x)) * 0)"
    assert len(found.notes) == 3


def test_an_indicator_of_ours_can_be_written_by_hand() -> None:
    """Without annotations the pipeline is the service."""
    source = {"metricSource": {"type": "mppobs", "spec": {"indicator": "tail", "at-most": 2}}}
    (only,) = imported(slo(indicator=ratio(good=source, total=source))).slos
    assert (only.pipeline, only.name, only.bounds) == ("shop", "shop-availability", Bounds(at_most=Decimal(2)))


def test_months_follow_the_calendar() -> None:
    """A calendar month in UTC is reported by the calendar; alerts roll over 30 days."""
    calendar = {"startTime": "2024-03-01 00:00:00", "timeZone": "UTC"}
    (only,) = imported(slo(timeWindow=[{"duration": "1M", "calendar": calendar}])).slos
    assert (only.calendar, only.period_days) == (True, 30)


def test_what_others_add_is_a_note_with_its_place() -> None:
    """Unknown keys do not stop an import: the format is others'."""
    found = imported(slo(timeWindow=None, colour="red", objectives=[{"target": 0.9, "op": "lte", "value": 1}]))
    assert len(found.slos) == 1
    assert not found.errors
    assert len(found.notes) == 4
    assert all(note.startswith("o.yaml:") for note in found.notes)
    assert any("unknown key 'colour'" in note for note in found.notes)


WINDOW = {"duration": "30d", "isRolling": True}
MONTH = {"duration": "1M", "calendar": {"startTime": "2024-03-01 00:00:00", "timeZone": "UTC"}}
GOOD = prometheus("sum(ok)")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"budgetingMethod": "Timeslices"}, "counts slices of time"),
        ({"budgetingMethod": "RatioTimeslices"}, "counts slices of time"),
        ({"budgetingMethod": "Occurences"}, "did you mean 'Occurrences'"),
        ({"budgetingMethod": None}, "needs `budgetingMethod`"),
        ({"indicator": None}, "one of `indicator` and `indicatorRef`"),
        ({"indicator": None, "indicatorRef": "gone"}, "no SLI 'gone'"),
        ({"indicator": {"spec": {"thresholdMetric": GOOD}}}, "a threshold counts no events"),
        ({"indicator": ratio(raw=GOOD, rawType="success")}, "made before"),
        ({"indicator": ratio(good=GOOD)}, "needs `total`"),
        ({"indicator": ratio(good=GOOD, bad=GOOD, total=GOOD)}, "one of `good` and `bad`"),
        ({"indicator": ratio(counter=False, good=GOOD, total=GOOD)}, "gauges are no counts"),
        ({"indicator": ratio(good=prometheus("sum("), total=GOOD)}, "is no PromQL"),
        ({"indicator": ratio(good=prometheus("a[{{.window}}]"), total=GOOD)}, "is no PromQL"),
        ({"indicator": ratio(good={"metricSource": {"spec": {}}}, total=GOOD)}, "needs `type`"),
        ({"indicator": ratio(good={"metricSource": {"type": "Datadog", "spec": {}}}, total=GOOD)}, "is of type"),
        ({"objectives": [{"target": 0.9, "targetPercent": 90}]}, "needs one of `target`"),
        ({"objectives": [{"target": 99}]}, "between 0 and 100%"),
        ({"objectives": [{"target": 1}]}, "no budget"),
        ({"objectives": []}, "needs an objective"),
        ({"objectives": [{"target": 0.9, "indicatorRef": "x"}]}, "composite"),
        ({"timeWindow": [{**WINDOW, "duration": "36h"}]}, "whole days"),
        ({"timeWindow": [{**WINDOW, "duration": "1M"}]}, "only calendars have months"),
        ({"timeWindow": [{"duration": "30d"}]}, "rolls"),
        ({"timeWindow": [WINDOW, WINDOW]}, "exactly one"),
        ({"timeWindow": [{**MONTH, "duration": "1Q"}]}, "calendar months"),
        ({"timeWindow": [{**MONTH, "isRolling": True}]}, "both roll"),
        ({"timeWindow": [{**MONTH, "calendar": {"timeZone": "Europe/Paris"}}]}, "UTC"),
        ({"timeWindow": [{**MONTH, "calendar": {"startTime": "2024-03-02 00:00:00"}}]}, "first day"),
        ({"service": None}, "needs `service`"),
    ],
)
def test_what_has_no_meaning_here_is_refused_with_its_place(spec: dict[str, Any], message: str) -> None:
    """Each refusal names file and line and says why."""
    found = imported(slo(**spec))
    assert found.slos == ()
    (error,) = found.errors
    assert message in str(error)
    assert str(error).startswith("o.yaml:")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"apiVersion": "openslo/v1alpha", "kind": "SLO"}, "openslo/v1 can"),
        ({"apiVersion": "openslo/v1", "kind": "Servce"}, "did you mean 'Service'"),
        ({"kind": "SLO"}, "needs `apiVersion`"),
    ],
)
def test_a_document_of_another_format_is_refused(document: dict[str, Any], message: str) -> None:
    """Other versions and kinds are errors; what stands beside them is read."""
    found = imported(document, slo())
    assert len(found.slos) == 1
    assert message in str(found.errors[0])


def test_a_name_stands_once() -> None:
    """The second SLO of a name is an error."""
    found = imported(slo(), slo())
    assert (len(found.slos), len(found.errors)) == (1, 1)


def test_the_format_has_no_objective_of_all() -> None:
    """An objective of 100% cannot be exported, nor can SLOs of two teams be one short file."""
    (whole,) = parse_spec("team: t\npipelines: {p: {objectives: {job-success: 100%}}}").slos
    (other,) = parse_spec("team: u\npipelines: {p: {objectives: {job-success: 99%}}}").slos
    with pytest.raises(ConfigError, match="no objective of 100"):
        openslo_text([whole])
    with pytest.raises(ConfigError, match="t, u"):
        short_form([whole, other])
