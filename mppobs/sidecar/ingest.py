"""
The routes by which agents ship: journal bytes at an offset, and reports of what runs.

Bodies are read piece by piece and no further than the limit; the number of requests being handled is bounded.
An answer of 200 means that the bytes are durable here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from mppobs.sidecar.problems import ProblemError, documented
from mppobs.sidecar.schemas import Accepted, Acknowledged, LiveReport

BODY_SECONDS: Final = 30.0
"""How long a client may take to send a body: a slow one must not hold a place for ever."""
MAX_SEGMENT_INDEX: Final = 2**31 - 1
MAX_OFFSET: Final = 2**40

_RETRY: Final = {"Retry-After": "1"}


class Gate:
    """Bounds how many requests are handled at a time. For the event loop's thread alone."""

    def __init__(self, places: int) -> None:
        self._free = places

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one place for the time of the context, or raise `ProblemError` 429."""
        if self._free <= 0:
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too many requests at a time; come again", "busy", _RETRY)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


async def read_body(request: Request, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """
    Return a request's body. Raises `ProblemError` 413 as soon as it passes the limit, 408 when it takes too long.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, f"the body took more than {seconds:g} s", "slow") from error
    return bytes(body)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {limit} bytes here", "too_large")


class Reply(Protocol):
    """What became of bytes that were shipped."""

    @property
    def status(self) -> str:
        """Return `ok`, `conflict`, `invalid`, `too_large`, `full` or `refused`."""
        ...

    @property
    def size(self) -> int:
        """Return how many bytes of the segment are durable."""
        ...


class Intake(Protocol):
    """Where shipped bytes and reports go. Called from several threads."""

    def append(self, journal: str, segment: int, offset: int, data: bytes) -> Reply:
        """Make bytes durable at an offset of a segment, unless that would leave a hole."""
        ...

    def report(self, live: LiveReport) -> None:
        """Replace what an agent said runs below it."""
        ...


Journal = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The journal's UUID, without dashes.")]
Index = Annotated[int, Path(ge=0, le=MAX_SEGMENT_INDEX, description="The segment's number, from 0.")]
Offset = Annotated[
    int, Query(ge=0, le=MAX_OFFSET, multiple_of=8, description="Where in the segment the bytes belong; whole words.")
]

_REFUSALS: Final = {
    "invalid": (HTTPStatus.UNPROCESSABLE_ENTITY, "these are not the bytes of that segment"),
    "too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the segment would be larger than a segment can be"),
    "full": (HTTPStatus.INSUFFICIENT_STORAGE, "the spool is full; keep the bytes and come again"),
    "refused": (HTTPStatus.INSUFFICIENT_STORAGE, "the spool takes no further journals; keep the bytes and come again"),
}
_ERRORS: Final = documented(
    HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INSUFFICIENT_STORAGE,
)  # fmt: skip


def ingest_router(intake: Intake, body_bytes: int, places: int) -> APIRouter:
    """Return the routes that write. Whoever includes them puts a guard before them."""
    router = APIRouter(prefix="/api/v1", tags=["shipping"], responses=_ERRORS)
    gate = Gate(places)

    @router.post(
        "/journals/{journal}/segments/{segment}",
        response_model=Acknowledged,
        responses={409: {"model": Acknowledged, "description": "The offset is not where the segment ends."}},
        openapi_extra=_body("application/octet-stream", {"type": "string", "format": "binary"}, required=False),
    )
    async def append(request: Request, journal: Journal, segment: Index, offset: Offset = 0) -> JSONResponse:
        """
        Add bytes to a segment. Repeating a request changes nothing; a conflict says where to go on from.

        Without a body, it says how much of the segment is here.
        """
        with gate.place():
            data = await read_body(request, body_bytes)
            return _answer(await run_in_threadpool(intake.append, journal, segment, offset, data))

    @router.post(
        "/live",
        response_model=Accepted,
        openapi_extra=_body("application/json", {"$ref": "#/components/schemas/LiveReport"}),
    )
    async def live(request: Request) -> Accepted:
        """Say what runs below an agent. Replaces what it said before."""
        with gate.place():
            report = _parse(await read_body(request, body_bytes))
            await run_in_threadpool(intake.report, report)
            return Accepted(journals=len(report.journals))

    return router


def _body(media_type: str, schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Describe a body that is read by hand, since FastAPI would read it whole, however large."""
    return {"requestBody": {"required": required, "content": {media_type: {"schema": schema}}}}


def _answer(reply: Reply) -> JSONResponse:
    """Return the answer to shipped bytes, or raise `ProblemError` where they were not taken."""
    if reply.status in ("ok", "conflict"):
        status = HTTPStatus.OK if reply.status == "ok" else HTTPStatus.CONFLICT
        return JSONResponse({"acknowledged": reply.size}, status)
    status, detail = _REFUSALS[reply.status]
    raise ProblemError(status, detail, reply.status, _RETRY)


def _parse(body: bytes) -> LiveReport:
    """Return a report, or raise what FastAPI raises for a body that does not fit."""
    try:
        return LiveReport.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found[:20]]) from error
