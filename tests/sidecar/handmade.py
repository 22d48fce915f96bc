"""A hand-made aggregator for tests of the HTTP side: figures that are typed in, and a spool that is a dictionary."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import httpx
import uvicorn
from fastapi import FastAPI

from mppobs.clock import ManualClock
from mppobs.model import (
    AttemptOutcome,
    CostKind,
    JobKey,
    JobOutcome,
    Reason,
    RunKind,
    ShardOutcome,
    StragglerCause,
    Tier,
)  # fmt: skip
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals, StageKey, StageTotals
from mppobs.sidecar.reading import Check, ShardQuery, ShardRow
from mppobs.sidecar.schemas import LiveReport
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.store_jobs import JobPage, JobQuery, JobSummary, StageSummary, merge_pages
from mppobs.sidecar.view import Live, LiveAttempt, LivePipeline, LiveStraggler, SloFigures, View
from mppobs.sidecar.web import Parts
from mppobs.slo.evaluate import Evaluator
from mppobs.slo.model import Bounds, Counts, IndicatorKind, Slo

START_NS = 1_700_000_000_000_000_000
SECOND = 10**9


def summary(number: int, *, state: str = "settled", pipeline: str = "nightly", job_id: str = "") -> JobSummary:
    """Return the run that began `number` seconds after the start of time."""
    start = START_NS + number * SECOND
    settled = state == "settled"
    return JobSummary(
        key=JobKey("default", "default", job_id or f"job-{number}", start),
        pipeline=pipeline,
        state=state,
        owner="team",
        tier=Tier.CRITICAL,
        outcome=JobOutcome.SUCCESS if settled else None,
        submit_ns=start - SECOND,
        start_ns=start,
        end_ns=start + 60 * SECOND if settled else 0,
        settled_ns=start + 65 * SECOND if settled else 0,
        planned=10,
        dispatched=11,
        recorded=11,
        shards={ShardOutcome.COMMITTED: 10 if settled else 4},
        attempts={AttemptOutcome.SUCCESS: 10, AttemptOutcome.ERROR: 1},
        retries=1,
        cost_pusd={CostKind.USEFUL: 2 * 10**12, CostKind.RETRY: 10**12},
        stages=(StageSummary("map", 10, {ShardOutcome.COMMITTED: 10}, median_ns=2 * SECOND, p99_ns=5 * SECOND),),
    )


def totals(pipeline: str, tenant: str = "default", cluster: str = "default") -> tuple[PipelineTotals, StageTotals]:
    """Return a pipeline that has counted something, and its one stage."""
    found = PipelineTotals(PipelineKey(cluster, tenant, pipeline), owner="team")
    found.jobs[JobOutcome.SUCCESS] = 3
    found.jobs[JobOutcome.ERROR] = 1
    found.durations.observe(60 * SECOND)
    found.cost_pusd[CostKind.USEFUL] = 12 * 10**12
    found.job_cost.observe(12 * 10**12)
    found.recorded, found.dispatched = 99, 100
    stage = StageTotals(StageKey(cluster, tenant, pipeline, "map"))
    stage.shards[ShardOutcome.COMMITTED] = 99
    stage.shards[ShardOutcome.LOST] = 1
    stage.attempts[AttemptOutcome.SUCCESS] = 99
    stage.retries = 3
    return found, stage


@dataclass
class HandMade:
    """An aggregator that holds what a test put into it."""

    running: list[JobSummary] = field(default_factory=list)
    finished: list[JobSummary] = field(default_factory=list)
    shard_rows: list[ShardRow] = field(default_factory=list)
    current: View = field(default_factory=View)
    ready: bool = True
    failing: bool = False

    @contextmanager
    def view(self, now_ns: int) -> Iterator[View]:
        """Hand out the view."""
        if self.failing:
            raise RuntimeError("a secret that no client may see")
        yield self.current

    def jobs(self, query: JobQuery, *, running: bool, finished: bool) -> JobPage:
        """Page through the lists, as the store does."""
        decided = [job for job in self.finished if query.admits(job)] if finished else []
        decided.sort(key=lambda job: job.order, reverse=True)
        return merge_pages(self.running if running else [], decided[: query.limit + 1], query)

    def runs(self, job_id: str) -> Sequence[JobSummary]:
        """Find runs by name."""
        found = [job for job in self.running + self.finished if job.key.job_id == job_id]
        return sorted(found, key=lambda job: job.order, reverse=True)

    def shards(self, job: JobKey, query: ShardQuery) -> Sequence[ShardRow]:
        """Filter, order and cut the rows."""
        rows = [
            row for row in self.shard_rows if query.stage in (None, row.stage) and query.outcome in (None, row.outcome)
        ]
        if query.worst:
            rows = [row for row in rows if row.outcome is not ShardOutcome.COMMITTED]
        if query.slowest:
            rows.sort(key=lambda row: -row.duration_ns)
        return rows[query.offset : query.offset + query.limit]

    def checks(self, now_ns: int) -> list[Check]:
        """Say what the test said."""
        return [Check(name="engine", ok=self.ready, detail="" if self.ready else "stopped")]

    def settle(self, job: JobSummary) -> None:
        """Move a job from the running to the finished, as a round does."""
        self.running.remove(job)
        end = job.start_ns + 60 * SECOND
        self.finished.append(
            replace(job, state="settled", outcome=JobOutcome.SUCCESS, end_ns=end, settled_ns=end + SECOND)
        )


@dataclass(frozen=True)
class Stored:
    """What became of bytes."""

    status: str
    size: int


@dataclass
class HandMadeSpool:
    """Segments as byte strings."""

    segments: dict[tuple[str, int], bytes] = field(default_factory=dict)
    reports: list[LiveReport] = field(default_factory=list)
    verdict: str = ""

    def append(self, journal: str, segment: int, offset: int, data: bytes) -> Stored:
        """Append at the end, acknowledge a repeat, and refuse a hole."""
        have = self.segments.get((journal, segment), b"")
        if self.verdict:
            return Stored(self.verdict, len(have))
        if offset > len(have):
            return Stored("conflict", len(have))
        new = have[:offset] + data if offset + len(data) > len(have) else have
        self.segments[journal, segment] = new
        return Stored("ok", len(new))

    def report(self, live: LiveReport) -> None:
        """Keep a report."""
        self.reports.append(live)


QUERIED: Final = Slo(
    "web", "gateway", IndicatorKind.PROMQL, Fraction(99, 100), 14, "", owner="edge",
    bounds=Bounds(good_query='requests_total{code!="500"}', total_query="requests_total"),
)  # fmt: skip
"""An SLO that Prometheus counts."""


def promises() -> list[SloFigures]:
    """Return an SLO that has spent its budget and is latched, and one that has all of it; both since 100 seconds."""
    nightly = Slo(
        "risk", "nightly-on-time", IndicatorKind.ON_TIME, Fraction(95, 100), 30, "nightly", owner="scoring",
        tier=Tier.CRITICAL, exclude=(RunKind.DRILL,), expected_events=30,
    )  # fmt: skip
    hourly = Slo("ads", "hourly-shards", IndicatorKind.SHARD_SUCCESS, Fraction(999, 1000), 28, "hourly", tenant="ads")
    evaluator = Evaluator()
    evaluator.watch([nightly, hourly], START_NS)
    evaluator.tally(nightly).add(Counts(3, 2), START_NS + SECOND)
    evaluator.tally(hourly).add(Counts(10_000, 4), START_NS + SECOND)
    evaluator.watch([replace(nightly, objective=Fraction(9, 10)), hourly], START_NS + 2 * SECOND)
    return [
        SloFigures(slo, evaluator.tally(slo), latched, Fraction(0), provisional=1)
        for slo, latched in zip(evaluator.slos, (True, None), strict=True)
    ]


def populated() -> HandMade:
    """Return an aggregator with two pipelines, three finished jobs and one that runs and has a straggler."""
    nightly, nightly_map = totals("nightly")
    hourly, hourly_map = totals("hourly", tenant="ads")
    runs = summary(9, state="running")
    attempt = LiveAttempt(
        nightly_map.key, runs.key, "part-7", 0, False, runs.start_ns, 0.5, runs.start_ns, 0, "w-1", "node-1"
    )
    straggler = LiveStraggler(attempt, 30.0, 30.0, StragglerCause.SKEW, "reads 4 times the median input")
    live = Live(
        pipelines={nightly.key: LivePipeline(jobs={"pending": 0, "running": 1}, memory={"0.9": 0.5, "1": 0.75})},
        attempts=(attempt,),
        stragglers=(straggler,),
    )
    view = View(
        pipelines={nightly.key: nightly, hourly.key: hourly},
        stages={nightly_map.key: nightly_map, hourly_map.key: hourly_map},
        live=live,
        slos=promises(),
        queried_slos=[QUERIED],
    )
    rows = [
        ShardRow("map", number, ShardOutcome.COMMITTED, 1, START_NS, START_NS + number * SECOND, number * SECOND)
        for number in range(10)
    ]
    rows.append(ShardRow("map", "odd", ShardOutcome.LOST, 2, START_NS, START_NS, 0, Reason.NODE_LOST))
    return HandMade([runs], [summary(1), summary(2), summary(3, pipeline="hourly")], rows, view)


def parts(reading: HandMade, spool: HandMadeSpool | None = None, *, agent: bool = False, **settings: Any) -> Parts:
    """Return what an application is made of, with some settings changed."""
    made = SidecarSettings(directories=(Path("/nowhere"),), **settings)
    clock = ManualClock(START_NS + 100 * SECOND)
    if agent:
        return Parts(made, HandMade(current=View(agent=True)), clock=clock)
    return Parts(made, reading, reading, spool, clock=clock)


class Client:
    """A client that calls an application without a socket. Close it, or use it as a context."""

    def __init__(self, app: FastAPI, headers: Mapping[str, str] | None = None) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://sidecar", headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and return its whole answer."""
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Get a path."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Post to a path."""
        return self.request("POST", path, **options)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port of loopback from a thread, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
