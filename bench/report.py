"""How benchmarks print their figures: a table for people, or one JSON object for each figure and line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Figure = Mapping[str, object]
"""`figure`, `value`, `unit`, `peer`, `ratio`, `target` and `met`; `None` for what there is none of."""


def figure(name: str, value: float, unit: str, peer: float | None, target: float, *, at_least: bool) -> Figure:
    """Return one figure, whose target is met from above or from below."""
    return {
        "figure": name,
        "value": round(value, 2),
        "unit": unit,
        "peer": round(peer, 2) if peer is not None else None,
        "ratio": round(value / peer, 2) if peer else None,
        "target": round(target, 2),
        "met": value >= target if at_least else value <= target,
    }


def report(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print figures."""
    if as_json:
        print("\n".join(json.dumps(figure) for figure in figures))
        return
    wide = max(len(str(figure["figure"])) for figure in figures)
    print(f"{'figure':<{wide}} {'value':>11} {'unit':<6} {'peer':>11} {'ratio':>6} {'target':>11}")
    for each in figures:
        shown = {name: "" if value is None else value for name, value in each.items()}
        print(
            f"{shown['figure']:<{wide}} {shown['value']:>11} {shown['unit']:<6} {shown['peer']:>11} "
            f"{shown['ratio']:>6} {shown['target']:>11} {'met' if each['met'] else 'MISSED'}"
        )
