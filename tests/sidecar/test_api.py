"""The JSON API over hand-made figures: answers, filters, paging, errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.catalog.indicators import INDICATORS
from mppobs.model import Tier
from mppobs.sidecar.aggregates import PipelineKey
from mppobs.sidecar.view import Live, LiveRun, View
from mppobs.sidecar.web import build_app
from tests.sidecar.handmade import (
    SECOND,
    START_NS,
    Client,
    HandMade,
    HandMadeSpool,
    parts,
    populated,
    summary,
)  # fmt: skip


@pytest.fixture
def client() -> Iterator[Client]:
    """Return a client of a sidecar with two pipelines and four jobs."""
    with Client(build_app(parts(populated(), HandMadeSpool()))) as found:
        yield found


def get(client: Client, path: str, **query: Any) -> Any:
    """Return the JSON that a path answers with 200."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_jobs_are_listed_newest_first_with_figures_in_people_s_units(client: Client) -> None:
    """Times are RFC 3339, durations seconds, money dollars."""
    jobs = get(client, "/api/v1/jobs")["jobs"]
    assert [job["job_id"] for job in jobs] == ["job-9", "job-3", "job-2", "job-1"]
    running, finished = jobs[0], jobs[1]
    assert (running["state"], running["outcome"], running["progress_ratio"]) == ("running", None, 0.4)
    assert running["duration_seconds"] == 92
    assert (finished["state"], finished["outcome"], finished["duration_seconds"]) == ("finished", "success", 61)
    assert finished["submitted"] == "2023-11-14T22:13:22Z"
    assert (finished["queue_seconds"], finished["cost_usd"], finished["completeness_ratio"]) == (1, 3, 1)
    assert finished["incarnation"] == "1700000003000000000"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"pipeline": "hourly"}, ["job-3"]),
        ({"state": "running"}, ["job-9"]),
        ({"state": "finished"}, ["job-3", "job-2", "job-1"]),
        ({"outcome": "success"}, ["job-3", "job-2", "job-1"]),
        ({"outcome": "error"}, []),
        ({"tenant": "nobody"}, []),
        ({"since": "2023-11-14T22:13:22Z", "until": "2023-11-14T22:13:23Z"}, ["job-2"]),
        ({"since": "2023-11-14T23:13:22+01:00"}, ["job-9", "job-3", "job-2"]),
    ],
)
def test_filters_select_jobs(client: Client, query: dict[str, str], expected: list[str]) -> None:
    """Each filter by itself; times in any zone."""
    assert [job["job_id"] for job in get(client, "/api/v1/jobs", **query)["jobs"]] == expected


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/api/v1/jobs?outcom=success", ["outcom", "did you mean 'outcome'?"]),
        ("/api/v1/jobs?outcome=sucess", ["sucess", "did you mean 'success'?"]),
        ("/api/v1/jobs?state=done", ["done", "finished", "running"]),
        ("/api/v1/jobs?limit=0", ["limit", "must be at least 1"]),
        ("/api/v1/jobs?limit=501", ["limit", "500"]),
        ("/api/v1/jobs?cursor=x", ["cursor", "should match"]),
        ("/api/v1/jobs?since=yesterday", ["since"]),
        ("/api/v1/jobs?since=2023-11-14T22:13:22", ["since", "timezone"]),
        ("/api/v1/jobs/job-1?incarnation=first", ["incarnation"]),
        ("/api/v1/jobs/job-1/shards?order=slow", ["slow", "did you mean 'slowest'?"]),
        ("/api/v1/pipelines?pipelin=nightly", ["pipeline"]),
    ],
)
def test_a_query_that_is_not_understood_is_refused_and_says_what_was_meant(
    client: Client, path: str, parts: list[str]
) -> None:
    """A misspelt filter never selects everything."""
    answer = client.get(path)
    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == 422
    for part in parts:
        assert part in problem["detail"]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/api/v1/jobs/job-77", 'no job "job-77" is known here; did you mean "job-'),
        ("/api/v1/jobs/nightly", '"nightly" is a pipeline: mppobs jobs --pipeline nightly'),
        ("/api/v1/jobs/xyz", 'the newest: "job-9", "job-3", "job-2"'),
        ("/api/v1/jobs/job-1?incarnation=5", "no run 5"),
        ("/api/v1/jobs/job-77/shards", "no job"),
        ("/api/v1/pipelines?pipeline=nihgtly", "did you mean 'nightly'?"),
        ("/api/v1/slis?pipeline=nihgtly", "did you mean 'nightly'?"),
        ("/api/v2/jobs", "/openapi.json"),
    ],
)
def test_what_does_not_exist_is_a_404_with_a_hint(client: Client, path: str, part: str) -> None:
    """Unknown jobs, runs, pipelines and paths."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert part in answer.json()["detail"]


def test_a_wrong_method_is_a_problem_too(client: Client) -> None:
    """405, with the methods that would do."""
    answer = client.request("DELETE", "/api/v1/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.json()["title"] == "Method Not Allowed"


def test_a_job_shows_its_stages_its_waste_and_what_holds_it_up(client: Client) -> None:
    """The detail has all that the listing has, and more."""
    listed = get(client, "/api/v1/jobs")["jobs"][0]
    job = get(client, "/api/v1/jobs/job-9")
    assert {key: job[key] for key in listed} == listed
    assert job["cost_by_kind_usd"] == {"useful": 2, "retry": 1}
    assert job["stages"][0]["tail_ratio"] == 2.5
    assert job["running"][0] == {
        "stage": "map", "shard": "part-7", "attempt": 0, "speculative": False, "worker": "w-1", "node": "node-1",
        "started": "2023-11-14T22:13:29Z", "elapsed_seconds": 91.0, "progress_ratio": 0.5, "checkpoint": None,
    }  # fmt: skip
    assert job["stragglers"][0]["evidence"] == "reads 4 times the median input"
    assert job["runs"] == [job["incarnation"]]


def test_a_job_s_name_may_hold_slashes() -> None:
    """Names come from schedulers that like paths."""
    reading = HandMade(finished=[summary(1, job_id="etl/2026-01-01")])
    with Client(build_app(parts(reading))) as client:
        assert get(client, "/api/v1/jobs/etl/2026-01-01")["job_id"] == "etl/2026-01-01"
        assert get(client, "/api/v1/jobs/etl%2F2026-01-01/shards")["shards"] == []


def test_a_job_past_its_deadline_is_late_and_one_that_will_be_is_foretold() -> None:
    """Ended or running, by how much; in time and without a deadline are neither."""
    ended, in_time, free = summary(1), summary(2), summary(3)
    ended = replace(ended, deadline_ns=ended.end_ns - 5 * SECOND)
    in_time = replace(in_time, deadline_ns=in_time.end_ns)
    overdue = replace(summary(4, state="running"), deadline_ns=START_NS + 90 * SECOND)
    key = PipelineKey("default", "default", "nightly")
    predicted = START_NS + 120 * SECOND
    run = LiveRun(key, overdue.key, "", Tier.STANDARD, "running", overdue.start_ns, 0.5, predicted, overdue.deadline_ns)
    reading = HandMade([overdue], [ended, in_time, free], current=View(live=Live(runs=(run,))))
    with Client(build_app(parts(reading))) as client:
        jobs = {job["job_id"]: (job["late"], job["late_seconds"]) for job in get(client, "/api/v1/jobs")["jobs"]}
        assert jobs == {"job-1": (True, 5), "job-2": (False, None), "job-3": (False, None), "job-4": (True, 10)}
        assert get(client, "/api/v1/jobs/job-4")["predicted_late_seconds"] == 30
        assert get(client, "/api/v1/jobs/job-1")["predicted_late_seconds"] is None


def test_the_root_says_where_to_look() -> None:
    """Every link of the index answers, of an aggregator as of an agent."""
    for agent in (False, True):
        with Client(build_app(parts(populated(), agent=agent))) as client:
            index = get(client, "/")
            assert index["role"] == ("agent" if agent else "aggregator")
            assert {"/metrics", "/openapi.json", "/healthz"} <= set(index["links"].values())
            assert all(client.get(path).status_code == 200 for path in index["links"].values())


def test_a_shard_that_was_lost_took_no_made_up_time(client: Client) -> None:
    """Where the decision or the start is not known there is no duration, rather than 0."""
    rows = get(client, "/api/v1/jobs/job-1/shards", order="worst")["shards"]
    assert [(row["shard"], row["outcome"], row["duration_seconds"]) for row in rows] == [("odd", "lost", None)]


def test_the_run_of_a_re_used_job_id_is_chosen_by_incarnation_and_is_the_newest_otherwise() -> None:
    """One name, several runs."""
    first, second = summary(1, job_id="again"), summary(2, job_id="again")
    with Client(build_app(parts(HandMade(finished=[first, second])))) as client:
        assert get(client, "/api/v1/jobs/again")["incarnation"] == str(second.key.incarnation)
        found = get(client, "/api/v1/jobs/again", incarnation=str(first.key.incarnation))
        assert found["incarnation"] == str(first.key.incarnation)
        assert found["runs"] == [str(second.key.incarnation), str(first.key.incarnation)]


def test_shards_are_filtered_ordered_and_paged(client: Client) -> None:
    """By outcome, by duration, page by page."""
    lost = get(client, "/api/v1/jobs/job-1/shards", outcome="lost")["shards"]
    assert [(row["shard"], row["reason"]) for row in lost] == [("odd", "node_lost")]
    page = get(client, "/api/v1/jobs/job-1/shards", order="slowest", limit=3)
    assert [row["shard"] for row in page["shards"]] == [9, 8, 7]
    page = get(client, "/api/v1/jobs/job-1/shards", order="slowest", limit=10, cursor=page["next"])
    assert [row["shard"] for row in page["shards"]] == [6, 5, 4, 3, 2, 1, 0, "odd"]
    assert page["next"] is None


def test_pipelines_and_indicators(client: Client) -> None:
    """Every indicator of the catalogue is reported, keyed M1 to M12, with where to find it in Prometheus."""
    pipelines = get(client, "/api/v1/pipelines")["pipelines"]
    assert [(each["tenant"], each["pipeline"]) for each in pipelines] == [("ads", "hourly"), ("default", "nightly")]
    assert (pipelines[1]["shard_success_ratio"], pipelines[1]["jobs_running"]) == (0.99, 1)
    report = get(client, "/api/v1/slis", pipeline="nightly")["pipelines"]
    assert len(report) == 1
    indicators = report[0]["indicators"]
    assert list(indicators) == [indicator.key for indicator in INDICATORS]
    assert indicators["M2"]["value"] == 0.99
    assert indicators["M2"]["parts"][0] == {"name": "committed", "value": 99.0, "unit": ""}
    assert (indicators["M7"]["value"], indicators["M12"]["value"], indicators["M11"]["value"]) == (0.75, 1, None)
    assert "mpp_shards_total" in indicators["M2"]["metrics"]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 30),
    limit=st.integers(1, 7),
    ending=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 29)), max_size=20),
    arriving=st.lists(st.integers(0, 5), max_size=4),
)
def test_concatenated_pages_are_everything_once_while_jobs_end_and_arrive(
    count: int, limit: int, ending: list[tuple[int, int]], arriving: list[int]
) -> None:
    """However jobs move from running to finished between pages, those there at the start are listed once each."""
    reading = HandMade(running=[summary(number // 3, state="running", job_id=f"j{number}") for number in range(count)])
    expected = {f"j{number}" for number in range(count)}
    with Client(build_app(parts(reading))) as client:
        seen = listed(client, reading, limit, count, ending, arriving)
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


def listed(
    client: Client, reading: HandMade, limit: int, count: int, ending: list[tuple[int, int]], arriving: list[int]
) -> list[str]:
    """Return the jobs of all pages, while jobs end (page, index) and arrive (page) in between."""
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for page_number in range(count + 2):
        page = get(client, "/api/v1/jobs", limit=limit, **cursor)
        seen += [job["job_id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
        for job in [job for at, index in ending for job in reading.running[index : index + 1] if at == page_number]:
            if job in reading.running:
                reading.settle(job)
        reading.running += [summary(1000 + at, state="running") for at in arriving if at == page_number]
    return seen


def test_metrics_come_as_text_or_openmetrics_compressed_where_that_is_taken(client: Client) -> None:
    """What a scraper gets is what it asked for."""
    plain = client.get("/metrics", headers={"Accept": "text/plain", "Accept-Encoding": "identity"})
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in plain.headers
    assert b"# EOF" not in plain.content
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
    answer = client.get("/metrics", headers=wanted)
    body = answer.content
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert b'mpp_jobs_total{cluster="default",tenant="default",pipeline="nightly",outcome="error"} 1' in body


def test_readiness_says_why_not() -> None:
    """Alive and ready are two things."""
    reading = HandMade(ready=False)
    with Client(build_app(parts(reading))) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"] == [{"name": "engine", "ok": False, "detail": "stopped"}]
        reading.ready = True
        assert client.get("/readyz").status_code == 200


def test_a_failure_inside_shows_nothing_but_its_request_s_identifier(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the whole story; the client has what it takes to find it."""
    with Client(build_app(parts(HandMade(failing=True)))) as client:
        answer = client.get("/api/v1/pipelines", headers={"X-Request-ID": "my-request"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "my-request"
    assert "secret" in caplog.text
    assert "my-request" in caplog.text


def test_every_answer_carries_security_headers_and_an_identifier(client: Client) -> None:
    """Errors included; an identifier that is not harmless text is replaced."""
    for path in ("/healthz", "/metrics", "/api/v1/jobs", "/nowhere"):
        headers = client.get(path, headers={"X-Request-ID": "bad id\t"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert len(headers["x-request-id"]) == 32


def test_the_document_describes_every_path_and_its_errors(client: Client) -> None:
    """Each operation has a description, and each error answer is a problem."""
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/", "/healthz", "/readyz", "/metrics", "/api/v1/jobs", "/api/v1/jobs/{job_id}", "/api/v1/jobs/{job_id}/shards",
        "/api/v1/pipelines", "/api/v1/slis", "/api/v1/slos", "/api/v1/journals/{journal}/segments/{segment}",
        "/api/v1/live", "/runbooks", "/runbooks/{name}",
    }  # fmt: skip
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (path, parameter["name"])
    assert "Problem" in document["components"]["schemas"]


def test_what_is_not_priced_costs_null_and_not_nothing() -> None:
    """Time was spent, and nobody said what it costs; a job that has run nothing yet has cost nothing."""
    ran, waits = summary(1), summary(2, state="running")
    ran = replace(ran, cost_pusd={}, stages=(replace(ran.stages[0], wall_ns=SECOND),))
    waits = replace(waits, cost_pusd={}, stages=())
    with Client(build_app(parts(HandMade([waits], [ran])))) as client:
        assert {job["job_id"]: job["cost_usd"] for job in get(client, "/api/v1/jobs")["jobs"]} == {
            "job-1": None, "job-2": 0,
        }  # fmt: skip
