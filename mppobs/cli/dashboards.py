"""`mppobs dashboards`: dashboards for Grafana, built from their sources, checked, and drawn without a Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mppobs.render.dashboards.build import built, drifted

app = typer.Typer(no_args_is_help=True, help="Build, check and draw dashboards for Grafana.")

Sources = Annotated[
    list[Path], typer.Argument(help="NAME.dashboard.py files, or directories of them.", show_default=False)
]


@app.command()
def build(
    paths: Sources,
    *,
    out: Annotated[Path | None, typer.Option(help="Directory to write to; by default beside each source.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if it would.")] = False,
) -> None:
    """
    Write the JSON of dashboards, for Grafana to provision. The same sources give the same bytes.

    A source is a Python file that sets `dashboard`; it is run.
    """
    texts = built(paths, out)
    differing = drifted(texts)
    for path in differing:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
        typer.echo(f"{'differs' if check else 'written':<10} {path}")
    if not differing:
        typer.echo(f"{len(texts)} dashboards are up to date")
    raise typer.Exit(1 if check and differing else 0)
