"""
Errors as `application/problem+json` (RFC 9457): what was wrong, where, and the nearest right word.

Nothing of a stack trace reaches a client; the request's identifier does, so that the log can be searched for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mppobs.errors import nearest
from mppobs.sidecar.wording import in_words

MEDIA_TYPE: Final = "application/problem+json"

Responses = dict[int | str, dict[str, Any]]
"""Documented answers by status, as FastAPI takes them."""


class Issue(BaseModel):
    """One thing that is wrong with a request."""

    where: list[str] = Field(
        description="The part of the request, such as `query`, `outcome`.", examples=[["query", "limit"]]
    )
    what: str = Field(description="What is wrong with it, and what was meant where that can be guessed.")


class Problem(BaseModel):
    """Why a request was refused."""

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says the kind.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What went wrong, for people.")
    issues: list[Issue] = Field(default_factory=list, description="Each thing that is wrong, where there are several.")
    request_id: str = Field(default="", description="Under which the sidecar's log mentions this request.")


class ProblemError(HTTPException):
    """A refusal, raised from anywhere below a route. `reason` is the label under which it is counted."""

    def __init__(self, status: HTTPStatus, detail: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.reason = reason


def documented(*statuses: HTTPStatus) -> Responses:
    """
    Return the description of error answers for the OpenAPI document.

    >>> sorted(documented(HTTPStatus.NOT_FOUND))
    [404]
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def problem_response(
    request: Request, status: int, detail: str, issues: Sequence[Issue] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """Return a refusal as an answer."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        issues=list(issues),
        request_id=request.scope.get("state", {}).get("request_id", ""),
    )
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer refusals, unknown paths and wrong methods alike."""
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and not isinstance(error, ProblemError):
        detail = f"there is nothing at {request.url.path}; see /openapi.json"
    return problem_response(request, error.status_code, detail, (), error.headers)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer a request that does not fit its description, with a hint for each value out of a closed list."""
    assert isinstance(error, RequestValidationError)
    issues = [Issue(where=[str(part) for part in entry["loc"]], what=_what(entry)) for entry in error.errors()]
    detail = "; ".join(f"{'.'.join(issue.where)}: {issue.what}" for issue in issues[:5])
    return problem_response(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, issues)


def _what(entry: Mapping[str, Any]) -> str:
    """Return what is wrong, in the words of `errors.nearest` where there is a list to choose from."""
    if entry["type"] in ("enum", "literal_error") and isinstance(entry.get("input"), str):
        expected = str(entry.get("ctx", {}).get("expected", ""))
        known = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
        return f"unknown value {short(entry['input'])}; {nearest(entry['input'][:200], known)}"
    return in_words(entry)


def short(value: str) -> str:
    """Return a value that a client sent, cut, so that no answer grows with its request."""
    return json.dumps(value if len(value) <= 80 else value[:80] + "…", ensure_ascii=True)
