"""
TPC-H Q18, large volume customer: a group-by with as many groups as there are orders, of which HAVING keeps a handful.

`quantities` adds up line items by order within each part, `large-orders` adds up across parts, drops nearly all, and
joins what is left to its orders, `join-customers` adds the names.

**In production** this is the group-by with a key of high cardinality. The combiner finds little to combine, so nearly
everything is exchanged and every reducer holds its share of all groups in memory, while the stages after it run almost
empty: workers wait on the plan's shape and no retry helps.

**Watch** memory headroom of `large-orders` (M7), shuffle bytes (M4), and shard times of the stages after it, which
are all overhead.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

import mppobs
from mppobs.executor.plan import Plan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.data import Dataset
from mppobs.workloads.tpch_query import DEADLINE, Query, partitions_of, read_columns, scan, widen, work_of

_MORE_THAN: Final = pa.scalar(Decimal("300.00"), pa.decimal128(38, 2))
_FIRST: Final = 100
_ORDER: Final = [("o_totalprice", "descending"), ("o_orderdate", "ascending"), ("o_orderkey", "ascending")]
_COLUMNS: Final = ["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "quantity"]

# The key of the order breaks ties, which TPC-H leaves open, so that there is one right answer.
_SQL: Final = """
select c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) as quantity
from read_parquet('{customer}'), read_parquet('{orders}'), read_parquet('{lineitem}')
where o_orderkey in (select l_orderkey from read_parquet('{lineitem}') group by l_orderkey having sum(l_quantity) > 300)
  and c_custkey = o_custkey and o_orderkey = l_orderkey
group by c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice
order by o_totalprice desc, o_orderdate, o_orderkey
limit 100
"""


def plan_q18(dataset: Dataset, shards: int) -> Plan:
    """Return the query as a plan of three scans, a group-by with a join, another join and the first hundred."""
    combine = path_of(combine_quantities)
    return Plan(
        pipeline=Q18.pipeline,
        owner="sales",
        deadline=DEADLINE,
        stages=(
            scan("quantities", dataset, shards, "lineitem", scan_quantities, "l_orderkey", combiner=combine),
            scan("orders", dataset, shards, "orders", scan_orders, "o_orderkey"),
            Stage(
                name="large-orders",
                task=path_of(find_large_orders),
                reads=("quantities", "orders"),
                partition_by=("o_custkey",),
                partitions=partitions_of(shards),
            ),
            scan("customers", dataset, shards, "customer", scan_customers, "c_custkey"),
            Stage(name="join-customers", task=path_of(join_customers), reads=("large-orders", "customers")),
            Stage(name="top", task=path_of(top_customers), reads=("join-customers",)),
        ),
    )


def scan_quantities(task: TaskInput) -> pa.Table:
    """Read what one part of the line items says of quantities; the combiner adds them up by order."""
    lines = read_columns(task, ["l_orderkey", "l_quantity"])
    return pa.table({"l_orderkey": lines["l_orderkey"], "quantity": widen(lines["l_quantity"])})


def combine_quantities(table: pa.Table) -> pa.Table:
    """Add up quantities by order: the combiner of `quantities`."""
    with mppobs.current().activity("compute"):
        summed = table.group_by("l_orderkey", use_threads=False).aggregate([("quantity", "sum")])
        return pa.table({"l_orderkey": summed["l_orderkey"], "quantity": summed["quantity_sum"]})


def scan_orders(task: TaskInput) -> pa.Table:
    """Read one part of the orders."""
    return read_columns(task, ["o_orderkey", "o_custkey", "o_orderdate", "o_totalprice"])


def scan_customers(task: TaskInput) -> pa.Table:
    """Read one part of the customers and their names."""
    return read_columns(task, ["c_custkey", "c_name"])


def find_large_orders(task: TaskInput) -> pa.Table:
    """Return this partition's orders of more than 300 pieces."""
    total = combine_quantities(task.read("quantities"))
    orders = task.read("orders")
    with mppobs.current().activity("compute"):
        large = total.filter(pc.greater(total["quantity"], _MORE_THAN))
        return orders.join(large, "o_orderkey", "l_orderkey", join_type="inner", use_threads=False)


def join_customers(task: TaskInput) -> pa.Table:
    """Return this partition's large orders with the name of who placed them, the first hundred."""
    orders, customers = task.read("large-orders"), task.read("customers")
    with mppobs.current().activity("compute"):
        joined = orders.join(customers, "o_custkey", "c_custkey", join_type="inner", use_threads=False)
        return _top(joined.rename_columns({"o_custkey": "c_custkey"}))


def top_customers(task: TaskInput) -> pa.Table:
    """Return the answer of Q18: a hundred orders at the most, the dearest first."""
    return _top(task.read("join-customers"))


Q18: Final = Query("Q18", "large volume customer", "tpch-large-orders", _SQL, plan_q18)
Q18_WORK: Final = work_of(Q18)


def _top(table: pa.Table) -> pa.Table:
    """Return the first rows in Q18's order, with Q18's columns."""
    return table.select(_COLUMNS).sort_by(_ORDER).slice(0, _FIRST)
