"""What runs now: from jobs, tables and slots made by hand to gauges, runs, stragglers and workers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mppobs.catalog.foresight import Weight
from mppobs.model import (
    Context,
    DispatchRecord,
    HeartbeatRecord,
    JobKey,
    JobOutcome,
    SampleRecord,
    ShardOutcome,
    Slot,
    StragglerCause,
    Tier,
    WorkerInfo,
)
from mppobs.sidecar.aggregates import PipelineKey, StageKey
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.live import LiveSettings, RecentRuns, live_view, stage_profile
from mppobs.sidecar.running import JobStage, RunningJob
from mppobs.sidecar.tables import COMMITTED, FAILED
from mppobs.sidecar.view import Foreseen, Live, LiveRun
from mppobs.slo.foresight import Outlook
from mppobs.trace_ids import trace_id
from tests.sidecar.journals import NOW, SECOND, fold_all, new_fold
from tests.sidecar.scenario import BEGAN, Scenario

KEY = PipelineKey("default", "default", "nightly")


def job(job_id: str = "job-1", *, start: int = NOW - 100 * SECOND, planned: int = 0, done: int = 0) -> RunningJob:
    """A running job with one stage, of which the first `done` shards took 10 s each."""
    context = Context("nightly", job_id, start, owner="data", tier=Tier.CRITICAL)
    running = RunningJob(context.job_key, context, KEY, start_ns=start, implicit=False)
    stage = running.stages["map"] = JobStage("map", StageKey(*KEY, "map"), planned=planned)
    rows, _ = stage.table.rows(np.arange(done, dtype=np.uint64))
    stage.table.state[rows] = COMMITTED
    stage.table.attempts[rows] = 1
    stage.table.first_start[rows] = start
    stage.table.decided[rows] = start + 10 * SECOND
    stage.table.wall[rows] = 10 * SECOND
    stage.table.input[rows] = 1000
    stage.shards[ShardOutcome.COMMITTED] = done
    stage.first_start_ns = start if done else 0
    return running


def attempt_slot(shard: int, *, started: int = NOW - SECOND, progress: float | None = None, at: int = 0) -> Slot:
    """A slot of an attempt; its context has number 1."""
    return Slot(shard, 1, started, False, shard, 0, False, progress, at)


class World:
    """A fold made by hand: running jobs, and journals with slots."""

    def __init__(self, *jobs: RunningJob) -> None:
        self.running = {each.key: each for each in jobs}
        self.contexts: dict[str, Context] = {}
        self.infos: dict[str, WorkerInfo] = {}
        self.samples: dict[str, SampleRecord] = {}
        self.live: list[LiveJournal] = []

    def resolve(self, journal: str, context_id: int) -> Context | None:
        """Every journal has one context, number 1."""
        return self.contexts.get(journal) if context_id == 1 else None

    def sample(self, journal: str) -> tuple[SampleRecord, Context | None] | None:
        """The newest sample, taken in the journal's context."""
        return (self.samples[journal], self.contexts[journal]) if journal in self.samples else None

    def cluster(self, journal: str) -> str | None:
        """The cluster of the journal's context."""
        return self.contexts[journal].cluster if journal in self.contexts else None

    def job_of(self, context: Context) -> RunningJob | None:
        """The job of the context's key."""
        return self.running.get(context.job_key)

    def pipeline_of(self, context: Context) -> PipelineKey:
        """Its own labels."""
        return PipelineKey(context.cluster, context.tenant, context.pipeline)

    def worker(self, journal: str) -> WorkerInfo | None:
        """The process of a journal."""
        return self.infos.get(journal)

    def add(
        self, of: RunningJob, *slots: Slot, alive: bool = True, node: str = "", memory: tuple[int, int] | None = None,
        dedicated: bool = False, stage: str = "map",
    ) -> None:  # fmt: skip
        """Add a process with slots; `memory` is its peak and its limit."""
        name = f"journal-{len(self.live)}"
        self.contexts[name] = Context("nightly", of.key.job_id, of.key.incarnation, stage=stage)
        self.infos[name] = WorkerInfo(name, node, dedicated=dedicated)
        if memory is not None:
            self.samples[name] = SampleRecord(1, NOW, 0, 0, memory[0], memory[1], 0, 0, 0)
        self.live.append(LiveJournal(name, alive, 1, list(slots)))

    def view(
        self,
        now: int = NOW,
        *,
        recent: tuple[LiveRun, ...] = (),
        foreseen: Callable[[str], Foreseen] = lambda _uid: Foreseen(),
    ) -> Live:
        """What runs now."""
        return live_view(self, self.live, now, LiveSettings(), recent=recent, foreseen=foreseen)


def test_shards_are_running_by_slot_and_pending_by_plan() -> None:
    """Two attempts at one shard are one running shard; what is neither decided nor running is pending."""
    running = job(planned=10, done=4)
    world = World(running)
    world.add(running, attempt_slot(5), attempt_slot(6))
    world.add(running, attempt_slot(6))

    live = world.view()
    assert live.pipelines[KEY].shards == {"pending": 4, "running": 2}
    assert live.pipelines[KEY].jobs == {"pending": 0, "running": 1}
    assert [(each.stage, each.shard) for each in live.attempts] == [("map", 5), ("map", 6), ("map", 6)]


def test_a_job_is_pending_until_an_attempt_begins() -> None:
    """Started and planned is not running; a coordinator's queue counts as pending too, once."""
    waiting, other = job("job-1", planned=10), job("job-2", planned=10)
    for each in (waiting, other):
        each.heartbeat = HeartbeatRecord(1, NOW, pending_jobs=3)
    assert World(waiting, other).view().pipelines[KEY].jobs == {"pending": 5, "running": 0}


def test_slots_of_dead_owners_and_of_unknown_jobs_count_nothing() -> None:
    """A dead owner's slots become records soon; a context that was not folded yet waits."""
    running = job(planned=10)
    world = World(running)
    world.add(running, attempt_slot(1), alive=False)
    world.add(job("job-9"), attempt_slot(1))
    world.live.append(LiveJournal("unknown", True, 1, [attempt_slot(1)]))

    live = world.view()
    assert live.attempts == []
    assert live.journals == {"live": 2, "dead": 1}


def test_checkpoint_lag_is_the_worst_job_s_and_only_of_jobs_that_take_checkpoints() -> None:
    """The newest checkpoint of each job counts, from records or slots; jobs without any count nothing."""
    silent, fresh, stale = job("job-1"), job("job-2"), job("job-3")
    fresh.checkpoint_ns = NOW - 50 * SECOND
    stale.checkpoint_ns = NOW - 20 * SECOND
    world = World(silent, fresh, stale)
    assert World(silent).view().pipelines[KEY].checkpoint_lag is None
    assert world.view().pipelines[KEY].checkpoint_lag == 50.0

    world.add(fresh, Slot(0, 1, NOW, True, checkpoint_ns=NOW - 5 * SECOND))
    assert world.view().pipelines[KEY].checkpoint_lag == 20.0


def test_an_attempt_is_stuck_when_it_stops_to_report_progress() -> None:
    """One that never reports is not called stuck."""
    running = job(planned=3)
    world = World(running)
    long_ago = NOW - 301 * SECOND
    world.add(
        running,
        attempt_slot(0, started=long_ago, progress=0.5, at=long_ago),
        attempt_slot(1, started=long_ago, progress=0.5, at=NOW - 299 * SECOND),
        attempt_slot(2, started=long_ago),
    )

    assert world.view().pipelines[KEY].stuck == 1


def test_stragglers_are_found_from_finished_shards_and_running_slots() -> None:
    """A shard eight times as large as the others, running four times as long, is skew."""
    running = job(planned=9, done=8)
    row, _ = running.stages["map"].table.rows(np.array([8], np.uint64))
    running.stages["map"].table.input[row] = 8000
    world = World(running)
    world.add(running, attempt_slot(8, started=NOW - 40 * SECOND), node="n1")

    [found] = world.view().stragglers
    assert (found.cause, found.attempt.shard, found.elapsed, found.left) == (StragglerCause.SKEW, 8, 40.0, 40.0)
    assert world.view().pipelines[KEY].stragglers[StragglerCause.SKEW] == 1


def test_a_slot_whose_record_has_come_no_longer_runs() -> None:
    """The slots were looked at a moment before the records were read."""
    running = job(planned=3, done=1)
    running.stages["map"].table.own[0] = 1
    world = World(running)
    world.add(running, attempt_slot(0), attempt_slot(1))

    assert [each.shard for each in world.view().attempts] == [1]
    assert world.view().pipelines[KEY].shards == {"pending": 1, "running": 1}


def test_profiles_of_large_stages_are_drawn_and_count_all() -> None:
    """The quartiles come from a few thousand shards, the number done from all."""
    running = job(planned=100_000, done=90_000)
    profile = stage_profile(running, running.stages["map"])

    assert (profile.done, profile.planned) == (90_000, 100_000)
    assert (profile.median, profile.median_input, profile.median_rate) == (10.0, 1000.0, 100.0)


def test_profiles_are_of_committed_shards_alone() -> None:
    """What failed or runs has no say in how long a shard takes; errors of network and storage add up."""
    running = job(planned=20, done=8)
    stage = running.stages["map"]
    rows, _ = stage.table.rows(np.arange(8, 12, dtype=np.uint64))
    stage.table.state[rows] = FAILED
    stage.table.wall[rows] = 1000 * SECOND
    running.network_errors, running.storage_throttled = 2, 3
    profile = stage_profile(running, stage)

    assert (profile.p25, profile.p75, profile.done, profile.io_errors) == (10.0, 10.0, 8, 5)


def test_profiles_know_the_nodes_of_workers() -> None:
    """The worker column counts from 1; 0 is nobody."""
    running = job(planned=8, done=6)
    running.workers = [WorkerInfo("w1", "n1"), WorkerInfo("w2", "n2")]
    running.stages["map"].table.worker[:6] = [1, 1, 2, 2, 2, 0]

    assert stage_profile(running, running.stages["map"]).node_medians == {"n1": (2, 10.0), "n2": (3, 10.0)}


def test_completeness_leaves_out_what_still_runs() -> None:
    """An attempt that runs cannot have its record yet."""
    running = job(planned=10, done=6)
    running.coordinated = True
    running.stages["map"].dispatched, running.stages["map"].recorded = 9, 6
    world = World(running)
    world.add(running, attempt_slot(7), attempt_slot(8))

    pipeline = world.view().pipelines[KEY]
    assert (pipeline.recorded, pipeline.dispatched) == (6, 7)


def test_workers_are_processes_that_run_attempts_by_what_they_do() -> None:
    """Busy with a slot, idle without; coordinators are no workers; the draining are taken from the rest."""
    running = job(planned=10)
    running.coordinator = "journal-9"
    running.heartbeat = HeartbeatRecord(1, NOW, draining_workers=2)
    world = World(running, job("job-2"))
    world.add(running, attempt_slot(1))
    world.add(running, attempt_slot(2))
    world.add(running, dedicated=True)
    world.add(running, memory=(1, 2))
    world.add(running, Slot(0, 1, NOW, True))
    world.add(running, memory=(1, 2), stage="")

    assert world.view().workers == {"default": {"idle": 0, "busy": 2, "draining": 2}}


def test_memory_is_the_peak_over_the_limit_of_live_workers() -> None:
    """Nine in ten do not pass the 0.9 quantile; workers without a limit say nothing."""
    running = job()
    world = World(running)
    for peak in range(1, 11):
        world.add(running, memory=(peak, 20))
    world.add(running, memory=(5, 0))
    world.add(running, memory=(20, 20), alive=False)

    assert world.view().pipelines[KEY].memory == {"0.9": 0.45, "1": 0.5}


def test_runs_come_worst_first_with_what_just_ended() -> None:
    """Past the deadline, then nearest to it, then the longest running."""
    late, soon, old, young = job("late"), job("soon"), job("old", start=NOW - 500 * SECOND), job("young")
    late.deadline_ns, soon.deadline_ns = NOW - SECOND, NOW + SECOND
    just = LiveRun(KEY, JobKey("default", "default", "just", 1), "", Tier.STANDARD, "success", NOW, 1.0, NOW, 0)

    runs = World(young, old, soon, late).view(recent=(just,)).runs
    assert [run.job.job_id for run in runs] == ["late", "soon", "old", "young", "just"]


def test_a_run_says_how_far_it_is_and_when_it_ended() -> None:
    """One that runs has no finish of its own; an ended job says how and when it ended."""
    running = job(planned=10, done=5)
    [run] = World(running).view().runs
    assert (run.state, run.progress, run.predicted_finish_ns) == ("running", 0.5, None)

    running.end_ns, running.outcome = NOW, JobOutcome.FAILURE
    [run] = World(running).view().runs
    assert (run.state, run.predicted_finish_ns) == ("failure", NOW)


def test_a_run_without_a_plan_makes_no_promises() -> None:
    """Nobody knows what is to come, so there is neither progress nor a predicted finish."""
    [run] = World(job(planned=0, done=5)).view().runs
    assert (run.progress, run.predicted_finish_ns) == (None, None)


def test_a_job_that_ended_no_longer_waits_or_runs() -> None:
    """While it settles it is listed, and counts neither as running nor as pending."""
    running = job(planned=10, done=5)
    running.end_ns = NOW
    assert World(running).view().pipelines[KEY].shards == {"pending": 0, "running": 0}
    assert World(running).view().pipelines[KEY].jobs == {"pending": 0, "running": 0}


def test_what_is_foretold_of_a_run_is_shown_with_it() -> None:
    """Interval, the deadline that an SLO sets it, and how late it will be; nothing of it stays once it has ended."""
    running = job(planned=10, done=5)
    outlook = Outlook(NOW, NOW + 80 * SECOND, NOW + 100 * SECOND, NOW + 130 * SECOND)
    told = {f"{trace_id(running.key):032x}": Foreseen(outlook, Weight.CHARGE, NOW + 70 * SECOND)}
    [run] = World(running).view(foreseen=told.__getitem__).runs
    assert run.finish_bounds_ns == (NOW + 80 * SECOND, NOW + 130 * SECOND)
    assert (run.deadline_ns, run.weight, run.late_ns) == (NOW + 70 * SECOND, Weight.CHARGE, 30 * SECOND)

    running.end_ns, running.outcome = NOW + 75 * SECOND, JobOutcome.SUCCESS
    [run] = World(running).view(foreseen=told.__getitem__).runs
    assert (run.finish_bounds_ns, run.late_ns) == (None, 5 * SECOND)


def test_a_judged_job_is_shown_for_a_while() -> None:
    """Its state is how it ended, until a minute has passed."""
    scenario = Scenario()
    scenario.start(map=1)
    scenario.done("map", 0)
    decided = scenario.decided()
    recent = RecentRuns()
    recent.add([decided])

    [run] = recent.runs(decided.settled_ns + 60 * SECOND)
    assert (run.job, run.state, run.progress, run.predicted_finish_ns) == (decided.key, "success", 1.0, decided.end_ns)
    assert recent.runs(decided.settled_ns + 61 * SECOND) == []


def test_a_real_fold_is_enough() -> None:
    """From records and slots to what runs: names of shards, workers and input come from the fold."""
    scenario = Scenario()
    scenario.start(map=3)
    scenario.done("map", "part-0")
    key = scenario.journal.shard("part-1")
    scenario.journal.append(DispatchRecord(scenario.stage("map"), key, 0, BEGAN, worker="worker-1", input_bytes=77))
    fold = new_fold()
    fold_all(fold, [scenario.journal], NOW)
    slot = Slot(0, scenario.stage("map"), NOW - SECOND, shard_key=key)

    live = live_view(fold, [LiveJournal(scenario.journal.uuid, True, 7, [slot])], NOW, LiveSettings())
    [attempt] = live.attempts
    assert (attempt.shard, attempt.stage, attempt.worker, attempt.node) == ("part-1", "map", "worker-1", "node-1")
    assert attempt.input_bytes == 77
    assert live.pipelines[KEY].shards == {"pending": 1, "running": 1}
    assert live.workers == {"default": {"idle": 0, "busy": 1, "draining": 0}}
    assert live.runs[0].progress == 1 / 3
