"""The roles in one process: how an engine is shown, and when a sidecar is ready."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from mppobs.clock import ManualClock, SystemClock
from mppobs.errors import ConfigError
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.app import create_app
from mppobs.sidecar.middleware import Envelope, Refusals
from mppobs.sidecar.roles import MAX_SILENCE_SECONDS, Agent, Aggregator, EngineReading
from mppobs.sidecar.settings import SidecarSettings
from tests.sidecar.handmade import Client
from tests.sidecar.test_app import write_job


def settings(directory: Path, **given: Any) -> SidecarSettings:
    """Return settings below a directory."""
    return SidecarSettings(directories=(directory / "journals",), state_directory=directory / "state", **given)


def test_an_application_over_an_engine_that_somebody_else_runs(tmp_path: Path) -> None:
    """It shows what is committed, and takes nothing in."""
    write_job(tmp_path / "journals", "job", [1, 2], end=False)
    engine = open_engine(tmp_path / "state", [tmp_path / "journals"])
    try:
        with Client(create_app(engine, settings(tmp_path))) as client:
            assert client.get("/api/v1/jobs").json()["jobs"] == []
            engine.tick()
            assert [job["job_id"] for job in client.get("/api/v1/jobs").json()["jobs"]] == ["job"]
            assert client.get("/api/v1/jobs?state=finished").json()["jobs"] == []
            assert client.get("/api/v1/pipelines").json()["pipelines"][0]["shards"]["committed"] == 2
            assert client.post("/api/v1/live").status_code == 404
    finally:
        engine.close()


def test_an_aggregator_whose_engine_stands_still_is_not_ready(tmp_path: Path) -> None:
    """Old figures are said to be old."""
    clock = ManualClock()
    engine = open_engine(tmp_path / "state", [tmp_path], clock=clock)
    try:
        reading = EngineReading(engine, settings(tmp_path), Refusals())
        engine.tick()
        assert all(check.ok for check in reading.checks(clock.time_ns()))
        clock.advance(seconds=31)
        assert {check.name: check.ok for check in reading.checks(clock.time_ns())} == {
            "store": True,
            "prices": True,
            "slos": True,
            "lag": False,
        }
    finally:
        engine.close()


def test_an_agent_whose_aggregator_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    """After a while; nothing is lost, but nothing is seen either."""
    clock = ManualClock()
    with Agent(settings(tmp_path, forward="http://127.0.0.1:9"), Refusals(), clock) as agent:
        assert agent.checks(clock.time_ns())[0].ok
        clock.advance(seconds=MAX_SILENCE_SECONDS + 1)
        assert not agent.checks(clock.time_ns())[0].ok


def test_spans_are_exported_only_where_there_is_somewhere_to_send_them(tmp_path: Path) -> None:
    """An exporter is opened and closed with the aggregator."""
    made = settings(tmp_path, otlp_endpoint="http://127.0.0.1:9")
    with Aggregator(made, Refusals(), SystemClock()) as aggregator, aggregator.reading.view(0) as view:
        assert dict(view.tool.spans_dropped) == {"sampled": 0, "cap": 0, "export": 0}


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file is no directory."""
    (tmp_path / "journals").write_text("")
    with (
        pytest.raises(ConfigError, match="journals cannot be used"),
        Aggregator(settings(tmp_path), Refusals(), SystemClock()),
    ):
        pass


def test_a_client_that_goes_away_is_no_failure() -> None:
    """It is counted, and nothing is answered to nobody."""

    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    async def nobody(*_: object) -> Any:
        raise AssertionError("nothing is to be said")

    refusals = Refusals()
    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(Envelope(gone, refusals)(scope, nobody, nobody))
    assert refusals.totals() == {"disconnected": 1}
