"""What `mppobs run` does: data, backend, job, check, and a sidecar beside it where one is asked for."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console

import mppobs
from mppobs.cli import show
from mppobs.cli.beside import SidecarProcess
from mppobs.cli.client import DEFAULT_URL, TOKEN_VARIABLE, SidecarClient
from mppobs.cli.fabrics import advice_as_json, advice_table, facts_of
from mppobs.cli.indicators import indicator_table
from mppobs.cli.progress import Board
from mppobs.diagnose.fabric import Advice, Rates, advise
from mppobs.errors import ConfigError
from mppobs.executor import Executor
from mppobs.executor.backends.make import BackendKind, BackendSpec, Made, make_backend
from mppobs.executor.budgets import BudgetWatch
from mppobs.executor.faults import Fault, FaultKind, Layer, arm, of_layer
from mppobs.executor.handle import JobHandle
from mppobs.executor.plan import Plan
from mppobs.executor.result import JobResult, ShardFailure
from mppobs.model import JobOutcome
from mppobs.units import human_bytes, human_seconds
from mppobs.workloads.base import WrongAnswerError
from mppobs.workloads.registry import Workload

_JUDGED_SECONDS: Final = 60.0
_MOST_SLOS: Final = 10_000
"""That budgets are asked of; a sidecar keeps no more."""
_PRICES: Final = Path(mppobs.__file__).parent / "workloads" / "prices.yaml"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `mppobs run` was asked for."""

    workload: Workload
    spec: BackendSpec
    scale: float
    shards: int
    data: Path
    directory: Path | None
    standby: bool
    journal: Path | None
    sidecar: bool
    serve: bool
    quiet: bool
    """Whether nothing is said but the JSON at the end."""
    tenant: str = ""
    """Whose job it is; as the workload says where it is empty."""
    budgets: str = ""
    """The address of the sidecar that is asked whether the tenant's budget is spent; empty for none."""

    def __post_init__(self) -> None:
        if self.budgets and self.spec.kind is BackendKind.SIM:
            raise ConfigError("--budgets: a simulated job is over before any budget changes; see mppobs simulate")
        if self.budgets and not _is_address(self.budgets):
            raise ConfigError(f"--budgets {self.budgets!r} is no address, such as {DEFAULT_URL}")
        if self.standby and self.directory is None:
            raise ConfigError("--standby needs the --directory of the run that it stands by for")
        if self.journal is not None:
            # Recording never harms the work, so a worker would warn and go on; who asks for it here is to have it.
            try:
                self.journal.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--journal {self.journal} cannot be recorded to: {error.strerror}") from error


@dataclass(slots=True)
class Told:
    """What came of a run."""

    options: RunOptions
    result: JobResult | None = None
    """`None` where a standby was not needed."""
    difference: str = ""
    """How the answer differs from the right one."""
    lines: list[str] = field(default_factory=list)
    """What the workload says of its answer."""
    others: list[JobResult] = field(default_factory=list)
    """Jobs that a fault of the load ran beside it."""
    indicators: list[dict[str, Any]] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    """Which stage belongs on which fabric, where the workload spans several."""

    @property
    def ok(self) -> bool:
        """Return whether the job succeeded and its answer is right, or was nobody's to finish."""
        return self.result is None or (self.result.outcome is JobOutcome.SUCCESS and not self.difference)

    @property
    def not_begun(self) -> list[Fault]:
        """Return the faults that were to begin after the job had ended."""
        return [fault for fault in self.options.spec.faults if self.result is not None and fault.at > self.result.wall]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        options, result = self.options, self.result
        told: dict[str, Any] = {
            "workload": options.workload.name,
            "backend": str(options.spec.kind),
            "workers": options.spec.workers,
            "scale": options.scale,
            "faults": [dataclasses.asdict(fault) for fault in options.spec.faults],
            "faults_not_begun": [str(fault.kind) for fault in self.not_begun],
            "ok": self.ok,
            "difference": self.difference,
            "told": self.lines,
        }
        if result is not None:
            told |= _result_as_json(result)
        if self.indicators:
            told["indicators"] = {each["pipeline"]: each["indicators"] for each in self.indicators}
        if self.advice:
            told["fabrics"] = advice_as_json(self.advice)
        return told


def run_workload(options: RunOptions) -> Told:
    """Do everything, and leave no process and no file behind that was not asked for."""
    console = Console(quiet=True) if options.quiet else show.console()
    told = Told(options)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mppobs-run-")))
        journals = options.journal or scratch / "journals"
        mppobs.configure(directory=journals, sample_seconds=1.0)
        beside: SidecarProcess | None = None
        with Board(console) as board:
            if options.sidecar:
                beside = stack.enter_context(SidecarProcess(scratch / "sidecar", journals, _PRICES))
                board.say(f"sidecar   {beside.url}")
            _run_job(options, scratch, board, told)
            if told.result is not None and options.workload.custom_code:
                told.advice = advise(facts_of(journals, told.result.job_id, options.workload.custom_code), Rates())
            if beside is not None and told.result is not None:
                board.wait("waiting until the sidecar has judged the job")
                beside.wait_until_judged([told.result.job_id], _JUDGED_SECONDS)
                told.indicators = beside.indicators()
        _report(console, told)
        if options.serve and beside is not None:
            console.print(f"\nThe sidecar stays up at {beside.url}; Ctrl-C stops it.")
            beside.wait()
    return told


def _run_job(options: RunOptions, scratch: Path, board: Board, told: Told) -> None:
    """Make the data, run the job to its end, and check its answer."""
    chosen, spec = options.workload, options.spec
    board.wait(f"making the data of {chosen.name} at scale {options.scale:g}")
    chosen.prepare(options.data, options.scale)
    plan = chosen.plan(options.data, options.scale, options.shards)
    plan = dataclasses.replace(plan, tenant=options.tenant or plan.tenant)
    _require_targets(plan, spec.faults)
    for fault in spec.faults:
        board.say(f"fault     {fault.kind} at {fault.at:g} s: {fault.about.looks}")
    board.wait(f"starting {spec.workers} workers on {spec.kind}")
    made = make_backend(spec)
    with _executor(options, made, scratch) as executor, _budgets(options, executor, plan.tenant, board):
        if options.standby:
            board.wait(f"standing by for what runs in {options.directory}")
            handle = executor.stand_by()
        else:
            handle = executor.submit(plan)
        if handle is None:
            return
        others = [executor.submit(plan) for _ in range(_more_jobs(spec))]
        told.result = _follow(handle, f"{chosen.name} on {spec.kind}", board)
        told.others = [other.result() for other in others]
    _check(options, board, told)


def _require_targets(plan: Plan, faults: Sequence[Fault]) -> None:
    """Raise `ConfigError` for a fault that is aimed at nothing that the job has. Machines have no names yet."""
    for fault in faults:
        if fault.about.layer is Layer.TASK and fault.kind is not FaultKind.SLOW_NODE:
            fault.require_target([stage.name for stage in plan.stages], "the job")
        elif fault.about.layer in (Layer.LOAD, Layer.CONTROL):
            fault.require_target([], "the job")


def _executor(options: RunOptions, made: Made, scratch: Path) -> Executor:
    spec = options.spec
    simulated = made.backend.capabilities.virtual_time
    faults = () if simulated else arm(of_layer(spec.faults, Layer.TASK), made.clock.time_ns())
    try:
        return Executor(
            spec.workers, options.directory or scratch / "jobs",
            backend=made.backend, seed=spec.seed, faults=faults, clock=made.clock,
        )  # fmt: skip
    except ConfigError:
        made.backend.close()
        raise


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@contextmanager
def _budgets(options: RunOptions, executor: Executor, tenant: str, board: Board) -> Iterator[None]:
    """Watch the budgets of tenants, where that was asked for, while the block runs."""
    if not options.budgets:
        yield
        return

    def spend(name: str, spent: bool) -> None:
        executor.spend(name, spent)
        if name == tenant:
            board.say(f"budget    of tenant {name} is {'spent: the job waits' if spent else 'there again'}")

    with (
        SidecarClient(options.budgets, os.environ.get(TOKEN_VARIABLE)) as client,
        BudgetWatch(
            lambda: client.pages("/slos", "slos", {}, _MOST_SLOS), spend, lambda error: board.say(f"budget    {error}")
        ),
    ):
        yield


def _follow(handle: JobHandle, title: str, board: Board) -> JobResult:
    """Wait for a job's end, showing how far it is. An interrupt cancels it and comes out when it has stopped."""
    try:
        handle.wait(None, lambda progress: board.show(title, progress))
    except KeyboardInterrupt:
        handle.cancel()
        handle.wait()
        raise
    return handle.result()


def _more_jobs(spec: BackendSpec) -> int:
    """Return how many jobs run beside the one that was asked for: the load's faults want more of them."""
    return sum(round(fault.severity) - 1 for fault in of_layer(spec.faults, Layer.LOAD))


def _check(options: RunOptions, board: Board, told: Told) -> None:
    """Compare the answer with the right one, where there is an answer."""
    result, chosen = told.result, options.workload
    if result is None or result.outcome is not JobOutcome.SUCCESS:
        return
    board.wait("checking the answer")
    try:
        chosen.check(options.data, options.scale, result.answer)
    except WrongAnswerError as error:
        told.difference = str(error)
        return
    told.lines = chosen.tell(options.data, options.scale, result.answer)


def _report(console: Console, told: Told) -> None:
    """Say what came of it."""
    result = told.result
    if result is None:
        console.print("nothing was left to finish: the job ended by itself")
        return
    shards = sum(stage.done for stage in result.stages)
    retries = sum(stage.retries for stage in result.stages)
    shuffled = sum(stage.shuffle_read + stage.shuffle_written for stage in result.stages)
    console.print(
        f"{result.job_id}  {result.outcome}  {human_seconds(result.wall)}  {shards} shards  "
        f"{human_bytes(shuffled)} shuffled  {retries} retries  {_attempts(result)}",
        soft_wrap=True,
    )
    _report_troubles(console, result, told.not_begun)
    if result.outcome is JobOutcome.SUCCESS:
        console.print(f"answer    {'WRONG: ' + told.difference if told.difference else 'right'}", soft_wrap=True)
    for line in told.lines:
        console.print(f"          {line}", soft_wrap=True)
    if told.indicators:
        console.print()
        console.print(indicator_table(told.indicators))
    if told.advice:
        console.print()
        console.print(advice_table(told.advice))


def _report_troubles(console: Console, result: JobResult, not_begun: Sequence[Fault]) -> None:
    """Say who took the job over, which shards were given up, and which faults came to nothing."""
    for takeover in result.takeovers:
        late = human_seconds((takeover.taken_ns - takeover.last_beat_ns) / 1e9)
        console.print(
            f"takeover  {takeover.holder} took it from {takeover.lost} {late} after its last beat, "
            f"with {takeover.committed} shards committed",
            soft_wrap=True,
        )
    for failure in result.failures[:3]:
        console.print(f"failed    {_failure(failure)}", soft_wrap=True)
    for fault in not_begun:
        console.print(f"fault     {fault.kind} did not begin: the job had ended before {human_seconds(fault.at)}")


def _failure(failure: ShardFailure) -> str:
    """Return which shard was given up, after what, and why."""
    tries = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
    why = ": ".join(filter(None, (str(failure.reason), failure.error_type, failure.message)))
    return f"{failure.stage}/{failure.shard} after {tries}: {why}"


def _attempts(result: JobResult) -> str:
    """Return how many attempts ended how."""
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(result.attempts.items()))


def _result_as_json(result: JobResult) -> dict[str, Any]:
    return {
        "job_id": result.job_id,
        "pipeline": result.pipeline,
        "outcome": result.outcome,
        "reason": result.reason,
        "seconds": round(result.wall, 4),
        "stages": [dataclasses.asdict(stage) for stage in result.stages],
        "attempts": {str(outcome): count for outcome, count in result.attempts.items()},
        "failures": [dataclasses.asdict(failure) for failure in result.failures],
        "takeovers": [takeover._asdict() for takeover in result.takeovers],
    }
