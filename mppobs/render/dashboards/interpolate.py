"""
What Grafana does to a query before it asks: variables and its own words are replaced by what they stand for.

With `SAMPLE` a query becomes PromQL that parses and that names what the panel names, which is what checks need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Chosen = str | Sequence[str]
"""The value of a variable, or all those that are chosen."""

_WORD: Final = re.compile(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}|\[\[(\w+)(?::\w+)?\]\]")
_SCRAPES: Final = 4
"""`$__rate_interval` spans as many scrapes, so that one that is missed leaves a rate."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is shown, how finely, and how often its data was scraped. In seconds."""

    start: float
    end: float
    step: float = 15.0
    scrape: float = 15.0

    @property
    def words(self) -> dict[str, str]:
        """
        Return Grafana's own words for a query.

        >>> Window(0, 3600, step=15).words["__rate_interval"], Window(0, 3600, step=120).words["__rate_interval"]
        ('60s', '135s')
        """
        span = max(self.end - self.start, 1.0)
        rate = max(self.step + self.scrape, _SCRAPES * self.scrape)
        return {
            "__rate_interval": _duration(rate), "__interval": _duration(self.step),
            "__interval_ms": str(round(self.step * 1000)), "__range": _duration(span), "__range_s": str(round(span)),
            "__range_ms": str(round(span * 1000)), "__from": str(round(self.start * 1000)),
            "__to": str(round(self.end * 1000)), "__auto": _duration(self.step),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interpolation:
    """What every word stands for: Grafana's own, and a dashboard's variables."""

    window: Window
    variables: Mapping[str, Chosen] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        """
        Return a query with every word replaced; words that are none are left, such as the `$1` of `label_replace`.

        >>> Interpolation(Window(0, 60), {"p": ["a", "b.c"]})('rate(x{p=~"$p"}[$__rate_interval]) $1')
        'rate(x{p=~"(a|b\\\\\\\\.c)"}[60s]) $1'
        """
        known = self.window.words | {name: _pattern(value) for name, value in self.variables.items()}

        def replaced(found: re.Match[str]) -> str:
            name = found[1] or found[2] or found[3]
            return known.get(name, found[0])

        return _WORD.sub(replaced, text)


def words_of(text: str) -> set[str]:
    """
    Return the names of the variables and words that a text uses.

    >>> sorted(words_of('rate(x{a="$a",b=~"${b:regex}"}[$__rate_interval])'))
    ['__rate_interval', 'a', 'b']
    """
    return {found[1] or found[2] or found[3] for found in _WORD.finditer(text)}


def sample(text: str, variables: Sequence[str]) -> str:
    """Return a query as PromQL, with every variable standing for anything."""
    return Interpolation(Window(0, 3600), dict.fromkeys(variables, ".*"))(text)


def _pattern(value: Chosen) -> str:
    """Return a value as the text of a PromQL string that is matched as a regular expression, as Grafana writes it."""
    if isinstance(value, str):
        return value
    escaped = [re.sub(r"([\\^$.*+?()\[\]{}|])", r"\\\\\1", each) for each in value]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _duration(seconds: float) -> str:
    """Return seconds as Prometheus writes them."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
