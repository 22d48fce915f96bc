"""
Jobs as the API lists them: one summary per run, and queries over those that are decided.

Pages go by (start, uid), newest start first. A job keeps both when it ends, so a page that is asked for while
jobs run, end and arrive neither repeats a job nor skips one.
"""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from mppobs.errors import ConfigError
from mppobs.model import AttemptOutcome, CostKind, JobKey, JobOutcome, Reason, RunKind, ShardOutcome, Tier
from mppobs.sidecar.fold_jobs import EndedJob
from mppobs.trace_ids import trace_id

MAX_PAGE = 1000
"""The largest page that a query may ask for."""

_TOKEN = re.compile(r"(\d{1,19})-([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage of one job."""

    stage: str
    planned: int = 0
    shards: dict[ShardOutcome, int] = field(default_factory=dict)
    attempts: dict[AttemptOutcome, int] = field(default_factory=dict)
    retries: int = 0
    rows: int = 0
    shuffle_read: int = 0
    shuffle_written: int = 0
    wall_ns: int = 0
    cpu_ns: int = 0
    median_ns: int | None = None
    """Of the durations of committed shards, exactly; `None` before the first, as the two below."""
    p99_ns: int | None = None
    max_ns: int | None = None
    first_start_ns: int = 0
    """When its first attempt started, in nanoseconds since the epoch; 0 where not known, as the next."""
    last_end_ns: int = 0


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One run of a pipeline, running or decided. Times in nanoseconds, 0 for not yet; money in picodollars."""

    key: JobKey
    pipeline: str
    state: str
    """`running`, `ended` (its last records are awaited) or `settled`."""
    owner: str = ""
    tier: Tier = Tier.STANDARD
    run_kind: RunKind = RunKind.SCHEDULED
    outcome: JobOutcome | None = None
    reason: Reason = Reason.NONE
    error_type: str = ""
    submit_ns: int = 0
    start_ns: int = 0
    end_ns: int = 0
    settled_ns: int = 0
    deadline_ns: int = 0
    planned: int = 0
    dispatched: int = 0
    recorded: int = 0
    shards: dict[ShardOutcome, int] = field(default_factory=dict)
    attempts: dict[AttemptOutcome, int] = field(default_factory=dict)
    retries: int = 0
    cost_pusd: dict[CostKind, int] = field(default_factory=dict)
    shuffle_read: int = 0
    shuffle_written: int = 0
    stages: tuple[StageSummary, ...] = ()
    aliases: tuple[int, ...] = ()
    """Further incarnations by which records name it: those of coordinators that resumed it."""

    @property
    def uid(self) -> str:
        """Return the name of this run that no other run has: its trace ID, in hexadecimal."""
        return f"{trace_id(self.key):032x}"

    @property
    def order(self) -> PagePlace:
        """Return where the job stands in a listing."""
        return PagePlace(self.start_ns, self.uid)


class PagePlace(NamedTuple):
    """A place in the listing of jobs, as the opaque token of a page carries it."""

    start_ns: int
    uid: str

    @property
    def token(self) -> str:
        """Return the place as text for a URL."""
        return f"{self.start_ns}-{self.uid}"

    @staticmethod
    def parse(token: str) -> PagePlace:
        """
        Return the place that a token names. Raises `ConfigError` where it is none of ours.

        >>> PagePlace.parse("7-" + "0" * 32).start_ns
        7
        """
        found = _TOKEN.fullmatch(token)
        if found is None or int(found[1]) >= 2**63:
            raise ConfigError(f"{token!r} is no page token: take `next` of the page before, unchanged")
        return PagePlace(int(found[1]), found[2])


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list. Every filter that is set must hold."""

    pipeline: str | None = None
    tenant: str | None = None
    cluster: str | None = None
    outcome: JobOutcome | None = None
    job_id: str | None = None
    since_ns: int | None = None
    """Jobs that started at this time or later."""
    until_ns: int | None = None
    """Jobs that started before this time."""
    after: PagePlace | None = None
    """The last job of the page before."""
    limit: int = 100

    def admits(self, job: JobSummary) -> bool:
        """Return whether a job passes the filters and comes after the page before."""
        wanted = (
            (self.pipeline, job.pipeline), (self.tenant, job.key.tenant), (self.cluster, job.key.cluster),
            (self.outcome, job.outcome), (self.job_id, job.key.job_id),
        )  # fmt: skip
        return (
            all(want is None or want == have for want, have in wanted)
            and (self.since_ns is None or job.start_ns >= self.since_ns)
            and (self.until_ns is None or job.start_ns < self.until_ns)
            and (self.after is None or job.order < self.after)
        )


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest start first, and where the next page begins."""

    jobs: list[JobSummary]
    next: PagePlace | None
    """`None` where this page is the last."""


def merge_pages(running: list[JobSummary], decided: list[JobSummary], query: JobQuery) -> JobPage:
    """
    Return the page of a query over jobs that run and jobs that are decided.

    `decided` comes from the store, filtered already, up to one job more than the page holds. A job that
    is in both (it was decided in between) counts as decided.
    """
    seen = {job.uid for job in decided}
    jobs = decided + [job for job in running if job.uid not in seen and query.admits(job)]
    jobs.sort(key=lambda job: job.order, reverse=True)
    page = jobs[: query.limit]
    return JobPage(page, page[-1].order if len(jobs) > len(page) else None)


def insert_jobs(connection: sqlite3.Connection, jobs: list[JobSummary]) -> None:
    """Write decided jobs, within the caller's transaction. Writing one again changes nothing."""
    rows = [
        (job.uid, job.key.cluster, job.key.tenant, job.key.job_id, _bounded(job.key.incarnation), job.pipeline,
         str(job.outcome or ""), _bounded(job.start_ns), _bounded(job.end_ns), _bounded(job.settled_ns),
         f",{','.join(map(str, job.aliases))},", to_json(job))
        for job in jobs
    ]  # fmt: skip
    connection.executemany("INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)


def select_jobs(connection: sqlite3.Connection, query: JobQuery) -> list[JobSummary]:
    """Return the decided jobs that a query admits, one more than its page holds where there are more."""
    where, values = _conditions(query)
    sql = f"SELECT data FROM jobs {where} ORDER BY start_ns DESC, uid DESC LIMIT ?"
    return [from_json(data) for (data,) in connection.execute(sql, (*values, min(query.limit, MAX_PAGE) + 1))]


def select_ended(connection: sqlite3.Connection, key: JobKey, before_ns: int) -> EndedJob | None:
    """
    Return a decided job by any of its names; with incarnation 0 the one of its `job_id` that ended last.

    Only jobs that were settled before a time, so that a round that is folded again finds what it found then.
    """
    sql = (
        "SELECT incarnation, end_ns, settled_ns FROM jobs WHERE job_id = ? AND cluster = ? AND tenant = ? "
        "AND settled_ns < ? AND (? = 0 OR incarnation = ? OR instr(aliases, ?)) ORDER BY end_ns DESC LIMIT 1"
    )
    wanted = _bounded(key.incarnation)
    values = (key.job_id, key.cluster, key.tenant, _bounded(before_ns), wanted, wanted, f",{key.incarnation},")
    row = connection.execute(sql, values).fetchone()
    if row is None:
        return None
    incarnation, end_ns, settled_ns = row
    return EndedJob(replace(key, incarnation=incarnation), end_ns, settled_ns)


def to_json(job: JobSummary) -> str:
    """Return a job as the store keeps it."""
    return json.dumps(asdict(job), separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> JobSummary:
    """Return the job that `to_json` made a text of."""
    data = json.loads(text)
    stages = tuple(StageSummary(**_counted(stage)) for stage in data.pop("stages"))
    key = JobKey(**data.pop("key"))
    outcome = JobOutcome(data["outcome"]) if data["outcome"] else None
    data |= {"outcome": outcome, "reason": Reason(data["reason"]), "tier": Tier(data["tier"])}
    data |= {"run_kind": RunKind(data["run_kind"]), "aliases": tuple(data["aliases"])}
    data["cost_pusd"] = {CostKind(name): count for name, count in data["cost_pusd"].items()}
    return JobSummary(key=key, stages=stages, **_counted(data))


def _counted(data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with the counts by outcome keyed by members again."""
    shards = {ShardOutcome(name): count for name, count in data["shards"].items()}
    attempts = {AttemptOutcome(name): count for name, count in data["attempts"].items()}
    return data | {"shards": shards, "attempts": attempts}


def _conditions(query: JobQuery) -> tuple[str, list[str | int]]:
    """Return the WHERE clause of a query and its values; what a person typed is only ever a value."""
    parts: list[str] = []
    values: list[str | int] = []
    filters = (
        ("pipeline = ?", query.pipeline), ("tenant = ?", query.tenant), ("cluster = ?", query.cluster),
        ("outcome = ?", query.outcome), ("job_id = ?", query.job_id),
        ("start_ns >= ?", query.since_ns), ("start_ns < ?", query.until_ns),
    )  # fmt: skip
    for clause, value in filters:
        if value is not None:
            parts.append(clause)
            values.append(str(value) if isinstance(value, str) else _bounded(value))
    if query.after is not None:
        parts.append("(start_ns, uid) < (?, ?)")
        values += query.after
    return ("WHERE " + " AND ".join(parts) if parts else ""), values


def _bounded(value: int) -> int:
    """Return a number that SQLite can hold; those outside compare the same at its edge."""
    return max(min(value, 2**63 - 1), -(2**63))
