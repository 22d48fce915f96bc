"""
What the scheduler is told (events) and what it wants done (actions).

Named tuples, because there are several for every attempt. Times are integer nanoseconds of one clock, real or
simulated; only their differences mean something. Stages and shards are named by their position in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from mppobs.executor.plan import Limits, OnFailure
from mppobs.model import AttemptOutcome, JobOutcome, Reason, Tier


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
    splittable: bool = False
    """Whether a shard may be replaced by smaller ones; see `Split`."""
    memory_bytes: int = 0
    """What an attempt needs; 0 where nobody said."""
    priority: int = 0
    """Above 0: not on workers that may be evicted. Below 0: on those first."""
    cap: int = 0
    """Most attempts of the stage that workers may hold at a time; 0 for no limit."""


class Setbacks(NamedTuple):
    """How often attempts of a shard ended badly, under all coordinators: what is held against its `Limits`."""

    faults: int = 0
    """Against `Limits.attempts`."""
    losses: int = 0
    """Against `Limits.losses`."""
    preemptions: int = 0
    """Against `Limits.preemptions`."""


_NO_SHARDS: Final[Mapping[int, Sequence[int]]] = MappingProxyType({})
_NO_SETBACKS: Final[Mapping[int, Mapping[int, Setbacks]]] = MappingProxyType({})


class Earlier(NamedTuple):
    """What a job went through under coordinators that died, besides what is committed."""

    outcome: JobOutcome = JobOutcome.SUCCESS
    """As what it ends because of what went wrong first; `success` where nothing has."""
    reason: Reason = Reason.NONE
    cancelled: bool = False
    """Whether it is wanted no longer: it ends at once."""
    given_up: Mapping[int, Sequence[int]] = _NO_SHARDS
    """By stage, the shards that were given up. They stay so, and are not told again."""
    setbacks: Mapping[int, Mapping[int, Setbacks]] = _NO_SETBACKS
    """By stage, what shards have had already."""


class JobSubmitted(NamedTuple):
    """A job is to be run, or to be resumed."""

    job: str
    stages: tuple[StageSpec, ...]
    on_failure: OnFailure = OnFailure.STOP
    retry_share: float = 0.1
    retry_floor: int = 3
    tenant: str = ""
    tier: Tier = Tier.STANDARD
    deadline_ns: int = 0
    """When it should have finished, by the scheduler's clock; 0 for no deadline."""
    committed: Mapping[int, Sequence[int]] = _NO_SHARDS
    """By stage, the shards that need not run: their output is in place, or they were split. They are not told again."""
    cap: int = 0
    """Most attempts of the job that workers may hold at a time; 0 for no limit."""
    earlier: Earlier = Earlier()
    """What is known of it where it is resumed. What is left of its retry budget is its `retry_floor` then."""


class StageOpened(NamedTuple):
    """The answer to `StageReady`: the stage's input is known, and its shards may start."""

    job: str
    stage: int
    sizes: Sequence[int] = ()
    """Input bytes of each shard, or nothing where they are not known."""
    nodes: Sequence[str | None] = ()
    """The node that holds each shard's input, or nothing where that makes no difference."""


class WorkerUp(NamedTuple):
    """A worker is ready for attempts."""

    worker: str
    node: str = ""
    """Its host; empty where that is not known."""
    zone: str = ""
    spot: bool = False
    """Whether it may be evicted at short notice."""
    memory_bytes: int = 0
    """What an attempt there may use; 0 where that is not known."""


class WorkerDraining(NamedTuple):
    """A worker will be taken away: it is given nothing more."""

    worker: str


class WorkerLost(NamedTuple):
    """A worker is gone, and what it was doing with it."""

    worker: str
    reason: Reason = Reason.WORKER_LOST


class AttemptStarted(NamedTuple):
    """A worker has begun an attempt."""

    attempt: AttemptId


class AttemptProgress(NamedTuple):
    """A running attempt has said how far it is."""

    attempt: AttemptId
    ratio: float
    """Done of it, in [0, 1]."""


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
    peak_memory_bytes: int = 0
    """The most that it used; 0 where unknown."""


class ShardSplit(NamedTuple):
    """
    The answer to `Split`: smaller shards take the place of one.

    They are new positions at the end of the stage, in this order, and the output of the shard that they replace does
    not count, even if an attempt at it succeeds. The scheduler stops such attempts. Without sizes: it cannot be split.
    """

    job: str
    stage: int
    shard: int
    sizes: Sequence[int] = ()
    """Input bytes of each of the new shards."""


class OutputLost(NamedTuple):
    """
    The committed output of a shard is damaged or gone: it is computed again and told by a second `Commit`.

    Tell it before the `AttemptEnded` of the attempt that found it: what fails for want of input is not its own doing.
    """

    job: str
    stage: int
    shard: int


class BudgetSpent(NamedTuple):
    """
    A tenant's money or error budget is gone (or there again): jobs that are not critical start nothing.

    A tenant's affair and no job's, so it is in no journal of decisions: who watches the budget tells it to each new
    scheduler, before the jobs that this one resumes (`Executor.spend`, `mppobs.executor.budgets`).
    """

    tenant: str
    spent: bool


class Tick(NamedTuple):
    """Time has passed; sent when a `WaitUntil` is due."""


class Cancel(NamedTuple):
    """A job is no longer wanted."""

    job: str


Event = (
    JobSubmitted | StageOpened | WorkerUp | WorkerDraining | WorkerLost | AttemptStarted | AttemptProgress
    | AttemptEnded | ShardSplit | OutputLost | BudgetSpent | Tick | Cancel
)  # fmt: skip


class StageReady(NamedTuple):
    """All that a stage needs is done. To be answered with `StageOpened`, at once or later."""

    job: str
    stage: int


class Submit(NamedTuple):
    """Give an attempt to a worker."""

    attempt: AttemptId
    worker: str
    speculative: bool = False
    """Whether another attempt at the shard is running."""


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
    outcome: JobOutcome = JobOutcome.FAILURE
    """As what the job ends because of it, unless something else went wrong before."""


class Split(NamedTuple):
    """Cut a shard into about so many parts, if that can be done. To be answered with `ShardSplit`, at once or later."""

    job: str
    stage: int
    shard: int
    parts: int


class StageDone(NamedTuple):
    """Every shard of a stage is committed. Told again where output that was lost is there again."""

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


class Scale(NamedTuple):
    """Have so many workers. Those to go are the backend's choice; it announces them as draining."""

    workers: int


class SetAside(NamedTuple):
    """A node is slow: it is given nothing before this time. To be recorded; nothing needs to be done."""

    node: str
    until_ns: int


Action = (
    StageReady | Submit | Stop | Commit | ShardFailed | Split | StageDone | JobEnded | WaitUntil | Scale | SetAside
)  # fmt: skip


class Load(NamedTuple):
    """What the scheduler has on its hands; feeds the coordinator's heartbeat."""

    pending_jobs: int
    running_jobs: int
    pending_shards: int
    running_shards: int
    idle_workers: int
    busy_workers: int
    draining_workers: int = 0
