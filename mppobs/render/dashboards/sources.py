"""The dashboards that come with the package, by the name of their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mppobs.render.dashboards import debug, executive, oncall, tool
from mppobs.render.dashboards.common import Settings
from mppobs.render.dashboards.model import Dashboard

SOURCES: Final[Mapping[str, Callable[[Settings | None], Dashboard]]] = {
    "executive": executive.dashboard,
    "oncall": oncall.dashboard,
    "debug": debug.dashboard,
    "self": tool.dashboard,
}


def dashboards(settings: Settings | None = None) -> dict[str, Dashboard]:
    """
    Return every dashboard that comes with the package.

    >>> [dashboard.uid for dashboard in dashboards().values()]
    ['mppobs-exec', 'mppobs-oncall', 'mppobs-debug', 'mppobs-self']
    """
    return {name: source(settings) for name, source in SOURCES.items()}
