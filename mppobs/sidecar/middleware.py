"""
What surrounds every request: an identifier, security headers, one line in the log, and no stack trace for anybody.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from threading import Lock
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mppobs.sidecar.problems import problem_response

_log = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-ID"
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Refusals:
    """How many requests were refused, by reason. May be counted from any thread."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def count(self, reason: str) -> None:
        """Count one refusal. Reasons come from a short list, since each is a series."""
        with self._lock:
            self._counts[reason] += 1

    def totals(self) -> dict[str, int]:
        """Return the counts so far."""
        with self._lock:
            return dict(self._counts)


class Envelope:
    """
    The outermost layer, around everything else.

    The request's identifier is the client's own where that is harmless text, so that both logs can be joined.
    """

    def __init__(self, app: ASGIApp, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.monotonic()
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update({**SECURITY_HEADERS, REQUEST_ID: request_id})
            await send(message)

        try:
            await self._app(scope, receive, send_dressed)
        except ClientDisconnect:
            self._refusals.count("disconnected")
        except Exception:
            _log.exception("request %s failed: %s %r", request_id, scope["method"], scope["path"])
            self._refusals.count("internal")
            if not status:
                response = problem_response(
                    Request(scope), HTTPStatus.INTERNAL_SERVER_ERROR, "the sidecar failed; see its log"
                )
                await response(scope, receive, send_dressed)
        took = (time.monotonic() - began) * 1000
        _log.info("%s %s %r %d %.1f ms", request_id, scope["method"], scope["path"], status, took)


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex
