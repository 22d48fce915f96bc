"""
TPC-H Q3, shipping priority: two joins, each over an exchange of both its sides by the join's key, then a top ten.

**In production** this is the join of two fact tables. Every shard of a stage talks to every shard of the one before,
so a lost node or a slow link in the middle holds everyone, and a key that is far more frequent than others makes one
join shard the job's.

**Watch** shuffle bytes against the pipeline's own baseline (M4), network errors (M5), retries (M8), and the idle
fraction of the join stages.
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
from mppobs.workloads.tpch_query import DEADLINE, Query, partitions_of, read_columns, revenue_of, scan, work_of

_DATE: Final = datetime.date(1995, 3, 15)
_SEGMENT: Final = "BUILDING"
_ORDER: Final = [("revenue", "descending"), ("o_orderdate", "ascending"), ("l_orderkey", "ascending")]
_ORDER_COLUMNS: Final = ["o_orderkey", "o_custkey", "o_orderdate", "o_shippriority"]

# The key of the order breaks ties, which TPC-H leaves open, so that there is one right answer.
_SQL: Final = """
select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
from read_parquet('{customer}'), read_parquet('{orders}'), read_parquet('{lineitem}')
where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey
  and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
group by l_orderkey, o_orderdate, o_shippriority
order by revenue desc, o_orderdate, l_orderkey
limit 10
"""


def plan_q3(dataset: Dataset, shards: int) -> Plan:
    """Return the shipping priority query as a plan of three scans, two joins and a top ten."""
    return Plan(
        pipeline=Q3.pipeline,
        owner="shipping",
        deadline=DEADLINE,
        stages=(
            scan("customers", dataset, shards, "customer", scan_customers, "c_custkey"),
            scan("orders", dataset, shards, "orders", scan_orders, "o_custkey"),
            Stage(
                name="join-customers",
                task=path_of(join_customers),
                reads=("orders", "customers"),
                splittable=True,
                partition_by=("o_orderkey",),
                partitions=partitions_of(shards),
            ),
            scan("lineitems", dataset, shards, "lineitem", scan_lineitems, "l_orderkey"),
            Stage(name="join-lineitems", task=path_of(join_lineitems), reads=("join-customers", "lineitems")),
            Stage(name="top", task=path_of(top_orders), reads=("join-lineitems",)),
        ),
    )


def scan_customers(task: TaskInput) -> pa.Table:
    """Read one part of the customers in the market segment that Q3 asks for."""
    customers = read_columns(task, ["c_custkey", "c_mktsegment"])
    with mppobs.current().activity("compute"):
        return customers.filter(pc.equal(customers["c_mktsegment"], _SEGMENT)).select(["c_custkey"])


def scan_orders(task: TaskInput) -> pa.Table:
    """Read one part of the orders placed before Q3's date."""
    orders = read_columns(task, _ORDER_COLUMNS)
    with mppobs.current().activity("compute"):
        return orders.filter(pc.less(orders["o_orderdate"], pa.scalar(_DATE)))


def scan_lineitems(task: TaskInput) -> pa.Table:
    """Read one part of the line items shipped after Q3's date, each with its revenue."""
    lines = read_columns(task, ["l_orderkey", "l_extendedprice", "l_discount", "l_shipdate"])
    with mppobs.current().activity("compute"):
        lines = lines.filter(pc.greater(lines["l_shipdate"], pa.scalar(_DATE)))
        return pa.table({"l_orderkey": lines["l_orderkey"], "revenue": revenue_of(lines)})


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


def _top(table: pa.Table) -> pa.Table:
    """Return the ten first rows in Q3's order, with Q3's columns."""
    ordered = table.select(["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]).sort_by(_ORDER)
    return ordered.slice(0, 10)


Q3: Final = Query("Q3", "shipping priority", "tpch-shipping-priority", _SQL, plan_q3)
Q3_WORK: Final = work_of(Q3)
