"""
What one instrumented attempt costs, beside what people write by hand: prometheus-client, and that with OpenTelemetry.

    python bench/instrument.py [--json] [--rounds N]

All three record the same: outcome, duration, CPU time and shuffle bytes of an attempt, with pipeline, stage, shard and
attempt in context variables. Rounds are interleaved and every figure is a median over them, less the bare call. Time is
the process's CPU time, so that other processes of the machine do not count, and the exporter's thread does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextvars import ContextVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Histogram

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
        self._processor.shutdown()


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


def figures(rounds: int) -> list[dict[str, object]]:
    """Measure everything and return the figures."""
    by_hand = ByHand()
    with_spans = WithSpans(by_hand)
    samples: dict[str, list[float]] = {"bare": [], "mppobs": [], "prometheus": [], "otel": []}
    for _ in range(rounds + 1):
        samples["bare"].append(measure(bare, 20_000))
        samples["mppobs"].append(measure(instrumented, 20_000))
        samples["prometheus"].append(measure(by_hand, 10_000))
        samples["otel"].append(measure(with_spans, 2_000, with_spans.drain))
    with_spans.close()
    # The first round warms up. Ratios are of the same round, then the median: rounds share the machine's mood.
    costs = {
        name: [max(v - b, 1.0) for v, b in zip(values[1:], samples["bare"][1:], strict=True)]
        for name, values in samples.items()
    }
    cost = {name: statistics.median(values) for name, values in costs.items()}
    of_prometheus = statistics.median(a / b for a, b in zip(costs["mppobs"], costs["prometheus"], strict=True))
    of_otel = statistics.median(b / a for a, b in zip(costs["mppobs"], costs["otel"], strict=True))
    imported = import_milliseconds("import mppobs")
    used = import_milliseconds("import mppobs; mppobs.task; mppobs.current; mppobs.job")
    attempt = cost["mppobs"] / 1000
    return [
        figure("attempt", attempt, "us", None, None, TARGET_US, attempt <= TARGET_US),
        figure(
            "attempt vs prometheus-client", attempt, "us", cost["prometheus"] / 1000, of_prometheus, TARGET_PROMETHEUS,
            of_prometheus <= TARGET_PROMETHEUS,
        ),
        figure(
            "attempt vs that with OpenTelemetry", attempt, "us", cost["otel"] / 1000, of_otel, TARGET_OTEL,
            of_otel >= TARGET_OTEL,
        ),
        figure("import mppobs", imported, "ms", None, None, TARGET_IMPORT_MS, imported <= TARGET_IMPORT_MS),
        figure("import and first use of the names", used, "ms", None, None, TARGET_IMPORT_MS, used <= TARGET_IMPORT_MS),
    ]  # fmt: skip


def figure(
    name: str, value: float, unit: str, peer: float | None, ratio: float | None, target: float, met: bool
) -> dict[str, object]:
    """Return one figure in the form that every benchmark prints."""
    rounded = [None if number is None else round(number, 3) for number in (value, peer, ratio)]
    keys = ("figure", "value", "unit", "peer", "ratio", "target", "met")
    return dict(zip(keys, (name, rounded[0], unit, rounded[1], rounded[2], target, met), strict=True))


def main() -> None:
    """Print the figures as a table, or as JSON, one per line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure and line")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mppobs-bench-") as directory:
        mppobs.configure(directory=directory, sample_seconds=0, budget_bytes=1 << 30)
        results = figures(arguments.rounds)
        mppobs.configure(enabled=False)
    for result in results:
        print(json.dumps(result) if arguments.json else row(result))


def row(result: dict[str, object]) -> str:
    """Return a figure as a line of the table."""
    unit, met = result["unit"], "met" if result["met"] else "MISSED"
    peer = "" if result["peer"] is None else f"peer {result['peer']} {unit}, ratio {result['ratio']}"
    return f"{result['figure']:<36} {result['value']:>8} {unit}  {peer:<32} target {result['target']:>5}  {met}"


if __name__ == "__main__":
    main()
