"""How `mppobs job` shows one job: what is known of it as a whole, its stages, and what goes wrong or holds it up."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mppobs.cli import show

_COSTS: Final = {"retry": "wasted"}
"""Kinds of cost in words of people, where those differ."""
_RISKS: Final = {
    "charge": "likely to miss its deadline: the budget is charged for it already",
    "warning": "likely to miss its deadline; a warning only, since few runs of the pipeline have ended to compare with",
}


def print_job(out: Console, job: dict[str, Any], worst: list[dict[str, Any]]) -> None:
    """Print a job from the general to the particular, with its worst shards; what does not apply is left out."""
    out.print(Text(f"Job {job['job_id']}", "bold"), soft_wrap=True)
    out.print(_facts(job))
    tables = [stages_table(job["stages"])]
    tables += [worst_table(worst)] if worst else []
    tables += [stragglers_table(job["stragglers"])] if job["stragglers"] else []
    tables += [running_table(job["running"])] if job["running"] else []
    for each in tables:
        out.print()
        out.print(each)


def goes_wrong(job: dict[str, Any]) -> bool:
    """Return whether there are shards that failed or were lost, or may do so after an attempt that did not succeed."""
    shards = job["shards"]
    bad = sum(number for name, number in job["attempts"].items() if name not in ("success", "superseded"))
    return bool(shards["failed"] or shards["lost"] or (bad and job["state"] == "running"))


def done(shards: dict[str, int]) -> str:
    """
    Return committed shards over planned ones, where there is a plan.

    >>> done({"committed": 4, "planned": 10}), done({"committed": 4, "planned": 0})
    ('4/10', '4')
    """
    return f"{shards['committed']:,}/{shards['planned']:,}" if shards["planned"] else f"{shards['committed']:,}"


def late(job: dict[str, Any]) -> Text:
    """Return by how much a job is late, in red; quiet where it is not."""
    known = job["late_seconds"] is not None
    return Text(show.seconds(job["late_seconds"]) if known else show.NONE, show.BAD if known else show.QUIET)


def why(found: dict[str, Any]) -> str:
    """
    Return the reason and the type of error of a job or a shard; empty where there is neither.

    >>> why({"reason": "exception", "error_type": "OSError"}), why({"reason": "none", "error_type": ""})
    ('exception, OSError', '')
    """
    return ", ".join(word for word in (found["reason"], found["error_type"]) if word not in ("", "none"))


def _facts(job: dict[str, Any]) -> Table:
    """Return what is known of the job as a whole, a fact per line."""
    made = Table(show_header=False, box=None, pad_edge=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    shards = job["shards"]
    facts: list[tuple[str, str | Text]] = [
        ("pipeline", f"{job['pipeline']} (cluster {job['cluster']}, tenant {job['tenant']}, tier {job['tier']})"),
        ("outcome", _ended(job)),
        ("submitted", f"{show.moment(job['submitted'])} UTC, started {show.seconds(job['queue_seconds'])} later"),
        *_promise(job),
        ("took", show.seconds(job["duration_seconds"])),
        ("shards", f"{done(shards)} committed, {shards['failed']:,} failed, {shards['lost']:,} lost"),
        ("attempts", _attempts(job["attempts"], job["retries"])),
        ("shuffle", f"{show.size(job['shuffle_written_bytes'])} written, {show.size(job['shuffle_read_bytes'])} read"),
        ("cost", _cost(job)),
        ("complete", _complete(job["completeness_ratio"])),
        ("trace", job["trace_id"]),
    ]
    if len(job["runs"]) > 1:
        facts.append(("runs", f"{len(job['runs'])} used this ID: --incarnation {' '.join(job['runs'][:5])}"))
    for name, value in facts:
        made.add_row(name, Text(value) if isinstance(value, str) else value)
    return made


def _ended(job: dict[str, Any]) -> Text:
    ended = show.outcome(job["outcome"])
    return ended.append(f" ({why(job)})") if why(job) else ended


def _promise(job: dict[str, Any]) -> list[tuple[str, Text]]:
    """Return the deadline, and when the job is expected, with what is late in red."""
    facts = []
    if job["deadline"]:
        deadline = Text(f"{show.moment(job['deadline'])} UTC")
        if job["late"]:
            passed = "and still running" if job["ended"] is None else "when it ended"
            deadline.append(f", late by {show.seconds(job['late_seconds'])} {passed}", show.BAD)
        facts.append(("deadline", deadline))
    if job["predicted_finish"]:
        expected = Text(f"{show.moment(job['predicted_finish'])} UTC")
        if job["predicted_earliest"]:
            low, high = show.moment(job["predicted_earliest"]), show.moment(job["predicted_latest"])
            expected.append(f", nine times in ten between {low} and {high}", show.QUIET)
        if job["predicted_late_seconds"] is not None:
            expected.append(f", {show.seconds(job['predicted_late_seconds'])} after the deadline", show.BAD)
        facts.append(("expected", expected))
    if job["at_risk"]:
        facts.append(("at risk", Text(_RISKS[job["at_risk"]], show.BAD)))
    return facts


def expected(job: dict[str, Any]) -> Text:
    """Return when a running job is expected against its deadline, in red where it is likely to be late."""
    if not job["predicted_finish"]:
        return Text(show.NONE, show.QUIET)
    style = show.BAD if job["at_risk"] else show.DOUBTFUL if job["predicted_late_seconds"] is not None else ""
    return Text(show.moment(job["predicted_finish"]), style)


def _attempts(attempts: dict[str, int], retries: int) -> str:
    named = ", ".join(f"{number:,} {name}" for name, number in attempts.items() if number)
    return f"{named or 'none'}; {show.plural(retries, 'retry', 'retries')}"


def _cost(job: dict[str, Any]) -> str:
    kinds = job["cost_by_kind_usd"].items()
    named = ", ".join(f"{_COSTS.get(kind, kind)} {show.usd(amount)}" for kind, amount in kinds if amount)
    return show.cost(job["cost_usd"]) + (f" ({named})" if named else "")


def _complete(ratio: float | None) -> str:
    if ratio is None:
        return "no dispatch records: completeness unknown"
    return f"{show.percent(ratio)} of dispatched attempts are recorded"


def worst_table(shards: list[dict[str, Any]]) -> Table:
    """Return the table of what went wrong, or goes wrong so far."""
    made = show.table("Worst shards", ["stage", "shard", "outcome", "why"], ["attempts", "took"], prose=("why",))
    for each in shards:
        made.add_row(*_named(each), show.count(each["attempts"]), _took(each))
    return made


def _named(shard: dict[str, Any]) -> list[str | Text]:
    """Return what a shard is called, and what became of it."""
    outcome = show.outcome(shard["outcome"] or "undecided")
    return [shard["stage"], str(shard["shard"]), outcome, why(shard) or show.NONE]


def _took(shard: dict[str, Any]) -> str:
    """Return how long a shard took; of one whose end is not known, its newest attempt."""
    known = shard["duration_seconds"]
    return show.seconds(known if known is not None else shard["wall_seconds"] or None)


def stages_table(stages: list[dict[str, Any]]) -> Table:
    """Return the table of a job's stages."""
    figures = (
        "shards", "failed", "lost", "retries", "median", "p99", "max", "p99÷median", "rows", "shuffle read", "written",
    )  # fmt: skip
    less = ("written", "shuffle read", "rows", "max", "retries", "lost", "median")
    made = show.table("Stages", ["stage"], figures, "" if stages else "no record of any stage yet", less=less)
    for each in stages:
        tail = each["tail_ratio"]
        made.add_row(
            each["stage"],
            done(each["shards"]),
            show.marked(each["shards"]["failed"]),
            show.marked(each["shards"]["lost"]),
            show.marked(each["retries"], show.DOUBTFUL),
            show.seconds(each["median_seconds"]),
            show.seconds(each["p99_seconds"]),
            show.seconds(each["max_seconds"]),
            show.NONE if tail is None else show.number(tail),
            show.count(each["rows"]),
            show.size(each["shuffle_read_bytes"]),
            show.size(each["shuffle_written_bytes"]),
        )
    return made


def stragglers_table(stragglers: list[dict[str, Any]]) -> Table:
    """Return the table of what holds a job up, worst first."""
    columns = ["stage", "shard", "cause", "node", "evidence"]
    made = show.table("Stragglers", columns, ["runs for", "left"], less=("node", "left"), prose=("evidence",))
    for each in stragglers:
        made.add_row(
            each["stage"],
            str(each["shard"]),
            Text(each["cause"], show.DOUBTFUL),
            each["node"] or show.NONE,
            each["evidence"],
            show.seconds(each["elapsed_seconds"]),
            show.seconds(each["left_seconds"]),
        )
    return made


def running_table(attempts: list[dict[str, Any]], most: int = 20) -> Table:
    """Return the table of what runs now, longest first."""
    caption = f"the longest {most} of {len(attempts)}" if len(attempts) > most else ""
    figures = ("attempt", "runs for", "progress")
    made = show.table("Running now", ["stage", "shard", "worker"], figures, caption, less=("worker", "attempt"))
    for each in attempts[:most]:
        number = f"{each['attempt']}{' (copy)' if each['speculative'] else ''}"
        made.add_row(
            each["stage"],
            str(each["shard"]),
            each["worker"] or show.NONE,
            number,
            show.seconds(each["elapsed_seconds"]),
            show.percent(each["progress_ratio"]),
        )
    return made


def shards_table(shards: list[dict[str, Any]], limit: int) -> Table:
    """Return the table of a job's shards."""
    caption = f"the first {limit}; --limit shows more" if len(shards) == limit else ""
    figures = ("attempts", "took", "input", "shuffle read", "written")
    columns = ["stage", "shard", "outcome", "why"]
    less = ("written", "shuffle read", "input")
    made = show.table("Shards", columns, figures, caption, less=less, prose=("why",))
    for each in shards:
        made.add_row(
            *_named(each),
            show.count(each["attempts"]),
            _took(each),
            show.size(each["input_bytes"]),
            show.size(each["shuffle_read_bytes"]),
            show.size(each["shuffle_written_bytes"]),
        )
    return made
