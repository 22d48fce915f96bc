"""A pipeline that runs on lanes by a clock moved by hand, with an engine that looks on, comes and goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mppobs.clock import ManualClock
from mppobs.journal.slots import Place
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
    ShardOutcome,
    WorkerInfo,
)
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.exposition import render
from mppobs.sidecar.live import LiveSettings, live_view
from mppobs.sidecar.middleware import Refusals
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.roles import EngineReading
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.view import LiveRun, SloFigures
from mppobs.slo.foresight import State

SECOND = 10**9
SETTINGS = EngineSettings(DecideSettings(settle_seconds=5, lease_seconds=3600, idle_seconds=3600))
LANES = 4
SHARDS = 32
SHARD_SECONDS = 10.0
"""Eight rounds of the lanes: a healthy run takes 80 seconds."""
DEADLINE_SECONDS = 120.0
STEP_SECONDS = 5.0

SPEC = """
team: risk
pipelines:
  nightly:
    owner: scoring
    every: 1h
    deadline: 2m
    objectives:
      on-time: 90%
      job-success: 90%
"""


@dataclass
class Lane:
    """One lane of a worker, and the shard that it is at."""

    journal: JournalWriter
    place: Place | None = None
    shard: int = -1
    start_ns: int = 0


@dataclass
class Rig:
    """Lanes, a coordinator and an engine."""

    directory: Path
    spec: str = SPEC
    clock: ManualClock = field(default_factory=ManualClock)
    jobs: int = 0

    def __post_init__(self) -> None:
        """Begin with an engine that has seen nothing."""
        self.path = self.directory / "slo.yaml"
        self.path.write_text(self.spec)
        journals = self.directory / "journals"
        self.coordinator = JournalWriter(journals, WorkerInfo("c"), clock=self.clock)
        self.lanes = [
            Lane(JournalWriter(journals, WorkerInfo(f"w{number}", node=f"n{number}"), clock=self.clock))
            for number in range(LANES)
        ]
        self.engine = self._open()

    def _open(self) -> Engine:
        book = SloBook(SloFiles([self.path]))
        return open_engine(
            self.directory / "state", [self.directory / "journals"], SETTINGS, clock=self.clock, slos=book
        )

    def kill(self) -> None:
        """Let the engine go as a kill would, and begin again with its database."""
        self.engine._own._writer.abandon()
        self.engine.store.close()
        self.engine = self._open()

    @classmethod
    def trained(cls, template: Rig, directory: Path) -> Rig:
        """Return another with the state that one, which is closed, has left behind."""
        shutil.copytree(template.directory, directory)
        return cls(directory, template.spec, ManualClock(template.clock.time_ns()), template.jobs)

    def close(self) -> None:
        """Let everything go."""
        self.engine._own._writer.abandon()
        self.engine.store.close()
        for lane in self.lanes:
            lane.journal.close()
        self.coordinator.close()

    def tick(self) -> None:
        """Let the engine read everything, and look."""
        for _ in range(2):
            self.engine.tick()

    def run(self, seconds: float = SHARD_SECONDS, *, lanes: int = LANES, shards: int = SHARDS) -> Iterator[float]:
        """Run a job whose shards take so long, step by step. Yields the time since its start, after every step."""
        self.jobs += 1
        name, begin = f"job-{self.jobs}", self.clock.time_ns()
        context = Context("nightly", name, begin)
        number = self.coordinator.context_id(context)
        stage = Context("nightly", name, begin, stage="map")
        mine = self.coordinator.context_id(stage)
        self.coordinator.append(JobRecord(JobEvent.START, number, begin, coordinated=True))
        self.coordinator.append(PlanRecord(mine, begin, shards, final=True))
        queue = list(range(shards))
        while queue or any(lane.place is not None for lane in self.lanes):
            for lane in self.lanes[:lanes]:
                self._finish(lane, stage, mine, seconds)
                if lane.place is None and queue:
                    self._start(lane, stage, mine, queue.pop(0))
            self.clock.advance(STEP_SECONDS)
            self.tick()
            yield (self.clock.time_ns() - begin) / SECOND
        self.coordinator.append(JobRecord(JobEvent.END, number, self.clock.time_ns(), JobOutcome.SUCCESS))
        for _ in range(4):
            self.clock.advance(STEP_SECONDS)
            self.tick()

    def _start(self, lane: Lane, stage: Context, mine: int, shard: int) -> None:
        now = self.clock.time_ns()
        self.coordinator.append(DispatchRecord(mine, shard, 0, now))
        lane.place = lane.journal.begin(lane.journal.context_id(stage), shard, 0, start_ns=now)
        lane.shard, lane.start_ns = shard, now

    def _finish(self, lane: Lane, stage: Context, mine: int, seconds: float) -> None:
        now = self.clock.time_ns()
        if lane.place is None or now - lane.start_ns < seconds * SECOND:
            return
        took = now - lane.start_ns
        its = lane.journal.context_id(stage)
        lane.journal.append(AttemptRecord(its, lane.shard, 0, AttemptOutcome.SUCCESS, lane.start_ns, took))
        lane.journal.end(lane.place)
        lane.place = None
        self.coordinator.append(CommitRecord(mine, lane.shard, 0, ShardOutcome.COMMITTED, now))

    def train(self, runs: int = 10) -> None:
        """Let so many healthy runs pass."""
        for _ in range(runs):
            for _ in self.run():
                pass

    @property
    def figures(self) -> SloFigures:
        """Return how the promise on the deadline stands."""
        found = {each.slo.name: each for each in self.engine.slos.figures(self.clock.time_ns())}
        return found["nightly-on-time"]

    @property
    def live(self) -> LiveRun:
        """Return the job that runs."""
        engine = self.engine
        view = live_view(
            engine.fold, engine.live, self.clock.time_ns(), LiveSettings(), foreseen=engine.slos.foreseen
        )  # fmt: skip
        return view.runs[0]

    @property
    def kept(self) -> State:
        """Return what is durable of charges and predictions."""
        return self.engine.store.slos().foresight

    def reading(self) -> EngineReading:
        """Return the engine as its readers see it."""
        return EngineReading(self.engine, SidecarSettings(directories=(self.directory,)), Refusals())

    def exposed(self, name: str) -> list[str]:
        """Return the exposed samples of a metric."""
        with self.reading().view(self.clock.time_ns()) as view:
            lines = render(view, self.clock.time_ns(), openmetrics=False).decode().splitlines()
        return [line for line in lines if line.startswith((name + "{", name + " "))]
