"""`mppobs demo`: two TPC-H queries on real data, recorded, judged by a sidecar beside them, shown as indicators."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

import mppobs
from mppobs.cli import show
from mppobs.cli.beside import SidecarProcess, Watcher
from mppobs.cli.demo_jobs import TROUBLE_TOLD, TROUBLED_ROUND, Findings, run_queries
from mppobs.cli.indicators import indicator_table
from mppobs.cli.interrupts import terminate_as_interrupt
from mppobs.cli.keeping import Keeper
from mppobs.cli.progress import Board
from mppobs.executor import Executor
from mppobs.executor.result import JobResult
from mppobs.sidecar.settings import DEFAULT_PORT
from mppobs.units import human_bytes, human_seconds
from mppobs.workloads import tpch
from mppobs.workloads.data import make_dataset
from mppobs.workloads.tpch import QUERIES

PARTS: Final = 48
"""Files per table, so that the largest stages have dozens of shards."""
_NODE_TYPE: Final = "demo-core"
_PRICES: Final = Path(tpch.__file__).with_name("prices.yaml")
_JUDGED_SECONDS: Final = 30.0
_PICTURE_WIDTH: Final = 114
_NOTED_WIDTH: Final = 110
"""Columns from which on the table has room for what the values are made of."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo was asked for."""

    scale_factor: float
    workers: int
    runs: int
    data: Path
    port: int
    serve: bool
    keep: Path | None
    picture: Path | None
    json_file: Path | None


def demo(
    scale_factor: Annotated[float, typer.Option(min=0.001, help="Size of the data: 1 is 6 million line items.")] = 0.5,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 for one per core, two at least.")] = 0,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each query.")] = 5,
    data: Annotated[Path | None, typer.Option(help="Where data is made and kept; by default in the cache.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the sidecar; 0 for a free one.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Keep the sidecar up until Ctrl-C.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep the raw records here, for mppobs journal.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the table of indicators into this SVG file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was found into this file.")] = None,
) -> None:
    """
    Run TPC-H Q1 and Q3 on real data, on local worker processes, and show what their indicators say.

    Exits with 1 where a job failed or an answer differs from DuckDB's.
    """
    options = Options(
        scale_factor=scale_factor,
        workers=workers or max(2, os.cpu_count() or 2),
        runs=runs,
        data=data or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mppobs",
        port=port if port is not None else DEFAULT_PORT if serve else 0,
        serve=serve,
        keep=keep,
        picture=picture,
        json_file=json_file,
    )
    console = show.console()
    try:
        with terminate_as_interrupt():
            findings = _run(options, console)
    except KeyboardInterrupt:
        console.print("stopped")
        raise typer.Exit(130) from None
    if not findings.ok:
        raise typer.Exit(1)


def _run(options: Options, console: Console) -> Findings:
    """Do everything, and leave no process and no file behind that was not asked for."""
    findings = Findings()
    with ExitStack() as stack:
        near = options.keep.absolute().parent if options.keep is not None else None
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="mppobs-demo-", dir=near, ignore_cleanup_errors=True)
        )
        with findings.timed("total"):
            sidecar = _observe(options, console, Path(scratch), findings, stack)
        _report(options, console, findings, sidecar)
        if options.serve:
            console.print("\nThe sidecar stays up; Ctrl-C stops it.")
            sidecar.wait()
    return findings


def _observe(
    options: Options, console: Console, directory: Path, findings: Findings, stack: ExitStack
) -> SidecarProcess:
    """Make the data, run the jobs with the sidecar beside them, and wait until it has judged them."""
    journals = directory / "journals"
    with Board(console) as board:
        board.wait(f"making TPC-H data at scale factor {options.scale_factor:g}")
        with findings.timed("data"):
            dataset = make_dataset(options.data, options.scale_factor, PARTS)
        board.say(f"data     {human_bytes(dataset.size_bytes)} of Parquet in {dataset.directory}")
        sidecar = stack.enter_context(SidecarProcess(directory / "sidecar", journals, _PRICES, options.port))
        if options.keep is not None:
            stack.enter_context(Keeper([journals, directory / "sidecar"], options.keep))
        board.say(f"sidecar  {sidecar.url}")
        if options.runs > TROUBLED_ROUND:
            board.say(f"trouble  {TROUBLE_TOLD}")
        mppobs.configure(directory=journals, node_type=_NODE_TYPE, sample_seconds=1.0)
        with Watcher(sidecar) as watcher:
            with Executor(options.workers, directory / "exchange", journal=journals) as executor:
                run_queries(executor, dataset, options.runs, board, findings)
            board.wait("waiting until the sidecar has judged every job")
            with findings.timed("judging"):
                sidecar.wait_until_judged(findings.job_ids, _JUDGED_SECONDS)
        findings.pipelines = watcher.peaks.fill(sidecar.indicators())
    return sidecar


def _report(options: Options, console: Console, findings: Findings, sidecar: SidecarProcess) -> None:
    """Print the indicators and where to look next, and write the files that were asked for."""
    console.print()
    console.print(indicator_table(findings.pipelines, notes=console.width >= _NOTED_WIDTH))
    console.print()
    for line in _ending(options, findings, sidecar):
        console.print(line, highlight=False, soft_wrap=True)
    if options.picture is not None:
        _draw(options, options.picture, findings)
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(_as_json(options, findings), indent=2) + "\n")


def _ending(options: Options, findings: Findings, sidecar: SidecarProcess) -> Iterator[str]:
    """Yield whether the answers were right, how long it took, and where to look next."""
    yield _checked(findings)
    if options.keep is not None:
        yield f"the raw records are in {options.keep}"
    if not options.serve:
        yield "look closer: make demo ARGS=--serve, then mppobs status, mppobs jobs and mppobs job ID"
        return
    newest = findings.job_ids[-1]
    where = "" if options.port == DEFAULT_PORT else f" --url {sidecar.url}"
    yield f"figures   {sidecar.url}/api/v1/slis   metrics   {sidecar.url}/metrics   interface   {sidecar.url}/docs"
    yield f"commands  mppobs status{where}   mppobs jobs{where}   mppobs job {newest}{where}"


def _draw(options: Options, path: Path, findings: Findings) -> None:
    """Write the table as a picture, as a terminal of a fixed width shows it."""
    recorder = Console(record=True, width=_PICTURE_WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    recorder.print("$ make demo\n", style="bold")
    recorder.print(indicator_table(findings.pipelines))
    recorder.print(f"\n{_checked(findings)}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"TPC-H at scale factor {options.scale_factor:g}, {options.workers} workers"
    svg = recorder.export_svg(title=title, unique_id="demo")
    # Without the web fonts that rich asks for: a picture in a page may load nothing, and need not.
    path.write_text(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL) + "\n")


def _checked(findings: Findings) -> str:
    """Return whether the answers were right, and how long everything took."""
    verdicts = [verdict for found in findings.verdicts.values() for verdict in found]
    right = sum(verdict.ok for verdict in verdicts)
    return f"{right} of {len(verdicts)} answers as DuckDB's, in {human_seconds(findings.seconds['total'])}"


def _as_json(options: Options, findings: Findings) -> dict[str, Any]:
    """Return what `--json` writes: indicators keyed M1 to M12 by pipeline, answers, runs, timings."""
    queries = {query.key: query for query in QUERIES}
    return {
        "ok": findings.ok,
        "scale_factor": options.scale_factor,
        "workers": options.workers,
        "indicators": {each["pipeline"]: each["indicators"] for each in findings.pipelines},
        "answers": {
            queries[key].pipeline: {
                "query": key,
                "checked": len(verdicts),
                "right": sum(verdict.ok for verdict in verdicts),
                "rows": verdicts[0].rows,
                "differences": [verdict.difference for verdict in verdicts if not verdict.ok],
            }
            for key, verdicts in findings.verdicts.items()
        },
        "jobs": [_job_as_json(result) for results in findings.results.values() for result in results],
        "seconds": {name: round(seconds, 3) for name, seconds in findings.seconds.items()},
    }


def _job_as_json(result: JobResult) -> dict[str, Any]:
    return {
        "job_id": result.job_id,
        "pipeline": result.pipeline,
        "outcome": result.outcome,
        "seconds": round(result.wall, 4),
        "shards": sum(stage.done for stage in result.stages),
        "retries": sum(stage.retries for stage in result.stages),
        "shuffle_bytes": sum(stage.shuffle_read + stage.shuffle_written for stage in result.stages),
        "rows": sum(stage.rows for stage in result.stages),
    }
