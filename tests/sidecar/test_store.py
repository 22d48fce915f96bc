"""The store: rounds whole or not at all, totals that come back as they went, jobs page by page, damage refused."""

from __future__ import annotations

import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mppobs.errors import ConfigError
from mppobs.model import AttemptOutcome, CostKind, JobKey, JobOutcome, Reason, RunKind, ShardOutcome, Tier
from mppobs.sidecar.aggregates import (
    ClusterTotals,
    Exemplar,
    PipelineKey,
    PipelineTotals,
    SelfTotals,
    StageKey,
    StageTotals,
)
from mppobs.sidecar.follow import Cursor
from mppobs.sidecar.store import Checkpoint, Commit, Range, Round, Store
from mppobs.sidecar.store_jobs import JobQuery, JobSummary, PagePlace, StageSummary, from_json, to_json
from mppobs.sidecar.store_schema import StoreError, StoreFull, open_reader
from mppobs.sidecar.store_totals import totals_of, totals_row

PIPELINE = PipelineKey("c", "t", "nächtlich")
JOURNAL = "ab" * 16


def pipeline_totals() -> PipelineTotals:
    """Return totals with something in every field."""
    totals = PipelineTotals(PIPELINE, owner="data", tier=Tier.CRITICAL)
    totals.jobs[JobOutcome.ERROR] = 3
    totals.durations.observe(5_000_000_000, Exemplar("job", "", 2**127 + 1, 5.0, 7))
    totals.queue.observe(1)
    totals.delays.observe(10**18)
    totals.job_shuffle.observe(2**60)
    totals.baseline.extend(range(30))
    totals.baseline_ratio = 1.5
    totals.network_errors["reset"] = 2
    totals.storage_throttled["prefix"] = 1
    totals.cost_pusd[CostKind.RETRY] = 10**20
    totals.throttled_ns, totals.oom_kills, totals.heartbeat_ns, totals.recorded, totals.dispatched = 1, 2, 3, 4, 5
    return totals


def stage_totals() -> StageTotals:
    """Return stage totals with a sketch and counts."""
    totals = StageTotals(StageKey(*PIPELINE, "map"))
    totals.shards[ShardOutcome.LOST] = 2
    totals.attempts[AttemptOutcome.PREEMPTED] = 1
    totals.sketch.add(np.array([5_000_000, 7_000_000]), now_ns=10**18)
    totals.activity_ns["read"] = 12
    totals.skew_idle_ratio = 0.25
    return totals


def commit(number: int, **changes: object) -> Commit:
    """Return a commit of one range of ten records."""
    cursors = {JOURNAL: Cursor(0, number * 10, False)}
    made = Commit(Round(number, number * 1000, [Range(JOURNAL, 0, (number - 1) * 10, 10)]), cursors)
    return replace(made, **changes)  # type: ignore[arg-type]


def job(number: int, **changes: object) -> JobSummary:
    """Return the summary of a settled job."""
    made = JobSummary(
        JobKey("c", "t", f"job-{number}", number), "nightly", "settled", outcome=JobOutcome.SUCCESS,
        start_ns=number * 100, end_ns=number * 100 + 50, settled_ns=number * 100 + 60,
        stages=(StageSummary("map", shards={ShardOutcome.COMMITTED: 4}, attempts={AttemptOutcome.SUCCESS: 4}),),
        cost_pusd={CostKind.USEFUL: 10**15}, shards={ShardOutcome.COMMITTED: 4}, reason=Reason.IDLE,
        run_kind=RunKind.BACKFILL, tier=Tier.BESTEFFORT, aliases=(number + 1,),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path):
    """A store in a directory of its own."""
    made = Store(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("totals", [pipeline_totals(), stage_totals(), ClusterTotals("c", {"node_lost": 3})])
def test_totals_come_back_as_they_went(totals: PipelineTotals | StageTotals | ClusterTotals) -> None:
    """Every field survives the way to a row and back, with members of enumerations as keys."""
    back = totals_of(totals_row(totals))

    assert back == totals
    for item in fields(totals):
        if isinstance(value := getattr(totals, item.name), dict):
            assert [type(key) for key in getattr(back, item.name)] == [type(key) for key in value]


def test_a_histogram_of_other_buckets_is_not_taken_for_ours() -> None:
    """Counts whose bounds have changed would be silently wrong, so they are an error."""
    row = totals_row(pipeline_totals())

    with pytest.raises(ValueError, match="buckets"):
        totals_of(row._replace(data=row.data.replace('"bounds":[1.0', '"bounds":[2.0')))


def test_a_commit_is_there_after_a_restart(tmp_path: Path) -> None:
    """Round, cursors, ranges, totals and jobs of every commit are what the next process loads."""
    store = Store(tmp_path)
    own = SelfTotals(records={"attempt": 20})
    store.commit(commit(1, totals=[pipeline_totals(), own], jobs=[job(1)]))
    store.commit(commit(2, totals=[stage_totals(), ClusterTotals("c", {"x": 1})]))
    store.close()

    again = Store(tmp_path)
    loaded, totals = again.load(), again.totals()
    assert (loaded.round, loaded.time_ns, loaded.records) == (2, 2000, 20)
    assert loaded.cursors == {JOURNAL: Cursor(0, 20, False)}
    assert loaded.rounds == [commit(1).round, commit(2).round]
    assert totals.pipelines == {PIPELINE: pipeline_totals()}
    assert totals.stages == {stage_totals().key: stage_totals()}
    assert (totals.clusters, totals.own) == ({"c": ClusterTotals("c", {"x": 1})}, own)
    assert again.job(job(1).key) == job(1)
    again.close()


def test_a_commit_that_fails_leaves_nothing_behind(store: Store) -> None:
    """A repeated round number breaks the transaction in its middle; the cursors and totals stay as they were."""
    store.commit(commit(1))

    with pytest.raises(sqlite3.IntegrityError):
        store.commit(commit(1, cursors={JOURNAL: Cursor(9, 9, True)}, totals=[pipeline_totals()], jobs=[job(1)]))

    assert store.load().cursors == {JOURNAL: Cursor(0, 10, False)}
    assert store.totals().pipelines == {}
    assert store.runs("job-1") == []


def test_a_full_disk_undoes_the_round_and_says_so(store: Store) -> None:
    """Without room the commit raises StoreFull and changes nothing; with room again the same commit goes through."""
    store.commit(commit(1))
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    big = commit(2, jobs=[job(number) for number in range(500)])

    with pytest.raises(StoreFull):
        store.commit(big)
    assert store.load().round == 1
    store._writer.execute("PRAGMA max_page_count=1000000")
    store.commit(big)
    assert store.load().round == 2


def test_a_store_that_cannot_be_written_is_probed_without_harm(store: Store) -> None:
    """The probe tells a store that takes nothing, and goes through when it takes something again."""
    store.commit(commit(1))
    store._writer.execute("PRAGMA query_only=1")
    with pytest.raises(StoreFull):
        store.probe()
    store._writer.execute("PRAGMA query_only=0")

    store.probe()

    assert store.load().round == 1


def test_a_checkpoint_replaces_the_rounds_before_it(tmp_path: Path) -> None:
    """After a checkpoint only later rounds remain, its parts and cursors come back, and one file is left."""
    store = Store(tmp_path)
    for number in (1, 2, 3):
        store.commit(commit(number))
    parts = {"jobs": b"\0\1\2", "stage/é": bytes(100_000), "empty": b""}
    store.checkpoint(Checkpoint(1, {JOURNAL: Cursor(0, 10, False)}, {"old": b"x"}), 1)
    size = store.checkpoint(Checkpoint(2, {JOURNAL: Cursor(0, 20, True)}, parts), 2)
    store.close()

    again = Store(tmp_path)
    loaded = again.load()
    assert loaded.checkpoint == Checkpoint(2, {JOURNAL: Cursor(0, 20, True)}, parts)
    assert [each.number for each in loaded.rounds] == [3]
    assert [path.stat().st_size for path in (tmp_path / "checkpoints").iterdir()] == [size]
    again.close()


def test_a_missing_round_is_damage(store: Store) -> None:
    """A gap between the checkpoint and the last round cannot be replayed, so the store is refused."""
    for number in (1, 2, 3):
        store.commit(commit(number))
    store._writer.execute("DELETE FROM rounds WHERE number = 2")

    with pytest.raises(StoreError, match="round 2 is missing"):
        store.load()


def flip(path: Path, at: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """A checkpoint that is not as it was written stops the start instead of losing what runs."""
    store = Store(tmp_path)
    store.commit(commit(1))
    store.checkpoint(Checkpoint(1, {}, {"jobs": bytes(100)}), 1)
    flip(next((tmp_path / "checkpoints").iterdir()), 50)

    with pytest.raises(StoreError, match="not as it was written"):
        store.load()
    store.close()


@pytest.mark.parametrize("damage", ["header", "page", "text", "foreign", "newer", "gone"])
def test_a_database_that_cannot_be_trusted_is_refused(tmp_path: Path, damage: str) -> None:
    """Damage, another program's file, a newer schema, a file gone: refused by name, never from zero."""
    store = Store(tmp_path)
    store.commit(commit(1, totals=[pipeline_totals()], jobs=[job(number) for number in range(200)]))
    store.checkpoint(Checkpoint(1, {}, {"jobs": b""}), 1)
    if damage == "newer":
        store._writer.execute("INSERT INTO migrations VALUES (999)")
    store.close()
    path = tmp_path / "mppobs.db"
    if damage == "header":
        flip(path, 3)
    elif damage == "page":
        for at in range(4096 * 3, path.stat().st_size, 512):
            flip(path, at)
    elif damage == "text":
        path.write_text("counts: 7\n" * 100)
    elif damage == "foreign":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (x)")
        other.close()
    elif damage == "gone":
        path.unlink()

    with pytest.raises(StoreError, match=r"mppobs\.db"):
        Store(tmp_path).load()


def test_a_state_directory_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Whether it was made here or was there, open to others, before; so are the files of the database."""
    (tmp_path / "state").mkdir(mode=0o755)
    Store(tmp_path / "state").close()
    made = Store(tmp_path / "state")

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "state").glob("mppobs.db*")} == {
        "mppobs.db": 0, "mppobs.db-wal": 0, "mppobs.db-shm": 0,
    }  # fmt: skip
    made.close()


def test_one_process_at_a_time_holds_a_state_directory(tmp_path: Path) -> None:
    """A second store in the same directory is refused while the first is open, and taken after it is closed."""
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="another sidecar"):
        Store(tmp_path)
    store.close()

    Store(tmp_path).close()


def test_readers_see_whole_commits_and_cannot_write(store: Store) -> None:
    """A reader's connection refuses to write, and does not see a transaction before its commit."""
    store.commit(commit(1))
    reader = open_reader(store.path)
    with store._transaction() as writer:
        writer.execute("UPDATE progress SET round = 77")
        assert reader.execute("SELECT round FROM progress").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM rounds")
    reader.close()


def test_a_job_survives_as_json() -> None:
    """A summary comes back equal, with its enumerations."""
    back = from_json(to_json(job(7)))

    assert back == job(7)
    assert type(next(iter(back.stages[0].shards))) is ShardOutcome


def some_jobs() -> list[JobSummary]:
    """Return jobs of two pipelines and two tenants, several with the same start."""
    return [
        job(
            number, key=JobKey("c", "ab"[number % 2], f"job-{number % 5}", number), start_ns=number // 3 * 100,
            pipeline=("etl", "train")[number % 3 == 0], outcome=list(JobOutcome)[number % 4],
        )
        for number in range(40)
    ]  # fmt: skip


queries = st.builds(
    JobQuery, pipeline=st.sampled_from([None, "etl", "train", "none"]), tenant=st.sampled_from([None, "a"]),
    outcome=st.sampled_from([None, JobOutcome.SUCCESS, JobOutcome.ERROR]),
    job_id=st.sampled_from([None, None, "job-3"]),
    since_ns=st.sampled_from([None, 300, -(2**70)]), until_ns=st.sampled_from([None, 900, 2**70]),
    limit=st.integers(1, 50),
)  # fmt: skip


@given(queries, st.integers(0, 2**40 - 1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_show_every_job_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, query: JobQuery, mask: int
) -> None:
    """Whatever the filters and the page size, the pages together are the jobs that a plain loop would pick."""
    store = Store(tmp_path_factory.mktemp("store"))
    jobs = some_jobs()
    running = [replace(each, state="running", outcome=None) for at, each in enumerate(jobs) if mask >> at & 1]
    store.commit(commit(1, jobs=[each for at, each in enumerate(jobs) if not mask >> at & 1]))
    everything = running + [each for at, each in enumerate(jobs) if not mask >> at & 1]

    found, after = [], None
    while True:
        page = store.jobs(replace(query, after=after), running)
        assert len(page.jobs) <= query.limit
        found += page.jobs
        if page.next is None:
            break
        after = PagePlace.parse(page.next.token)
    store.close()

    expected = sorted(filter(query.admits, everything), key=lambda each: (each.start_ns, each.uid), reverse=True)
    assert found == expected


def test_a_job_that_ends_between_two_pages_is_neither_repeated_nor_skipped(store: Store) -> None:
    """The second page goes on where the first ended although jobs were decided in between."""
    jobs = [job(number) for number in range(6)]
    running = [replace(each, state="running", outcome=None) for each in jobs]
    first = store.jobs(JobQuery(limit=3), running)
    store.commit(commit(1, jobs=jobs[1:4]))

    second = store.jobs(JobQuery(limit=3, after=first.next), running)

    assert [each.key.incarnation for each in first.jobs + second.jobs] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("token", ["", "x", "7-zz", f"{2**63}-{'0' * 32}", "7-" + "0" * 31, "7-" + "0" * 32 + "\n"])
def test_a_page_token_that_is_none_is_an_error_for_people(token: str) -> None:
    """What was not a page's own `next` is refused."""
    with pytest.raises(ConfigError, match="page token"):
        PagePlace.parse(token)


def test_a_decided_job_is_found_by_each_of_its_names(store: Store) -> None:
    """By incarnation, by alias, or as the one that ended last; never where it was settled later than asked for."""
    one = job(1, key=JobKey("c", "t", "again", 100), end_ns=150, settled_ns=160, aliases=(101, 7))
    two = job(2, key=JobKey("c", "t", "again", 200), end_ns=250, settled_ns=260)
    store.commit(commit(1, jobs=[one, two]))

    def found(incarnation: int, before_ns: int = 1000) -> int | None:
        ended = store.ended(JobKey("c", "t", "again", incarnation), before_ns)
        return ended and ended.key.incarnation

    assert [found(number) for number in (100, 101, 7, 200, 0, 10, 2**64)] == [100, 100, 100, 200, 200, None, None]
    assert [found(0, before) for before in (260, 261, 160)] == [100, 200, None]
    assert store.ended(JobKey("c", "other", "again", 100), 1000) is None


def test_retention_forgets_old_jobs_and_ended_journals(store: Store) -> None:
    """Jobs settled before the time go, journals only where they ended; later ones stay."""
    ended = {JOURNAL: Cursor(3, 0, True), "cd" * 16: Cursor(0, 5, False)}
    store.commit(commit(1, cursors=ended, jobs=[job(1), job(2)]))

    assert store.prune(jobs_before_ns=200, journals_before_ns=5000) == 1

    assert [each.key.incarnation for each in store.jobs(JobQuery()).jobs] == [2]
    assert set(store.load().cursors) == {"cd" * 16}
