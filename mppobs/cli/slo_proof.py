"""`mppobs slo proof`: how fast every leg of every SLO notices errors and lets go."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mppobs.slo.spec import load_spec
from mppobs.slo.timing import KEPT_SECONDS, Timing, timings
from mppobs.units import human_seconds


def proof(
    file: Annotated[Path, typer.Argument(help="A file of SLOs.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per leg and error rate.")] = False,
) -> None:
    """
    Show how long each leg takes to fire, and to reset, in an outage and at 10 and 2 times the budget's error rate.

    Where `every` says how often runs come, they are taken to come evenly. A scrape and an evaluation come on top.
    """
    found = list(timings(load_spec(file).slos))
    if as_json:
        for timing in found:
            typer.echo(json.dumps(dataclasses.asdict(timing)))
        return
    console = Console()
    for slo, of_slo in groupby(found, key=lambda timing: timing.slo):
        console.print(Text(slo, style="bold"))
        console.print(_table(of_slo))
    console.print(f"Resets include {human_seconds(KEPT_SECONDS)} for which an alert is kept after its last breach.")


def _table(found: Iterable[Timing]) -> Table:
    """Return the timings of one SLO as a table; a leg and its threshold are named once."""
    table = Table(box=None, pad_edge=False)
    for column in ("leg", "windows", "does"):
        table.add_column(column, no_wrap=True)
    for column in ("above", "errors", "fires after", "resets after"):
        table.add_column(column, justify="right", no_wrap=True)
    last = ""
    for timing in found:
        what = (timing.leg, timing.window, timing.severity.value, f"{timing.threshold:.4%}")
        shown = what if timing.leg != last else ("", "", "", "")
        last = timing.leg
        table.add_row(*shown, timing.errors, _after(timing.detection_seconds), _reset(timing))
    return table


def _after(seconds: float | None) -> str:
    return "never" if seconds is None else human_seconds(seconds)


def _reset(timing: Timing) -> str:
    if timing.leg == "latched":
        return "next good one"
    return "—" if timing.reset_seconds is None else human_seconds(timing.reset_seconds)
