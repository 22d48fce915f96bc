"""The archive: every shard of a finished run as Parquet, whole or not there, found again, let go by day."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.journal.format import REASON_CODES, shard_key
from mppobs.model import JobKey, JobOutcome, Reason, Shard, ShardOutcome, WorkerInfo
from mppobs.sidecar.aggregates import StageKey
from mppobs.sidecar.archive import MAX_NAME, Archive, escaped, select_shards, shard_table
from mppobs.sidecar.reading import ShardQuery
from mppobs.sidecar.running import JobStage
from mppobs.sidecar.store_jobs import JobSummary, from_json
from mppobs.sidecar.tables import COMMITTED, FAILED, LOST, PENDING, SPLIT

SECOND = 1_000_000_000
NOON = 1_700_000_000 * SECOND  # 2023-11-14
WORKERS = (WorkerInfo("w1", node="n1", zone="z1"),)
ERRORS = ("", "ValueError")
SUMMARY = JobSummary(
    JobKey("c", "t", "nightly/1", 5), "etl.v2", "settled", outcome=JobOutcome.SUCCESS, settled_ns=NOON
)  # fmt: skip


def stage(name: str, shards: list[tuple[Shard, int, int]]) -> JobStage:
    """Return a stage of shards, each with its state and its duration in seconds."""
    made = JobStage(name, StageKey("c", "t", "etl.v2", name))
    table = made.table
    for shard, state, seconds in shards:
        key = shard_key(shard)
        rows, fresh = table.rows(np.array([key], np.uint64))
        if isinstance(shard, str) and len(fresh):
            text = np.frombuffer(shard.encode(), np.uint8)
            table.index.add_names(rows, text, np.array([len(text)]))
        row = int(rows[0])
        table.state[row], table.attempts[row], table.winner[row] = state, 2, 1
        table.first_start[row] = NOON
        table.decided[row] = 0 if state == PENDING else NOON + seconds * SECOND
        table.worker[row], table.input[row], table.wall[row] = 1, 1024, 3e9
        if state == FAILED:
            table.error[row], table.reason[row] = 1, REASON_CODES[Reason.EXCEPTION]
    return made


def decided(*stages: JobStage) -> Any:
    """Return what the archive reads of a decided job."""
    return SimpleNamespace(stages={each.name: each for each in stages}, workers=WORKERS, errors=ERRORS)


STAGES = (
    stage("map", [(9, COMMITTED, 4), (2, COMMITTED, 9), (7, FAILED, 1), (5, SPLIT, 1)]),
    stage("join", [("blå", COMMITTED, 30), ("a", PENDING, 0)]),
)


def test_every_shard_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Rows come back by stage and shard, integers as integers and names as names, with outcome, reason and error."""
    archive = Archive(tmp_path)

    assert archive.write(decided(*STAGES), SUMMARY) == 6

    rows = archive.shards(SUMMARY, ShardQuery())
    assert [(row.stage, row.shard) for row in rows] == [
        ("join", "a"), ("join", "blå"), ("map", 2), ("map", 5), ("map", 7), ("map", 9),
    ]  # fmt: skip
    assert [row.outcome for row in rows] == [
        None, ShardOutcome.COMMITTED, ShardOutcome.COMMITTED, None, ShardOutcome.FAILED, ShardOutcome.COMMITTED,
    ]  # fmt: skip
    assert [row.duration_ns // SECOND for row in rows] == [0, 30, 9, 0, 0, 4]
    failed = rows[4]
    assert (failed.reason, failed.error_type, failed.attempts) == (Reason.EXCEPTION, "ValueError", 2)
    assert (failed.first_start_ns, failed.decided_ns, failed.input_bytes) == (NOON, NOON + SECOND, 1024)
    assert rows[0].decided_ns == 0


def test_shards_are_filtered_and_ordered(tmp_path: Path) -> None:
    """By stage, by outcome, slowest first, and a page at a time."""
    archive = Archive(tmp_path)
    archive.write(decided(*STAGES), SUMMARY)

    slow = archive.shards(SUMMARY, ShardQuery(slowest=True, outcome=ShardOutcome.COMMITTED))
    second = archive.shards(SUMMARY, ShardQuery(slowest=True, offset=1, limit=1))

    assert [row.shard for row in slow] == ["blå", 2, 9]
    assert [row.shard for row in second] == [2]
    assert [row.shard for row in archive.shards(SUMMARY, ShardQuery(stage="join"))] == ["a", "blå"]


def test_the_worst_are_failed_then_lost_then_those_that_still_try(tmp_path: Path) -> None:
    """What has committed, was never tried, or runs for the first time is none of them."""
    made = stage(
        "map", [(1, COMMITTED, 4), (2, LOST, 2), (3, FAILED, 1), (4, PENDING, 0), (5, PENDING, 0), (6, FAILED, 1)]
    )
    rows, _ = made.table.rows(np.array([shard_key(5), shard_key(6)], np.uint64))
    made.table.error[int(rows[0])] = 1
    made.table.attempts[int(rows[1])] = 9

    found = select_shards(shard_table([made], WORKERS, ERRORS), ShardQuery(worst=True))

    assert [row.shard for row in found] == [6, 3, 2, 5]
    assert select_shards(shard_table([], WORKERS, ERRORS), ShardQuery(worst=True)) == []


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from([PENDING, COMMITTED, FAILED]), st.integers(0, 9)),
                unique_by=lambda shard: shard[0]), st.integers(0, 20), st.integers(1, 20))  # fmt: skip
@settings(deadline=None)
def test_pages_of_the_slowest_agree_with_sorting_by_hand(
    shards: list[tuple[int, int, int]], offset: int, limit: int
) -> None:
    """Committed shards come by falling duration, then the others, each group by shard; pages cut that list."""
    table = shard_table([stage("map", [*shards])], WORKERS, ERRORS)

    found = select_shards(table, ShardQuery(slowest=True, offset=offset, limit=limit))

    done = sorted((-seconds, shard) for shard, state, seconds in shards if state == COMMITTED)
    rest = sorted(shard for shard, state, _ in shards if state != COMMITTED)
    expected = [shard for _, shard in done] + rest
    assert [row.shard for row in found] == expected[offset : offset + limit]


def test_the_archive_is_plain_parquet_by_day_and_pipeline(tmp_path: Path) -> None:
    """Another program reads it by its directories' names, and the file carries the job's summary."""
    archive = Archive(tmp_path)
    archive.write(decided(*STAGES), SUMMARY)

    found = duckdb.sql(
        f"SELECT day, pipeline, count(*), sum(attempts), min(worker), max(node) "
        f"FROM read_parquet('{tmp_path}/**/*.parquet', hive_partitioning=true) GROUP BY ALL"
    ).fetchall()

    day = datetime.fromtimestamp(NOON / SECOND, UTC).date()
    assert found == [(day, "etl.v2", 6, 12, "w1", "n1")]
    assert from_json(pq.read_schema(archive.path(SUMMARY)).metadata[b"mppobs.job"].decode()) == SUMMARY


def test_writing_a_run_again_replaces_it(tmp_path: Path) -> None:
    """What a crash between writing and committing repeats is there once, and no partial file stays."""
    archive = Archive(tmp_path)
    archive.write(decided(*STAGES), SUMMARY)
    archive.write(decided(*STAGES), SUMMARY)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive.path(SUMMARY)]
    assert len(archive.shards(SUMMARY, ShardQuery())) == 6


def test_a_run_without_shards_or_let_go_has_none(tmp_path: Path) -> None:
    """Nothing is written for a run of no shards, and reading what is not there gives nothing."""
    archive = Archive(tmp_path)

    assert archive.write(decided(), SUMMARY) == 0
    assert archive.write(decided(stage("map", [])), SUMMARY) == 0
    assert archive.shards(SUMMARY, ShardQuery()) == []
    assert list(tmp_path.iterdir()) == []


def test_no_room_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing write raises OSError and takes its partial file away."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)

    with pytest.raises(OSError, match="No space left"):
        Archive(tmp_path).write(decided(*STAGES), SUMMARY)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_retention_removes_whole_days_and_leftovers(tmp_path: Path) -> None:
    """Days before the given one go, that day and later ones stay, as does what is not the archive's own."""
    archive = Archive(tmp_path)
    archive.write(decided(*STAGES), SUMMARY)
    (tmp_path / "day=2023-11-13" / "pipeline=x").mkdir(parents=True)
    (tmp_path / "day=notes").mkdir()
    leftover = archive.path(SUMMARY).with_suffix(".partial")
    leftover.write_bytes(b"half")

    assert archive.prune(NOON) == 1

    assert sorted(path.name for path in tmp_path.iterdir()) == ["day=2023-11-14", "day=notes"]
    assert not leftover.exists()
    assert archive.prune(NOON + 86_400 * SECOND) == 1
    assert archive.shards(SUMMARY, ShardQuery()) == []


@given(st.text(), st.text())
@settings(deadline=None)
def test_escaped_names_are_safe_and_distinct(one: str, other: str) -> None:
    """No name leaves its directory or passes what a file system takes, and different names stay different."""
    found = escaped(one)

    assert "/" not in found
    assert found not in (".", "..")
    assert len(found) <= MAX_NAME
    assert found.isascii()
    assert (found == escaped(other)) == (one == other)


@pytest.mark.parametrize("time_ns", [-(2**63), 0, 2**63 - 1])
def test_times_beyond_the_calendar_have_a_day_too(tmp_path: Path, time_ns: int) -> None:
    """A hostile time does not keep a job from being archived."""
    summary = JobSummary(JobKey("c", "t", "x" * 500, time_ns), "p" * 900, "settled", settled_ns=time_ns)
    archive = Archive(tmp_path)

    assert archive.write(decided(*STAGES), summary) == 6
    assert len(archive.shards(summary, ShardQuery())) == 6
