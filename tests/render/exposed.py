"""
What a drill shows to Prometheus: series whose values are functions of time, served at any instant.

So the figures at a scrape are known exactly whenever the scrape happens, on a slow machine too.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Law = Callable[[float], float | None]
"""The value at a time; `None` where the series is not there."""


@dataclass(frozen=True)
class Series:
    """One series."""

    name: str
    labels: Mapping[str, str]
    law: Law
    stamped: bool = False
    """Whether samples say themselves when they were taken, to the millisecond."""

    @property
    def key(self) -> str:
        """Return the series as it is written."""
        inside = ",".join(f'{key}="{value}"' for key, value in self.labels.items())
        return f"{self.name}{{{inside}}}"


def constant(value: float) -> Law:
    """Return a value that does not change."""
    return lambda _now: value


def grows(begin: float, per_second: float, end: float = float("inf"), first: float = 0.0) -> Law:
    """Return a counter that grows evenly from a time on, until another."""
    return lambda now: first + per_second * max(0.0, min(now, end) - begin)


def while_(begin: float, law: Law, end: float = float("inf")) -> Law:
    """Return a series that is there only for a while."""
    return lambda now: law(now) if begin <= now < end else None


def whole(law: Law) -> Law:
    """Return the whole part of a value."""

    def rounded(now: float) -> float | None:
        value = law(now)
        return None if value is None else float(math.floor(value))

    return rounded


class Exposition(ThreadingHTTPServer):
    """Serves series by path. A path that is switched off answers with an error, as a broken sidecar does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: dict[str, list[Series]] = {}
        self.broken: list[tuple[str, float, float]] = []
        """Path, and the time from which and until which it is broken."""

    @property
    def address(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.server_port}"

    def page(self, path: str, now: float) -> str | None:
        """Return the exposition at a time, or `None` where the path is broken or unknown."""
        if path not in self.paths or any(name == path and begin <= now < end for name, begin, end in self.broken):
            return None
        return "".join(exposed(self.paths[path], now))


def exposed(series: Iterable[Series], now: float) -> Iterator[str]:
    """Yield a line per series that is there."""
    for each in series:
        value = each.law(now)
        if value is not None:
            yield f"{each.key} {value!r}{f' {int(now * 1000)}' if each.stamped else ''}\n"


class _Handler(BaseHTTPRequestHandler):
    server: Exposition

    def do_GET(self) -> None:
        """Serve one scrape."""
        page = self.server.page(self.path, time.time())
        self.send_response(503 if page is None else 200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        with suppress(ConnectionError):  # a scrape that gave up, or a Prometheus that was stopped
            self.wfile.write((page or "").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def exposition() -> Iterator[Exposition]:
    """Serve until the block ends."""
    with Exposition() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
