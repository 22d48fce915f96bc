"""
The sides of `bench/executor.py`, each in a process of its own: this executor, the standard library's pool, Dask, Ray.

`python bench/sides.py NAME` starts a side and answers one JSON object per line for each that it is given: no-op tasks,
or a group-by of Parquet files, with the seconds that it took and the most memory that it and all its processes had.
Every side has two worker processes with one lane each.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

import mppobs
from mppobs.executor import Executor, Plan, ShardPlan, Stage
from mppobs.executor.task import TaskInput

WORKERS = 2
PARTITIONS = 16
_SAMPLE_SECONDS = 0.03

Answer = tuple[int, int]
"""Groups, and the sum of all values."""


class Side(Protocol):
    """Something that runs functions on two processes."""

    def no_ops(self, tasks: int, chunk: int) -> object:
        """Compute so many square roots, `chunk` to a task."""
        ...

    def group(self, files: list[str]) -> Answer:
        """Read the files, sum `v` by `k`, and have all groups here."""
        ...


# This executor


def read_rows(task: TaskInput) -> pa.Table:
    """Read one file."""
    return parquet.read_table(task.arguments["path"], use_threads=False)


def sum_rows(task: TaskInput) -> pa.Table:
    """Sum the values of this partition's keys."""
    return task.read("read").group_by("k", use_threads=False).aggregate([("v", "sum")])


class Ours:
    """The executor with every attempt recorded."""

    def __init__(self, stack: ExitStack) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="mppobs-bench-"))
        mppobs.configure(directory=directory)
        self._executor = stack.enter_context(Executor(WORKERS))

    def no_ops(self, tasks: int, chunk: int) -> object:
        return self._executor.map(math.sqrt, range(tasks), chunk=chunk)

    def group(self, files: list[str]) -> Answer:
        shards = tuple(ShardPlan(number, {"path": path}) for number, path in enumerate(files))
        plan = Plan(
            "group-by",
            (
                Stage("read", "bench.sides:read_rows", shards, partition_by=("k",), partitions=PARTITIONS),
                Stage("sum", "bench.sides:sum_rows", reads=("read",)),
            ),
            compression="none",
        )
        answer = self._executor.run(plan).check().answer
        return answer.num_rows, pc.sum(answer["v_sum"]).as_py()


# The standard library


class Pool:
    """`ProcessPoolExecutor`."""

    def __init__(self, stack: ExitStack) -> None:
        self._pool = stack.enter_context(ProcessPoolExecutor(WORKERS))

    def no_ops(self, tasks: int, chunk: int) -> object:
        return list(self._pool.map(math.sqrt, range(tasks), chunksize=chunk))


# Dask


class Dask:
    """A local cluster, its group-by by the scheduler's tasks or peer to peer."""

    shuffle = ""

    def __init__(self, stack: ExitStack) -> None:
        from distributed import Client, LocalCluster

        logging.captureWarnings(True)  # of ports that are taken
        cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        )
        self._client = stack.enter_context(Client(stack.enter_context(cluster)))

    def no_ops(self, tasks: int, chunk: int) -> object:
        if chunk == 1:
            return self._client.gather(self._client.map(math.sqrt, range(tasks), pure=False))
        return self._client.gather(self._client.map(roots, _chunks(tasks, chunk), pure=False))

    def group(self, files: list[str]) -> Answer:
        import dask.dataframe

        frame = dask.dataframe.read_parquet(files)
        options = {"split_out": PARTITIONS, "shuffle_method": self.shuffle} if self.shuffle else {}
        sums = frame.groupby("k")["v"].sum(**options).compute()
        return len(sums), int(sums.sum())


class DaskP2P(Dask):
    """The same with its peer-to-peer shuffle."""

    shuffle = "p2p"


# Ray


class Ray:
    """Tasks of Ray, with its object store as the exchange."""

    def __init__(self, stack: ExitStack) -> None:
        import ray

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # a benchmark tells nobody that it was run
        ray.init("local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")
        stack.callback(ray.shutdown)
        self._ray = ray
        self._root, self._roots = ray.remote(math_sqrt), ray.remote(roots)
        self._split = ray.remote(num_returns=PARTITIONS)(split_rows)
        self._add = ray.remote(add_rows)

    def no_ops(self, tasks: int, chunk: int) -> object:
        if chunk == 1:
            return self._ray.get([self._root.remote(number) for number in range(tasks)])
        return self._ray.get([self._roots.remote(part) for part in _chunks(tasks, chunk)])

    def group(self, files: list[str]) -> Answer:
        splits = [self._split.remote(path) for path in files]
        parts = self._ray.get([self._add.remote(*(split[n] for split in splits)) for n in range(PARTITIONS)])
        answer = pa.concat_tables(parts)
        return answer.num_rows, pc.sum(answer["v_sum"]).as_py()


def math_sqrt(number: int) -> float:
    """Return a square root: what is built in cannot be a remote function."""
    return math.sqrt(number)


def split_rows(path: str) -> list[pa.Table]:
    """Read one file and return its rows in partitions, as one would write it by hand."""
    table = parquet.read_table(path, use_threads=False)
    ids = (table["k"].to_numpy() % PARTITIONS).astype(np.uint8)
    ordered = table.take(pa.array(np.argsort(ids, kind="stable")))
    counts = np.bincount(ids, minlength=PARTITIONS).tolist()
    starts = np.cumsum([0, *counts]).tolist()
    return [ordered.slice(start, count) for start, count in zip(starts, counts, strict=False)]


def add_rows(*parts: pa.Table) -> pa.Table:
    """Sum the values of one partition's keys."""
    return pa.concat_tables(parts).group_by("k", use_threads=False).aggregate([("v", "sum")])


def roots(numbers: range) -> list[float]:
    """Return square roots."""
    return list(map(math.sqrt, numbers))


def _chunks(tasks: int, chunk: int) -> list[range]:
    return [range(start, min(start + chunk, tasks)) for start in range(0, tasks, chunk)]


# Memory


def tree(root: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory_of(pids: list[int]) -> int:
    """Return the memory of some processes in bytes; what they share is counted once (proportional set size)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended meanwhile
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


@contextmanager
def watched(found: list[int]) -> Iterator[None]:
    """Note the memory of this process and all below it, some times a second, while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            found.append(memory_of(tree(os.getpid())))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# Orders

SIDES: dict[str, Callable[[ExitStack], Side]] = {
    "ours": Ours, "pool": Pool, "dask": Dask, "dask-p2p": DaskP2P, "ray": Ray
}  # fmt: skip


def obey(side: Side, order: dict[str, Any]) -> dict[str, Any]:
    """Do what one line asks for."""
    memory: list[int] = []
    with watched(memory) if order.get("watch") else ExitStack():
        began = time.perf_counter()
        if order["do"] == "group":
            answer: object = side.group(order["files"])
        else:
            side.no_ops(order["tasks"], order["chunk"])
            answer = None
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "answer": answer, "memory": max(memory, default=0)}


def main() -> None:
    """Be one side until the orders end."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what engines print is none of an answer
    with ExitStack() as stack:
        side = SIDES[sys.argv[1]](stack)
        print("{}", file=said)
        for line in sys.stdin:
            print(json.dumps(obey(side, json.loads(line))), file=said)


if __name__ == "__main__":
    main()
