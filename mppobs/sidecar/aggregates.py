"""
What the aggregator keeps for ever: counts by pipeline and by stage, in integers, so that sums are exact in any order.

The fold adds to these, the store makes them durable, the exposition and the API read them. Times are integer
nanoseconds and money integer picodollars (10^-12 US dollars) until the moment they are shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from mppobs.catalog.metrics import DELAY_BUCKETS, JOB_BUCKETS, QUEUE_BUCKETS, SHARD_BUCKETS
from mppobs.model import AttemptOutcome, CostKind, JobOutcome, ShardOutcome, Tier
from mppobs.sidecar.sketch import WindowedSketch

BASELINE_JOBS = 20
"""How many successful jobs a pipeline's baseline is the median of."""


class PipelineKey(NamedTuple):
    """The labels of a pipeline's series, in the catalogue's order."""

    cluster: str
    tenant: str
    pipeline: str


class StageKey(NamedTuple):
    """The labels of a stage's series, in the catalogue's order."""

    cluster: str
    tenant: str
    pipeline: str
    stage: str

    @property
    def of_pipeline(self) -> PipelineKey:
        """Return the key of the pipeline that the stage belongs to."""
        return PipelineKey(self.cluster, self.tenant, self.pipeline)


class Exemplar(NamedTuple):
    """One observation that a bucket can be traced back to."""

    job_id: str
    shard_id: str
    """Empty where the observation is of a whole job."""
    trace_id: int
    value: float
    time_ns: int


@dataclass(slots=True)
class Histogram:
    """Counts by exponential bucket, not cumulative; the last is of what passes every bound."""

    bounds: tuple[float, ...]
    """Upper bounds in seconds, inclusive."""
    counts: list[int] = field(default_factory=list)
    sum_ns: int = 0
    exemplars: list[Exemplar | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Give every bucket its place."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.exemplars = self.exemplars or [None] * (len(self.bounds) + 1)

    def observe(self, value_ns: int, exemplar: Exemplar | None = None) -> None:
        """
        Count one duration, in nanoseconds.

        >>> histogram = Histogram((1.0, 4.0))
        >>> histogram.observe(1_000_000_000); histogram.observe(5_000_000_000)
        >>> histogram.counts
        [1, 0, 1]
        """
        index = bisect_left(self.bounds, value_ns / 1e9)
        self.counts[index] += 1
        self.sum_ns += value_ns
        if exemplar is not None:
            self.exemplars[index] = exemplar


@dataclass(slots=True)
class Summary:
    """A sum and a count, for averages over any window."""

    count: int = 0
    total: int = 0

    def observe(self, value: int) -> None:
        """Count one value."""
        self.count += 1
        self.total += value


@dataclass(slots=True)
class StageTotals:
    """Everything counted for one stage of one pipeline since the store was made."""

    key: StageKey
    shards: dict[ShardOutcome, int] = field(default_factory=lambda: dict.fromkeys(ShardOutcome, 0))
    attempts: dict[AttemptOutcome, int] = field(default_factory=lambda: dict.fromkeys(AttemptOutcome, 0))
    retries: int = 0
    cpu_ns: int = 0
    cpu_wall_ns: int = 0
    """Wall time of the attempts whose CPU time is counted."""
    wall_ns: int = 0
    """Wall time of all attempts."""
    shuffle_read: int = 0
    shuffle_written: int = 0
    rows: int = 0
    durations: Histogram = field(default_factory=lambda: Histogram(SHARD_BUCKETS))
    sketch: WindowedSketch = field(default_factory=WindowedSketch)
    activity_ns: dict[str, int] = field(default_factory=dict)
    skew_idle_ratio: float | None = None


@dataclass(slots=True)
class PipelineTotals:
    """Everything counted for one pipeline since the store was made."""

    key: PipelineKey
    owner: str = ""
    tier: Tier = Tier.STANDARD
    jobs: dict[JobOutcome, int] = field(default_factory=lambda: dict.fromkeys(JobOutcome, 0))
    durations: Histogram = field(default_factory=lambda: Histogram(JOB_BUCKETS))
    queue: Histogram = field(default_factory=lambda: Histogram(QUEUE_BUCKETS))
    delays: Histogram = field(default_factory=lambda: Histogram(DELAY_BUCKETS))
    job_shuffle: Summary = field(default_factory=Summary)
    baseline: deque[int] = field(default_factory=lambda: deque(maxlen=BASELINE_JOBS))
    """Shuffle bytes of the newest successful jobs."""
    baseline_ratio: float | None = None
    network_errors: dict[str, int] = field(default_factory=dict)
    storage_throttled: dict[str, int] = field(default_factory=dict)
    throttled_ns: int = 0
    oom_kills: int = 0
    cost_pusd: dict[CostKind, int] = field(default_factory=lambda: dict.fromkeys(CostKind, 0))
    job_cost: Summary = field(default_factory=Summary)
    """Of finished jobs, in picodollars."""
    heartbeat_ns: int = 0
    recorded: int = 0
    dispatched: int = 0
    """Attempts recorded and dispatched in coordinated jobs that have been judged."""


@dataclass(slots=True)
class ClusterTotals:
    """What is counted by cluster alone."""

    cluster: str
    workers_lost: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class SelfTotals:
    """What the tool counts of itself while folding; by the `kind` or `reason` label of its metric."""

    records: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    invalid: dict[str, int] = field(default_factory=dict)
    series_folded: dict[str, int] = field(default_factory=dict)
