"""
The vocabulary as values: outcomes, identities and the records that a journal holds.

Everything here is frozen and free of behaviour. Times are integer nanoseconds since the Unix epoch, durations
integer nanoseconds; bytes and rows are counts. What is exposed to people or to Prometheus is in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class AttemptOutcome(StrEnum):
    """How one try at a shard ended. `FAILURE` is the work's fault, `ERROR` the platform's."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    SUPERSEDED = "superseded"


class ShardOutcome(StrEnum):
    """How a shard was decided, once and for good."""

    COMMITTED = "committed"
    FAILED = "failed"
    LOST = "lost"


class JobOutcome(StrEnum):
    """How a job ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    CANCELLED = "cancelled"


class Tier(StrEnum):
    """How much a pipeline matters; decides who is woken."""

    CRITICAL = "critical"
    STANDARD = "standard"
    BESTEFFORT = "besteffort"


class Severity(StrEnum):
    """What an alert does to people: wake them, or wait for the morning."""

    PAGE = "page"
    TICKET = "ticket"


class Reason(StrEnum):
    """Why an attempt, a shard, a worker or a job ended as it did, where that is known."""

    NONE = "none"
    EXCEPTION = "exception"
    WORKER_LOST = "worker_lost"
    OOM_KILLED = "oom_killed"
    COORDINATOR_LOST = "coordinator_lost"
    NODE_LOST = "node_lost"
    NETWORK = "network"
    STORAGE = "storage"
    PREEMPTED = "preempted"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"
    RETRIES_EXHAUSTED = "retries_exhausted"
    SUPERSEDED = "superseded"
    IDLE = "idle"
    NOT_RUN = "not_run"
    MEMORY = "memory"


class JobEvent(StrEnum):
    """What a `JobRecord` says. `ORPHANED`: its process died; `SETTLED`: the aggregator has judged it."""

    START = "start"
    END = "end"
    ORPHANED = "orphaned"
    SETTLED = "settled"
    CHECKPOINT = "checkpoint"


class WorkerEvent(StrEnum):
    """What a `WorkerRecord` says. `SELF` opens every segment and describes the process that writes it."""

    SELF = "self"
    UP = "up"
    LOST = "lost"
    DRAINING = "draining"


class DetailKind(StrEnum):
    """What the named amounts of a `DetailRecord` are."""

    ACTIVITY = "activity"
    NETWORK_ERROR = "network_error"
    STORAGE_THROTTLED = "storage_throttled"


class CostKind(StrEnum):
    """What the money bought. Everything but `USEFUL` is waste."""

    USEFUL = "useful"
    RETRY = "retry"
    SPECULATION = "speculation"
    PREEMPTED = "preempted"
    IDLE = "idle"


class StragglerCause(StrEnum):
    """Why a shard runs long, as far as its records tell."""

    SKEW = "skew"
    SLOW_NODE = "slow_node"
    IO = "io"
    UNKNOWN = "unknown"


class RunKind(StrEnum):
    """Why a job ran. SLOs leave out the kinds that they name."""

    SCHEDULED = "scheduled"
    BACKFILL = "backfill"
    DRILL = "drill"


Shard = int | str
"""A shard's identifier within its stage: a non-negative integer (cheapest) or any text."""


@dataclass(frozen=True, slots=True)
class JobKey:
    """What tells one run from every other."""

    cluster: str
    tenant: str
    job_id: str
    incarnation: int
    """Wall time in nanoseconds at which this use of the `job_id` began; 0 where the writer does not know it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all the attempts of one stage of one job share. Interned once per segment; records carry its number."""

    pipeline: str
    job_id: str
    incarnation: int = 0
    stage: str = ""
    """Empty in the context of the job itself."""
    task: str = ""
    """The decorated function, `module.qualname`."""
    tenant: str = "default"
    owner: str = ""
    tier: Tier = Tier.STANDARD
    cluster: str = "default"
    run_kind: RunKind = RunKind.SCHEDULED
    deadline_ns: int = 0
    """When the job must have finished; 0 for none."""

    @property
    def job_key(self) -> JobKey:
        """Return the identity of the job that this context belongs to."""
        return JobKey(self.cluster, self.tenant, self.job_id, self.incarnation)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Where a process runs and what it costs. Read once, when its journal is opened."""

    worker: str
    """A name that is unique in the cluster, `host-pid` unless the platform gives a better one."""
    node: str = ""
    zone: str = ""
    node_type: str = ""
    """The key into the price list, such as `m5.4xlarge`; empty for unknown."""
    spot: bool = False
    dedicated: bool = False
    """Whether the process exists only to run attempts, so that its idle time is somebody's bill."""
    lanes: int = 1
    """How many attempts it runs at a time."""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A text and the number by which later records of the segment name it, or the name behind a shard key."""

    text: str
    text_id: int = 0
    shard_key: int = 0
    """Non-zero where the text is a shard's name: see `mppobs.journal.format.shard_key`."""


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A context and the number by which later records of the segment name it."""

    context_id: int
    context: Context


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as it describes itself, or as a coordinator saw it come and go."""

    event: WorkerEvent
    time_ns: int
    info: WorkerInfo
    reason: Reason = Reason.NONE


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A step in the life of a job. Written by its coordinator, or by the aggregator on its behalf."""

    event: JobEvent
    context_id: int
    time_ns: int
    outcome: JobOutcome | None = None
    """Only with `END`."""
    reason: Reason = Reason.NONE
    error_type: str = ""
    submit_ns: int = 0
    """When the job was asked for; 0 where start and submission are one."""
    deadline_ns: int = 0
    lease_ns: int = 0
    """How long the job outlives its coordinator before it is judged `coordinator_lost`."""
    coordinated: bool = False
    """Whether shards are decided by `CommitRecord`s only, never by a first success."""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """Shards added to the plan of a stage. With `parent`, they replace that shard (a split)."""

    context_id: int
    time_ns: int
    added: int
    final: bool = False
    """Whether the stage's plan is complete with this record."""
    parent_key: int | None = None
    input_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DispatchRecord:
    """An attempt handed to a worker, as the coordinator saw it."""

    context_id: int
    shard_key: int
    attempt: int
    time_ns: int
    speculative: bool = False
    worker: str = ""
    input_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One finished try at a shard: the record for which everything else exists."""

    context_id: int
    shard_key: int
    attempt: int
    outcome: AttemptOutcome
    start_ns: int
    duration_ns: int
    reason: Reason = Reason.NONE
    error_type: str = ""
    speculative: bool = False
    cpu_ns: int | None = None
    """CPU time of the thread; `None` for asynchronous attempts, which share theirs, and for killed ones."""
    delay_ns: int | None = None
    """Assignment to start; `None` where nobody said when it was assigned."""
    rows: int = 0
    shuffle_read: int = 0
    shuffle_written: int = 0
    network_errors: int = 0
    storage_throttled: int = 0
    peak_rss: int = 0
    """Bytes; the process's high-water mark as last sampled, 0 where unknown."""
    slot: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A shard decided by its coordinator."""

    context_id: int
    shard_key: int
    attempt: int
    """The winning attempt."""
    outcome: ShardOutcome
    time_ns: int
    first_start_ns: int = 0
    """When the shard's first attempt began; 0 where the coordinator does not know."""
    reason: Reason = Reason.NONE
    error_type: str = ""
    output_bytes: int = 0
    output_rows: int = 0


@dataclass(frozen=True, slots=True)
class DetailRecord:
    """Named amounts that belong to one attempt: nanoseconds by activity, or counts by kind."""

    what: DetailKind
    context_id: int
    shard_key: int
    attempt: int
    start_ns: int
    amounts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """What a worker process used so far. Taken on a timer."""

    context_id: int
    """The context that ran last; 0 for none."""
    time_ns: int
    cpu_ns: int
    rss: int
    peak_rss: int
    memory_limit: int
    """Of the cgroup, or the machine's memory where that has none, in bytes; 0 where unknown."""
    throttled_ns: int
    """CFS throttling of the cgroup since it began."""
    oom_kills: int
    """OOM kills of the cgroup since it began."""
    in_flight_ns: int
    """Time that the attempts running now have run so far, summed."""


@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """A coordinator that is alive, and what it has on its hands."""

    context_id: int
    time_ns: int
    pending_jobs: int = 0
    running_jobs: int = 0
    pending_shards: int = 0
    running_shards: int = 0
    idle_workers: int = 0
    busy_workers: int = 0
    draining_workers: int = 0


@dataclass(frozen=True, slots=True)
class DropRecord:
    """What this journal could not hold, in running totals since it was opened."""

    time_ns: int
    attempts: dict[AttemptOutcome, int] = field(default_factory=dict)
    other: int = 0


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The last record of a journal: closed by its owner, or sealed by an agent after the owner's death."""

    time_ns: int
    sealed: bool


Record = (
    TextRecord | ContextRecord | WorkerRecord | JobRecord | PlanRecord | DispatchRecord | AttemptRecord
    | CommitRecord | DetailRecord | SampleRecord | HeartbeatRecord | DropRecord | EndRecord
)  # fmt: skip
"""Any record of a journal, decoded."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What runs now: one occupied slot of a journal."""

    index: int
    context_id: int
    start_ns: int
    is_job: bool = False
    shard_key: int = 0
    attempt: int = 0
    speculative: bool = False
    progress: float | None = None
    """In [0, 1]; `None` where the attempt never said."""
    progressed_ns: int = 0
    """When progress was last reported; 0 for never."""
    checkpoint_ns: int = 0
    """When the last checkpoint was taken; 0 for never."""
