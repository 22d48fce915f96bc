"""
Prometheus's own templates for annotations, as far as the catalogue uses them: what a notification will say.

Written from the documentation of the functions and held against the real promtool by the proofs.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final

_ACTION: Final = re.compile(r"\{\{ (.*?) \}\}")
_LABEL: Final = re.compile(r"\$labels\.(\w+)( \| urlquery)?")


def fill(template: str, labels: Mapping[str, str], value: float) -> str:
    """
    Return an annotation with an alert's labels and value filled in; a label that is not there is empty.

    Raises ValueError for what the catalogue does not use.

    >>> fill("{{ $labels.pipeline }} burns {{ $value | humanize }} times", {"pipeline": "nightly"}, 14.5)
    'nightly burns 14.5 times'
    """

    def action(found: re.Match[str]) -> str:
        inner = found.group(1)
        label = _LABEL.fullmatch(inner)
        if label is not None:
            text = labels.get(label.group(1), "")
            return urllib.parse.quote_plus(text, safe="~") if label.group(2) else text
        subject, _, function = inner.partition(" | ")
        if subject != "$value" or function not in _FUNCTIONS:
            raise ValueError(
                f"no such template action: {inner!r}; known are $labels.x, | urlquery, and $value | {list(_FUNCTIONS)}"
            )
        return _FUNCTIONS[function](value)

    return _ACTION.sub(action, template)


def humanize(value: float) -> str:
    """
    Return a number with a metric prefix.

    >>> humanize(1234567), humanize(0.05), humanize(0)
    ('1.235M', '50m', '0')
    """
    prefixes, factor = ("kMGTPEZY", 1000.0) if abs(value) >= 1 else ("munpfazy", 0.001)
    shown = ""
    for prefix in prefixes if value else "":
        if 1 <= abs(value) < 1000:
            break
        shown, value = prefix, value / factor
    return f"{value:.4g}{shown}"


def humanize_duration(value: float) -> str:
    """
    Return seconds in days, hours, minutes and seconds, the largest first.

    >>> humanize_duration(3601), humanize_duration(31.5), humanize_duration(0.25)
    ('1h 0m 1s', '31.5s', '250ms')
    """
    if abs(value) < 1:
        return humanize(value) + "s"
    whole = int(abs(value))
    if whole < 60:
        return f"{value:.4g}s"
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return ("-" if value < 0 else "") + " ".join(f"{amount}{unit}" for amount, unit in parts[first:])


def humanize_percentage(value: float) -> str:
    """
    Return a ratio as per cent.

    >>> humanize_percentage(0.21)
    '21%'
    """
    return f"{value * 100:.4g}%"


_FUNCTIONS: Final[Mapping[str, Callable[[float], str]]] = {
    "humanize": humanize,
    "humanizeDuration": humanize_duration,
    "humanizePercentage": humanize_percentage,
}
