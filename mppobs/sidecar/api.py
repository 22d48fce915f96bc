"""
The JSON API: jobs, shards, pipelines, indicators and SLOs, paged, filtered and typed.

Filters that are misspelt are refused with the nearest right word, so that a query never silently selects more
than was meant. Cursors are opaque: pass `next` back unchanged.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from fastapi.exceptions import RequestValidationError

from mppobs.clock import Clock
from mppobs.errors import ConfigError, nearest
from mppobs.model import JobKey
from mppobs.sidecar import answers
from mppobs.sidecar.aggregates import PipelineKey
from mppobs.sidecar.filters import (
    MAX_LIMIT,
    MAX_NAME,
    JobFilters,
    PipelineFilters,
    RunFilters,
    ShardFilters,
    SloFilters,
)  # fmt: skip
from mppobs.sidecar.problems import ProblemError, documented, short
from mppobs.sidecar.reading import Reading, ShardQuery
from mppobs.sidecar.schemas import JobDetail, JobPage, PipelineList, ShardPage, SliReport
from mppobs.sidecar.schemas_slo import SloInPrometheus, SloList, SloState
from mppobs.sidecar.slo_answers import slo_in_prometheus, slo_state
from mppobs.sidecar.store_jobs import JobQuery, JobSummary, PagePlace
from mppobs.sidecar.view import LivePipeline, LiveRun, SloFigures, View
from mppobs.slo.model import Slo

JobId = Annotated[str, Path(max_length=MAX_NAME, description="The job's name, as whoever ran it gave it.")]

_GUESSES: Final = 200
"""Of so many jobs, the newest, a hint for a misspelt ID is chosen."""
_INVALID: Final = documented(HTTPStatus.UNPROCESSABLE_ENTITY)
_UNKNOWN: Final = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


def api_router(reading: Reading, clock: Clock) -> APIRouter:
    """Return the routes that read. Whoever includes them puts a guard before them where one is needed."""
    router = APIRouter(prefix="/api/v1")
    _job_routes(router, reading, clock)
    _pipeline_routes(router, reading, clock)
    _slo_routes(router, reading, clock)
    return router


def _job_routes(router: APIRouter, reading: Reading, clock: Clock) -> None:
    """Add the routes of jobs. A job's name may hold slashes, so the route of its shards comes first."""

    @router.get("/jobs", tags=["jobs"], responses=_INVALID)
    def jobs(filters: Annotated[JobFilters, Query()]) -> JobPage:
        """List jobs, newest start first. Jobs that end between two pages are neither repeated nor skipped."""
        page = reading.jobs(_query(filters), running=filters.state != "finished", finished=filters.state != "running")
        now = clock.time_ns()
        runs: dict[JobKey, LiveRun] = {}
        if any(each.outcome is None for each in page.jobs):
            with reading.view(now) as view:
                runs = answers.runs_of(view)
        found = [answers.job(each, runs.get(each.key), now) for each in page.jobs]
        return JobPage(jobs=found, next=page.next.token if page.next else None)

    @router.get("/jobs/{job_id:path}/shards", tags=["jobs"], responses=_UNKNOWN)
    def shards(job_id: JobId, filters: Annotated[ShardFilters, Query()]) -> ShardPage:
        """
        List the shards of a run: from memory while it runs, from the archive afterwards.

        While a run goes on its shards change, and each page shows what is so when it is asked for.
        """
        chosen = _run(reading, reading.runs(job_id), job_id, filters.incarnation)
        offset, limit = int(filters.cursor or 0), filters.limit
        query = ShardQuery(
            filters.stage, filters.outcome, slowest=filters.order == "slowest", worst=filters.order == "worst",
            offset=offset, limit=limit + 1,
        )  # fmt: skip
        rows = reading.shards(chosen.key, query)
        more = str(offset + limit) if len(rows) > limit else None
        return ShardPage(shards=[answers.shard(row) for row in rows[:limit]], next=more)

    @router.get("/jobs/{job_id:path}", tags=["jobs"], responses=_UNKNOWN)
    def job(job_id: JobId, filters: Annotated[RunFilters, Query()]) -> JobDetail:
        """Show one run: its stages, its cost by kind, what runs of it now, and what holds it up."""
        runs = reading.runs(job_id)
        chosen = _run(reading, runs, job_id, filters.incarnation)
        now = clock.time_ns()
        with reading.view(now) as view:
            return answers.job_detail(chosen, view, runs, now, limit=MAX_LIMIT)


def _pipeline_routes(router: APIRouter, reading: Reading, clock: Clock) -> None:
    @router.get("/pipelines", tags=["indicators"], responses=_UNKNOWN)
    def pipelines(filters: Annotated[PipelineFilters, Query()]) -> PipelineList:
        """List every pipeline with its main figures."""
        now = clock.time_ns()
        with reading.view(now) as view:
            stages = answers.stages_by_pipeline(view)
            found = [
                answers.pipeline(view.pipelines[key], stages[key], view.live.pipelines.get(key, LivePipeline()), now)
                for key in _chosen(view, filters)
            ]
        return PipelineList(pipelines=found)

    @router.get("/slis", tags=["indicators"], responses=_UNKNOWN)
    def slis(filters: Annotated[PipelineFilters, Query()]) -> SliReport:
        """Report the indicators M1 to M12 of every pipeline, or of one."""
        now = clock.time_ns()
        with reading.view(now) as view:
            return answers.sli_report(view, _chosen(view, filters), now)


def _slo_routes(router: APIRouter, reading: Reading, clock: Clock) -> None:
    @router.get("/slos", tags=["promises"], responses=_UNKNOWN)
    def slos(filters: Annotated[SloFilters, Query()]) -> SloList:
        """List SLOs by name: objective, budget left, burn per window, and how long the budget lasts."""
        now = clock.time_ns()
        with reading.view(now) as view:
            chosen = _slos(view, filters)
            page = list(chosen)[: filters.limit]
            try:
                found = [_slo_answer(chosen[name], now, filters.month) for name in page]
            except ConfigError as error:
                raise _invalid("month", error) from error
        more = page[-1] if len(chosen) > len(page) else None
        return SloList(slos=found, next=more, problem=view.slo_problem)


def _slo_answer(slo: SloFigures | Slo, now_ns: int, month: str | None) -> SloState | SloInPrometheus:
    """Return how an SLO stands, or who knows. Raises ConfigError for a month that is none."""
    return slo_in_prometheus(slo) if isinstance(slo, Slo) else slo_state(slo, now_ns, month)


def _slos(view: View, filters: SloFilters) -> dict[str, SloFigures | Slo]:
    """Return the SLOs that pass the filters, by name. A name that none has is refused with the nearest one."""
    known: dict[str, SloFigures | Slo] = {each.slo.full_name: each for each in view.slos}
    known |= {slo.full_name: slo for slo in view.queried_slos}
    if filters.slo is not None and filters.slo not in known:
        hint = nearest(filters.slo[:200], sorted(known)) if known else "none is watched"
        raise ProblemError(HTTPStatus.NOT_FOUND, f"no SLO {short(filters.slo)}; {hint}", "not_found")
    return {name: each for name, each in sorted(known.items(), key=itemgetter(0)) if _passes(each, filters)}


def _passes(each: SloFigures | Slo, filters: SloFilters) -> bool:
    slo = each if isinstance(each, Slo) else each.slo
    return (
        filters.slo in (None, slo.full_name)
        and filters.pipeline in (None, slo.pipeline)
        and filters.owner in (None, slo.owner)
        and (filters.cursor is None or slo.full_name > filters.cursor)
    )


def _invalid(parameter: str, error: ConfigError) -> RequestValidationError:
    """Return the refusal of a parameter."""
    return RequestValidationError([{"type": "value_error", "loc": ("query", parameter), "msg": str(error)}])


def _query(filters: JobFilters) -> JobQuery:
    """Return what the store is asked, or refuse a cursor that is not ours."""
    try:
        after = None if filters.cursor is None else PagePlace.parse(filters.cursor)
    except ConfigError as error:
        raise _invalid("cursor", error) from error
    return JobQuery(
        pipeline=filters.pipeline, tenant=filters.tenant, cluster=filters.cluster, outcome=filters.outcome,
        since_ns=answers.nanoseconds(filters.since), until_ns=answers.nanoseconds(filters.until), after=after,
        limit=filters.limit,
    )  # fmt: skip


def _run(reading: Reading, runs: Sequence[JobSummary], job_id: str, incarnation: str | None) -> JobSummary:
    """Return the run that was asked for, or raise `ProblemError` 404."""
    if not runs:
        detail = f"no job {short(job_id)} is known here; {_unknown(reading, job_id)}"
        raise ProblemError(HTTPStatus.NOT_FOUND, detail, "not_found")
    known = {str(run.key.incarnation): run for run in reversed(runs)}
    found = runs[0] if incarnation is None else known.get(incarnation)
    if found is None:
        hint = nearest(str(incarnation), list(known)[-20:])
        raise ProblemError(HTTPStatus.NOT_FOUND, f"job {short(job_id)} has no run {incarnation}; {hint}", "not_found")
    return found


def _unknown(reading: Reading, job_id: str) -> str:
    """Return what may have been meant by a job ID that nobody used."""
    if reading.jobs(JobQuery(pipeline=job_id, limit=1), running=True, finished=True).jobs:
        return f"{short(job_id)} is a pipeline: mppobs jobs --pipeline {shlex.quote(job_id[:80])}"
    newest = reading.jobs(JobQuery(limit=_GUESSES), running=True, finished=True).jobs
    known = list(dict.fromkeys(job.key.job_id for job in newest))
    close = difflib.get_close_matches(job_id[:200], [name[:200] for name in known], n=3)
    if close:
        return f"did you mean {' or '.join(map(short, close))}?"
    return f"the newest: {', '.join(map(short, known[:3]))}" if known else "none has been seen yet"


def _chosen(view: View, filters: PipelineFilters) -> list[PipelineKey]:
    """Return the pipelines that pass the filters, in order. A name that none has is refused with the nearest one."""
    pipeline = filters.pipeline
    if pipeline is not None and all(key.pipeline != pipeline for key in view.pipelines):
        known = sorted({key.pipeline for key in view.pipelines})[:1000]
        hint = nearest(pipeline[:200], known[:20]) if known else "none is known yet"
        raise ProblemError(HTTPStatus.NOT_FOUND, f"no pipeline {short(pipeline)}; {hint}", "not_found")
    wanted = ((0, filters.cluster), (1, filters.tenant), (2, pipeline))
    return sorted(key for key in view.pipelines if all(want is None or key[at] == want for at, want in wanted))
