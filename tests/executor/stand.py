"""A scheduler at hand: short words for telling it things and for what it answers."""

from __future__ import annotations

import random

from mppobs.executor.events import (
    Action,
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    Event,
    JobSubmitted,
    StageOpened,
    StageSpec,
    Submit,
    WorkerUp,
)
from mppobs.executor.policies import Policy
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, Reason

SECOND = 1_000_000_000


class Stand:
    """A scheduler, the time, and what it has decided."""

    def __init__(self, policy: Policy, *workers: WorkerUp) -> None:
        self.scheduler = Scheduler(random.Random(0), policy)
        self.now = 0
        self.held: dict[AttemptId, str] = {}
        for worker in workers:
            self.tell(worker)

    def tell(self, *events: Event, at: float | None = None) -> list[Action]:
        """Tell it of events, `at` seconds; return what it decides, and note what runs."""
        if at is not None:
            self.now = int(at * SECOND)
        actions: list[Action] = []
        for event in events:
            if isinstance(event, AttemptEnded):
                self.held.pop(event.attempt, None)
            actions += self.scheduler.on(event, self.now)
        self.held.update({each.attempt: each.worker for each in actions if isinstance(each, Submit)})
        return actions

    def begin(self, job: JobSubmitted, *opened: StageOpened) -> list[Action]:
        """Submit a job and open its stages that are ready; return what is decided then."""
        self.tell(job)
        return self.tell(*(opened or (StageOpened(job.job, 0),)))

    def start(self, *attempts: AttemptId) -> None:
        """Have attempts begin, all that are held where none is named."""
        self.tell(*(AttemptStarted(attempt) for attempt in attempts or tuple(self.held)))

    def finish(self, *attempts: AttemptId, took: float = 1.0) -> list[Action]:
        """Have attempts succeed."""
        ns = int(took * SECOND)
        return self.tell(*(AttemptEnded(each, AttemptOutcome.SUCCESS, duration_ns=ns) for each in attempts))

    def fail(self, attempt: AttemptId, reason: Reason = Reason.EXCEPTION, *, throttled: bool = False) -> list[Action]:
        """Have an attempt end badly: by the work's fault, or for any other reason by the platform's."""
        outcome = AttemptOutcome.FAILURE if reason is Reason.EXCEPTION else AttemptOutcome.ERROR
        return self.tell(AttemptEnded(attempt, outcome, reason, throttled=throttled))


def job(shards: int, key: str = "j", **spec: object) -> JobSubmitted:
    """Return a job of one stage."""
    return JobSubmitted(key, (StageSpec(shards, **spec),))  # type: ignore[arg-type]


def workers(*nodes: str, memory: int = 0, spot: bool = False) -> tuple[WorkerUp, ...]:
    """Return a worker for each of the nodes, named after them."""
    return tuple(WorkerUp(f"{node}.{n}", node, "", spot, memory) for n, node in enumerate(nodes))


def submits(actions: list[Action]) -> list[Submit]:
    """Return what is given to workers."""
    return [action for action in actions if isinstance(action, Submit)]
