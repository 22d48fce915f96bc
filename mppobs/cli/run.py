"""`mppobs run`: one bundled workload on any backend, with faults where they are asked for, and its answer checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from mppobs.cli import show
from mppobs.cli.interrupts import terminate_as_interrupt
from mppobs.cli.run_job import RunOptions, Told, run_workload
from mppobs.errors import ConfigError, nearest
from mppobs.executor.backends.make import BackendKind, BackendSpec
from mppobs.executor.faults import KINDS, parse_faults
from mppobs.units import parse_bytes
from mppobs.workloads.registry import WORKLOADS, Workload, workload

_BACKENDS: Final = {
    BackendKind.LOCAL: "supervised processes of this machine, each killed and replaced alone; --nodes pretends more",
    BackendKind.DASK: "tasks of Dask, each bound to a worker; --address tcp://host:8786, or one of this machine",
    BackendKind.RAY: "actors of Ray, one for a worker; --address auto or ray://host:10001, or one of this machine",
    BackendKind.SIM: "the same scheduler and real tasks on simulated machines, whose time passes as fast as it can",
}

Setting = Annotated[list[str] | None, typer.Option("--set", help="A parameter of the workload, NAME=VALUE. Repeat.")]
FaultText = Annotated[
    list[str] | None,
    typer.Option("--fault", help="KIND[:severity=8,at=5,for=30,target=join], on purpose. Repeat. See --list."),
]


def run(
    name: Annotated[str, typer.Argument(metavar="WORKLOAD", help="One of --list.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="List workloads, backends and faults.")] = False,
    list_faults: Annotated[bool, typer.Option("--faults", help="List faults, and the alert of each.")] = False,
    backend: Annotated[str, typer.Option(help="Where it runs: local, dask, ray or sim.")] = "local",
    address: Annotated[str, typer.Option(help="Of a Dask or Ray that is up; one is started without it.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Workers; 0 for one per core, two at least.")] = 0,
    scale: Annotated[float, typer.Option(min=0.0001, help="Size: 1 keeps a few cores busy for minutes.")] = 0.1,
    shards: Annotated[int, typer.Option(min=1, help="Shards of the widest stage.")] = 24,
    settings: Setting = None,
    fault: FaultText = None,
    seed: Annotated[int, typer.Option(help="Of jitter, of what faults hit, of the simulated world.")] = 0,
    nodes: Annotated[int, typer.Option(min=0, help="Local: as many nodes in two zones, for faults.")] = 0,
    memory: Annotated[str, typer.Option(help="Local: what an attempt may take, such as 512MiB.")] = "",
    spares: Annotated[int, typer.Option(min=0, help="Local: warm processes that replace dead ones.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Where data is made and kept; by default in the cache.")] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where jobs and exchanged data are; a standby shares it.")
    ] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Take over what dies in --directory; start nothing.")
    ] = False,
    journal: Annotated[Path | None, typer.Option(help="Where it is recorded; removed at the end without this.")] = None,
    sidecar: Annotated[bool, typer.Option("--sidecar", help="Judge it by a sidecar and show the indicators.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="The same, and keep the sidecar up until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """
    Run a bundled workload and check its answer against a plain computation.

    Exits with 1 where the job failed or the answer is wrong.

    Try: mppobs run tpch-q3, then mppobs run tpch-q3 --backend dask --fault node-loss:at=1, and mppobs run --list.
    """
    if listed or list_faults:
        _print_list(as_json, faults_alone=not listed)
        return
    if not name:
        raise ConfigError("which workload? mppobs run --list tells them")
    if standby and directory is None:
        raise ConfigError("--standby needs the --directory of the run that it stands by for")
    chosen = workload(name).configured(_settings(settings or ()))
    spec = BackendSpec(
        kind=_kind(backend),
        workers=workers or max(2, os.cpu_count() or 2),
        address=address,
        nodes=nodes,
        memory_bytes=_bytes(memory),
        spares=spares,
        seed=seed,
        faults=parse_faults(fault or ()),
    )
    options = RunOptions(
        workload=chosen, spec=spec, scale=scale, shards=shards, data=data or cache_directory(), directory=directory,
        standby=standby, journal=journal, sidecar=sidecar or serve, serve=serve, quiet=as_json,
    )  # fmt: skip
    told = _run(options)
    if as_json:
        show.print_json(told.as_json())
    if not told.ok:
        raise typer.Exit(1)


def cache_directory() -> Path:
    """Return where data is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mppobs"


def _run(options: RunOptions) -> Told:
    try:
        with terminate_as_interrupt():
            return run_workload(options)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None


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


def _print_list(as_json: bool, *, faults_alone: bool) -> None:
    """Print the workloads, the backends and the faults, or the faults alone."""
    if faults_alone:
        _print_faults(as_json)
        return
    if as_json:
        show.print_json({
            "workloads": {each.name: _as_json(each) for each in WORKLOADS.values()},
            "backends": {str(kind): what for kind, what in _BACKENDS.items()},
            "faults": {str(kind): about.as_json() for kind, about in KINDS.items()},
        })  # fmt: skip
        return
    workloads = show.table("Workloads", ("name", "pattern", "what it is"), (), prose=("what it is",))
    for each in WORKLOADS.values():
        knobs = "".join(f" --set {knob.name}={knob.default}" for knob in each.parameters)
        workloads.add_row(each.name, each.pattern, f"{each.summary}{'. ' + knobs.strip() if knobs else ''}")
    backends = show.table("Backends", ("name", "what it is"), (), prose=("what it is",))
    for kind, what in _BACKENDS.items():
        backends.add_row(str(kind), what)
    console = show.console()
    for table in (workloads, backends):
        console.print(table)
        console.print()
    _print_faults(as_json=False)


def _print_faults(as_json: bool) -> None:
    """Print what can be done on purpose, what it looks like, what is there against it, and which alert must tell."""
    if as_json:
        show.print_json({str(kind): about.as_json() for kind, about in KINDS.items()})
        return
    columns = ("kind", "mode", "alert", "severity", "what is seen", "what is there against it")
    faults = show.table("Faults", columns, ("default",), prose=("what is seen", "what is there against it", "severity"))
    for fault, about in KINDS.items():
        faults.add_row(
            str(fault), str(about.mode), about.alert, about.means, about.looks, about.answer, f"{about.severity:g}"
        )
    show.console().print(faults)


def _as_json(each: Workload) -> dict[str, object]:
    return {
        "summary": each.summary,
        "pattern": each.pattern,
        "stresses": each.stresses,
        "parameters": {knob.name: {"default": knob.default, "help": knob.help} for knob in each.parameters},
    }
