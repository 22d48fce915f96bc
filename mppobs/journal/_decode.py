"""Bytes to records: the half of `mppobs.journal.codec` that readers use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, TypeVar

from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal._encode import END_CLOSED, END_SEALED, PAIRS_PER_DETAIL
from mppobs.journal.format import Kind, unlink, unpair
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    ContextRecord,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    SampleRecord,
    TextRecord,
    WorkerInfo,
    WorkerRecord,
)

Text = Callable[[int], str]
"""Gives the text of a number; raises `JournalError` where it was never defined."""
Words = Sequence[int]

_Code = TypeVar("_Code", bound=StrEnum)


def _names(codes: dict[_Code, int]) -> dict[int, _Code]:
    return {code: name for name, code in codes.items()}


_ATTEMPT_OUTCOMES: Final = _names(fmt.ATTEMPT_CODES)
_SHARD_OUTCOMES: Final = _names(fmt.SHARD_CODES)
_JOB_OUTCOMES: Final = _names(fmt.JOB_CODES)
_JOB_EVENTS: Final = _names(fmt.JOB_EVENT_CODES)
_WORKER_EVENTS: Final = _names(fmt.WORKER_EVENT_CODES)
_DETAIL_KINDS: Final = _names(fmt.DETAIL_CODES)
_TIERS: Final = _names(fmt.TIER_CODES)
_RUN_KINDS: Final = _names(fmt.RUN_KIND_CODES)
_REASONS: Final = _names(fmt.REASON_CODES)


def decode(words: Words, text: Text) -> Record:
    """
    Return the record that twelve words hold. For TEXT, which may span several, see `decode_all`.

    Raises `JournalError` where the record is incomplete, of an unknown kind, or carries an unknown code.
    """
    if len(words) != fmt.RECORD_WORDS or not all(words):
        raise JournalError("the record is incomplete: it has a word that is 0")
    decoder = _DECODERS.get(words[0] & 0xFF)
    if decoder is None:
        raise JournalError(f"kind {words[0] & 0xFF} is no record of its own")
    return decoder(words, text)


def decode_all(
    records: Iterable[Words], on_error: Callable[[int, JournalError], None] | None = None
) -> Iterator[Record]:
    """
    Yield every record of a segment, from its first, keeping the table of texts on the way.

    A record that makes no sense raises `JournalError`, or is passed over where `on_error` is given, which is
    then told its place. Padding yields nothing.
    """
    return (record for _, record in decode_placed(records, on_error))


def decode_placed(
    records: Iterable[Words], on_error: Callable[[int, JournalError], None] | None = None
) -> Iterator[tuple[int, Record]]:
    """Yield the same as `decode_all`, each with its place among the records."""
    texts: dict[int, str] = {0: ""}
    rows = list(records)
    place = 0
    while place < len(rows):
        first, place = place, place + 1
        kind = rows[first][0] & 0xFF
        if kind == Kind.PAD:
            continue
        try:
            if kind == Kind.TEXT:
                text, place = _decode_text(rows, first)
                texts.setdefault(text.text_id, text.text)
                record: Record = text
            else:
                record = decode(rows[first], lambda number: _lookup(texts, number))
        except JournalError as error:
            if on_error is None:
                raise
            on_error(first, error)
        else:
            yield first, record


def _lookup(texts: dict[int, str], number: int) -> str:
    try:
        return texts[number]
    except KeyError:
        raise JournalError(f"text {number} is not defined") from None


def _code(word: int) -> int:
    return word >> 8 & 0xFF


def _reason(word: int) -> Reason:
    return _known(_REASONS, word >> 16 & 0xFF, "reason")


def _flag(word: int, flag: int) -> bool:
    return bool(word >> 24 & flag)


def _known(names: dict[int, _Code], code: int, what: str) -> _Code:
    try:
        return names[code]
    except KeyError:
        raise JournalError(f"{code} is no {what}") from None


def _shard(word: int) -> int:
    if word & fmt.TOP or not word & 1:
        raise JournalError(f"{word:#x} carries no shard key")
    return word >> 1


def _decode_text(rows: Sequence[Words], first: int) -> tuple[TextRecord, int]:
    """Decode the text that begins at a row; return also the row after what continues it."""
    words = rows[first]
    after = first + 1 + (words[0] >> 16 & 0xFF)
    more = rows[first + 1 : after]
    if len(more) < after - first - 1 or any(row[0] & 0xFF != Kind.TEXT_MORE for row in more):
        raise JournalError("a text ends early")
    if not all(all(row) for row in (words, *more)):
        raise JournalError("the record is incomplete: it has a word that is 0")
    text = fmt.text_of([*words[3:], *(word for row in more for word in row[1:])], words[1] - 1)
    if _code(words[0]) == fmt.TextKind.INTERNED:
        return TextRecord(text, words[0] >> 32), after
    if _code(words[0]) == fmt.TextKind.SHARD_NAME:
        return TextRecord(text, words[0] >> 32, _shard(words[2])), after
    raise JournalError(f"{_code(words[0])} is no kind of text")


def _decode_context(words: Words, text: Text) -> ContextRecord:
    (pipeline, job_id), (stage, task), (tenant, owner) = map(unpair, (words[1], words[2], words[4]))
    return ContextRecord(
        words[0] >> 32,
        Context(
            pipeline=text(pipeline),
            job_id=text(job_id),
            incarnation=words[3] - 1,
            stage=text(stage),
            task=text(task),
            tenant=text(tenant),
            owner=text(owner),
            tier=_known(_TIERS, _code(words[0]), "tier"),
            cluster=text(unpair(words[5])[0]),
            run_kind=_known(_RUN_KINDS, words[0] >> 16 & 0xFF, "kind of run"),
            deadline_ns=words[6] - 1,
        ),
    )


def _decode_worker(words: Words, text: Text) -> WorkerRecord:
    (worker, node), (zone, node_type) = unpair(words[1]), unpair(words[2])
    return WorkerRecord(
        event=_known(_WORKER_EVENTS, _code(words[0]), "worker event"),
        time_ns=words[3] - 1,
        info=WorkerInfo(
            worker=text(worker),
            node=text(node),
            zone=text(zone),
            node_type=text(node_type),
            spot=_flag(words[0], fmt.FLAG_SPOT),
            dedicated=_flag(words[0], fmt.FLAG_DEDICATED),
            lanes=words[5] - 1,
            pid=words[4] - 1,
        ),
        reason=_reason(words[0]),
    )


def _decode_job(words: Words, text: Text) -> JobRecord:
    outcome, error_type = unpair(words[1])
    return JobRecord(
        event=_known(_JOB_EVENTS, _code(words[0]), "job event"),
        context_id=words[0] >> 32,
        time_ns=words[3] - 1,
        outcome=_known(_JOB_OUTCOMES, outcome, "job outcome") if outcome else None,
        reason=_reason(words[0]),
        error_type=text(error_type),
        submit_ns=words[2] - 1,
        deadline_ns=words[4] - 1,
        lease_ns=words[5] - 1,
        coordinated=_flag(words[0], fmt.FLAG_COORDINATED),
        traceparent=text(unpair(words[6])[0]),
    )


def _decode_plan(words: Words, text: Text) -> PlanRecord:
    return PlanRecord(
        context_id=words[0] >> 32,
        time_ns=words[3] - 1,
        added=words[2] - 1,
        final=_flag(words[0], fmt.FLAG_FINAL),
        parent_key=None if words[1] == 1 else _shard(words[1] - 2),
        input_bytes=words[4] - 1,
    )


def _decode_dispatch(words: Words, text: Text) -> DispatchRecord:
    return DispatchRecord(
        context_id=words[0] >> 32,
        shard_key=_shard(words[1]),
        attempt=unlink(words[2])[0],
        time_ns=words[3] - 1,
        speculative=_flag(words[0], fmt.FLAG_SPECULATIVE),
        worker=text(unpair(words[4])[0]),
        input_bytes=words[5] - 1,
    )


def _decode_attempt(words: Words, text: Text) -> AttemptRecord:
    attempt, slot, error_type = unlink(words[2])
    network_errors, storage_throttled = unpair(words[10])
    return AttemptRecord(
        context_id=words[0] >> 32,
        shard_key=_shard(words[1]),
        attempt=attempt,
        outcome=_known(_ATTEMPT_OUTCOMES, _code(words[0]), "attempt outcome"),
        start_ns=words[3] - 1,
        duration_ns=words[4] - 1,
        reason=_reason(words[0]),
        error_type=text(error_type),
        speculative=_flag(words[0], fmt.FLAG_SPECULATIVE),
        cpu_ns=None if _flag(words[0], fmt.FLAG_NO_CPU) else words[5] - 1,
        delay_ns=words[6] - 1 if _flag(words[0], fmt.FLAG_HAS_DELAY) else None,
        rows=words[7] - 1,
        shuffle_read=words[8] - 1,
        shuffle_written=words[9] - 1,
        network_errors=network_errors,
        storage_throttled=storage_throttled,
        peak_rss=words[11] - 1,
        slot=slot,
    )


def _decode_commit(words: Words, text: Text) -> CommitRecord:
    attempt, _, error_type = unlink(words[2])
    return CommitRecord(
        context_id=words[0] >> 32,
        shard_key=_shard(words[1]),
        attempt=attempt,
        outcome=_known(_SHARD_OUTCOMES, _code(words[0]), "shard outcome"),
        time_ns=words[3] - 1,
        first_start_ns=words[4] - 1,
        reason=_reason(words[0]),
        error_type=text(error_type),
        output_bytes=words[5] - 1,
        output_rows=words[6] - 1,
    )


def _decode_detail(words: Words, text: Text) -> DetailRecord:
    count = words[0] >> 16 & 0xFF
    if count > PAIRS_PER_DETAIL:
        raise JournalError(f"a detail record holds {PAIRS_PER_DETAIL} amounts, not {count}")
    amounts = tuple((text(unpair(words[4 + 2 * i])[0]), words[5 + 2 * i] - 1) for i in range(count))
    return DetailRecord(
        what=_known(_DETAIL_KINDS, _code(words[0]), "kind of detail"),
        context_id=words[0] >> 32,
        shard_key=_shard(words[1]),
        attempt=unlink(words[2])[0],
        start_ns=words[3] - 1,
        amounts=amounts,
    )


def _decode_sample(words: Words, text: Text) -> SampleRecord:
    return SampleRecord(
        context_id=words[0] >> 32,
        time_ns=words[3] - 1,
        cpu_ns=words[4] - 1,
        rss=words[5] - 1,
        peak_rss=words[6] - 1,
        memory_limit=words[7] - 1,
        throttled_ns=words[2] - 1,
        oom_kills=words[8] - 1,
        in_flight_ns=words[9] - 1,
    )


def _decode_heartbeat(words: Words, text: Text) -> HeartbeatRecord:
    numbers = [number for word in words[4:8] for number in unpair(word)]
    return HeartbeatRecord(words[0] >> 32, words[3] - 1, *numbers[:7])


def _decode_drop(words: Words, text: Text) -> DropRecord:
    dropped = {outcome: word - 1 for outcome, word in zip(AttemptOutcome, words[4:11], strict=True) if word > 1}
    return DropRecord(words[3] - 1, dropped, words[11] - 1)


def _decode_end(words: Words, text: Text) -> EndRecord:
    if _code(words[0]) not in (END_CLOSED, END_SEALED):
        raise JournalError(f"{_code(words[0])} is no way to end")
    return EndRecord(words[3] - 1, _code(words[0]) == END_SEALED)


_DECODERS: Final[dict[int, Callable[[Words, Text], Record]]] = {
    Kind.CONTEXT: _decode_context,
    Kind.WORKER: _decode_worker,
    Kind.JOB: _decode_job,
    Kind.PLAN: _decode_plan,
    Kind.DISPATCH: _decode_dispatch,
    Kind.ATTEMPT: _decode_attempt,
    Kind.COMMIT: _decode_commit,
    Kind.DETAIL: _decode_detail,
    Kind.SAMPLE: _decode_sample,
    Kind.HEARTBEAT: _decode_heartbeat,
    Kind.DROP: _decode_drop,
    Kind.END: _decode_end,
}
