"""A webhook for every receiver of an Alertmanager: it notes who is told what, when, and under which group."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Notice:
    """One alert of one notification."""

    time: float
    receiver: str
    group: str
    """Alertmanager's key of the group: what a pager makes one incident of."""
    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def name(self) -> str:
        """Return the alert's name, with its leg where it has one."""
        leg = self.labels.get("leg")
        return self.labels["alertname"] + (f"/{leg}" if leg else "")


class Webhook(ThreadingHTTPServer):
    """Takes what Alertmanager sends; the path is the receiver."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notices: list[Notice] = []

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def firing(self, receiver: str = "") -> list[Notice]:
        """Return what a receiver, or anybody, was told to be wrong, in the order of its coming."""
        return [notice for notice in list(self.notices) if notice.firing and receiver in ("", notice.receiver)]

    def told(self, receiver: str) -> dict[str, dict[str, str]]:
        """Return the labels of the firing alerts that a receiver was told of, by name and leg."""
        return {notice.name: notice.labels for notice in self.firing(receiver)}


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        """Note every alert of a notification."""
        now, body = time.time(), json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.notices += [
            Notice(
                now, self.path.strip("/"), body["groupKey"], alert["status"] == "firing",
                alert["labels"], alert["annotations"],
            )
            for alert in body["alerts"]
        ]  # fmt: skip
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Listen until the block ends."""
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
