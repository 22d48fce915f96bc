"""
What every bundled workload is: data that can be made, a plan that runs on it, and a check of the answer.

A workload is known by its `Work`, three functions of a `Setup`. `mppobs.workloads.registry` lists them all by name.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mppobs.errors import ConfigError, MppobsError
from mppobs.executor.plan import Plan

Value = int | float | bool | str
"""What a parameter of a workload may be set to."""


class WrongAnswerError(MppobsError):
    """Raised when a job's answer is not that of the plain computation in one process. The message says what differs."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a workload is run on: a value, so that the same one always means the same data and the same answer."""

    directory: Path
    """Where data is made and kept. Several workloads may share it."""
    scale: float
    """1 is the size that keeps a few cores busy for minutes; tests use 0.01."""
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)
    """A value for each of the workload's parameters."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale {self.scale:g}: it must be positive")

    def count(self, at_one: int, least: int = 1) -> int:
        """
        Return how many of something there are at this scale, `at_one` being the number at scale 1.

        >>> Setup(Path("x"), 0.01).count(2_000), Setup(Path("x"), 0.01).count(50, least=4)
        (20, 4)
        """
        return max(least, round(at_one * self.scale))

    def number(self, name: str) -> int:
        """Return the value of a parameter that is a whole number."""
        return int(self.values[name])

    def real(self, name: str) -> float:
        """Return the value of a parameter that is a number."""
        return float(self.values[name])

    def flag(self, name: str) -> bool:
        """Return the value of a parameter that is on or off."""
        return bool(self.values[name])


def require_package(name: str) -> None:
    """Raise `ConfigError` where a package that tasks or checks need is not there: before the run, not at its end."""
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"{name} is not installed: pip install 'mppobs[demo]'")


def _say_nothing(setup: Setup, answer: Any) -> list[str]:
    """Tell nothing: the answer speaks for itself."""
    return []


@dataclass(frozen=True, slots=True)
class Work:
    """What a workload does. All three are given the same setup, and `check` trusts nothing that the plan computed."""

    prepare: Callable[[Setup], None]
    """Make the data, unless it is there. It is complete where it is there at all."""
    plan: Callable[[Setup, int], Plan]
    """Return the plan, with so many shards in its widest stage where the data allows it."""
    check: Callable[[Setup, Any], None]
    """Compare a job's answer with a plain computation in this process; raises `WrongAnswerError`."""
    tell: Callable[[Setup, Any], list[str]] = _say_nothing
    """Return what is worth saying of a right answer, in lines for people."""


def split_paths(arguments: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """
    Deal the files of a shard out to several: the `split` of stages whose shards read `paths`.

    >>> split_paths({"paths": ["a", "b", "c"]}, 2), len(split_paths({"paths": ["a"]}, 2))
    ([{'paths': ['a', 'c']}, {'paths': ['b']}], 1)
    """
    paths = arguments["paths"]
    return [{**arguments, "paths": paths[part::parts]} for part in range(min(parts, len(paths)))]


def require(same: bool, message: str) -> None:
    """Raise `WrongAnswerError` with this message unless the two sides are the same."""
    if not same:
        raise WrongAnswerError(message)
