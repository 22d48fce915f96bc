"""
Two TPC-H queries as plans: real work of two shapes, each with an answer that DuckDB can check.

- **Q1, pricing summary:** a scan that shrinks at once. `map` reads and filters line items and combines them within
  the shard, `combine` merges partial sums side by side, `reduce` puts four groups in order.
- **Q3, shipping priority:** two joins, each over an exchange of both its sides by the join's key, then a top ten.

Money stays decimal from the file to the answer, so answers are compared exactly; only averages are floating point,
in DuckDB as here.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
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
from mppobs.workloads.base import Setup, Work, require
from mppobs.workloads.data import Dataset, make_dataset, parts_of
from mppobs.workloads.trouble import strike

_ONE: Final = pa.scalar(Decimal("1.00"), pa.decimal128(3, 2))
_PRICE: Final = pa.decimal128(12, 2)
"""Wide enough for any price of TPC-H, and narrow enough for the product of a price, a discount and a tax to fit."""
_RATE: Final = pa.decimal128(4, 2)
_Q1_UNTIL: Final = datetime.date(1998, 9, 2)
_Q3_DATE: Final = datetime.date(1995, 3, 15)
_Q3_SEGMENT: Final = "BUILDING"
_SALTS: Final = 96
"""Q1 has only four groups: this many numbered slices of each let more than four shards combine them."""

_Q1_SQL: Final = """
select l_returnflag, l_linestatus,
       sum(l_quantity) as sum_qty, sum(l_extendedprice) as sum_base_price,
       sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
       sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
       avg(l_quantity) as avg_qty, avg(l_extendedprice) as avg_price, avg(l_discount) as avg_disc,
       count(*) as count_order
from read_parquet('{lineitem}')
where l_shipdate <= date '1998-12-01' - interval 90 day
group by l_returnflag, l_linestatus
order by l_returnflag, l_linestatus
"""

# The key of the order breaks ties, which TPC-H leaves open, so that there is one right answer.
_Q3_SQL: Final = """
select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
from read_parquet('{customer}'), read_parquet('{orders}'), read_parquet('{lineitem}')
where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey
  and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
group by l_orderkey, o_orderdate, o_shippriority
order by revenue desc, o_orderdate, l_orderkey
limit 10
"""

_Q1_COLUMNS: Final = [
    "l_orderkey", "l_returnflag", "l_linestatus", "l_quantity", "l_extendedprice", "l_discount", "l_tax", "l_shipdate",
]  # fmt: skip
_Q1_SUMS: Final = ("qty", "base_price", "disc_price", "charge", "discount")
_Q3_ORDER: Final = [("revenue", "descending"), ("o_orderdate", "ascending"), ("l_orderkey", "ascending")]
_ORDER_SCHEMA: Final = pa.schema([
    ("o_orderkey", pa.int64()), ("o_custkey", pa.int64()), ("o_orderdate", pa.date32()), ("o_shippriority", pa.int32()),
])  # fmt: skip


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

        tables = {table: dataset.glob(table) for table in ("lineitem", "orders", "customer")}
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


def plan_q1(dataset: Dataset, shards: int) -> Plan:
    """Return the pricing summary as a plan: so many shards to scan, half as many to combine."""
    return Plan(
        pipeline=Q1.pipeline,
        owner="pricing",
        deadline=60.0,
        stages=(
            _scan("map", dataset, shards, "lineitem", map_prices, "salt", combiner=path_of(combine_prices)),
            Stage(name="combine", task=path_of(merge_prices), reads=("map",)),
            Stage(name="reduce", task=path_of(summarise_prices), reads=("combine",)),
        ),
    )


def plan_q3(dataset: Dataset, shards: int) -> Plan:
    """Return the shipping priority query as a plan of three scans, two joins and a top ten."""
    return Plan(
        pipeline=Q3.pipeline,
        owner="shipping",
        deadline=60.0,
        stages=(
            _scan("customers", dataset, shards, "customer", scan_customers, "c_custkey"),
            _scan("orders", dataset, shards, "orders", scan_orders, "o_custkey"),
            Stage(
                name="join-customers",
                task=path_of(join_customers),
                reads=("customers", "orders"),
                partition_by=("o_orderkey",),
                partitions=_partitions(shards),
            ),
            _scan("lineitems", dataset, shards, "lineitem", scan_lineitems, "l_orderkey"),
            Stage(name="join-lineitems", task=path_of(join_lineitems), reads=("join-customers", "lineitems")),
            Stage(name="top", task=path_of(top_orders), reads=("join-lineitems",)),
        ),
    )


def map_prices(task: TaskInput) -> pa.Table:
    """Read one part of the line items that Q1 asks for, one row each; the combiner shrinks them."""
    lines = _read(task, _Q1_COLUMNS)
    with mppobs.current().activity("compute"):
        lines = lines.filter(pc.less_equal(lines["l_shipdate"], pa.scalar(_Q1_UNTIL)))
        price, discount = lines["l_extendedprice"].cast(_PRICE), lines["l_discount"].cast(_RATE)
        discounted = pc.multiply(price, pc.subtract(_ONE, discount))
        charge = pc.multiply(discounted, pc.add(_ONE, lines["l_tax"].cast(_RATE)))
        # pyarrow has no remainder: key − key ÷ n × n, in integers.
        keys = lines["l_orderkey"]
        salt = pc.subtract(keys, pc.multiply(pc.divide(keys, _SALTS), _SALTS))
        return pa.table({
            "l_returnflag": lines["l_returnflag"], "l_linestatus": lines["l_linestatus"], "salt": salt,
            "qty": _widen(lines["l_quantity"]), "base_price": _widen(price), "disc_price": _widen(discounted),
            "charge": _widen(charge), "discount": _widen(discount),
            "count_order": pa.repeat(pa.scalar(1, pa.int64()), lines.num_rows),
        })  # fmt: skip


def combine_prices(table: pa.Table) -> pa.Table:
    """Add up rows of the same group and slice: the combiner of `map`."""
    return _sum(table, ["l_returnflag", "l_linestatus", "salt"])


def merge_prices(task: TaskInput) -> pa.Table:
    """Add up the partial sums of some slices of every group."""
    return _sum(task.read("map"), ["l_returnflag", "l_linestatus"])


def summarise_prices(task: TaskInput) -> pa.Table:
    """Return the answer of Q1: one row for each group, in order."""
    keys = ["l_returnflag", "l_linestatus"]
    total = _sum(task.read("combine"), keys).sort_by([(key, "ascending") for key in keys])
    count = total["count_order"].cast(pa.float64())
    averages = {
        name: pc.divide(total[column].cast(pa.float64()), count)
        for name, column in (("avg_qty", "qty"), ("avg_price", "base_price"), ("avg_disc", "discount"))
    }
    sums = {f"sum_{name}": total[name] for name in _Q1_SUMS if name != "discount"}
    return pa.table({**{key: total[key] for key in keys}, **sums, **averages, "count_order": total["count_order"]})


def scan_customers(task: TaskInput) -> pa.Table:
    """Read one part of the customers in the market segment that Q3 asks for."""
    customers = _read(task, ["c_custkey", "c_mktsegment"])
    with mppobs.current().activity("compute"):
        return customers.filter(pc.equal(customers["c_mktsegment"], _Q3_SEGMENT)).select(["c_custkey"])


def scan_orders(task: TaskInput) -> pa.Table:
    """Read one part of the orders placed before Q3's date."""
    orders = _read(task, _ORDER_SCHEMA.names)
    with mppobs.current().activity("compute"):
        return orders.filter(pc.less(orders["o_orderdate"], pa.scalar(_Q3_DATE)))


def scan_lineitems(task: TaskInput) -> pa.Table:
    """Read one part of the line items shipped after Q3's date, each with its revenue."""
    lines = _read(task, ["l_orderkey", "l_extendedprice", "l_discount", "l_shipdate"])
    with mppobs.current().activity("compute"):
        lines = lines.filter(pc.greater(lines["l_shipdate"], pa.scalar(_Q3_DATE)))
        price, discount = lines["l_extendedprice"].cast(_PRICE), lines["l_discount"].cast(_RATE)
        return pa.table({"l_orderkey": lines["l_orderkey"], "revenue": pc.multiply(price, pc.subtract(_ONE, discount))})


def join_customers(task: TaskInput) -> pa.Table:
    """Return this partition's orders of the customers that Q3 asks for."""
    customers, orders = task.read("customers"), task.read("orders")
    with mppobs.current().activity("compute"):
        joined = orders.join(customers, "o_custkey", "c_custkey", join_type="inner", use_threads=False)
        return joined.select(["o_orderkey", "o_orderdate", "o_shippriority"])


def join_lineitems(task: TaskInput) -> pa.Table:
    """Return the ten orders of this partition with the most revenue: the top ten of all are among them."""
    orders, lines = task.read("join-customers"), task.read("lineitems")
    with mppobs.current().activity("compute"):
        joined = lines.join(orders, "l_orderkey", "o_orderkey", join_type="inner", use_threads=False)
        keys = ["l_orderkey", "o_orderdate", "o_shippriority"]
        revenue = joined.group_by(keys, use_threads=False).aggregate([("revenue", "sum")])
        return _top(revenue.rename_columns({"revenue_sum": "revenue"}))


def top_orders(task: TaskInput) -> pa.Table:
    """Return the answer of Q3: ten orders, in order."""
    return _top(task.read("join-lineitems"))


Q1: Final = Query("Q1", "pricing summary", "tpch-pricing-summary", _Q1_SQL, plan_q1)
Q3: Final = Query("Q3", "shipping priority", "tpch-shipping-priority", _Q3_SQL, plan_q3)
QUERIES: Final = (Q1, Q3)
"""The bundled queries."""


def _work(query: Query) -> Work:
    """Return a query as a workload, on tables of the scale factor that the scale says."""

    def tables(setup: Setup) -> Dataset:
        return make_dataset(setup.directory, setup.scale, parts_of(setup.scale))

    def prepare(setup: Setup) -> None:
        tables(setup)

    def plan(setup: Setup, shards: int) -> Plan:
        return query.plan(tables(setup), shards)

    def compare(setup: Setup, answer: Any) -> None:
        verdict = check(answer, query.expected(tables(setup)))
        require(verdict.ok, f"TPC-H {query.key}: {verdict.difference}")

    return Work(prepare, plan, compare)


Q1_WORK: Final = _work(Q1)
Q3_WORK: Final = _work(Q3)


def _partitions(shards: int) -> int:
    """Return how many shards an exchange feeds: half as many as read the files."""
    return max(1, shards // 2)


def _scan(
    name: str,
    dataset: Dataset,
    shards: int,
    table: str,
    task: Callable[[TaskInput], pa.Table],
    key: str,
    combiner: str = "",
) -> Stage:
    """Return a stage whose shards share the parts of a table, and whose output is exchanged by `key`."""
    return Stage(
        name=name,
        task=path_of(task),
        shards=tuple(_shard(number, paths) for number, paths in enumerate(dataset.cut(table, shards))),
        partition_by=(key,),
        partitions=_partitions(shards),
        combiner=combiner,
    )


def _shard(number: int, paths: list[Path]) -> ShardPlan:
    """Return the shard that reads these files."""
    arguments = {"paths": [str(path) for path in paths]}
    return ShardPlan(number, arguments, input_bytes=sum(path.stat().st_size for path in paths))


def _read(task: TaskInput, columns: list[str]) -> pa.Table:
    """Read columns of the shard's files, and count their rows."""
    attempt = mppobs.current()
    with attempt.activity("read"):
        table = pa.concat_tables(
            parquet.read_table(Path(path), columns=columns, use_threads=False) for path in task.arguments["paths"]
        )
    attempt.add(rows=table.num_rows)
    strike(task)  # nothing, unless the plan asks for trouble
    # The generator writes views, on which Arrow's filters and joins do not work yet.
    plain = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in table.schema]
    return table.cast(pa.schema(plain)).combine_chunks()


def _widen(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals in the type of their sums, so that sums of rows and sums of sums look the same."""
    return column.cast(pa.decimal128(38, column.type.scale))


def _sum(table: pa.Table, keys: list[str]) -> pa.Table:
    """Add up the columns of Q1 by the keys."""
    names = [*_Q1_SUMS, "count_order"]
    summed = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in names])
    return summed.rename_columns({f"{name}_sum": name for name in names})


def _top(table: pa.Table) -> pa.Table:
    """Return the ten first rows in Q3's order, with Q3's columns."""
    ordered = table.select(["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]).sort_by(_Q3_ORDER)
    return ordered.slice(0, 10)
