"""PromQL: what is built parses, and means what was meant."""

from __future__ import annotations

import promql_parser
import pytest

from mppobs.catalog.alerts import ALERTS
from mppobs.render.promql import Durations, Expr, binary, metric, number
from mppobs.render.rules import Recording, RuleSettings, groups

OPERATORS = ("or", "and", "unless", "==", "<", ">", "+", "-", "*", "/")


def _rendered(left: str, right: str, nested_left: bool) -> Expr:
    a, b, c = metric("a"), metric("b"), metric("c")
    inner = binary(a, left, b) if nested_left else binary(b, left, c)  # type: ignore[arg-type]
    return binary(inner, right, c) if nested_left else binary(a, right, inner)  # type: ignore[arg-type]


@pytest.mark.parametrize("inner", OPERATORS)
@pytest.mark.parametrize("outer", OPERATORS)
def test_parentheses_keep_the_meaning(inner: str, outer: str) -> None:
    """Whatever is nested in whatever, the parser finds the operand that was put there as one operand."""
    left = promql_parser.parse(_rendered(inner, outer, nested_left=True).text)
    assert str(left.rhs) in ("c", "c{}")
    right = promql_parser.parse(_rendered(inner, outer, nested_left=False).text)
    chained = inner == outer and inner in ("or", "and", "+", "*")
    assert chained or str(right.lhs) in ("a", "a{}")


@pytest.mark.parametrize("scale", [1, 60, 720])
def test_every_rule_parses(scale: int) -> None:
    """Every expression of every rule is valid PromQL, in real time and in drills."""
    found = [rule.expr.text for group in groups(RuleSettings(Durations(scale))) for rule in group.rules]
    for text in found:
        promql_parser.parse(text)
        with pytest.raises(ValueError, match="unclosed"):
            promql_parser.parse(f"({text}")
    assert len(found) > len(ALERTS)


def test_every_alert_of_the_catalogue_has_a_rule() -> None:
    """Nothing in the catalogue is a promise without an expression."""
    alerting = {rule.alert.name for group in groups() for rule in group.rules if not isinstance(rule, Recording)}
    assert alerting == {alert.name for alert in ALERTS}


def test_numbers_are_exact() -> None:
    """No binary fraction leaks into a rule."""
    assert str(number(1) - metric("x")) == "1 - x"
    assert [str(number(n)) for n in (0, -3)] == ["0", "-3"]
