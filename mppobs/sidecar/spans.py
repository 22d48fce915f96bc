"""
Spans of decided jobs, exported over OTLP: from a background thread, so that the fold never waits for a backend.

What is offered waits in a bounded queue; when that is full, or the backend stays away for longer than the retries
last, spans are dropped and counted. They are not durable: a job whose spans wait when the process is killed has
none. Its records are in the archive all the same.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter as Backend
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from mppobs.sidecar.running import DecidedJob
from mppobs.sidecar.span_choice import SpanSettings
from mppobs.sidecar.span_tree import SpanNode, SpanTree, grow
from mppobs.version import __version__

_log = logging.getLogger(__name__)

BATCH_SPANS: Final = 512
"""Spans per request, as in OpenTelemetry's batch processor."""
QUEUED_SPANS: Final = 50_000
"""Spans that may wait; about 50 MB."""
TRIES: Final = 5
"""Requests per batch, each of which the exporter itself repeats for its timeout when told to come again."""
FIRST_PAUSE_SECONDS: Final = 1.0
"""Before the second try; doubled for each further one."""

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("mppobs", __version__)


@dataclass(slots=True)
class SpanFigures:
    """What became of spans since the process began."""

    exported: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"sampled": 0, "cap": 0, "export": 0})
    """By reason: left out by sampling, left out by the job's cap, or not taken by the backend or the queue."""


class SpanExporter:
    """
    Takes decided jobs and sends their spans to a backend, until it is closed.

    `offer` may be called from any thread and returns at once. `backend` is any OpenTelemetry span exporter;
    `otlp_backend` makes the usual one. This object owns it and shuts it down.
    """

    def __init__(
        self,
        backend: Backend,
        settings: SpanSettings | None = None,
        *,
        queued_spans: int = QUEUED_SPANS,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._backend = backend
        self._settings = settings or SpanSettings()
        self._room = queued_spans
        self._first_pause = first_pause_seconds
        self._queue: deque[SpanTree] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._figures = SpanFigures()
        self._thread = threading.Thread(target=self._run, name="mppobs-spans", daemon=True)
        self._thread.start()

    def offer(self, jobs: Iterable[DecidedJob]) -> None:
        """Choose the spans of decided jobs and queue them; a job that does not fit is dropped whole, and counted."""
        for job in jobs:
            tree = grow(job, self._settings)
            with self._changed:
                self._figures.dropped["sampled"] += tree.sampled
                self._figures.dropped["cap"] += tree.capped
                if self._stopping.is_set() or self._waiting + len(tree.nodes) > self._room:
                    self._figures.dropped["export"] += len(tree.nodes)
                    continue
                self._queue.append(tree)
                self._waiting += len(tree.nodes)
                self._changed.notify_all()

    def figures(self) -> SpanFigures:
        """Return what became of spans so far."""
        with self._changed:
            return SpanFigures(self._figures.exported, dict(self._figures.dropped))

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until nothing is queued or on its way; return whether that came to pass in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting == 0, timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Send what is queued for as long as there is time, count the rest as dropped, and end the thread."""
        self.flush(timeout_seconds)
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._backend.shutdown()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
                if not self._queue:
                    return
                tree = self._queue.popleft()
            self._send(tree)

    def _send(self, tree: SpanTree) -> None:
        """Export one job's spans in batches, and count what became of each."""
        resource = Resource(dict(tree.resource))
        for first in range(0, len(tree.nodes), BATCH_SPANS):
            nodes = tree.nodes[first : first + BATCH_SPANS]
            taken = self._export([readable(node, resource) for node in nodes])
            with self._changed:
                if taken:
                    self._figures.exported += len(nodes)
                else:
                    self._figures.dropped["export"] += len(nodes)
                self._waiting -= len(nodes)
                self._changed.notify_all()

    def _export(self, spans: Sequence[ReadableSpan]) -> bool:
        """Return whether the backend took the spans, after as many tries as are worth it."""
        pause = self._first_pause
        for attempt in range(TRIES):
            if attempt and self._stopping.wait(pause * 2 ** (attempt - 1)):
                return False
            try:
                if self._backend.export(spans) is SpanExportResult.SUCCESS:
                    return True
            except Exception as error:
                # A backend may raise anything; tracing must not end the sidecar. The spans are counted as dropped.
                _log.warning("spans could not be exported: %s", error)
        return False


def otlp_backend(endpoint: str, *, timeout_seconds: float = 10.0) -> Backend:
    """
    Return an exporter to an OTLP/HTTP address such as `http://collector:4318`; `/v1/traces` is added where missing.

    Imported here, so that a sidecar without traces does not load protobuf.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    path = "/v1/traces"
    url = endpoint if endpoint.endswith(path) else endpoint.rstrip("/") + path
    return OTLPSpanExporter(endpoint=url, timeout=timeout_seconds)


def readable(node: SpanNode, resource: Resource) -> ReadableSpan:
    """Return a node as the span that OpenTelemetry's exporters take."""

    def context(span_id: int) -> SpanContext:
        return SpanContext(node.trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)

    links = []
    if node.link is not None:
        links.append(Link(SpanContext(*node.link, is_remote=True, trace_flags=_SAMPLED)))
    return ReadableSpan(
        name=node.name,
        context=context(node.span_id),
        parent=context(node.parent_id) if node.parent_id else None,
        resource=resource,
        attributes=node.attributes,
        links=links,
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.UNSET) if node.error is None else Status(StatusCode.ERROR, node.error),
        start_time=node.start_ns,
        end_time=max(node.start_ns, node.end_ns),
        instrumentation_scope=_SCOPE,
    )
