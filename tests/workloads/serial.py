"""A second, naive executor: one shard after the other in this process, exchanges in memory, no faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mppobs.executor.plan import Plan, Stage, resolve
from mppobs.executor.task import TaskInput

Output = dict[str, list[pa.Table]]
"""By stage: what its shards put out, in order."""


def run_serially(plan: Plan) -> pa.Table:
    """Return a plan's answer."""
    outputs: Output = {}
    for stage in plan.stages:
        run, combine = resolve(stage.task), resolve(stage.combiner) if stage.combiner else None
        tables = [run(_input(plan, stage, index, outputs)) for index in range(plan.shard_count(stage.name))]
        outputs[stage.name] = [combine(table) for table in tables] if combine else tables
    return pa.concat_tables(outputs[plan.stages[-1].name])


def _input(plan: Plan, stage: Stage, index: int, outputs: Output) -> TaskInput:
    arguments: dict[str, Any] = dict(stage.arguments)
    shard = stage.shards[index].shard if stage.shards else index
    if stage.shards:
        arguments |= stage.shards[index].arguments

    def parts(name: str) -> Iterator[pa.Table]:
        source = plan.stage(name)
        for table in outputs[name]:
            yield table if stage.shards else _partition(table, source, index)

    return TaskInput(job_id="serial", stage=stage.name, shard=shard, attempt=0, arguments=arguments, _open=parts)


def _partition(table: pa.Table, source: Stage, index: int) -> pa.Table:
    """Return the rows whose key belongs to a partition: any function of the key will do, as long as it is one."""
    if source.partitions == 1:
        return table
    keys = table.select(list(source.partition_by)).to_pylist()
    return table.filter(pa.array([hash(tuple(key.values())) % source.partitions == index for key in keys], pa.bool_()))
