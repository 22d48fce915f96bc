"""`mppobs run`: one bundled workload on any backend, with faults where they are asked for, and its answer checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mppobs.cli import show
from mppobs.cli.interrupts import stopped_by_signals
from mppobs.cli.run_job import RunOptions, Told, run_workload
from mppobs.cli.run_list import print_list
from mppobs.errors import ConfigError, nearest
from mppobs.executor.backends.make import BackendKind, BackendSpec
from mppobs.executor.faults import parse_faults
from mppobs.units import parse_bytes
from mppobs.workloads.registry import Workload, workload

Setting = Annotated[list[str] | None, typer.Option("--set", help="A parameter of the workload, NAME=VALUE. Repeat.")]
FaultText = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="KIND[:KEY=VALUE,…]", help="On purpose, such as skew:severity=8,at=5. Repeat."),
]
Shared = Annotated[Path | None, typer.Option(help="Where jobs and exchanged data are; a standby shares it.")]
Tenant = Annotated[str, typer.Option(metavar="NAME", help="Whose job it is: budgets and fair shares are by tenant.")]
Budgets = Annotated[
    str, typer.Option(metavar="URL", help="Ask this sidecar, and wait while the tenant's budget is spent.")
]
Standby = Annotated[bool, typer.Option("--standby", help="Take over what dies in --directory; start nothing.")]


def run(
    name: Annotated[str, typer.Argument(metavar="WORKLOAD", help="One of --list.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="List workloads, backends and faults.")] = False,
    list_faults: Annotated[bool, typer.Option("--faults", help="List faults, and the alert of each.")] = False,
    backend: Annotated[str, typer.Option(help="Where it runs: local, dask, ray or sim.")] = "local",
    address: Annotated[str, typer.Option(help="Of a Dask or Ray that is up; one is started without it.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Workers; 0 for one per core, two at least.")] = 0,
    scale: Annotated[float, typer.Option(min=1e-4, max=1000, help="Size: 1 keeps a few cores busy for minutes.")] = 0.1,
    shards: Annotated[int, typer.Option(min=1, max=100_000, help="Shards of the widest stage.")] = 24,
    settings: Setting = None,
    fault: FaultText = None,
    seed: Annotated[int, typer.Option(help="Of jitter, of what faults hit, of the simulated world.")] = 0,
    nodes: Annotated[int, typer.Option(min=0, help="Local: as many nodes in two zones, for faults.")] = 0,
    memory: Annotated[str, typer.Option(help="Local: what an attempt may take, such as 512MiB.")] = "",
    spares: Annotated[int, typer.Option(min=0, help="Local: warm processes that replace dead ones.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Where data is made and kept; by default in the cache.")] = None,
    directory: Shared = None,
    standby: Standby = False,
    tenant: Tenant = "",
    budgets: Budgets = "",
    journal: Annotated[Path | None, typer.Option(help="Where it is recorded; removed at the end without this.")] = None,
    sidecar: Annotated[bool, typer.Option("--sidecar", help="Judge it by a sidecar and show the indicators.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="The same, and keep the sidecar up until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """
    Run a bundled workload and check its answer against a plain computation.

    Exits with 1 where the job failed or the answer is wrong, with 2 where it cannot be run as asked.

    Try: mppobs run tpch-q3, then mppobs run tpch-q3 --backend dask --fault node-loss:at=1, and mppobs run --list.
    """
    if listed or list_faults:
        print_list(as_json, faults_alone=not listed)
        return
    spec = BackendSpec(
        _kind(backend), workers or max(2, os.cpu_count() or 2), address, nodes, _bytes(memory), spares, seed,
        parse_faults(fault or ()),
    )  # fmt: skip
    options = RunOptions(
        _workload(name, settings or ()), spec, scale, shards, data or cache_directory(), directory, standby, journal,
        sidecar=sidecar or serve, serve=serve, quiet=as_json, tenant=tenant, budgets=budgets,
    )  # fmt: skip
    with stopped_by_signals():
        _end(run_workload(options))


def cache_directory() -> Path:
    """Return where data is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mppobs"


def _end(told: Told) -> None:
    """Tell programs what came of it, and exit with 1 where that was not what it must be."""
    if told.options.quiet:
        show.print_json(told.as_json())
    if not told.ok:
        raise typer.Exit(1)


def _workload(name: str, settings: Sequence[str]) -> Workload:
    """Return the workload that was asked for, with its parameters set."""
    if not name:
        raise ConfigError("which workload? mppobs run --list tells them")
    return workload(name).configured(_settings(settings))


def _kind(text: str) -> BackendKind:
    if text not in list(BackendKind):
        raise ConfigError(f"no backend {text!r}: {nearest(text, [str(kind) for kind in BackendKind])}")
    return BackendKind(text)


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text) if text else 0
    except ValueError as error:
        raise ConfigError(f"--memory {text!r}: {error}") from None


def _settings(texts: Sequence[str]) -> dict[str, str]:
    """Return parameters as they were written."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: write NAME=VALUE")
        found[key.strip()] = value.strip()
    return found
