"""`mppobs generate`: from slo.yaml to what Prometheus and Alertmanager load."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from mppobs.cli.slo_files import FilesArgument, MaxSeriesOption
from mppobs.errors import ConfigError
from mppobs.render.everything import Drift, Options, drift
from mppobs.render.everything import generate as render
from mppobs.render.files import Format
from mppobs.render.routing import RoutingSettings, load_routing
from mppobs.render.rules import RuleSettings
from mppobs.slo.lint import Check, Level, Surroundings, lint
from mppobs.slo.model import Slo
from mppobs.slo.series import MAX_SERIES
from mppobs.slo.spec import load_slos

_DEFAULTS = RuleSettings()


def generate(
    files: FilesArgument,
    *,
    out: Annotated[Path, typer.Option("--out", help="Directory to write to; made where it is missing.")],
    target: Annotated[Format, typer.Option("--format", help="Who reads the rules.")] = Format.PROMETHEUS,
    routing: Annotated[Path | None, typer.Option(help="Receivers, maintenance windows.")] = None,
    runbooks: Annotated[str, typer.Option(help="URL below which the runbooks are served.")] = _DEFAULTS.runbooks_url,
    dashboards: Annotated[str, typer.Option(help="URL of Grafana.")] = "",
    job: Annotated[str, typer.Option(help="The `job` label under which aggregators are scraped.")] = _DEFAULTS.job,
    time_scale: Annotated[int, typer.Option(help="Divide every duration by this, for drills.", min=1)] = 1,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if it would.")] = False,
    max_series: MaxSeriesOption = MAX_SERIES,
    force: Annotated[bool, typer.Option("--force", help="Write in spite of errors of `mppobs slo check`.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
) -> None:
    """
    Write rules, alerts, routing and notification templates for a set of SLOs.

    The same input gives the same bytes. Files that only an earlier run wrote are removed; files of others stay.
    """
    slos = _slos(files, max_series, force=force)
    rules = RuleSettings(runbooks_url=runbooks.rstrip("/"), dashboards_url=dashboards.rstrip("/"), job=job)
    receivers = load_routing(routing) if routing is not None else RoutingSettings()
    texts = render(slos, Options(target, time_scale, rules, receivers))
    found = drift(texts, out)
    if not check:
        _write(texts, found, out)
    _report(texts, found, out, check=check, as_json=as_json)
    raise typer.Exit(1 if check and found else 0)


def _slos(files: Sequence[Path], max_series: int, *, force: bool) -> list[Slo]:
    """Return the SLOs of all files, or raise ConfigError for what can be told before anything is written."""
    slos = load_slos(files)
    found = [finding for finding in lint(slos, Surroundings(max_series=max_series)) if finding.level is Level.ERROR]
    errors = [finding for finding in found if not force or finding.check is Check.SPEC]
    if errors:
        lines = "\n".join(f"  {finding.slo or 'all'}: {finding.message}" for finding in errors)
        raise ConfigError(f"nothing written, since this would not work (--force writes all the same):\n{lines}")
    return slos


def _write(texts: Mapping[str, str], found: Mapping[str, Drift], out: Path) -> None:
    """Bring the directory in line: whole files, each moved into place, so that a reader never sees half of one."""
    for name, how in found.items():
        path = out / name
        if how is Drift.LEFT_OVER:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".mppobs-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(texts[name])
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)


def _report(texts: Mapping[str, str], found: Mapping[str, Drift], out: Path, *, check: bool, as_json: bool) -> None:
    """Say what was written, or what differs."""
    for name in sorted({*texts, *found}):
        state = found[name].value if name in found else "unchanged"
        if as_json:
            typer.echo(json.dumps({"path": str(out / name), "state": state}))
        elif name in found:
            done = state if check else "removed" if found[name] is Drift.LEFT_OVER else "written"
            typer.echo(f"{done:<10} {out / name}")
    if not found and not as_json:
        typer.echo(f"{len(texts)} files in {out} are up to date")
