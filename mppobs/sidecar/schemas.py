"""
The shapes of the JSON API, with their documentation: seconds, bytes, US dollars, ratios in [0, 1], times in RFC 3339.

Nothing here computes: `mppobs.sidecar.answers` fills these from what the aggregator keeps.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

from mppobs.catalog.foresight import Weight
from mppobs.model import (
    AttemptOutcome,
    CostKind,
    JobOutcome,
    Reason,
    RunKind,
    ShardOutcome,
    StragglerCause,
    Tier,
)  # fmt: skip

JobState = Literal["running", "finished"]

Seconds = Annotated[float, Field(ge=0)]


class Shape(BaseModel):
    """The base of every shape: frozen, documented by the texts below each field."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="forbid")


class Shards(Shape):
    """Shards by what became of them. A shard is decided once, however many attempts it took."""

    planned: int
    """0 where nobody said how many there are."""
    committed: int
    failed: int
    lost: int
    """Undecided when the job ended."""


class Job(Shape):
    """One run of a pipeline."""

    job_id: str
    incarnation: str
    """Tells the runs that used one `job_id` apart: nanoseconds, as text, since they pass what JSON numbers hold."""
    pipeline: str
    cluster: str
    tenant: str
    owner: str
    tier: Tier
    run_kind: RunKind
    state: JobState
    """A job is `finished` when it has been judged; until then it is `running`, though it may have an outcome."""
    outcome: JobOutcome | None
    """`failure` is the work's fault, `error` the platform's; null until the job has ended."""
    reason: Reason
    error_type: str
    submitted: datetime | None
    started: datetime | None
    ended: datetime | None
    deadline: datetime | None
    """Its own, or while it runs the first that an SLO sets it."""
    predicted_finish: datetime | None
    """Null once the job has ended, or while too little is known; the next two are its interval."""
    predicted_earliest: datetime | None
    """In nine cases of ten it ends between this and the next."""
    predicted_latest: datetime | None
    predicted_late_seconds: Seconds | None
    """How far the predicted finish is past the deadline; null where it is not."""
    at_risk: Weight | None
    """Set while it is likely to miss its deadline: `charge` where that already burns the budget of an SLO on it,
    `warning` where too few runs of the pipeline have ended to trust its predictions so far."""
    late: bool
    """Whether it ended after its deadline, or still runs past it."""
    late_seconds: Seconds | None
    """By how much; of a running job, so far. Null where it is in time, or has no deadline."""
    duration_seconds: Seconds | None
    """End minus submission, queue wait included; of a running job, so far."""
    queue_seconds: Seconds | None
    """Start minus submission."""
    progress_ratio: float | None
    """Decided over planned shards; null where the plan is not known."""
    shards: Shards
    attempts: dict[AttemptOutcome, int]
    retries: int
    """Attempts with a number above 0 that are not speculative."""
    shuffle_read_bytes: int
    shuffle_written_bytes: int
    cost_usd: float | None
    """Null where nothing of it is priced: no worker has a price, or it is nothing."""
    completeness_ratio: float | None
    """Attempts recorded over attempts dispatched; null where no coordinator said what it dispatched."""
    trace_id: str
    """OpenTelemetry's, in hexadecimal; also what tells this run from all others."""


class Stage(Shape):
    """One stage of one job."""

    stage: str
    shards: Shards
    attempts: dict[AttemptOutcome, int]
    retries: int
    rows: int
    shuffle_read_bytes: int
    shuffle_written_bytes: int
    wall_seconds: Seconds
    """Of all attempts, summed."""
    cpu_seconds: Seconds
    median_seconds: Seconds | None
    """Of the durations of committed shards, first start to commit, as the two below."""
    p99_seconds: Seconds | None
    max_seconds: Seconds | None
    tail_ratio: float | None
    """p99 over median."""


class RunningAttempt(Shape):
    """An attempt that runs now."""

    stage: str
    shard: int | str
    attempt: int
    speculative: bool
    worker: str
    node: str
    started: datetime
    elapsed_seconds: Seconds
    progress_ratio: float | None
    """As the attempt last reported; null where it never did."""
    checkpoint: datetime | None


class Straggler(Shape):
    """An attempt that runs far longer than its stage's others."""

    stage: str
    shard: int | str
    attempt: int
    elapsed_seconds: Seconds
    left_seconds: Seconds
    """Estimated."""
    cause: StragglerCause
    evidence: str
    """What speaks for the cause, in one sentence."""
    node: str


class JobDetail(Job):
    """One run of a pipeline with all that is known of it."""

    stages: list[Stage]
    cost_by_kind_usd: dict[CostKind, float]
    """All but `useful` is waste."""
    dispatched: int
    recorded: int
    running: list[RunningAttempt]
    """At most the 500 that have run longest."""
    stragglers: list[Straggler]
    """Worst first."""
    runs: list[str]
    """The incarnations that used this `job_id`, newest first."""


class JobPage(Shape):
    """Some jobs, newest start first."""

    jobs: list[Job]
    next: str | None
    """Pass it as `cursor` for the page after this one; null where this is the last."""


class Shard(Shape):
    """One shard of one stage of a job."""

    stage: str
    shard: int | str
    outcome: ShardOutcome | None
    """Null while undecided."""
    attempts: int
    started: datetime | None
    """Start of the first attempt."""
    decided: datetime | None
    duration_seconds: Seconds | None
    """First start to decision; null while undecided, and where one of the two is not known."""
    reason: Reason
    error_type: str
    """Of the attempt that failed last."""
    input_bytes: int
    worker: str
    """Which ran its first success, or else its newest attempt; what follows is of that attempt too."""
    node: str
    wall_seconds: Seconds
    cpu_seconds: Seconds
    shuffle_read_bytes: int
    shuffle_written_bytes: int


class ShardPage(Shape):
    """Some shards of a job."""

    shards: list[Shard]
    next: str | None
    """Pass it as `cursor` for the page after this one; null where this is the last."""


class Pipeline(Shape):
    """Recurring work, with what was counted since the store was made."""

    pipeline: str
    cluster: str
    tenant: str
    owner: str
    tier: Tier
    stages: list[str]
    jobs_running: int
    jobs: dict[JobOutcome, int]
    shards: dict[ShardOutcome, int]
    shard_success_ratio: float | None
    p50_seconds: Seconds | None
    """Quantiles of the durations of shards committed in the last hour."""
    p95_seconds: Seconds | None
    p99_seconds: Seconds | None
    retry_ratio: float | None
    cost_usd: float | None
    """Null where nothing of it is priced, as of a job."""
    cost_per_job_usd: float | None
    completeness_ratio: float | None


class PipelineList(Shape):
    """Every pipeline, by cluster, tenant and name."""

    pipelines: list[Pipeline]


class SliPart(Shape):
    """A figure that an indicator is made of, or that stands beside it."""

    name: str
    value: float | None
    unit: str


class Sli(Shape):
    """One indicator of one pipeline."""

    key: str
    title: str
    definition: str
    unit: str
    """`seconds`, `bytes`, `usd`, `ratio`, or empty for a count."""
    headline: str
    """What the value is, such as `p99`."""
    value: float | None
    """Null where nothing has happened that it could be computed from."""
    parts: list[SliPart]
    metrics: list[str]
    """The Prometheus metrics that carry it."""


class PipelineSlis(Shape):
    """The indicators of one pipeline, keyed M1 to M12."""

    pipeline: str
    cluster: str
    tenant: str
    indicators: dict[str, Sli]


class SliReport(Shape):
    """The indicators of every pipeline that was asked for."""

    computed: datetime
    pipelines: list[PipelineSlis]


class Check(Shape):
    """One condition of being ready."""

    name: str
    ok: bool
    detail: str


class Index(Shape):
    """What listens here, and where to look."""

    name: Literal["mppobs sidecar"] = "mppobs sidecar"
    version: str
    role: Literal["aggregator", "agent"]
    links: dict[str, str]
    """Paths by what is there."""


class Health(Shape):
    """The process lives."""

    status: Literal["alive"] = "alive"
    version: str


class Readiness(Shape):
    """Whether figures can be trusted to be current, and if not, why."""

    ready: bool
    checks: list[Check]


class Acknowledged(Shape):
    """How far a segment is durable here."""

    acknowledged: int
    """Bytes. After a conflict, where to go on from."""


def _number(value: object) -> object:
    """Refuse to make a number of a text or a flag; JSON's 5.0 is as good an integer as 5."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a number")  # noqa: TRY004 (pydantic reports these, and lets TypeErrors pass)
    return value


Number = BeforeValidator(_number)
Flag = Annotated[bool, Strict()]
Time = Annotated[int, Field(ge=0, lt=2**64), Number]


class SlotState(Shape):
    """An attempt or a job that runs in a worker, as its slot says. Times in nanoseconds, 0 for never."""

    index: Annotated[int, Field(ge=0, lt=2**16), Number]
    context_id: Annotated[int, Field(ge=0, lt=2**31), Number]
    start_ns: Time
    is_job: Flag = False
    shard_key: Annotated[int, Field(ge=0, lt=2**63), Number] = 0
    attempt: Annotated[int, Field(ge=0, lt=2**16), Number] = 0
    speculative: Flag = False
    progress: Annotated[float, Field(ge=0, le=1), Number] | None = None
    progressed_ns: Time = 0
    checkpoint_ns: Time = 0


class JournalState(Shape):
    """What runs in the process that writes one journal."""

    journal: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    alive: Flag
    pid: Annotated[int, Field(ge=0, lt=2**31), Number] = 0
    slots: list[SlotState] = []


class LiveReport(Shape):
    """What runs now below one agent; replaces its report before."""

    agent: Annotated[str, Field(min_length=1, max_length=200)]
    journals: list[JournalState]


class Accepted(Shape):
    """The report is in force until the next one, or until it is too old."""

    journals: int
