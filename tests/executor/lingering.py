"""Tasks that take their time, for the tests of what can be done to them meanwhile."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import mppobs
from mppobs.executor.task import TaskInput


def linger(task: TaskInput) -> str:
    """Leave a mark, say that half is done, and stay for as long as told."""
    Path(task.arguments["mark"]).touch()
    mppobs.current().progress(0.5)
    until = time.monotonic() + task.arguments["seconds"]
    while time.monotonic() < until:
        time.sleep(0.01)
    return "stayed"


def persist(task: TaskInput) -> str:
    """Stay for as long as told, whatever is raised here meanwhile."""
    until = time.monotonic() + task.arguments["seconds"]
    while time.monotonic() < until:
        try:
            time.sleep(0.01)
        except BaseException:
            continue
    return "stayed"


def gather_memory(task: TaskInput) -> int:
    """Hold so many bytes."""
    return len(bytearray(task.arguments["bytes"]))


def has_loaded(task: TaskInput) -> bool:
    """Return whether a module was imported by now."""
    return task.arguments["module"] in sys.modules
