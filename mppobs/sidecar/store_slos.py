"""What SLOs counted, as rows: one per SLO, and one per step of its history. Within the caller's transactions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from mppobs.sidecar.store_foresight import ForesightRows, read_foresight, write_foresight
from mppobs.slo.evaluate import Mark, Tally
from mppobs.slo.foresight import State
from mppobs.slo.history import History, Step
from mppobs.slo.model import Counts

_UPSERT = (
    "INSERT INTO slos VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name) DO UPDATE SET "
    "revision=excluded.revision, definition=excluded.definition, objective=excluded.objective, "
    "start_ns=excluded.start_ns, total=excluded.total, bad=excluded.bad, latched=excluded.latched, "
    "marks=excluded.marks, retired_ns=excluded.retired_ns"
)
_UPSERT_STEP = (
    "INSERT INTO slo_steps VALUES (?,?,?,?,?) ON CONFLICT (name, revision, slot) DO UPDATE SET "
    "total=excluded.total, bad=excluded.bad"
)
_SELECT = "SELECT name, revision, definition, objective, start_ns, total, bad, latched, marks, retired_ns FROM slos"


@dataclass(frozen=True, slots=True)
class SloRows:
    """What a round, or a minute, changed of the SLOs."""

    tallies: Sequence[Tally] = ()
    minutes: str | None = None
    """See `mppobs.sidecar.slo_minutes`; `None` where it did not change."""
    foresight: ForesightRows = field(default_factory=ForesightRows)


@dataclass(frozen=True, slots=True)
class StoredSlos:
    """What SLOs had counted at the last commit."""

    tallies: Sequence[Tally] = ()
    minutes: str | None = None
    foresight: State = field(default_factory=State)


def write_slos(connection: sqlite3.Connection, rows: SloRows) -> None:
    """Write what changed. Of a history only the newest step can have."""
    connection.executemany(_UPSERT, map(_row, rows.tallies))
    steps = [(tally, tally.history.newest) for tally in rows.tallies]
    connection.executemany(
        _UPSERT_STEP, [(tally.name, tally.revision, *step) for tally, step in steps if step is not None]
    )
    write_foresight(connection, rows.foresight)
    if rows.minutes is not None:
        connection.execute(
            "INSERT INTO slo_minutes VALUES (1,?) ON CONFLICT (one) DO UPDATE SET data=excluded.data", (rows.minutes,)
        )


def read_slos(connection: sqlite3.Connection) -> StoredSlos:
    """Return everything that was counted, of each SLO its newest revision."""
    steps: dict[tuple[str, int], list[Step]] = {}
    for name, revision, slot, total, bad in connection.execute("SELECT * FROM slo_steps ORDER BY name, revision, slot"):
        steps.setdefault((name, revision), []).append(Step(slot, total, bad))
    tallies = []
    for row in connection.execute(_SELECT):
        name, revision, definition, objective, start_ns, total, bad, latched, marks, retired_ns = row
        counts = Counts(total, bad)
        tally = Tally(name, definition, Fraction(objective), start_ns, revision, counts, bool(latched), retired_ns)
        tally.marks = [Mark(time_ns, Fraction(before), Fraction(after)) for time_ns, before, after in json.loads(marks)]
        tally.history = History(steps.get((name, revision), ()))
        tallies.append(tally)
    row = connection.execute("SELECT data FROM slo_minutes").fetchone()
    return StoredSlos(tallies, row[0] if row else None, read_foresight(connection))


def thin_slos(connection: sqlite3.Connection, gone: Mapping[str, Sequence[int]]) -> None:
    """Forget steps, by the name of their SLO."""
    connection.executemany(
        "DELETE FROM slo_steps WHERE name = ? AND slot = ?",
        [(name, slot) for name, slots in gone.items() for slot in slots],
    )


def prune_slos(connection: sqlite3.Connection, names: Sequence[str], before_slot: int) -> None:
    """Forget SLOs, and the steps before a slot that earlier definitions of others had counted."""
    for table in ("slos", "slo_steps"):
        connection.executemany(f"DELETE FROM {table} WHERE name = ?", [(name,) for name in names])
    connection.execute(
        "DELETE FROM slo_steps WHERE slot < ? AND revision < "
        "(SELECT revision FROM slos WHERE slos.name = slo_steps.name)",
        (before_slot,),
    )


def last_success(connection: sqlite3.Connection, pipeline: str, tenant: str) -> int:
    """Return when the newest successful job of a pipeline ended, 0 for never; of any tenant where none is named."""
    sql = "SELECT max(end_ns) FROM jobs WHERE pipeline = ? AND outcome = 'success' AND (? = '' OR tenant = ?)"
    found: int | None = connection.execute(sql, (pipeline, tenant, tenant)).fetchone()[0]
    return found or 0


def _row(tally: Tally) -> tuple[str | int, ...]:
    marks = [[mark.time_ns, str(mark.before), str(mark.after)] for mark in tally.marks]
    return (
        tally.name, tally.revision, tally.definition, str(tally.objective), tally.start_ns, tally.counts.total,
        tally.counts.bad, tally.latched, json.dumps(marks, separators=(",", ":")), tally.retired_ns,
    )  # fmt: skip
