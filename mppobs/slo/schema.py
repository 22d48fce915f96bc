"""
A JSON Schema of `slo.yaml`, for editors: it completes keys and marks mistakes while they are typed.

It is made from the tables that the parser reads by, so that both know the same keys. What a schema cannot see
(arithmetic, names that stand twice) is for `mppobs slo check`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from mppobs.model import RunKind, Tier
from mppobs.slo.model import BY_RUN, UNITS, IndicatorKind
from mppobs.slo.spec import BOUND_KEYS, IN_SECONDS, SHARED_KEYS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_DURATION: Final = r"^\s*(\d+(\.\d+)?(ms|[smhdw]))+\s*$"
_DEFINITIONS: Final[Mapping[str, Schema]] = {
    "duration": {"type": "string", "pattern": _DURATION, "examples": ["90s", "15m", "1h30m", "2d"]},
    "period": {"type": "string", "pattern": r"^\s*(\d+(\.\d+)?[dw])+\s*$", "examples": ["28d", "4w"]},
    "percentage": {
        "description": "A share, exactly as it is written: 99.9% or 0.999.",
        "oneOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            {"type": "string", "pattern": r"^\s*(100(\.0*)?|\d?\d(\.\d*)?|\.\d+)\s*%\s*$"},
            {"type": "string", "pattern": r"^\s*(0?\.\d+|1(\.0*)?)\s*$"},
        ],
    },
    "figure": {
        "description": "A positive number; a percentage is a ratio.",
        "oneOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "string", "pattern": r"^\s*(\d+\.?\d*|\.\d+)\s*%?\s*$"},
        ],
    },
}

_MEANINGS: Final[Mapping[IndicatorKind, str]] = {
    IndicatorKind.SHARD_SUCCESS: "Shards that are committed, of all that were decided.",
    IndicatorKind.JOB_SUCCESS: "Jobs that succeed.",
    IndicatorKind.ON_TIME: "Jobs that succeed before their deadline.",
    IndicatorKind.DURATION: "Successful jobs that take at most, and at least, so long from submission to end.",
    IndicatorKind.TAIL: "Jobs whose stages have a p99 of at most so many times the median shard.",
    IndicatorKind.COST: "Jobs that cost at most so many US dollars.",
    IndicatorKind.SPEND: "US dollars spent in a period.",
    IndicatorKind.FRESHNESS: "Minutes in which the newest success is at most so old.",
    IndicatorKind.SCHEDULER_LATENCY: "Minutes in which attempts start at most so long after they were assigned.",
    IndicatorKind.CHECKPOINT_LAG: "Minutes in which the newest checkpoint is at most so old.",
    IndicatorKind.COVERAGE: "Jobs that commit at least such a share of their planned shards.",
    IndicatorKind.PROMQL: "Your own counters: good and total events by PromQL.",
}


def schema() -> Schema:
    """
    Return the JSON Schema (2020-12) of a file of SLOs.

    >>> sorted(schema()["properties"])
    ['defaults', 'objectives', 'pipelines', 'team']
    """
    shared = _shared()
    pipeline = _object({**shared, "objectives": _entries(pipeline=True)}, ["objectives"])
    whole = _object(
        {
            "team": {"description": "Who makes the promises; SLOs are named team/name.", **_scalar(), "minLength": 1},
            "defaults": {"description": "For all pipelines and objectives; the innermost wins.", **_object(shared)},
            "pipelines": {
                "description": "Promises by pipeline.",
                "type": "object",
                "additionalProperties": pipeline,
            },
            "objectives": {"description": "Promises of the team at large.", **_entries(pipeline=False)},
        },
        ["team"],
    )
    definitions = {**_DEFINITIONS, **{_of(kind): _indicator(kind) for kind in IndicatorKind}}
    anything = [{"required": ["pipelines"]}, {"required": ["objectives"]}]
    return {"$schema": DIALECT, "title": "SLOs of one team", **whole, "anyOf": anything, "$defs": definitions}


def _object(properties: Schema, required: Sequence[str] = ()) -> Schema:
    """Return the schema of keys and values without others."""
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def _scalar() -> Schema:
    """Return the schema of what is read as a text."""
    return {"type": ["string", "number", "boolean"]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _of(kind: IndicatorKind) -> str:
    """Return the name of an indicator's definition; `duration` alone would be two things."""
    return f"{kind.value}-objective"


def _shared() -> Schema:
    """Return the keys that can stand at three places, innermost first."""
    meanings: dict[str, Schema] = {
        "tier": {"description": "How much it matters; decides who is woken.", **_enum(Tier)},
        "owner": {"description": "Who is told.", **_scalar()},
        "tenant": {"description": "Only jobs of this tenant.", **_scalar()},
        "period": {
            "description": "Of the budget, 1d to 366d, in days or weeks.",
            **_ref("period"),
        },
        "exclude": {
            "description": "Kinds of run that do not count.",
            "oneOf": [_enum(RunKind), {"type": "array", "items": _enum(RunKind)}],
        },
        "calendar": {"description": "Whether reports follow the calendar month.", "type": "boolean"},
        "deadline": {"description": "After submission, for on-time.", **_ref("duration")},
        "every": {"description": "How often a run is expected.", **_ref("duration")},
    }
    return {key: meanings[key] for key in SHARED_KEYS}


def _enum(members: type[StrEnum]) -> Schema:
    return {"enum": [member.value for member in members]}


def _entries(*, pipeline: bool) -> Schema:
    """Return the schema of objectives by name: an indicator's own name, or any name with `indicator`."""
    kinds = list(IndicatorKind) if pipeline else [IndicatorKind.PROMQL]
    named = {kind.value: _named(kind, kinds) for kind in kinds}
    others = {"required": ["indicator"], **_chosen(kinds)}
    return {"type": "object", "properties": named, "additionalProperties": others}


def _named(kind: IndicatorKind, kinds: Sequence[IndicatorKind]) -> Schema:
    """Return the schema of an entry that is called as an indicator: it is of that one unless it says otherwise."""
    full: Schema = {
        "if": {"type": "object", "required": ["indicator"]},
        "then": _chosen(kinds),
        "else": _ref(_of(kind)),
    }
    if _wanted(kind) or kind is IndicatorKind.SPEND:
        return {"description": _MEANINGS[kind], "type": "object", **full}
    return {"description": _MEANINGS[kind], "oneOf": [_ref("percentage"), {"type": "object", **full}]}


def _chosen(kinds: Sequence[IndicatorKind]) -> Schema:
    """Return the schema of an entry whose `indicator` says what it is about."""
    choices = [{"if": {"properties": {"indicator": {"const": kind.value}}}, "then": _ref(_of(kind))} for kind in kinds]
    indicator = {"enum": [kind.value for kind in kinds]}
    return {"type": "object", "properties": {"indicator": indicator}, "allOf": choices}


def _wanted(kind: IndicatorKind) -> list[Schema]:
    """Return what is required of an indicator's bounds: `promql` needs both, the others one of theirs."""
    if kind is IndicatorKind.PROMQL:
        return [{"required": list(BOUND_KEYS[kind])}]
    return [{"anyOf": [{"required": [key]} for key in BOUND_KEYS[kind]]}] if BOUND_KEYS[kind] else []


def _indicator(kind: IndicatorKind) -> Schema:
    """Return the schema of an entry of one indicator in full."""
    bound = _scalar() if kind is IndicatorKind.PROMQL else _ref("duration" if kind in IN_SECONDS else "figure")
    properties: Schema = {
        "indicator": {"description": "What it is about, where its name does not say so.", "const": kind.value},
        "objective": _ref("percentage"),
        "description": {"description": "For people.", **_scalar()},
        "stage": {"description": "Only this stage.", **_scalar()},
        **dict.fromkeys(BOUND_KEYS[kind], bound),
        **_shared(),
    }
    if UNITS[kind] not in BY_RUN:
        del properties["exclude"]
    required = [] if kind is IndicatorKind.SPEND else ["objective"]
    meaning = f"{_MEANINGS[kind]} One event is a {UNITS[kind].value}."
    return {"description": meaning, **_object(properties, required), "allOf": _wanted(kind) or [True]}
