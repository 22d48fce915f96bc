"""
What one instrumented attempt costs, beside what people write by hand: prometheus-client, and that with OpenTelemetry.

    python bench/instrument.py [--json] [--rounds N]

All three record the same: outcome, duration, CPU time and shuffle bytes of an attempt, with pipeline, stage, shard and
attempt in context variables. Rounds are interleaved and every figure is a median over them, less the bare call. Time is
the process's CPU time, so that other processes of the machine do not count, and the exporter's thread does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Histogram
from report import Figure, options, report

import mppobs

Work = Callable[[int, int], int]

TARGET_US = 3.5
TARGET_PROMETHEUS = 0.6
TARGET_OTEL = 15.0
TARGET_IMPORT_MS = 60.0


def bare(shard: int, size: int) -> int:
    """Do nothing: what every variant is measured against."""
    return size


@mppobs.task(stage="map", shard="shard")
def instrumented(shard: int, size: int) -> int:
    """Do the same, recorded by mppobs."""
    mppobs.current().add(shuffle_written=size)
    return size


class ByHand:
    """What a careful engineer writes with prometheus-client."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        labels = ("pipeline", "stage")
        self._attempts = Counter("attempts", "Attempts.", (*labels, "outcome"), registry=registry)
        self._seconds = Histogram("attempt_seconds", "Durations.", labels, registry=registry)
        self._cpu = Counter("attempt_cpu_seconds", "CPU time.", labels, registry=registry)
        self._shuffle = Counter("shuffle_bytes", "Shuffle.", (*labels, "direction"), registry=registry)
        self._shard: ContextVar[int] = ContextVar("shard")
        self._number: ContextVar[int] = ContextVar("number")

    def __call__(self, shard: int, size: int) -> int:
        """Do nothing, and count it."""
        shard_token, number_token = self._shard.set(shard), self._number.set(0)
        started, cpu = time.perf_counter(), time.thread_time()
        outcome = "failure"
        try:
            self._shuffle.labels("nightly", "map", "written").inc(size)
            outcome = "success"
            return size
        finally:
            self._cpu.labels("nightly", "map").inc(time.thread_time() - cpu)
            self._seconds.labels("nightly", "map").observe(time.perf_counter() - started)
            self._attempts.labels("nightly", "map", outcome).inc()
            self._number.reset(number_token)
            self._shard.reset(shard_token)


class Encoding(SpanExporter):
    """Encodes spans as OTLP does, and sends nothing."""

    def __init__(self) -> None:
        self.bytes = 0

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:  # type: ignore[override]
        """Encode the spans."""
        self.bytes += len(encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS


class WithSpans:
    """The same with an OpenTelemetry span around it, always on, through the batch processor and OTLP encoding."""

    def __init__(self, inner: Work) -> None:
        self._inner = inner
        self._processor = BatchSpanProcessor(Encoding(), max_queue_size=1 << 16)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("bench")

    def __call__(self, shard: int, size: int) -> int:
        """Do the same in a span of six attributes."""
        with self._tracer.start_as_current_span("map") as span:
            span.set_attributes(
                {
                    "mpp.pipeline": "nightly",
                    "mpp.job": "nightly-1",
                    "mpp.stage": "map",
                    "mpp.shard": shard,
                    "mpp.attempt": 0,
                    "mpp.shuffle_written": size,
                }
            )
            return self._inner(shard, size)

    def drain(self) -> None:
        """Wait for what the processor has not encoded yet: it is part of the cost."""
        self._processor.force_flush()

    def close(self) -> None:
        """Stop the processor's thread."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def measure(work: Work, calls: int, drain: Callable[[], None] | None = None) -> float:
    """Return nanoseconds of the process per call, other threads' and what is left in queues counted in."""
    started = time.process_time_ns()
    for shard in range(calls):
        work(shard, 4096)
    if drain is not None:
        drain()
    return (time.process_time_ns() - started) / calls


def import_milliseconds(statement: str) -> float:
    """Return the processor time that an import adds to a fresh interpreter, as the median of seven."""
    code = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1000)"
    with tempfile.TemporaryDirectory(prefix="mppobs-bench-") as cache:  # compiled once, as an installed package is
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ |= {"PYTHONPYCACHEPREFIX": cache, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", code]
        runs = [subprocess.run(command, capture_output=True, check=True, env=environ) for _ in range(8)]
    return statistics.median(float(run.stdout) for run in runs[1:])


def figures(rounds: int) -> Iterator[Figure]:
    """Measure everything."""
    by_hand = ByHand()
    with_spans = WithSpans(by_hand)
    samples: dict[str, list[float]] = {"bare": [], "mppobs": [], "prometheus": [], "otel": []}
    for _ in range(rounds + 1):
        samples["bare"].append(measure(bare, 20_000))
        samples["mppobs"].append(measure(instrumented, 20_000))
        samples["prometheus"].append(measure(by_hand, 10_000))
        samples["otel"].append(measure(with_spans, 2_000, with_spans.drain))
    with_spans.close()
    bases = samples.pop("bare")[1:]  # the first round warms up
    costs = {
        name: [max(value - base, 1.0) / 1000 for value, base in zip(values[1:], bases, strict=True)]
        for name, values in samples.items()
    }
    attempt = statistics.median(costs["mppobs"])
    yield Figure("attempt", attempt, "us", target=TARGET_US)
    for peer, what, target in (
        ("prometheus", "prometheus-client", TARGET_PROMETHEUS), ("otel", "that with OpenTelemetry", 1 / TARGET_OTEL),
    ):  # fmt: skip
        # Ratios are of the same round, then the median: rounds share the machine's mood.
        ratio = statistics.median(a / b for a, b in zip(costs["mppobs"], costs[peer], strict=True))
        yield Figure(f"attempt vs {what}", attempt, "us", attempt / ratio, target, of_ratio=True)
    used = "import mppobs; mppobs.task; mppobs.current; mppobs.job"
    for name, code in (("import mppobs", "import mppobs"), ("import and first use of the names", used)):
        yield Figure(name, import_milliseconds(code), "ms", target=TARGET_IMPORT_MS)


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mppobs-bench-") as directory:
        mppobs.configure(directory=directory, sample_seconds=0, budget_bytes=1 << 30)
        status = report(figures(given.rounds), as_json=given.json)
        mppobs.configure(enabled=False)
    return status


if __name__ == "__main__":
    sys.exit(main())
