"""Values as Grafana writes them, by the unit of their field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHORT: Final = ("", " K", " Mil", " Bil", " Tri")
_SPANS: Final = ((86400 * 7, "w"), (86400, "d"), (3600, "h"), (60, "m"))


def write(value: float, unit: str, decimals: int | None = None) -> str:
    """
    Return a value as text.

    >>> write(0.0213, "s"), write(75, "s"), write(93784, "dtdurations"), write(0.957, "percentunit", 1)
    ('21.3 ms', '1.25 mins', '1d 2h', '95.7%')
    >>> write(1536, "bytes"), write(0.0042, "currencyUSD"), write(12345, "short"), write(2.5, "suffix:×", 1)
    ('1.50 KiB', '$0.00420', '12.3 K', '2.5×')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit.startswith("suffix:"):
        return _plain(value, decimals) + unit.removeprefix("suffix:")
    return _WRITERS.get(unit, _short)(value, decimals)


def mapped(value: Any, field: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the text and the colour that a field's mappings give a value, or None where none applies."""
    empty = value is None or (isinstance(value, float) and math.isnan(value))
    key = "" if empty else f"{value:g}" if isinstance(value, float) else str(value)
    for mapping in field.get("mappings", []):
        options = mapping["options"]
        if mapping["type"] == "value" and key in options:
            return options[key].get("text", key), options[key].get("color", "")
        if mapping["type"] == "special" and empty:
            return options["result"]["text"], options["result"].get("color", "")
    return None


def colour_of(value: float, field: Mapping[str, Any]) -> str:
    """Return the colour that a field's thresholds give a value."""
    found = "text"
    for step in field.get("thresholds", {}).get("steps", []):
        if step["value"] is None or (not math.isnan(value) and value >= step["value"]):
            found = step["color"]
    return found


def _digits(value: float) -> int:
    """Return how many decimals a number needs to show three figures."""
    size = abs(value)
    if size == 0 or (size >= 1 and value == int(value)):
        return 0
    return max(0, 2 - math.floor(math.log10(size))) if size < 1000 else 0


def _plain(value: float, decimals: int | None) -> str:
    return f"{value:,.{_digits(value) if decimals is None else decimals}f}".replace(",", " ")


def _short(value: float, decimals: int | None) -> str:
    size = 0
    while abs(value) >= 1000 and size < len(_SHORT) - 1:
        value, size = value / 1000, size + 1
    return _plain(value, decimals) + _SHORT[size]


def _seconds(value: float, decimals: int | None) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    for below, factor, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s"), (3600, 1 / 60, "mins"),
                                (86400, 1 / 3600, "hours")):  # fmt: skip
        if size < below:
            return f"{_plain(value * factor, decimals)} {name}"
    return f"{_plain(value / 86400, decimals)} days"


def _duration(value: float, _decimals: int | None) -> str:
    """Return seconds as the two largest units."""
    sign, rest = ("-" if value < 0 else ""), abs(value)
    if rest < 60:
        return f"{sign}{rest:.0f}s" if rest >= 10 or rest == int(rest) else f"{sign}{rest:.1f}s"
    parts = []
    for size, name in _SPANS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{int(count)}{name}")
    if rest >= 1 and len(parts) < 2:
        parts.append(f"{int(rest)}s")
    return sign + " ".join(parts[:2])


def _bytes(value: float, decimals: int | None) -> str:
    size = 0
    while abs(value) >= 1024 and size < len(_BINARY) - 1:
        value, size = value / 1024, size + 1
    return f"{_plain(value, decimals)} {_BINARY[size]}"


def _moment(value: float, _decimals: int | None) -> str:
    return datetime.fromtimestamp(value / 1000, UTC).strftime("%H:%M:%S")


_WRITERS: Final[Mapping[str, Callable[[float, int | None], str]]] = {
    "s": _seconds,
    "dtdurations": _duration,
    "bytes": _bytes,
    "binBps": lambda value, decimals: _bytes(value, decimals) + "/s",
    "currencyUSD": lambda value, decimals: "$" + _short(value, decimals),
    "percentunit": lambda value, decimals: _plain(value * 100, decimals) + "%",
    "cps": lambda value, decimals: _short(value, decimals) + " c/s",
    "dateTimeAsIsoNoDateIfToday": _moment,
}
