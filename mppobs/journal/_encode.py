"""Records to bytes: the half of `mppobs.journal.codec` that writers use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from mppobs.journal import format as fmt
from mppobs.journal.format import Kind, head_word, link, pair, shard_word
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    ContextRecord,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobRecord,
    PlanRecord,
    Record,
    SampleRecord,
    TextRecord,
    WorkerRecord,
)

TextId = Callable[[str], int]
"""Gives the number of a text, defining it where it is new. The empty text is 0."""

END_CLOSED: Final = 1
END_SEALED: Final = 2
PAIRS_PER_DETAIL: Final = 4

_COMMIT: Final = int(Kind.COMMIT)
_DISPATCH: Final = int(Kind.DISPATCH)
_SPECULATIVE: Final = fmt.FLAG_SPECULATIVE << 24
_MAX_VALUE: Final = (1 << 64) - 2
_MAX_LOW: Final = (1 << 32) - 1
_MAX_HIGH: Final = (1 << 31) - 1


def encode(record: Record, text_id: TextId) -> bytes:
    """
    Return the bytes of a record: 96 of them, or a multiple where it needs a continuation.

    `text_id` is asked for the number of every text that the record names, before anything is encoded, so
    that the caller can write their TEXT records first.

    >>> from mppobs.model import EndRecord
    >>> len(encode(EndRecord(time_ns=5, sealed=False), lambda text: 0))
    96
    """
    match record:
        # Two for every shard, written by one process: these come first, and are encoded without detours.
        case DispatchRecord():
            return _encode_dispatch(record, text_id)
        case CommitRecord():
            return _encode_commit(record, text_id)
        case TextRecord():
            kind = fmt.TextKind.SHARD_NAME if record.shard_key else fmt.TextKind.INTERNED
            return fmt.text_records(kind, record.text, record.text_id, record.shard_key)
        case ContextRecord():
            return _encode_context(record, text_id)
        case WorkerRecord():
            return _encode_worker(record, text_id)
        case JobRecord():
            return _encode_job(record, text_id)
        case AttemptRecord():
            return _encode_attempt(record, text_id)
        case DetailRecord():
            return _encode_detail(record, text_id)
        case PlanRecord() | SampleRecord() | HeartbeatRecord() | DropRecord() | EndRecord():
            return _encode_numbers(record)
        case _:
            assert_never(record)


def _plus(value: int) -> int:
    return value + 1 if 0 <= value <= _MAX_VALUE else min(max(value, 0), _MAX_VALUE) + 1


def _counts(low: int, high: int = 0) -> int:
    return pair(min(max(low, 0), _MAX_LOW), min(max(high, 0), _MAX_HIGH))


def _pack(head: int, *words: int) -> bytes:
    """Pack a record whose last words, not given, say nothing."""
    return fmt.RECORD.pack(head, *words, *(1,) * (fmt.RECORD_WORDS - 1 - len(words)))


def _encode_context(record: ContextRecord, text_id: TextId) -> bytes:
    context = record.context
    return _pack(
        head_word(
            Kind.CONTEXT,
            fmt.TIER_CODES[context.tier],
            fmt.RUN_KIND_CODES[context.run_kind],
            number=record.context_id,
        ),
        pair(text_id(context.pipeline), text_id(context.job_id)),
        pair(text_id(context.stage), text_id(context.task)),
        _plus(context.incarnation),
        pair(text_id(context.tenant), text_id(context.owner)),
        pair(text_id(context.cluster)),
        _plus(context.deadline_ns),
    )


def _encode_worker(record: WorkerRecord, text_id: TextId) -> bytes:
    info = record.info
    flags = fmt.FLAG_SPOT * info.spot | fmt.FLAG_DEDICATED * info.dedicated
    return _pack(
        head_word(Kind.WORKER, fmt.WORKER_EVENT_CODES[record.event], fmt.REASON_CODES[record.reason], flags),
        pair(text_id(info.worker), text_id(info.node)),
        pair(text_id(info.zone), text_id(info.node_type)),
        _plus(record.time_ns),
        _plus(info.pid),
        _plus(info.lanes),
    )


def _encode_job(record: JobRecord, text_id: TextId) -> bytes:
    event, reason = fmt.JOB_EVENT_CODES[record.event], fmt.REASON_CODES[record.reason]
    outcome = 0 if record.outcome is None else fmt.JOB_CODES[record.outcome]
    return _pack(
        head_word(Kind.JOB, event, reason, fmt.FLAG_COORDINATED * record.coordinated, record.context_id),
        pair(outcome, text_id(record.error_type)),
        _plus(record.submit_ns),
        _plus(record.time_ns),
        _plus(record.deadline_ns),
        _plus(record.lease_ns),
        pair(text_id(record.traceparent)),
    )


def _encode_attempt(record: AttemptRecord, text_id: TextId) -> bytes:
    flags = (
        fmt.FLAG_SPECULATIVE * record.speculative
        | fmt.FLAG_NO_CPU * (record.cpu_ns is None)
        | fmt.FLAG_HAS_DELAY * (record.delay_ns is not None)
    )
    return _pack(
        head_word(
            Kind.ATTEMPT,
            fmt.ATTEMPT_CODES[record.outcome],
            fmt.REASON_CODES[record.reason],
            flags,
            record.context_id,
        ),
        shard_word(record.shard_key),
        link(record.attempt, record.slot, text_id(record.error_type)),
        _plus(record.start_ns),
        _plus(record.duration_ns),
        _plus(record.cpu_ns or 0),
        _plus(record.delay_ns or 0),
        _plus(record.rows),
        _plus(record.shuffle_read),
        _plus(record.shuffle_written),
        _counts(record.network_errors, record.storage_throttled),
        _plus(record.peak_rss),
    )


def _encode_commit(record: CommitRecord, text_id: TextId) -> bytes:
    code = fmt.SHARD_CODES[record.outcome] << 8 | fmt.REASON_CODES[record.reason] << 16
    return fmt.RECORD.pack(
        _COMMIT | code | record.context_id << 32, shard_word(record.shard_key),
        link(record.attempt, error_type=text_id(record.error_type)), _plus(record.time_ns),
        _plus(record.first_start_ns), _plus(record.output_bytes), _plus(record.output_rows), 1, 1, 1, 1, 1,
    )  # fmt: skip


def _encode_detail(record: DetailRecord, text_id: TextId) -> bytes:
    """Encode four amounts to a record; each record stands for itself, so it takes no continuation."""
    amounts = [(pair(text_id(name)), _plus(amount)) for name, amount in record.amounts]
    parts = [amounts[i : i + PAIRS_PER_DETAIL] for i in range(0, len(amounts), PAIRS_PER_DETAIL)] or [[]]
    return b"".join(
        _pack(
            head_word(Kind.DETAIL, fmt.DETAIL_CODES[record.what], len(part), number=record.context_id),
            shard_word(record.shard_key),
            link(record.attempt),
            _plus(record.start_ns),
            *(word for amount in part for word in amount),
        )
        for part in parts
    )


def _encode_dispatch(record: DispatchRecord, text_id: TextId) -> bytes:
    flags = _SPECULATIVE if record.speculative else 0
    return fmt.RECORD.pack(
        _DISPATCH | flags | record.context_id << 32, shard_word(record.shard_key), link(record.attempt),
        _plus(record.time_ns), pair(text_id(record.worker)), _plus(record.input_bytes), 1, 1, 1, 1, 1, 1,
    )  # fmt: skip


def _encode_numbers(
    record: PlanRecord | SampleRecord | HeartbeatRecord | DropRecord | EndRecord,
) -> bytes:
    """Encode the kinds that name no text."""
    time = _plus(record.time_ns)
    match record:
        case PlanRecord():
            head = head_word(Kind.PLAN, flags=fmt.FLAG_FINAL * record.final, number=record.context_id)
            parent = 1 if record.parent_key is None else shard_word(record.parent_key) + 2
            return _pack(head, parent, _plus(record.added), time, _plus(record.input_bytes))
        case SampleRecord():
            head = head_word(Kind.SAMPLE, number=record.context_id)
            used = (record.cpu_ns, record.rss, record.peak_rss, record.memory_limit, record.oom_kills)
            last = _plus(record.in_flight_ns)
            return _pack(head, 1, _plus(record.throttled_ns), time, *map(_plus, used), last)
        case HeartbeatRecord():
            return _pack(
                head_word(Kind.HEARTBEAT, number=record.context_id),
                1,
                1,
                time,
                _counts(record.pending_jobs, record.running_jobs),
                _counts(record.pending_shards, record.running_shards),
                _counts(record.idle_workers, record.busy_workers),
                _counts(record.draining_workers),
            )
        case DropRecord():
            dropped = (_plus(record.attempts.get(outcome, 0)) for outcome in AttemptOutcome)
            return _pack(head_word(Kind.DROP), 1, 1, time, *dropped, _plus(record.other))
        case EndRecord():
            return _pack(head_word(Kind.END, END_SEALED if record.sealed else END_CLOSED), 1, 1, time)
