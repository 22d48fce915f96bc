"""
What a query computes: in which unit, and with which labels. Worked out from its syntax and the catalogue.

A unit is a product of base units with their powers: `s`, `B`, `usd`, `n` for things that are counted, and `t` for a
point in time. `rate` of seconds is a pure number, a quotient of counts too; a timestamp less another is seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import promql_parser as promql

from mppobs.catalog.metrics import BY_NAME, Type
from mppobs.render.dashboards.queries import OTHERS, RECORDED, base_name, labels_of

Powers = Mapping[str, int]

_BASES: Final = {"seconds": "s", "bytes": "B", "usd": "usd", "timestamp": "t"}
_SCALES: Final = (1000.0, 3600.0)
"""Factors that turn one unit into another; other numbers are thresholds and averages."""
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
_SETS: Final = frozenset({"and", "or", "unless"})
_FALLING: Final = frozenset({"rate", "irate", "deriv"})
_SHAPELESS: Final = frozenset({"vector", "time", "absent", "scalar"})


@dataclass(frozen=True, slots=True)
class Meaning:
    """The unit and the labels of what an expression computes, with what is wrong about it."""

    powers: Powers | None
    """`None` for plain numbers, which take the unit of what they stand beside."""
    labels: frozenset[str] = frozenset()
    scale: float = 1.0
    scalar: bool = False
    """Whether it is one number without labels, which goes with any series."""
    wrong: tuple[str, ...] = field(default=())

    def without(self, *names: str) -> Meaning:
        """Return it with fewer labels."""
        return replace(self, labels=self.labels - set(names))


@lru_cache(maxsize=1024)
def meaning(text: str) -> Meaning:
    """
    Return what a query computes. Raises ValueError where it does not parse, ConfigError for a metric nobody exposes.

    >>> found = meaning("sum by (stage) (rate(mpp_shuffle_bytes_total[5m]))")
    >>> dict(found.powers), sorted(found.labels)
    ({'B': 1, 's': -1}, ['stage'])
    >>> meaning("mpp_jobs_current + mpp_lag_seconds")
    Traceback (most recent call last):
        ...
    mppobs.errors.ConfigError: no metric 'mpp_lag_seconds': did you mean 'mppobs_lag_seconds'?
    >>> meaning("sum by (shop) (mpp_jobs_current)").wrong
    ("sum by (shop): no label 'shop' is left there",)
    """
    return _meaning(promql.parse(text))


def _meaning(expr: promql.Expr) -> Meaning:
    match expr:
        case promql.NumberLiteral():
            scale = expr.val if expr.val in _SCALES else 1.0
            return Meaning(None, scale=scale, scalar=True)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _meaning(expr.expr)
        case promql.MatrixSelector():
            return _selected(expr.vector_selector)
        case promql.VectorSelector():
            return _selected(expr)
        case promql.AggregateExpr():
            return _aggregated(expr)
        case promql.BinaryExpr():
            return _combined(expr)
        case promql.Call():
            return _called(expr)
    return Meaning(None)


def unit_of(name: str) -> Powers:
    """
    Return the unit of a metric's samples.

    >>> unit_of("mpp_run_deadline_timestamp_seconds"), unit_of("mpp_job_duration_seconds_count")
    ({'t': 1}, {'n': 1})
    """
    if name == "ALERTS" or "_info" in name:  # 1, to be multiplied with
        return {}
    if name in OTHERS:
        unit = OTHERS[name][1]
        return {_BASES[unit]: 1} if unit else {"n": 1}
    if name in RECORDED:
        return _recorded_unit(name)
    metric = BY_NAME[base_name(name)]
    if name != metric.name and name.endswith(("_bucket", "_count")):
        return {"n": 1}
    if "timestamp" in name:
        return {"t": 1}
    if metric.unit == "ratio":
        return {}
    return {_BASES[metric.unit]: 1} if metric.unit in _BASES else {"n": 1}


def _recorded_unit(name: str) -> Powers:
    """Return the unit of a recorded figure, which its name says."""
    if "timestamp" in name:
        return {"t": 1}
    if "seconds" in name:
        return {"s": 1}
    return {} if "ratio" in name else {"n": 1}


def _selected(selector: promql.VectorSelector) -> Meaning:
    name = selector.name or ""
    labels = labels_of(name)
    wrong = tuple(
        f"{name} has no label {matcher.name!r}" for matcher in selector.matchers.matchers if matcher.name not in labels
    )
    return Meaning(unit_of(name), labels, wrong=wrong)


def _aggregated(expr: promql.AggregateExpr) -> Meaning:
    inner = _meaning(expr.expr)
    given = expr.modifier
    kept: frozenset[str] = frozenset()
    wrong = list(inner.wrong)
    if given is not None:
        named = frozenset(given.labels)
        if given.type == promql.AggModifierType.By:
            kept = named
            wrong += [f"{expr.op} by ({label}): no label {label!r} is left there" for label in named - inner.labels]
        else:
            kept = inner.labels - named
    powers: Powers | None = {"n": 1} if str(expr.op) == "count" else inner.powers
    if str(expr.op) in ("topk", "bottomk"):
        kept = inner.labels
    return Meaning(powers, kept, inner.scale, wrong=tuple(wrong))


def _called(call: promql.Call) -> Meaning:
    name = call.func.name
    if name in _SHAPELESS:
        powers: Powers | None = {"t": 1} if name == "time" else {"n": 1} if name == "absent" else None
        return Meaning(powers, scalar=name != "absent")
    inner = _meaning(call.args[1] if name == "histogram_quantile" else call.args[0])
    if name == "histogram_quantile":
        lost = () if "le" in inner.labels else ("histogram_quantile: the label 'le' is gone",)
        return replace(inner.without("le"), powers=_bucket_unit(call.args[1]), wrong=inner.wrong + lost)
    if name in _FALLING and inner.powers is not None:
        return replace(inner, powers=_times(inner.powers, {"s": -1}))
    if name == "label_replace":
        return _relabelled(call, inner)
    return inner


def _relabelled(call: promql.Call, inner: Meaning) -> Meaning:
    target, source = (argument.val for argument in (call.args[1], call.args[3]))
    lost = () if source in inner.labels else (f"label_replace: no label {source!r} is left there",)
    return replace(inner, labels=inner.labels | {target}, wrong=inner.wrong + lost)


def _bucket_unit(expr: promql.Expr) -> Powers:
    """Return the unit of the family whose buckets an expression is made of."""
    found: list[str] = []

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector) and node.name:
            found.append(node.name)
        return True

    promql.walk(expr, visit)
    metric = BY_NAME[base_name(found[0])]
    return {_BASES[metric.unit]: 1} if metric.type is Type.HISTOGRAM else {"n": 1}


def _combined(expr: promql.BinaryExpr) -> Meaning:
    left, right = _meaning(expr.lhs), _meaning(expr.rhs)
    operator = str(expr.op)
    wrong = [*left.wrong, *right.wrong, *_unmatched(expr, left, right)]
    labels = _matched_labels(expr, left, right)
    if operator in _COMPARISONS or operator in ("and", "unless"):
        return Meaning(left.powers, labels, left.scale, left.scalar and right.scalar, tuple(wrong))
    if operator in ("*", "/"):
        powers = _times(left.powers or {}, right.powers or {}, 1 if operator == "*" else -1)
        scale = left.scale * right.scale if operator == "*" else left.scale / right.scale
        both_plain = left.powers is None and right.powers is None
        return Meaning(None if both_plain else powers, labels, scale, left.scalar and right.scalar, tuple(wrong))
    powers_, problem = _added(operator, left.powers, right.powers)
    return Meaning(
        powers_, labels, max(left.scale, right.scale), left.scalar and right.scalar, (*wrong, *problem)
    )  # fmt: skip


def _added(operator: str, left: Powers | None, right: Powers | None) -> tuple[Powers | None, tuple[str, ...]]:
    """Return the unit of a sum, a difference or a union, and what is wrong about it."""
    if left is None or right is None or left == right:
        of_times = operator == "-" and left == {"t": 1} and right == {"t": 1}
        return ({"s": 1}, ()) if of_times else (left if left is not None else right, ())
    if left == {"t": 1} and right == {"s": 1}:
        return left, ()
    return left, (f"{_words(left)} {operator} {_words(right)}: the units differ",)


def _unmatched(expr: promql.BinaryExpr, left: Meaning, right: Meaning) -> list[str]:
    """Return why series of the two sides could never find each other."""
    if left.scalar or right.scalar or str(expr.op) in ("or", "unless"):
        return []
    matching = expr.modifier.matching if expr.modifier is not None else None
    if matching is None:
        same = left.labels == right.labels or str(expr.op) == "and"
        return [] if same else [f"{expr.op}: one side has {sorted(left.labels ^ right.labels)}, the other has not"]
    found = [
        f"on ({label}): no label {label!r} on the {side} side"
        for label in matching.labels
        for side, each in (("left", left), ("right", right))
        if label not in each.labels
    ]
    carried = (expr.modifier.group_labels or []) if expr.modifier is not None else []
    return found + [f"group_left ({label}): the right side has none" for label in carried if label not in right.labels]


def _matched_labels(expr: promql.BinaryExpr, left: Meaning, right: Meaning) -> frozenset[str]:
    if left.scalar:
        return right.labels
    if right.scalar or str(expr.op) in ("and", "unless"):
        return left.labels
    if str(expr.op) == "or":
        return left.labels | right.labels
    modifier = expr.modifier
    if modifier is None or modifier.matching is None:
        return left.labels
    if modifier.group_labels is not None:
        return left.labels | frozenset(modifier.group_labels)
    return frozenset(modifier.matching.labels)


def _times(left: Powers, right: Powers, sign: int = 1) -> Powers:
    powers = dict(left)
    for base, power in right.items():
        powers[base] = powers.get(base, 0) + sign * power
    return {base: power for base, power in sorted(powers.items()) if power}


def _words(powers: Powers) -> str:
    return " ".join(f"{base}^{power}" if power != 1 else base for base, power in powers.items()) or "a plain number"
