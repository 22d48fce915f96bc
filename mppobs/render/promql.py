"""
PromQL built from small functions, so that parentheses, label matching and durations are right by construction.

An expression knows how tightly its outermost operator binds; whatever takes it as an operand adds parentheses only
where they are needed. Durations are seconds and are divided by the time scale of a drill when they are written.

>>> errors = rate(metric("errors_total", kind="net"), 300)
>>> str(sum_by(("job",), errors) / sum_by(("job",), rate(metric("requests_total"), 300)))
'sum by (job) (rate(errors_total{kind="net"}[5m])) / sum by (job) (rate(requests_total[5m]))'
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

_ATOM: Final = 9
_PRECEDENCE: Final = {"or": 1, "and": 2, "unless": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3,
                      "+": 4, "-": 4, "*": 5, "/": 5}  # fmt: skip
_CHAINS: Final = ("or", "and", "+", "*")

Operator = Literal["or", "and", "unless", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/"]


@dataclass(frozen=True, slots=True)
class Match:
    """How the series of two operands find each other."""

    on: tuple[str, ...] | None = None
    group_left: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """Return the clause as PromQL, with a space before it."""
        parts = [] if self.on is None else [f"on ({', '.join(self.on)})"]
        if self.group_left is not None:
            parts.append(f"group_left ({', '.join(self.group_left)})")
        return "".join(f" {part}" for part in parts)


@dataclass(frozen=True, slots=True)
class Expr:
    """A PromQL expression. Python's operators build larger ones; `on` and `Match` say how series match."""

    text: str
    binds: int = _ATOM
    operator: str = ""

    def __str__(self) -> str:
        """Return the PromQL."""
        return self.text

    def __add__(self, other: Expr) -> Expr:
        """Return the sum."""
        return binary(self, "+", other)

    def __sub__(self, other: Expr) -> Expr:
        """Return the difference."""
        return binary(self, "-", other)

    def __mul__(self, other: Expr) -> Expr:
        """Return the product."""
        return binary(self, "*", other)

    def __truediv__(self, other: Expr) -> Expr:
        """Return the quotient."""
        return binary(self, "/", other)

    def __gt__(self, other: Expr) -> Expr:
        """Return the series of self that are greater."""
        return binary(self, ">", other)

    def __ge__(self, other: Expr) -> Expr:
        """Return the series of self that are greater or equal."""
        return binary(self, ">=", other)

    def __lt__(self, other: Expr) -> Expr:
        """Return the series of self that are less."""
        return binary(self, "<", other)

    def __le__(self, other: Expr) -> Expr:
        """Return the series of self that are less or equal."""
        return binary(self, "<=", other)

    def __or__(self, other: Expr) -> Expr:
        """Return the series of self, and those of other that self has not."""
        return binary(self, "or", other)


@dataclass(frozen=True, slots=True)
class Durations:
    """
    Writes seconds as Prometheus durations, divided by the time scale of a drill.

    >>> Durations()(5400), Durations()(86400), Durations(time_scale=60)(90), Durations(time_scale=1000)(1)
    ('90m', '1d', '1s500ms', '1ms')
    """

    time_scale: int = 1

    def __call__(self, seconds: int) -> str:
        """Return the duration as text: one unit where one will do."""
        milliseconds = max(1, round(Fraction(seconds * 1000, self.time_scale)))
        for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
            if milliseconds % size == 0:
                return f"{milliseconds // size}{unit}"
        whole, rest = divmod(milliseconds, 1000)
        return f"{whole}s{rest}ms" if whole else f"{rest}ms"

    def scaled(self, seconds: int) -> Fraction:
        """Return the duration as a number of seconds, exactly."""
        return Fraction(seconds, self.time_scale)


REAL_TIME: Final = Durations()


def metric(name: str, **labels: str) -> Expr:
    """
    Return a selector; label values match exactly, `~` before a value makes it a regular expression.

    >>> str(metric("up", job="~a|b", zone='x"y'))
    'up{job=~"a|b",zone="x\\\\"y"}'
    """
    matchers = [
        f"{key}=~{quote(value[1:])}" if value.startswith("~") else f"{key}={quote(value)}"
        for key, value in sorted(labels.items())
    ]
    return Expr(f"{name}{{{','.join(matchers)}}}" if matchers else name)


def number(value: Fraction | int) -> Expr:
    """
    Return a number exactly: fractions stay divisions, so that no digit is lost in print.

    >>> str(number(3)), str(number(Fraction(1, 3))), str(number(Fraction(144, 10)))
    ('3', '1 / 3', '14.4')
    """
    value = Fraction(value)
    if value.denominator == 1:
        return Expr(str(value.numerator))
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    if rest == 1 and value.denominator <= 10**6:
        digits = next(n for n in range(1, 21) if (value * 10**n).denominator == 1)
        sign, scaled = "-" if value < 0 else "", abs(value) * 10**digits
        return Expr(f"{sign}{scaled.numerator // 10**digits}.{scaled.numerator % 10**digits:0{digits}d}")
    return binary(Expr(str(value.numerator)), "/", Expr(str(value.denominator)))


def quote(text: str) -> str:
    """Return a text as a PromQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def binary(left: Expr, operator: Operator, right: Expr, match: Match | None = None) -> Expr:
    """
    Return `left operator right`.

    >>> a, b, c = metric("a"), metric("b"), metric("c")
    >>> str((a + b) * c), str(a - (b - c)), str(a + (b + c)), str(binary(a, "and", b, Match(on=("slo",))))
    ('(a + b) * c', 'a - (b - c)', 'a + b + c', 'a and on (slo) b')
    """
    level = _PRECEDENCE[operator]
    clause = str(match) if match is not None else ""
    chains = operator in _CHAINS and right.operator == operator and match is None
    left_text = left.text if left.binds >= level else f"({left.text})"
    right_text = right.text if right.binds > level or chains else f"({right.text})"
    return Expr(f"{left_text} {operator}{clause} {right_text}", level, operator)


def all_of(*parts: Expr, on: tuple[str, ...] | None = None) -> Expr:
    """Return the series of the first part for which every other part has one too."""
    match = Match(on=on) if on is not None else None
    first, *rest = parts
    for part in rest:
        first = binary(first, "and", part, match)
    return first


def call(function: str, *arguments: Expr | str) -> Expr:
    """Return a function call; strings are quoted."""
    return Expr(f"{function}({', '.join(a.text if isinstance(a, Expr) else quote(a) for a in arguments)})")


def range_of(selector: Expr, seconds: int, offset: int = 0, durations: Durations = REAL_TIME) -> Expr:
    """Return a range selector over `seconds`, ending `offset` seconds ago."""
    text = f"{selector.text}[{durations(seconds)}]"
    return Expr(f"{text} offset {durations(offset)}" if offset else text)


def offset(selector: Expr, seconds: int, durations: Durations = REAL_TIME) -> Expr:
    """
    Return a selector as it was `seconds` ago.

    >>> str(offset(metric("a"), 3600))
    'a offset 1h'
    """
    return Expr(f"{selector.text} offset {durations(seconds)}")


def rate(selector: Expr, seconds: int, durations: Durations = REAL_TIME) -> Expr:
    """Return the per-second rate of a counter over a window."""
    return call("rate", range_of(selector, seconds, durations=durations))


def increase(selector: Expr, seconds: int, durations: Durations = REAL_TIME) -> Expr:
    """Return the growth of a busy counter over a window; sparse ones are subtracted instead (see `rules`)."""
    return call("increase", range_of(selector, seconds, durations=durations))


def last_over_time(selector: Expr, seconds: int, offset: int = 0, durations: Durations = REAL_TIME) -> Expr:
    """Return the newest value of a range."""
    return call("last_over_time", range_of(selector, seconds, offset, durations))


def sum_by(labels: tuple[str, ...], expr: Expr) -> Expr:
    """Return sums per label set."""
    return _aggregate("sum by", labels, expr)


def max_by(labels: tuple[str, ...], expr: Expr) -> Expr:
    """Return maxima per label set."""
    return _aggregate("max by", labels, expr)


def max_without(labels: tuple[str, ...], expr: Expr) -> Expr:
    """Return maxima over the labels named, keeping all others."""
    return _aggregate("max without", labels, expr)


def _aggregate(operation: str, labels: tuple[str, ...], expr: Expr) -> Expr:
    return Expr(f"{operation} ({', '.join(labels)}) ({expr.text})")
