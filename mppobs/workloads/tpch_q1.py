"""
TPC-H Q1, pricing summary: a scan that shrinks at once, into four groups.

`map` reads and filters line items and combines them within the shard, `combine` merges partial sums side by side,
`reduce` puts the groups in order.

**In production** this is the nightly roll-up. It is as late as its slowest scan: one slow disk or one large file holds
everything, and without a combiner it would send every row to four unlucky reducers.

**Watch** the tail of `map` (M3), stragglers and their cause, and the shuffle ratio (M4), which leaps when the combiner
is lost.
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
from mppobs.workloads.tpch_query import DEADLINE, ONE, PRICE, RATE, Query, read_columns, scan, widen, work_of

_UNTIL: Final = datetime.date(1998, 9, 2)
_SALTS: Final = 96
"""Q1 has only four groups: this many numbered slices of each let more than four shards combine them."""

_SQL: Final = """
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


_COLUMNS: Final = [
    "l_orderkey", "l_returnflag", "l_linestatus", "l_quantity", "l_extendedprice", "l_discount", "l_tax", "l_shipdate",
]  # fmt: skip
_SUMS: Final = ("qty", "base_price", "disc_price", "charge", "discount")


def plan_q1(dataset: Dataset, shards: int) -> Plan:
    """Return the pricing summary as a plan: so many shards to scan, half as many to combine."""
    return Plan(
        pipeline=Q1.pipeline,
        owner="pricing",
        deadline=DEADLINE,
        stages=(
            scan("map", dataset, shards, "lineitem", map_prices, "salt", combiner=path_of(combine_prices)),
            Stage(name="combine", task=path_of(merge_prices), reads=("map",), splittable=True),
            Stage(name="reduce", task=path_of(summarise_prices), reads=("combine",)),
        ),
    )


def map_prices(task: TaskInput) -> pa.Table:
    """Read one part of the line items that Q1 asks for, one row each; the combiner shrinks them."""
    lines = read_columns(task, _COLUMNS)
    with mppobs.current().activity("compute"):
        lines = lines.filter(pc.less_equal(lines["l_shipdate"], pa.scalar(_UNTIL)))
        price, discount = lines["l_extendedprice"].cast(PRICE), lines["l_discount"].cast(RATE)
        discounted = pc.multiply(price, pc.subtract(ONE, discount))
        charge = pc.multiply(discounted, pc.add(ONE, lines["l_tax"].cast(RATE)))
        # pyarrow has no remainder: key − key ÷ n × n, in integers.
        keys = lines["l_orderkey"]
        salt = pc.subtract(keys, pc.multiply(pc.divide(keys, _SALTS), _SALTS))
        return pa.table({
            "l_returnflag": lines["l_returnflag"], "l_linestatus": lines["l_linestatus"], "salt": salt,
            "qty": widen(lines["l_quantity"]), "base_price": widen(price), "disc_price": widen(discounted),
            "charge": widen(charge), "discount": widen(discount),
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
    sums = {f"sum_{name}": total[name] for name in _SUMS if name != "discount"}
    return pa.table({**{key: total[key] for key in keys}, **sums, **averages, "count_order": total["count_order"]})


def _sum(table: pa.Table, keys: list[str]) -> pa.Table:
    """Add up the columns of Q1 by the keys."""
    names = [*_SUMS, "count_order"]
    summed = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in names])
    return summed.rename_columns({f"{name}_sum": name for name in names})


Q1: Final = Query("Q1", "pricing summary", "tpch-pricing-summary", _SQL, plan_q1)
Q1_WORK: Final = work_of(Q1)
