"""A coordinated job, record by record, through a real fold."""

from __future__ import annotations

from dataclasses import dataclass, field

from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Shard,
    ShardOutcome,
)
from mppobs.sidecar.fold_labels import FoldSettings
from mppobs.sidecar.running import DecidedJob
from tests.sidecar.journals import NOW, SECOND, FakeJournal, fold_all, new_fold

BEGAN = NOW - 1000 * SECOND
JOB = Context("nightly", "job-1", BEGAN)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Scenario:
    """A coordinated job to be run through a real fold."""

    journal: FakeJournal = field(default_factory=FakeJournal)
    outcome: JobOutcome = JobOutcome.SUCCESS

    def start(self, **planned: int) -> None:
        """Start the job and plan its stages."""
        number = self.journal.context(JOB)
        self.journal.append(
            JobRecord(JobEvent.START, number, BEGAN, submit_ns=BEGAN, coordinated=True, traceparent=PARENT)
        )
        for stage, added in planned.items():
            self.journal.append(PlanRecord(self.stage(stage), BEGAN, added, final=True))

    def stage(self, name: str) -> int:
        """The number of a stage's context."""
        return self.journal.context(Context("nightly", "job-1", BEGAN, name, "tasks.work"))

    def attempt(
        self, stage: str, shard: Shard, number: int = 0, outcome: AttemptOutcome = AttemptOutcome.SUCCESS, *,
        start: int = BEGAN, seconds: float = 1.0, reason: Reason = Reason.NONE, error_type: str = "",
    ) -> None:  # fmt: skip
        """Record an attempt."""
        key = self.journal.shard(shard)
        self.journal.append(
            AttemptRecord(
                self.stage(stage), key, number, outcome, start, round(seconds * SECOND), reason, error_type, rows=5
            )
        )

    def commit(self, stage: str, shard: Shard, number: int = 0, *, end: int) -> None:
        """Commit a shard."""
        key = self.journal.shard(shard)
        self.journal.append(CommitRecord(self.stage(stage), key, number, ShardOutcome.COMMITTED, end))

    def done(self, stage: str, shard: Shard, seconds: float = 1.0) -> None:
        """A shard that was tried once and committed."""
        self.attempt(stage, shard, seconds=seconds)
        self.commit(stage, shard, end=BEGAN + round(seconds * SECOND))

    def decided(self, settings: FoldSettings | None = None) -> DecidedJob:
        """End and judge the job."""
        number = self.journal.context(JOB)
        self.journal.append(JobRecord(JobEvent.END, number, NOW, self.outcome))
        fold = new_fold(settings)
        fold_all(fold, [self.journal], NOW + SECOND)
        self.journal.append(JobRecord(JobEvent.SETTLED, number, NOW + SECOND))
        fold_all(fold, [self.journal], NOW + 2 * SECOND)
        [job] = fold.take_decided()
        return job
