"""
How every benchmark says what it found: a table for people, or one JSON object for each figure and line.

A figure is printed as soon as it is known, since a benchmark takes minutes. So the columns have fixed widths, for 120
columns in all, and a name that is too long is continued on the next line, where its numbers are.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, and what it must be."""

    figure: str
    value: float
    unit: str
    peer: float | None = None
    """The same of what one would otherwise use, measured in the same run."""
    target: float | None = None
    must: Literal["at most", "at least", "exactly"] = "at most"
    of_ratio: bool = False
    """The target is one for the ratio, as in "at most 0.6 times the peer"; else for the value."""
    besides: bool | None = None
    """What must hold besides the target, or instead of one."""

    @property
    def ratio(self) -> float | None:
        """Return the value over the peer's; `None` without a peer, or where the peer's is zero."""
        return self.value / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """Return whether the figure is what it must be; `None` where it need not be anything."""
        if self.target is None:
            return self.besides
        found = self.ratio if self.of_ratio else self.value
        if found is None:
            return False
        within = {"at most": found <= self.target, "at least": found >= self.target, "exactly": found == self.target}
        return within[self.must] and self.besides is not False

    def line(self) -> str:
        """Return the figure as JSON."""
        names = ("figure", "value", "unit", "peer", "ratio", "target", "met")
        return json.dumps({name: getattr(self, name) for name in names})

    def row(self) -> str:
        """Return the figure as it is in the table."""
        sign = {"at most": "≤", "at least": "≥", "exactly": "="}[self.must]
        target = "" if self.target is None else f"{sign} {number(self.target)}{' ×' if self.of_ratio else ''}"
        met = {True: "met", False: "MISSED", None: ""}[self.met]
        *begin, name = textwrap.wrap(self.figure, _NAME)
        last = _row(name, number(self.value), self.unit, number(self.peer), number(self.ratio, 3), target, met)
        return "\n".join([*begin, last])


def _row(name: str, value: str, unit: str, peer: str, ratio: str, target: str, met: str = "") -> str:
    return f"{name:<{_NAME}} {value:>10} {unit:<9} {peer:>10} {ratio:>7} {target:>12} {met}".rstrip()


def number(value: float | None, digits: int = 4) -> str:
    """Return a number for people: whole from a thousand on (rounded), below with so many significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.{digits}g}"


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all benchmarks have; the description is the script's own docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure and line")
    return parser


def report(figures: Iterable[Figure], *, as_json: bool) -> int:
    """Print figures, each as soon as it is known. Return the exit status: 1 where a target is missed."""
    if not as_json:
        print(_row("figure", "value", "unit", "peer", "ratio", "target"), flush=True)
    missed = False
    for figure in figures:
        missed |= figure.met is False
        print(figure.line() if as_json else figure.row(), flush=True)
    return int(missed)
