"""`mppobs journal` reads a worker's journal by hand: `dump` prints its records, `verify` says whether it is sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mppobs.cli import show
from mppobs.errors import ConfigError, nearest
from mppobs.journal.examine import Examination, Placed, examine, journals_at, records_of
from mppobs.journal.format import Kind
from mppobs.model import Context, ContextRecord, Record, TextRecord

app = typer.Typer(no_args_is_help=True)

_KINDS: Final = tuple(kind.name.lower() for kind in Kind if kind not in (Kind.TEXT_MORE, Kind.PAD))
_STYLES: Final = {"attempt": "green", "commit": "green", "job": "cyan", "drop": "bold red", "end": "bold"}
_OWNER_STYLES: Final = {"alive": "green", "dead": "yellow", "elsewhere": "dim"}

PathArgument = Annotated[
    Path, typer.Argument(metavar="PATH", help="A directory of journals, a journal (.journal), or one segment.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def dump(
    path: PathArgument,
    as_json: JsonOption = False,
    kind: Annotated[str | None, typer.Option("--kind", "-k", metavar="KIND", help="Only records of this kind.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="How many at the most.")] = None,
) -> None:
    """
    Print the records of journals, one to a line, in the order in which they were written.

    With --json each line is an object, with the journal, the segment and the offset in bytes.
    """
    if kind is not None and kind not in _KINDS:
        raise ConfigError(f"{kind!r} is no kind of record: {nearest(kind, _KINDS)}")
    console = Console(highlight=False, soft_wrap=True)
    for count, (journal, placed, context) in enumerate(_records(path, kind)):
        if count == limit:
            break
        if as_json:
            typer.echo(json.dumps(_object(journal, placed), ensure_ascii=False))
        else:
            console.print(_line(placed, context))


@app.command()
def verify(path: PathArgument, as_json: JsonOption = False) -> None:
    """
    Say of each journal what it holds, whether its owner lives, how it ends, and what is wrong with it.

    Exits with 1 where something is damaged. A record that was not finished when its process was killed, or is
    being written right now, is counted as incomplete and is no damage.
    """
    found = [examine(files) for files in journals_at(path)]
    if as_json:
        typer.echo(json.dumps([_check(each) for each in found], indent=2))
    else:
        show.console().print(_table(found))
    if any(each.problems for each in found):
        raise typer.Exit(1)


def _records(path: Path, kind: str | None) -> Iterator[tuple[str, Placed, Context | None]]:
    """Yield the records that are asked for, each with the context that it names."""
    for files in journals_at(path):
        contexts: dict[int, Context] = {}
        for placed in records_of(files):
            record = placed.record
            if isinstance(record, ContextRecord):
                contexts[record.context_id] = record.context
            if kind is None or placed.kind.name.lower() == kind:
                yield files.journal, placed, contexts.get(getattr(record, "context_id", 0))


def _object(journal: str, placed: Placed) -> dict[str, Any]:
    """Return a record for programs."""
    where = {"journal": journal, "segment": placed.segment, "record": placed.place, "offset": placed.offset}
    return {**where, "kind": placed.kind.name.lower(), **asdict(placed.record)}


def _line(placed: Placed, context: Context | None) -> Text:
    """Return a record for people: its place, its kind, and what it says."""
    kind = placed.kind.name.lower()
    line = Text(f"{placed.segment:>3} {placed.offset:>8}  ", style="dim")
    line.append(f"{kind:<9}", style=_STYLES.get(kind, ""))
    if context is not None and not isinstance(placed.record, ContextRecord):
        line.append(f" {context.pipeline}/{context.stage or '-'} {context.job_id}", style="cyan")
    line.append("".join(f" {name}={value}" for name, value in _said(placed.record)))
    return line


def _said(record: Record) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a record that say something."""
    values = record.context if isinstance(record, ContextRecord) else record
    if isinstance(record, ContextRecord):
        yield "context_id", record.context_id
    for each in fields(values):
        value = getattr(values, each.name)
        if value == each.default and not (isinstance(record, TextRecord) and each.name == "text"):
            continue
        yield each.name, repr(value) if isinstance(value, str) and type(value) is str else value


def _check(found: Examination) -> dict[str, Any]:
    """Return what there is to say of a journal, for programs."""
    problems = [{"path": str(each.path), "offset": each.offset, "what": each.what} for each in found.problems]
    return {
        "journal": found.journal,
        "owner": found.owner,
        "end": found.end,
        "records": dict(sorted(found.kinds.items())),
        "incomplete": found.incomplete,
        "dropped": {**{str(outcome): count for outcome, count in found.dropped.items()}, "other": found.dropped_other},
        "problems": problems,
    }


def _table(found: list[Examination]) -> Table:
    """Return the table of journals for people."""
    columns = ["journal", "owner", "end", "records", "first problem"]
    prose = ("records", "first problem")
    table = show.table(show.plural(len(found), "journal"), columns, ["incomplete", "dropped"], prose=prose)
    for each in found:
        records = ", ".join(f"{count} {kind}" for kind, count in each.kinds.most_common())
        dropped = sum(each.dropped.values()) + each.dropped_other
        problem = Text(show.NONE, style="green")
        if each.problems:
            first = each.problems[0]
            more = f" (and {len(each.problems) - 1} more)" if len(each.problems) > 1 else ""
            problem = Text(f"{first.path.name} at byte {first.offset}: {first.what}{more}", style="bold red")
        owner = Text(each.owner, style=_OWNER_STYLES[each.owner])
        dropped_text = Text(str(dropped), style="bold red" if dropped else "")
        table.add_row(each.journal[:12], owner, each.end, records, problem, str(each.incomplete), dropped_text)
    return table
