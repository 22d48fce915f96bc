"""
What is shown: the committed totals, what runs now, and the sidecar's own figures, as one value.

The exposition and the API read this and nothing else. Build it and read it under the engine's lock: totals are
the fold's own objects and change with the next round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from mppobs.catalog.foresight import ChargeEnd, Foresight, Weight
from mppobs.model import JobKey, Shard, StragglerCause, Tier
from mppobs.sidecar.aggregates import (
    ClusterTotals,
    PipelineKey,
    PipelineTotals,
    SelfTotals,
    StageKey,
    StageTotals,
)
from mppobs.slo.evaluate import Tally
from mppobs.slo.foresight import Outlook
from mppobs.slo.model import Counts, Slo


@dataclass(frozen=True, slots=True)
class LiveAttempt:
    """An attempt that runs now."""

    key: StageKey
    job: JobKey
    shard: Shard
    attempt: int
    speculative: bool
    started_ns: int
    progress: float | None
    """In [0, 1]; `None` where it never said."""
    progressed_ns: int
    """When it last said so; 0 for never."""
    checkpoint_ns: int
    worker: str
    node: str
    input_bytes: int = 0
    """0 where not known."""
    stage: str = ""
    """Its own, where `key` has `__other__`."""


@dataclass(frozen=True, slots=True)
class LiveStraggler:
    """An attempt that holds its stage, with its likely cause."""

    attempt: LiveAttempt
    elapsed: float
    """Seconds, as the next."""
    left: float
    cause: StragglerCause
    evidence: str


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What is foretold of a running job."""

    outlook: Outlook | None = None
    """`None` where there is nothing to go by."""
    weight: Weight | None = None
    """Set while it is likely to pass its deadline."""
    deadline_ns: int = 0
    """Its own, or the first that an SLO sets it; 0 for none."""


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A job that is pending or running, or ended a moment ago."""

    key: PipelineKey
    job: JobKey
    owner: str
    tier: Tier
    state: str
    """`pending`, `running`, or how it ended."""
    started_ns: int
    progress: float | None
    """Decided over planned shards; `None` before anything is planned."""
    predicted_finish_ns: int | None
    deadline_ns: int
    """0 for none."""
    finish_bounds_ns: tuple[int, int] | None = None
    """Between these it finishes in nine cases of ten; `None` where nothing is predicted."""
    weight: Weight | None = None
    """Set while it is likely to pass its deadline: whether that is charged, or only a warning."""
    late_ns: int = 0
    """By how much, then."""


@dataclass(slots=True)
class LivePipeline:
    """What runs now of one pipeline."""

    jobs: dict[str, int] = field(default_factory=lambda: {"pending": 0, "running": 0})
    shards: dict[str, int] = field(default_factory=lambda: {"pending": 0, "running": 0})
    stragglers: dict[StragglerCause, int] = field(default_factory=lambda: dict.fromkeys(StragglerCause, 0))
    stuck: int = 0
    checkpoint_lag: float | None = None
    """Seconds; `None` where no running job takes checkpoints."""
    recorded: int = 0
    dispatched: int = 0
    """Attempts recorded and dispatched in coordinated jobs that run."""
    memory: dict[str, float] = field(default_factory=dict)
    """Peak memory over limit by quantile, over live workers; empty where no worker has a limit."""


@dataclass(frozen=True, slots=True)
class Live:
    """What runs now."""

    pipelines: Mapping[PipelineKey, LivePipeline] = field(default_factory=dict)
    runs: Sequence[LiveRun] = ()
    """All of them, the worst first."""
    stragglers: Sequence[LiveStraggler] = ()
    """All of them, the one with most time left first."""
    attempts: Sequence[LiveAttempt] = ()
    workers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By cluster, by state."""
    journals: Mapping[str, int] = field(default_factory=dict)
    """`live` and `dead`."""


@dataclass(frozen=True, slots=True)
class ForesightFigures:
    """How good the predictions have been that an SLO was charged by."""

    settled: Mapping[ChargeEnd, int]
    """Charges, by what became of them."""
    verdicts: Mapping[Foresight, int]
    """Judged jobs."""
    runs: int
    """By which predictions are calibrated."""
    coverage: float | None
    """Share of those runs' predictions whose interval held the finish; `None` where there is none."""
    warned: int = 0
    """Running jobs that are likely to become bad events and are not charged, for want of calibration."""


@dataclass(frozen=True, slots=True)
class SloFigures:
    """How an SLO stands, as committed; the tally is the engine's own and changes."""

    slo: Slo
    tally: Tally
    latched: bool | None
    """Whether its newest event was bad; `None` where it has events enough for a rate."""
    budget_left: Fraction
    windows: Mapping[str, Counts] = field(default_factory=dict)
    """Those that reach beyond what Prometheus keeps, by name."""
    provisional: int = 0
    """Running jobs that are predicted to become bad events."""
    foresight: ForesightFigures | None = None
    """`None` where nothing can be foretold: its events are no finishes of jobs."""


@dataclass(frozen=True, slots=True)
class ToolFigures:
    """What the sidecar counts of itself outside the fold."""

    lag_seconds: float = 0.0
    fold_ns: int = 0
    commits: int = 0
    received_bytes: int = 0
    shipped_bytes: int = 0
    ship_errors: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    spans_exported: int = 0
    spans_dropped: Mapping[str, int] = field(default_factory=dict)
    archived_shards: int = 0
    unarchived_jobs: int = 0
    refused_rounds: int = 0
    lost_records: int = 0
    quarantined_journals: int = 0
    unreadable_files: int = 0
    failed_predictions: int = 0
    slo_reload_errors: int = 0
    scrape_seconds: float | None = None
    """How long the exposition before this one took; the renderer fills it in."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one exposition shows."""

    pipelines: Mapping[PipelineKey, PipelineTotals] = field(default_factory=dict)
    stages: Mapping[StageKey, StageTotals] = field(default_factory=dict)
    clusters: Mapping[str, ClusterTotals] = field(default_factory=dict)
    own: SelfTotals = field(default_factory=SelfTotals)
    live: Live = field(default_factory=Live)
    slos: Sequence[SloFigures] = ()
    queried_slos: Sequence[Slo] = ()
    """Those that Prometheus counts by queries of their own: nothing of how they stand is known here."""
    slo_problem: str = ""
    """Why the newest change of their files is refused; empty where it is not."""
    tool: ToolFigures = field(default_factory=ToolFigures)
    agent: bool = False
    """Whether only the tool's own metrics are shown: an agent computes no others."""
    max_runs: int = 50
    """Jobs that get `mpp_run_*` gauges."""
    worst_k: int = 10
    """Stragglers that are named."""
