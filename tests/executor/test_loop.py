"""The loop on a backend and a clock of the test's own: every piece of news and every action, one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mppobs.clock import ManualClock
from mppobs.executor import Limits, Plan, ShardPlan, Stage
from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.backends.base import Capabilities, Down, Draining, Ended, News, Place, Progress, Started, Up
from mppobs.executor.coordinator import JobRun
from mppobs.executor.decisions import Cancelled, Charged, Decision, DecisionLog, GaveUp, read_decisions
from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptId,
    AttemptProgress,
    AttemptStarted,
    Cancel,
    Commit,
    Event,
    JobEnded,
    JobSubmitted,
    Load,
    OutputLost,
    Scale,
    SetAside,
    Setbacks,
    ShardFailed,
    ShardSplit,
    Split,
    StageDone,
    StageOpened,
    StageReady,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerDraining,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.exchange import Output
from mppobs.executor.files import JobFiles
from mppobs.executor.loop import Loop
from mppobs.executor.records import JobRecords
from mppobs.executor.scheduler import Scheduler
from mppobs.executor.shuffle import write_exchange
from mppobs.instrument.recorder import RECORDER
from mppobs.model import (
    AttemptOutcome,
    Context,
    DispatchRecord,
    HeartbeatRecord,
    JobOutcome,
    PlanRecord,
    Reason,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.testing import Captured, capture
from tests.executor.test_shuffle import TABLE

START_NS = 1_760_000_000_000_000_000
ATTEMPT = AttemptId("job", 0, 0, 0)
DONE = Report(AttemptOutcome.SUCCESS, duration_ns=5, output=Output(0, 9, (3, 4)), peak_memory_bytes=77)


class FakeBackend:
    """Says what the test tells it to say, and notes what it is asked for."""

    name = "fake"
    size = 2
    places: Mapping[str, Place] = {}

    def __init__(self, clock: ManualClock, *, resize: bool) -> None:
        self.capabilities = Capabilities(virtual_time=True, resize=resize)
        self.news: deque[list[News]] = deque()
        self.asked: list[object] = []
        self._clock = clock

    def start(self) -> None:
        self.asked.append("start")

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        self.asked.append((worker, attempt, stage.name, order))

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        self.asked.append((attempt, outcome))

    def poll(self, seconds: float) -> list[News]:
        self._clock.advance(seconds)
        return self.news.popleft() if self.news else []

    def resize(self, workers: int) -> None:
        self.asked.append(workers)

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        raise NotImplementedError

    def evict(self, worker: str, notice: float) -> None:
        raise NotImplementedError

    def forget(self, job: str) -> None:
        self.asked.append(f"forget {job}")

    def close(self) -> None:
        self.asked.append("close")


class FakeScheduler(Scheduler):
    """Notes what it is told and decides what the test wants decided."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.answers: dict[type, list[Action]] = {}

    def on(self, event: Event, now_ns: int) -> list[Action]:
        self.told.append(event)
        return self.answers.pop(type(event), [])

    def load(self) -> Load:
        return Load(1, 2, 3, 4, 5, 6, 7)

    def setbacks(self, job: str, stage: int, shard: int) -> Setbacks:
        return Setbacks(1, 2, 3)

    def retries(self, job: str) -> int:
        return 17


@dataclass
class Bench:
    """A loop with one job, everything around which is fake."""

    directory: Path
    resize: bool = True
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_NS))

    def __post_init__(self) -> None:
        self.backend, self.scheduler = FakeBackend(self.clock, resize=self.resize), FakeScheduler()
        node = WorkerInfo("me", node="n-0", zone="z-0", node_type="m5")
        self.loop = Loop(self.scheduler, self.backend, node, RECORDER.journal, self.clock)
        numbers = Stage("numbers", "a:b", (ShardPlan(0, node="n-1"), ShardPlan("x")), partition_by=("k",), partitions=2)
        sums = Stage("sums", "a:c", reads=("numbers",), limits=Limits(attempts=7))
        self.files = JobFiles(self.directory)
        self.files.prepare(2)
        records = JobRecords(Context("pipe", "job-1", 7, tenant="t"), RECORDER.journal, self.clock)
        plan, self.log = Plan("pipe", (numbers, sums)), DecisionLog(self.directory / "decisions")
        self.job = JobRun("job", plan, records, self.clock, root=str(self.directory), log=self.log)
        self.loop.submit(self.job)

    def say(self, *news: News) -> list[Event]:
        """Have the backend say something, and return what the scheduler is told."""
        before = len(self.scheduler.told)
        self.backend.news.append(list(news))
        self.loop.step()
        return self.scheduler.told[before:]

    def decide(self, *actions: Action) -> list[Event]:
        """Have the scheduler decide something, and return what it is told after that."""
        self.scheduler.answers[Tick] = list(actions)
        before = len(self.scheduler.told)
        self.loop.tell(Tick())
        self.job.flush()
        return self.scheduler.told[before + 1 :]

    def decisions(self, kind: type) -> list[Decision]:
        """Return the decisions of a kind that are written down."""
        self.job.flush()
        return [each for each in read_decisions(self.directory / "decisions") if isinstance(each, kind)]

    def commit(self, shard: int = 0) -> None:
        """Have an attempt run and its output committed."""
        attempt = ATTEMPT._replace(shard=shard)
        self.say(Started(attempt, "w-1", START_NS), Ended(attempt, DONE))
        self.decide(Commit(attempt))


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


@pytest.fixture
def bench(tmp_path: Path, captured: Captured) -> Iterator[Bench]:
    """A loop with a job."""
    made = Bench(tmp_path)
    yield made
    made.job.close()


def test_a_job_is_submitted_as_it_was_planned(bench: Bench) -> None:
    """The scheduler learns of stages, their needs and limits, and to whom the job belongs."""
    (event,) = bench.scheduler.told
    assert isinstance(event, JobSubmitted)
    assert (event.job, event.tenant, event.retry_floor, dict(event.committed)) == ("job", "t", 3, {})
    assert [(spec.shards, spec.needs, spec.limits.attempts) for spec in event.stages] == [(2, (), 4), (2, (0,), 7)]


def test_a_stage_is_opened_with_sizes_and_nodes(bench: Bench, captured: Captured) -> None:
    """Preferred nodes come from the plan, sizes from what was committed; what is read is recorded once."""
    (opened,) = bench.decide(StageReady("job", 0))
    assert isinstance(opened, StageOpened)
    assert (list(opened.sizes), list(opened.nodes)) == ([0, 0], ["n-1", None])
    bench.commit(0)
    bench.commit(1)
    for _ in range(2):
        (opened,) = bench.decide(StageReady("job", 1))
        assert isinstance(opened, StageOpened)
        assert list(opened.sizes) == [6, 8]
    assert [record.input_bytes for record in captured.of(PlanRecord)] == [0, 0, 14]


def test_workers_are_told_and_recorded_with_their_places(bench: Bench, captured: Captured) -> None:
    """Up, draining and lost: what the backend does not say of a worker's place is the coordinator's own."""
    assert bench.say(Up("w-1"), Up("w-2", "n-2", "z-2", True, 99)) == [
        WorkerUp("w-1", "n-0", "z-0"),
        WorkerUp("w-2", "n-2", "z-2", True, 99),
    ]
    assert bench.say(Draining("w-2"), Down("w-2", Reason.PREEMPTED), Draining("w-9")) == [
        WorkerDraining("w-2"),
        WorkerLost("w-2", Reason.PREEMPTED),
        WorkerDraining("w-9"),
    ]
    told = [
        (r.event, r.info.worker, r.info.node, r.reason) for r in captured.of(WorkerRecord) if r.info.worker[0] == "w"
    ]
    assert told == [
        (WorkerEvent.UP, "w-1", "n-0", Reason.NONE),
        (WorkerEvent.UP, "w-2", "n-2", Reason.NONE),
        (WorkerEvent.DRAINING, "w-2", "n-2", Reason.PREEMPTED),
        (WorkerEvent.LOST, "w-2", "n-2", Reason.PREEMPTED),
    ]


def test_an_attempt_goes_out_and_comes_back(bench: Bench, captured: Captured) -> None:
    """A copy is ordered and recorded as speculative, its progress is passed on, its end tells all that was reported."""
    bench.decide(Submit(ATTEMPT, "w-1"), Submit(ATTEMPT._replace(number=1), "w-2", speculative=True))
    orders = [asked[3] for asked in bench.backend.asked if isinstance(asked, tuple)]
    assert [(order.number, order.speculative) for order in orders] == [(0, False), (1, True)]
    copy = ATTEMPT._replace(number=1)
    assert bench.say(Started(ATTEMPT, "w-1", 1), Started(copy, "w-2", 2), Progress(copy, 0.5)) == [
        AttemptStarted(ATTEMPT),
        AttemptStarted(copy),
        AttemptProgress(copy, 0.5),
    ]
    output = Output(1, 9, (3, 4))
    (ended,) = bench.say(Ended(copy, DONE._replace(output=output)))
    assert ended == AttemptEnded(copy, AttemptOutcome.SUCCESS, duration_ns=5, winner=1, peak_memory_bytes=77)
    bench.decide(Commit(copy))
    assert [(record.attempt, record.speculative) for record in captured.of(DispatchRecord)] == [(0, False), (1, True)]
    (progress, _) = bench.job.stage_progress()
    assert (progress.attempts, progress.retries, progress.speculative, progress.rows) == (2, 0, 1, 9)
    assert [record.attempt for record in captured.commits] == [1]


def test_what_is_held_against_a_shard_is_written_down(bench: Bench) -> None:
    """After each bad end, by whatever news, and for each copy: what the scheduler says, and for nothing else."""
    charged = Charged(0, 0, 1, 2, 3, 17)
    bench.commit(1)
    bench.decide(Submit(ATTEMPT, "w-1"))
    assert bench.decisions(Charged) == []
    bench.decide(Submit(ATTEMPT._replace(number=1), "w-2", speculative=True))
    assert bench.decisions(Charged) == [charged]
    bench.say(Started(ATTEMPT, "w-1", 1), Ended(ATTEMPT, Report(AttemptOutcome.FAILURE, Reason.EXCEPTION)))
    assert bench.decisions(Charged) == [charged] * 2
    bench.say(Up("w-2"), Started(ATTEMPT._replace(number=1), "w-2", 1), Down("w-2", Reason.WORKER_LOST))
    assert bench.decisions(Charged) == [charged] * 3
    bench.decide(ShardFailed(ATTEMPT, Reason.WORKER_LOST, JobOutcome.ERROR))
    (gave_up,) = bench.decisions(GaveUp)
    assert isinstance(gave_up, GaveUp)
    assert (gave_up.shard, gave_up.outcome, gave_up.failure.reason) == (0, JobOutcome.ERROR, Reason.WORKER_LOST)


def test_nothing_is_held_against_a_job_that_has_ended(bench: Bench) -> None:
    """The scheduler has forgotten it: the last attempt's end is not asked about."""
    bench.say(Up("w-1"), Started(ATTEMPT, "w-1", 1))
    bench.scheduler.answers[WorkerLost] = [JobEnded("job", JobOutcome.ERROR, Reason.WORKER_LOST)]
    bench.say(Down("w-1", Reason.WORKER_LOST))
    assert bench.loop.jobs == {}
    assert bench.decisions(Charged) == []


@pytest.mark.parametrize(
    ("stopped", "reason", "outcome"),
    [
        (None, Reason.WORKER_LOST, AttemptOutcome.ERROR),
        (None, Reason.PREEMPTED, AttemptOutcome.PREEMPTED),
        (AttemptOutcome.TIMEOUT, Reason.SHUTDOWN, AttemptOutcome.TIMEOUT),
    ],
)
def test_what_a_worker_takes_with_it_is_counted(
    bench: Bench, stopped: AttemptOutcome | None, reason: Reason, outcome: AttemptOutcome
) -> None:
    """An attempt whose worker is gone ended as what it was stopped for, or else by the platform's fault."""
    bench.say(Up("w-1"), Started(ATTEMPT, "w-1", 1))
    if stopped is not None:
        bench.decide(Stop(ATTEMPT, stopped))
        assert bench.backend.asked[-1] == (ATTEMPT, stopped)
    bench.say(Down("w-1", reason))
    assert bench.job.outcomes == {outcome: 1}


def test_output_that_is_lost_is_told_before_the_attempt_that_found_it(bench: Bench, captured: Captured) -> None:
    """A committed shard whose output cannot be read is to run again; what can be read after all is not."""
    for shard in (0, 1):
        path = bench.files.begin(0, shard, 0)
        write_exchange(path, TABLE, ("k",), 2, attempt=0, compression="none")
        bench.files.commit(0, shard, 0)
        bench.commit(shard)
    path = bench.files.data(0, 1)
    path.write_bytes(path.read_bytes()[:-40])
    reader = AttemptId("job", 1, 0, 0)
    for shard, lost in ((0, False), (1, True), (1, False)):
        report = Report(AttemptOutcome.ERROR, Reason.STORAGE, lost=(0, shard))
        told = bench.say(Started(reader, "w-1", 1), Ended(reader, report))
        assert told[1:] == [OutputLost("job", 0, shard)] * lost + [AttemptEnded(reader, report.outcome, report.reason)]
    assert bench.decisions(Charged).count(Charged(0, 1, 1, 2, 3, 17)) == 1
    assert list(bench.files.committed(0)) == [0]
    assert [stage.done for stage in bench.job.stage_progress()] == [1, 0]
    bench.commit(1)
    assert [stage.done for stage in bench.job.stage_progress()] == [2, 0]
    assert [record.shard_key for record in captured.commits].count(0) == 1
    assert len(captured.commits) == 2, "the shard that ran again was decided before"


def test_a_shard_that_cannot_be_split_is_said_so(bench: Bench) -> None:
    """Without a function, and with a single source, there is nothing to cut; once it is read it is too late."""
    assert bench.decide(Split("job", 1, 0, 8)) == [ShardSplit("job", 1, 0, [0, 0])]
    bench.commit(0)
    bench.commit(1)
    bench.decide(StageReady("job", 1))
    assert bench.decide(Split("job", 1, 2, 4)) == [ShardSplit("job", 1, 2)]
    assert [stage.planned for stage in bench.job.stage_progress()] == [2, 3]


@pytest.mark.parametrize("resize", [True, False])
def test_what_the_scheduler_wants_of_the_cluster(tmp_path: Path, captured: Captured, resize: bool) -> None:
    """Workers are added where the backend can; a node that is slow is noted."""
    bench = Bench(tmp_path, resize=resize)
    bench.decide(Scale(5), SetAside("n-1", 17))
    assert bench.backend.asked == [5] * resize
    assert bench.loop.set_aside == {"n-1": 17}


def test_time_is_the_clocks(bench: Bench, captured: Captured) -> None:
    """Heartbeats come every second of the loop's clock and ticks when they are due, whatever time it is elsewhere."""
    bench.decide(WaitUntil(START_NS + 2_500_000_000))
    for _ in range(4):
        bench.loop.step()
    beats = captured.of(HeartbeatRecord)
    assert [record.time_ns - START_NS for record in beats] == [0, 1_000_000_000, 2_000_000_000, 2_500_000_000][:3]
    assert beats[0].draining_workers == 7
    assert bench.scheduler.told.count(Tick()) == 2
    assert bench.clock.time_ns() == START_NS + 3_000_000_000


def test_jobs_end_one_by_one(bench: Bench, captured: Captured) -> None:
    """A job that ends is recorded, forgotten and told of; what is posted is done in between; late news is no matter."""
    ended: list[JobRun] = []
    bench.loop.on_end = ended.append
    bench.loop.post(lambda: bench.loop.cancel("job"))
    bench.loop.post(lambda: bench.loop.cancel("another"))
    bench.loop.step()
    assert Cancel("job") in bench.scheduler.told
    assert bench.decisions(Cancelled) == [Cancelled()]
    assert Cancel("another") not in bench.scheduler.told
    bench.decide(StageDone("job", 0), JobEnded("job", JobOutcome.CANCELLED, Reason.NONE))
    assert ended == [bench.job]
    assert bench.loop.jobs == {}
    assert bench.backend.asked[-1] == "forget job"
    assert captured.jobs[-1].outcome is JobOutcome.CANCELLED
    assert bench.say(Started(ATTEMPT, "w-1", 1), Ended(ATTEMPT, DONE)) == [AttemptStarted(ATTEMPT)]
