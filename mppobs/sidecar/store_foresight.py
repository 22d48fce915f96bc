"""What was foretold and charged, as rows: running jobs, accounts of SLOs, calibrations of pipelines."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from mppobs.catalog.foresight import ChargeEnd, Foresight, Weight
from mppobs.slo.calibration import Calibration, Check
from mppobs.slo.draining import Prediction
from mppobs.slo.foresight import Account, Changed, Charge, Said, State, Watched, Who

JOB, ACCOUNT, CALIBRATION = "job", "slo", "pipeline"

_UPSERT = "INSERT INTO foresight VALUES (?,?,?) ON CONFLICT (kind, key) DO UPDATE SET data=excluded.data"


@dataclass(frozen=True, slots=True)
class ForesightRows:
    """What changed: rows of kind, key and data, and those to delete, by kind and key."""

    upserts: Sequence[tuple[str, str, str]] = ()
    deletes: Sequence[tuple[str, str]] = ()


def rows_of(state: State, changed: Changed) -> ForesightRows:
    """Return the rows of whatever changed."""
    upserts: list[tuple[str, str, str]] = []
    deletes: list[tuple[str, str]] = []
    for uid in sorted(changed.jobs):
        job = state.jobs.get(uid)
        if job is None:
            deletes.append((JOB, uid))
        else:
            upserts.append((JOB, uid, _job_text(job)))
    for name in sorted(changed.accounts):
        account = state.accounts.get(name)
        if account is None:
            deletes.append((ACCOUNT, name))
        else:
            upserts.append((ACCOUNT, name, _text([account.settled, account.verdicts])))
    for who in sorted(changed.calibrations):
        runs = [[[check.off, check.inside] for check in run] for run in state.calibrations[who].runs]
        upserts.append((CALIBRATION, _text(who), _text(runs)))
    return ForesightRows(upserts, deletes)


def write_foresight(connection: sqlite3.Connection, rows: ForesightRows) -> None:
    """Write what changed, within the caller's transaction."""
    connection.executemany(_UPSERT, rows.upserts)
    connection.executemany("DELETE FROM foresight WHERE kind = ? AND key = ?", rows.deletes)


def read_foresight(connection: sqlite3.Connection) -> State:
    """Return what is kept. Raises `ValueError`, `LookupError` or `TypeError` where it is damaged."""
    state = State()
    for kind, key, text in connection.execute("SELECT kind, key, data FROM foresight ORDER BY kind, key"):
        data = json.loads(text)
        if kind == JOB:
            charges = {name: Charge(Weight(weight), since, standing) for name, weight, since, standing in data[0]}
            state.jobs[key] = Watched(
                charges, [Said(at, Prediction(*raw), Prediction(*shown)) for at, raw, shown in data[1]]
            )
        elif kind == ACCOUNT:
            settled, verdicts = data
            state.accounts[key] = Account(
                dict.fromkeys(ChargeEnd, 0) | {ChargeEnd(name): count for name, count in settled.items()},
                dict.fromkeys(Foresight, 0) | {Foresight(name): count for name, count in verdicts.items()},
            )
        elif kind == CALIBRATION:
            runs = tuple(tuple(Check(off, inside) for off, inside in run) for run in data)
            state.calibrations[Who(*json.loads(key))] = Calibration(runs)
        else:
            raise ValueError(f"unknown kind {kind!r} of foresight")
    return state


def _job_text(job: Watched) -> str:
    charges = [[name, each.weight, each.since_ns, each.standing] for name, each in job.charges.items()]
    said = [[each.at_ns, _bounds(each.raw), _bounds(each.shown)] for each in job.said]
    return _text([charges, said])


def _bounds(prediction: Prediction) -> list[float]:
    return [prediction.low, prediction.middle, prediction.high]


def _text(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
