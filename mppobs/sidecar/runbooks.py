"""Runbook pages over HTTP, for the links in alerts: open to everybody, since they say nothing of the work."""

from __future__ import annotations

from html import escape
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.responses import HTMLResponse

from mppobs.errors import ConfigError
from mppobs.runbooks import names, text_of, to_html
from mppobs.sidecar.problems import ProblemError, documented

_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } thead:has(th:empty) { display: none; }
td, th { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; }
pre { padding: .7rem; white-space: pre-wrap; }
code { font: .9em ui-monospace, monospace; } h2 { border-bottom: 1px solid var(--line); margin-top: 2rem; }
nav { font-size: .9em; }
"""


def runbooks_router(dashboards_url: str | None) -> APIRouter:
    """Return the routes of the pages and of their list; links to dashboards lead to the given address, if any."""
    router = APIRouter(tags=["runbooks"])

    @router.get("/runbooks", response_class=HTMLResponse)
    def index() -> HTMLResponse:
        """List every page."""
        items = "".join(f'<li><a href="/runbooks/{escape(name)}">{escape(name)}</a></li>' for name in names())
        return _html("Runbooks", f"<h1>Runbooks</h1><ul>{items}</ul>")

    @router.get(
        "/runbooks/{name}",
        response_class=HTMLResponse,
        responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    def page(
        name: Annotated[str, Path(max_length=100, description="An alert, or a guide, as `/runbooks` lists them.")],
    ) -> HTMLResponse:
        """Show the page of an alert, or a guide."""
        try:
            text = text_of(name)
        except ConfigError as error:
            raise ProblemError(HTTPStatus.NOT_FOUND, str(error), "not_found") from None
        return _html(name, f'<nav><a href="/runbooks">all runbooks</a></nav>{to_html(text, dashboards_url or "")}')

    return router


def _html(title: str, body: str) -> HTMLResponse:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return HTMLResponse(f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>", headers=_HEADERS)
