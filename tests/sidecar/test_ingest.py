"""The shipping routes: offsets, limits, refusals, hostile bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.sidecar.ingest import Gate, read_body
from mppobs.sidecar.problems import ProblemError
from mppobs.sidecar.web import Parts, build_app
from tests.sidecar.handmade import Client, HandMade, HandMadeSpool, parts

JOURNAL = "0123456789abcdef" * 2
PATH = f"/api/v1/journals/{JOURNAL}/segments/3"
HEADERS = {"Authorization": "Bearer w"}
LIMIT = 1000


@pytest.fixture
def spool() -> HandMadeSpool:
    """Return a spool to ship into."""
    return HandMadeSpool()


@pytest.fixture
def made(spool: HandMadeSpool) -> Parts:
    """Return what the application is made of."""
    return parts(HandMade(), spool, write_token="w", max_body_bytes=LIMIT, max_requests_in_flight=2)


@pytest.fixture
def client(made: Parts) -> Iterator[Client]:
    """Return an agent's client."""
    with Client(build_app(made), HEADERS) as found:
        yield found


def test_bytes_are_appended_at_their_offset_and_acknowledged(client: Client, spool: HandMadeSpool) -> None:
    """A repeat changes nothing; a hole is a conflict that says where to go on."""
    assert client.post(PATH, content=b"a" * 8).json() == {"acknowledged": 8}
    assert client.post(f"{PATH}?offset=8", content=b"b" * 8).json() == {"acknowledged": 16}
    assert client.post(PATH, content=b"a" * 8).json() == {"acknowledged": 16}
    hole = client.post(f"{PATH}?offset=24", content=b"c" * 8)
    assert (hole.status_code, hole.json()) == (409, {"acknowledged": 16})
    assert spool.segments == {(JOURNAL, 3): b"a" * 8 + b"b" * 8}


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (50 * LIMIT, 413)])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_is_read_up_to_the_limit_and_no_further(
    made: Parts, spool: HandMadeSpool, size: int, status: int, announced: bool
) -> None:
    """Whether its length is announced or not."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 50):
            yield b"x" * 50
        yield b"x" * (size % 50)

    async def ship() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(made))
        async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=HEADERS) as client:
            return await client.post(PATH, content=b"x" * size if announced else pieces())

    assert asyncio.run(ship()).status_code == status
    assert bool(spool.segments) == (status == 200)
    assert made.refusals.totals().get("too_large", 0) == (status == 413)


@pytest.mark.parametrize(("verdict", "status"), [("too_large", 413), ("full", 507), ("refused", 507)])
def test_what_the_spool_does_not_take_is_refused_and_to_be_kept(
    client: Client, spool: HandMadeSpool, verdict: str, status: int
) -> None:
    """The agent keeps its bytes and is told when to come again."""
    spool.verdict = verdict
    answer = client.post(PATH, content=b"x")
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/journals/xyz/segments/0",
        f"/api/v1/journals/{JOURNAL.upper()}/segments/0",
        f"/api/v1/journals/{JOURNAL}/segments/-1",
        f"/api/v1/journals/{JOURNAL}/segments/x",
        f"/api/v1/journals/{JOURNAL}/segments/99999999999999999999",
        f"{PATH}?offset=-1",
        f"{PATH}?offset=1e9",
        f"{PATH}?offset=9",
        f"{PATH}?offset=99999999999999999999",
        "/api/v1/journals/..%2f..%2fetc/segments/0",
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_body_is_stored(
    client: Client, spool: HandMadeSpool, path: str
) -> None:
    """Names go into paths of files, so they are checked to the letter."""
    assert client.post(path, content=b"x").status_code in (404, 422)
    assert not spool.segments


def test_a_gate_lets_so_many_in_and_no_more() -> None:
    """The rest are told to come again; places are given back, also after a failure."""
    gate = Gate(1)
    statuses = []
    for _ in range(2):
        with suppress(RuntimeError), gate.place():
            with pytest.raises(ProblemError) as caught, gate.place():
                pass
            statuses.append(caught.value.status_code)
            raise RuntimeError
    assert statuses == [429, 429]


def test_too_many_requests_at_a_time_are_answered_429(made: Parts) -> None:
    """Two places, three slow senders."""
    release = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await release.wait()

    async def ship() -> list[int]:
        transport = httpx.ASGITransport(build_app(made))
        async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=HEADERS) as client:
            first = [asyncio.create_task(client.post(PATH, content=slow())) for _ in range(2)]
            await asyncio.sleep(0.05)
            third = await client.post(PATH, content=b"x")
            release.set()
            return [third.status_code, *[(await each).status_code for each in first]]

    assert asyncio.run(ship()) == [429, 200, 200]


def test_a_body_that_trickles_is_given_up() -> None:
    """A slow sender does not hold its place for ever."""

    class Trickle:
        headers: ClassVar[dict[str, str]] = {}

        async def stream(self) -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(60)

    request: Any = Trickle()
    with pytest.raises(ProblemError) as caught:
        asyncio.run(read_body(request, LIMIT, seconds=0.01))
    assert caught.value.status_code == 408


def test_a_report_of_what_runs_is_taken(client: Client, spool: HandMadeSpool) -> None:
    """As an agent sends it."""
    slot = {"index": 0, "context_id": 1, "start_ns": 5, "shard_key": 7, "attempt": 1, "progress": 0.5}
    report = {"agent": "node-1", "journals": [{"journal": JOURNAL, "alive": True, "pid": 4, "slots": [slot]}]}
    assert client.post("/api/v1/live", json=report).json() == {"journals": 1}
    assert spool.reports[0].journals[0].slots[0].shard_key == 7


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"agent": "a"}', b'{"agent": "", "journals": []}', b"\xff\xfe",
        b'{"agent": "a", "journals": [{"journal": "../x", "alive": true}]}',
        b'{"agent": "a", "journals": [], "more": 1}', b"[" * 900,
        b'{"agent": "a", "journals": [{"journal": "%s", "alive": true, "pid": 99999999999}]}' % JOURNAL.encode(),
        b'{"agent": "a", "journals": [{"journal": "%s", "alive": true, "slots": [{"index": NaN}]}]}' % JOURNAL.encode(),
    ],
)  # fmt: skip
def test_a_report_that_is_none_is_refused(client: Client, spool: HandMadeSpool, body: bytes) -> None:
    """Nothing of it is kept."""
    answer = client.post("/api/v1/live", content=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["issues"]
    assert not spool.reports


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def test_no_body_makes_the_sidecar_fail(made: Parts, client: Client) -> None:
    """Random bytes and random JSON, on both routes."""

    @settings(max_examples=200, deadline=None)
    @given(body=st.binary(max_size=LIMIT + 50) | json_values.map(lambda value: json.dumps(value).encode()))
    def send(body: bytes) -> None:
        assert client.post("/api/v1/live", content=body).status_code in (200, 413, 422)
        assert client.post(PATH, content=body).status_code in (200, 413)

    send()
    assert "internal" not in made.refusals.totals()


def test_refusals_are_counted_by_reason() -> None:
    """Each reason is a series, so there are few of them."""
    made = parts(HandMade(), HandMadeSpool(), write_token="w")
    with Client(build_app(made)) as client:
        client.post(PATH)
        client.post(PATH, headers=HEADERS, content=b"x")
        client.post(PATH, headers={"Authorization": "Bearer x"})
        client.get("/api/v1/jobs?x=1")
        client.get("/nowhere")
    assert made.refusals.totals() == {"unauthorized": 2, "invalid": 1, "not_found": 1}
