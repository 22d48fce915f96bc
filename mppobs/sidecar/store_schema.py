"""
The store's tables, how they came to be, and how a database file is opened or refused.

A store is never repaired and never started over on its own: a file that is damaged, foreign, newer than this
program, or missing where its checkpoints still lie is an error that says what to do.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from mppobs.errors import MppobsError

APPLICATION_ID: Final = 0x4D50_504F
"""`MPPO`, in the database's header: tells our files from other programs'."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE journals (
            uuid TEXT PRIMARY KEY,      -- 32 hexadecimal digits
            segment INTEGER NOT NULL,   -- the segment that is read next
            record INTEGER NOT NULL,    -- the record in it that is read next
            ended INTEGER NOT NULL,     -- whether END has been folded
            time_ns INTEGER NOT NULL    -- of the round that read it last
        ) WITHOUT ROWID""",
        """CREATE TABLE rounds (
            number INTEGER PRIMARY KEY,
            time_ns INTEGER NOT NULL,
            ranges TEXT NOT NULL        -- JSON: [[journal, segment, first, count], ...] in the order of folding
        )""",
        """CREATE TABLE progress (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            round INTEGER NOT NULL,
            time_ns INTEGER NOT NULL,
            records INTEGER NOT NULL    -- folded since the store was made
        )""",
        """CREATE TABLE checkpoint (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            round INTEGER NOT NULL,     -- the last round that it contains
            time_ns INTEGER NOT NULL,
            file TEXT NOT NULL,
            size INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            cursors TEXT NOT NULL       -- JSON: {journal: [segment, record, ended]} after that round
        )""",
        """CREATE TABLE totals (
            kind TEXT NOT NULL,         -- pipeline, stage, cluster or own
            key TEXT NOT NULL,          -- JSON array of labels
            data TEXT NOT NULL,         -- JSON
            sketch BLOB,                -- of stages
            PRIMARY KEY (kind, key)
        ) WITHOUT ROWID""",
        """CREATE TABLE jobs (
            uid TEXT PRIMARY KEY,       -- the job's trace ID
            cluster TEXT NOT NULL,
            tenant TEXT NOT NULL,
            job_id TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            pipeline TEXT NOT NULL,
            outcome TEXT NOT NULL,
            start_ns INTEGER NOT NULL,
            end_ns INTEGER NOT NULL,
            settled_ns INTEGER NOT NULL,
            aliases TEXT NOT NULL,      -- further incarnations that name it: `,1,2,`
            data TEXT NOT NULL          -- JSON: the whole summary
        ) WITHOUT ROWID""",
        "CREATE INDEX jobs_by_start ON jobs (start_ns DESC, uid DESC)",
        "CREATE INDEX jobs_by_pipeline ON jobs (pipeline, start_ns DESC, uid DESC)",
        "CREATE INDEX jobs_by_id ON jobs (job_id, end_ns DESC)",
        "CREATE INDEX jobs_by_settled ON jobs (settled_ns)",
    ),
    (
        """CREATE TABLE slos (
            name TEXT PRIMARY KEY,      -- team/name
            revision INTEGER NOT NULL,
            definition TEXT NOT NULL,   -- hash of what its events are
            objective TEXT NOT NULL,    -- a fraction
            start_ns INTEGER NOT NULL,  -- when the revision began to count
            total INTEGER NOT NULL,
            bad INTEGER NOT NULL,
            latched INTEGER NOT NULL,   -- whether its newest event was bad
            marks TEXT NOT NULL         -- JSON: changes of the objective, [[time_ns, before, after], ...]
        ) WITHOUT ROWID""",
        """CREATE TABLE slo_steps (
            name TEXT NOT NULL,
            revision INTEGER NOT NULL,
            slot INTEGER NOT NULL,      -- of five minutes, since the epoch
            total INTEGER NOT NULL,     -- everything counted by its end
            bad INTEGER NOT NULL,
            PRIMARY KEY (name, revision, slot)
        ) WITHOUT ROWID""",
        """CREATE TABLE slo_minutes (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            data TEXT NOT NULL          -- JSON: what the minute that goes on has seen
        )""",
    ),
    (
        """CREATE TABLE foresight (
            kind TEXT NOT NULL,         -- job, slo or pipeline
            key TEXT NOT NULL,          -- the job's trace ID, the SLO's name, or a JSON array of labels
            data TEXT NOT NULL,         -- JSON: charges and predictions, how charges ended, predictions against ends
            PRIMARY KEY (kind, key)
        ) WITHOUT ROWID""",
        # When no file had it any more; 0 while one has.
        "ALTER TABLE slos ADD COLUMN retired_ns INTEGER NOT NULL DEFAULT 0",
    ),
)
"""Statements by schema version, from 1: only ever append."""


class StoreError(MppobsError):
    """Raised when the store cannot be opened, read or understood. The message says which file and what to do."""


class StoreFull(MppobsError):
    """Raised when a transaction found no room or no permission to write; nothing of it has happened."""


class StateLock:
    """The right to write a state directory, held by one process at a time and freed by its death."""

    def __init__(self, path: Path) -> None:
        """Take the lock, or raise `StoreError` where another process holds it."""
        self._file = path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise StoreError(f"{path.parent}: another sidecar is using this state directory") from error

    def release(self) -> None:
        """Let another process have it."""
        self._file.close()


def private_directory(directory: Path) -> None:
    """Make a directory for its owner alone; one of ours that is there is closed to others. Raises `StoreError`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used: {error.strerror or error}") from error


def open_writer(path: Path) -> sqlite3.Connection:
    """
    Return the one connection that writes, with the tables brought up to date.

    `synchronous=FULL`: a round is exposed once it is committed, and a counter that was exposed must not go back,
    not even when the machine loses power. It costs one fsync per round, of which there are at most twenty a second.
    """
    made = not path.exists()
    if made and (remnant := _remnant(path)) is not None:
        raise StoreError(
            f"{path} is missing, but {remnant} is there: totals would start from zero and count again what was "
            "counted. Restore the database from a backup, or move the whole directory away to begin anew."
        )
    try:
        path.touch(mode=0o600)  # what SQLite makes beside it takes its mode
        path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        _check(connection, path, made=made)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=1000")
        connection.execute("PRAGMA journal_size_limit=67108864")
        _migrate(connection, path)
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreError(f"{path}: {error}. Is the directory writable, and is there room on its disk?") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads; it sees whole transactions and never holds the writer up."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
    connection.execute("PRAGMA query_only=1")
    return connection


def damaged(path: Path, why: object) -> StoreError:
    """Return the error that a damaged database is refused with."""
    return StoreError(
        f"{path} is damaged ({why}). It holds what was counted, so nothing is counted until you decide: restore it "
        "from a backup, or move the whole directory away to begin anew from the journals that are still there."
    )


def _remnant(path: Path) -> Path | None:
    """Return a file that only a store which once was here can have left behind."""
    folder = path.parent / "checkpoints"
    return next(iter(sorted(folder.glob("*.checkpoint"))), None) if folder.is_dir() else None


def _check(connection: sqlite3.Connection, path: Path, *, made: bool) -> None:
    """Refuse a database that is damaged or somebody else's."""
    if made or os.path.getsize(path) == 0:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        return
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if found != APPLICATION_ID:
        raise StoreError(f"{path} is a database, but not one of mppobs: name another state directory")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise damaged(path, verdict)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the migrations that the database has not seen, each in a transaction of its own."""
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY)")
    version = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer mppobs (schema {version}, this one knows {len(MIGRATIONS)}): update mppobs"
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?)", (number,))
        connection.execute("COMMIT")
