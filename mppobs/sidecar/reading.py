"""What the HTTP side needs of the aggregator, and nothing more: so that it can be tested with hand-made figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mppobs.model import JobKey, Reason, Shard, ShardOutcome
from mppobs.sidecar.store_jobs import JobPage, JobQuery, JobSummary
from mppobs.sidecar.view import View


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of being ready."""

    name: str
    ok: bool
    detail: str = ""
    """What is wrong, or a figure."""


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard of a job, from memory or from the archive. Times in nanoseconds, 0 for not known."""

    stage: str
    shard: Shard
    outcome: ShardOutcome | None
    attempts: int
    first_start_ns: int
    decided_ns: int
    duration_ns: int
    reason: Reason = Reason.NONE
    error_type: str = ""
    input_bytes: int = 0
    worker: str = ""
    """Which ran its first success, or else its newest attempt; what follows is of that attempt too."""
    node: str = ""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    shuffle_read: int = 0
    shuffle_written: int = 0


@dataclass(frozen=True, slots=True)
class ShardQuery:
    """Which shards of a job to list, and from where on."""

    stage: str | None = None
    outcome: ShardOutcome | None = None
    slowest: bool = False
    """Longest duration first; else by stage and shard."""
    worst: bool = False
    """Only what failed, was lost, or is undecided after an attempt that did not succeed; in this order."""
    offset: int = 0
    limit: int = 100


class Exposing(Protocol):
    """What an agent and an aggregator have in common. Every method may be called from any thread."""

    def view(self, now_ns: int) -> AbstractContextManager[View]:
        """Return the present figures; they hold still until the context is left, so leave it soon."""
        ...

    def checks(self, now_ns: int) -> list[Check]:
        """Return the conditions of being ready."""
        ...


class Reading(Exposing, Protocol):
    """The aggregator, as its readers see it."""

    def jobs(self, query: JobQuery, *, running: bool, finished: bool) -> JobPage:
        """Return a page of the jobs that run, of those that are finished, or of both."""
        ...

    def runs(self, job_id: str) -> Sequence[JobSummary]:
        """Return the runs that used a job ID, newest first."""
        ...

    def shards(self, job: JobKey, query: ShardQuery) -> Sequence[ShardRow]:
        """Return the shards that a query admits: from memory while the job runs, else from the archive."""
        ...
