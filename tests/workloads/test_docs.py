"""The page about workloads lists all of them, as they are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from mppobs.workloads.base import Value
from mppobs.workloads.registry import WORKLOADS, Parameter, Workload

PAGE = Path(__file__).parents[2] / "docs" / "workloads.md"


def shown(value: Value) -> str:
    """Return a value as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def row(workload: Workload) -> str:
    """Return the line of the table for a workload."""

    def told(parameter: Parameter) -> str:
        return f"`{parameter.name}={shown(parameter.default)}`"

    parameters = " ".join(map(told, workload.parameters)) or "–"
    return f"| `mppobs run {workload.name}` | {workload.pattern} | {workload.stresses} | {parameters} |"


def table() -> str:
    """Return the table that belongs on the page."""
    head = ["| workload | pattern | stresses | parameters (`--set`) |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *map(row, WORKLOADS.values())])


def test_the_table_is_that_of_the_registry() -> None:
    """Every workload has its line with pattern, what it stresses, command, and parameters with their defaults."""
    assert table() in PAGE.read_text()


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_module_says_what_goes_wrong_and_what_to_watch(name: str) -> None:
    """The module behind a workload begins with what it stands for, what happens in production and what to look at."""
    module = importlib.import_module(WORKLOADS[name].home.partition(":")[0])
    text = module.__doc__ or ""

    assert "**In production**" in text
    assert "**Watch**" in text
    assert re.search(r"\((M\d+|F\d)", text), "name an indicator of the catalogue"
