"""`mppobs jobs` lists the jobs of a running sidecar; `mppobs job ID` shows one, down to its shards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.client import DEFAULT_URL, JsonOption, SidecarClient, TokenOption, UrlOption, job_path
from mppobs.errors import ConfigError
from mppobs.units import parse_duration

Incarnation = Annotated[
    str | None, typer.Option(metavar="N", help="Which run, where several used the ID; the newest otherwise.")
]


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
    if as_json:
        show.print_json({"jobs": found})
    else:
        show.console().print(jobs_table(found, limit))


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
        rows = list(client.pages(f"{job_path(job_id)}/shards", "shards", query, limit)) if shards else None
    if as_json:
        show.print_json(found if rows is None else {**found, "shard_list": rows})
        return
    out = show.console()
    _print_job(out, found)
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


def jobs_table(jobs: list[dict[str, Any]], limit: int) -> Table:
    """Return the table of jobs."""
    caption = "no job passes these filters" if not jobs else "times in UTC"
    if len(jobs) == limit:
        caption += f"; the newest {limit}, --limit shows more"
    names = [name for name in ("cluster", "tenant") if show.several(jobs, name)]
    figures = ("took", "shards", "failed", "lost", "retries", "cost", "complete")
    made = show.table("Jobs", ["job", *names, "pipeline", "outcome", "started"], figures, caption)
    for each in jobs:
        state = show.outcome(each["outcome"])
        started = show.moment(each["started"])
        made.add_row(
            each["job_id"], *(each[name] for name in names), each["pipeline"], state, started, *_job_figures(each)
        )
    return made


def _job_figures(job: dict[str, Any]) -> list[Text | str]:
    return [
        show.seconds(job["duration_seconds"]),
        _done(job["shards"]),
        show.marked(job["shards"]["failed"]),
        show.marked(job["shards"]["lost"]),
        show.marked(job["retries"], show.DOUBTFUL),
        show.usd(job["cost_usd"]),
        show.graded(job["completeness_ratio"], show.percent, good=1.0, doubtful=0.99),
    ]


def _done(shards: dict[str, int]) -> str:
    """Return committed shards over planned ones, where there is a plan."""
    return f"{shards['committed']:,}/{shards['planned']:,}" if shards["planned"] else f"{shards['committed']:,}"


def _print_job(out: Console, job: dict[str, Any]) -> None:
    """Print a job from the general to the particular; what does not apply is left out."""
    out.print(_facts(job))
    out.print()
    out.print(stages_table(job["stages"]))
    if job["stragglers"]:
        out.print()
        out.print(stragglers_table(job["stragglers"]))
    if job["running"]:
        out.print()
        out.print(running_table(job["running"]))


def _facts(job: dict[str, Any]) -> Table:
    """Return what is known of the job as a whole, a fact per line."""
    made = Table(
        title=f"Job {job['job_id']}",
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    ended = show.outcome(job["outcome"])
    why = [word for word in (job["reason"], job["error_type"]) if word not in ("", "none")]
    if why:
        ended.append(f" ({', '.join(why)})")
    cost = ", ".join(f"{kind} {show.usd(amount)}" for kind, amount in job["cost_by_kind_usd"].items() if amount)
    facts: list[tuple[str, str | Text]] = [
        ("pipeline", f"{job['pipeline']} (cluster {job['cluster']}, tenant {job['tenant']}, tier {job['tier']})"),
        ("outcome", ended),
        ("submitted", f"{show.moment(job['submitted'])} UTC, started {show.seconds(job['queue_seconds'])} later"),
        ("took", show.seconds(job["duration_seconds"])),
        ("shards", f"{_done(job['shards'])} committed, {job['shards']['failed']} failed, {job['shards']['lost']} lost"),
        ("attempts", _attempts(job["attempts"], job["retries"])),
        ("shuffle", f"{show.size(job['shuffle_written_bytes'])} written, {show.size(job['shuffle_read_bytes'])} read"),
        ("cost", f"{show.usd(job['cost_usd'])}" + (f" ({cost})" if cost else "")),
        ("complete", f"{show.percent(job['completeness_ratio'])} of dispatched attempts are recorded"),
        ("trace", job["trace_id"]),
    ]
    if job["deadline"]:
        facts.insert(3, ("deadline", f"{show.moment(job['deadline'])} UTC"))
    if job["predicted_finish"]:
        facts.insert(4, ("expected", f"{show.moment(job['predicted_finish'])} UTC"))
    if len(job["runs"]) > 1:
        facts.append(("runs", f"{len(job['runs'])} used this ID: --incarnation {' '.join(job['runs'][:5])}"))
    for name, value in facts:
        made.add_row(name, value)
    return made


def _attempts(attempts: dict[str, int], retries: int) -> str:
    named = ", ".join(f"{number:,} {name}" for name, number in attempts.items() if number)
    return f"{named or 'none'}; {retries:,} retries"


def stages_table(stages: list[dict[str, Any]]) -> Table:
    """Return the table of a job's stages."""
    figures = (
        "shards",
        "failed",
        "lost",
        "retries",
        "median",
        "p99",
        "max",
        "p99÷median",
        "rows",
        "shuffle read",
        "written",
    )
    made = show.table("Stages", ["stage"], figures, "" if stages else "no record of any stage yet")
    for each in stages:
        tail = each["tail_ratio"]
        made.add_row(
            each["stage"],
            _done(each["shards"]),
            show.marked(each["shards"]["failed"]),
            show.marked(each["shards"]["lost"]),
            show.marked(each["retries"], show.DOUBTFUL),
            show.seconds(each["median_seconds"]),
            show.seconds(each["p99_seconds"]),
            show.seconds(each["max_seconds"]),
            show.NONE if tail is None else f"{tail:.3g}",
            show.count(each["rows"]),
            show.size(each["shuffle_read_bytes"]),
            show.size(each["shuffle_written_bytes"]),
        )
    return made


def stragglers_table(stragglers: list[dict[str, Any]]) -> Table:
    """Return the table of what holds a job up, worst first."""
    made = show.table("Stragglers", ["stage", "shard", "cause", "node", "evidence"], ["runs for", "left"])
    for each in stragglers:
        made.add_row(
            each["stage"],
            str(each["shard"]),
            Text(each["cause"], show.DOUBTFUL),
            each["node"] or show.NONE,
            each["evidence"],
            show.seconds(each["elapsed_seconds"]),
            show.seconds(each["left_seconds"]),
        )
    return made


def running_table(attempts: list[dict[str, Any]], most: int = 20) -> Table:
    """Return the table of what runs now, longest first."""
    caption = f"the longest {most} of {len(attempts)}" if len(attempts) > most else ""
    made = show.table("Running now", ["stage", "shard", "worker"], ["attempt", "runs for", "progress"], caption)
    for each in attempts[:most]:
        number = f"{each['attempt']}{' (copy)' if each['speculative'] else ''}"
        made.add_row(
            each["stage"],
            str(each["shard"]),
            each["worker"] or show.NONE,
            number,
            show.seconds(each["elapsed_seconds"]),
            show.percent(each["progress_ratio"]),
        )
    return made


def shards_table(shards: list[dict[str, Any]], limit: int) -> Table:
    """Return the table of a job's shards."""
    caption = f"the first {limit}; --limit shows more" if len(shards) == limit else ""
    made = show.table(
        "Shards",
        ["stage", "shard", "outcome", "why"],
        ["attempts", "took", "input", "shuffle read", "written"],
        caption,
    )
    for each in shards:
        why = ", ".join(word for word in (each["reason"], each["error_type"]) if word not in ("", "none"))
        made.add_row(
            each["stage"],
            str(each["shard"]),
            show.outcome(each["outcome"]),
            why or show.NONE,
            show.count(each["attempts"]),
            show.seconds(each["duration_seconds"]),
            show.size(each["input_bytes"]),
            show.size(each["shuffle_read_bytes"]),
            show.size(each["shuffle_written_bytes"]),
        )
    return made
