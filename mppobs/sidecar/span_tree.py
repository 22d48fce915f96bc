"""
The spans of a decided job as a tree: job, stages, shards, attempts. Pure; `mppobs.sidecar.spans` exports them.

Every span's ID is derived from what it is of, so a log line, an exemplar and a worker's own child spans meet it
without a message. The trace's root is the job; an incoming trace context becomes a link, since one caller may start
many jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mppobs.model import AttemptOutcome, Context, JobOutcome, Reason, Shard, ShardOutcome
from mppobs.sidecar.running import DecidedJob, JobStage
from mppobs.sidecar.span_choice import Chosen, SpanSettings, choose
from mppobs.sidecar.tables import COMMITTED, FAILED, LOST, SPLIT
from mppobs.trace_ids import span_id, trace_id

Attributes = dict[str, str | int | float | bool]

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*")
_RESULTS: Final = {
    AttemptOutcome.CANCELLED: "cancellation",
    AttemptOutcome.PREEMPTED: "error",
    AttemptOutcome.SUPERSEDED: "skip",
    JobOutcome.CANCELLED: "cancellation",
}
"""OpenTelemetry's words for results, where they are not ours (`cicd.pipeline.result`)."""
_BAD: Final = frozenset({"failure", "error", "timeout", "failed", "lost"})
_STATES: Final = {
    COMMITTED: ShardOutcome.COMMITTED, FAILED: ShardOutcome.FAILED, LOST: ShardOutcome.LOST, SPLIT: "split",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpanNode:
    """A span before it is one."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    """0 for the root."""
    start_ns: int
    end_ns: int
    attributes: Attributes
    error: str | None = None
    """Why its status is ERROR; `None` where it is not."""
    link: tuple[int, int] | None = None
    """Trace and span ID of what started it."""


@dataclass(frozen=True, slots=True)
class SpanTree:
    """The spans of one job, parents before their children, and how many were left out."""

    resource: Mapping[str, str]
    nodes: list[SpanNode]
    sampled: int
    """Spans of ordinary shards and attempts that were left out."""
    capped: int
    """Spans that were worth keeping, beyond the job's cap."""


def grow(job: DecidedJob, settings: SpanSettings) -> SpanTree:
    """Return the spans of a job: of the chosen attempts for which there is room, and of what they are part of."""
    tree = _Tree(job, settings.max_spans)
    refused = [each for each in choose(job, settings) if not tree.add(each)]
    nodes = tree.nodes()
    possible = 1 + sum(1 + len(stage.table) + sum(stage.attempts.values()) for stage in job.stages.values())
    left_out = max(0, possible - len(nodes))
    capped = min(left_out, len(refused) + job.kept_dropped)
    resource = {
        "service.name": job.context.pipeline,
        "service.namespace": job.context.tenant,
        "mpp.cluster": job.context.cluster,
    }
    return SpanTree(resource, nodes, left_out - capped, capped)


def incoming(traceparent: str) -> tuple[int, int] | None:
    """
    Return the trace and span ID of a W3C `traceparent`; `None` where it is not one.

    >>> incoming("00-000000000000000000000000000000ff-0000000000000001-01")
    (255, 1)
    >>> incoming("00-00000000000000000000000000000000-0000000000000001-01") is None
    True
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace, span = int(found[1], 16), int(found[2], 16)
    return (trace, span) if trace and span else None


class _Tree:
    """A tree that grows attempt by attempt, with what each hangs on, and never beyond its cap."""

    def __init__(self, job: DecidedJob, max_spans: int) -> None:
        self._job = job
        self._room = max_spans - 1
        self._trace = trace_id(job.key)
        self._attempts: dict[str, dict[int, list[Chosen]]] = {}
        """By stage, by row of the shard."""

    def add(self, chosen: Chosen) -> bool:
        """Take an attempt with its shard and stage; return whether there was room for all three."""
        stage, row, _ = chosen.identity
        known = self._attempts.get(stage)
        cost = 1 + (known is None) + (known is None or row not in known)
        if cost > self._room:
            return False
        self._room -= cost
        self._attempts.setdefault(stage, {}).setdefault(row, []).append(chosen)
        return True

    def nodes(self) -> list[SpanNode]:
        """Return the spans, parents before their children. Stages without a chosen attempt come as room allows."""
        job = self._job
        for name, stage in job.stages.items():
            if name not in self._attempts and stage.first_start_ns and self._room > 0:
                self._room -= 1
                self._attempts[name] = {}
        below = [node for name in job.stages if name in self._attempts for node in self._stage(job.stages[name])]
        start, end = _span_of(below, job.submit_ns, job.end_ns)
        root = SpanNode(
            job.context.pipeline, self._trace, span_id(job.key), 0, start, end, _job_attributes(job),
            _error(job.outcome, job.error_type, job.reason), incoming(job.traceparent),
        )  # fmt: skip
        return [root, *below]

    def _stage(self, stage: JobStage) -> list[SpanNode]:
        job = self._job
        chosen = self._attempts[stage.name]
        keys = stage.table.index.keys()[list(chosen)].tolist() if chosen else []
        shards = zip(keys, chosen.items(), strict=True)
        below = [node for key, (row, tries) in shards for node in self._shard(stage, key, row, tries)]
        start, end = _span_of(below, stage.first_start_ns, stage.last_end_ns)
        bad = stage.shards[ShardOutcome.FAILED] + stage.shards[ShardOutcome.LOST]
        error = f"{bad} shards not committed" if bad else None
        own = span_id(job.key, stage.name)
        attributes = _stage_attributes(job, stage)
        return [SpanNode(stage.name, self._trace, own, span_id(job.key), start, end, attributes, error), *below]

    def _shard(self, stage: JobStage, key: int, row: int, tries: Iterable[Chosen]) -> list[SpanNode]:
        job = self._job
        shard = stage.table.name_of(key)
        own = span_id(job.key, stage.name, shard)
        below = [self._attempt(stage, shard, own, each) for each in sorted(tries, key=lambda each: each.start_ns)]
        table = stage.table
        start, end = _span_of(below, int(table.first_start[row]), int(table.decided[row]))
        outcome = _STATES.get(int(table.state[row]), "pending")
        attributes: Attributes = {
            **_common(job.context, stage.name),
            "mpp.shard.id": str(shard),
            "mpp.outcome": outcome,
            "mpp.shard.attempts": int(table.attempts[row]),
        }
        if table.input[row] > 0:
            attributes["mpp.shard.input_bytes"] = int(table.input[row])
        name = f"{stage.name} {shard}"
        parent = span_id(job.key, stage.name)
        return [SpanNode(name, self._trace, own, parent, start, end, attributes, _error(outcome)), *below]

    def _attempt(self, stage: JobStage, shard: Shard, parent: int, chosen: Chosen) -> SpanNode:
        job, number = self._job, chosen.identity.number
        return SpanNode(
            f"{stage.name} {shard} attempt {number}", self._trace, span_id(job.key, stage.name, shard, number), parent,
            chosen.start_ns, chosen.end_ns, _attempt_attributes(job.context, stage.name, shard, chosen),
            _error(chosen.outcome, chosen.error_type, chosen.reason),
        )  # fmt: skip


def _span_of(below: Iterable[SpanNode], start_ns: int, end_ns: int) -> tuple[int, int]:
    """Return times that take in a span's own, as far as they are known, and those of all below it."""
    starts = [time for time in (start_ns, *(node.start_ns for node in below)) if time > 0]
    start = min(starts, default=0)
    return start, max([start, end_ns, *(node.end_ns for node in below)])


def _error(outcome: str, error_type: str = "", reason: Reason = Reason.NONE) -> str | None:
    """Return the message of an ERROR status: what went wrong, by the most precise name known."""
    if outcome not in _BAD:
        return None
    return error_type or (str(reason) if reason is not Reason.NONE else str(outcome))


def _common(context: Context, stage: str = "") -> Attributes:
    """Return what every span carries, so that each can be found by itself."""
    found: Attributes = {
        "mpp.pipeline": context.pipeline,
        "mpp.job.id": context.job_id,
        "mpp.tenant": context.tenant,
        "cicd.pipeline.name": context.pipeline,
        "cicd.pipeline.run.id": context.job_id,
    }
    if stage:
        found |= {"mpp.stage": stage, "cicd.pipeline.task.name": stage}
    return found


def _outcome(outcome: str, reason: Reason, error_type: str) -> Attributes:
    found: Attributes = {"mpp.outcome": str(outcome)}
    if reason is not Reason.NONE:
        found["mpp.reason"] = str(reason)
    if error_type or outcome in _BAD:
        found["error.type"] = error_type or (str(reason) if reason is not Reason.NONE else str(outcome))
    return found


def _job_attributes(job: DecidedJob) -> Attributes:
    context = job.context
    return {
        **_common(context),
        **_outcome(job.outcome, job.reason, job.error_type),
        "cicd.pipeline.result": _RESULTS.get(job.outcome, str(job.outcome)),
        "mpp.job.incarnation": str(job.key.incarnation),
        "mpp.owner": context.owner,
        "mpp.tier": str(context.tier),
        "mpp.run_kind": str(context.run_kind),
        "mpp.cost_usd": job.total_cost_pusd / 1e12,
        "mpp.shuffle_bytes": job.shuffle_bytes,
        **{f"mpp.shards.{outcome}": count for outcome, count in job.shards.items()},
    }


def _stage_attributes(job: DecidedJob, stage: JobStage) -> Attributes:
    return {
        **_common(job.context, stage.name),
        **{f"mpp.shards.{outcome}": count for outcome, count in stage.shards.items()},
        "mpp.shards.planned": stage.planned,
        "mpp.attempts": sum(stage.attempts.values()),
        "mpp.retries": stage.retries,
    }


def _attempt_attributes(context: Context, stage: str, shard: Shard, chosen: Chosen) -> Attributes:
    number = chosen.identity.number
    found: Attributes = {
        **_common(context, stage),
        **_outcome(chosen.outcome, chosen.reason, chosen.error_type),
        "mpp.shard.id": str(shard),
        "mpp.attempt": number,
        "mpp.kept": chosen.why.name.lower(),
        "cicd.pipeline.task.run.id": f"{stage}/{shard}/{number}",
        "cicd.pipeline.task.run.result": _RESULTS.get(chosen.outcome, str(chosen.outcome)),
    }
    if chosen.worker is not None:
        worker = chosen.worker
        places = {"host.name": worker.node, "cloud.availability_zone": worker.zone, "host.type": worker.node_type}
        found |= {"cicd.worker.name": worker.worker, "process.pid": worker.pid}
        found |= {name: place for name, place in places.items() if place}
    if chosen.record is not None:
        record = chosen.record
        found |= {
            "mpp.speculative": record.speculative,
            "mpp.rows": record.rows,
            "mpp.shuffle.read_bytes": record.shuffle_read,
            "mpp.shuffle.written_bytes": record.shuffle_written,
            "mpp.network_errors": record.network_errors,
            "mpp.storage_throttled": record.storage_throttled,
        }
        if record.cpu_ns is not None:
            found["mpp.cpu_seconds"] = record.cpu_ns / 1e9
        if record.delay_ns is not None:
            found["mpp.scheduler_delay_seconds"] = record.delay_ns / 1e9
    return found
