"""Trace and span IDs, derived from what a record says: spans, exemplars and log lines meet without a message."""

from __future__ import annotations

import hashlib

from mppobs.model import JobKey, Shard


def trace_id(job: JobKey) -> int:
    """
    Return the 128-bit OpenTelemetry trace ID of a job: derived, so that every process agrees without a message.

    >>> key = JobKey("c", "t", "nightly-1", 0)
    >>> trace_id(key) == trace_id(JobKey("c", "t", "nightly-1", 0)) != trace_id(JobKey("c", "t", "nightly-2", 0))
    True
    """
    return _derive(16, job.cluster, job.tenant, job.job_id, str(job.incarnation))


def span_id(job: JobKey, stage: str = "", shard: Shard | None = None, attempt: int | None = None) -> int:
    """
    Return the 64-bit span ID of a job, of a stage of it, of a shard, or of one attempt, by what is given.

    >>> key = JobKey("c", "t", "nightly-1", 0)
    >>> spans = [span_id(key), span_id(key, "map"), span_id(key, "map", 7), span_id(key, "map", 7, 0)]
    >>> len({*spans, span_id(key, "map", "7")})
    5
    """
    parts = [job.cluster, job.tenant, job.job_id, str(job.incarnation), stage]
    if shard is not None:
        parts.append(f"{type(shard).__name__}:{shard}")
    if attempt is not None:
        parts.append(str(attempt))
    return _derive(8, *parts)


def _derive(size: int, *parts: str) -> int:
    """Hash the parts, unambiguously joined, to a non-zero integer of `size` bytes (OpenTelemetry forbids 0)."""
    joined = "".join(f"{len(part)}:{part}" for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=size).digest(), "big") or 1
