"""
What a task is given and what it may return: the contract between the executor and the functions that it runs.

A task is a plain function of one argument:

    def read_orders(task: TaskInput) -> pa.Table:              # a first stage
        table = parquet.read_table(task.arguments["path"])
        mppobs.current().add(rows=table.num_rows)              # rows that it read itself it counts itself
        return table.select(["o_orderkey", "o_custkey"])       # hashed by `partition_by` and exchanged

    def join(task: TaskInput) -> pa.Table:                     # a stage with reads=("orders", "lines")
        orders, lines = task.read("orders"), task.read("lines")  # its own partition of each
        return orders.join(lines, "o_orderkey", use_threads=False)

What it returns is the shard's output:

- A `pyarrow.Table` is written to a file, partitioned by the stage's `partition_by`, and read by later stages with
  `TaskInput.read`. For the last stage, the tables of all shards in the order of the shards are the job's answer.
- Anything else that can be pickled travels back to the coordinator and must be small (`MAX_VALUE_BYTES`). For the last
  stage, the list of all shards' values in the order of the shards is the job's answer. Other stages cannot read it.

A shard of a `splittable` stage that is far larger than the others may be replaced by smaller ones. Each reads the
output of a share of the shards of the first stage in `reads`, and all there is for its partition of the others: the
large side of a join comes first. What they put out stands, one after the other, where the shard's own output would have
been, so the task must give right answers for a part of its rows: partial sums do, if a later stage adds them up.

A task may run more than once for the same shard, even at the same time: what it does besides returning its output
must not mind. It runs in a process with one lane, so it should not start threads: Arrow's functions take
`use_threads=False`, and then their CPU time is the attempt's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from mppobs.errors import MppobsError
from mppobs.model import Shard

MAX_VALUE_BYTES: Final = 8 * 1024 * 1024
"""The largest pickled value that a task may return; tables have no such limit, since they travel in files."""


class Throttled(OSError):
    """
    Raised by a task whose storage or service told it to slow down.

    The attempt ends as `error` with reason `storage` and is retried no sooner than `retry_after` seconds.
    """

    def __init__(self, message: str = "throttled", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.errno = errno.EIO
        self.retry_after = retry_after


class TaskError(MppobsError):
    """Raised where a task cannot be run or gave what cannot be used. The same would happen again: there is no retry."""


@dataclass(frozen=True, slots=True)
class TaskInput:
    """What one attempt of one shard works on. Lives as long as the attempt."""

    job_id: str
    stage: str
    shard: Shard
    attempt: int
    """From 0. Results must not depend on it."""
    arguments: Mapping[str, Any]
    """The stage's arguments, with the shard's on top."""
    _open: Callable[[str], Iterator[pa.Table]]

    def read(self, stage: str) -> pa.Table:
        """
        Return what the shards of an earlier stage wrote: this shard's partition, or everything for broadcast reads.

        `stage` must be among the stage's `reads`. Rows and bytes read are counted. Raises `ExchangeError` where the
        data is gone or damaged, and `TaskError` for a stage that is not read or whose shards do not fit together.
        """
        return together(stage, self._open(stage))

    def read_parts(self, stage: str) -> Iterator[pa.Table]:
        """Yield the same as `read`, a table for each shard of that stage: for what is too large to be held whole."""
        return self._open(stage)


def together(stage: str, tables: Iterable[pa.Table]) -> pa.Table:
    """
    Return what shards of a stage put out as one table. A column that is all null takes the type that it has elsewhere.

    Raises `TaskError` where the shards have other columns or types than each other: they would be told apart nowhere.

    >>> found = together("map", [pa.table({"a": pa.nulls(1)}), pa.table({"a": [7]})])
    >>> found["a"].to_pylist()
    [None, 7]
    """
    parts = list(tables)
    for part in parts[1:]:
        if part.column_names != parts[0].column_names:
            raise TaskError(
                f"shards of stage {stage!r} put out different columns: {parts[0].column_names}, {part.column_names}"
            )
    try:
        return pa.concat_tables(parts, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TaskError(f"shards of stage {stage!r} put out columns of different types: {error}") from error
