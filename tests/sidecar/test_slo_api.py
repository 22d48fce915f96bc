"""`/api/v1/slos`: what is promised and how it is kept, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mppobs.sidecar.view import View
from mppobs.sidecar.web import build_app
from tests.sidecar.handmade import Client, HandMade, parts, populated


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of an aggregator with two SLOs, at 100 seconds."""
    with Client(build_app(parts(populated()))) as made:
        yield made


def get(client: Client, **query: Any) -> dict[str, Any]:
    """Return what is answered, which must be a success."""
    answer = client.get("/api/v1/slos", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_slo_says_what_is_left_and_how_fast_it_goes(client: Client) -> None:
    """Two of three runs were late, of thirty at 90 %: three may be, so one more; the burn is that of the events."""
    (found,) = get(client, slo="risk/nightly-on-time")["slos"]

    assert (found["indicator"], found["unit"], found["owner"], found["tier"]) == (
        "on-time",
        "job",
        "scoring",
        "critical",
    )
    assert (found["objective_ratio"], found["exclude"], found["revision"]) == (0.9, ["drill"], 1)
    assert (found["events"], found["bad_events"], found["latched"], found["provisional_bad_events"]) == (3, 2, True, 1)
    assert found["since"] == found["period"]["start"] == "2023-11-14T22:13:20Z"
    period = found["period"]
    assert (period["allowed_bad_events"], period["bad_events_left"]) == (3.0, 1.0)
    assert period["budget_left_ratio"] == pytest.approx(1 / 3)
    assert [window["window"] for window in found["windows"]] == ["5m", "30m", "1h", "2h", "6h", "1d", "3d"]
    assert {(window["bad_events"], round(window["burn_rate"], 9)) for window in found["windows"]} == {(2, 6.666666667)}
    assert found["exhausted_in_seconds"] == pytest.approx(30 * 86400 / 3 / (20 / 3))
    assert [(change["before_ratio"], change["after_ratio"]) for change in found["changes"]] == [(0.95, 0.9)]


def test_pages_and_filters_go_by_name(client: Client) -> None:
    """One at a time, in order, to the end; a filter leaves out what does not pass."""
    first = get(client, limit=1)
    second = get(client, limit=1, cursor=first["next"])
    third = get(client, limit=1, cursor=second["next"])

    assert [each["slo"] for page in (first, second, third) for each in page["slos"]] == [
        "ads/hourly-shards", "risk/nightly-on-time", "web/gateway",
    ]  # fmt: skip
    assert third["next"] is None
    assert [each["slo"] for each in get(client, pipeline="hourly")["slos"]] == ["ads/hourly-shards"]
    assert [each["slo"] for each in get(client, owner="scoring")["slos"]] == ["risk/nightly-on-time"]
    assert get(client, owner="nobody")["slos"] == []


def test_an_slo_that_prometheus_counts_is_listed_with_what_to_ask_it(client: Client) -> None:
    """It has no figures that could be taken for its own, now or in a month; filters find it as they do the others."""
    for query in ({"slo": "web/gateway"}, {"owner": "edge"}, {"owner": "edge", "month": "2023-11"}):
        assert get(client, **query)["slos"] == [{
            "counted_by": "prometheus", "slo": "web/gateway", "description": "", "indicator": "promql",
            "unit": "query", "pipeline": "", "tenant": "", "owner": "edge", "tier": "standard",
            "objective_ratio": 0.99, "period_days": 14,
            "queries": {
                "budget_left": 'mpp_slo_budget_left_ratio{slo="web/gateway"}',
                "events": 'mpp_slo_events_total{slo="web/gateway"}',
                "bad_events": 'mpp_slo_bad_events_total{slo="web/gateway"}',
            },
        }]  # fmt: skip
    assert {each["counted_by"] for each in get(client)["slos"]} == {"aggregator", "prometheus"}


def test_a_month_is_reported_as_the_period(client: Client) -> None:
    """The month of the events has them; the one before has none, and says that nothing was counted."""
    (found,) = get(client, slo="ads/hourly-shards", month="2023-11")["slos"]
    (before,) = get(client, slo="ads/hourly-shards", month="2023-10")["slos"]

    assert (found["period"]["events"], found["period"]["bad_events"]) == (10_000, 4)
    assert found["period"]["good_ratio"] == 0.9996
    assert (before["period"]["events"], before["period"]["good_ratio"]) == (0, None)
    assert before["period"]["start"] == before["period"]["end"]


@pytest.mark.parametrize(
    ("query", "status", "hint"),
    [
        ("slo=risk/nightly-ontime", 404, "did you mean 'risk/nightly-on-time'?"),
        ("month=2023-13", 422, "month"),
        ("month=2024-01", 422, "has not begun"),
        ("ownr=scoring", 422, "did you mean 'owner'?"),
        ("limit=0", 422, "limit"),
    ],
)
def test_what_is_misspelt_is_refused(query: str, status: int, hint: str, client: Client) -> None:
    """With the nearest right word where there is one."""
    answer = client.get(f"/api/v1/slos?{query}")

    assert answer.status_code == status
    assert hint in answer.text


def test_a_refused_change_of_the_files_is_said() -> None:
    """Whoever looks at the SLOs learns that they are not those of the files any more."""
    view = replace(populated().current, slo_problem="slo.yaml:3: unknown key")
    with Client(build_app(parts(HandMade(current=view)))) as client:
        assert get(client)["problem"] == "slo.yaml:3: unknown key"
    with Client(build_app(parts(HandMade(current=View())))) as client:
        assert get(client) == {"slos": [], "next": None, "problem": ""}
