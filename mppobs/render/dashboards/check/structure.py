"""How a dashboard is put together: places, numbers, letters, and links that lead somewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from mppobs.catalog.panels import DASHBOARDS
from mppobs.render.dashboards.check.findings import Problem, Rule, panels, variables
from mppobs.render.dashboards.fields import Json
from mppobs.render.dashboards.layout import COLUMNS, Place

Books = Mapping[str, Json]
"""Every dashboard by its uid: what links may lead to."""

_DASHBOARD: Final = re.compile(r"/d/([\w-]+)")
_VARIABLE: Final = re.compile(r"[?&]var-(\w+)=|\$\{(\w+):queryparam\}")
_VIEW: Final = re.compile(r"viewPanel=(\d+)")
_MAX_UID: Final = 40


def _layout(dashboard: Json) -> Iterator[Problem]:
    """Panels lie on the grid, and none on another."""
    placed: list[tuple[str, Place]] = []
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        where, place = f"{panel['id']} ({panel['title']})", Place(grid["x"], grid["y"], grid["w"], grid["h"])
        if place.x < 0 or place.x + place.width > COLUMNS or place.height <= 0:
            yield where, f"it reaches beyond the grid: {grid}"
        for other, taken in placed:
            if place.overlaps(taken):
                yield where, f"it lies on panel {other}"
        placed.append((where, place))


def _numbers(dashboard: Json) -> Iterator[Problem]:
    """Panels have numbers of their own, and ours are those of the catalogue."""
    counts = Counter(panel.get("id") for panel in dashboard["panels"])
    for number, count in counts.items():
        if not number or count > 1:
            yield "", f"panel number {number} is given {count} times" if number else "a panel has no number"
    known = DASHBOARDS.get(dashboard["uid"])
    if known is not None:
        differing = set(counts) ^ {member.value for member in known}
        if differing:
            yield "", f"panels {sorted(differing)} are only here or only in the catalogue"


def _identity(dashboard: Json) -> Iterator[Problem]:
    """A dashboard can be linked, found and read: uid, tag, time zone."""
    uid = dashboard.get("uid") or ""
    if not re.fullmatch(rf"[\w-]{{1,{_MAX_UID}}}", uid):
        yield "", f"uid {uid!r}: letters, digits and dashes, {_MAX_UID} at most"
    if dashboard.get("id") is not None:
        yield "", "id is a number of one Grafana's database: leave it out"
    for key, wanted in (("timezone", "utc"), ("graphTooltip", 1)):
        if dashboard.get(key) != wanted:
            yield "", f"{key} is {dashboard.get(key)!r}, not {wanted!r}"
    if not dashboard.get("tags"):
        yield "", "it has no tag, so no list of dashboards has it"


def _letters(dashboard: Json) -> Iterator[Problem]:
    """Queries of a panel have letters of their own."""
    for where, panel in panels(dashboard):
        letters = [target.get("refId", "") for target in panel.get("targets", [])]
        if "" in letters or len(set(letters)) < len(letters):
            yield where, f"the letters of its queries are {letters}"


def _links(books: Books) -> Rule:
    """Return the rule that links lead to dashboards, panels and variables that exist."""

    def rule(dashboard: Json) -> Iterator[Problem]:
        own = {variable["name"] for variable in variables(dashboard)}
        for where, panel in [("", {"links": dashboard.get("links", [])}), *panels(dashboard)]:
            for url in urls(panel):
                yield from ((where, f"{url}: {wrong}") for wrong in _leads_astray(url, books, own))

    return rule


def urls(part: Any) -> Iterator[str]:
    """Yield every address in a part of a dashboard."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "url" and isinstance(value, str) and value:
                yield value
            else:
                yield from urls(value)
    elif isinstance(part, list):
        for each in part:
            yield from urls(each)


def _leads_astray(url: str, books: Books, own: set[str]) -> Iterator[str]:
    found = _DASHBOARD.search(url)
    for given, passed in _VARIABLE.findall(url):
        if passed and passed not in own:
            yield f"there is no variable {passed!r} to pass on"
        name = given or passed
        if found and found[1] in books and name not in {each["name"] for each in variables(books[found[1]])}:
            yield f"dashboard {found[1]} has no variable {name!r}"
    if found and found[1] not in books:
        yield f"there is no dashboard {found[1]!r}"
        return
    view = _VIEW.search(url)
    if found and view and int(view[1]) not in {panel["id"] for panel in books[found[1]]["panels"]}:
        yield f"dashboard {found[1]} has no panel {view[1]}"


STRUCTURE: Final[Mapping[str, Rule]] = {
    "layout": _layout,
    "panel-numbers": _numbers,
    "identity": _identity,
    "query-letters": _letters,
}
LINKS: Final[Callable[[Books], Rule]] = _links
