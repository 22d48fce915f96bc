"""
Faults of the work itself, applied by the worker around a task: slower, turned away, out of memory, off the network.

Which attempts are hit is decided by their names, so it is the same in every run and on every backend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from mppobs.executor.faults import ArmedFault, Fault, FaultKind, crowd
from mppobs.executor.task import TaskInput, Throttled
from mppobs.instrument.attempt import Attempt
from mppobs.instrument.recorder import RECORDER

SKEWED_EVERY: Final = 50
"""One shard in so many is skewed, the first included, so that even a small stage has one."""
CHOSEN_EVERY: Final = 10
"""One shard in so many is on a hot key, or needs too much memory."""
TAIL_SHARE: Final = 1 / SKEWED_EVERY
"""Of attempts that meet a long tail."""
RETRY_AFTER: Final = 0.2
"""Seconds that a throttling store asks to wait."""
_LEAST_SECONDS: Final = 0.01
"""What a task is taken to last at least before it is stretched: one that does nothing has no tail."""
_BALLAST_BYTES: Final = 64 << 20
"""Memory that a task is taken to need; a multiple of it is touched before an attempt runs out."""
_TRANSFER_ERRORS: Final = 3
"""Failed transfers that an attempt counts before it gives up."""


def run_sabotaged(
    function: Callable[[TaskInput], Any],
    task: TaskInput,
    faults: Sequence[ArmedFault],
    position: int,
    attempt: Attempt,
) -> Any:
    """
    Call a task as `function(task)` would, under the faults that are on now; return what it returns.

    `position` is the shard's place in its stage, `attempt` the one that is being recorded. Raises what the faults are
    about: `Throttled`, `ConnectionResetError`, `OSError`, `MemoryError`.
    """
    now = time.time_ns()
    active = [armed.fault for armed in faults if armed.active(now) and _is_aimed_at(armed.fault, task)]
    for fault in active:
        _turn_away(fault, task, position, attempt)
    shuffle = [fault for fault in active if fault.kind is FaultKind.SHUFFLE]
    if shuffle:
        task = replace(task, _open=_failing_reads(shuffle[0], task, attempt))
    began = time.monotonic()
    result = function(task)
    factor = stretch(active, task.stage, position, task.attempt, RECORDER.settings().worker_info().worker)
    if factor > 1:
        time.sleep((factor - 1) * max(time.monotonic() - began, _LEAST_SECONDS))
    return result


def stretch(faults: Sequence[Fault], stage: str, position: int, number: int, worker: str) -> float:
    """
    Return how many times longer an attempt takes under some faults.

    >>> stretch([Fault(FaultKind.SKEW)], "map", 50, 0, "w-2"), stretch([Fault(FaultKind.SKEW)], "map", 51, 0, "w-2")
    (8.0, 1.0)
    """
    factor = 1.0
    for fault in faults:
        match fault.kind:
            case FaultKind.SKEW:
                hit = position % SKEWED_EVERY == 0
            case FaultKind.SLOW_NODE:
                hit = is_slow_worker(fault, worker)
            case FaultKind.LONG_TAIL:
                hit = fault.hits(stage, position, number, share=TAIL_SHARE)
            case FaultKind.CPU:
                hit = True
            case _:
                hit = False
        factor *= fault.severity if hit else 1.0
    return factor


def is_slow_worker(fault: Fault, worker: str) -> bool:
    """Return whether a worker is the slow one: the target, or the first that was started."""
    return worker == fault.target if fault.target else worker.endswith("-1")


def _is_aimed_at(fault: Fault, task: TaskInput) -> bool:
    """Return whether a fault is for this shard, by its stage or its stage and name; a worker is looked at later."""
    if not fault.target or fault.kind is FaultKind.SLOW_NODE:
        return True
    return fault.target in (task.stage, f"{task.stage}/{task.shard}")


def _turn_away(fault: Fault, task: TaskInput, position: int, attempt: Attempt) -> None:
    """Raise what a fault raises before the task is called, where this attempt is hit."""
    chosen = position % CHOSEN_EVERY == 0
    if fault.kind is FaultKind.MEMORY:
        if chosen and task.attempt == 0:
            ballast = bytearray(int(fault.severity * _BALLAST_BYTES))
            raise MemoryError(f"{len(ballast)} bytes were not enough, on purpose")
        return
    if fault.kind is FaultKind.HOT_KEY and not chosen:
        return
    throttles = fault.kind in (FaultKind.HOT_KEY, FaultKind.HOT_PREFIX)
    share = crowd(fault.severity, task.attempt) if throttles else None
    if fault.is_share and not fault.hits(task.stage, task.shard, task.attempt, share=share):
        return
    match fault.kind:
        case FaultKind.RETRY_STORM:
            raise ConnectionResetError(f"{task.stage}/{task.shard}: connection reset, on purpose")
        case FaultKind.FABRIC:
            attempt.add(network_errors={"fabric": _TRANSFER_ERRORS})
            raise ConnectionResetError(f"{task.stage}/{task.shard}: network unreachable, on purpose")
        case FaultKind.HOT_KEY | FaultKind.HOT_PREFIX:
            attempt.add(storage_throttled={str(fault.kind): 1})
            raise Throttled(f"{task.stage}/{task.shard}: slow down, on purpose", RETRY_AFTER)
        case _:
            return


def _failing_reads(fault: Fault, task: TaskInput, attempt: Attempt) -> Callable[[str], Iterator[pa.Table]]:
    """Return a way to read exchanges in which transfers fail, once or thrice; after the third the attempt does."""
    opened = task._open

    def read(stage: str) -> Iterator[pa.Table]:
        for number, table in enumerate(opened(stage)):
            failed = 0
            while failed < _TRANSFER_ERRORS and fault.hits(stage, task.shard, task.attempt, number, failed):
                failed += 1
                attempt.add(network_errors={"reset": 1})
            if failed == _TRANSFER_ERRORS:
                raise ConnectionResetError(f"{task.stage}/{task.shard}: reading {stage} failed, on purpose")
            yield table

    return read
