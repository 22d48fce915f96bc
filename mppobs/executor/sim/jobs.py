"""What a simulation keeps of a running job: sizes, splits, what is committed, and what an attempt takes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from mppobs.executor.events import AttemptId, JobEnded, JobSubmitted
from mppobs.executor.sim.fate import Demand
from mppobs.executor.sim.model import JobModel, StageModel

OPEN, COMMITTED, SPLIT, FAILED = range(4)
"""What has become of a shard."""


class StageState:
    """One stage of a job."""

    def __init__(self, model: StageModel) -> None:
        self.model = model
        self.plain = not (model.memory_bytes or model.shuffle_bytes or model.requests)
        """Whether its shards take nothing but time."""
        self.sizes: list[int] = []
        """Bytes of each shard; those that others were split into come last."""
        self.roots: list[int] = []
        """The planned shard behind each."""
        self.status = bytearray(model.shards)
        self.first_starts = array("q", [-1]) * model.shards
        self.tries = array("H", bytes(2 * model.shards))
        """Attempts of each shard that have begun, under any coordinator."""
        self.outputs: dict[int, AttemptId] = {}
        """What is in place, by shard. The first that renames wins."""
        self.offsets: dict[int, int] = {}
        """Of shards that were tried under an earlier coordinator: how often."""

    def open(self, sizes: Sequence[int]) -> None:
        """Take in the sizes of the planned shards."""
        if not self.sizes:
            self.sizes, self.roots = list(sizes), list(range(len(sizes)))

    def split(self, shard: int, sizes: Sequence[int]) -> int:
        """Replace a shard by new ones; return the position of the first of them."""
        first = len(self.sizes)
        self.status[shard] = SPLIT
        self.sizes.extend(sizes)
        self.roots.extend([self.roots[shard]] * len(sizes))
        self.status.extend(bytes(len(sizes)))
        self.first_starts.extend([-1] * len(sizes))
        self.tries.extend([0] * len(sizes))
        return first


class JobState:
    """One job, under however many coordinators."""

    def __init__(self, model: JobModel, number: int, submit_ns: int) -> None:
        """Take in a job that is submitted; `number` names it in draws."""
        self.model = model
        self.number = number
        self.submit_ns = submit_ns
        self.key = f"{model.job_id}"
        """Its name in the scheduler: another one under every coordinator."""
        self.stages = [StageState(stage) for stage in model.stages]
        self.end: JobEnded | None = None
        self.end_ns = 0

    def submission(self, now_ns: int) -> JobSubmitted:
        """Return the event that submits it, or that resumes it under another coordinator."""
        event = self.model.submission(self.key, self.submit_ns)
        if not any(stage.sizes for stage in self.stages):
            return event
        specs = tuple(
            spec._replace(shards=len(stage.status)) for spec, stage in zip(event.stages, self.stages, strict=True)
        )
        return event._replace(stages=specs, committed=self.decided())

    def decided(self) -> Mapping[int, Sequence[int]]:
        """Return, by stage, the shards that need not run."""
        return {
            index: [shard for shard, status in enumerate(stage.status) if status in (COMMITTED, SPLIT)]
            for index, stage in enumerate(self.stages)
        }

    def resume(self, key: str) -> list[AttemptId]:
        """
        Go on under another coordinator; return the outputs in place that nobody has committed yet.

        What was given up is tried again, as a real standby does: it knows outputs, not failures.
        """
        self.key = key
        for stage in self.stages:
            stage.status = bytearray(OPEN if status == FAILED else status for status in stage.status)
            stage.offsets = {shard: tries for shard, tries in enumerate(stage.tries) if tries}
        return [
            attempt
            for stage in self.stages
            for attempt in stage.outputs.values()
            if stage.status[attempt.shard] == OPEN
        ]

    def demand(self, attempt: AttemptId) -> Demand:
        """Return what an attempt takes: time, memory and bytes follow the size of its shard."""
        stage = self.stages[attempt.stage]
        model, shard = stage.model, attempt.shard
        ratio = stage.sizes[shard] / model.input_bytes
        return Demand(
            self.number, attempt.stage, shard, model.name, model.seconds * ratio, model.sigma,
            int(model.memory_bytes * ratio), int(model.shuffle_bytes * ratio), model.requests, stage.roots[shard],
            stage.offsets.get(shard, 0) if stage.offsets else 0, stage.plain,
            self.model.pipeline,
        )  # fmt: skip
