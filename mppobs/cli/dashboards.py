"""`mppobs dashboards`: dashboards for Grafana, built from their sources, checked, and drawn without a Grafana."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mppobs.cli.asking import Prometheus, Reader, window_of
from mppobs.errors import ConfigError
from mppobs.render.dashboards.build import SUFFIX, built, drifted, load, parse, text_of
from mppobs.render.dashboards.check.exclusions import EXCLUSIONS, let_through
from mppobs.render.dashboards.check.findings import Finding
from mppobs.render.dashboards.check.rules import RULES, findings
from mppobs.render.dashboards.check.schema import KNOWN, Violation, versions
from mppobs.render.dashboards.fields import Json
from mppobs.units import parse_duration

app = typer.Typer(no_args_is_help=True, help="Build, check and draw dashboards for Grafana.")

Sources = Annotated[
    list[Path], typer.Argument(help="NAME.dashboard.py files, or directories of them.", show_default=False)
]
Files = Annotated[
    list[Path],
    typer.Argument(help="NAME.json or NAME.dashboard.py files, or directories of the latter.", show_default=False),
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


@app.command()
def check(
    paths: Files,
    *,
    schemas: Annotated[
        Path | None, typer.Option(help="Directory of scripts/grafana-schemas: check against Grafana's own types too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per finding.")] = False,
) -> None:
    """
    Check dashboards: the rules of Grafana's linter, queries against the catalogue, units, layout, links.

    Nothing is asked of a Grafana or a Prometheus. Exits with 1 where something is found.
    """
    dashboards = list(_loaded(paths).values())
    left, idle = let_through(findings(dashboards))
    violations = _violations(dashboards, schemas) if schemas is not None else []
    wrong: list[Finding | Violation] = [*left, *violations]
    for found in wrong:
        typer.echo(json.dumps(asdict(found)) if as_json else str(found))
    if not as_json:
        for each in EXCLUSIONS:
            note = "  (lets nothing through)" if each in idle else ""
            typer.echo(f"let through  {each.rule}: {each.reason}{note}")
        typer.echo(f"{len(dashboards)} dashboards, {len(RULES)} rules: {len(wrong) or 'nothing'} found")
    raise typer.Exit(1 if wrong else 0)


def _violations(dashboards: Sequence[Json], directory: Path) -> list[Violation]:
    """Return what the types of any version of Grafana have against the dashboards, and nobody has explained."""
    found = (
        each for schemas in versions(directory) for dashboard in dashboards for each in schemas.violations(dashboard)
    )
    return [each for each in found if not any(known.covers(each) for known in KNOWN)]


@app.command()
def preview(
    paths: Files,
    *,
    prometheus: Annotated[str, typer.Option(help="URL of the Prometheus to ask.")],
    out: Annotated[Path, typer.Option(help="Directory to write to.")],
    span: Annotated[str, typer.Option(help="How far back, such as 15m; by default as each dashboard says.")] = "",
    end: Annotated[str, typer.Option(help="Up to when, as Unix seconds or ISO 8601; by default now.")] = "",
    scrape: Annotated[str, typer.Option(help="How often Prometheus scrapes.")] = "15s",
    var: Annotated[list[str] | None, typer.Option(help="NAME=VALUE: choose a variable; the rest are All.")] = None,
) -> None:
    """
    Draw dashboards from live data, as Grafana would lay them out: one SVG and one PNG each, without a Grafana.

    For reviews of a change, for pages that show them, and for whoever has a Prometheus and no Grafana.
    """
    from mppobs.render.preview.page import save  # here, since only pictures need matplotlib

    wanted = _chosen(var or [])
    until = _moment(end)
    seconds = parse_duration(span) if span else None
    with Prometheus(prometheus) as server:
        for name, dashboard in _loaded(paths).items():
            window = window_of(dashboard, until, seconds, parse_duration(scrape))
            for path in save(Reader(server, window, wanted).page(dashboard), out, name):
                typer.echo(f"drawn      {path}")


def _loaded(paths: list[Path]) -> dict[str, Json]:
    """Return the JSON of every dashboard by its name, built where a source is given."""
    found: dict[str, Json] = {}
    for path in paths:
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        for each in files:
            if each.name.endswith(SUFFIX):
                found[each.name.removesuffix(SUFFIX)] = json.loads(text_of(load(each)))
            else:
                found[each.stem] = parse(each)
    if not found:
        raise ConfigError(f"no dashboards in {', '.join(map(str, paths))}")
    return found


def _chosen(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, equals, _value in pairs:
        if not name or not equals:
            raise ConfigError(f"--var {name}: write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _moment(text: str) -> float:
    if not text:
        return time.time()
    try:
        return float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text).astimezone(UTC).timestamp()
        except ValueError as error:
            raise ConfigError(f"--end {text}: write Unix seconds, or a time such as 2026-01-31T03:00:00Z") from error
