"""
Features for the training of an RNN, made next to the data: what a customer ordered, in the order of time.

Line items are added up by order, orders cleaned and joined with that, and cut into one sequence for each customer with
enough of them. All sums are of whole numbers, so that means and deviations do not depend on the order of the rows, and
what comes out is the same to the last bit however the work was cut.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

import mppobs
from mppobs.executor.plan import Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import require
from mppobs.workloads.data import Dataset
from mppobs.workloads.tpch_query import partitions_of, read_columns, scan

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

STEPS: Final = 6
"""Orders in a sequence; the price of the one after them is what is to be foretold."""
FEATURES: Final = 4
"""Price in cents, number of lines, sum of discounts in percent, days since the order before."""
_PRICE: Final = 0

_SQL: Final = """
with lines as (
    select l_orderkey, count(*) as lines, cast(sum(l_discount) * 100 as bigint) as discount
    from read_parquet('{lineitem}') group by l_orderkey
), placed as (
    select o_custkey, cast(o_totalprice * 100 as bigint) as price, lines, discount,
           coalesce(o_orderdate - lag(o_orderdate) over known, 0) as gap,
           row_number() over (partition by o_custkey order by o_orderdate desc, o_orderkey desc) as back,
           count(*) over (partition by o_custkey) as orders
    from read_parquet('{orders}') join lines on o_orderkey = l_orderkey
    where o_totalprice > 0
    window known as (partition by o_custkey order by o_orderdate, o_orderkey)
)
select o_custkey, price, lines, discount, gap from placed
where orders > 6 and back <= 7
order by o_custkey, back desc
"""


def prepare_stages(dataset: Dataset, shards: int) -> tuple[Stage, ...]:
    """Return the stages that make the features; the last, `features`, has one shard with all of them."""
    combine = path_of(combine_lines)
    return (
        scan("lines", dataset, shards, "lineitem", scan_lines, "l_orderkey", combiner=combine),
        scan("orders", dataset, shards, "orders", scan_orders, "o_orderkey"),
        Stage(
            name="join-lines",
            task=path_of(join_lines),
            reads=("orders", "lines"),
            splittable=True,  # parts share the orders, and each reads all lines
            partition_by=("o_custkey",),
            partitions=partitions_of(shards),
        ),
        Stage(name="sequences", task=path_of(make_sequences), reads=("join-lines",)),
        Stage(name="features", task=path_of(normalise), reads=("sequences",)),
    )


def scan_lines(task: TaskInput) -> pa.Table:
    """Read what one part of the line items says of numbers and discounts; the combiner adds it up by order."""
    lines = read_columns(task, ["l_orderkey", "l_discount"])
    return pa.table({
        "l_orderkey": lines["l_orderkey"],
        "lines": pa.repeat(pa.scalar(1, pa.int64()), lines.num_rows),
        "discount": _hundredths(lines["l_discount"]),
    })  # fmt: skip


def combine_lines(table: pa.Table) -> pa.Table:
    """Add up lines by order: the combiner of `lines`."""
    summed = table.group_by("l_orderkey", use_threads=False).aggregate([("lines", "sum"), ("discount", "sum")])
    return pa.table({
        "l_orderkey": summed["l_orderkey"], "lines": summed["lines_sum"], "discount": summed["discount_sum"],
    })  # fmt: skip


def scan_orders(task: TaskInput) -> pa.Table:
    """Read one part of the orders, without those whose price makes no sense."""
    orders = read_columns(task, ["o_orderkey", "o_custkey", "o_orderdate", "o_totalprice"])
    with mppobs.current().activity("clean"):
        price = _hundredths(orders["o_totalprice"])
        day = orders["o_orderdate"].cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        table = pa.table({
            "o_orderkey": orders["o_orderkey"], "o_custkey": orders["o_custkey"], "day": day, "price": price,
        })  # fmt: skip
        return table.filter(pc.greater(price, 0))


def join_lines(task: TaskInput) -> pa.Table:
    """Return this partition's orders with what their lines add up to."""
    lines, orders = combine_lines(task.read("lines")), task.read("orders")
    with mppobs.current().activity("join"):
        return orders.join(lines, "o_orderkey", "l_orderkey", join_type="inner", use_threads=False)


def make_sequences(task: TaskInput) -> pa.Table:
    """Return the last orders of this partition's customers, of those who have enough: whole numbers, one row each."""
    orders = task.read("join-lines")
    with mppobs.current().activity("sequence"):
        keys = [("o_custkey", "ascending"), ("day", "ascending"), ("o_orderkey", "ascending")]
        ordered = orders.sort_by(keys)
        customer, day = (_array(ordered[name]) for name in ("o_custkey", "day"))
        same = np.zeros(len(customer), bool)
        same[1:] = customer[1:] == customer[:-1]
        gap = np.where(same, np.diff(day, prepend=0), 0)
        rows = np.stack([*(_array(ordered[name]) for name in ("price", "lines", "discount")), gap], axis=1)
        last = np.flatnonzero(~np.append(same[1:], False)[: len(same)])
        count = np.diff(last, prepend=-1)
        kept = last[count > STEPS]
        taken = rows[kept[:, None] + np.arange(-STEPS, 1)]
    return pa.table({
        "o_custkey": pa.array(customer[kept]),
        "values": pa.FixedSizeListArray.from_arrays(pa.array(taken.reshape(-1)), (STEPS + 1) * FEATURES),
    })  # fmt: skip


def normalise(task: TaskInput) -> pa.Table:
    """Return all sequences in the order of their customers, centred and scaled, and checked for what is no number."""
    table = task.read("sequences").sort_by("o_custkey").combine_chunks()
    with mppobs.current().activity("normalise"):
        values = _array(table["values"].combine_chunks().flatten()).reshape(-1, STEPS + 1, FEATURES)
        inputs, targets = standardised(values)
    require(bool(len(inputs)), "no customer has enough orders: take a larger scale")
    require(bool(np.isfinite(inputs).all() and np.isfinite(targets).all()), "a feature is no number")
    return pa.table({
        "inputs": pa.FixedSizeListArray.from_arrays(pa.array(inputs.reshape(-1)), STEPS * FEATURES),
        "target": pa.array(targets),
    })  # fmt: skip


def arrays_of(features: pa.Table) -> tuple[Floats, Floats]:
    """Return inputs (sequence, step, feature) and targets from what `features` put out."""
    inputs = np.asarray(features["inputs"].combine_chunks().flatten().to_numpy(), np.float64)
    return inputs.reshape(-1, STEPS, FEATURES), np.asarray(features["target"].to_numpy(), np.float64)


def standardised(values: Whole) -> tuple[Floats, Floats]:
    """
    Return inputs and targets of whole-number sequences, each feature with mean 0 and deviation 1.

    Raises `OverflowError` where a sum of squares would not fit.
    """
    flat = values.reshape(-1, FEATURES)
    # Python's integers are exact and have no limit: prices in cents, squared, would overflow 64 bits at scale 100.
    totals = [int(column.sum()) for column in flat.T]
    squares = [sum(int(part @ part) for part in np.array_split(column, 64)) for column in flat.T]
    number = max(len(flat), 1)
    mean = np.array([total / number for total in totals])
    variance = [(square * number - total * total) / number**2 for total, square in zip(totals, squares, strict=True)]
    deviation = np.sqrt(np.maximum(variance, 1e-12))
    scaled = (values - mean) / deviation
    return np.ascontiguousarray(scaled[:, :-1]), np.ascontiguousarray(scaled[:, -1, _PRICE])


def expected_features(dataset: Dataset) -> tuple[Floats, Floats]:
    """Return inputs and targets as one query of DuckDB and plain arithmetic give them."""
    import duckdb  # an extra, and slow to load: only checks need it

    sql = _SQL.format(orders=dataset.glob("orders"), lineitem=dataset.glob("lineitem"))
    with duckdb.connect() as connection:
        rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    values = np.array([row[1:] for row in rows], np.int64).reshape(-1, STEPS + 1, FEATURES)
    return standardised(values)


def _hundredths(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals with two places as whole numbers of hundredths."""
    return pc.multiply(column.cast(pa.decimal128(15, 2)), pa.scalar(100, pa.int64())).cast(pa.int64())


def _array(column: pa.ChunkedArray | pa.Array) -> Whole:
    return np.asarray(column.to_numpy(), np.int64)
