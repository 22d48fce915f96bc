"""What the executor tells its caller: progress while a job runs, and the result when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from mppobs.errors import MppobsError
from mppobs.model import AttemptOutcome, JobOutcome, Reason, Shard


class JobFailedError(MppobsError):
    """Raised by `JobResult.check` for a job that did not succeed. The message names the first shards that failed."""


class Takeover(NamedTuple):
    """A coordinator that went on with a job, and the one before it. Times are wall time in nanoseconds."""

    fence: int
    """Its number: 2 for the first that took over."""
    holder: str
    """The host and the process."""
    lost: str
    """The one before."""
    last_beat_ns: int
    """When that one last said that it was alive."""
    taken_ns: int
    """When this one had its lease."""
    committed: int
    """Shards that were committed by then."""


class HeavyKey(NamedTuple):
    """A key that holds far more rows than others, as one shard found when it wrote them."""

    key: str
    """The values of the key's columns."""
    partition: int
    rows: int
    """An estimate from a sample."""


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage has come. Counts of shards, but for `attempts`, `retries` and the bytes."""

    stage: str
    planned: int
    done: int = 0
    """Committed."""
    running: int = 0
    failed: int = 0
    """Given up for good."""
    attempts: int = 0
    """Attempts started, retries included."""
    retries: int = 0
    """Attempts started with a number above 0 that were no speculative copies."""
    speculative: int = 0
    """Speculative copies started."""
    split: int = 0
    """Shards that were replaced by smaller ones, which are among the planned ones in their place."""
    shuffle_read: int = 0
    """Bytes read from exchanges by committed shards."""
    shuffle_written: int = 0
    """Bytes written by committed shards."""
    rows: int = 0
    """Rows that committed shards put out, where these were tables."""
    heaviest: tuple[HeavyKey, ...] = ()
    """The keys with most rows that single shards have put out, where some were far heavier than the others."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A running job as its coordinator sees it now."""

    job_id: str
    pipeline: str
    elapsed: float
    """Seconds since submission."""
    stages: tuple[StageProgress, ...]
    workers: int
    """Processes that are up."""

    @property
    def ratio(self) -> float:
        """Return the share of the planned shards that are committed, in [0, 1]."""
        planned = sum(stage.planned for stage in self.stages)
        return sum(stage.done for stage in self.stages) / planned if planned else 0.0


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """A shard that was given up, and what its last attempt said."""

    stage: str
    shard: Shard
    attempts: int
    reason: Reason
    error_type: str
    message: str
    """The exception's text, cut to a few hundred characters."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended, and its answer."""

    job_id: str
    pipeline: str
    outcome: JobOutcome
    reason: Reason
    answer: Any
    """
    What the last stage put out: one `pyarrow.Table`, or the list of the shards' values, in the order of its shards.
    `None` unless the job succeeded.
    """
    stages: tuple[StageProgress, ...]
    attempts: dict[AttemptOutcome, int]
    """Ended attempts by outcome, as the coordinator saw them."""
    failures: tuple[ShardFailure, ...]
    """The first 100 shards that were given up."""
    wall: float
    """Seconds from submission to end."""
    takeovers: tuple[Takeover, ...] = ()
    """Coordinators that went on with the job when the one before them had died."""

    def check(self) -> JobResult:
        """Return the result itself if the job succeeded, else raise `JobFailedError` that says what failed and why."""
        if self.outcome is JobOutcome.SUCCESS:
            return self
        told = "; ".join(
            f"{f.stage}/{f.shard} after {f.attempts} attempts: {f.error_type or f.reason}: {f.message}"
            for f in self.failures[:3]
        )
        raise JobFailedError(f"job {self.job_id} of {self.pipeline} ended as {self.outcome} ({self.reason}). {told}")
