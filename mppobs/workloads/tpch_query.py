"""
What the TPC-H queries share: how a query is run and checked, how tables are read and exchanged, and money.

Money stays decimal from the file to the answer, so answers are compared exactly; only averages are floating point,
in DuckDB as here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

import mppobs
from mppobs.executor.plan import Plan, ShardPlan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import Setup, Work, require, require_package, split_paths
from mppobs.workloads.data import TABLES, Dataset, make_dataset, parts_of
from mppobs.workloads.trouble import strike

ONE: Final = pa.scalar(Decimal("1.00"), pa.decimal128(3, 2))
PRICE: Final = pa.decimal128(12, 2)
"""Wide enough for any price of TPC-H, and narrow enough for the product of a price, a discount and a tax to fit."""
RATE: Final = pa.decimal128(4, 2)
DEADLINE: Final = 60.0
"""Seconds in which a query is promised to end."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query of TPC-H: how the executor runs it, and the SQL that says what must come out."""

    key: str
    title: str
    pipeline: str
    sql: str
    planned: Callable[[Dataset, int], Plan]
    """Given the data and how many shards are to scan its largest table."""

    def plan(self, dataset: Dataset, shards: int = 0) -> Plan:
        """Return the query as a plan with so many shards to scan a table; 0 for one for each of its parts."""
        return self.planned(dataset, min(shards or dataset.parts, dataset.parts))

    def expected(self, dataset: Dataset) -> list[tuple[Any, ...]]:
        """Return DuckDB's answer over the same files."""
        import duckdb  # an extra, and slow to load: only checks need it

        tables = {table: dataset.glob(table) for table in TABLES}
        with duckdb.connect() as connection:
            rows: list[tuple[Any, ...]] = connection.execute(self.sql.format(**tables)).fetchall()
        return rows


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is the one that was expected."""

    rows: int
    difference: str
    """The first difference; empty where there is none."""

    @property
    def ok(self) -> bool:
        """Return whether the answer is right."""
        return not self.difference


def check(answer: pa.Table, expected: list[tuple[Any, ...]]) -> Verdict:
    """
    Compare an answer with the expected rows: order and every value exactly, floating point to 12 digits.

    >>> check(pa.table({"a": [1, 2]}), [(1,), (3,)]).difference
    'row 1, a: 2, expected 3'
    >>> check(pa.table({"a": [0.1 + 0.2]}), [(0.3,)]).ok
    True
    """
    if answer.num_rows != len(expected):
        return Verdict(answer.num_rows, f"{answer.num_rows} rows, expected {len(expected)}")
    for number, (row, right) in enumerate(zip(answer.to_pylist(), expected, strict=True)):
        for (column, value), want in zip(row.items(), right, strict=True):
            same = math.isclose(value, want, rel_tol=1e-12) if isinstance(want, float) else value == want
            if not same:
                return Verdict(answer.num_rows, f"row {number}, {column}: {value}, expected {want}")
    return Verdict(answer.num_rows, "")


def work_of(query: Query) -> Work:
    """Return a query as a workload, on tables of the scale factor that the scale says."""

    def tables(setup: Setup) -> Dataset:
        return make_dataset(setup.directory, setup.scale, parts_of(setup.scale))

    def prepare(setup: Setup) -> None:
        require_package("duckdb")
        tables(setup)

    def plan(setup: Setup, shards: int) -> Plan:
        return query.plan(tables(setup), shards)

    def compare(setup: Setup, answer: Any) -> None:
        verdict = check(answer, query.expected(tables(setup)))
        require(verdict.ok, f"TPC-H {query.key}: {verdict.difference}")

    return Work(prepare, plan, compare)


def partitions_of(shards: int) -> int:
    """Return how many shards an exchange feeds: half as many as read the files."""
    return max(1, shards // 2)


def scan(
    name: str,
    dataset: Dataset,
    shards: int,
    table: str,
    task: Callable[[TaskInput], pa.Table],
    key: str,
    combiner: str = "",
    *,
    reads: tuple[str, ...] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Stage:
    """
    Return a stage whose shards share the parts of a table, and whose output is exchanged by `key`.

    Without a key there is one partition, for later stages to read whole. Each shard may read all of what `reads` names.
    """
    return Stage(
        name=name,
        task=path_of(task),
        shards=tuple(_shard(number, paths) for number, paths in enumerate(dataset.cut(table, shards))),
        partition_by=(key,) if key else (),
        partitions=partitions_of(shards) if key else 1,
        combiner=combiner,
        reads=reads,
        arguments=arguments or {},
        splittable=True,
        split=path_of(split_paths),
        priority=-1,  # first on workers that may be evicted: a scan costs little to do again
    )


def read_columns(task: TaskInput, columns: list[str]) -> pa.Table:
    """Read columns of the shard's files, and count their rows."""
    attempt = mppobs.current()
    with attempt.activity("read"):
        table = read_table(task.arguments["paths"], columns)
    attempt.add(rows=table.num_rows)
    strike(task)  # nothing, unless the plan asks for trouble
    return table


def read_table(paths: list[str], columns: list[str]) -> pa.Table:
    """Read columns of files of one table."""
    table = pa.concat_tables(parquet.read_table(Path(path), columns=columns, use_threads=False) for path in paths)
    # The generator writes views, on which Arrow's filters and joins do not work yet.
    plain = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in table.schema]
    return table.cast(pa.schema(plain)).combine_chunks()


def widen(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals in the type of their sums, so that sums of rows and sums of sums look the same."""
    return column.cast(pa.decimal128(38, column.type.scale))


def revenue_of(lines: pa.Table) -> pa.ChunkedArray:
    """Return what each line item brings in: its price less its discount."""
    price, discount = lines["l_extendedprice"].cast(PRICE), lines["l_discount"].cast(RATE)
    return pc.multiply(price, pc.subtract(ONE, discount))


def _shard(number: int, paths: list[Path]) -> ShardPlan:
    """Return the shard that reads these files."""
    arguments = {"paths": [str(path) for path in paths]}
    return ShardPlan(number, arguments, input_bytes=sum(path.stat().st_size for path in paths))
