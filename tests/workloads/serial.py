"""A second, naive executor: one shard after the other in this process, exchanges in memory, no faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from mppobs.executor.plan import Plan, Stage, resolve
from mppobs.executor.task import TaskInput
from mppobs.model import Shard

Output = dict[str, list[pa.Table]]
"""By stage: what its shards put out, in order."""
Child = tuple[Shard, Mapping[str, Any], slice]
"""What a shard is called, what it is told, and which of the shards before it it reads."""


def run_serially(plan: Plan, parts: int = 1) -> pa.Table:
    """Return a plan's answer. Every shard that can be split is, into so many parts."""
    outputs: Output = {}
    for stage in plan.stages:
        run, combine = resolve(stage.task), resolve(stage.combiner) if stage.combiner else None
        tables = [
            run(_input(plan, stage, index, child, outputs))
            for index in range(plan.shard_count(stage.name))
            for child in _children(stage, index, parts)
        ]
        outputs[stage.name] = [combine(table) for table in tables] if combine else tables
    return pa.concat_tables(outputs[plan.stages[-1].name])


def _children(stage: Stage, index: int, parts: int) -> list[Child]:
    """Return the shard at a position, or what it is split into."""
    everything = slice(None)
    if stage.shards:
        name, arguments = stage.shards[index].shard, {**stage.arguments, **stage.shards[index].arguments}
        if parts == 1 or not stage.splittable:
            return [(name, arguments, everything)]
        found = resolve(stage.split)(arguments, parts)
        return [(f"{name}.{part}", each, everything) for part, each in enumerate(found)]
    if parts == 1 or not stage.splittable:
        return [(index, stage.arguments, everything)]
    return [(f"{index}.{part}", stage.arguments, slice(part, None, parts)) for part in range(parts)]


def _input(plan: Plan, stage: Stage, index: int, child: Child, outputs: Output) -> TaskInput:
    name, arguments, sources = child

    def read(source_name: str) -> Iterator[pa.Table]:
        source = plan.stage(source_name)
        # Parts of a shard share what is read first among them, and read all of the others.
        for table in outputs[source_name][sources if source_name == stage.reads[0] else slice(None)]:
            yield table if stage.shards else _partition(table, source, index)

    return TaskInput(job_id="serial", stage=stage.name, shard=name, attempt=0, arguments=arguments, _open=read)


def _partition(table: pa.Table, source: Stage, index: int) -> pa.Table:
    """Return the rows whose key belongs to a partition: any function of the key will do, as long as it is one."""
    if source.partitions == 1:
        return table
    keys = table.select(list(source.partition_by)).to_pylist()
    return table.filter(pa.array([hash(tuple(key.values())) % source.partitions == index for key in keys], pa.bool_()))
