"""The attempt as the current OpenTelemetry span, where the process has OpenTelemetry configured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

import mppobs
from mppobs.instrument.recorder import RECORDER
from mppobs.testing import Captured


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Configure OpenTelemetry for one test, as the user's process would."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def test_the_users_spans_hang_below_the_attempt(captured: Captured, spans: InMemorySpanExporter) -> None:
    """A span that is made inside an attempt has the attempt's derived IDs as its trace and parent."""
    tracer = trace.get_tracer("user")
    ids = []

    @mppobs.task(stage="map", shard="part")
    def work(part: int) -> None:
        ids.append((mppobs.current().trace_id, mppobs.current().span_id))
        with tracer.start_as_current_span("read"):
            pass

    with mppobs.job(pipeline="p"):
        work(1)
        with mppobs.attempt(stage="s", shard=2) as attempt:
            ids.append((attempt.trace_id, attempt.span_id))
            with tracer.start_as_current_span("write"):
                pass

    found = [(span.context.trace_id, span.parent.span_id) for span in spans.get_finished_spans() if span.parent]
    assert found == ids
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_failing_task_gives_the_current_span_back(captured: Captured, spans: InMemorySpanExporter) -> None:
    """After an exception what was current before is current again."""

    @mppobs.task
    def work() -> None:
        raise KeyError(1)

    with trace.get_tracer("user").start_as_current_span("around") as around:
        with pytest.raises(KeyError):
            work()
        assert trace.get_current_span() is around


def test_the_users_sampler_decides_at_the_head(
    captured: Captured, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the user's own sampler would drop the trace, child spans are not sampled either."""
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

    with mppobs.attempt(stage="s", shard=1), trace.get_tracer("user").start_as_current_span("read"):
        assert trace.get_current_span().get_span_context().trace_id == mppobs.current().trace_id

    assert spans.get_finished_spans() == ()


def test_a_job_remembers_the_span_that_it_came_from(captured: Captured, spans: InMemorySpanExporter) -> None:
    """The incoming parent is in the job's start, for the aggregator to link to."""
    with trace.get_tracer("user").start_as_current_span("request") as request, mppobs.job(pipeline="p"):
        pass
    with mppobs.job(pipeline="p"):
        pass

    context = request.get_span_context()
    first, second = (record for record in captured.jobs if record.event == "start")
    assert first.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    assert second.traceparent == ""


def test_a_broken_sampler_costs_the_span_and_not_the_work(
    captured: Captured, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever OpenTelemetry does when it is asked, the work goes on."""
    provider = TracerProvider()
    monkeypatch.setattr(provider, "sampler", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(trace, "NonRecordingSpan", None)
    before = RECORDER.notes

    with mppobs.attempt(stage="s", shard=1):
        pass

    assert len(captured.attempts) == 1
    assert RECORDER.notes == before + 1


def test_without_opentelemetry_nothing_of_it_is_imported() -> None:
    """A process that does not use OpenTelemetry records attempts and jobs without loading any of it."""
    code = """
import sys, tempfile, mppobs
mppobs.configure(directory=tempfile.mkdtemp())
with mppobs.job(pipeline="p"), mppobs.attempt(stage="s", shard=1): pass
print([name for name in sys.modules if name.split(".")[0] in
       {"opentelemetry", "prometheus_client", "numpy", "yaml", "fastapi", "pyarrow", "asyncio", "concurrent"}])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
