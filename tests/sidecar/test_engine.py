"""The engine: what is shown is committed, and a stop or a kill at any instant changes no number."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from mppobs.clock import ManualClock
from mppobs.journal.writer import JournalWriter
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    DispatchRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    ShardOutcome,
    WorkerInfo,
)
from mppobs.sidecar.aggregates import PipelineKey, StageKey
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.reading import ShardQuery
from mppobs.sidecar.running import DecidedJob
from mppobs.sidecar.store_jobs import JobQuery
from mppobs.sidecar.store_schema import StoreFull
from mppobs.sidecar.store_totals import totals_row

PIPELINE = PipelineKey("default", "default", "nightly")
STAGE = StageKey(*PIPELINE, "map")
SETTINGS = EngineSettings(DecideSettings(settle_seconds=5, lease_seconds=60, idle_seconds=10))


class Rig:
    """A directory of journals, a clock that is moved by hand, and engines that come and go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "journals"
        self.state = directory / "state"
        self.clock = ManualClock()
        self.workers: list[JournalWriter] = []
        self.engines: list[Engine] = []
        self.always_listened = False

    def worker(self) -> JournalWriter:
        """Return the journal of one more worker."""
        self.workers.append(JournalWriter(self.directory, WorkerInfo(f"w{len(self.workers)}"), clock=self.clock))
        return self.workers[-1]

    def engine(self, settings: EngineSettings = SETTINGS, state: str = "", **given: Any) -> Engine:
        """Return an engine in the state that was left behind."""
        state_directory = self.state / state if state else self.state
        made = open_engine(state_directory, [self.directory], settings, clock=self.clock, **given)
        if self.always_listened:
            made._up_since_ns = 0  # a restart gives coordinators a new lease, and that is meant to show
        self.engines.append(made)
        return made

    def kill(self, engine: Engine) -> None:
        """Let an engine go as a kill would: its locks are free, and nothing more is written."""
        engine._own._writer.abandon()
        engine.store.close()
        self.engines.remove(engine)

    def tick(self, engine: Engine, seconds: float = 0.6) -> None:
        """Move the clock, and tick until everything is read."""
        self.clock.advance(seconds)
        for _ in range(3):
            engine.tick()

    def close(self) -> None:
        """Let everything go."""
        for engine in [*self.engines]:
            self.kill(engine)
        for worker in self.workers:
            worker.close()

    def start(self, writer: JournalWriter, job: str, *, coordinated: bool = True) -> None:
        """Write the start of a job."""
        number = writer.context_id(Context("nightly", job, incarnation=1))
        writer.append(JobRecord(JobEvent.START, number, self.clock.time_ns(), coordinated=coordinated))

    def end(self, writer: JournalWriter, job: str) -> None:
        """Write the successful end of a job."""
        number = writer.context_id(Context("nightly", job, incarnation=1))
        writer.append(JobRecord(JobEvent.END, number, self.clock.time_ns(), JobOutcome.SUCCESS))

    def attempt(
        self, writer: JournalWriter, job: str, shard: int | str, attempt: int = 0, incarnation: int = 1
    ) -> None:
        """Write a successful attempt of two seconds that ends now."""
        number = writer.context_id(Context("nightly", job, incarnation, stage="map"))
        key = writer.name_shard(shard)
        began = self.clock.time_ns() - 2_000_000_000
        success = AttemptOutcome.SUCCESS
        writer.append(AttemptRecord(number, key, attempt, success, began, 2_000_000_000, cpu_ns=1_000_000_000))

    def whole_shard(self, coordinator: JournalWriter, worker: JournalWriter, job: str, shard: int) -> None:
        """Write all that a coordinated shard leaves behind."""
        number = coordinator.context_id(Context("nightly", job, 1, stage="map"))
        now = self.clock.time_ns()
        coordinator.append(DispatchRecord(number, shard, 0, now - 2_000_000_000))
        self.attempt(worker, job, shard)
        coordinator.append(CommitRecord(number, shard, 0, ShardOutcome.COMMITTED, now))

    def plan(self, writer: JournalWriter, job: str, shards: int) -> None:
        """Write the whole plan of a stage."""
        number = writer.context_id(Context("nightly", job, 1, stage="map"))
        writer.append(PlanRecord(number, self.clock.time_ns(), shards, final=True))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """An empty rig, closed afterwards."""
    made = Rig(tmp_path)
    yield made
    made.close()


DATA = ("attempt", "dispatch", "commit", "job", "plan")


def state_of(engine: Engine) -> dict[str, object]:
    """Return everything that must not depend on restarts: all but the account of the aggregator's own journals."""
    totals = engine.store.totals()
    running = engine.fold.dump_running()
    shared = json.loads(running.pop("shared"))
    own = {path.name.split(".")[0] for path in (engine.store.path.parent / "own").iterdir()}
    shared["journals"] = {name: state for name, state in shared["journals"].items() if name not in own}
    return {
        "pipelines": totals.pipelines,
        "stages": {key: (stage, stage.sketch.to_bytes()) for key, stage in totals.stages.items()},
        "clusters": totals.clusters,
        "own": {kind: totals.own.records.get(kind) for kind in DATA},
        "late": totals.own.late,
        "shown": [
            totals_row(each)
            for shown in (engine.fold.pipelines, engine.fold.stages, engine.fold.clusters)
            for each in shown.values()
        ],
        "running": running,
        "shared": shared,
        "jobs": engine.jobs(JobQuery()).jobs,
    }


def shown_by(engine: Engine) -> dict[str, object]:
    """Return what people see, which does not depend on the order in which the journals of a round were read."""
    jobs = engine.jobs(JobQuery()).jobs
    state = state_of(engine)
    rows = {job.uid: engine.shards(job.key, ShardQuery(limit=1000)) for job in jobs}
    return {"jobs": jobs, "rows": rows} | {name: state[name] for name in ("pipelines", "stages", "own", "late")}


def test_a_job_is_counted_judged_listed_and_archived(rig: Rig) -> None:
    """From journals to totals, a judged job with its shards, and a hook that hears of it after the commit."""
    heard: list[tuple[DecidedJob, int]] = []
    engine = rig.engine(hooks=[lambda jobs: heard.extend((job, engine.store.load().round) for job in jobs)])
    coordinator, worker = rig.worker(), rig.worker()
    rig.start(coordinator, "job-1")
    rig.plan(coordinator, "job-1", 3)
    for shard in range(3):
        rig.whole_shard(coordinator, worker, "job-1", shard)
    rig.tick(engine)
    assert [job.state for job in engine.jobs(JobQuery()).jobs] == ["running"]
    key = engine.jobs(JobQuery()).jobs[0].key
    assert [row.shard for row in engine.shards(key, ShardQuery())] == [0, 1, 2]

    rig.end(coordinator, "job-1")
    rig.tick(engine)
    rig.tick(engine)

    totals = engine.store.totals()
    assert totals.stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 3
    assert totals.stages[STAGE].shards[ShardOutcome.COMMITTED] == 3
    assert totals.pipelines[PIPELINE].jobs[JobOutcome.SUCCESS] == 1
    (listed,) = engine.jobs(JobQuery()).jobs
    assert (listed.state, listed.outcome, listed.planned) == ("settled", JobOutcome.SUCCESS, 3)
    assert engine.runs("job-1") == [listed]
    assert [row.duration_ns for row in engine.shards(key, ShardQuery())] == [2_000_000_000] * 3
    assert [(job.key, number) for job, number in heard] == [(key, engine.store.load().round)]
    assert engine.figures.archived_shards == 3
    assert engine.health.ok


def test_a_job_that_nobody_ends_is_judged_when_it_is_quiet(rig: Rig) -> None:
    """The aggregator's own decision is a record in its own journal, folded like any other."""
    engine = rig.engine()
    rig.attempt(rig.worker(), "loose", "a", incarnation=0)
    rig.tick(engine)
    rig.tick(engine, 9)
    assert engine.jobs(JobQuery()).jobs[0].state == "running"

    rig.tick(engine, 2)
    rig.tick(engine, 6)
    rig.tick(engine)

    (job,) = engine.jobs(JobQuery()).jobs
    assert (job.state, job.outcome, job.reason) == ("settled", JobOutcome.SUCCESS, Reason.IDLE)
    assert engine.store.totals().own.records["job"] == 2


def test_decisions_are_written_once(rig: Rig) -> None:
    """Until a decision comes back through the journal it is not repeated, however often the engine looks."""
    engine = rig.engine()
    rig.attempt(rig.worker(), "loose", 1, incarnation=0)
    rig.tick(engine)
    appended: list[object] = []
    engine._own._writer.append = appended.append  # type: ignore[method-assign,assignment]

    for _ in range(5):
        rig.tick(engine, 1)
    rig.tick(engine, 6)
    assert len(appended) == 1
    rig.tick(engine, 10)
    assert len(appended) == 2


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("shard"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("loose"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("named"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("end"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("tick"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("checkpoint"), st.just(0), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
        st.tuples(st.just("stop"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def act(rig: Rig, writers: Sequence[JournalWriter], action: tuple[str, int, int]) -> None:
    """Write what an action says into the workers' journals."""
    kind, job, shard = action
    match kind:
        case "shard":
            rig.whole_shard(writers[0], writers[1], f"job-{job}", shard)
        case "loose":
            rig.attempt(writers[1 + shard % 2], f"loose-{job}", shard, attempt=shard % 3, incarnation=0)
        case "named":
            rig.attempt(writers[1 + shard % 2], f"job-{job}", f"part-{shard}")
        case "end":
            rig.end(writers[0], f"job-{job}")
        case _:
            return


@given(ACTIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_restarts_change_nothing(tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, int]]) -> None:
    """
    An engine that is killed or stopped is, once started again, what it was, and shows what one shows that never was.

    Both follow the same journals and tick at the same times; the steady one never writes a checkpoint.
    """
    rig = Rig(tmp_path_factory.mktemp("rig"))
    rig.always_listened = True
    note(repr(actions))
    steady = rig.engine(state="steady", settings=EngineSettings(SETTINGS.decide, checkpoint_seconds=1e9))
    engine = rig.engine(state="restarted")
    writers = [rig.worker() for _ in range(3)]
    for job in range(3):
        rig.start(writers[0], f"job-{job}")
    for action in [*actions, ("wait", 3, 0)]:
        act(rig, writers, action)
        if action[0] in ("tick", "wait", "stop"):
            rig.clock.advance(action[1] * 6.0 if action[0] == "wait" else 0.6)
            for _ in range(3):
                steady.tick()
                engine.tick()
        if action[0] == "checkpoint":
            engine.checkpoint()
        if action[0] == "stop":
            engine.finish()
        if action[0] in ("restart", "stop"):
            left = state_of(engine)
            rig.kill(engine)
            engine = rig.engine(state="restarted")
            assert state_of(engine) == left
    one, other = shown_by(steady), shown_by(engine)
    rig.close()
    assert one == other


class Killed(BaseException):
    """Stands for the end of the process at that instant."""


POINTS = ("fold.round", "archive.write", "store.commit", "store.checkpoint", "_own.say", "_follower.release")


def kill_at(engine: Engine, point: str, nth: int, *, after: bool) -> None:
    """Make the engine's process end at the nth call of one of its parts, before the call or after it."""
    owner: Any = engine
    *path, name = point.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), [0]

    def call(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth and not after:
            raise Killed
        result = real(*given)
        if calls[0] == nth:
            raise Killed
        return result

    setattr(owner, name, call)


def a_life(rig: Rig, engine: Engine, *, kill: tuple[str, int, bool] | None) -> Engine:
    """Run one scripted history; where the engine is killed, start it again and go on. Return the last engine."""
    coordinator, worker = rig.worker(), rig.worker()
    if kill is not None:
        kill_at(engine, kill[0], kill[1], after=kill[2])
    for step in range(16):
        if step == 0:
            rig.start(coordinator, "job-1")
        if step < 6:
            rig.whole_shard(coordinator, worker, "job-1", step)
            rig.attempt(worker, "loose", step, incarnation=0)
        if step == 6:
            rig.end(coordinator, "job-1")
        rig.clock.advance(2.1)
        for _ in range(3):
            try:
                engine.tick()
                if step % 4 == 3:
                    engine.checkpoint()
            except Killed:
                rig.kill(engine)
                engine = rig.engine()
    return engine


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("nth", [1, 4])
def test_a_kill_at_any_step_of_a_round_loses_and_doubles_nothing(
    tmp_path: Path, point: str, nth: int, after: bool
) -> None:
    """Killed before or after any call that leaves a trace, the next engine arrives at the same totals and jobs."""
    expected = {
        "attempts": 12, "committed": 12, "jobs": {JobOutcome.SUCCESS: 2}, "archived": 12,
    }  # fmt: skip
    rig = Rig(tmp_path)
    engine = a_life(rig, rig.engine(), kill=(point, nth, after))

    totals = engine.store.totals()
    stage = totals.stages[STAGE]
    found = {
        "attempts": stage.attempts[AttemptOutcome.SUCCESS],
        "committed": stage.shards[ShardOutcome.COMMITTED],
        "jobs": {outcome: count for outcome, count in totals.pipelines[PIPELINE].jobs.items() if count},
        "archived": sum(len(engine.shards(job.key, ShardQuery())) for job in engine.jobs(JobQuery()).jobs),
    }
    rig.close()
    assert found == expected


def fill(engine: Engine) -> None:
    """Let the database grow no further."""
    pages = engine.store._writer.execute("PRAGMA page_count").fetchone()[0]
    engine.store._writer.execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_stops_counting_and_loses_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room nothing is shown that is not committed, health says so, and with room every record counts once."""
    engine = rig.engine()
    worker = rig.worker()
    rig.attempt(worker, "loose", 0)
    rig.tick(engine)
    before = state_of(engine)
    full = [True]
    commit, probe = engine.store.commit, engine.store.probe

    def no_room(real: Any) -> Any:
        def call(*given: Any) -> Any:
            if full[0]:
                raise StoreFull("no space left")
            return real(*given)

        return call

    monkeypatch.setattr(engine.store, "commit", no_room(commit))
    monkeypatch.setattr(engine.store, "probe", no_room(probe))
    for shard in range(1, 5):
        rig.attempt(worker, "loose", shard)
        rig.tick(engine)
        assert not engine.health.ok
        assert "no room" in engine.health.message
        assert state_of(engine) == before
    full[0] = False
    rig.tick(engine)

    assert engine.health.ok
    assert engine.store.totals().stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 5
    assert engine.figures.refused == 1


def test_an_archive_without_room_undoes_the_round(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose shards cannot be archived is not judged until they can be."""
    engine = rig.engine()
    rig.attempt(rig.worker(), "loose", 0, incarnation=0)
    rig.tick(engine)
    write = engine.archive.write

    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.archive, "write", no_room)
    for _ in range(6):
        rig.tick(engine, 5)
    assert not engine.health.ok
    assert engine.store.totals().pipelines[PIPELINE].jobs[JobOutcome.SUCCESS] == 0
    monkeypatch.setattr(engine.archive, "write", write)
    rig.tick(engine)

    assert engine.health.ok
    assert engine.store.totals().pipelines[PIPELINE].jobs[JobOutcome.SUCCESS] == 1


def test_a_failed_round_is_undone_and_the_service_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is shown in health and ends neither the thread nor the count."""
    engine = rig.engine(EngineSettings(SETTINGS.decide, busy_seconds=0.001, idle_seconds=0.001))
    rig.attempt(rig.worker(), "loose", 0)
    made = engine._make_fold
    failures = [3]

    def failing() -> Any:
        fold = made()
        real = fold.round

        def fold_round(blocks: Any, now_ns: int) -> None:
            if failures[0] > 0 and blocks:
                failures[0] -= 1
                raise RuntimeError("unforeseen")
            real(blocks, now_ns)

        fold.round = fold_round
        return fold

    engine._make_fold = failing
    engine.recover()
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    for _ in range(2000):
        if engine.figures.commits:
            break
        threading.Event().wait(0.005)
    stop.set()
    thread.join(30)

    assert engine.figures.refused == 3
    assert engine.health.ok
    assert engine.store.totals().stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 1


def test_one_journal_that_rounds_fail_on_holds_up_no_other(rig: Rig) -> None:
    """Rounds narrow until one journal is to blame; it is left alone, loses nothing, and is read on later."""
    engine = rig.engine(EngineSettings(DecideSettings(idle_seconds=10_000)))
    writers = [rig.worker() for _ in range(3)]
    for shard in range(30):
        rig.attempt(writers[shard % 3], "loose", shard)
    broken, poison = [True], writers[1].journal
    made = engine._make_fold

    def failing() -> Any:
        fold = made()
        real = fold.round

        def fold_round(blocks: Any, now_ns: int) -> None:
            if broken[0] and any(block.journal == poison for block in blocks):
                raise RuntimeError("unforeseen")
            real(blocks, now_ns)

        fold.round = fold_round
        return fold

    engine._make_fold = failing
    engine.recover()
    for _ in range(40):
        rig.clock.advance(0.6)
        try:
            engine.tick()
        except RuntimeError as error:
            engine._undo(str(error))
    assert engine.store.totals().stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 20
    assert engine.health.ok
    assert poison in engine.health.message
    assert engine.figures.quarantined == 1

    broken[0] = False
    rig.tick(engine, 700)
    assert engine.store.totals().stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 30


def test_shards_that_cannot_be_archived_do_not_hold_up_their_job(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a shard table other than room is counted; the job is judged."""
    engine = rig.engine()
    rig.attempt(rig.worker(), "loose", 0, incarnation=0)

    def broken(*_: object) -> int:
        raise ValueError("not for Parquet")

    monkeypatch.setattr(engine.archive, "write", broken)
    for _ in range(8):
        rig.tick(engine, 5)

    assert engine.figures.unarchived == 1
    assert engine.jobs(JobQuery()).jobs[0].state == "settled"


def test_journals_that_are_gone_at_a_restart_are_said(rig: Rig) -> None:
    """Totals stay, and health says how many records of running jobs could not be read again."""
    engine = rig.engine()
    worker = rig.worker()
    for shard in range(4):
        rig.attempt(worker, "loose", shard)
    rig.tick(engine)
    rig.kill(engine)
    for path in rig.directory.glob("*.segment"):
        path.unlink()

    engine = rig.engine()

    assert engine.figures.unreadable > 4
    assert "gone" in engine.health.message
    assert engine.fold.stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 4


def segments(rig: Rig) -> set[int]:
    """Return the indexes of the workers' segments that are there."""
    return {int(path.name.split(".")[1]) for path in rig.directory.glob("*.segment")}


def test_segments_are_deleted_after_the_checkpoint_that_replaces_them(rig: Rig) -> None:
    """What a replay would need stays; what a checkpoint holds goes, and the next start still knows all of it."""
    engine = rig.engine()
    worker = rig.worker()
    for shard in range(2000):
        rig.attempt(worker, "loose", f"shard-{shard}")
    rig.tick(engine)
    before = segments(rig)
    assert len(before) > 1

    engine.checkpoint()
    assert segments(rig) == {max(before)}
    rig.kill(engine)
    engine = rig.engine()

    assert engine.figures.unreadable == 0
    assert len(engine.fold.running) == 1
    worker.close()
    rig.tick(engine)
    engine.checkpoint()
    assert not list(rig.directory.iterdir())
    assert engine.store.totals().stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 2000


def test_a_stop_reads_what_is_there_and_leaves_nothing_to_replay(rig: Rig) -> None:
    """After `run` returns everything written before the stop is counted and the last round is in the checkpoint."""
    engine = rig.engine()
    worker = rig.worker()
    stop = threading.Event()
    rig.attempt(worker, "loose", 0)
    stop.set()
    engine.run(stop)
    engine.close()
    rig.engines.remove(engine)

    engine = rig.engine()
    loaded = engine.store.load()

    assert loaded.rounds == []
    assert loaded.checkpoint is not None
    assert len(engine.fold.running) == 1
    assert engine.fold.stages[STAGE].attempts[AttemptOutcome.SUCCESS] == 1


def test_a_failing_hook_is_counted_and_the_jobs_stay(rig: Rig) -> None:
    """What a hook does wrong is its own affair."""

    def broken(_: object) -> None:
        raise RuntimeError("no backend")

    engine = rig.engine(hooks=[broken])
    rig.attempt(rig.worker(), "loose", 0, incarnation=0)
    for _ in range(8):
        rig.tick(engine, 5)

    assert engine.figures.failed_hooks == 1
    assert engine.jobs(JobQuery()).jobs[0].state == "settled"


def test_retention_lets_old_jobs_go(rig: Rig) -> None:
    """Jobs and archived shards older than the retention are gone after the next look; totals stay."""
    engine = rig.engine()
    rig.attempt(rig.worker(), "loose", 0, incarnation=0)
    for _ in range(8):
        rig.tick(engine, 5)
    (job,) = engine.jobs(JobQuery()).jobs
    rig.tick(engine, 31 * 86400)

    assert engine.jobs(JobQuery()).jobs == []
    assert engine.archive.shards(job, ShardQuery()) == []
    assert engine.store.totals().pipelines[PIPELINE].jobs[JobOutcome.SUCCESS] == 1


def test_lag_grows_while_nothing_can_be_read_to_its_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag is the time since everything that was there had been committed."""
    engine = rig.engine()
    rig.tick(engine)
    assert engine.lag_seconds() == 0
    rig.attempt(rig.worker(), "loose", 0)

    def full(_: object) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr(engine.store, "commit", full)
    monkeypatch.setattr(engine.store, "probe", lambda: full(None))
    rig.tick(engine, 7)
    rig.tick(engine, 5)

    assert engine.lag_seconds() == 12
