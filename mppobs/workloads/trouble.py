"""Faults on purpose: what a demonstration or a drill does to chosen shards of a plan, on their first attempt only."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from mppobs.executor.plan import Plan, ShardPlan
from mppobs.executor.task import TaskInput
from mppobs.model import RunKind, Shard

_ARGUMENT: Final = "trouble"
_SLOW_SECONDS: Final = 6.5
"""Beyond the five seconds below which nothing is called a straggler."""


class Trouble(StrEnum):
    """What happens to a shard's first attempt."""

    KILL = "kill"
    """Its worker dies by SIGKILL, as under the kernel's OOM killer."""
    RAISE = "raise"
    """Its task raises, as user code does."""
    SLOW = "slow"
    """It takes 6.5 s longer, as on a slow disk, and holds its stage."""


def with_trouble(plan: Plan, stage: str, faults: Mapping[Shard, Trouble]) -> Plan:
    """
    Return the plan with faults given to shards of one stage, whose shards must be listed.

    The run is a drill from then on, so that objectives can leave it out. The tasks must call `strike`.
    Raises `ConfigError` for a stage that the plan does not have.
    """
    troubled = plan.stage(stage)
    shards = tuple(_give(part, faults.get(part.shard)) for part in troubled.shards or ())
    changed = dataclasses.replace(troubled, shards=shards)
    stages = tuple(changed if old is troubled else old for old in plan.stages)
    return dataclasses.replace(plan, stages=stages, run_kind=RunKind.DRILL)


def strike(task: TaskInput) -> None:
    """Do to this attempt what its plan says, where it says anything."""
    if task.attempt > 0:
        return
    match task.arguments.get(_ARGUMENT):
        case Trouble.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Trouble.RAISE:
            raise OSError(f"{task.stage}/{task.shard}: read failed, on purpose")
        case Trouble.SLOW:
            time.sleep(_SLOW_SECONDS)
        case _:
            return


def _give(part: ShardPlan, fault: Trouble | None) -> ShardPlan:
    """Return the shard with its fault among the arguments; workers read it there."""
    if fault is None:
        return part
    return dataclasses.replace(part, arguments={**part.arguments, _ARGUMENT: str(fault)})
