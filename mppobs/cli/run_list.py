"""What `mppobs run --list` and `--faults` print: everything that can be asked for, for people and for programs."""

from __future__ import annotations

from typing import Final

from mppobs.cli import show
from mppobs.executor.backends.make import BackendKind
from mppobs.executor.faults import KINDS
from mppobs.workloads.base import Value
from mppobs.workloads.registry import WORKLOADS, Workload

_BACKENDS: Final = {
    BackendKind.LOCAL: "supervised processes of this machine, each killed and replaced alone; --nodes pretends more",
    BackendKind.DASK: "tasks of Dask, each bound to a worker; --address tcp://host:8786, or one of this machine",
    BackendKind.RAY: "actors of Ray, one for a worker; --address auto or ray://host:10001, or one of this machine",
    BackendKind.SIM: "the same scheduler and real tasks on simulated machines, whose time passes as fast as it can",
}


def print_list(as_json: bool, *, faults_alone: bool) -> None:
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
        knobs = "".join(f" --set {knob.name}={_said(knob.default)}" for knob in each.parameters)
        workloads.add_row(each.name, each.pattern, f"{each.summary}{'. ' + knobs.strip() if knobs else ''}")
    backends = show.table("Backends", ("name", "what it is"), (), prose=("what it is",))
    for kind, what in _BACKENDS.items():
        backends.add_row(str(kind), what)
    console = show.console()
    for table in (workloads, backends):
        console.print(table)
        console.print()
    _print_faults(as_json=False)


def _said(value: Value) -> str:
    """Return a parameter's value as people write it."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


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
