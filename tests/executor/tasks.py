"""Tasks that the executor's tests run in worker processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

import mppobs
from mppobs.executor.task import TaskInput, Throttled
from mppobs.testing import Script


def numbers(task: TaskInput) -> pa.Table:
    """Return rows of a key and a value that depend on the shard alone, after a pause."""
    time.sleep(task.arguments.get("pause", 0.0))
    first, count, keys = (task.arguments[name] for name in ("first", "count", "keys"))
    values = range(first, first + count)
    mppobs.current().add(rows=count)
    return pa.table({"k": [value * 7919 % keys for value in values], "v": list(values)})


def add_up(table: pa.Table) -> pa.Table:
    """Return the sum of the values of each key: combiner and reduction."""
    return table.group_by("k", use_threads=False).aggregate([("v", "sum")]).rename_columns({"v_sum": "v"})


def sums(task: TaskInput) -> pa.Table:
    """Return the sums of this partition's keys."""
    time.sleep(task.arguments.get("pause", 0.0))
    return add_up(task.read("numbers"))


def sparse(task: TaskInput) -> pa.Table:
    """Return a column in which the first shard has nothing but nulls, and so says of no type."""
    column = pa.nulls(2) if task.shard == 0 else pa.array([task.shard, None])
    return pa.table({task.arguments.get(f"name-{task.shard}", "v"): column})


def read_sparse(task: TaskInput) -> pa.Table:
    """Return all of it."""
    return task.read("sparse")


def side_by_side(task: TaskInput) -> int:
    """Return how many rows its partitions of two stages have."""
    return sum(len(task.read(name)) for name in ("left", "right"))


def biggest(task: TaskInput) -> pa.Table:
    """Return the key with the largest sum of all, one shard's part of it at a time."""
    tops = [part.sort_by([("v", "descending")]).slice(0, 1) for part in task.read_parts("sums")]
    return pa.concat_tables(tops).sort_by([("v", "descending")]).slice(0, 1)


def scripted(task: TaskInput) -> int:
    """Run an attempt by the script among the arguments."""
    return Script(Path(task.arguments["directory"]), task.arguments["script"]).run(task.shard)


def die(task: TaskInput) -> None:
    """Kill the worker on each attempt before `survives`."""
    if task.attempt < task.arguments["survives"]:
        os.kill(os.getpid(), signal.SIGKILL)


def leave(task: TaskInput) -> None:
    """Try to end the worker in the ways that a task should not."""
    how = task.arguments["how"]
    if task.attempt == 0:
        sys.exit(0) if how == "sys.exit" else os._exit(0)


def hang(task: TaskInput) -> str:
    """Take far too long on the first attempt of the shards that are named, kindly or not."""
    if task.shard in task.arguments["slow"] and task.attempt == 0:
        while True:
            try:
                time.sleep(60)
            except BaseException:
                if task.arguments["kind"]:
                    raise
    return f"{task.shard}:{task.attempt}"


def throttled(task: TaskInput) -> int:
    """Be throttled once."""
    if task.attempt == 0:
        raise Throttled("slow down", retry_after=0.05)
    return task.attempt


def spoil(task: TaskInput) -> None:
    """Change a byte of everything that the first stage has put out, or remove it."""
    for path in Path(task.arguments["directory"]).glob("job-*/0/*/data.exchange"):
        if task.arguments["how"] == "gone":
            path.unlink()
            continue
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)


def value(task: TaskInput) -> Any:
    """Return what the arguments ask for."""
    match task.arguments["what"]:
        case "nothing":
            return None
        case "large":
            return b"x" * (9 * 1024 * 1024)
        case "unsendable":
            return lambda: None
        case "unknown":
            return task.read("nowhere")
        case other:
            return other


def double(number: int) -> int:
    """Return twice the number, or fail."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    return 2 * number


def total(task: TaskInput) -> pa.Table:
    """Return the sums of sums of this partition's keys."""
    return add_up(task.read("sums"))


def skewed(task: TaskInput) -> pa.Table:
    """Return 20,000 ones, of which all but one in twenty have the same key."""
    return pa.table({"k": [int(row % 20 == 0) for row in range(20_000)], "v": [1] * 20_000})
