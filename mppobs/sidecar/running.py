"""
A job while it runs, and what is left of it when it is judged: times, totals by stage, its shards, kept attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mppobs.model import (
    AttemptOutcome,
    Context,
    CostKind,
    HeartbeatRecord,
    JobKey,
    JobOutcome,
    Reason,
    Shard,
    ShardOutcome,
    WorkerInfo,
)  # fmt: skip
from mppobs.sidecar.aggregates import PipelineKey, StageKey
from mppobs.sidecar.kept import KeptAttempt as KeptAttempt
from mppobs.sidecar.kept import KeptAttempts
from mppobs.sidecar.tables import ShardColumns, ShardTable


@dataclass(slots=True, eq=False)
class JobStage:
    """One stage of one job."""

    name: str
    key: StageKey
    """Under which its figures count; a stage beyond the cap counts under `__other__`."""
    table: ShardTable = field(default_factory=ShardTable)
    planned: int = 0
    """Shards planned, less those that were split."""
    plan_final: bool = False
    input_bytes: int = 0
    """Of the plan."""
    split: int = 0
    """Rows of the table that were split."""
    shards: dict[ShardOutcome, int] = field(default_factory=lambda: dict.fromkeys(ShardOutcome, 0))
    attempts: dict[AttemptOutcome, int] = field(default_factory=lambda: dict.fromkeys(AttemptOutcome, 0))
    retries: int = 0
    cpu_ns: int = 0
    cpu_wall_ns: int = 0
    wall_ns: int = 0
    shuffle_read: int = 0
    shuffle_written: int = 0
    rows: int = 0
    output_bytes: int = 0
    output_rows: int = 0
    """Of commits, as `output_bytes`."""
    first_start_ns: int = 0
    """The earliest start of an attempt; 0 for none."""
    last_end_ns: int = 0
    """The latest end of an attempt, or commit."""
    dispatched: int = 0
    recorded: int = 0
    """Of the dispatched attempts, those whose record is there."""
    activity_ns: dict[str, int] = field(default_factory=dict)
    skew_idle_ratio: float | None = None
    """Set when the job is judged."""

    @property
    def seen(self) -> int:
        """Return how many shards there is any record of; split ones do not count."""
        return len(self.table) - self.split

    @property
    def total(self) -> int:
        """Return how many shards the stage is known to have."""
        return max(self.planned, self.seen)

    @property
    def decided(self) -> int:
        """Return how many shards are decided."""
        return sum(self.shards.values())

    @property
    def committed(self) -> int:
        """Return how many shards are committed."""
        return self.shards[ShardOutcome.COMMITTED]

    def columns(self) -> ShardColumns:
        """Return its shards, one row each."""
        return self.table.columns()


@dataclass(slots=True, eq=False)
class RunningJob:
    """
    One run. Times are nanoseconds since the epoch as records say them, 0 for never, but where it says otherwise.
    """

    key: JobKey
    context: Context
    """Of the job as a whole, with the incarnation of `key`; stage and task are empty."""
    pipeline: PipelineKey
    """Under which it counts; a pipeline beyond the cap counts under `__other__`."""
    start_ns: int
    submit_ns: int = 0
    implicit: bool = True
    """Opened by its first record; no start has come."""
    unnamed: bool = False
    """Opened by a record that did not know the incarnation; the next start gives it one."""
    coordinated: bool = False
    coordinator: str = ""
    """The journal that said its newest start."""
    deadline_ns: int = 0
    lease_ns: int = 0
    traceparent: str = ""
    aliases: list[int] = field(default_factory=list)
    """Further incarnations by which records name it."""
    orphaned_ns: int = 0
    heartbeat: HeartbeatRecord | None = None
    checkpoint_ns: int = 0
    end_ns: int = 0
    """0 while it runs."""
    outcome: JobOutcome | None = None
    reason: Reason = Reason.NONE
    error_type: str = ""
    ended_ns: int = 0
    """Time of the round that folded the end; 0 while there is none."""
    last_record_ns: int = 0
    """Time of the round that folded a record of it last."""
    last_end_ns: int = 0
    """The latest end of an attempt, or commit."""
    stages: dict[str, JobStage] = field(default_factory=dict)
    cost_pusd: dict[CostKind, int] = field(default_factory=lambda: dict.fromkeys(CostKind, 0))
    network_errors: int = 0
    storage_throttled: int = 0
    workers: list[WorkerInfo] = field(default_factory=list)
    """What the `worker` column of a shard table counts in, from 1; 0 is nobody."""
    worker_numbers: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=lambda: [""])
    """What the `error` column of a shard table counts in."""
    kept: KeptAttempts = field(default_factory=KeptAttempts)
    vanished: int = 0
    """Dispatched attempts without a record; set when it is judged."""
    unexplained: dict[tuple[str, int, int, int], tuple[int, int]] = field(default_factory=dict)
    """Network errors and throttled requests that details named, by attempt, until the attempt's own record comes."""

    @property
    def heartbeat_ns(self) -> int:
        """Return the time of the newest heartbeat."""
        return self.heartbeat.time_ns if self.heartbeat else 0

    @property
    def planned(self) -> int:
        """Return the number of planned shards, over all stages."""
        return sum(stage.planned for stage in self.stages.values())

    @property
    def seen(self) -> int:
        """Return the number of shards of which there is any record."""
        return sum(stage.seen for stage in self.stages.values())

    @property
    def total(self) -> int:
        """Return the number of shards that the job is known to have."""
        return sum(stage.total for stage in self.stages.values())

    @property
    def decided(self) -> int:
        """Return the number of decided shards."""
        return sum(stage.decided for stage in self.stages.values())

    @property
    def committed(self) -> int:
        """Return the number of committed shards."""
        return sum(stage.committed for stage in self.stages.values())

    @property
    def dispatched(self) -> int:
        """Return the number of attempts handed out."""
        return sum(stage.dispatched for stage in self.stages.values())

    @property
    def recorded(self) -> int:
        """Return how many of the dispatched attempts have their record."""
        return sum(stage.recorded for stage in self.stages.values())

    @property
    def shuffle_bytes(self) -> int:
        """Return the bytes written to and read from exchanges."""
        return sum(stage.shuffle_read + stage.shuffle_written for stage in self.stages.values())

    @property
    def total_cost_pusd(self) -> int:
        """Return what it cost so far, waste included, in picodollars."""
        return sum(self.cost_pusd.values())

    def shard(self, stage: str, key: int) -> Shard:
        """Return the shard behind a key."""
        found = self.stages.get(stage)
        return found.table.name_of(key) if found else ShardTable().name_of(key)


@dataclass(frozen=True, slots=True)
class DecidedJob:
    """A judged job, for the archive, the table of jobs and the spans. It no longer changes."""

    key: JobKey
    context: Context
    pipeline: PipelineKey
    start_ns: int
    submit_ns: int
    """When it was asked for; `start_ns` where nobody said."""
    end_ns: int
    settled_ns: int
    """Time of the round that judged it."""
    outcome: JobOutcome
    reason: Reason
    error_type: str
    implicit: bool
    coordinated: bool
    deadline_ns: int
    traceparent: str
    aliases: tuple[int, ...]
    stages: Mapping[str, JobStage]
    cost_pusd: Mapping[CostKind, int]
    network_errors: int
    storage_throttled: int
    dispatched: int
    recorded: int
    vanished: int
    workers: tuple[WorkerInfo, ...]
    errors: tuple[str, ...]
    kept: tuple[KeptAttempt, ...]
    kept_dropped: int
    """Attempts that would have been kept but for the cap."""

    @property
    def duration_ns(self) -> int:
        """Return the completion latency: end minus submission, queue wait included."""
        return max(0, self.end_ns - self.submit_ns)

    @property
    def shuffle_bytes(self) -> int:
        """Return the bytes written to and read from exchanges."""
        return sum(stage.shuffle_read + stage.shuffle_written for stage in self.stages.values())

    @property
    def total_cost_pusd(self) -> int:
        """Return what it cost, waste included, in picodollars."""
        return sum(self.cost_pusd.values())

    @property
    def shards(self) -> dict[ShardOutcome, int]:
        """Return the decided shards by outcome, over all stages."""
        return {outcome: sum(stage.shards[outcome] for stage in self.stages.values()) for outcome in ShardOutcome}
