"""Journals made by the million for benchmarks: valid files, written by columns instead of by workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mppobs.journal import format as fmt
from mppobs.journal.codec import encode
from mppobs.journal.format import Kind
from mppobs.model import (
    AttemptOutcome,
    Context,
    ContextRecord,
    EndRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Record,
    ShardOutcome,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)

SECOND = 1_000_000_000
STAGES = ("map", "join", "reduce")


def contexts(job_id: str, incarnation: int) -> list[Context]:
    """Return the context of a job, and those of its stages after it; their numbers are 1 and up."""
    return [Context("bench", job_id, incarnation, stage=stage) for stage in ("", *STAGES)]


def attempts(context: int, keys: np.ndarray, start_ns: int) -> np.ndarray:
    """Return successful ATTEMPT records of some shards, with durations between 1 ms and 2 s."""
    words = np.ones((len(keys), fmt.RECORD_WORDS), np.uint64)
    spread = np.arange(len(keys), dtype=np.uint64)
    code = fmt.ATTEMPT_CODES[AttemptOutcome.SUCCESS]
    words[:, 0] = fmt.head_word(Kind.ATTEMPT, code=code, flags=fmt.FLAG_HAS_DELAY, number=context)
    words[:, 1] = keys.astype(np.uint64) << np.uint64(1) | np.uint64(1)
    words[:, 2] = fmt.link(0, 0)
    words[:, 3] = start_ns + spread * 1000 + 1
    words[:, 4] = 1_000_000 + spread * 7919 % 2_000_000_000
    words[:, 5] = 900_000 + spread * 7919 % 1_000_000_000
    words[:, 6] = 1 + spread % 50_000_000
    words[:, 7] = 1001
    words[:, 8] = words[:, 9] = 4097
    words[:, 10] = fmt.pair(0, 0)
    words[:, 11] = 1 << 28
    return words


def dispatches(context: int, keys: np.ndarray, time_ns: int) -> np.ndarray:
    """Return DISPATCH records of the first attempt of some shards."""
    words = np.ones((len(keys), fmt.RECORD_WORDS), np.uint64)
    words[:, 0] = fmt.head_word(Kind.DISPATCH, number=context)
    words[:, 1] = keys.astype(np.uint64) << np.uint64(1) | np.uint64(1)
    words[:, 2] = fmt.link(0)
    words[:, 3] = time_ns + np.arange(len(keys), dtype=np.uint64) * 1000 + 1
    words[:, 4] = fmt.pair(0, 0)
    return words


def commits(context: int, keys: np.ndarray, time_ns: int) -> np.ndarray:
    """Return COMMIT records of the first attempt of some shards."""
    words = dispatches(context, keys, time_ns)
    words[:, 0] = fmt.head_word(Kind.COMMIT, code=fmt.SHARD_CODES[ShardOutcome.COMMITTED], number=context)
    words[:, 4] = 1
    return words


def control(record: Record) -> np.ndarray:
    """Return one control record; it must name no text."""
    return _words(encode(record, {"": 0}.__getitem__))


def start(coordinated: bool, time_ns: int) -> JobRecord:
    """Return the start of the job in context 1."""
    return JobRecord(JobEvent.START, 1, time_ns, coordinated=coordinated, lease_ns=86_400 * SECOND)


def end(time_ns: int) -> JobRecord:
    """Return the successful end of the job in context 1."""
    return JobRecord(JobEvent.END, 1, time_ns, JobOutcome.SUCCESS)


def plan(context: int, shards: int, time_ns: int) -> PlanRecord:
    """Return the whole plan of a stage."""
    return PlanRecord(context, time_ns, shards, final=True)


def names(keys_of: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of named shards, and the TEXT records that name them."""
    keys = np.array([fmt.shard_key(name) for name in keys_of], np.uint64)
    texts = b"".join(
        fmt.text_records(fmt.TextKind.SHARD_NAME, name, key=key)
        for name, key in zip(keys_of, keys.tolist(), strict=True)
    )
    return keys, _words(texts)


def write(directory: Path, number: int, contexts: Sequence[Context], body: np.ndarray, *, ended: bool = True) -> int:
    """
    Write a journal as an agent would have shipped it, in segments of the largest size. Return its bytes.

    The `number` makes its identity; every segment opens with the worker, the texts and the contexts.
    """
    journal = f"{number:032x}"
    opening = _opening(number, contexts)
    if ended:
        body = np.concatenate([body, _words(encode(EndRecord(time.time_ns(), sealed=False), _Texts().number))])
    room = fmt.MAX_SEGMENT_BYTES // fmt.RECORD_BYTES - 1 - fmt.SEALER_RECORDS - len(opening)
    for index, at in enumerate(range(0, len(body), room)):
        header = fmt.RECORD.pack(
            fmt.SEGMENT_MAGIC, fmt.VERSION, number >> 64, number & (1 << 64) - 1, index, fmt.MAX_SEGMENT_BYTES,
            time.time_ns(), 0, 0, 0, 0, 0,
        )  # fmt: skip
        with (directory / fmt.segment_name(journal, index)).open("wb") as out:
            out.write(header)
            out.write(opening.tobytes())
            out.write(body[at : at + room].tobytes())
    return body.nbytes


def chunked(count: int, parts: int) -> Iterator[np.ndarray]:
    """Yield the numbers up to a count in so many runs of nearly equal length."""
    yield from np.array_split(np.arange(count, dtype=np.uint64), parts)


class _Texts:
    """Numbers for texts, as a writer gives them."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))


def _opening(number: int, contexts: Sequence[Context]) -> np.ndarray:
    texts = _Texts()
    info = WorkerInfo(f"worker-{number}", node=f"node-{number % 4}", node_type="m5.4xlarge", pid=number)
    records = [encode(WorkerRecord(WorkerEvent.SELF, time.time_ns(), info), texts.number)]
    records += [encode(ContextRecord(at, context), texts.number) for at, context in enumerate(contexts, 1)]
    defined = [fmt.text_records(fmt.TextKind.INTERNED, text, known) for text, known in texts.known.items() if known]
    return _words(b"".join(defined + records))


def _words(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<u8").reshape(-1, fmt.RECORD_WORDS)
