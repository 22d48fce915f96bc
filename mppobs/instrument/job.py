"""`mppobs.job`: one run of a pipeline, as a decorator or as a scope with a handle for its coordinator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Token
from datetime import datetime, timedelta
from types import TracebackType
from typing import NamedTuple, ParamSpec, TypeVar, overload

from mppobs.errors import ConfigError
from mppobs.instrument import otel
from mppobs.instrument.carrier import carrier_of
from mppobs.instrument.coordinator import Coordinator
from mppobs.instrument.names import clean, member
from mppobs.instrument.outcomes import SUCCESS, ending_of, job_outcome
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import Handoff, Run, current_run
from mppobs.instrument.wrapping import Function, Opener, wrap, wrap_plain
from mppobs.journal.slots import Place
from mppobs.model import Context, JobEvent, JobOutcome, JobRecord, Reason, RunKind, Tier
from mppobs.units import parse_duration

P = ParamSpec("P")
R = TypeVar("R")

Deadline = float | str | timedelta | datetime
"""Seconds or a span from the start, as a number, as text such as `1h30m`, or as a `timedelta`; or an aware moment."""
DEFAULT_LEASE_SECONDS = 60.0


class JobSpec(NamedTuple):
    """What `mppobs.job` was told. Empty and `None` for what the settings say."""

    pipeline: str
    job_id: str
    tenant: str
    owner: str
    tier: Tier | None
    run_kind: RunKind | None
    deadline: Deadline | None
    submitted: datetime | None
    lease: float
    coordinated: bool
    export: bool

    def context(self, name: str, started_ns: int) -> Context:
        """Return the context of a run that starts now; `name` is the pipeline where nobody names one."""
        settings = RECORDER.settings()
        pipeline = self.pipeline or settings.pipeline or name
        if not pipeline:
            pipeline = "default"
            RECORDER.warn_once("a job without a pipeline counts as pipeline 'default'")
        return Context(
            pipeline=pipeline,
            job_id=self.job_id or settings.job_id or _new_job_id(pipeline, started_ns),
            incarnation=started_ns,
            tenant=self.tenant or settings.tenant,
            owner=self.owner or settings.owner,
            tier=self.tier or settings.tier,
            cluster=settings.cluster,
            run_kind=self.run_kind or settings.run_kind,
            deadline_ns=_deadline_ns(self.deadline, started_ns),
        )


class RunHandle(Coordinator):
    """
    One run of a job: what `with mppobs.job(...) as run` gives. It ends with the scope.

    Its coordinator says through it what it plans, hands out and accepts; a job without one needs none of that.
    """

    def __init__(self, spec: JobSpec, name: str) -> None:
        started_ns = time.time_ns()
        ambient = RECORDER.ambient()
        super().__init__(Run(spec.context(name, started_ns), ambient.handoff))
        self._spec = spec
        self._pid = os.getpid()
        self._token: Token[Run | None] | None = None
        self._journal = RECORDER.journal()
        self._place: Place | None = None
        self._ending: tuple[JobOutcome, Reason, str] | None = None
        self._start(started_ns)
        self._exported = RECORDER.exports.add(carrier_of(self.run.context, Handoff())) if spec.export else ""

    def _start(self, started_ns: int) -> None:
        record = JobRecord(
            JobEvent.START,
            self.context_id(),
            started_ns,
            submit_ns=_aware_ns(self._spec.submitted),
            deadline_ns=self.run.context.deadline_ns,
            lease_ns=round(self._spec.lease * 1e9),
            coordinated=self._spec.coordinated,
            traceparent=otel.traceparent(),
        )
        if self._journal is not None:
            self._journal.append(record)
            self._place = self._journal.begin(record.context_id, start_ns=started_ns, is_job=True)
        RECORDER.opened(self.run)

    def resume(self) -> None:
        """Make this the job of the code that runs here."""
        self._token = current_run.set(self.run)

    def suspend(self) -> None:
        """Make what was current before current again."""
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # a step that ended in another context than it began: that one goes away
                current_run.reset(token)

    def close(self, error: BaseException | None) -> None:
        """End the job, as `end_as` said or else by the exception that ended its code. Once; not in a forked child."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        if self._exported:
            RECORDER.exports.remove(self._exported)
        RECORDER.ended(self.run)
        ending = SUCCESS if error is None else ending_of(error)
        outcome, reason, error_type = self._ending or (job_outcome(ending), ending.reason, ending.error_type)
        self._append_job(JobEvent.END, outcome=outcome, reason=reason, error_type=error_type)
        if self._place is not None and self._journal is not None:
            self._journal.end(self._place)

    def checkpoint(self) -> None:
        """Say that the job's state was made safe now."""
        self._append_job(JobEvent.CHECKPOINT)
        if self._place is not None and self._journal is not None and not self._journal.closed:
            self._journal.checkpoint(self._place)

    def end_as(self, outcome: JobOutcome | str, *, reason: Reason | str = Reason.NONE, error_type: str = "") -> None:
        """End the job with this outcome, however its code ends. Raises `ValueError` for what is no outcome."""
        self._ending = JobOutcome(outcome), Reason(reason), error_type


class JobScope:
    """What `mppobs.job(...)` gives: a decorator, and a scope for `with` and `async with`. Each use is a run."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._entered: list[RunHandle] = []

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make every call of a function a run of the job, whose pipeline is the function's name if it has no other."""

        def opener(plain: Function) -> Opener:
            name = getattr(plain, "__name__", "")
            return lambda args, kwargs: RunHandle(self._spec, name)

        return wrap(function, opener, wrap_plain)  # type: ignore[no-any-return]

    def __enter__(self) -> RunHandle:
        run = RunHandle(self._spec, "")
        run.resume()
        self._entered.append(run)
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run = self._entered.pop()
        run.suspend()
        run.close(error)

    async def __aenter__(self) -> RunHandle:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


@overload
def job(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def job(
    *,
    pipeline: str | None = None,
    job_id: str | None = None,
    tenant: str | None = None,
    owner: str | None = None,
    tier: Tier | str | None = None,
    run_kind: RunKind | str | None = None,
    deadline: Deadline | None = None,
    submitted: datetime | None = None,
    lease: float = DEFAULT_LEASE_SECONDS,
    coordinated: bool = False,
    export: bool = False,
) -> JobScope: ...
def job(
    function: Callable[P, R] | None = None,
    /,
    *,
    pipeline: str | None = None,
    job_id: str | None = None,
    tenant: str | None = None,
    owner: str | None = None,
    tier: Tier | str | None = None,
    run_kind: RunKind | str | None = None,
    deadline: Deadline | None = None,
    submitted: datetime | None = None,
    lease: float = DEFAULT_LEASE_SECONDS,
    coordinated: bool = False,
    export: bool = False,
) -> Callable[P, R] | JobScope:
    """
    Make a function, or the body of a `with`, one run of a pipeline.

    `deadline` is seconds, a text such as `1h30m` or a `timedelta` from the start, or a moment as an aware `datetime`;
    `submitted` is when the job was asked for, if that was before its start. `lease` is how many seconds it outlives a
    coordinator that dies: a run of the same `job_id` that starts meanwhile continues it. A `coordinated` job decides
    its shards by `RunHandle.commit` alone; any other by the first attempt that succeeds.

    Processes that `multiprocessing` starts take part in the job by themselves. With `export` it is in MPPOBS_CONTEXT of
    this process's environment until it ends, so that any other child takes part that inherits the environment.

    Raises `ConfigError` for arguments without meaning.

    >>> import mppobs.testing
    >>> with mppobs.testing.capture() as captured:
    ...     with mppobs.job(pipeline="nightly", deadline=3600) as run:
    ...         run.plan("map", 3)
    >>> [str(record.event) for record in captured.jobs]
    ['start', 'end']
    """
    ranked, meant = _checked(tier, run_kind, deadline, submitted)
    name, known_as, payer, keeper = ("" if text is None else clean(text) for text in (pipeline, job_id, tenant, owner))
    spec = JobSpec(name, known_as, payer, keeper, ranked, meant, deadline, submitted, lease, coordinated, export)
    return JobScope(spec) if function is None else JobScope(spec)(function)


def _checked(
    tier: Tier | str | None, run_kind: RunKind | str | None, deadline: Deadline | None, submitted: datetime | None
) -> tuple[Tier | None, RunKind | None]:
    """Return a tier and a kind that were given as text; raise `ConfigError` where one of the four has no meaning."""
    try:
        _deadline_ns(deadline, 0)
        _aware_ns(submitted)
        return None if tier is None else member(Tier, tier), None if run_kind is None else member(RunKind, run_kind)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"job: {error}") from error


def _deadline_ns(deadline: Deadline | None, started_ns: int) -> int:
    """Return a deadline as nanoseconds since the epoch, 0 for none."""
    if deadline is None:
        return 0
    if isinstance(deadline, datetime):
        return _aware_ns(deadline)
    if isinstance(deadline, str):
        seconds = parse_duration(deadline)
    else:
        seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else float(deadline)
    if not 0 < seconds < 1e9:
        raise ValueError(f"a deadline of {seconds} s makes no sense")
    return started_ns + round(seconds * 1e9)


def _aware_ns(moment: datetime | None) -> int:
    """Return a moment as nanoseconds since the epoch, 0 for none. Raises `ValueError` where it has no time zone."""
    if moment is None:
        return 0
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return round(moment.timestamp() * 1e9)


def _new_job_id(pipeline: str, started_ns: int) -> str:
    """Return an identifier that says when, and that no other run has."""
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started_ns // 10**9))
    return f"{pipeline}-{when}-{os.urandom(3).hex()}"
