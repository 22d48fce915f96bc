"""`mppobs simulate`: an estate for days, a sweep of cluster sizes, or one scenario, in simulated time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mppobs.cli.grid import Grid
from mppobs.errors import ConfigError, nearest
from mppobs.executor.faults import Fault, parse_faults
from mppobs.executor.policies import Autoscale, Policy
from mppobs.executor.sim.estate import (
    Pipeline,
    Summary,
    enough_nodes,
    pipelines,
    simulate_estate,
    slo_yaml,
    usual_policy,
)
from mppobs.executor.sim.model import Cluster
from mppobs.executor.sim.scenarios import SCENARIOS, Rehearsal
from mppobs.units import human_seconds, human_usd

_LANES = 8
_FIGURES = ("workers", "jobs", "failed", "late", "p95", "retries", "copies", "busy", "attempts cost", "nodes cost")


def simulate(
    *,
    scenario: Annotated[str, typer.Option(help=f"Rehearse one situation instead: {', '.join(SCENARIOS)}.")] = "",
    count: Annotated[int, typer.Option("--pipelines", help="How many pipelines the estate has.", min=1)] = 50,
    days: Annotated[int, typer.Option(help="For how many days.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    workers: Annotated[str, typer.Option(help="Cluster size; several, N,M,…, compare them and write nothing.")] = "",
    spot: Annotated[float, typer.Option(help="Share of the nodes that are spot.", min=0, max=1)] = 0.0,
    autoscale: Annotated[bool, typer.Option("--autoscale", help="Let the cluster follow the work.")] = False,
    fault: Annotated[list[str] | None, typer.Option(help="KIND:severity=…,at=…,for=…,target=…; repeatable.")] = None,
    faults: Annotated[Path | None, typer.Option(help="A file of faults, one a line; # begins a comment.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write journals, metrics and slo.yaml below it.")] = None,
    step: Annotated[float, typer.Option(help="Seconds between two samples of a time series.", min=60)] = 900.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per result.")] = False,
) -> None:
    """
    Run the real scheduler over a synthetic estate, or through a scenario, in simulated time.

    The estate has tenants, tiers, daily schedules, deadlines and costs. With --out a sidecar can follow its journals
    (mppobs sidecar --directory OUT/journals), and a Prometheus takes its history:

        for day in OUT/metrics/*.om; do promtool tsdb create-blocks-from openmetrics $day DATA; done

    With --workers 80,160,320 it plans capacity: completion, cost and missed deadlines at each size. Faults are those of
    `mppobs run --faults`; their times are from the first midnight, such as node-loss:at=3d,for=1h.
    """
    console = Console(stderr=as_json)
    if scenario:
        _scenario(scenario, seed, console, as_json=as_json)
        return
    estate, chosen = pipelines(count, seed), _faults(fault or (), faults)
    sizes = [_cluster(size, estate, spot) for size in _sizes(workers)]
    if len(sizes) > 1 and out is not None:
        raise ConfigError("--out takes one size of the cluster, not several")
    found = []
    for cluster in sizes:
        policy = replace(usual_policy(), autoscale=Autoscale(_LANES, cluster.workers)) if autoscale else None
        found.append(_estate(estate, days, seed, cluster, chosen, policy, out, step, console))
    if out is not None:
        (out / "slo.yaml").write_text(slo_yaml(estate))
        (out / "summary.json").write_text(json.dumps(asdict(found[0]), indent=2) + "\n")
    _show(found, console, as_json=as_json)


def _estate(
    estate: Sequence[Pipeline],
    days: int,
    seed: int,
    cluster: Cluster,
    faults: Sequence[Fault],
    policy: Policy | None,
    out: Path | None,
    step: float,
    console: Console,
) -> Summary:
    """Run the estate on one cluster, saying how far it is."""
    began = time.monotonic()
    with console.status(f"{cluster.workers} workers: day 0 of {days}") as status:

        def on_day(day: int) -> None:
            status.update(f"{cluster.workers} workers: day {day} of {days}, {human_seconds(time.monotonic() - began)}")

        return simulate_estate(
            estate, days=days, seed=seed, cluster=cluster, faults=faults, policy=policy, out=out, step=step,
            on_day=on_day,
        )  # fmt: skip


def _show(found: Sequence[Summary], console: Console, *, as_json: bool) -> None:
    """Print what came of each size."""
    if as_json:
        for summary in found:
            typer.echo(json.dumps(asdict(summary)))
        return
    table = Grid("", _FIGURES[:1], _FIGURES[1:], less=("copies", "retries"))
    for each in found:
        table.add_row(
            str(each.workers), str(each.jobs), str(each.jobs - each.succeeded), str(each.late),
            human_seconds(each.p95_seconds), str(each.retries), str(each.speculative), f"{each.busy:.0%}",
            human_usd(each.attempt_usd), human_usd(each.node_usd),
        )  # fmt: skip
    console.print(table)


def _scenario(name: str, seed: int, console: Console, *, as_json: bool) -> None:
    """Rehearse a scenario; exits with 1 where a figure is not as it must be."""
    chosen = SCENARIOS.get(name)
    if chosen is None:
        raise ConfigError(f"no scenario {name!r}: {nearest(name, SCENARIOS)}")
    rehearsal = chosen.rehearse(seed)
    if as_json:
        _print_json(rehearsal)
    else:
        _print(rehearsal, chosen.about, console)
    raise typer.Exit(0 if rehearsal.met else 1)


def _print_json(rehearsal: Rehearsal) -> None:
    for finding in rehearsal.findings:
        typer.echo(json.dumps({"scenario": rehearsal.scenario} | asdict(finding)))
    for seconds, what in rehearsal.timeline:
        typer.echo(json.dumps({"scenario": rehearsal.scenario, "seconds": seconds, "event": what}))


def _print(rehearsal: Rehearsal, about: str, console: Console) -> None:
    table = Grid(about, ("figure",), ("value", "must be", ""))
    for finding in rehearsal.findings:
        value = (
            f"{finding.value:,.4g} {finding.unit}" if finding.value < 10_000 else f"{finding.value:,.0f} {finding.unit}"
        )
        verdict = ("✓" if finding.met else "✗") if finding.target else ""
        table.add_row(finding.figure, value.strip(), finding.target, verdict)
    console.print(table)
    console.print("\nWhat happened, in seconds from the start:")
    for seconds, what in rehearsal.timeline:
        console.print(f"{seconds:>10,.1f}  {what}", highlight=False)


def _sizes(text: str) -> list[int]:
    """Return the sizes of `N,M,…`; 0 for whatever is enough."""
    try:
        sizes = [int(part) for part in text.split(",")] if text else [0]
    except ValueError:
        raise ConfigError(f"--workers {text!r}: write whole numbers, such as 80,160") from None
    if text and min(sizes) < 1:
        raise ConfigError(f"--workers {text!r}: a cluster needs workers")
    return sizes


def _cluster(workers: int, estate: Sequence[Pipeline], spot: float) -> Cluster:
    """Return a cluster of so many workers, in whole nodes."""
    nodes = -(-workers // _LANES) if workers else enough_nodes(estate, _LANES)
    return Cluster(nodes=nodes, lanes=_LANES, spot_share=spot, evictions_per_hour=0.05 if spot else 0.0)


def _faults(texts: Sequence[str], path: Path | None) -> tuple[Fault, ...]:
    """Return the faults of the command line and of a file. Raises `ConfigError` that names the file and the line."""
    found = list(parse_faults(texts))
    if path is not None:
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text:
                try:
                    found += parse_faults([text])
                except ConfigError as error:
                    raise ConfigError(f"{path}, line {number}: {error}") from None
    return tuple(found)
