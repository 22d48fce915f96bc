"""SLOs over journals that a test writes: a clock moved by hand, and an engine that comes and goes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mppobs.clock import ManualClock
from mppobs.cost.prices import PriceList
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
from mppobs.sidecar.view import SloFigures, View
from mppobs.slo.model import Counts

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
