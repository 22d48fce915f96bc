"""What carries a job to another process, as texts: how it is read. `mppobs.instrument.carry` makes and attaches it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from mppobs.instrument.names import clean
from mppobs.instrument.run import Handoff, Run
from mppobs.instrument.settings import Settings
from mppobs.model import Context, RunKind, Tier

VARIABLE: Final = "MPPOBS_CONTEXT"
"""The environment variable that holds a carrier."""
PREFIX: Final = "mppobs-"
"""What every key of a carrier begins with, so that it can be merged into a message's headers."""


def carrier_of(context: Context, handoff: Handoff) -> dict[str, str]:
    """Return the texts that carry a job, and the attempt that is handed over."""
    assigned = handoff.take_assigned()
    values: dict[str, object] = {
        "pipeline": context.pipeline,
        "job-id": context.job_id,
        "incarnation": context.incarnation,
        "tenant": context.tenant,
        "owner": context.owner,
        "tier": context.tier,
        "cluster": context.cluster,
        "run-kind": context.run_kind,
        "deadline-ns": context.deadline_ns,
        "stage": handoff.stage,
        "shard": "" if handoff.shard is None else json.dumps(handoff.shard),
        "attempt": handoff.attempt,
        "speculative": int(handoff.speculative),
        "assigned-ns": 0 if assigned is None else assigned,
    }
    return {PREFIX + name: str(value) for name, value in values.items() if value not in ("", 0)}


def decode_text(text: str) -> Mapping[str, str]:
    """Return what `inject` gave from its form as an environment variable. Raises `ValueError` for anything else."""
    values = json.loads(text)
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError(f"{VARIABLE} is no object of texts")
    return values


def run_of(values: Mapping[str, str], settings: Settings, otherwise: Handoff | None) -> Run:
    """Return the run that a carrier describes. Raises `KeyError` or `ValueError` where it describes none."""

    def get(name: str, default: str = "") -> str:
        return values.get(PREFIX + name, default)

    context = Context(
        pipeline=clean(values[PREFIX + "pipeline"]),
        job_id=clean(values[PREFIX + "job-id"]),
        incarnation=int(get("incarnation", "0")),
        tenant=clean(get("tenant", settings.tenant)),
        owner=clean(get("owner", settings.owner)),
        tier=Tier(get("tier", settings.tier)),
        cluster=clean(get("cluster", settings.cluster)),
        run_kind=RunKind(get("run-kind", settings.run_kind)),
        deadline_ns=int(get("deadline-ns", "0")),
    )
    handoff = otherwise
    if get("shard") or get("stage"):
        shard = json.loads(get("shard", "null"))
        if shard is not None and type(shard) not in (int, str):
            raise ValueError(f"{shard!r} is no shard")
        assigned = get("assigned-ns")
        attempt, speculative = int(get("attempt", "0")), get("speculative") == "1"
        handoff = Handoff(get("stage"), shard, attempt, speculative, int(assigned) if assigned else None)
    return Run(context, handoff)
