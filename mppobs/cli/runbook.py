"""`mppobs runbook`: the page of an alert in the terminal, with the names of what it is about filled in."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markdown import Markdown

from mppobs.catalog.alerts import BY_NAME
from mppobs.cli import show
from mppobs.runbooks import filled, names, text_of


def runbook(
    name: Annotated[str, typer.Argument(metavar="ALERT", help="The alert's name; without it, all pages.")] = "",
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="What $PIPELINE stands for.")] = "",
    job: Annotated[str, typer.Option("--job", "-j", help="What $JOB stands for.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Print the page as it was written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the pages' names, or the page, as JSON.")] = False,
) -> None:
    """
    Show what to do about an alert: what it means, how to confirm it, what to try in which order.

    For example: mppobs runbook MppPartitionSkew --pipeline nightly
    """
    if not name:
        _list(as_json)
        return
    given = {"PIPELINE": pipeline, "JOB": job}
    text = filled(text_of(name), {key: value for key, value in given.items() if value})
    if as_json:
        show.print_json({"name": name, "text": text})
    elif raw:
        typer.echo(text, nl=False)
    else:
        show.console().print(Markdown(text))


def _list(as_json: bool) -> None:
    """Print every page with what it is about."""
    found = {name: BY_NAME[name].summary if name in BY_NAME else "" for name in names()}
    if as_json:
        show.print_json({"runbooks": list(found)})
        return
    made = show.table("Runbooks", ["page", "what for"], (), "mppobs runbook PAGE shows one")
    for name in found:
        made.add_row(name, str(BY_NAME[name].failure_mode) if name in BY_NAME else "guide")
    show.console().print(made)
