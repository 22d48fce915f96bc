"""
The attempt as the current OpenTelemetry span, where the user's process has OpenTelemetry configured.

The span itself is made by the aggregator from the attempt's record, under the same derived IDs; here only its context
is made current, so that the user's own spans hang below it. Nothing is imported unless the user's code has done so.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from mppobs.instrument.attempt import NOTHING, Attempt
from mppobs.instrument.recorder import RECORDER

MODULE: Final = "opentelemetry.trace"
"""Present in `sys.modules` where the process uses OpenTelemetry at all: what the hot path asks."""


def enter(attempt: Attempt) -> object | None:
    """Make an attempt's span context current; return what `leave` needs, `None` without OpenTelemetry."""
    try:
        provider = _provider()
        if provider is None or attempt is NOTHING:
            return None
        from opentelemetry import context, trace

        trace_id = attempt.trace_id
        flags = trace.TraceFlags.SAMPLED if _is_sampled(provider, trace_id, attempt.stage) else trace.TraceFlags.DEFAULT
        span = trace.NonRecordingSpan(
            trace.SpanContext(trace_id, attempt.span_id, is_remote=False, trace_flags=trace.TraceFlags(flags))
        )
        return context.attach(trace.set_span_in_context(span))
    except Exception:
        RECORDER.note("OpenTelemetry could not be told of an attempt")
        return None


def leave(token: Any) -> None:
    """Make the span current that was so before."""
    from opentelemetry import context

    context.detach(token)


def traceparent() -> str:
    """Return the W3C form of the span that is current in the user's code; empty where there is none."""
    if MODULE not in sys.modules:
        return ""
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return ""
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"


def _provider() -> Any:
    """Return the tracer provider that the user configured, or `None`; asking must not make one."""
    return getattr(sys.modules.get(MODULE), "_TRACER_PROVIDER", None)


def _is_sampled(provider: Any, trace_id: int, name: str) -> bool:
    """Decide at the head, as the user's own sampler would for a root span of this trace."""
    sampler = getattr(provider, "sampler", None)
    return sampler is None or bool(sampler.should_sample(None, trace_id, name).decision.is_sampled())
