"""Plans that the executor's tests run, and their right answers computed the plain way."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mppobs.executor import JobResult, Limits, Plan, ShardPlan, Stage

QUICK = Limits(backoff=0.01)


def group_by(shards: int = 8, partitions: int = 4, keys: int = 50, combiner: str = "", **values: Any) -> Plan:
    """Return a plan that adds up 1000 numbers per shard by key, and the answer in one row for each key."""
    parts = tuple(
        ShardPlan(f"part-{n}", {"first": n * 1000, "count": 1000, "keys": keys}, input_bytes=n) for n in range(shards)
    )
    arguments = {"pause": values.pop("pause", 0.0)}
    numbers = Stage(
        "numbers",
        "tests.executor.tasks:numbers",
        parts,
        partition_by=("k",),
        partitions=partitions,
        combiner=combiner,
        arguments=arguments,
        limits=values.get("limits", QUICK),
    )
    sums = Stage("sums", "tests.executor.tasks:sums", reads=("numbers",), arguments=arguments, limits=numbers.limits)
    return Plan("group-by", (numbers, sums), **{k: v for k, v in values.items() if k != "limits"})


def expected(shards: int = 8, keys: int = 50) -> dict[int, int]:
    """Return what `group_by` should answer, computed the plain way."""
    totals: Counter[int] = Counter()
    for value in range(shards * 1000):
        totals[value * 7919 % keys] += value
    return dict(totals)


def as_dict(result: JobResult) -> dict[int, int]:
    """Return an answer as key and sum, and fail where a key is there twice."""
    table = result.check().answer
    answer = dict(zip(table["k"].to_pylist(), table["v"].to_pylist(), strict=True))
    assert len(answer) == table.num_rows
    return answer
