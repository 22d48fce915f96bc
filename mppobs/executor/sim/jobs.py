"""What a simulation keeps of a running job: sizes, splits, what is committed, and what an attempt takes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from mppobs.executor.events import AttemptId, Earlier, JobEnded, JobSubmitted, Setbacks
from mppobs.executor.scheduler import Scheduler
from mppobs.executor.sim.fate import Demand
from mppobs.executor.sim.model import JobModel, StageModel
from mppobs.model import JobOutcome, Reason

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
        self.setbacks: dict[int, Setbacks] = {}
        """What counted against the limits of shards when a coordinator died."""

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

    def given_up(self) -> list[int]:
        """Return the shards that were given up."""
        return [shard for shard, status in enumerate(self.status) if status == FAILED]

    def is_wanted(self, shard: int) -> bool:
        """Return whether a shard is still to be done, and no part of one that was given up while it was being split."""
        whole = self.roots[shard] if self.roots else shard
        return self.status[shard] == OPEN and self.status[whole] != FAILED


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
        self.outcome, self.reason = JobOutcome.SUCCESS, Reason.NONE
        """What went wrong first."""
        self.end: JobEnded | None = None
        self.end_ns = 0
        self._retries: int | None = None
        """What was left of its budget when a coordinator died."""

    def submission(self, now_ns: int) -> JobSubmitted:
        """Return the event that submits it, or that resumes it under another coordinator."""
        event = self.model.submission(self.key, self.submit_ns)
        if not any(stage.sizes for stage in self.stages):
            return event
        specs = tuple(
            spec._replace(shards=len(stage.status)) for spec, stage in zip(event.stages, self.stages, strict=True)
        )
        event = event._replace(stages=specs, committed=self.decided())
        if self._retries is None:
            return event
        given_up = {index: stage.given_up() for index, stage in enumerate(self.stages)}
        setbacks = {index: stage.setbacks for index, stage in enumerate(self.stages)}
        earlier = Earlier(self.outcome, self.reason, given_up=given_up, setbacks=setbacks)
        return event._replace(retry_share=0.0, retry_floor=self._retries, earlier=earlier)

    def decided(self) -> Mapping[int, Sequence[int]]:
        """Return, by stage, the shards that need not run."""
        return {
            index: [shard for shard in range(len(stage.status)) if not stage.is_wanted(shard)]
            for index, stage in enumerate(self.stages)
        }

    def give_up(self, stage: StageState, shard: int, outcome: JobOutcome, reason: Reason) -> None:
        """Take in that a shard is given up, and as what the job ends if that is the first thing to go wrong."""
        stage.status[shard] = FAILED
        if self.outcome is JobOutcome.SUCCESS:
            self.outcome, self.reason = outcome, reason

    def write_down(self, scheduler: Scheduler) -> None:
        """Keep what a coordinator has in its journal of decisions when it dies, once it has opened a stage."""
        if not any(stage.sizes for stage in self.stages):
            return
        self._retries = scheduler.retries(self.key)
        for index, stage in enumerate(self.stages):
            for shard, tries in enumerate(stage.tries):
                if tries and stage.status[shard] == OPEN:
                    stage.setbacks[shard] = scheduler.setbacks(self.key, index, shard)

    def resume(self, key: str) -> list[AttemptId]:
        """Go on under another coordinator; return the outputs in place that nobody has committed yet."""
        self.key = key
        for stage in self.stages:
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
