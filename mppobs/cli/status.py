"""`mppobs status`: how every pipeline of a running sidecar fares, at one look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.client import DEFAULT_URL, JsonOption, SidecarClient, SidecarError, TokenOption, UrlOption

LEGEND: Final = "green: as it should be · yellow: worth a look · red: something failed · –: nothing known yet"

_LESS: Final = ("complete", "p50", "jobs", "cost/job", "retries", "shards", "tenant", "cluster")
"""Columns that a narrow terminal has no room for, the least useful first."""


def status(
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Only this pipeline.")] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="Only this cluster.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until interrupted.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.2, help="Seconds between two looks, with --watch.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """
    Show every pipeline: jobs that run, shard success, tail, retries, cost and completeness.

    Counts are since the sidecar's store was made; p50 and p99 are of shards committed in the last hour.
    """
    wanted = {"pipeline": pipeline, "cluster": cluster}
    with SidecarClient(url, token) as client:
        if as_json:
            show.print_json(client.get("/pipelines", wanted))
        elif watch:
            _watch(client, wanted, interval)
        else:
            show.console().print(_looked(client, wanted))


def _looked(client: SidecarClient, wanted: Mapping[str, str | None]) -> Table:
    """Return the table as it is now."""
    return pipelines_table(client.get("/pipelines", wanted)["pipelines"])


def _watch(client: SidecarClient, wanted: Mapping[str, str | None], interval: float) -> None:
    """Show the table over and over. A sidecar that goes away is said so, and waited for."""
    shown: RenderableType = _looked(client, wanted)
    with Live(shown, console=show.console(), auto_refresh=False) as live:
        try:
            while True:
                live.update(shown, refresh=True)
                time.sleep(interval)
                shown = _again(client, wanted, shown)
        except KeyboardInterrupt:
            return


def _again(client: SidecarClient, wanted: Mapping[str, str | None], before: RenderableType) -> RenderableType:
    try:
        return _looked(client, wanted)
    except SidecarError as error:
        old = before.renderables[0] if isinstance(before, Group) else before
        return Group(old, Text(str(error), show.BAD))


def pipelines_table(pipelines: list[dict[str, Any]]) -> Table:
    """Return the table of pipelines; cluster and tenant are columns where they tell rows apart."""
    names = [name for name in ("cluster", "tenant") if show.several(pipelines, name)]
    figures = ("running", "jobs", "failed", "shards", "success", "p50", "p99", "retries", "cost/job", "complete")
    caption = LEGEND if pipelines else "no pipeline has written anything yet"
    made = show.table("Pipelines", ["pipeline", *names], figures, caption, less=_LESS)
    for each in pipelines:
        made.add_row(each["pipeline"], *(each[name] for name in names), *_figures(each))
    return made


def _figures(pipeline: dict[str, Any]) -> list[Text | str]:
    jobs, shards = pipeline["jobs"], pipeline["shards"]
    return [
        Text(show.count(pipeline["jobs_running"]), show.ACTIVE if pipeline["jobs_running"] else show.QUIET),
        show.count(sum(jobs.values())),
        show.marked(jobs["failure"] + jobs["error"]),
        show.count(sum(shards.values())),
        show.graded(pipeline["shard_success_ratio"], show.percent, good=1.0, doubtful=0.99),
        show.seconds(pipeline["p50_seconds"]),
        show.seconds(pipeline["p99_seconds"]),
        show.graded(pipeline["retry_ratio"], show.percent, good=0.02, doubtful=0.1),
        show.usd(pipeline["cost_per_job_usd"]) if pipeline["cost_usd"] is not None else show.cost(None),
        show.graded(pipeline["completeness_ratio"], show.percent, good=1.0, doubtful=0.99),
    ]
