"""
One drill with a real Prometheus and a real Alertmanager, and what must have come of it.

Times are those of the samples that Prometheus stored, so a slow machine widens the bounds by what it really lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import pytest

from mppobs.model import Tier
from mppobs.render.queries import NOW
from mppobs.slo.diff import detection_seconds
from mppobs.slo.timing import reset_seconds
from mppobs.slo.windows import LEGS, Leg, window_name
from tests.render.drill import ERRORS, LENGTH, LOOKS, REQUESTS_FAIL, SCALE, SIDECAR_DOWN, STEP, Drill, drill, subject

pytestmark = pytest.mark.xdist_group("drill")

OUTAGE, ERRING, BEARABLE = (f"drill/{name}-shard-success" for name in ("outage", "errors", "bearable"))
UNSEEN, SILENT = (f"drill/{name}-shard-success" for name in ("unseen", "silent-0"))
GATEWAY = "drill/gateway"
TOTAL, GOOD = (f'{NOW}{{outcome="{outcome}"}}' for outcome in ("total", "good"))
EXPECTED = {
    *((who, "MppSloBurn/fast", OUTAGE) for who in ("oncall", "owner-outage")),
    *((who, "MppSloBurn/fast", ERRING) for who in ("oncall", "owner-errors")),
    *((who, "MppSloBurn/fast", UNSEEN) for who in ("oncall", "owner-unseen")),
    *((who, "MppSloBurn/fast", GATEWAY) for who in ("oncall", "owner-gateway")),
    *((who, "MppCoordinatorDown", f"silent-{i}") for who in ("oncall", "owner-silent") for i in range(3)),
    *((who, "MppCriticalJobFailed", job) for who in ("oncall", "owner-failing") for job in ("f-1", "f-2")),
    *((who, "MppCriticalJobFailed", "a-1") for who in ("oncall", "owner-awake")),
    *((who, "MppRetryStorm", "storm") for who in ("oncall", "owner-storm")),
    ("tickets", "MppWorkersLost", "lost"),
    *((who, "MppCostSurge", "dear") for who in ("finops", "owner-dear")),
    ("oncall", "MppTelemetryAbsent", ""),
    ("heartbeat", "Watchdog", ""),
}
"""Everybody who is told of anything: receiver, alert, and what it is about."""
IN_TIME = {
    *((who, f"MppSloBurn/{leg}", OUTAGE) for who in ("oncall", "owner-outage") for leg in ("medium", "pace")),
    *((who, "MppSloBurn/medium", ERRING) for who in ("oncall", "owner-errors")),
    *((who, f"MppSloBurn/{leg}", UNSEEN) for who in ("oncall", "owner-unseen") for leg in ("medium", "pace")),
    *((f"owner-{slo.split('/')[1].split('-')[0]}", f"MppSloBurn/{leg}", slo)
      for slo in (OUTAGE, ERRING, UNSEEN, GATEWAY) for leg in ("slow", "steady")),
    *((who, f"MppSloBurn/{leg}", GATEWAY) for who in ("oncall", "owner-gateway") for leg in ("medium", "pace")),
}  # fmt: skip
"""Slower legs, which are told of when the faster ones are over, as far as the drill lasts."""


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """Return the drill when it is over; the servers still answer."""
    with drill(tmp_path_factory.mktemp("drill")) as ended:
        yield ended


def _fired(over: Drill, slo: str, leg: str) -> list[float]:
    """Return when a leg was found to fire, evaluation by evaluation."""
    labels = f'alertname="MppSloBurn",alertstate="firing",slo="{slo}",leg="{leg}"'
    return [when for when, _ in over.samples(f"ALERTS{{{labels}}}")]


def _longest(over: Drill, selector: str, begin: float, end: float) -> float:
    """Return the longest time between two samples of a series around a stretch of the drill."""
    times = [when for when, _ in over.samples(selector)]
    return max(after - before for before, after in pairwise(times) if after >= begin and before <= end)


def _slack(over: Drill, slo: str, leg: Leg, begin: float, end: float) -> float:
    """Return what a scrape and an evaluation cost at the most, as they really came."""
    scrape = _longest(over, f'mpp_slo_events_total{{slo="{slo}",instance="twin-0"}}', begin, end)
    burn = f"slo:mpp_slo_burn_rate:ratio_{window_name(leg.long_seconds)}"
    return scrape + _longest(over, f'{burn}{{slo="{slo}"}}', begin, end)


@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
@pytest.mark.parametrize("name", [OUTAGE, ERRING])
def test_a_leg_fires_and_resets_when_it_was_computed_to(over: Drill, name: str, leg: Leg) -> None:
    """From the first error to the alert, and from the last error to its end: as the formulas say, and no sooner."""
    slo = next(slo for slo in over.slos if slo.full_name == name)
    fired, errors = _fired(over, name, leg.name), ERRORS[name]
    if slo.tier not in leg.tiers:
        assert not fired
        return
    rate = Fraction(errors.share)
    detection, reset = detection_seconds(slo, leg, rate), reset_seconds(slo, leg, rate)
    assert detection is not None
    assert reset is not None
    detection, reset, window = detection / SCALE, reset / SCALE, leg.long_seconds / SCALE
    slack = _slack(over, name, leg, errors.begin, fired[0])
    assert fired[0] - errors.begin <= detection * (1 + (STEP + slack) / window) + slack
    assert fired[0] - errors.begin >= detection * (1 - slack / window)
    slack = _slack(over, name, leg, errors.end, fired[-1] + 1)
    assert reset - 2 * slack <= fired[-1] - errors.end <= reset * (1 + slack / window) + 2 * slack


def test_errors_within_the_budget_fire_nothing(over: Drill) -> None:
    """Nine tenths of the budget's pace, for as long as the drill, is no leg's business."""
    counted = over.samples(f'slo:mpp_slo_bad_events:delta_1h{{slo="{BEARABLE}"}}')
    assert counted[-1][1] > 0
    assert [_fired(over, BEARABLE, leg.name) for leg in LEGS] == [[]] * len(LEGS)


def test_who_is_told_of_what(over: Drill) -> None:
    """Everybody hears of what is theirs, and nobody of anything else: symptoms, money by night, what is muted."""
    told = over.told()
    assert told >= EXPECTED
    assert told <= EXPECTED | IN_TIME


def test_what_is_over_is_told_to_be_over(over: Drill) -> None:
    """Whoever was told of burn is told that it has ended, where it has."""
    ended = {
        (notice.receiver, notice.name, subject(notice.labels)) for notice in over.webhook.notices if not notice.firing
    }
    burns = {told for told in EXPECTED if told[1].startswith("MppSloBurn") and told[2] != GATEWAY}
    assert burns <= ended


@pytest.mark.parametrize(
    ("receiver", "alert", "subjects"),
    [
        ("oncall", "MppCoordinatorDown", {"silent-0", "silent-1", "silent-2"}),
        ("owner-silent", "MppCoordinatorDown", {"silent-0", "silent-1", "silent-2"}),
        ("oncall", "MppCriticalJobFailed", {"f-1", "f-2"}),
        ("owner-failing", "MppCriticalJobFailed", {"f-1", "f-2"}),
    ],
)
def test_one_page_per_cause_and_cluster(over: Drill, receiver: str, alert: str, subjects: set[str]) -> None:
    """All that one cause does in one cluster is one incident, and is told once each time, though twins tell of it."""
    notices = [
        notice for notice in over.webhook.firing(receiver)
        if notice.labels["alertname"] == alert and notice.labels["cluster"] in ("silent", "jobs")
    ]  # fmt: skip
    assert len({notice.group for notice in notices}) == 1
    pages: dict[float, list[str]] = {}
    for notice in notices:
        pages.setdefault(notice.time, []).append(subject(notice.labels))
    assert subjects in [set(page) for page in pages.values()]
    assert all(len(set(page)) == len(page) for page in pages.values())


@pytest.mark.parametrize("name", [OUTAGE, ERRING, UNSEEN])
def test_one_page_per_burning_slo(over: Drill, name: str) -> None:
    """However many legs fire, the on-call has one incident, and hears of a leg only when the faster ones are over."""
    notices = [notice for notice in over.webhook.firing("oncall") if notice.labels.get("slo") == name]
    assert len({notice.group for notice in notices}) == 1
    for faster, slower in pairwise(dict.fromkeys(notice.name for notice in notices)):
        first = next(notice.time for notice in notices if notice.name == slower) - over.zero
        assert first >= _fired(over, name, faster.partition("/")[2])[-1]


@pytest.mark.parametrize("name", [OUTAGE, ERRING])
def test_a_ticket_waits_for_the_page_to_end(over: Drill, name: str) -> None:
    """While an SLO pages, nobody gets a ticket for the same burn."""
    slo = next(slo for slo in over.slos if slo.full_name == name)
    paging = "pace" if slo.tier is Tier.CRITICAL else "medium"
    owner = over.webhook.firing(f"owner-{slo.owner}")
    tickets = [notice.time for notice in owner if notice.labels["severity"] == "ticket"]
    assert min(tickets) - over.zero >= _fired(over, name, paging)[-1]


def test_causes_silence_their_symptoms(over: Drill) -> None:
    """Of what a lost node, a silent coordinator or a failed run brings with it, Alertmanager knows and says nothing."""
    look = over.looks[LOOKS[0]]
    silenced = {(each.name, subject(each.labels)) for each in look if each.silenced and each.name != "MppSloBurn"}
    assert silenced == {
        ("MppRetryStorm", "shaken"), ("MppShuffleOverload", "shaken"),
        ("MppDeadlineAtRisk", "s-1"), ("MppDeadlineAtRisk", "f-1"), ("MppDeadlineAtRisk", "f-2"),
    }  # fmt: skip
    burning = [each for each in look if each.labels.get("slo") == SILENT]
    assert burning
    assert all(each.silenced for each in burning)


def test_what_is_in_maintenance_is_known_and_not_told(over: Drill) -> None:
    """The failed run is an active alert like the other, whose maintenance window is another day."""
    active = {subject(each.labels) for each in over.looks[LOOKS[0]] if each.name == "MppCriticalJobFailed"}
    assert {"m-1", "a-1"} <= active


def test_absent_telemetry_silences_burn_until_it_is_back(over: Drill) -> None:
    """A burn that begins while no aggregator answers is told when one answers again, if it still burns."""
    burning = [each.silenced for each in over.looks[LOOKS[1]] if each.labels.get("slo") == UNSEEN]
    assert burning
    assert all(burning)
    told = [notice.time - over.zero for notice in over.webhook.firing() if notice.labels.get("slo") == UNSEEN]
    assert min(told) >= SIDECAR_DOWN[1]


def test_what_prometheus_counts_by_itself_is_exact_and_pages(over: Drill) -> None:
    """From the first failure on each event counts, and a page does not wait for aggregators that have no part in it."""
    for counted, asked in (("events", TOTAL), ("bad_events", f"{TOTAL} - on (slo) {GOOD}")):
        both = f'({asked}) - on (slo) mpp_slo_{counted}_total{{job=""}}'
        answer = over.prometheus.get(
            "query_range", query=both, start=str(over.zero), end=str(over.zero + LENGTH - 1), step="0.5"
        )
        assert len({value for series in answer["result"] for _, value in series["values"]}) == 1
    told = [notice.time - over.zero for notice in over.webhook.firing("oncall") if notice.labels.get("slo") == GATEWAY]
    assert REQUESTS_FAIL <= told[0] < SIDECAR_DOWN[1]


def test_the_heartbeat_keeps_beating(over: Drill) -> None:
    """A minute of the drill is a twelfth of a second; no beat of the whole drill comes more than three seconds late."""
    beats = [notice.time - over.zero for notice in over.webhook.firing("heartbeat")]
    assert beats[0] < 3
    assert beats[-1] > LENGTH - 3
    assert max(after - before for before, after in pairwise(beats)) < 3
