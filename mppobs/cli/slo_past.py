"""`mppobs slo replay` and `mppobs slo suggest`: what promises would have been, and which the history supports."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.slo_files import FilesArgument
from mppobs.errors import ConfigError
from mppobs.model import ShardOutcome
from mppobs.sidecar.answers import moment
from mppobs.sidecar.settings import default_state_directory
from mppobs.sidecar.slo_book import job_facts
from mppobs.sidecar.store_jobs import MAX_PAGE, JobQuery, JobSummary, select_jobs
from mppobs.sidecar.store_schema import open_reader
from mppobs.slo.indicators import ShardFacts
from mppobs.slo.replay import Past, Replayed, can_replay
from mppobs.slo.replay import replay as replayed
from mppobs.slo.spec import load_slos
from mppobs.slo.suggest import MIN_RUNS, Suggestion
from mppobs.slo.suggest import suggest as suggested

_DAY_NS: Final = 86_400 * 10**9

StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="The aggregator's state directory; its own default here.")
]
DaysOption = Annotated[int, typer.Option("--days", min=1, help="How far back to look.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def replay(
    files: FilesArgument,
    *,
    state: StateOption = None,
    days: DaysOption = 30,
    as_json: JsonOption = False,
) -> None:
    """
    Say what SLOs would have been over the jobs that the aggregator has kept.

    For example: mppobs slo replay examples/slo.yaml --days 14
    """
    slos = load_slos(files)
    now = time.time_ns()
    found = replayed(slos, history(state, now - days * _DAY_NS), now)
    left_out = [slo.full_name for slo in slos if not can_replay(slo)]
    if as_json:
        show.print_json({"slos": [_replayed_json(each) for each in found], "not_replayed": left_out})
        return
    caption = f"not replayed, since nothing of them is kept: {', '.join(left_out)}" if left_out else ""
    made = show.table(
        f"SLOs over the last {days} days", ["SLO", "worst day"],
        ["objective", "good", "events", "bad", "left", "burn that day"], caption,
    )  # fmt: skip
    for each in found:
        day = show.moment(_iso(each.worst_day_ns))[:10]
        counts = each.counts
        made.add_row(
            each.slo.full_name, day, _percent(float(each.slo.objective)), show.percent(_good(each)),
            show.count(counts.total), show.marked(counts.bad, show.DOUBTFUL),
            f"{show.number(float(each.period.budget_left) * 100, 4)} %" if counts.total else show.NONE,
            show.number(float(each.worst_burn)) if counts.total else show.NONE,
        )  # fmt: skip
    show.console().print(made)


def suggest(
    state: StateOption = None,
    days: DaysOption = 90,
    team: Annotated[str, typer.Option("--team", help="Whose SLOs they would be.")] = "team",
    as_json: JsonOption = False,
) -> None:
    """
    Suggest objectives that the history supports, with what may then go wrong in a month.

    Each would have been kept with half of its budget left. For example: mppobs slo suggest --days 60
    """
    now = time.time_ns()
    found = suggested(history(state, now - days * _DAY_NS), now, team=team)
    if as_json:
        show.print_json([_suggested_json(each) for each in found])
        return
    caption = f"pipelines with fewer than {MIN_RUNS} runs are left out" if found else "too few runs are kept"
    if not all(each.can_alert for each in found):
        caption += "\ntoo low: even an outage would not fire every alert, so `mppobs generate` refuses it"
    figures = ("objective", "events", "bad", "may be bad", "alerts")
    made = show.table("Suggested objectives", ["SLO", "within"], figures, caption)
    for each in found:
        deadline = each.slo.bounds.deadline_seconds
        made.add_row(
            each.slo.full_name, show.seconds(None if deadline is None else float(deadline)),
            _percent(float(each.slo.objective)), show.count(each.counts.total), show.count(each.counts.bad),
            f"{show.number(float(each.budget))} in {each.slo.period_days} days",
            Text("can fire", show.QUIET) if each.can_alert else Text("too low", show.DOUBTFUL),
        )  # fmt: skip
    show.console().print(made)


def history(state: Path | None, since_ns: int) -> list[Past]:
    """Return the jobs that an aggregator keeps and that started since a time. Raises ConfigError where none does."""
    path = (state or default_state_directory()) / "mppobs.db"
    if not path.exists():
        raise ConfigError(f"{path} is not there: name the aggregator's state directory with --state")
    found: list[Past] = []
    connection = open_reader(path)
    try:
        query = JobQuery(since_ns=since_ns, limit=MAX_PAGE)
        while page := select_jobs(connection, query)[:MAX_PAGE]:
            found += map(_past, page)
            query = JobQuery(since_ns=since_ns, limit=MAX_PAGE, after=page[-1].order)
    finally:
        connection.close()
    return found


def _past(job: JobSummary) -> Past:
    """Return a kept job as SLOs look at it, with its shards by stage."""
    shards = tuple(
        ShardFacts(
            job.pipeline, job.key.tenant, job.run_kind, stage.stage,
            *(stage.shards.get(outcome, 0) for outcome in ShardOutcome),
        )
        for stage in job.stages
    )  # fmt: skip
    return Past(job.settled_ns, job_facts(job), shards)


def _good(each: Replayed) -> float | None:
    counts = each.counts
    return (counts.total - counts.bad) / counts.total if counts.total else None


def _replayed_json(each: Replayed) -> dict[str, object]:
    return {
        "slo": each.slo.full_name,
        "objective_ratio": float(each.slo.objective),
        "events": each.counts.total,
        "bad_events": each.counts.bad,
        "good_ratio": _good(each),
        "budget_left_ratio": float(each.period.budget_left),
        "worst_day": _iso(each.worst_day_ns),
        "worst_day_burn_rate": float(each.worst_burn),
    }


def _suggested_json(each: Suggestion) -> dict[str, object]:
    deadline = each.slo.bounds.deadline_seconds
    return {
        "slo": each.slo.full_name,
        "pipeline": each.slo.pipeline,
        "indicator": str(each.slo.indicator),
        "deadline_seconds": None if deadline is None else float(deadline),
        "objective_ratio": float(each.slo.objective),
        "events": each.counts.total,
        "bad_events": each.counts.bad,
        "budget_events": float(each.budget),
        "period_days": each.slo.period_days,
        "can_alert": each.can_alert,
    }


def _iso(time_ns: int) -> str | None:
    found = moment(time_ns)
    return found.isoformat() if found else None


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.8g} %"
