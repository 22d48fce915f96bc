"""
TPC-H Q5, local supplier volume: six tables, joined by broadcast where one side is small and by exchange where not.

Nations and suppliers are small, so each shard reads them whole; customers, orders and line items meet by the hash of
their keys.

**In production** this is the star join. It goes wrong when a dimension outgrows its broadcast: every shard then reads
all of it, and memory and network grow with the number of shards and not with the data.

**Watch** bytes read per shard of the stages that read whole outputs (M4), memory headroom (M7), and where in the chain
of stages time is spent: three of them run side by side, and the slowest decides.
"""

from __future__ import annotations

import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

import mppobs
from mppobs.executor.plan import Plan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.data import Dataset
from mppobs.workloads.tpch_query import (
    DEADLINE,
    Query,
    partitions_of,
    read_columns,
    read_table,
    revenue_of,
    scan,
    work_of,
)

_REGION: Final = "ASIA"
_FROM: Final = datetime.date(1994, 1, 1)
_UNTIL: Final = datetime.date(1995, 1, 1)

# The name of the nation breaks ties, which TPC-H leaves open, so that there is one right answer.
_SQL: Final = """
select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
from read_parquet('{customer}'), read_parquet('{orders}'), read_parquet('{lineitem}'), read_parquet('{supplier}'),
     read_parquet('{nation}'), read_parquet('{region}')
where c_custkey = o_custkey and l_orderkey = o_orderkey and l_suppkey = s_suppkey and c_nationkey = s_nationkey
  and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'ASIA'
  and o_orderdate >= date '1994-01-01' and o_orderdate < date '1995-01-01'
group by n_name
order by revenue desc, n_name
"""


def plan_q5(dataset: Dataset, shards: int) -> Plan:
    """Return the query as a plan of five scans, of which two feed broadcasts, two joins and a sum."""
    regions = {"regions": [str(path) for path in dataset.files("region")]}
    return Plan(
        pipeline=Q5.pipeline,
        owner="suppliers",
        deadline=DEADLINE,
        stages=(
            scan("nations", dataset, shards, "nation", scan_nations, "", arguments=regions),
            scan("suppliers", dataset, shards, "supplier", scan_suppliers, "", reads=("nations",)),
            scan("customers", dataset, shards, "customer", scan_customers, "c_custkey", reads=("nations",)),
            scan("orders", dataset, shards, "orders", scan_orders, "o_custkey"),
            Stage(
                name="join-customers",
                task=path_of(join_customers),
                reads=("orders", "customers"),
                partition_by=("o_orderkey",),
                partitions=partitions_of(shards),
                splittable=True,
            ),
            scan("lineitems", dataset, shards, "lineitem", scan_lineitems, "l_orderkey", reads=("suppliers",)),
            # Parts of a shard share the first that is read, here the large side, and their sums are added up later.
            Stage("join-lineitems", path_of(join_lineitems), reads=("lineitems", "join-customers"), splittable=True),
            Stage(name="revenue", task=path_of(sum_revenue), reads=("join-lineitems", "nations")),
        ),
    )


def scan_nations(task: TaskInput) -> pa.Table:
    """Read the nations of the region that Q5 asks for."""
    nations = read_columns(task, ["n_nationkey", "n_name", "n_regionkey"])
    regions = read_table(task.arguments["regions"], ["r_regionkey", "r_name"])
    wanted = regions.filter(pc.equal(regions["r_name"], _REGION))
    return _within(nations, "n_regionkey", wanted["r_regionkey"]).select(["n_nationkey", "n_name"])


def scan_suppliers(task: TaskInput) -> pa.Table:
    """Read one part of the suppliers, those in the region; few enough for every shard of line items to read."""
    return _within(read_columns(task, ["s_suppkey", "s_nationkey"]), "s_nationkey", _nations(task))


def scan_customers(task: TaskInput) -> pa.Table:
    """Read one part of the customers, those in the region."""
    return _within(read_columns(task, ["c_custkey", "c_nationkey"]), "c_nationkey", _nations(task))


def scan_orders(task: TaskInput) -> pa.Table:
    """Read one part of the orders, those of the year that Q5 asks for."""
    orders = read_columns(task, ["o_orderkey", "o_custkey", "o_orderdate"])
    with mppobs.current().activity("compute"):
        date = orders["o_orderdate"]
        within = pc.and_(pc.greater_equal(date, pa.scalar(_FROM)), pc.less(date, pa.scalar(_UNTIL)))
        return orders.filter(within).select(["o_orderkey", "o_custkey"])


def scan_lineitems(task: TaskInput) -> pa.Table:
    """Read one part of the line items, those that the region's suppliers sent, with their nation and revenue."""
    lines = read_columns(task, ["l_orderkey", "l_suppkey", "l_extendedprice", "l_discount"])
    suppliers = task.read("suppliers")
    with mppobs.current().activity("compute"):
        lines = lines.join(suppliers, "l_suppkey", "s_suppkey", join_type="inner", use_threads=False)
        return pa.table({
            "l_orderkey": lines["l_orderkey"], "s_nationkey": lines["s_nationkey"], "revenue": revenue_of(lines),
        })  # fmt: skip


def join_customers(task: TaskInput) -> pa.Table:
    """Return this partition's orders with the nation of who placed them."""
    customers, orders = task.read("customers"), task.read("orders")
    with mppobs.current().activity("compute"):
        joined = orders.join(customers, "o_custkey", "c_custkey", join_type="inner", use_threads=False)
        return joined.select(["o_orderkey", "c_nationkey"])


def join_lineitems(task: TaskInput) -> pa.Table:
    """Return this partition's revenue by nation, where customer and supplier are of the same one."""
    orders, lines = task.read("join-customers"), task.read("lineitems")
    with mppobs.current().activity("compute"):
        left, right = ["l_orderkey", "s_nationkey"], ["o_orderkey", "c_nationkey"]
        joined = lines.join(orders, left, right, join_type="inner", use_threads=False)
        return _by_nation(joined)


def sum_revenue(task: TaskInput) -> pa.Table:
    """Return the answer of Q5: the revenue of each nation, the highest first."""
    total = _by_nation(task.read("join-lineitems"))
    named = total.join(task.read("nations"), "s_nationkey", "n_nationkey", join_type="inner", use_threads=False)
    return named.select(["n_name", "revenue"]).sort_by([("revenue", "descending"), ("n_name", "ascending")])


Q5: Final = Query("Q5", "local supplier volume", "tpch-local-suppliers", _SQL, plan_q5)
Q5_WORK: Final = work_of(Q5)


def _nations(task: TaskInput) -> pa.ChunkedArray:
    return task.read("nations")["n_nationkey"]


def _within(table: pa.Table, column: str, keys: pa.ChunkedArray) -> pa.Table:
    """Return the rows whose key is among these."""
    with mppobs.current().activity("compute"):
        return table.filter(pc.is_in(table[column], value_set=keys.combine_chunks()))


def _by_nation(table: pa.Table) -> pa.Table:
    """Add up revenue by nation."""
    summed = table.group_by("s_nationkey", use_threads=False).aggregate([("revenue", "sum")])
    return pa.table({"s_nationkey": summed["s_nationkey"], "revenue": summed["revenue_sum"]})
