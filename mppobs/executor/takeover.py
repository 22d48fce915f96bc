"""
Jobs as a coordinator opens them: new ones, and ones whose coordinator died, with all that it left.

A job that is taken over keeps its identifier and its incarnation: what is recorded of it goes on as one run. Shards
whose output is in place, or whose values were written down, are not run again; attempts that the dead coordinator's
workers had are lost with them, and their numbers are not given again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mppobs.clock import Clock
from mppobs.errors import ConfigError
from mppobs.executor.coordinator import JobRun
from mppobs.executor.decisions import Begun, DecisionLog, Recovered, recover
from mppobs.executor.exchange import Output
from mppobs.executor.faults import ArmedFault
from mppobs.executor.files import Files, open_files
from mppobs.executor.loop import HEARTBEAT_SECONDS
from mppobs.executor.plan import Plan
from mppobs.executor.records import JobRecords
from mppobs.executor.result import Takeover
from mppobs.executor.workspace import JobPlace, Workspace
from mppobs.instrument import otel
from mppobs.instrument.job import JobSpec
from mppobs.instrument.names import clean
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import Run
from mppobs.model import Context, JobOutcome, Reason

_LEAST_LEASE: Final = 2 * HEARTBEAT_SECONDS
"""Less would make a coordinator lose its job by a hiccup."""
_LARGE_PLAN: Final = 64 << 20
"""Bytes of decisions of which more is not read to see whose they are."""


@dataclass
class OpenJob:
    """A job that this process coordinates, and where it is."""

    job: JobRun
    files: Files
    place: JobPlace
    run: Run
    """The job as the recorder knows it."""
    takeovers: tuple[Takeover, ...] = ()
    elsewhere: bool = False
    """Whether its exchanged data is not in its place."""
    recorded: bool = field(default=False, init=False)

    def begin(self, lease: float) -> None:
        """Record that it starts, or goes on."""
        RECORDER.opened(self.run)
        self.recorded = True
        self.job.records.start(round(lease * 1e9), traceparent=otel.traceparent())

    def end(self) -> None:
        """Let go of what is needed only while it runs. May be called twice."""
        if self.recorded:
            self.recorded = False
            RECORDER.ended(self.run)
        self.job.close()

    def break_off(self, outcome: JobOutcome, reason: Reason, error_type: str) -> None:
        """Record that it ended because its coordinator could not go on."""
        if self.recorded:
            self.job.records.end(outcome, reason, error_type)
        self.end()

    def remove(self) -> None:
        """Remove its data, unless it is another coordinator's by now. May be called twice."""
        if self.elsewhere and self.place.held:
            self.files.remove()
        self.place.remove()


class Jobs:
    """Opens jobs below one directory."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        exchange: str,
        lease: float,
        clock: Clock,
        faults: Sequence[ArmedFault],
    ) -> None:
        """Open the directory; see `Executor` for what the arguments mean. Raises `ConfigError`."""
        if lease < _LEAST_LEASE:
            raise ConfigError(f"a lease of {lease} s is renewed every {HEARTBEAT_SECONDS} s: give it {_LEAST_LEASE}")
        self.lease = lease
        self._workspace = Workspace(directory, lease)
        self._exchange = exchange.rstrip("/")
        self._clock = clock
        self._faults = tuple(faults)
        self._names: dict[Path, str] = {}

    def new(self, plan: Plan) -> OpenJob:
        """Open a new job. Raises `ConfigError` where there is no room for its data."""
        place = self._workspace.create()
        now = self._clock.time_ns()
        root = f"{self._exchange}/{place.directory.name}" if self._exchange else str(place.directory)
        begun = Begun(plan, context_of(plan, self.lease, now), root, now)
        try:
            open_files(root).prepare(len(plan.stages))
            opened = self._open(place, begun, ())
        except (OSError, ValueError, ImportError) as error:
            place.remove()
            raise ConfigError(f"no room for exchanged data in {root}: {error}") from error
        opened.begin(self.lease)
        return opened

    def dead(self, job_id: str) -> Iterator[OpenJob]:
        """Yield jobs whose coordinator is dead, taken over; only the one of this name, unless it is empty."""
        for directory in self._workspace.places():
            if not job_id or self._name_of(directory) == job_id:
                place = self._workspace.take(directory)
                opened = None if place is None else self._take_over(place)
                if opened is not None:
                    yield opened

    def alive(self, job_id: str) -> bool:
        """Return whether there is a job, of this name unless it is empty."""
        return any(not job_id or self._name_of(directory) == job_id for directory in self._workspace.places())

    def close(self) -> None:
        """Remove the directory if it was a temporary one. May be called twice."""
        self._workspace.close()

    def _take_over(self, place: JobPlace) -> OpenJob | None:
        """Go on with a job, or let go of its place and raise what was in the way, such as a plan that is not known."""
        try:
            old = recover(place.earlier_decisions())
            if old is None:
                place.remove()  # it died before anybody was told of the job
                return None
            return self._restore(place, old)
        except BaseException:
            place.release()
            raise

    def _restore(self, place: JobPlace, old: Recovered) -> OpenJob:
        files = open_files(old.begun.root, place.fence)
        in_place = {index: files.committed(index) for index in range(len(old.begun.plan.stages))}
        takeover = _takeover(place, old, in_place)
        opened = self._open(place, old.begun, (*old.takeovers, takeover))
        opened.job.restore(old, in_place)
        opened.begin(self.lease)
        return opened

    def _open(self, place: JobPlace, begun: Begun, takeovers: tuple[Takeover, ...]) -> OpenJob:
        """Open a job, and write down that it is open."""
        log = None if self._workspace.temporary else DecisionLog(place.decisions)
        if log is not None:
            log.add(begun if place.fence == 1 else takeovers[-1])
            log.flush()
        records = JobRecords(begun.context, RECORDER.journal, self._clock)
        job = JobRun(
            place.directory.name,
            begun.plan,
            records,
            self._clock,
            root=begun.root,
            fence=place.fence,
            log=log,
            faults=self._faults,
        )
        elsewhere = begun.root != str(place.directory)
        files = open_files(begun.root, place.fence)
        return OpenJob(job, files, place, Run(begun.context), takeovers, elsewhere)

    def _name_of(self, directory: Path) -> str:
        """Return the identifier of the job in a directory; empty where it cannot be told yet."""
        name = self._names.get(directory, "")
        if not name:
            first = directory / "decisions-000001"
            old = recover([first]) if first.exists() and first.stat().st_size < _LARGE_PLAN else None
            name = "" if old is None else old.begun.context.job_id
            self._names[directory] = name
        return name


def context_of(plan: Plan, lease: float, now_ns: int) -> Context:
    """Return the context of a job that starts now: what the plan says, and what the settings say where it does not."""
    spec = JobSpec(
        pipeline=clean(plan.pipeline),
        job_id=clean(plan.job_id),
        tenant=clean(plan.tenant),
        owner=clean(plan.owner),
        tier=plan.tier,
        run_kind=plan.run_kind,
        deadline=plan.deadline or None,
        submitted=None,
        lease=lease,
        coordinated=True,
        export=False,
    )
    return spec.context("", now_ns)


def _takeover(place: JobPlace, old: Recovered, in_place: Mapping[int, Mapping[int, Output]]) -> Takeover:
    """Return what is to be told of the takeover that is going on."""
    values = sum(each.value is not None for stage in old.stages.values() for each in stage.committed.values())
    committed = values + sum(map(len, in_place.values()))
    lost = place.before.holder or f"coordinator {place.fence - 1}"
    return Takeover(place.fence, place.holder, lost, place.before.renewed_ns, time.time_ns(), committed)
