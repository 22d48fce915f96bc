"""
Shards of finished jobs as Parquet, by day and pipeline, for anything that reads Parquet.

A file holds the shards of one run. It is whole and on disk before the commit that forgets them, and its name says
which run it is, so writing it again after a crash replaces it by the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mppobs.journal.format import REASON_CODES
from mppobs.model import Reason, ShardOutcome, WorkerInfo
from mppobs.sidecar.checkpoint import sync_directory
from mppobs.sidecar.reading import ShardQuery, ShardRow
from mppobs.sidecar.running import DecidedJob, JobStage
from mppobs.sidecar.store_jobs import JobSummary, to_json
from mppobs.sidecar.tables import COMMITTED, ShardColumns, ShardTable

MAX_NAME: Final = 120
"""Characters of an escaped name in a path; longer ones are cut and end in their hash."""

OUTCOMES: Final = ("pending", *(str(outcome) for outcome in ShardOutcome), "split")
"""By the code in a shard table's `state`. `split` shards were replaced by others and count nowhere."""

_REASONS: Final = [str(reason) for reason in REASON_CODES]
_DECIDED: Final = frozenset(map(str, ShardOutcome))
_PARTIAL: Final = ".partial"
_EPOCH: Final = date(1970, 1, 1).toordinal()
_NS_PER_DAY: Final = 86_400 * 1_000_000_000


class Archive:
    """The archive's directory. Writing and pruning are for one thread; reading is for any."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def write(self, job: DecidedJob, summary: JobSummary) -> int:
        """Write the shards of a decided job, durably, and return how many. Raises `OSError` where there is no room."""
        table = shard_table(job.stages.values(), job.workers, job.errors)
        if len(table) == 0:
            return 0
        path = self.path(summary)
        _make_durable(path.parent, self._directory)
        partial = path.with_suffix(_PARTIAL)
        try:
            with partial.open("wb") as out:
                named = table.replace_schema_metadata({"mppobs.job": to_json(summary)})
                pq.write_table(named, out, compression="zstd")
                out.flush()
                os.fsync(out.fileno())
            partial.replace(path)
            sync_directory(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        count = len(table)
        del table, named
        pa.default_memory_pool().release_unused()  # a job of a million shards leaves nothing behind
        return count

    def path(self, job: JobSummary) -> Path:
        """Return where the shards of a run are: by the day on which it was judged, in UTC, and by pipeline."""
        day = f"day={_day(job.settled_ns).isoformat()}"
        name = f"{escaped(job.key.job_id)}-{job.key.incarnation}-{job.uid[:8]}.parquet"
        return self._directory / day / f"pipeline={escaped(job.pipeline)}" / name

    def shards(self, job: JobSummary, query: ShardQuery) -> list[ShardRow]:
        """Return the archived shards that a query admits; none where retention has let them go."""
        try:
            table = pq.read_table(self.path(job), partitioning=None)
        except FileNotFoundError:
            return []
        return select_shards(table, query)

    def prune(self, before_ns: int) -> int:
        """Remove the days before that of a time, and what a kill left half written. Return how many days."""
        oldest, gone = _day(before_ns), 0
        for path in sorted(self._directory.glob("day=*")):
            try:
                day = date.fromisoformat(path.name.removeprefix("day="))
            except ValueError:
                continue  # not ours
            if day < oldest:
                shutil.rmtree(path)
                gone += 1
        for path in self._directory.glob(f"day=*/*/*{_PARTIAL}"):
            path.unlink(missing_ok=True)
        return gone


def shard_table(stages: Iterable[JobStage], workers: Sequence[WorkerInfo], errors: Sequence[str]) -> pa.Table:
    """Return the shards of a job as a table, one row each: of a finished job or of one that runs."""
    stages = list(stages)
    names = [stage.name for stage in stages]
    parts = [_stage_table(number, names, stage.columns(), workers, errors) for number, stage in enumerate(stages)]
    return pa.concat_tables(parts or [_stage_table(0, names, ShardTable().columns(), workers, errors)])


def select_shards(table: pa.Table, query: ShardQuery) -> list[ShardRow]:
    """Return the rows that a query admits, in its order: by stage and shard unless it says otherwise."""
    if query.stage is not None:
        table = table.filter(pc.equal(table["stage"], query.stage))
    if query.outcome is not None:
        table = table.filter(pc.equal(table["outcome"], str(query.outcome)))
    if query.worst:
        table = _ranked(table)
    by = [("stage", "ascending"), ("shard", "ascending"), ("name", "ascending")]
    if query.slowest:
        by.insert(0, ("duration_ns", "descending"))
    if query.worst:
        by[:0] = [("rank", "ascending"), ("attempts", "descending")]
    plain = pa.table({name: _plain(table[name]) for name, _ in by})
    order = pc.sort_indices(plain, sort_keys=by)[query.offset : query.offset + query.limit]
    found = table.take(order)
    for name in ("first_start", "decided"):
        found = found.set_column(found.schema.get_field_index(name), name, found[name].cast(pa.int64()))
    return [_row(each) for each in found.to_pylist()]


def _ranked(table: pa.Table) -> pa.Table:
    """Return what went wrong or goes wrong, with `rank`: failed 0, lost 1, undecided after a bad attempt 2."""
    outcome = _plain(table["outcome"])
    reason, error = (pc.fill_null(_plain(table[name]), "") for name in ("reason", "error_type"))
    bad = pc.or_(pc.invert(pc.is_in(reason, pa.array(["", str(Reason.NONE)]))), pc.not_equal(error, ""))
    failed, lost = (pc.equal(outcome, str(each)) for each in (ShardOutcome.FAILED, ShardOutcome.LOST))
    trying = pc.and_(pc.equal(outcome, OUTCOMES[0]), pc.and_(bad, pc.greater(table["attempts"], 0)))
    rank = pc.if_else(failed, 0, pc.if_else(lost, 1, 2))
    return table.append_column("rank", rank).filter(pc.or_(pc.or_(failed, lost), trying))


def escaped(name: str) -> str:
    """
    Return a name as one part of a path, the same every time and different for different names.

    >>> escaped("a/b"), escaped("..")
    ('a%2Fb', '%2E%2E')
    """
    text = quote(name, safe="").replace(".", "%2E")
    if len(text) <= MAX_NAME:
        return text
    return text[: MAX_NAME - 17] + "~" + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _stage_table(
    number: int, names: list[str], columns: ShardColumns, workers: Sequence[WorkerInfo], errors: Sequence[str]
) -> pa.Table:
    """Return one stage's shards. Texts are numbers into lists, which all stages of the job share."""
    count = len(columns)
    keys = columns.index.keys()
    ran = [WorkerInfo(""), *workers]  # numbered from 1: see `fold_attempts.worker_number`
    known = (columns.state == COMMITTED) & (columns.first_start > 0)
    durations = np.maximum(columns.decided - columns.first_start, 0)
    return pa.table({
        "stage": _chosen(np.full(count, number), names),
        "shard": pa.array(keys.astype(np.int64), mask=_named(keys)),
        "name": _names(columns, keys),
        "outcome": _chosen(columns.state, OUTCOMES),
        "attempts": pa.array(columns.attempts),
        "winner": pa.array(columns.winner),
        "first_start": _times(columns.first_start),
        "decided": _times(columns.decided),
        "duration_ns": pa.array(durations, mask=~known),
        "reason": _chosen(columns.reason, _REASONS),
        "error_type": _chosen(columns.error, errors),
        "worker": _chosen(columns.worker, [info.worker for info in ran]),
        "node": _chosen(columns.worker, [info.node for info in ran]),
        "zone": _chosen(columns.worker, [info.zone for info in ran]),
        "cpu_seconds": pa.array(columns.cpu / np.float32(1e9)),
        "wall_seconds": pa.array(columns.wall / np.float32(1e9)),
        "shuffle_read": pa.array(columns.read),
        "shuffle_written": pa.array(columns.written),
        "input_bytes": pa.array(columns.input),
    })  # fmt: skip


def _named(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which keys stand for names; see `mppobs.journal.format.is_named`."""
    return keys >= np.uint64(1 << 61)


def _chosen(numbers: NDArray[Any], texts: Sequence[str]) -> pa.DictionaryArray:
    """Return a column of texts from numbers into a list; a number beyond it is null."""
    inside = numbers < len(texts)
    indices = pa.array(np.where(inside, numbers, 0).astype(np.int32), mask=~inside)
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string()))


def _names(columns: ShardColumns, keys: NDArray[np.uint64]) -> pa.Array:
    """Return the names of named shards, null for integers; a key in hexadecimal where no name came."""
    named = np.flatnonzero(_named(keys))
    names: list[str | None] = [None] * len(keys)
    if len(named):
        for row in named.tolist():
            names[row] = f"{keys[row]:x}"
        for row, name in columns.index.names():
            names[row] = name
    return pa.array(names, pa.string())


def _times(values: NDArray[np.int64]) -> pa.Array:
    """Return times in UTC, null for 0."""
    return pa.array(values, pa.timestamp("ns", "UTC"), mask=values == 0)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column that can be sorted by: texts themselves and not numbers into a list of them."""
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _row(values: Mapping[str, Any]) -> ShardRow:
    outcome = values["outcome"]
    return ShardRow(
        stage=values["stage"], shard=values["name"] if values["shard"] is None else values["shard"],
        outcome=ShardOutcome(outcome) if outcome in _DECIDED else None, attempts=values["attempts"],
        first_start_ns=values["first_start"] or 0, decided_ns=values["decided"] or 0,
        duration_ns=values["duration_ns"] or 0, reason=Reason(values["reason"] or Reason.NONE),
        error_type=values["error_type"] or "", input_bytes=round(values["input_bytes"]),
        worker=values["worker"] or "", node=values["node"] or "", wall_seconds=values["wall_seconds"],
        cpu_seconds=values["cpu_seconds"],
        shuffle_read=round(values["shuffle_read"]), shuffle_written=round(values["shuffle_written"]),
    )  # fmt: skip


def _day(time_ns: int) -> date:
    """Return the day of a time in UTC; times beyond the calendar count as its ends."""
    return date.fromordinal(min(max(_EPOCH + time_ns // _NS_PER_DAY, 1), date.max.toordinal()))


def _make_durable(directory: Path, above: Path) -> None:
    """Make a directory and those between it and `above`, so that a power failure does not undo it."""
    missing = [path for path in (directory, *directory.parents) if above in path.parents and not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)
