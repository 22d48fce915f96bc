"""Who may do what: every kind of route against every kind of token."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from fastapi import FastAPI

from mppobs.errors import ConfigError
from mppobs.sidecar.auth import Tokens
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.web import build_app
from tests.sidecar.handmade import Client, HandMade, HandMadeSpool, parts

SEGMENT = f"/api/v1/journals/{'0' * 32}/segments/0"
READING = [
    "/metrics",
    "/api/v1/jobs",
    "/api/v1/jobs/x",
    "/api/v1/jobs/x/shards",
    "/api/v1/pipelines",
    "/api/v1/slis",
    "/api/v1/slos",
    "/openapi.json",
]
WRITING = [SEGMENT, "/api/v1/live"]
OPEN = ["/healthz", "/readyz"]

ALLOWED = {200, 404, 422}
"""What a request that got past the guard may be answered with here."""


@cache
def app_of(settings: frozenset[tuple[str, str]]) -> FastAPI:
    """Return an application with some settings; it holds nothing, so tests may share it."""
    return build_app(parts(HandMade(), HandMadeSpool(), **dict(settings)))


def status(settings: dict[str, str], path: str, token: str | None) -> int:
    """Return the status that a path answers with under some settings and a token."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with Client(app_of(frozenset(settings.items()))) as client:
        method = "POST" if path in WRITING else "GET"
        return client.request(method, path, headers=headers, content=b"" if method == "POST" else None).status_code


@pytest.mark.parametrize("path", READING)
@pytest.mark.parametrize(
    ("settings", "token", "expected"),
    [
        ({}, None, ALLOWED),
        ({}, "whatever", ALLOWED),
        ({"read_token": "r"}, "r", ALLOWED),
        ({"read_token": "r"}, None, {401}),
        ({"read_token": "r"}, "x", {401}),
        ({"read_token": "r"}, "", {401}),
        ({"read_token": "r"}, "rr", {401}),
        ({"read_token": "r", "write_token": "w"}, "w", {403}),
    ],
)
def test_reading_is_open_until_there_is_a_read_token(
    path: str, settings: dict[str, str], token: str | None, expected: set[int]
) -> None:
    """Then it takes that token, and no other, on every path that shows anything of the work."""
    assert status(settings, path, token) in expected


@pytest.mark.parametrize("path", WRITING)
@pytest.mark.parametrize(
    ("settings", "token", "expected"),
    [
        ({}, None, {403}),
        ({}, "w", {403}),
        ({"write_token": "w"}, "w", ALLOWED),
        ({"write_token": "w"}, None, {401}),
        ({"write_token": "w"}, "x", {401}),
        ({"write_token": "w", "read_token": "r"}, "r", {403}),
        ({"write_token": "w", "read_token": "r"}, "w", ALLOWED),
        ({"read_token": "r"}, "r", {403}),
    ],
)
def test_writing_always_needs_the_write_token(
    path: str, settings: dict[str, str], token: str | None, expected: set[int]
) -> None:
    """Without one configured nothing is taken in, not even on loopback."""
    assert status(settings, path, token) in expected


@pytest.mark.parametrize("path", OPEN)
def test_health_is_open_to_whoever_orchestrates(path: str) -> None:
    """Probes carry no tokens, and health says nothing of the work."""
    assert status({"read_token": "r", "write_token": "w"}, path, None) == 200


@pytest.mark.parametrize("header", ["r", "Basic r", "Bearer", "Bearer  ", "bearer x", "Bearer \x80", "Bearer r r"])
def test_a_malformed_authorization_is_no_authorization(header: str) -> None:
    """Whatever stands in the header, the answer is 401 with a challenge."""
    with Client(build_app(parts(HandMade(), read_token="r"))) as client:
        answer = client.get("/metrics", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_nothing_is_read_of_a_body_before_its_sender_is_known() -> None:
    """A stranger cannot make the sidecar read megabytes."""
    spool = HandMadeSpool()
    with Client(build_app(parts(HandMade(), spool, write_token="w"))) as client:
        assert client.post(SEGMENT, content=b"x" * 10**6).status_code == 401
    assert not spool.segments


def test_one_token_for_both_is_refused() -> None:
    """A reader could then write."""
    settings = SidecarSettings(directories=(Path("/nowhere"),), read_token="same", write_token="same")
    with pytest.raises(ConfigError, match="are the same"):
        Tokens.of(settings)


def test_an_agent_shows_only_itself() -> None:
    """It has no jobs, and takes nothing in."""
    with Client(build_app(parts(HandMade(), agent=True))) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/api/v1/jobs").status_code == 404
        assert client.post(SEGMENT, content=b"").status_code == 404
        assert b"\nmpp_" not in client.get("/metrics").content
