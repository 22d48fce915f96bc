"""
The sidecar's web application: /metrics, health, the API and the shipping routes, behind tokens and limits.

It is handed everything that it shows; `mppobs.sidecar.app` wires it to a real aggregator or agent.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from mppobs.clock import Clock, SystemClock
from mppobs.sidecar import schemas
from mppobs.sidecar.api import api_router
from mppobs.sidecar.auth import Tokens, guard
from mppobs.sidecar.exposition import OPENMETRICS_TYPE, TEXT_TYPE, Renderer, negotiate
from mppobs.sidecar.ingest import Intake, ingest_router
from mppobs.sidecar.middleware import Envelope, Refusals
from mppobs.sidecar.problems import (
    Problem,
    ProblemError,
    Responses,
    documented,
    on_http_exception,
    on_invalid_request,
)  # fmt: skip
from mppobs.sidecar.reading import Exposing, Reading
from mppobs.sidecar.runbooks import runbooks_router
from mppobs.sidecar.settings import SidecarSettings
from mppobs.version import __version__

_GZIP_LEVEL: Final = 3
"""A third of the time of the usual 9, for a few percent more bytes."""

_DESCRIPTION: Final = """
What a massively parallel job does, measured shard by shard: jobs, shards, pipelines, indicators M1 to M12, and SLOs.

Times are RFC 3339 in UTC, durations seconds, sizes bytes, money US dollars, ratios in [0, 1]. A figure that nothing
is known of is `null`, never 0. Errors are `application/problem+json`.
"""


@dataclass(frozen=True)
class Parts:
    """What an application is made of. Without `reading` and `intake` it is an agent's."""

    settings: SidecarSettings
    exposing: Exposing
    reading: Reading | None = None
    intake: Intake | None = None
    refusals: Refusals = field(default_factory=Refusals)
    clock: Clock = field(default_factory=SystemClock)


def build_app(parts: Parts) -> FastAPI:
    """Return the application. Raises ConfigError where a token cannot be read."""
    tokens = Tokens.of(parts.settings)
    app = FastAPI(
        title="mppobs sidecar", version=__version__, description=_DESCRIPTION,
        openapi_url=None, docs_url=None, redoc_url=None,
    )  # fmt: skip
    may_read = [Depends(guard(tokens, "read"))] if tokens.read is not None else []
    denied = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    read_denied: Responses = denied if may_read else {}
    app.include_router(_index_router(parts))
    app.include_router(_health_router(parts))
    app.include_router(runbooks_router(parts.settings.dashboards_url))
    app.include_router(_metrics_router(parts), dependencies=may_read, responses=read_denied)
    if parts.reading is not None:
        app.include_router(api_router(parts.reading, parts.clock), dependencies=may_read, responses=read_denied)
    if parts.intake is not None:
        limits = parts.settings
        router = ingest_router(parts.intake, limits.max_body_bytes, limits.max_requests_in_flight)
        app.include_router(router, dependencies=[Depends(guard(tokens, "write"))], responses=denied)
    app.include_router(_document_router(app), dependencies=may_read)
    _handle_errors(app, parts.refusals)
    app.add_middleware(Envelope, refusals=parts.refusals)
    return app


def _index_router(parts: Parts) -> APIRouter:
    """Return what a person sees who opens the address in a browser. Open to everybody: it is the same everywhere."""
    router = APIRouter(tags=["health"])
    reads = ("jobs", "pipelines", "slis", "slos") if parts.reading is not None else ()
    links = {
        "metrics": "/metrics", "openapi": "/openapi.json", "health": "/healthz", "ready": "/readyz",
        "runbooks": "/runbooks",
        **{name: f"/api/v1/{name}" for name in reads},
    }  # fmt: skip

    @router.get("/")
    async def index() -> schemas.Index:
        """Say what this is, and where to look."""
        return schemas.Index(version=__version__, role="agent" if parts.reading is None else "aggregator", links=links)

    return router


def _health_router(parts: Parts) -> APIRouter:
    """Return what an orchestrator asks. Open to everybody: it says nothing of the work."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> schemas.Health:
        """Say that the process lives."""
        return schemas.Health(version=__version__)

    @router.get(
        "/readyz",
        response_model=schemas.Readiness,
        responses={503: {"model": schemas.Readiness, "description": "Figures are not current; the checks say why."}},
    )
    def readyz() -> JSONResponse:
        """Say whether figures are current, and if not, why."""
        checks = parts.exposing.checks(parts.clock.time_ns())
        shown = [schemas.Check(name=check.name, ok=check.ok, detail=check.detail) for check in checks]
        found = schemas.Readiness(ready=all(check.ok for check in checks), checks=shown)
        status = HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse(found.model_dump(mode="json"), status)

    return router


def _metrics_router(parts: Parts) -> APIRouter:
    """Return the exposition for Prometheus."""
    router = APIRouter(tags=["metrics"])
    renderer = Renderer(parts.clock)
    rendering = Lock()
    text: Mapping[str, Any] = {"schema": {"type": "string"}}

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "The exposition.", "content": {TEXT_TYPE: text, OPENMETRICS_TYPE: text}}},
    )
    def metrics(request: Request) -> Response:
        """Expose every metric, as text or OpenMetrics, compressed where the scraper takes that."""
        wanted = negotiate(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""))
        now = parts.clock.time_ns()
        with rendering, parts.exposing.view(now) as view:
            body = renderer.render(view, now, openmetrics=wanted.openmetrics)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if wanted.gzip:
            body = gzip.compress(body, _GZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type=wanted.content_type)

    return router


def _document_router(app: FastAPI) -> APIRouter:
    """Return the OpenAPI document, behind the same guard as what it describes."""
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(describe(app))

    return router


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the application's OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        known = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (Problem, schemas.LiveReport):  # FastAPI does not see these: they are answered and read by hand
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            known |= {**schema.pop("$defs", {}), model.__name__: schema}
        app.openapi_schema = document
    return app.openapi_schema


def _handle_errors(app: FastAPI, refusals: Refusals) -> None:
    """Answer every error as a problem, and count it by reason."""

    async def refused(request: Request, error: Exception) -> Response:
        refusals.count(error.reason if isinstance(error, ProblemError) else "not_found")
        return await on_http_exception(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        refusals.count("invalid")
        return await on_invalid_request(request, error)

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
