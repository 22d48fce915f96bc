"""The TPC-H plans give DuckDB's answers, whatever the cut of the data, and the check would notice if they did not."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mppobs.executor.task import TaskInput
from mppobs.model import RunKind
from mppobs.workloads import tpch_q5, tpch_q18
from mppobs.workloads.base import WrongAnswerError
from mppobs.workloads.data import Dataset, make_dataset, parts_of
from mppobs.workloads.registry import workload
from mppobs.workloads.tpch import ALL_QUERIES, Q1, Q3
from mppobs.workloads.tpch_query import Query, check
from mppobs.workloads.trouble import Trouble, strike, with_trouble
from tests.workloads.conftest import SCALE
from tests.workloads.serial import run_serially


@pytest.fixture
def dataset(tables: Path) -> Dataset:
    """Return small data in few parts."""
    return make_dataset(tables, SCALE, parts_of(SCALE))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return tiny data in many parts."""
    return make_dataset(tmp_path_factory.mktemp("tiny"), 0.001, 24)


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.key)
def test_answers_are_those_of_duckdb(query: Query, dataset: Dataset) -> None:
    """Run one shard after the other, each plan gives DuckDB's answer: every row, every digit, in order."""
    verdict = check(run_serially(query.plan(dataset)), query.expected(dataset))

    assert verdict.difference == ""
    assert verdict.rows == {"Q1": 4, "Q3": 10, "Q5": 5, "Q18": 2}[query.key]


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.key)
def test_tiny_data_in_many_parts_works_too(query: Query, tiny: Dataset) -> None:
    """Shards and partitions without a single row change nothing."""
    assert check(run_serially(query.plan(tiny)), query.expected(tiny)).difference == ""


def test_largest_stages_have_a_shard_for_each_part(dataset: Dataset) -> None:
    """Scans have one shard per file and exchanges feed half as many; both queries end in one."""
    q1, q3 = Q1.plan(dataset), Q3.plan(dataset)

    assert [q1.shard_count(stage.name) for stage in q1.stages] == [8, 4, 1]
    assert [q3.shard_count(stage.name) for stage in q3.stages] == [8, 8, 4, 8, 4, 1]


def test_dates_and_amounts_at_the_bounds(tmp_path: Path) -> None:
    """Q5's year begins with its first day and ends before the next year's; Q18 wants more than 300 pieces."""
    days = [datetime.date(*day) for day in ((1993, 12, 31), (1994, 1, 1), (1994, 12, 31), (1995, 1, 1))]
    keys = [1, 2, 3, 4]
    path = tmp_path / "orders.parquet"
    parquet.write_table(pa.table({"o_orderkey": keys, "o_custkey": keys, "o_orderdate": days}), path)
    orders = tpch_q5.scan_orders(TaskInput("j", "orders", 0, 0, {"paths": [str(path)]}, lambda _: iter(())))
    quantities = pa.table({
        "l_orderkey": keys, "quantity": pa.array([Decimal(text) for text in ("300", "300.01", "299", "301")],
        pa.decimal128(38, 2)),
    })  # fmt: skip
    sources = {"quantities": quantities, "orders": pa.table({"o_orderkey": keys})}
    large = tpch_q18.find_large_orders(TaskInput("j", "large", 0, 0, {}, lambda name: iter([sources[name]])))

    assert orders["o_orderkey"].to_pylist() == [2, 3]
    assert sorted(large["o_orderkey"].to_pylist()) == [2, 4]


def test_the_check_sees_a_wrong_cent_and_a_wrong_order() -> None:
    """One cent, one missing row or two swapped rows are differences, and the message says where."""
    right = [(1, Decimal("10.01")), (2, Decimal("10.00"))]
    good = pa.table({"key": [1, 2], "sum": [Decimal("10.01"), Decimal("10.00")]})

    assert check(good, right).ok
    assert check(good, [right[0], (2, Decimal("10.01"))]).difference == "row 1, sum: 10.00, expected 10.01"
    assert not check(good, right[::-1]).ok
    assert check(good, right[:1]).difference == "2 rows, expected 1"


def test_trouble_reaches_the_shards_that_it_is_for(dataset: Dataset) -> None:
    """A fault is among the arguments of its shard alone; the plan is otherwise the same, but marked as a drill."""
    plan = Q3.plan(dataset)
    troubled = with_trouble(plan, "lineitems", {2: Trouble.RAISE})
    faults = {part.shard: part.arguments.get("trouble") for part in troubled.stage("lineitems").shards or ()}

    assert faults == {0: None, 1: None, 2: "raise", 3: None, 4: None, 5: None, 6: None, 7: None}
    assert [stage.name for stage in troubled.stages] == [stage.name for stage in plan.stages]
    assert troubled.stage("orders") == plan.stage("orders")
    assert troubled.run_kind is RunKind.DRILL is not plan.run_kind


def test_trouble_strikes_once() -> None:
    """A first attempt raises what it was told to, the second goes through, and a shard without a fault always does."""

    def attempt(number: int, **arguments: str) -> TaskInput:
        return TaskInput("j", "s", 1, number, arguments, lambda stage: iter(()))

    with pytest.raises(OSError, match="s/1: read failed, on purpose"):
        strike(attempt(0, trouble="raise"))
    strike(attempt(1, trouble="raise"))
    strike(attempt(0))


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.key)
@pytest.mark.parametrize(("shards", "widest"), [(3, 3), (1000, 8)])
def test_as_workloads_they_take_any_cut(query: Query, shards: int, widest: int, tables: Path) -> None:
    """Fewer shards than files read several files each, more are as many as there are files; the answer stays right."""
    found = workload(f"tpch-{query.key.lower()}")
    plan = found.plan(tables, SCALE, shards)
    found.check(tables, SCALE, run_serially(plan))

    assert max(plan.shard_count(stage.name) for stage in plan.stages) == widest


def test_a_wrong_answer_is_told(tables: Path) -> None:
    """The check of a workload raises what says which query and what is wrong in its answer."""
    query = workload("tpch-q1")
    answer = run_serially(query.plan(tables, SCALE, 2))
    with pytest.raises(WrongAnswerError, match=r"TPC-H Q1: row 0, l_returnflag: .*, expected"):
        query.check(tables, SCALE, pa.concat_tables([answer.slice(1), answer.slice(0, 1)]))
