"""SLOs in the aggregator: counted with the round, exactly once, whatever restarts and reloads come between."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.clock import ManualClock
from mppobs.cost.prices import NodePrice, PriceList
from mppobs.errors import ConfigError
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
    RunKind,
    ShardOutcome,
    WorkerInfo,
)
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.exposition import render
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.store_jobs import JobQuery
from mppobs.sidecar.store_schema import StoreFull
from mppobs.sidecar.view import SloFigures, View
from mppobs.slo.model import Counts
from mppobs.slo.standing import standing, window

SECOND = 10**9
MINUTE = 60 * SECOND
SETTINGS = EngineSettings(DecideSettings(settle_seconds=5, lease_seconds=3600, idle_seconds=3600))
FAILED, SUCCEEDED = JobOutcome.FAILURE, JobOutcome.SUCCESS

SPEC = """
team: risk
defaults: {exclude: [backfill, drill]}
pipelines:
  nightly:
    owner: scoring
    every: 1d
    objectives:
      job-success: 95%
      shard-success: 99.9%
"""


@dataclass
class Rig:
    """A spec, a directory of journals, a clock that is moved by hand, and an engine that comes and goes."""

    directory: Path
    spec: str = SPEC
    prices: PriceList = field(default_factory=PriceList)

    def __post_init__(self) -> None:
        """Begin with an engine, a coordinator and a worker."""
        self.clock = ManualClock()
        self.path = self.directory / "slo.yaml"
        self.path.write_text(self.spec)
        journals = self.directory / "journals"
        self.coordinator = JournalWriter(journals, WorkerInfo("c"), clock=self.clock)
        self.worker = JournalWriter(journals, WorkerInfo("w", node_type="small"), clock=self.clock)
        self.engine = self._open()
        self._jobs = 0

    def _open(self) -> Engine:
        book = SloBook(SloFiles([self.path]), prometheus_days=15)
        journals = self.directory / "journals"
        return open_engine(
            self.directory / "state", [journals], SETTINGS, clock=self.clock, prices=self.prices, slos=book
        )

    def restart(self, *, clean: bool = False) -> None:
        """Begin again with the database: after a stop, or after a kill."""
        if clean:
            self.engine.finish()
            self.engine.close()
        else:
            self.close_engine()
        self.engine = self._open()

    def close_engine(self) -> None:
        """Let the engine go as a kill would."""
        self.engine._own._writer.abandon()
        self.engine.store.close()

    def close(self) -> None:
        """Let everything go."""
        self.close_engine()
        self.worker.close()
        self.coordinator.close()

    def tick(self, seconds: float = 0.6, times: int = 3) -> None:
        """Move the clock, and tick until everything is read."""
        self.clock.advance(seconds)
        for _ in range(times):
            self.engine.tick()

    def rewrite(self, spec: str) -> None:
        """Change the spec as an editor does, and let the engine look."""
        self.path.write_text(spec)
        os.utime(self.path, ns=(self.clock.time_ns(), self.clock.time_ns()))
        self.tick()

    def job(
        self,
        outcome: JobOutcome = SUCCEEDED,
        *,
        kind: RunKind = RunKind.SCHEDULED,
        committed: int = 0,
        failed: int = 0,
        lost: int = 0,
        pipeline: str = "nightly",
        delay_ns: int | None = None,
        duration_ns: int = SECOND,
    ) -> None:
        """Write a coordinated job with shards that end so. What was planned and never came is lost."""
        self._jobs += 1
        context = Context(pipeline, f"job-{self._jobs}", 1, run_kind=kind)
        number = self.coordinator.context_id(context)
        now = self.clock.time_ns()
        self.coordinator.append(JobRecord(JobEvent.START, number, now - 2 * SECOND, coordinated=True))
        stage = Context(pipeline, f"job-{self._jobs}", 1, stage="map", run_kind=kind)
        mine, its = self.coordinator.context_id(stage), self.worker.context_id(stage)
        self.coordinator.append(PlanRecord(mine, now, committed + failed + lost, final=True))
        for shard in range(committed + failed):
            good = shard < committed
            self.coordinator.append(DispatchRecord(mine, shard, 0, now - duration_ns))
            ended = AttemptOutcome.SUCCESS if good else AttemptOutcome.FAILURE
            self.worker.append(AttemptRecord(its, shard, 0, ended, now - duration_ns, duration_ns, delay_ns=delay_ns))
            decided = ShardOutcome.COMMITTED if good else ShardOutcome.FAILED
            self.coordinator.append(CommitRecord(mine, shard, 0, decided, now))
        self.coordinator.append(JobRecord(JobEvent.END, number, now, outcome))

    def settle(self) -> None:
        """Let jobs that ended be judged."""
        for _ in range(3):
            self.tick(2.5)

    def figures(self) -> dict[str, SloFigures]:
        """Return what is shown, by the SLO's name within its team."""
        return {each.slo.name: each for each in self.engine.slos.figures(self.clock.time_ns())}

    def counts(self) -> dict[str, Counts]:
        """Return the counts that are shown."""
        return {name: each.tally.counts for name, each in self.figures().items()}

    def exposed(self, metric: str) -> dict[str, str]:
        """Return the exposed samples of a metric, by their labels."""
        view = View(slos=self.engine.slos.figures(self.clock.time_ns()))
        lines = render(view, self.clock.time_ns(), openmetrics=False).decode().splitlines()
        found = [line.removeprefix(metric).rsplit(" ", 1) for line in lines if line.startswith(metric + "{")]
        return {labels.split('"')[1]: value for labels, value in found}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A rig with two SLOs on the pipeline `nightly`."""
    made = Rig(tmp_path)
    yield made
    made.close()


def test_first_job_ever_that_fails_is_exposed_as_one_bad_event_after_zero(rig: Rig) -> None:
    """The counters stand at 0 from the load of the SLO, before any record; the first failure takes them to 1."""
    bad, total = "mpp_slo_bad_events_total", "mpp_slo_events_total"
    name = "risk/nightly-job-success"
    assert (rig.exposed(bad)[name], rig.exposed(total)[name]) == ("0", "0")
    loaded = rig.exposed("mpp_slo_start_timestamp_seconds")[name]

    rig.tick()
    assert (rig.exposed(bad)[name], rig.exposed("mpp_slo_latched")[name]) == ("0", "0")
    rig.job(FAILED)
    rig.settle()

    assert (rig.exposed(bad)[name], rig.exposed(total)[name]) == ("1", "1")
    assert rig.exposed("mpp_slo_latched") == {name: "1"}, "the other has events enough for a rate, or none expected"
    assert rig.exposed("mpp_slo_start_timestamp_seconds")[name] == loaded
    assert rig.exposed("mpp_slo_budget_left_ratio")[name] == repr(1 / 3), "of one and a half"


def test_shards_count_when_they_are_decided_and_lost_ones_when_the_job_is_judged(rig: Rig) -> None:
    """Five good ones and a failed one at once; the two that never came are lost at settling. Attempts do not count."""
    rig.job(SUCCEEDED, committed=5, failed=1, lost=2)
    rig.tick(times=1)
    assert rig.counts()["nightly-shard-success"] == Counts(6, 1)

    rig.settle()

    assert rig.counts() == {"nightly-job-success": Counts(1, 0), "nightly-shard-success": Counts(8, 3)}


@pytest.mark.parametrize("kind", list(RunKind))
def test_excluded_kinds_of_run_do_not_count_and_lose_nothing(kind: RunKind, rig: Rig) -> None:
    """A backfill that fails is no event of these SLOs; every figure of the pipeline has it all the same."""
    rig.job(FAILED, kind=kind, committed=1, failed=1, lost=1)
    rig.settle()

    excluded = kind in (RunKind.BACKFILL, RunKind.DRILL)
    jobs, shards = (Counts(0, 0), Counts(0, 0)) if excluded else (Counts(1, 1), Counts(3, 2))
    assert rig.counts() == {"nightly-job-success": jobs, "nightly-shard-success": shards}
    (totals,) = rig.engine.store.totals().pipelines.values()
    assert totals.jobs[FAILED] == 1
    assert [job.run_kind for job in rig.engine.jobs(JobQuery()).jobs] == [kind]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("job"),
            st.sampled_from([SUCCEEDED, FAILED, JobOutcome.ERROR, JobOutcome.CANCELLED]),
            st.sampled_from([RunKind.SCHEDULED, RunKind.BACKFILL, RunKind.DRILL]),
            st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)),
        ),
        st.sampled_from([("tick",), ("wait",), ("kill",), ("stop",), ("checkpoint",), ("full",)]),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(ACTIONS)
def test_counts_are_exact_through_kills_stops_and_full_disks(actions: list[tuple[object, ...]]) -> None:
    """After any mixture of work and restarts each SLO has exactly the events of a recount by the list of jobs."""
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory))
        written: Counter[str] = Counter()
        try:
            for action in actions:
                _act(rig, action, written)
            rig.settle()
            assert rig.counts() == {
                "nightly-job-success": Counts(written["jobs"], written["bad jobs"]),
                "nightly-shard-success": Counts(written["shards"], written["bad shards"]),
            }
            before = rig.figures()
            rig.restart()
            after = rig.figures()
            for name, each in before.items():
                assert list(after[name].tally.history) == list(each.tally.history)
                assert after[name].tally.counts == each.tally.counts
                assert after[name].tally.start_ns == each.tally.start_ns
                assert after[name].latched == each.latched
                assert standing(each.slo, after[name].tally, 2**61) == standing(each.slo, each.tally, 2**61)
        finally:
            rig.close()


def _act(rig: Rig, action: tuple[object, ...], written: Counter[str]) -> None:
    match action:
        case ("job", JobOutcome() as outcome, RunKind() as kind, (int() as good, int() as failed, int() as lost)):
            rig.job(outcome, kind=kind, committed=good, failed=failed, lost=lost)
            if kind is RunKind.SCHEDULED:
                written["jobs"] += outcome is not JobOutcome.CANCELLED
                written["bad jobs"] += outcome in (FAILED, JobOutcome.ERROR)
                written["shards"] += good + failed + lost
                written["bad shards"] += failed + lost
        case ("kill",):
            rig.restart()
        case ("stop",):
            rig.restart(clean=True)
        case ("checkpoint",):
            rig.engine.checkpoint()
        case ("full",):
            _fill(rig)
        case ("wait",):
            rig.tick(6)
        case _:
            rig.tick()


def _fill(rig: Rig) -> None:
    """Let one commit find no room, then make room again."""
    store = rig.engine.store
    commit = store.commit

    def refuse(_commit: object) -> None:
        raise StoreFull("no space left on device")

    store.commit = refuse  # type: ignore[method-assign,assignment]
    rig.tick(times=1)
    store.commit = commit  # type: ignore[method-assign]
    rig.tick(12)


def test_a_changed_objective_keeps_its_history_without_a_restart(rig: Rig) -> None:
    """The file is taken up when it changes: counts go on, the objective is the new one, the change is marked."""
    rig.job(FAILED)
    rig.settle()
    start = rig.figures()["nightly-job-success"].tally.start_ns

    rig.rewrite(SPEC.replace("95%", "90%"))

    found = rig.figures()["nightly-job-success"]
    assert (found.tally.counts, found.tally.start_ns, found.tally.revision) == (Counts(1, 1), start, 1)
    assert str(found.slo.objective) == "9/10"
    assert [(str(mark.before), str(mark.after)) for mark in found.tally.marks] == [("19/20", "9/10")]
    rig.restart()
    assert rig.figures()["nightly-job-success"].tally.marks == found.tally.marks


def test_a_changed_definition_counts_anew_and_stays_so_after_a_restart(rig: Rig) -> None:
    """Other events are another revision, from 0 and from now; the SLO beside it is not touched."""
    rig.job(FAILED, committed=1)
    rig.settle()
    rig.rewrite(SPEC.replace("job-success: 95%", "job-success: {objective: 95%, exclude: [drill]}"))

    for _ in range(2):
        assert rig.counts() == {"nightly-job-success": Counts(0, 0), "nightly-shard-success": Counts(1, 0)}
        tally = rig.figures()["nightly-job-success"].tally
        assert (tally.revision, len(tally.history)) == (2, 0)
        assert tally.start_ns > rig.figures()["nightly-shard-success"].tally.start_ns
        rig.restart()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("team: risk\npipelines: {nightly: {objectives: {job-sucess: 95%}}}", "job-success"),
        ("{", "slo.yaml"),
        ("team: risk\npipelines: {}", "no objectives"),
    ],
)
def test_a_file_that_does_not_parse_leaves_the_slos_as_they_are(text: str, message: str, rig: Rig) -> None:
    """What was promised goes on being counted; the refusal is counted and said; a good file ends it."""
    rig.rewrite(text)
    files = rig.engine.slos.files
    rig.job(FAILED)
    rig.settle()

    assert (files.errors, "refused" in files.status, message in files.problem) == (1, True, True)
    assert rig.counts()["nightly-job-success"] == Counts(1, 1)

    rig.rewrite(SPEC)
    assert (files.errors, files.problem, files.status) == (1, "", "2 SLOs")


def test_a_file_that_is_gone_and_comes_back_changes_nothing(rig: Rig) -> None:
    """An editor that replaces a file may be caught in the act."""
    rig.path.unlink()
    rig.tick()
    assert rig.engine.slos.files.errors == 1
    assert len(rig.figures()) == 2

    rig.rewrite(SPEC)
    rig.job(FAILED)
    rig.settle()
    assert rig.counts()["nightly-job-success"] == Counts(1, 1)


def test_names_are_unique_over_files_and_their_number_is_capped(tmp_path: Path) -> None:
    """Two files with one name, too many SLOs, and a first load that does not parse are errors that say where."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(SPEC)
    two.write_text(SPEC)

    with pytest.raises(ConfigError, match=r"two\.yaml.*'risk/nightly-job-success' is in .*one\.yaml too"):
        SloFiles([one, two])
    with pytest.raises(ConfigError, match="2 SLOs are more than the 1"):
        SloFiles([one], most=1)
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        SloFiles([tmp_path / "missing.yaml"])


def test_an_slo_that_finds_no_room_is_not_shown_before_it_is_durable(rig: Rig) -> None:
    """A start time that a restart could change is not exposed; with room it is there at the next look."""
    more = SPEC + "      coverage: {objective: 99%, at-least: 1}\n"
    store = rig.engine.store
    commit = store.commit_slos

    def refuse(_rows: object) -> None:
        raise StoreFull("no space left on device")

    store.commit_slos = refuse  # type: ignore[method-assign,assignment]
    rig.rewrite(more)
    assert len(rig.figures()) == 2

    store.commit_slos = commit  # type: ignore[method-assign]
    rig.job(SUCCEEDED, committed=1)
    rig.tick(20)
    rig.settle()
    assert rig.counts()["nightly-coverage"] == Counts(1, 0)


MINUTES = """
team: risk
pipelines:
  nightly:
    objectives:
      freshness: {objective: 99%, at-most: 2m}
      scheduler-latency: {objective: 99%, at-most: 1s}
      spend: {usd-per-period: 1000}
"""


def minute_rig(directory: Path) -> Rig:
    """A rig with SLOs on minutes, at the beginning of one."""
    made = Rig(directory, MINUTES, PriceList(node_types={"small": NodePrice(36.0, 36.0)}))
    made.clock.advance((-made.clock.time_ns() % MINUTE) / SECOND)
    made.restart()
    return made


def test_minutes_are_judged_once_each_also_through_a_restart(tmp_path: Path) -> None:
    """Fresh up to two minutes after the success, late starts only where any start, a cent for a cent."""
    rig = minute_rig(tmp_path)
    try:
        rig.job(SUCCEEDED, committed=2, delay_ns=3 * SECOND, duration_ns=SECOND)
        rig.settle()
        rig.restart()
        seen = []
        for _ in range(4):
            rig.tick(60)
            rig.restart()
            seen.append((rig.counts()["nightly-freshness"], rig.counts()["nightly-scheduler-latency"]))

        assert [fresh for fresh, _ in seen] == [Counts(1, 0), Counts(2, 0), Counts(3, 0), Counts(4, 1)]
        assert {latency for _, latency in seen} == {Counts(1, 1)}
        spent = sum(next(iter(rig.engine.fold.pipelines.values())).cost_pusd.values())
        assert rig.counts()["nightly-spend"].bad == spent // 10**10 == 2
    finally:
        rig.close()


def test_minutes_in_which_nobody_looked_are_no_events_but_money_has_its_share(tmp_path: Path) -> None:
    """After an hour of silence of the aggregator freshness has one event, and the budget of the hour is all there."""
    rig = minute_rig(tmp_path)
    try:
        rig.job(SUCCEEDED, committed=1)
        rig.settle()
        rig.tick(60)
        before = rig.counts()
        rig.close_engine()
        rig.clock.advance(3600)
        rig.engine = rig._open()
        rig.tick()
        after = rig.counts()

        assert after["nightly-freshness"].total - before["nightly-freshness"].total == 1
        share = 2_000_000 * 60 // (30 * 1440)
        assert after["nightly-spend"].total - before["nightly-spend"].total in (share, share + 1)
    finally:
        rig.close()


def test_freshness_of_an_slo_that_is_new_begins_with_what_the_store_knows(tmp_path: Path) -> None:
    """A pipeline that succeeded before the SLO was written is not unknown to it."""
    rig = Rig(tmp_path)
    try:
        rig.job(SUCCEEDED, committed=1)
        rig.settle()
        rig.rewrite(MINUTES)
        rig.tick(61)

        assert rig.counts()["nightly-freshness"] == Counts(1, 0)
    finally:
        rig.close()


def test_windows_beyond_what_prometheus_keeps_are_exposed(rig: Rig) -> None:
    """A period of thirty days is longer than the fifteen that Prometheus keeps: its events come from the aggregator."""
    rig.job(FAILED)
    rig.settle()
    found = rig.figures()["nightly-job-success"]

    assert found.windows == {"30d": Counts(1, 1)}
    assert window(found.tally, rig.clock.time_ns(), 300) == Counts(1, 1)


def test_histories_are_thinned_in_memory_and_in_the_store_alike(rig: Rig) -> None:
    """Days later the steps of an hour are one, and a restart finds what memory has."""
    for _ in range(3):
        rig.job(FAILED)
        rig.settle()
        rig.tick(300)
    rig.tick(5 * 86_400)
    before = len(rig.figures()["nightly-job-success"].tally.history)
    for _ in range(60):
        rig.tick(60, times=1)
    after = list(rig.figures()["nightly-job-success"].tally.history)

    assert before == 3
    assert len(after) < 3
    assert after[-1].total == 3
    rig.restart()
    assert list(rig.figures()["nightly-job-success"].tally.history) == after


def test_the_worst_checkpoint_of_a_running_job_is_judged_each_minute(tmp_path: Path) -> None:
    """No event while nothing checkpoints; good while the last checkpoint is young, bad once it is old."""
    spec = "team: t\npipelines: {nightly: {objectives: {checkpoint-lag: {objective: 99%, at-most: 90s}}}}"
    rig = Rig(tmp_path, spec)
    try:
        rig.tick(61)
        assert rig.counts()["nightly-checkpoint-lag"] == Counts(0, 0)
        number = rig.coordinator.context_id(Context("nightly", "long", 1))
        now = rig.clock.time_ns()
        rig.coordinator.append(JobRecord(JobEvent.START, number, now, coordinated=True))
        rig.coordinator.append(JobRecord(JobEvent.CHECKPOINT, number, now))
        seen = []
        for _ in range(3):
            rig.tick(58)
            rig.tick(2)
            seen.append(rig.counts()["nightly-checkpoint-lag"])

        assert seen == [Counts(1, 0), Counts(2, 1), Counts(3, 2)]
    finally:
        rig.close()
