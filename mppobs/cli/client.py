"""A reader of a running sidecar's API, for the commands that show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Self
from urllib.parse import quote

import httpx
import typer

from mppobs.errors import MppobsError

DEFAULT_URL: Final = "http://127.0.0.1:9466"
URL_VARIABLE: Final = "MPPOBS_SIDECAR_URL"
TOKEN_VARIABLE: Final = "MPPOBS_SIDECAR_READ_TOKEN"

PAGE: Final = 500
"""The largest page that the API gives."""

UrlOption = Annotated[
    str, typer.Option("--url", envvar=URL_VARIABLE, metavar="URL", help="Where the sidecar listens.", show_default=True)
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", envvar=TOKEN_VARIABLE, metavar="TOKEN", help="Its read token, where it has one.", show_envvar=True
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]


class SidecarError(MppobsError):
    """Raised when no sidecar answers, or when it refuses. The message says what was tried and what to do."""


class SidecarClient:
    """Reads from one sidecar. Use it as a context; every method raises `SidecarError`."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, ValueError) as error:
            raise SidecarError(f"{url!r} is no address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return what the API has at a path below `/api/v1`; parameters that are `None` are left out."""
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.get(f"/api/v1{path}", params=given)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise SidecarError(self._no_answer(error)) from error
        if answer.status_code != httpx.codes.OK:
            raise SidecarError(self._refusal(answer))
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise SidecarError(f"what listens at {self._url} is no mppobs sidecar") from error
        return found

    def pages(self, path: str, key: str, query: Mapping[str, object], limit: int) -> Iterator[dict[str, Any]]:
        """Yield up to `limit` items of a paged list, page after page."""
        cursor: str | None = None
        while limit > 0:
            page = self.get(path, {**query, "cursor": cursor, "limit": min(limit, PAGE)})
            yield from page[key]
            limit -= len(page[key])
            cursor = page["next"]
            if cursor is None:
                return

    def _no_answer(self, error: Exception) -> str:
        return (
            f"no sidecar answers at {self._url} ({error or type(error).__name__}). "
            f"Start one with `mppobs sidecar`, or say where it is with --url or {URL_VARIABLE}."
        )

    def _refusal(self, answer: httpx.Response) -> str:
        """Return what the sidecar said, and what to do about it where that is known."""
        try:
            detail = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            return f"what listens at {self._url} is no mppobs sidecar: {answer.status_code} {answer.reason_phrase}"
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            detail += f": give it with --token or {TOKEN_VARIABLE}"
        return detail


def job_path(job_id: str) -> str:
    """
    Return the path of a job. Slashes and dots are quoted too: `..` is a name here, and no way upwards.

    >>> job_path("etl/2026 01.b")
    '/jobs/etl%2F2026%2001%2Eb'
    """
    return "/jobs/" + quote(job_id, safe="").replace(".", "%2E")
