"""
A simulation's journals: what its coordinator and its nodes would have written, at simulated times.

One journal is the coordinator's, and each node has one for its workers. They are closed when the simulation is over, so
a sidecar that follows the directory reads a past that is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from mppobs.clock import Clock
from mppobs.executor.events import Load
from mppobs.executor.sim.draw import number_of
from mppobs.executor.sim.jobs import JobState
from mppobs.executor.sim.observe import Observer, Tried
from mppobs.executor.sim.places import Node
from mppobs.journal.interning import ContextHandle
from mppobs.journal.writer import JournalWriter
from mppobs.model import (
    AttemptRecord,
    CommitRecord,
    Context,
    DispatchRecord,
    HeartbeatRecord,
    JobEvent,
    JobRecord,
    PlanRecord,
    Reason,
    ShardOutcome,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)

LEASE_NS: Final = 15 * 60 * 10**9
"""How long a job outlives its coordinator's silence: fifteen heartbeats of a minute."""
_BUDGET_BYTES: Final = 1 << 40
"""Nothing is dropped: whoever simulates for a month has room for a month."""
_COORDINATOR: Final = "coordinator"


class Journals(Observer):
    """Writes records as the simulation goes on. Use it as a context manager, or call `close`."""

    def __init__(self, directory: Path, clock: Clock, seed: int, lanes: int, *, cluster: str = "sim") -> None:
        """
        Write below `directory`, which is made where it is missing; raises `ConfigError` where it cannot hold journals.

        The identities of the journals follow from `seed`; a directory takes one simulation. `lanes` is how many
        attempts a node runs at a time.
        """
        self._directory = directory
        self._clock = clock
        self._seed = seed
        self._lanes = lanes
        self._cluster = cluster
        self._open: dict[str, JournalWriter] = {}
        self._contexts: dict[tuple[int, str], Context] = {}
        self._handles: dict[tuple[str, int, str], ContextHandle] = {}
        self._coordinator = self._journal(WorkerInfo(_COORDINATOR))

    def __enter__(self) -> Self:
        """Return the journals themselves."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close all journals."""
        self.close()

    def close(self) -> None:
        """Close all journals, each with its END record. May be called twice."""
        for journal in self._open.values():
            journal.close()

    @property
    def errors(self) -> int:
        """Return how many records could not be written."""
        return sum(journal.errors for journal in self._open.values())

    def submitted(self, job: JobState, now_ns: int) -> None:
        """Record a job's start and its plan."""
        context_id = self._number(self._coordinator, job, "")
        deadline_ns = self._context(job, "").deadline_ns
        self._coordinator.append(
            JobRecord(
                JobEvent.START, context_id, now_ns, submit_ns=job.submit_ns, deadline_ns=deadline_ns, lease_ns=LEASE_NS,
                coordinated=True,
            )
        )  # fmt: skip
        for stage in job.model.stages:
            number = self._number(self._coordinator, job, stage.name)
            planned = stage.shards * stage.input_bytes
            self._coordinator.append(PlanRecord(number, now_ns, stage.shards, final=True, input_bytes=planned))

    def split(self, job: JobState, stage: int, shard: int, parts: int, now_ns: int) -> None:
        """Record a split."""
        number = self._number(self._coordinator, job, job.model.stages[stage].name)
        self._coordinator.append(PlanRecord(number, now_ns, parts, parent_key=shard))

    def started(self, job: JobState, stage: int, shard: int, number: int, worker: str, speculative: bool) -> None:
        """Record a dispatch."""
        state = job.stages[stage]
        context_id = self._number(self._coordinator, job, state.model.name)
        now, size = self._clock.time_ns(), state.sizes[shard]
        node = worker.rpartition("-w")[0]
        self._coordinator.append(DispatchRecord(context_id, shard, number, now, speculative, node, size))

    def tried(self, tried: Tried) -> None:
        """Record an attempt, in the journal of its node."""
        job, fate = tried.job, tried.fate
        journal = self._open[tried.node.name]
        took, model = tried.end_ns - tried.start_ns, job.model.stages[tried.stage]
        ratio = job.stages[tried.stage].sizes[tried.shard] / model.input_bytes
        done = ratio if tried.outcome == "success" else 0.0
        journal.append_attempt(
            AttemptRecord(
                self._number(journal, job, model.name), tried.shard, tried.number, tried.outcome, tried.start_ns, took,
                tried.reason, "", tried.speculative, cpu_ns=int(took * fate.cpu_share),
                delay_ns=max(tried.start_ns - tried.assigned_ns, 0), rows=int(model.rows * done),
                shuffle_read=int(model.shuffle_bytes * done), network_errors=fate.network_errors,
                storage_throttled=fate.throttled, peak_rss=fate.peak_memory,
            )
        )  # fmt: skip

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """Record that a shard is decided."""
        state = job.stages[stage]
        context_id = self._number(self._coordinator, job, state.model.name)
        first = max(state.first_starts[shard], 0)
        self._coordinator.append(CommitRecord(context_id, shard, number, outcome, now_ns, first, reason))

    def checkpointed(self, job: JobState, now_ns: int) -> None:
        """Record a checkpoint."""
        self._coordinator.append(JobRecord(JobEvent.CHECKPOINT, self._number(self._coordinator, job, ""), now_ns))

    def ended(self, job: JobState, now_ns: int) -> None:
        """Record a job's end, and forget its contexts."""
        assert job.end is not None
        number = self._number(self._coordinator, job, "")
        self._coordinator.append(JobRecord(JobEvent.END, number, now_ns, job.end.outcome, job.end.reason))
        for stage in ("", *(stage.name for stage in job.model.stages)):
            self._contexts.pop((job.number, stage), None)
            for name in self._open:
                self._handles.pop((name, job.number, stage), None)

    def worker_up(self, worker: str, node: Node, now_ns: int) -> None:
        """Open a node's journal with its first worker, and record that the node is there."""
        if node.name not in self._open:
            info = WorkerInfo(node.name, node.name, node.zone, "", node.spot, True, self._lanes)
            self._journal(info)
            self._coordinator.append(WorkerRecord(WorkerEvent.UP, now_ns, info))

    def worker_lost(self, worker: str, node: Node, reason: Reason, now_ns: int) -> None:
        """Record the loss of a node with that of its last worker."""
        if worker == node.workers[-1].name:
            info = self._open[node.name].info
            self._coordinator.append(WorkerRecord(WorkerEvent.LOST, now_ns, info, reason))

    def beat(self, load: Load, now_ns: int) -> None:
        """Record a heartbeat for each job that runs, which all have this coordinator."""
        for number in [number for number, stage in self._contexts if not stage]:
            handle = self._handles.get((_COORDINATOR, number, ""))
            if handle is not None:
                self._coordinator.append(HeartbeatRecord(handle.number, now_ns, *load))

    def _journal(self, info: WorkerInfo) -> JournalWriter:
        """Open the journal of a node or of the coordinator."""
        identity = f"{self._seed & 0xFFFFFFFF:08x}{number_of(info.worker):08x}{number_of(info.worker[::-1]):016x}"
        journal = self._open[info.worker] = JournalWriter(
            self._directory, info, clock=self._clock, budget_bytes=_BUDGET_BYTES, identity=identity
        )
        return journal

    def _number(self, journal: JournalWriter, job: JobState, stage: str) -> int:
        """Return the number of a stage's context in a journal."""
        key = (journal.info.worker, job.number, stage)
        handle = self._handles.get(key)
        if handle is None:
            handle = self._handles[key] = journal.context(self._context(job, stage))
        return handle.number

    def _context(self, job: JobState, stage: str) -> Context:
        key = (job.number, stage)
        context = self._contexts.get(key)
        if context is None:
            model = job.model
            deadline_ns = job.submit_ns + round(model.deadline * 1e9) if model.deadline else 0
            context = self._contexts[key] = Context(
                model.pipeline, model.job_id, job.submit_ns, stage, "", model.tenant, model.owner, model.tier,
                self._cluster, model.run_kind, deadline_ns,
            )  # fmt: skip
        return context
