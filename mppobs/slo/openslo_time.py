"""Time windows of OpenSLO: rolling days, and calendar months in UTC."""

from __future__ import annotations

import re
from typing import Any, Final

from mppobs.slo.model import Slo
from mppobs.slo.spec import parse_period
from mppobs.yamlfile import Item

_START: Final = re.compile(r"\d{4}-\d{2}-01[ T]00:00(:00)?Z?")
"""Of a month."""


def window_words(slo: Slo) -> dict[str, Any]:
    """Return the window of an SLO in the words of OpenSLO."""
    if slo.calendar:
        calendar = {"startTime": "2020-01-01 00:00:00", "timeZone": "UTC"}
        return {"duration": "1M", "calendar": calendar, "isRolling": False}
    return {"duration": f"{slo.period_days}d", "isRolling": True}


def calendar_of(window: Item | None) -> bool:
    """Return whether a `timeWindow` follows the calendar."""
    return window is not None and "calendar" in _only(window)


def period_of(window: Item | None, alerts: Item | None) -> int:
    """
    Return the days of a `timeWindow`; 30 where there is none.

    A calendar month has no length of its own: there `alerts` says over how many days budgets roll. Raises ConfigError
    for windows that are no whole days and no calendar months in UTC.
    """
    if window is None:
        return parse_period(None)
    keys = _only(window)
    rolling = keys["isRolling"].boolean() if "isRolling" in keys else False
    if "duration" not in keys:
        raise window.error("needs `duration`")
    duration = keys["duration"]
    if "calendar" not in keys:
        if not rolling:
            raise window.error("a window rolls (`isRolling: true`) or has a `calendar`")
        if re.search(r"[MQY]$", duration.string()):
            raise duration.error("only calendars have months: write days, such as 30d")
        return parse_period(duration)
    if rolling:
        raise window.error("a window does not both roll and follow a calendar")
    _check_month(duration, keys["calendar"])
    return parse_period(alerts)


def _check_month(duration: Item, calendar: Item) -> None:
    """Raise ConfigError for calendars other than months in UTC: reports are of these."""
    if duration.string() != "1M":
        raise duration.error(f"reports are of calendar months: 1M, not {duration.string()}")
    keys = calendar.mapping()
    zone, start = keys.get("timeZone"), keys.get("startTime")
    if zone is not None and zone.string() not in ("UTC", "Etc/UTC", "GMT"):
        raise zone.error(f"months are counted in UTC here, not {zone.string()}")
    if start is not None and not _START.fullmatch(start.string()):
        raise start.error("months begin on their first day at 00:00:00 here")


def _only(window: Item) -> dict[str, Item]:
    """Return the keys of the one window in a list."""
    windows = window.items()
    if len(windows) != 1:
        raise window.error("needs exactly one window")
    return windows[0].mapping()
