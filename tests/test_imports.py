"""Who may import whom: one table, held against the tree. `docs/architecture.md` says why."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mppobs"
BASE = {"model", "errors", "clock", "units", "version", "yamlfile"}

ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(BASE, BASE),
    "trace_ids": {"model"},
    "runbooks": {"errors"},
    "__init__": {"instrument", "model", "errors", "version"},
    "catalog": {"model"},
    "journal": {"model", "errors", "clock"},
    "instrument": {"journal", "model", "errors", "clock", "units", "catalog", "trace_ids"},
    "testing": {"instrument", "journal", "model", "errors", "clock"},
    "cost": {"model", "catalog", "units", "errors", "yamlfile"},
    "diagnose": {"model", "catalog", "units"},
    "slo": {"model", "catalog", "units", "errors", "yamlfile"},
    "render": {"slo", "model", "catalog", "units", "errors", "yamlfile", "version"},
    "executor": {"journal", "instrument", "catalog", "model", "errors", "clock", "units"},
    "sidecar": {"journal", "catalog", "cost", "diagnose", "slo", "trace_ids", "runbooks", *BASE},
    "workloads": {"executor", "instrument", "model", "errors"},
}
"""The parts that a part may import beside itself. `cli` may import everything; any other part must be listed."""

THIRD_PARTY: dict[str, set[str]] = {
    **{part: set() for part in (BASE | {"trace_ids"}) - {"yamlfile"}},
    "yamlfile": {"yaml"},
    "__init__": set(),
    "catalog": set(),
    "journal": {"numpy"},
    "instrument": {"prometheus_client", "opentelemetry"},
    "testing": set(),
    "cost": {"yaml"},
    "diagnose": set(),
    "slo": {"numpy", "promql_parser", "yaml"},
    "render": {"PIL", "grafanalib", "jinja2", "jsonschema", "matplotlib", "numpy", "promql_parser", "yaml"},
    "executor": {"distributed", "fsspec", "isal", "numpy", "pyarrow", "ray"},
    "workloads": {"pyarrow", "duckdb", "numpy", "PIL"},
}
"""The installed packages that a part may import at all, also inside a function."""

SIMULATED = (
    "draw", "model", "fate", "places", "jobs", "observe", "timetable", "world", "run", "tally", "effects", "scenarios",
)  # fmt: skip
"""What of a simulation reads no file and no clock: all but the estate and what it writes."""

PURE = (
    "diagnose/*.py", "catalog/*.py", "slo/*.py", "executor/scheduler.py", "executor/policies/*.py",
    "executor/scheduling/*.py", *(f"executor/sim/{name}.py" for name in SIMULATED),
)  # fmt: skip
"""Files where time and chance are arguments."""

IMPURE = {"time", "os", "socket", "threading", "subprocess", "tempfile", "asyncio", "uuid", "secrets", "mmap"}

READ_SIDE = {"mppobs.journal.columns", "mppobs.journal.excerpt", "mppobs.journal.seal"}
"""What of the journal only its readers need."""

NUMPY_IN_JOURNAL = "columns.py"

HEAVY = {
    "fastapi", "starlette", "uvicorn", "pydantic", "httpx", "numpy", "pyarrow", "yaml", "duckdb", "typer", "rich",
    "jinja2", "grafanalib", "prometheus_client", "opentelemetry", "asyncio",
}  # fmt: skip
"""What `import mppobs` must not load into somebody else's worker."""


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever in the file; `from a import b` yields `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    """Return the part that a file belongs to: its directory below the package, or its own name at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A file imports only the parts that the table allows to its part."""
    part = part_of(path)
    if part == "cli":  # which wires everything
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("mppobs.")}

    assert used - ALLOWED[part] - {part} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_installed_packages_stay_in_their_parts(path: Path) -> None:
    """A file imports only the installed packages that are its part's business, and the journal's hot path none."""
    part = part_of(path)
    if part not in THIRD_PARTY:
        return
    tops = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"mppobs"}
    allowed = THIRD_PARTY[part]
    if part == "journal" and path.name != NUMPY_IN_JOURNAL:
        allowed = set()

    assert tops - allowed == set()


@pytest.mark.parametrize("pattern", PURE)
def test_pure_parts_know_no_world(pattern: str) -> None:
    """The pure parts import nothing that gives them a clock, chance, a socket, a thread or the environment."""
    impure = {
        f"{path.name}: {name}"
        for path in PACKAGE.glob(pattern)
        for name in imports(path)
        if name.split(".")[0] in IMPURE or name.startswith("mppobs.clock")
    }

    assert impure == set()


@pytest.mark.parametrize("pattern", PURE)
def test_pure_parts_are_handed_their_chance(pattern: str) -> None:
    """The pure parts may use a generator that they are given, and never the one that all share."""
    used = {
        f"{path.name}: random.{node.attr}"
        for path in PACKAGE.glob(pattern)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
    }

    assert {use for use in used if not use.endswith(": random.Random")} == set()


def test_instrumentation_leaves_the_read_side_alone() -> None:
    """A worker writes journals; what seals them and reads them as columns is not its business."""
    used = {name for path in PACKAGE.glob("instrument/*.py") for name in imports(path)}

    assert used & READ_SIDE == set()


@pytest.mark.parametrize("access", ["mppobs", "mppobs.task; mppobs.job; mppobs.attempt; mppobs.current"])
def test_importing_the_package_loads_nothing_heavy(access: str) -> None:
    """`import mppobs`, and the names that a worker uses, load none of the heavy packages."""
    code = f"import sys, json, mppobs; {access}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}

    assert loaded & HEAVY == set()


def test_the_table_of_the_documentation_is_this_one() -> None:
    """Every part of the table in `docs/architecture.md` is held by the table here."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    section = text.split("## Who may import whom")[1].split("\n## ")[0]
    parts = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([\w]+)`", row)
    }

    assert parts - {"cli"} <= ALLOWED.keys()
