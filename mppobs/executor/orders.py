"""What workers are told: of each stage once, and of each attempt what only it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mppobs.executor.attempt import AttemptOrder, Input, StageOrder
from mppobs.executor.faults import ArmedFault
from mppobs.executor.plan import Plan
from mppobs.executor.stages import StageRun


class Orders:
    """The orders of one job. Those of a stage are made when they are first needed: what it reads is complete then."""

    def __init__(
        self,
        plan: Plan,
        stages: Sequence[StageRun],
        *,
        job_id: str,
        context: Mapping[str, str],
        root: str,
        fence: int,
        faults: Sequence[ArmedFault],
    ) -> None:
        """`context` is what a worker attaches; for the others see `mppobs.executor.coordinator.JobRun`."""
        self._plan = plan
        self._stages = stages
        self._job_id = job_id
        self._context = context
        self._root = root
        self._fence = fence
        self._faults = tuple(faults)
        self._made: dict[int, StageOrder] = {}

    def stage(self, index: int) -> StageOrder:
        """Return what all attempts of a stage are told."""
        return self._made.get(index) or self._make(index)

    def attempt(
        self, index: int, shard: int, number: int, assigned_ns: int, *, speculative: bool
    ) -> tuple[StageOrder, AttemptOrder]:
        """Return what a worker needs for an attempt."""
        stage, run = self.stage(index), self._stages[index]
        part = run.parts.get(shard)
        if part is None and run.stage.shards is None:
            return stage, AttemptOrder(shard, shard, number, None, assigned_ns, speculative=speculative)
        name, arguments = run.name(shard), run.arguments(shard)
        order = AttemptOrder(shard, name, number, arguments, assigned_ns, speculative=speculative)
        return stage, order if part is None else order._replace(partition=part.partition, portion=part.portion)

    def _make(self, index: int) -> StageOrder:
        plan, run = self._plan, self._stages[index]
        stage = run.stage
        order = self._made[index] = StageOrder(
            job_id=self._job_id,
            root=self._root,
            index=index,
            name=stage.name,
            task=stage.task,
            combiner=stage.combiner,
            arguments=dict(stage.arguments),
            inputs={name: self._input(run, name) for name in stage.reads},
            exchanged=run.read_by_later,
            partition_by=stage.partition_by,
            partitions=stage.partitions,
            compression=plan.compression,
            context=self._context,
            faults=self._faults,
            fence=self._fence,
        )
        return order

    def _input(self, run: StageRun, name: str) -> Input:
        """Return how a stage reads an earlier one."""
        source, stage = self._stages[self._plan.index(name)], run.stage
        divided = not stage.split and name == stage.reads[0]
        return Input(source.index, source.positions(), whole=stage.shards is not None, divided=divided)
