"""
The command `mppobs`: a table of commands, of which only the one that is asked for is loaded.

So `mppobs --help` is quick and works in a bare installation, and a command whose extra is not installed says
which one to install.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer

from mppobs.cli.plain import plain
from mppobs.errors import MppobsError
from mppobs.version import __version__


@dataclass(frozen=True, slots=True)
class Command:
    """One command: what it is for, and where it is found once it is asked for."""

    help: str
    path: str
    """`module:name` of a function that is the command, or of a `typer.Typer` whose commands are below it."""
    extra: str = ""
    """The extra that installs what the command needs; empty where the bare package suffices."""


COMMANDS: Final[dict[str, Command]] = {
    "demo": Command("Run two TPC-H queries on real data and show their indicators.", "mppobs.cli.demo:demo", "demo"),
    "run": Command("Run a workload on any backend, with faults, and check its answer.", "mppobs.cli.run:run", "demo"),
    "simulate": Command("Simulate an estate, a scenario or cluster sizes.", "mppobs.cli.simulate:simulate", "demo"),
    "status": Command("Show the indicators of every pipeline of a sidecar.", "mppobs.cli.status:status", "sidecar"),
    "jobs": Command("List the jobs of a sidecar.", "mppobs.cli.jobs:jobs", "sidecar"),
    "job": Command("Show one job: its stages, shards and stragglers.", "mppobs.cli.jobs:job", "sidecar"),
    "sidecar": Command("Follow journals and serve indicators, or ship them.", "mppobs.cli.sidecar:sidecar", "sidecar"),
    "slo": Command("Check objectives, compare them, see how they stand.", "mppobs.cli.slo:app", "render"),
    "generate": Command("Write rules, alerts and routing for a set of SLOs.", "mppobs.cli.generate:generate", "render"),
    "dashboards": Command("Build, check and draw dashboards for Grafana.", "mppobs.cli.dashboards:app", "render"),
    "runbook": Command("Show what to do about an alert.", "mppobs.cli.runbook:runbook"),
    "journal": Command("Read a worker's journal by hand.", "mppobs.cli.journal:app"),
}  # fmt: skip
"""Every command but `version`, in the order of the help text."""


def main() -> None:
    """Run the command that the process was called with, and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status: 2 for what the caller can put right, told in one line."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    try:
        _assemble(name)(args=list(arguments), prog_name="mppobs")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except MppobsError as error:
        typer.echo(f"mppobs: {error}", err=True)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "mppobs").startswith("mppobs") or name not in COMMANDS:
            raise
        extra = COMMANDS[name].extra or "all"
        typer.echo(
            f"mppobs {name} needs {error.name}: pip install 'mppobs[{extra}]' (in a clone: pip install '.[{extra}]')",
            err=True,
        )
        return 2
    return 0


def _assemble(chosen: str) -> typer.Typer:
    """Return the application with the chosen command loaded, and all others by name and help alone."""
    app = typer.Typer(
        name="mppobs",
        help="SRE observability and SLOs for massively parallel work.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name, command in COMMANDS.items():
        if name != chosen:
            app.command(name, help=command.help)(_not_loaded)
        elif isinstance(found := load(name), typer.Typer):
            app.add_typer(plain(found), name=name, help=command.help)
        else:
            app.command(name)(found)
    app.command("version", help="Print the version.")(_print_version)
    return plain(app)


def load(name: str) -> typer.Typer | Callable[..., Any]:
    """Return a command's function, or the application whose commands are below it. Raises what its import raises."""
    module, _, attribute = COMMANDS[name].path.partition(":")
    found: typer.Typer | Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def _exit_with_version(asked: bool) -> None:
    """Answer `--version`, which needs no command."""
    if asked:
        _print_version()
        raise typer.Exit


def _options(
    *,
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_exit_with_version
    ),
) -> None:
    """Take the options that stand before any command."""


def _print_version() -> None:
    typer.echo(__version__)


def _not_loaded() -> None:
    """Stand for a command that was not asked for: it is listed, and never called."""


if __name__ == "__main__":
    main()
