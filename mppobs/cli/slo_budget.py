"""`mppobs slo status` and `mppobs slo report`: how the promises of a running sidecar are kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from mppobs.cli import show
from mppobs.cli.client import DEFAULT_URL, JsonOption, SidecarClient, TokenOption, UrlOption
from mppobs.cli.grid import Grid, name_of

MOST: Final = 10_000
"""SLOs that are listed."""
_ELSEWHERE: Final = "in Prometheus"
_LESS: Final = ("burn 1d", "events", "may be bad", "owner", "last", "burn 1h")
"""Columns of the table that a narrow terminal can do without, the least useful first."""
_LESS_OF_MONTH: Final = ("days", "events", "owner")
_UNITS: Final = {"job": "runs", "shard": "shards", "minute": "minutes", "cent": "cents", "query": "events"}

PipelineOption = Annotated[str | None, typer.Option("--pipeline", "-p", help="Only those on this pipeline.")]
OwnerOption = Annotated[str | None, typer.Option("--owner", help="Only those of this owner.")]


def status(
    slo: Annotated[str | None, typer.Argument(metavar="[TEAM/NAME]", help="One SLO, with its windows.")] = None,
    pipeline: PipelineOption = None,
    owner: OwnerOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Show how much error budget is left, how fast it goes, and how long it lasts.

    For example, all of one owner: mppobs slo status --owner scoring
    """
    query = {"slo": slo, "pipeline": pipeline, "owner": owner}
    with SidecarClient(url, token) as client:
        found = list(client.pages("/slos", "slos", query, MOST))
        problem = client.get("/slos", {"limit": 1})["problem"]
    if as_json:
        show.print_json({"slos": found, "problem": problem})
        return
    out = show.console()
    if slo is not None:
        for each in found:
            _print_one(out, each)
    else:
        out.print(status_table(found))
    if problem:
        out.print(
            Text(f"\nthe newest change of the files is refused, these are the SLOs before it:\n{problem}", show.BAD)
        )


def report(
    month: Annotated[
        str, typer.Option("--month", metavar="YYYY-MM", help="The month, in UTC; this one by default.")
    ] = "",
    pipeline: PipelineOption = None,
    owner: OwnerOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Report how the promises were kept in a month: events, what was good, and what was left of the budget.

    For example: mppobs slo report --month 2026-01
    """
    chosen = month or datetime.now(UTC).strftime("%Y-%m")
    query = {"pipeline": pipeline, "owner": owner, "month": chosen}
    with SidecarClient(url, token) as client:
        found = list(client.pages("/slos", "slos", query, MOST))
    if as_json:
        show.print_json({"month": chosen, "slos": found})
    else:
        show.console().print(report_table(found, chosen))


def status_table(slos: list[dict[str, Any]]) -> Grid:
    """Return the table of SLOs."""
    caption = (
        "left: of the period's budget · lasts: at the pace of the last day with events"
        if slos
        else "no SLO is watched: `mppobs sidecar --slo FILE`"
    )
    figures = ("objective", "events", "bad", "may be bad", "left", "burn 1h", "burn 1d", "lasts")
    made = show.table("SLOs", ["SLO", "owner", "last"], figures, _with_elsewhere(caption, slos), less=_LESS)
    for each in slos:
        if not _is_ours(each):
            _add_elsewhere(made, each, "left")
            continue
        period, burn = each["period"], {window["window"]: window["burn_rate"] for window in each["windows"]}
        made.add_row(
            each["slo"],
            each["owner"] or show.NONE,
            _last(each),
            _objective(each["objective_ratio"]),
            show.count(period["events"]),
            show.marked(period["bad_events"], show.DOUBTFUL),
            _more(each),
            _left(period["budget_left_ratio"]),
            _burn(burn["1h"]),
            _burn(burn["1d"]),
            _lasts(each),
        )
    return made


def report_table(slos: list[dict[str, Any]], month: str) -> Grid:
    """Return the table of a month."""
    caption = "months in UTC; a month in which counting began, or that goes on, is reported as far as it goes"
    figures = ("objective", "good", "events", "bad", "left", "days")
    caption = _with_elsewhere(caption, slos)
    made = show.table(f"SLOs in {month}", ["SLO", "owner", "kept"], figures, caption, less=_LESS_OF_MONTH)
    for each in slos:
        if not _is_ours(each):
            _add_elsewhere(made, each, "kept")
            continue
        period = each["period"]
        made.add_row(
            each["slo"],
            each["owner"] or show.NONE,
            _kept(period, each["objective_ratio"]),
            _objective(each["objective_ratio"]),
            show.percent(period["good_ratio"]),
            show.count(period["events"]),
            show.marked(period["bad_events"], show.DOUBTFUL),
            _left(period["budget_left_ratio"]),
            f"{_days(period):.1f}",
        )
    return made


def _print_one(out: Console, slo: dict[str, Any]) -> None:
    """Print one SLO: what it promises, and how it is kept or who knows."""
    what = f"{slo['indicator']} of {slo['pipeline']}" if _is_ours(slo) else "of what its own queries count"
    promised = f"{_objective(slo['objective_ratio'])} {what} over {slo['period_days']} days"
    out.print(Text.assemble((slo["slo"], "bold"), f": {promised}"))
    for line in filter(None, (slo["description"], f"owner {slo['owner'] or show.NONE}, {slo['tier']}")):
        out.print(Text(line, show.QUIET))
    if _is_ours(slo):
        _print_standing(out, slo)
        return
    out.print("Prometheus counts it, and knows what is left of its budget. What to ask there:")
    asked = show.table("", ["figure", "query"], [], prose=("query",))
    for figure, query in slo["queries"].items():
        asked.add_row(figure.replace("_", " "), query)
    out.print(asked)


def _print_standing(out: Console, slo: dict[str, Any]) -> None:
    """Print what is left of a budget, its windows, and the changes of its objective."""
    period, unit = slo["period"], _UNITS[slo["unit"]]
    out.print(
        Text.assemble(
            f"{show.count(period['events'])} {unit} since {show.moment(period['start'])}, "
            f"{show.count(period['bad_events'])} of them bad; {_more(slo)} more may be. Budget left: ",
            _left(period["budget_left_ratio"]),
            ", lasts " if slo["exhausted_in_seconds"] else ", ",
            _lasts(slo),
        )
    )
    if slo["provisional_bad_events"]:
        out.print(
            Text(f"running jobs that are predicted to become bad: {slo['provisional_bad_events']}", show.DOUBTFUL)
        )
    if slo["warned_jobs"]:
        warned = "likely to become bad, not charged before ten runs have been predicted"
        out.print(Text(f"running jobs that are {warned}: {slo['warned_jobs']}", show.DOUBTFUL))
    if slo["foresight"] and slo["foresight"]["runs"]:
        out.print(Text(_foresight(slo["foresight"]), show.QUIET))
    made = show.table("Windows", ["window"], ["events", "bad", "burn rate"])
    for window in slo["windows"]:
        made.add_row(
            window["window"],
            show.count(window["events"]),
            show.marked(window["bad_events"], show.DOUBTFUL),
            _burn(window["burn_rate"]),
        )
    out.print(made)
    for change in slo["changes"]:
        before, after = _objective(change["before_ratio"]), _objective(change["after_ratio"])
        out.print(Text(f"{show.moment(change['time'])}  objective {before} → {after}", show.QUIET))


def _is_ours(slo: dict[str, Any]) -> bool:
    """Return whether the sidecar that was asked counts an SLO, and so has figures of it."""
    return slo.get("counted_by") != "prometheus"


def _add_elsewhere(made: Grid, slo: dict[str, Any], column: str) -> None:
    """Add the row of an SLO that Prometheus counts: what is promised, and in one column who knows the rest."""
    known = {
        "SLO": Text(slo["slo"]),
        "owner": Text(slo["owner"] or show.NONE),
        "objective": Text(_objective(slo["objective_ratio"])),
        column: Text(_ELSEWHERE, show.QUIET),
    }
    made.add_row(*(known.get(name_of(each), Text(show.NONE, show.QUIET)) for each in made.columns))


def _with_elsewhere(caption: str, slos: list[dict[str, Any]]) -> str:
    """Return a caption that explains such rows where there are any."""
    found = next((slo["slo"] for slo in slos if not _is_ours(slo)), None)
    if found is None:
        return caption
    return f"{caption}\n{_ELSEWHERE}: counted there, by its own queries; `mppobs slo status {found}` says what to ask"


def _foresight(found: dict[str, Any]) -> str:
    """
    Return how good predictions have been.

    >>> _foresight({"runs": 12, "coverage_ratio": 0.9, "predictions": {"caught": 2, "missed": 1, "false_alarm": 0}})
    'predictions: 2 of 3 bad jobs were foretold, 0 false alarms; 90 % of intervals held the finish, over 12 runs'
    """
    told = found["predictions"]
    late = told["caught"] + told["missed"]
    return (
        f"predictions: {told['caught']} of {late} bad jobs were foretold, {told['false_alarm']} false alarms; "
        f"{found['coverage_ratio'] * 100:.0f} % of intervals held the finish, over {found['runs']} runs"
    )


def _objective(ratio: float) -> str:
    """
    Return an objective as it is written.

    >>> _objective(0.999), _objective(0.5)
    ('99.9 %', '50 %')
    """
    return f"{ratio * 100:.8g} %"


def _more(slo: dict[str, Any]) -> str:
    """Return how many whole events may still be bad; money in dollars."""
    left = slo["period"]["bad_events_left"]
    if slo["unit"] == "cent":
        return show.usd(left / 100) if left >= 0 else f"-{show.usd(-left / 100)}"
    return show.count(left // 1)


def _last(slo: dict[str, Any]) -> Text:
    """Return how the newest event was, where that is what alerts and there has been one."""
    if slo["latched"] is None or not slo["events"]:
        return Text(show.NONE, show.QUIET)
    return Text("bad", show.BAD) if slo["latched"] else Text("good", show.GOOD)


def _left(ratio: float) -> Text:
    return show.graded(ratio, _signed, good=0.25, doubtful=0.0)


def _signed(ratio: float | None) -> str:
    """
    Return a share of the budget, which can be overspent many times.

    >>> _signed(0.3333), _signed(-2.5), _signed(-123.45)
    ('33.33 %', '-250 %', '-12,345 %')
    """
    return show.NONE if ratio is None else f"{show.number(ratio * 100, 4)} %"


def _burn(rate: float) -> Text:
    return show.graded(rate, show.plain, good=1.0, doubtful=6.0)


def _lasts(slo: dict[str, Any]) -> Text:
    """Return how long the budget lasts; a quiet word where it does not shrink."""
    seconds = slo["exhausted_in_seconds"]
    if seconds is None:
        return Text("holds", show.GOOD)
    if seconds == 0:
        return Text("gone", show.BAD)
    return show.graded(seconds, show.seconds, good=float(slo["period_days"] * 86400), doubtful=86400.0)


def _kept(period: dict[str, Any], objective: float) -> Text:
    if period["good_ratio"] is None:
        return Text("no events", show.QUIET)
    return Text("yes", show.GOOD) if period["good_ratio"] >= objective else Text("no", show.BAD)


def _days(period: dict[str, Any]) -> float:
    start, end = (datetime.fromisoformat(period[name]) for name in ("start", "end"))
    return (end - start).total_seconds() / 86400
