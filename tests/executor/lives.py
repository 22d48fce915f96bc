"""Coordinators of one job, one after the other, on simulated workers: each goes on where the one before it died."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mppobs.executor import Limits, Plan
from mppobs.executor.backends.sim import SimBackend
from mppobs.executor.coordinator import JobRun
from mppobs.executor.decisions import Begun, DecisionLog, recover
from mppobs.executor.files import JobFiles
from mppobs.executor.loop import Loop
from mppobs.executor.policies import Policy
from mppobs.executor.records import JobRecords
from mppobs.executor.scheduler import Scheduler
from mppobs.instrument.recorder import RECORDER
from mppobs.model import Context, WorkerInfo

PATIENT = Limits(attempts=200, losses=200, backoff=0.1)
WHOLE = Policy()


@dataclass
class Life:
    """One coordinator after the other of one job, on simulated workers. None of them says that it dies."""

    directory: Path
    plan: Plan
    policy: Policy = WHOLE
    context: Context = field(default_factory=lambda: Context("pipe", "job-1", incarnation=7))
    fence: int = 0
    job: JobRun | None = None
    loop: Loop | None = None
    writes: bool = False
    """Whether coordinators die when they have written down what they decided, and not before."""

    def live(self, steps: int, seed: int) -> bool:
        """Coordinate the job for so many steps of the loop; return whether it has ended."""
        self.fence += 1
        backend = SimBackend(3, seed=seed, seconds=1.0)
        files = JobFiles(self.directory, self.fence)
        log = DecisionLog(self.directory / f"decisions-{self.fence:06}")
        records = JobRecords(self.context, RECORDER.journal, backend.clock)
        job = self.job = JobRun(
            "job", self.plan, records, backend.clock, root=str(self.directory), fence=self.fence, log=log
        )
        node = WorkerInfo(f"node-{self.fence}")
        scheduler = Scheduler(random.Random(seed), self.policy)
        loop = self.loop = Loop(scheduler, backend, node, RECORDER.journal, backend.clock)
        if self.fence == 1:
            files.prepare(len(self.plan.stages))
            log.add(Begun(self.plan, self.context, str(self.directory), backend.clock.time_ns()))
            log.flush()
        else:
            old = recover(self.directory / f"decisions-{number:06}" for number in range(1, self.fence))
            assert old is not None
            job.restore(old, {index: files.committed(index) for index in range(len(self.plan.stages))})
        loop.submit(job, announce=self.fence == 1)
        while loop.jobs and steps:
            loop.step()
            steps -= 1
        if self.writes:
            job.flush()
        return job.end is not None

    def answer(self) -> list[Any]:
        """Return what the last stage left: values, or the rows of its tables."""
        assert self.job is not None
        last = self.job.stages[-1]
        if self.job.values:
            return [self.job.values[shard] for shard in last.positions()]
        files = JobFiles(self.directory)
        rows: list[Any] = []
        for shard in last.positions():
            with files.opened(last.index, shard) as reader:
                rows += reader.everything()[0].to_pylist()
        return rows


def lives(directory: Path, plan: Plan, chance: random.Random, policy: Policy = WHOLE, *, writes: bool = False) -> Life:
    """Kill coordinators at random steps until one lives to the end."""
    directory.mkdir()
    life = Life(directory, plan, policy, writes=writes)
    while not life.live(chance.randrange(1, 18) if life.fence < 6 else 10_000, chance.randrange(1000)):
        pass
    return life
