"""
SRE observability and SLOs for massively parallel work: every shard, every attempt, even the one that was killed.

    import mppobs

    @mppobs.task(stage="score", shard="part")
    def score(part: int) -> int:
        rows = read(part)
        mppobs.current().add(rows=len(rows))
        return write(rows)

    with mppobs.job(pipeline="nightly-scoring"):
        for part in range(100):
            score(part)

Names are loaded when they are first used, so that importing the package costs a worker next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mppobs.version import __version__ as __version__

if TYPE_CHECKING:
    from mppobs.instrument.api import configure as configure
    from mppobs.instrument.api import flush as flush
    from mppobs.instrument.attempt import Attempt as Attempt
    from mppobs.instrument.carry import attach as attach
    from mppobs.instrument.carry import environment as environment
    from mppobs.instrument.carry import inject as inject
    from mppobs.instrument.exposition import start_metrics_server as start_metrics_server
    from mppobs.instrument.job import RunHandle as RunHandle
    from mppobs.instrument.job import job as job
    from mppobs.instrument.logs import JsonFormatter as JsonFormatter
    from mppobs.instrument.logs import LogFields as LogFields
    from mppobs.instrument.outcomes import Preempted as Preempted
    from mppobs.instrument.outcomes import Superseded as Superseded
    from mppobs.instrument.scopes import attempt as attempt
    from mppobs.instrument.scopes import current as current
    from mppobs.instrument.task import task as task

_HOMES = {
    "Attempt": "attempt",
    "JsonFormatter": "logs",
    "LogFields": "logs",
    "Preempted": "outcomes",
    "RunHandle": "job",
    "Superseded": "outcomes",
    "attach": "carry",
    "attempt": "scopes",
    "configure": "api",
    "current": "scopes",
    "environment": "carry",
    "flush": "api",
    "inject": "carry",
    "job": "job",
    "start_metrics_server": "exposition",
    "task": "task",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"mppobs.instrument.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
