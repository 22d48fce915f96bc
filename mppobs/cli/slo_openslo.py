"""`mppobs slo import`, `export` and `schema`: SLOs from and to OpenSLO, and what editors check `slo.yaml` by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mppobs.cli.slo_files import FilesArgument
from mppobs.errors import ConfigError
from mppobs.slo.openslo import openslo_text, read_openslo
from mppobs.slo.schema import schema
from mppobs.slo.short import short_form
from mppobs.slo.spec import load_slos
from mppobs.yamlfile import load_all


def import_openslo(
    files: Annotated[list[Path], typer.Argument(help="OpenSLO v1 files, which may refer to each other.")],
    *,
    team: Annotated[str, typer.Option(help="The team of all SLOs; by default what each says.")] = "",
    out: Annotated[Path | None, typer.Option(help="A new file to write instead of the standard output.")] = None,
) -> None:
    """
    Print OpenSLO documents in the short form of slo.yaml; what was left out is told on the standard error.

    Exits with 1 and writes nothing where a document has no meaning here.
    """
    found = read_openslo([document for path in files for document in load_all(path)], team)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    for error in found.errors:
        typer.echo(f"error: {error}", err=True)
    if found.errors:
        raise typer.Exit(1)
    if not found.slos:
        raise ConfigError("no SLO in these files")
    text = short_form(found.slos)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror or error}") from error
    typer.echo(f"{len(found.slos)} SLOs written to {out}", err=True)


def export_openslo(files: FilesArgument) -> None:
    """Print SLOs as OpenSLO v1 documents, which `mppobs slo import` reads back unchanged."""
    typer.echo(openslo_text(load_slos(files)), nl=False)


def print_schema() -> None:
    """Print the JSON Schema of slo.yaml, by which editors complete and check it."""
    typer.echo(json.dumps(schema(), indent=2))
