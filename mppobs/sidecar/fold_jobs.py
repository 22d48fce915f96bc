"""
Which job a record belongs to: the running ones by their names and aliases, the judged ones as far as remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from mppobs.catalog.metrics import OTHER
from mppobs.model import Context, JobKey
from mppobs.sidecar.fold_labels import Labels
from mppobs.sidecar.running import JobStage, RunningJob

MAX_STAGES: Final = 1000
"""Of one job; the shards of all further ones share a table."""

Base = tuple[str, str, str]
"""Cluster, tenant and job_id: what all incarnations of a job share."""


class EndedJob(NamedTuple):
    """What is remembered of a judged job."""

    key: JobKey
    end_ns: int
    settled_ns: int
    """Time of the round that judged it."""


Ended = Callable[[JobKey, int], EndedJob | None]
"""
Looks a judged job up where memory has forgotten it: one of this key, or, with incarnation 0, the newest of this
`job_id`. Only jobs whose `settled_ns` is before the second argument, so that a replay sees what was known then.
"""


def forgotten(_key: JobKey, _before_ns: int) -> EndedJob | None:
    """Know of no judged job: the default of `Ended`."""
    return None


class JobBook:
    """The running jobs, and the names of those that were judged."""

    def __init__(self, labels: Labels, ended: Ended = forgotten) -> None:
        self.running: dict[JobKey, RunningJob] = {}
        self.ended = ended
        self._labels = labels
        self._by_base: dict[Base, list[RunningJob]] = {}
        self._judged: OrderedDict[JobKey, EndedJob] = OrderedDict()
        """By every incarnation that names it; the oldest is forgotten first."""
        self._newest: dict[Base, EndedJob] = {}

    def find(self, context: Context) -> RunningJob | None:
        """Return the running job that a context names; with incarnation 0 the newest of its `job_id`."""
        running = self._by_base.get((context.cluster, context.tenant, context.job_id), [])
        if context.incarnation == 0:
            return max(running, key=lambda job: job.key.incarnation, default=None)
        return next((job for job in running if _is_named(job, context.incarnation)), None)

    def siblings(self, context: Context) -> list[RunningJob]:
        """Return all running jobs with the `job_id` of a context."""
        return self._by_base.get((context.cluster, context.tenant, context.job_id), [])

    def closed_until(self, context: Context, now_ns: int) -> int | None:
        """
        Return until when records of a context that names no running job are late, in nanoseconds.

        `None` means never: its first record opens a job. With an incarnation that was judged all of them are.
        """
        key = context.job_key
        if key.incarnation:
            found = self._judged.get(key) or self.ended(key, now_ns)
            return None if found is None else 1 << 63
        found = self._newest.get((context.cluster, context.tenant, context.job_id)) or self.ended(key, now_ns)
        return None if found is None else found.end_ns

    def open(self, context: Context, time_ns: int) -> RunningJob:
        """Begin a job that a record of this time is the first to name."""
        key = replace(context.job_key, incarnation=context.incarnation or time_ns)
        own = replace(context, incarnation=key.incarnation, stage="", task="")
        job = RunningJob(
            key,
            own,
            self._labels.pipeline_key(context),
            start_ns=time_ns,
            unnamed=not context.incarnation,
            deadline_ns=context.deadline_ns,
        )
        self.add(job)
        return job

    def resolve(self, context: Context, time_ns: int, now_ns: int) -> RunningJob | None:
        """Return the job that a record of this time belongs to, begun where that is new; `None` where it is late."""
        job = self.find(context)
        if job is not None:
            return job
        until = self.closed_until(context, now_ns)
        return None if until is not None and time_ns <= until else self.open(context, time_ns)

    def add(self, job: RunningJob) -> None:
        """Take in a running job."""
        self.running[job.key] = job
        self._by_base.setdefault((job.key.cluster, job.key.tenant, job.key.job_id), []).append(job)

    def close(self, job: RunningJob, now_ns: int) -> None:
        """Remember a job as judged."""
        del self.running[job.key]
        base = (job.key.cluster, job.key.tenant, job.key.job_id)
        self._by_base[base].remove(job)
        if not self._by_base[base]:
            del self._by_base[base]
        ended = EndedJob(job.key, job.end_ns, now_ns)
        for incarnation in (job.key.incarnation, *job.aliases):
            self.remember(replace(job.key, incarnation=incarnation), ended)

    def remember(self, name: JobKey, ended: EndedJob) -> None:
        """Remember a judged job by one of its names, and forget the oldest where there are too many."""
        base = (name.cluster, name.tenant, name.job_id)
        self._judged[name] = ended
        newest = self._newest.get(base)
        if newest is None or ended.end_ns >= newest.end_ns:
            self._newest[base] = ended
        while len(self._judged) > self._labels.settings.max_ended:
            old, _ = self._judged.popitem(last=False)
            base = (old.cluster, old.tenant, old.job_id)
            if base in self._newest and self._newest[base].key not in self._judged:
                del self._newest[base]

    def judged(self) -> Iterator[tuple[JobKey, EndedJob]]:
        """Yield the judged jobs that are remembered, by name, the oldest first."""
        yield from self._judged.items()

    def stage(self, job: RunningJob, name: str) -> JobStage:
        """Return a stage of a job, made where it is new."""
        if name not in job.stages and len(job.stages) >= MAX_STAGES:
            name = OTHER
        stage = job.stages.get(name)
        if stage is None:
            stage = job.stages[name] = JobStage(name, self._labels.stage_key(job.pipeline, name))
        return stage


def _is_named(job: RunningJob, incarnation: int) -> bool:
    return job.key.incarnation == incarnation or incarnation in job.aliases
