"""
The aggregator's memory: what was counted, how far each journal was read, and which jobs were decided.

One round is one transaction: either the counts contain a range of records and the cursors have passed it, or
neither. Everything else that must survive (the state of running jobs) is rebuilt from the last checkpoint and the
ranges that were folded since, which the store keeps in order.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mppobs.errors import MppobsError
from mppobs.model import JobKey
from mppobs.sidecar.aggregates import ClusterTotals, PipelineKey, PipelineTotals, SelfTotals, StageKey, StageTotals
from mppobs.sidecar.checkpoint import CheckpointFile, CheckpointFiles
from mppobs.sidecar.fold_jobs import EndedJob
from mppobs.sidecar.follow import Cursor
from mppobs.sidecar.store_jobs import JobPage, JobQuery, JobSummary, insert_jobs, merge_pages, select_ended, select_jobs
from mppobs.sidecar.store_schema import (
    StateLock,
    StoreError,
    StoreFull,
    damaged,
    open_reader,
    open_writer,
    private_directory,
)  # fmt: skip
from mppobs.sidecar.store_slos import SloRows, StoredSlos, last_success, prune_slos, read_slos, thin_slos, write_slos
from mppobs.sidecar.store_totals import Totals, TotalsRow, totals_of, totals_row

_UPSERT_JOURNAL = (
    "INSERT INTO journals VALUES (?,?,?,?,?) ON CONFLICT (uuid) DO UPDATE SET "
    "segment=excluded.segment, record=excluded.record, ended=excluded.ended, time_ns=excluded.time_ns"
)
_UPSERT_TOTALS = (
    "INSERT INTO totals VALUES (?,?,?,?) ON CONFLICT (kind, key) DO UPDATE SET "
    "data=excluded.data, sketch=excluded.sketch"
)


class Range(NamedTuple):
    """Records of one segment that were folded together."""

    journal: str
    segment: int
    first: int
    records: int


@dataclass(frozen=True, slots=True)
class Round:
    """What was folded at once, in order, and at what time: enough to fold it again to the same end."""

    number: int
    time_ns: int
    ranges: list[Range]


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one round changed."""

    round: Round
    cursors: Mapping[str, Cursor]
    """Of the journals that the round read."""
    totals: list[Totals] = field(default_factory=list)
    """Those that changed, whole."""
    jobs: list[JobSummary] = field(default_factory=list)
    """Those that were decided."""
    slos: SloRows = field(default_factory=SloRows)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of what runs after a round, so that older rounds need not be folded again."""

    round: int
    cursors: Mapping[str, Cursor]
    parts: dict[str, bytes]


@dataclass(slots=True)
class Loaded:
    """What the store knows when a process starts."""

    round: int = 0
    time_ns: int = 0
    records: int = 0
    cursors: dict[str, Cursor] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    rounds: list[Round] = field(default_factory=list)
    """Those after the checkpoint, in order."""


@dataclass(slots=True)
class LoadedTotals:
    """Everything that was counted up to the last commit, in objects of the caller's own."""

    pipelines: dict[PipelineKey, PipelineTotals] = field(default_factory=dict)
    stages: dict[StageKey, StageTotals] = field(default_factory=dict)
    clusters: dict[str, ClusterTotals] = field(default_factory=dict)
    own: SelfTotals = field(default_factory=SelfTotals)


class Store:
    """
    A state directory: one database, its checkpoints, and a lock that keeps a second process out.

    `commit` and `checkpoint` are for the one thread that folds; queries may come from any thread and see the last
    commit. Raises `StoreError` where the directory is in use or the database cannot be trusted.
    """

    def __init__(self, directory: Path) -> None:
        private_directory(directory)
        self.path = directory / "mppobs.db"
        self._lock = StateLock(directory / "lock")
        try:
            self._writer = open_writer(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._files = CheckpointFiles(directory / "checkpoints")
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close the database and let another process have the directory."""
        self._writer.close()
        self._lock.release()

    def load(self) -> Loaded:
        """Return how far things went and the last checkpoint. Raises `StoreError` where any of it is damaged."""
        with self._trusting():
            return self._load()

    def totals(self) -> LoadedTotals:
        """Return what was counted. Raises `StoreError` where any of it is damaged."""
        loaded = LoadedTotals()
        with self._trusting(), self._reading() as connection:
            for row in connection.execute("SELECT kind, key, data, sketch FROM totals"):
                _place(loaded, totals_of(TotalsRow(*row)))
        return loaded

    def probe(self) -> None:
        """Write nothing new, durably. Raises `StoreFull` where even that finds no room or no permission."""
        with self._transaction() as connection:
            connection.execute("UPDATE progress SET round = round")

    def commit(self, commit: Commit) -> None:
        """Make one round durable, whole. Raises `StoreFull` where there is no room: then nothing of it has happened."""
        now = commit.round.time_ns
        ranges = json.dumps(commit.round.ranges, separators=(",", ":"))
        count = sum(each.records for each in commit.round.ranges)
        journals = [(uuid, *cursor, now) for uuid, cursor in commit.cursors.items()]
        with self._transaction() as connection:
            connection.execute("INSERT INTO rounds VALUES (?,?,?)", (commit.round.number, now, ranges))
            connection.execute(
                "INSERT INTO progress VALUES (1,?,?,?) ON CONFLICT (one) DO UPDATE SET "
                "round=excluded.round, time_ns=excluded.time_ns, records=records+excluded.records",
                (commit.round.number, now, count),
            )
            connection.executemany(_UPSERT_JOURNAL, journals)
            connection.executemany(_UPSERT_TOTALS, map(totals_row, commit.totals))
            insert_jobs(connection, commit.jobs)
            write_slos(connection, commit.slos)

    def slos(self) -> StoredSlos:
        """Return what SLOs have counted. Raises `StoreError` where any of it is damaged."""
        with self._trusting(), self._reading() as connection:
            return read_slos(connection)

    def commit_slos(self, rows: SloRows) -> None:
        """Make durable what no round changed: a minute that passed, SLOs that are new. Raises `StoreFull`."""
        with self._transaction() as connection:
            write_slos(connection, rows)

    def thin_slos(self, gone: Mapping[str, Sequence[int]]) -> None:
        """Forget slots of SLOs, by name. Raises `StoreFull`."""
        with self._transaction() as connection:
            thin_slos(connection, gone)

    def prune_slos(self, names: Sequence[str], before_slot: int, rows: SloRows) -> None:
        """Forget SLOs by name, and what else of them is older than a slot. Raises `StoreFull`."""
        with self._transaction() as connection:
            prune_slos(connection, names, before_slot)
            write_slos(connection, rows)

    def last_success(self, pipeline: str, tenant: str) -> int:
        """Return when the newest successful job of a pipeline ended; see `mppobs.sidecar.store_slos.last_success`."""
        with self._reading() as connection:
            return last_success(connection, pipeline, tenant)

    def checkpoint(self, checkpoint: Checkpoint, time_ns: int) -> int:
        """
        Keep the state of what runs and forget the rounds that it contains. Return its size in bytes.

        The file is whole on disk before the database names it; the one before goes away afterwards.
        """
        try:
            made = self._files.write(checkpoint.round, checkpoint.parts)
        except OSError as error:
            raise StoreFull(f"no room for a checkpoint: {error}") from error
        cursors = json.dumps(checkpoint.cursors, separators=(",", ":"))
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO checkpoint VALUES (1,?,?,?,?,?,?)",
                (checkpoint.round, time_ns, made.name, made.size, made.checksum, cursors),
            )
            connection.execute("DELETE FROM rounds WHERE number <= ?", (checkpoint.round,))
        self._files.keep_only(made.name)
        return made.size

    def prune(self, *, jobs_before_ns: int, journals_before_ns: int) -> int:
        """
        Forget jobs settled before a time, and journals that ended before one. Return how many jobs.

        A journal's cursor outlives its files, so that bytes that an agent sends again are known to be counted.
        """
        with self._transaction() as connection:
            gone = connection.execute("DELETE FROM jobs WHERE settled_ns < ?", (jobs_before_ns,)).rowcount
            connection.execute("DELETE FROM journals WHERE ended AND time_ns < ?", (journals_before_ns,))
        return gone

    def jobs(self, query: JobQuery, running: Iterable[JobSummary] = (), *, finished: bool = True) -> JobPage:
        """Return a page of jobs: decided ones if wanted, and those of `running` that the query admits."""
        decided: list[JobSummary] = []
        if finished:
            with self._reading() as connection:
                decided = select_jobs(connection, query)
        return merge_pages(list(running), decided, query)

    def runs(self, job_id: str) -> list[JobSummary]:
        """Return the decided runs that used a job ID, newest first."""
        with self._reading() as connection:
            return select_jobs(connection, JobQuery(job_id=job_id, limit=1000))

    def job(self, key: JobKey) -> JobSummary | None:
        """Return a decided job, or `None`."""
        return next((job for job in self.runs(key.job_id) if job.key == key), None)

    def ended(self, key: JobKey, before_ns: int) -> EndedJob | None:
        """Return a job that was settled before a time, by any of its names: see `mppobs.sidecar.fold_jobs.Ended`."""
        with self._reading() as connection:
            return select_ended(connection, key, before_ns)

    def _load(self) -> Loaded:
        loaded = Loaded()
        with self._reading() as connection:
            connection.execute("BEGIN")
            row = connection.execute("SELECT round, time_ns, records FROM progress").fetchone()
            loaded.round, loaded.time_ns, loaded.records = row or (0, 0, 0)
            for uuid, segment, record, ended in connection.execute("SELECT uuid, segment, record, ended FROM journals"):
                loaded.cursors[uuid] = Cursor(segment, record, bool(ended))
            loaded.checkpoint = self._load_checkpoint(connection)
            after = loaded.checkpoint.round if loaded.checkpoint else 0
            loaded.rounds = list(_rounds(connection, after, loaded.round))
            connection.execute("COMMIT")
        return loaded

    def _load_checkpoint(self, connection: sqlite3.Connection) -> Checkpoint | None:
        row = connection.execute("SELECT round, file, size, checksum, cursors FROM checkpoint").fetchone()
        if row is None:
            return None
        number, name, size, checksum, cursors = row
        parts = self._files.read(CheckpointFile(name, size, checksum))
        places = {
            uuid: Cursor(segment, record, bool(ended)) for uuid, (segment, record, ended) in json.loads(cursors).items()
        }
        return Checkpoint(number, places, parts)

    @contextmanager
    def _trusting(self) -> Iterator[None]:
        """Turn whatever reading a damaged row or file runs into to the error that says what to do."""
        try:
            yield
        except (sqlite3.DatabaseError, MppobsError, ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, StoreError):
                raise
            raise damaged(self.path, f"{type(error).__name__}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the body as one transaction. No room, or no permission, undoes it and raises `StoreFull`."""
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise StoreFull(f"{self.path}: {error}") from error
                if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
                    raise damaged(self.path, error) from error
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = open_reader(self.path)
        try:
            yield connection
        finally:
            connection.close()


def _rounds(connection: sqlite3.Connection, after: int, last: int) -> Iterator[Round]:
    """Yield the rounds after a checkpoint; a gap among them is an error, since what it held would be lost."""
    expected = after
    sql = "SELECT number, time_ns, ranges FROM rounds WHERE number > ? ORDER BY number"
    for number, time_ns, ranges in connection.execute(sql, (after,)):
        expected += 1
        if number != expected:
            raise ValueError(f"round {expected} is missing")
        yield Round(number, time_ns, [Range(*each) for each in json.loads(ranges)])
    if expected != last:
        raise ValueError(f"round {expected + 1} is missing")


def _place(loaded: LoadedTotals, totals: Totals) -> None:
    match totals:
        case PipelineTotals():
            loaded.pipelines[totals.key] = totals
        case StageTotals():
            loaded.stages[totals.key] = totals
        case ClusterTotals():
            loaded.clusters[totals.cluster] = totals
        case SelfTotals():
            loaded.own = totals
