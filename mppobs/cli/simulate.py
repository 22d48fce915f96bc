"""`mppobs simulate`: an estate for days, a sweep of cluster sizes, or one scenario, in simulated time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mppobs.cli.grid import Grid
from mppobs.cli.interrupts import stopped_by_signals
from mppobs.errors import ConfigError, nearest
from mppobs.executor.faults import Fault, FaultKind, Layer, parse_fault
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
_MAX_WORKERS = 100_000
"""Ten times what the scheduler is measured with."""
_MAX_DAYS = 3_660
_WRITTEN = ("journals", "metrics", "slo.yaml", "summary.json")
_FIGURES = ("workers", "jobs", "failed", "late", "p95", "retries", "copies", "busy", "attempts cost", "nodes cost")


FaultText = Annotated[list[str] | None, typer.Option(metavar="KIND[:KEY=VALUE,…]", help="As for mppobs run. Repeat.")]


def simulate(
    *,
    scenario: Annotated[str, typer.Option(help=f"Rehearse one situation instead: {', '.join(SCENARIOS)}.")] = "",
    count: Annotated[
        int, typer.Option("--pipelines", help="How many pipelines the estate has.", min=1, max=10_000)
    ] = 50,
    days: Annotated[int, typer.Option(help="For how many days.", min=1, max=_MAX_DAYS)] = 30,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    workers: Annotated[str, typer.Option(help="Cluster size; several, N,M,…, compare them and write nothing.")] = "",
    spot: Annotated[float, typer.Option(help="Share of the nodes that are spot.", min=0, max=1)] = 0.0,
    autoscale: Annotated[bool, typer.Option("--autoscale", help="Let the cluster follow the work.")] = False,
    fault: FaultText = None,
    faults: Annotated[Path | None, typer.Option(help="A file of faults, one a line; # begins a comment.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write journals, metrics and slo.yaml below it.")] = None,
    step: Annotated[float, typer.Option(help="Seconds between two samples of a series.", min=60, max=86_400)] = 900.0,
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
        _require_alone(workers=workers, spot=spot, autoscale=autoscale, fault=fault, faults=faults, out=out)
        _scenario(scenario, seed, console, as_json=as_json)
        return
    sizes, estate = _sizes(workers, out), pipelines(count, seed)
    chosen = _faults(fault or (), faults, estate)
    clusters = [_cluster(size, estate, spot) for size in sizes]
    with stopped_by_signals(), _written(out):
        found = [
            _estate(estate, days, seed, cluster, chosen, _policy(cluster, autoscale), out, step, console)
            for cluster in clusters
        ]
        if out is not None:
            (out / "slo.yaml").write_text(slo_yaml(estate))
            (out / "summary.json").write_text(json.dumps(asdict(found[0]), indent=2) + "\n")
    _show(found, console, as_json=as_json)


def _policy(cluster: Cluster, autoscale: bool) -> Policy | None:
    """Return the policy for a cluster that follows the work; `None`, the usual one, where it does not."""
    return replace(usual_policy(), autoscale=Autoscale(_LANES, cluster.workers)) if autoscale else None


def _require_alone(**others: object) -> None:
    """Refuse what a scenario has no use for: it brings its own cluster, work and faults, and writes nothing."""
    given = [f"--{name}" for name, value in others.items() if value]
    if given:
        raise ConfigError(f"--scenario brings its own cluster, work and faults: leave out {', '.join(given)}")


@contextmanager
def _written(out: Path | None) -> Iterator[None]:
    """Refuse a directory that holds a simulation; remove what the block wrote into it where it does not end well."""
    if out is None:
        yield
        return
    there = [path for name in _WRITTEN if (path := out / name).exists()]
    if there:
        raise ConfigError(f"{there[0]} is there already: a directory takes one simulation")
    missing = not out.exists()
    try:
        yield
    except BaseException as error:
        for name in _WRITTEN:
            shutil.rmtree(out / name, ignore_errors=True)
            with suppress(OSError):  # it was a directory, which is gone, or had not been written yet
                (out / name).unlink()
        if missing:
            with suppress(OSError):  # not made yet, or somebody else put something there
                out.rmdir()
        if isinstance(error, OSError):
            raise ConfigError(f"--out {out} cannot be written: {error.strerror or error}") from error
        raise


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
    with stopped_by_signals(), console.status(f"rehearsing {name}"):
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


def _sizes(text: str, out: Path | None) -> list[int]:
    """Return the sizes of `N,M,…`; 0 for whatever is enough."""
    try:
        sizes = [int(part) for part in text.split(",")] if text else [0]
    except ValueError:
        raise ConfigError(f"--workers {text!r}: write whole numbers, such as 80,160") from None
    if text and not 1 <= min(sizes) <= max(sizes) <= _MAX_WORKERS:
        raise ConfigError(f"--workers {text!r}: a cluster needs workers, {_MAX_WORKERS:,} at most")
    if len(sizes) > 1 and out is not None:
        raise ConfigError("--out takes one size of the cluster, not several")
    return sizes


def _cluster(workers: int, estate: Sequence[Pipeline], spot: float) -> Cluster:
    """Return a cluster of so many workers, in whole nodes."""
    nodes = -(-workers // _LANES) if workers else enough_nodes(estate, _LANES)
    return Cluster(nodes=nodes, lanes=_LANES, spot_share=spot, evictions_per_hour=0.05 if spot else 0.0)


def _faults(texts: Sequence[str], path: Path | None, estate: Sequence[Pipeline]) -> tuple[Fault, ...]:
    """Return the faults of the command line and of a file. Raises `ConfigError` that names the file and the line."""
    found = [_aimed(text, estate) for text in texts]
    for number, line in enumerate(_lines(path), 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                found.append(_aimed(text, estate))
            except ConfigError as error:
                raise ConfigError(f"{path}, line {number}: {error}") from None
    return tuple(found)


def _lines(path: Path | None) -> list[str]:
    """Return the lines of a file of faults, where there is one."""
    if path is None:
        return []
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"--faults {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--faults {path} cannot be read: it is no text, from byte {error.start} on") from error


def _aimed(text: str, estate: Sequence[Pipeline]) -> Fault:
    """Return the fault that a text describes, at something that the estate has."""
    fault = parse_fault(text)
    models = [each.model for each in estate]
    if fault.about.layer is Layer.LOAD:
        fault.require_target({model.tenant for model in models} | {model.pipeline for model in models}, "the estate")
    elif fault.about.layer is Layer.TASK and fault.kind is not FaultKind.SLOW_NODE:
        stages = {stage.name for model in models for stage in model.stages}
        fault.require_target(stages | {model.pipeline for model in models}, "the estate")
    return fault
