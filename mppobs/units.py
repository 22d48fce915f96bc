"""Numbers as people read and type them: sizes, durations, money, ratios."""

from __future__ import annotations

import re

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def human_bytes(count: float) -> str:
    """
    Return a byte count with its binary unit, three figures at the most.

    >>> human_bytes(0), human_bytes(1536), human_bytes(5 * 2**30)
    ('0 B', '1.5 KiB', '5 GiB')
    """
    value = float(count)
    unit = _BYTE_UNITS[0]
    for unit in _BYTE_UNITS:
        if abs(value) < 1024 or unit == _BYTE_UNITS[-1]:
            break
        value /= 1024
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:.0f} {unit}"


def human_seconds(seconds: float) -> str:
    """
    Return a duration in the unit that people would say it in.

    >>> human_seconds(0.0000021), human_seconds(0.25), human_seconds(75), human_seconds(7300)
    ('2.1 µs', '250 ms', '1 m 15 s', '2 h 1 m')
    """
    size = abs(seconds)
    if size == 0:
        return "0 s"
    if size < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if size < 1:
        return f"{seconds * 1e3:.3g} ms"
    if size < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def human_usd(amount: float) -> str:
    """
    Return an amount of US dollars; below a cent in thousandths (m$) and millionths (µ$) of one.

    >>> human_usd(12.5), human_usd(0.0042), human_usd(6.4e-05), human_usd(1.5e-9), human_usd(0)
    ('$12.50', '4.2 m$', '64 µ$', '<1 µ$', '$0.00')
    """
    size = abs(amount)
    if size == 0 or size >= 0.00995:
        return f"${amount:,.2f}"
    if size >= 0.0009995:
        return f"{amount * 1e3:.3g} m$"
    return f"{amount * 1e6:.3g} µ$" if size >= 1e-6 else "<1 µ$"


def parse_duration(text: str) -> float:
    """
    Return seconds from a text such as `90s`, `1h30m`, `2d` or `250ms`.

    >>> parse_duration("1h30m"), parse_duration("250ms")
    (5400.0, 0.25)
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ValueError(f"{text!r} is no duration: write 30s, 15m, 1h30m or 2d")
    return sum(float(number) * _DURATIONS[unit] for number, unit in parts)


def parse_bytes(text: str | int) -> int:
    """
    Return bytes from a text such as `64MiB`, `1GB` or `4096`.

    >>> parse_bytes("64KiB"), parse_bytes("1GB"), parse_bytes(10)
    (65536, 1000000000, 10)
    """
    if isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in _SIZES:
        raise ValueError(f"{text!r} is no size: write 4096, 64KiB, 10MB or 1GiB")
    return round(float(found[1]) * _SIZES[found[2].upper()])
