"""`mppobs slo`: check promises before they are made, and see how they are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.slo_budget import report, status
from mppobs.cli.slo_files import FilesArgument, MaxSeriesOption
from mppobs.cli.slo_openslo import export_openslo, import_openslo, print_schema
from mppobs.cli.slo_past import replay, suggest
from mppobs.cli.slo_proof import proof
from mppobs.slo.diff import diff
from mppobs.slo.lint import Check, Finding, Level, Surroundings, lint
from mppobs.slo.series import MAX_SERIES
from mppobs.slo.spec import load_spec, read_slos

app = typer.Typer(no_args_is_help=True, help="Service level objectives: check them, compare them, see how they stand.")

_CHANGE_COLOURS = {"added": "green", "removed": "red", "changed": "yellow"}
_COLOURS = {Level.ERROR: "bold red", Level.WARNING: "yellow"}


app.command()(proof)
app.command()(status)
app.command()(report)
app.command("import")(import_openslo)
app.command("export")(export_openslo)
app.command("schema")(print_schema)
app.command()(replay)
app.command()(suggest)


@app.callback()
def slo() -> None:
    """Service level objectives: check them, compare them, see how they stand."""


@app.command()
def check(
    files: FilesArgument,
    *,
    scrape: Annotated[int, typer.Option(help="Seconds between Prometheus's scrapes.", min=1)] = 30,
    retention: Annotated[int, typer.Option(help="Days that Prometheus keeps samples.", min=1)] = 15,
    max_series: MaxSeriesOption = MAX_SERIES,
    pipelines: Annotated[
        str, typer.Option(help="Pipelines that exist, separated by commas; the others are errors.")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per finding.")] = False,
) -> None:
    """
    Do the arithmetic on SLOs: alerts that can never fire, budgets under one event, windows that hold no scrapes.

    Exits with 1 where there are errors, 0 otherwise: fit for CI.
    """
    known = frozenset(name.strip() for name in pipelines.split(",") if name.strip()) or None
    slos, mistakes = read_slos(files)
    findings = [Finding(Level.ERROR, Check.SPEC, "", str(mistake)) for mistake in mistakes]
    findings += lint(slos, Surroundings(scrape, retention, max_series, known))
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(dataclasses.asdict(finding)))
    else:
        _print(findings, len(slos))
    worst = {finding.level for finding in findings}
    raise typer.Exit(1 if Level.ERROR in worst or (strict and worst) else 0)


@app.command("diff")
def compare(
    old: Annotated[Path, typer.Argument(help="The file as it is.")],
    new: Annotated[Path, typer.Argument(help="The file as it will be.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per changed SLO.")] = False,
) -> None:
    """Say in words what a change means: what pages at which error rate, how fast, and what starts anew."""
    changes = diff(load_spec(old).slos, load_spec(new).slos)
    if as_json:
        for change in changes:
            typer.echo(json.dumps(dataclasses.asdict(change)))
        return
    console = Console()
    for change in changes:
        console.print(Text.assemble((change.slo, "bold"), " ", (change.what, _CHANGE_COLOURS[change.what])))
        for line in change.lines:
            console.print(Text(f"  {line}"))
    if not changes:
        console.print("no change")


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return findings in groups that say the same of several SLOs, in the order of the first of each."""
    groups: dict[tuple[Level, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.message), []).append(finding)
    return list(groups.values())


def _print(findings: Sequence[Finding], count: int) -> None:
    """Show findings as a table, or that there are none."""
    out = show.console()
    if not findings:
        out.print(Text(f"{show.plural(count, 'SLO')}, nothing wrong", style="green"))
        return
    table = show.table("", ["SLO", "level", "check", "what is wrong"], [], prose=("what is wrong",))
    for alike in _alike(findings):
        first, others = alike[0], len(alike) - 1
        level = Text(first.level.value, style=_COLOURS[first.level])
        name = f"{first.slo} and {others} more" if others else first.slo or "—"
        table.add_row(name, level, first.check.value, first.message)
    out.print(table)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    told = f"{show.plural(errors, 'error')}, {show.plural(len(findings) - errors, 'warning')}"
    out.print(f"\n{show.plural(count, 'SLO')}: {told}")
