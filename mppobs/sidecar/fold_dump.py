"""
What runs, as bytes: so that loading them and folding the rounds that followed is the same as never having stopped.

A part is JSON with, for jobs, the columns of their shards behind it. No pickle.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, astuple
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mppobs.errors import JournalError
from mppobs.model import (
    AttemptOutcome,
    Context,
    CostKind,
    DropRecord,
    HeartbeatRecord,
    JobKey,
    JobOutcome,
    Reason,
    RunKind,
    SampleRecord,
    ShardOutcome,
    Tier,
    WorkerInfo,
)
from mppobs.sidecar.aggregates import PipelineKey, StageKey
from mppobs.sidecar.fold_control import Control
from mppobs.sidecar.fold_jobs import EndedJob, JobBook
from mppobs.sidecar.fold_journals import JournalState
from mppobs.sidecar.fold_samples import Cgroup, SampleFold, Throttling
from mppobs.sidecar.kept import KeptAttempts, RawAttempt
from mppobs.sidecar.running import JobStage, RunningJob
from mppobs.sidecar.tables import ShardTable

Json = dict[str, Any]

_VERSION: Final = 1
_LENGTH: Final = struct.Struct("<Q")


def dump(
    book: JobBook, control: Control, samples: SampleFold, journals: Mapping[str, JournalState]
) -> dict[str, bytes]:
    """Return the parts of a checkpoint, by name."""
    shared = {
        "version": _VERSION,
        "judged": [
            [astuple(name), astuple(ended.key), ended.end_ns, ended.settled_ns] for name, ended in book.judged()
        ],
        "lost_workers": [[*name, starved] for name, starved in control.lost_workers.items()],
        "cgroups": [[*group, *figures] for group, figures in samples.cgroups.items()],
        "journals": {name: _journal(state) for name, state in journals.items()},
    }
    parts = {"shared": json.dumps(shared).encode()}
    for number, job in enumerate(book.running.values()):
        parts[f"job-{number:08d}"] = _dump_job(job)
    return parts


def load(
    parts: Mapping[str, bytes],
    book: JobBook,
    control: Control,
    samples: SampleFold,
    journals: dict[str, JournalState],
) -> None:
    """Take up what `dump` returned. Raises `JournalError` where it is not what `dump` returns."""
    try:
        shared = json.loads(parts["shared"])
        if shared["version"] != _VERSION:
            raise JournalError(f"a checkpoint of version {shared['version']}, not {_VERSION}")
        for name, key, end_ns, settled_ns in shared["judged"]:
            book.remember(JobKey(*name), EndedJob(JobKey(*key), end_ns, settled_ns))
        control.lost_workers.update({(cluster, worker): starved for cluster, worker, starved in shared["lost_workers"]})
        for *group, time_ns, throttled_ns in shared["cgroups"]:
            samples.cgroups[Cgroup(*group)] = Throttling(time_ns, throttled_ns)
        journals.update({name: _load_journal(name, state) for name, state in shared["journals"].items()})
        for name in sorted(parts):
            if name.startswith("job-"):
                book.add(_load_job(parts[name]))
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise JournalError(f"not a checkpoint: {error!r}") from error


def _journal(state: JournalState) -> Json:
    return {
        "sample": astuple(state.sample) if state.sample else None,
        "sampled": asdict(state.sampled) if state.sampled else None,
        "ran_ns": state.ran_ns,
        "dropped": asdict(state.dropped) if state.dropped else None,
    }


def _load_journal(name: str, saved: Json) -> JournalState:
    state = JournalState(name, ran_ns=saved["ran_ns"])
    if saved["sample"]:
        state.sample = SampleRecord(*saved["sample"])
    if saved["sampled"]:
        state.sampled = _context(saved["sampled"])
    if saved["dropped"]:
        drop = saved["dropped"]
        attempts = {AttemptOutcome(name): count for name, count in drop["attempts"].items()}
        state.dropped = DropRecord(drop["time_ns"], attempts, drop["other"])
    return state


def _context(saved: Json) -> Context:
    return Context(**{**saved, "tier": Tier(saved["tier"]), "run_kind": RunKind(saved["run_kind"])})


_JOB_PLAIN = (
    "start_ns", "submit_ns", "implicit", "unnamed", "coordinated", "coordinator", "deadline_ns", "lease_ns",
    "traceparent", "aliases", "orphaned_ns", "checkpoint_ns", "end_ns", "outcome", "reason", "error_type", "ended_ns",
    "last_record_ns", "last_end_ns", "cost_pusd", "network_errors", "storage_throttled", "worker_numbers", "errors",
)  # fmt: skip
_STAGE_PLAIN = (
    "planned", "plan_final", "input_bytes", "split", "shards", "attempts", "retries", "cpu_ns", "cpu_wall_ns",
    "wall_ns", "shuffle_read", "shuffle_written", "rows", "output_bytes", "output_rows", "first_start_ns",
    "last_end_ns", "dispatched", "recorded", "activity_ns",
)  # fmt: skip


def _dump_job(job: RunningJob) -> bytes:
    """Return a job: JSON, and the columns of its stages' tables."""
    head = {
        **{name: getattr(job, name) for name in _JOB_PLAIN},
        "key": astuple(job.key),
        "context": asdict(job.context),
        "pipeline": job.pipeline,
        "heartbeat": astuple(job.heartbeat) if job.heartbeat else None,
        "workers": [astuple(worker) for worker in job.workers],
        "unexplained": [[*identity, *counts] for identity, counts in job.unexplained.items()],
        "kept": _kept(job.kept),
        "stages": [
            {"name": stage.name, "key": stage.key, **{name: getattr(stage, name) for name in _STAGE_PLAIN}}
            for stage in job.stages.values()
        ],
    }
    tables = {
        f"{number}.{name}": column
        for number, stage in enumerate(job.stages.values())
        for name, column in stage.table.dump().items()
    }
    return _pack(head, tables)


def _load_job(data: bytes) -> RunningJob:
    """Return the job that `_dump_job` packed."""
    head, columns = _unpack(data)
    job = RunningJob(JobKey(*head["key"]), _context(head["context"]), PipelineKey(*head["pipeline"]), 0)
    for name in _JOB_PLAIN:
        setattr(job, name, head[name])
    job.outcome = JobOutcome(head["outcome"]) if head["outcome"] else None
    job.reason = Reason(head["reason"])
    job.cost_pusd = {CostKind(kind): cost for kind, cost in head["cost_pusd"].items()}
    job.heartbeat = HeartbeatRecord(*head["heartbeat"]) if head["heartbeat"] else None
    job.workers = [WorkerInfo(*worker) for worker in head["workers"]]
    job.unexplained = {(each[0], each[1], each[2], each[3]): (each[4], each[5]) for each in head["unexplained"]}
    job.kept = _load_kept(head["kept"])
    for number, saved in enumerate(head["stages"]):
        mine = {name.partition(".")[2]: column for name, column in columns.items() if name.startswith(f"{number}.")}
        job.stages[saved["name"]] = _load_stage(saved, ShardTable.load(mine))
    return job


def _pack(head: Json, columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Return JSON and columns in one: the length of the JSON, the JSON, and the bytes of each column in turn."""
    described = [[name, column.dtype.str, len(column)] for name, column in columns.items()]
    text = json.dumps({**head, "columns": described}).encode()
    return b"".join(
        [_LENGTH.pack(len(text)), text, *(np.ascontiguousarray(column).data for column in columns.values())]
    )


def _unpack(data: bytes) -> tuple[Json, dict[str, NDArray[Any]]]:
    """Return what `_pack` packed; the columns can be written to. Raises `ValueError` where bytes are missing."""
    at = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    head: Json = json.loads(data[_LENGTH.size : at])
    columns = {}
    for name, dtype, count in head["columns"]:
        columns[name] = np.frombuffer(data, np.dtype(dtype), count, at).copy()
        at += columns[name].nbytes
    return head, columns


def _load_stage(saved: Json, table: ShardTable) -> JobStage:
    stage = JobStage(saved["name"], StageKey(*saved["key"]), table)
    for name in _STAGE_PLAIN:
        setattr(stage, name, saved[name])
    stage.shards = {ShardOutcome(outcome): count for outcome, count in saved["shards"].items()}
    stage.attempts = {AttemptOutcome(outcome): count for outcome, count in saved["attempts"].items()}
    table.index.expect(stage.planned)
    return stage


def _kept(kept: KeptAttempts) -> Json:
    """Return kept attempts, each once, and where each is listed."""
    return {
        "dropped": kept.dropped,
        "offered": kept.offered,
        "notable": [_attempt(each) for each in kept.notable],
        "slowest": {stage: [[a, b, _attempt(each)] for a, b, each in heap] for stage, heap in kept.slowest.items()},
        "sample": [[a, b, _attempt(each)] for a, b, each in kept.sample],
    }


def _load_kept(saved: Json) -> KeptAttempts:
    return KeptAttempts(
        notable=[_load_attempt(each) for each in saved["notable"]],
        dropped=saved["dropped"],
        slowest={
            stage: [(a, b, _load_attempt(each)) for a, b, each in heap] for stage, heap in saved["slowest"].items()
        },
        sample=[(a, b, _load_attempt(each)) for a, b, each in saved["sample"]],
        offered=saved["offered"],
    )


def _attempt(kept: RawAttempt) -> list[Any]:
    return [kept.stage, kept.words, kept.error_type, astuple(kept.worker)]


def _load_attempt(saved: list[Any]) -> RawAttempt:
    stage, words, error_type, worker = saved
    return RawAttempt(stage, tuple(words), error_type, WorkerInfo(*worker))
