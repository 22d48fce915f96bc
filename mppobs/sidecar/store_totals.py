"""
Totals as rows: compact JSON beside the bytes of a sketch.

Reading goes field by field into a fresh object, so a field that is new in this version keeps its default, and one
that this version does not know is an error rather than a loss.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from typing import Any, NamedTuple

from mppobs.model import Tier
from mppobs.sidecar.aggregates import (
    ClusterTotals,
    Exemplar,
    Histogram,
    PipelineKey,
    PipelineTotals,
    SelfTotals,
    StageKey,
    StageTotals,
    Summary,
)  # fmt: skip
from mppobs.sidecar.sketch import WindowedSketch

Totals = PipelineTotals | StageTotals | ClusterTotals | SelfTotals

_KEY_FIELDS = frozenset({"key", "cluster", "sketch"})
"""Fields that travel in columns of their own."""

_MAKE: dict[str, Callable[[list[str]], Totals]] = {
    "pipeline": lambda key: PipelineTotals(PipelineKey(*key)),
    "stage": lambda key: StageTotals(StageKey(*key)),
    "cluster": lambda key: ClusterTotals(key[0]),
    "own": lambda _: SelfTotals(),
}


class TotalsRow(NamedTuple):
    """One row of the table `totals`."""

    kind: str
    key: str
    data: str
    sketch: bytes | None


def totals_row(totals: Totals) -> TotalsRow:
    """Return what the store writes for a total."""
    data = {item.name: _plain(getattr(totals, item.name)) for item in fields(totals) if item.name not in _KEY_FIELDS}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    match totals:
        case PipelineTotals():
            return TotalsRow("pipeline", _key(totals.key), text, None)
        case StageTotals():
            return TotalsRow("stage", _key(totals.key), text, totals.sketch.to_bytes())
        case ClusterTotals():
            return TotalsRow("cluster", _key((totals.cluster,)), text, None)
        case SelfTotals():
            return TotalsRow("own", "[]", text, None)


def totals_of(row: TotalsRow) -> Totals:
    """Return the total that a row was made of. Raises `ValueError` or `KeyError` where the row is not one of ours."""
    totals = _MAKE[row.kind](json.loads(row.key))
    for name, value in json.loads(row.data).items():
        if name in _KEY_FIELDS:
            raise ValueError(f"{name!r} is out of place")
        setattr(totals, name, _restored(getattr(totals, name), value))
    if isinstance(totals, StageTotals) and row.sketch is not None:
        totals.sketch = WindowedSketch.from_bytes(row.sketch)
    return totals


def _key(labels: tuple[str, ...]) -> str:
    return json.dumps(list(labels), separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a field as JSON can carry it."""
    match value:
        case Histogram():
            exemplars = [[at, *exemplar] for at, exemplar in enumerate(value.exemplars) if exemplar is not None]
            return {"bounds": value.bounds, "counts": value.counts, "sum": value.sum_ns, "exemplars": exemplars}
        case Summary():
            return [value.count, value.total]
        case deque():
            return list(value)
        case _:
            return value


def _restored(template: Any, value: Any) -> Any:
    """Return a field from JSON, shaped like the one in a fresh object."""
    match template:
        case Histogram():
            return _histogram(template, value)
        case Summary():
            return Summary(*value)
        case deque():
            return deque(value, template.maxlen)
        case Tier():
            return Tier(value)
        case dict():
            return _counts(template, value)
        case _:
            return value


def _histogram(template: Histogram, value: dict[str, Any]) -> Histogram:
    """Return a histogram from JSON. Counts of other buckets than ours cannot be told apart: that is an error."""
    if tuple(value["bounds"]) != template.bounds:
        raise ValueError(f"buckets {value['bounds']} are not {list(template.bounds)}")
    histogram = Histogram(template.bounds, list(value["counts"]), value["sum"])
    for at, *exemplar in value["exemplars"]:
        histogram.exemplars[at] = Exemplar(*exemplar)
    return histogram


def _counts(template: dict[Any, int], value: dict[str, int]) -> dict[Any, int]:
    """Return counts by label; where the fresh object lists the labels as an enumeration's members, by member."""
    first = next(iter(template), None)
    if not isinstance(first, StrEnum):
        return dict(value)
    return template | {type(first)(name): count for name, count in value.items()}
