"""
What the scheduler is told (events) and what it wants done (actions).

Named tuples, because there are several for every attempt. Times are integer nanoseconds of one clock, real or
simulated; only their differences mean something. Stages and shards are named by their position in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mppobs.executor.plan import Limits, OnFailure
from mppobs.model import AttemptOutcome, JobOutcome, Reason


class AttemptId(NamedTuple):
    """One try at a shard."""

    job: str
    """A key that the driver never uses twice in a scheduler's life."""
    stage: int
    shard: int
    number: int
    """From 0. The number of an attempt that never started is given again."""


class StageSpec(NamedTuple):
    """A stage as far as scheduling goes."""

    shards: int
    needs: tuple[int, ...] = ()
    """Stages that must be done before this one starts."""
    limits: Limits = Limits()


class JobSubmitted(NamedTuple):
    """A job is to be run."""

    job: str
    stages: tuple[StageSpec, ...]
    on_failure: OnFailure = OnFailure.STOP
    retry_share: float = 0.1
    retry_floor: int = 3


class StageOpened(NamedTuple):
    """The answer to `StageReady`: the stage's input is known, and its shards may start."""

    job: str
    stage: int
    sizes: Sequence[int] = ()
    """Input bytes of each shard, or nothing where they are not known."""


class WorkerUp(NamedTuple):
    """A worker is ready for attempts."""

    worker: str


class WorkerLost(NamedTuple):
    """A worker is gone, and what it was doing with it."""

    worker: str
    reason: Reason = Reason.WORKER_LOST


class AttemptStarted(NamedTuple):
    """A worker has begun an attempt."""

    attempt: AttemptId


class AttemptEnded(NamedTuple):
    """A worker is done with an attempt, one way or another."""

    attempt: AttemptId
    outcome: AttemptOutcome
    reason: Reason = Reason.NONE
    duration_ns: int = 0
    permanent: bool = False
    """The same would happen again: no retry."""
    throttled: bool = False
    """The platform asked to slow down."""
    retry_after_ns: int = 0
    """How long it asked to wait."""
    winner: int | None = None
    """With `superseded`: the number of the attempt whose output is in place."""


class Tick(NamedTuple):
    """Time has passed; sent when a `WaitUntil` is due."""


class Cancel(NamedTuple):
    """A job is no longer wanted."""

    job: str


Event = JobSubmitted | StageOpened | WorkerUp | WorkerLost | AttemptStarted | AttemptEnded | Tick | Cancel


class StageReady(NamedTuple):
    """All that a stage needs is done. To be answered with `StageOpened`, at once or later."""

    job: str
    stage: int


class Submit(NamedTuple):
    """Give an attempt to a worker."""

    attempt: AttemptId
    worker: str


class Stop(NamedTuple):
    """End an attempt early. Whatever comes of it is told by `AttemptEnded` or `WorkerLost`, as ever."""

    attempt: AttemptId
    outcome: AttemptOutcome
    """As what it should end: `timeout`, `cancelled` or `superseded`."""


class Commit(NamedTuple):
    """A shard is decided: this attempt's output is the shard's."""

    attempt: AttemptId


class ShardFailed(NamedTuple):
    """A shard is decided: it is given up."""

    attempt: AttemptId
    """The last one."""
    reason: Reason


class StageDone(NamedTuple):
    """Every shard of a stage is committed."""

    job: str
    stage: int


class JobEnded(NamedTuple):
    """A job has ended, and none of its attempts runs any more."""

    job: str
    outcome: JobOutcome
    reason: Reason = Reason.NONE


class WaitUntil(NamedTuple):
    """Send a `Tick` at this time, unless another of these comes first."""

    time_ns: int


Action = StageReady | Submit | Stop | Commit | ShardFailed | StageDone | JobEnded | WaitUntil


class Load(NamedTuple):
    """What the scheduler has on its hands; feeds the coordinator's heartbeat."""

    pending_jobs: int
    running_jobs: int
    pending_shards: int
    running_shards: int
    idle_workers: int
    busy_workers: int
