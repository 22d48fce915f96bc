"""`mppobs jobs` lists the jobs of a running sidecar; `mppobs job ID` shows one, down to its shards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.client import DEFAULT_URL, JsonOption, SidecarClient, TokenOption, UrlOption, job_path
from mppobs.cli.detail import done, expected, goes_wrong, late, print_job, shards_table
from mppobs.errors import ConfigError, nearest
from mppobs.units import parse_duration

Incarnation = Annotated[
    str | None, typer.Option(metavar="N", help="Which run, where several used the ID; the newest otherwise.")
]

_LESS: Final = ("complete", "cost", "retries", "lost", "tenant", "cluster", "started", "failed")
"""Columns of the list of jobs that a narrow terminal has no room for, the least useful first."""
EXPECTED: Final = ("expected", "deadline")
"""Columns for jobs that run: when they are predicted to end, and by when they must."""
_WORST: Final = 5
"""Shards that went wrong, of which `mppobs job` shows so many by itself."""


def jobs(
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Only this pipeline.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Only this cluster.")] = None,
    state: Annotated[str | None, typer.Option(metavar="running|finished", help="Only jobs in this state.")] = None,
    outcome: Annotated[
        str | None, typer.Option(metavar="success|failure|error|cancelled", help="Only jobs that ended so.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Started since: 2h, 7d, or 2026-01-31T08:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Started before: as --since.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to list at the most.")] = 20,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    List jobs, newest first, running ones included.

    For example, what went wrong since yesterday: mppobs jobs --since 1d --outcome error
    """
    query = {
        "pipeline": pipeline, "tenant": tenant, "cluster": cluster, "state": state, "outcome": outcome,
        "since": time_of(since), "until": time_of(until),
    }  # fmt: skip
    with SidecarClient(url, token) as client:
        found = list(client.pages("/jobs", "jobs", query, limit))
        hint = _hint(client, pipeline) if pipeline is not None and not found and not as_json else ""
    if as_json:
        show.print_json({"jobs": found})
    else:
        show.console().print(jobs_table(found, limit, hint))


def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's ID, as `mppobs jobs` lists it.")],
    incarnation: Incarnation = None,
    shards: Annotated[bool, typer.Option("--shards", help="List its shards too.")] = False,
    stage: Annotated[str | None, typer.Option(help="With --shards: only of this stage.")] = None,
    outcome: Annotated[
        str | None, typer.Option(metavar="committed|failed|lost", help="With --shards: only those that ended so.")
    ] = None,
    slowest: Annotated[bool, typer.Option("--slowest", help="With --shards: longest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="With --shards: how many at the most.")] = 50,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Show one job: its stages, what it cost, what runs of it now, and what holds it up.

    For example, its ten slowest shards: mppobs job nightly-42 --shards --slowest -n 10
    """
    order = "slowest" if slowest else None
    query = {"incarnation": incarnation, "stage": stage, "outcome": outcome, "order": order}
    with SidecarClient(url, token) as client:
        found = client.get(job_path(job_id), {"incarnation": incarnation})
        worst = _worst(client, found) if not as_json and goes_wrong(found) else []
        rows = list(client.pages(f"{job_path(job_id)}/shards", "shards", query, limit)) if shards else None
    if as_json:
        show.print_json(found if rows is None else {**found, "shard_list": rows})
        return
    out = show.console()
    print_job(out, found, worst)
    if rows is not None:
        out.print(shards_table(rows, limit))


def time_of(text: str | None, now: datetime | None = None) -> str | None:
    """
    Return a point in time as the API takes it, from a duration before now or a date.

    >>> time_of("2h", datetime(2026, 1, 2, 3, tzinfo=UTC))
    '2026-01-02T01:00:00+00:00'
    >>> time_of("2026-01-02T03:04Z"), time_of("2026-01-02"), time_of(None)
    ('2026-01-02T03:04:00+00:00', '2026-01-02T00:00:00+00:00', None)
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            found = (now or datetime.now(UTC)) - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{text!r} is no time: write 2h, 7d, or 2026-01-31T08:00Z") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _hint(client: SidecarClient, pipeline: str) -> str:
    """Return which pipeline may have been meant, where there is none of this name."""
    known = {each["pipeline"] for each in client.get("/pipelines")["pipelines"]}
    if pipeline in known:
        return ""
    return (
        f"there is no pipeline {pipeline!r}: {nearest(pipeline, known) if known else 'none has written anything yet'}"
    )


def _worst(client: SidecarClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the worst few shards of the run that is shown."""
    query = {"incarnation": job["incarnation"], "order": "worst", "limit": _WORST}
    found: list[dict[str, Any]] = client.get(f"{job_path(job['job_id'])}/shards", query)["shards"]
    return found


def jobs_table(jobs: list[dict[str, Any]], limit: int, hint: str = "") -> Table:
    """Return the table of jobs; `hint` says what may have been meant where there are none."""
    caption = "times in UTC" if jobs else "no job passes these filters" + (f"; {hint}" if hint else "")
    if len(jobs) == limit:
        caption += f"; the newest {limit}, --limit shows more"
    names = [name for name in ("cluster", "tenant") if show.several(jobs, name)]
    overdue = any(each["late"] for each in jobs)
    foretold = any(each["predicted_finish"] for each in jobs)
    figures = [
        "took",
        *(["late"] if overdue else []),
        *(EXPECTED if foretold else []),
        "shards",
        "failed",
        "lost",
        "retries",
        "cost",
        "complete",
    ]
    columns = ["job", "pipeline", *names, "outcome", "started"]
    made = show.table("Jobs", columns, figures, caption, less=_LESS)
    for each in jobs:
        took: list[str | Text] = [show.seconds(each["duration_seconds"]), *([late(each)] if overdue else [])]
        took += [expected(each), show.moment(each["deadline"])] if foretold else []
        which = (each["job_id"], each["pipeline"], *(each[name] for name in names))
        made.add_row(*which, show.outcome(each["outcome"]), show.moment(each["started"]), *took, *_job_figures(each))
    return made


def _job_figures(job: dict[str, Any]) -> list[Text | str]:
    return [
        done(job["shards"]),
        show.marked(job["shards"]["failed"]),
        show.marked(job["shards"]["lost"]),
        show.marked(job["retries"], show.DOUBTFUL),
        show.cost(job["cost_usd"]),
        show.graded(job["completeness_ratio"], show.percent, good=1.0, doubtful=0.99),
    ]
