"""
One attempt, where it runs: the task is called, its output written and committed, and a report made of it.

Nothing here knows which backend called it, so an attempt does and records the same on every one of them.
"""

from __future__ import annotations

import functools
import pickle
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final, NamedTuple

import pyarrow as pa

from mppobs.errors import ConfigError
from mppobs.executor.exchange import ExchangeError, Output
from mppobs.executor.faults import ArmedFault
from mppobs.executor.files import open_files
from mppobs.executor.keys import may_meet, unpacked
from mppobs.executor.plan import resolve
from mppobs.executor.sabotage import run_sabotaged
from mppobs.executor.shuffle import write_table
from mppobs.executor.task import MAX_VALUE_BYTES, TaskError, TaskInput, Throttled
from mppobs.instrument.attempt import Attempt
from mppobs.instrument.outcomes import SUCCESS, Ending, ending_of
from mppobs.model import AttemptOutcome, Reason, Shard

_MESSAGE_CHARS: Final = 500
_PERMANENT: Final = (TaskError, ConfigError)


class Portion(NamedTuple):
    """A part of what a split shard would have read: of its sources, counted from 0, each `of`-th from `number` on."""

    number: int
    of: int


WHOLE: Final = Portion(0, 1)


class Input(NamedTuple):
    """An earlier stage whose output is read."""

    stage: int
    sources: Sequence[int]
    """The positions of the shards whose output counts, in their order."""
    whole: bool
    """Whether each shard reads everything, and not its own partition."""
    divided: bool = False
    """Whether the parts of a split shard share its sources out among them; else each reads all of them."""


@dataclass(frozen=True, slots=True)
class StageOrder:
    """What all attempts of a stage share. A worker gets it once."""

    job_id: str
    root: str | Path
    """The job's directory of exchanged data, or its URL."""
    index: int
    name: str
    task: str
    combiner: str
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Input]
    exchanged: bool
    """Whether a later stage reads the output."""
    partition_by: tuple[str, ...]
    partitions: int
    compression: str
    context: Mapping[str, str]
    """The job, as `mppobs.inject` gave it."""
    faults: tuple[ArmedFault, ...] = ()
    """What is done to the stage's attempts on purpose."""
    fence: int = 0
    """Which of the job's coordinators gave this order, from 1: attempts of two never write in the same place."""


class AttemptOrder(NamedTuple):
    """One attempt to be made."""

    shard: int
    """Its position in the stage."""
    name: Shard
    number: int
    arguments: Mapping[str, Any] | None
    """The shard's own, on top of the stage's."""
    assigned_ns: int
    """When the coordinator gave it to this worker: wall time."""
    partition: int = -1
    """Of what it reads, where that is not its own position: it is a part of a shard that was split."""
    portion: Portion = WHOLE
    """What it reads of that."""
    speculative: bool = False
    """Whether another attempt at the shard ran when this one was given out."""


class Report(NamedTuple):
    """How an attempt ended and what it left, for the coordinator."""

    outcome: AttemptOutcome
    reason: Reason = Reason.NONE
    error_type: str = ""
    message: str = ""
    duration_ns: int = 0
    permanent: bool = False
    throttled: bool = False
    retry_after_ns: int = 0
    output: Output | None = None
    """What is in the shard's place now: of this attempt, or with `superseded` of the one that won."""
    value: bytes = b""
    """What the task returned, pickled, where it was no table."""
    bytes_read: int = 0
    """From exchanges."""
    lost: tuple[int, int] | None = None
    """Stage and position of the shard whose output could not be read, where that was it."""
    peak_memory_bytes: int = 0
    """The most that the worker has ever held; 0 where unknown."""


class StoppedError(BaseException):
    """
    Raised within the task of an attempt that is to end early.

    Not an `Exception`, so that a task which tries again after any of these does not survive it.
    """

    def __init__(self, outcome: AttemptOutcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Work:
    """What an attempt has read so far."""

    __slots__ = ("attempt", "bytes_read", "files", "kinds", "lost", "order", "stage")

    def __init__(self, stage: StageOrder, order: AttemptOrder, attempt: Attempt) -> None:
        self.stage = stage
        self.order = order
        self.attempt = attempt
        self.files = open_files(stage.root, stage.fence)
        self.bytes_read = 0
        self.lost: tuple[int, int] | None = None
        self.kinds: set[tuple[str, int]] = set()
        """Of the keys by which what was read is partitioned, and the stages that wrote it."""

    def read(self, name: str) -> Iterator[pa.Table]:
        """Yield what the shards of an earlier stage wrote for this one, counting it."""
        source = self.stage.inputs.get(name)
        if source is None:
            raise TaskError(f"stage {self.stage.name!r} does not read {name!r}, but {sorted(self.stage.inputs)}")
        order = self.order
        partition = order.shard if order.partition < 0 else order.partition
        sources = source.sources[order.portion.number :: order.portion.of] if source.divided else source.sources
        for shard in sources:
            try:
                with self.files.opened(source.stage, shard) as reader:
                    if not source.whole:
                        self.expect(name, reader.kinds)
                    table, size = reader.everything() if source.whole else reader.partition(partition)
            except ExchangeError:
                self.lost = (source.stage, shard)
                raise
            self.bytes_read += size
            self.attempt.add(rows=table.num_rows, shuffle_read=size)
            yield table

    def expect(self, name: str, kinds: int) -> None:
        """Raise `TaskError` where equal keys of two stages are not in the same partition, since they differ in kind."""
        if (name, kinds) in self.kinds:
            return
        for other, others in self.kinds:
            for place, pair in enumerate(zip(unpacked(others), unpacked(kinds), strict=True)):
                if not may_meet(*pair):
                    raise TaskError(
                        f"{self.stage.name!r} reads {other!r} and {name!r} side by side, but key {place + 1} by which "
                        f"they are partitioned is {pair[0].said} in one and {pair[1].said} in the other: equal values "
                        "are not in the same partition; cast one of them"
                    )
        self.kinds.add((name, kinds))

    def task_input(self) -> TaskInput:
        """Return what the task is given."""
        stage, order = self.stage, self.order
        arguments = {**stage.arguments, **order.arguments} if order.arguments else stage.arguments
        return TaskInput(stage.job_id, stage.name, order.name, order.number, arguments, self.read)

    def call(self) -> Any:
        """Call the task, under the faults that there are, and return what it returns."""
        stage, function, given = self.stage, _function(self.stage.task), self.task_input()
        if stage.faults:
            # What befalls a shard befalls those that it is split into: splitting makes them smaller, not well.
            position = self.order.shard if self.order.partition < 0 else self.order.partition
            return run_sabotaged(function, given, stage.faults, position, self.attempt)
        return function(given)

    def write(self, table: pa.Table) -> Output:
        """Write the attempt's output beside its place."""
        stage, order = self.stage, self.order
        if stage.combiner:
            table = _function(stage.combiner)(table)
        with self.files.create(stage.index, order.shard, order.number) as file:
            return write_table(
                file,
                table,
                stage.partition_by,
                stage.partitions,
                attempt=order.number,
                compression=stage.compression,
            )

    def commit(self, output: Output) -> Output:
        """Put the output in its place; return what is there then, which may be another attempt's."""
        stage, order = self.stage, self.order
        winner = self.files.commit(stage.index, order.shard, order.number)
        if winner is None:
            if stage.exchanged:
                self.attempt.add(shuffle_written=output.size)
            return output
        self.files.discard(stage.index, order.shard, order.number)
        return winner


def run_attempt(stage: StageOrder, order: AttemptOrder, attempt: Attempt, allow_stop: Callable[[bool], None]) -> Report:
    """
    Make an attempt and return its report; no exception comes out.

    `attempt` is the one that is being recorded, and is told how it ended. `allow_stop` is called with `True` when
    `StoppedError` may be raised from now on, and with `False` when it must not be any more: the output is then put in
    its place.
    """
    work = _Work(stage, order, attempt)
    began = monotonic_ns()
    output: Output | None = None
    value = b""
    try:
        try:
            allow_stop(True)
            result = work.call()
            if isinstance(result, pa.Table):
                output = work.write(result)
            else:
                value = _value(stage, result)
        finally:
            allow_stop(False)
        if output is not None:
            output = work.commit(output)
    except BaseException as error:  # also SystemExit: a task may not end its worker
        work.files.discard(stage.index, order.shard, order.number)
        report = _failed(error, attempt, monotonic_ns() - began)
        return report._replace(bytes_read=work.bytes_read, lost=work.lost, peak_memory_bytes=_peak_memory())
    ending = SUCCESS
    if output is not None and output.attempt != order.number:
        attempt.superseded()
        ending = Ending(AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED)
    return Report(
        ending.outcome,
        ending.reason,
        duration_ns=monotonic_ns() - began,
        output=output,
        value=value,
        bytes_read=work.bytes_read,
        peak_memory_bytes=_peak_memory(),
    )


def apply_chunk(task: TaskInput) -> list[Any]:
    """Call a plain function with each of the shard's items: the task behind `Executor.map`."""
    return list(map(resolve(task.arguments["function"]), task.arguments["items"]))


@functools.lru_cache(maxsize=1024)
def _function(path: str) -> Callable[..., Any]:
    """Return the function behind an import path. Raises `TaskError` where there is none."""
    try:
        return resolve(path)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise TaskError(f"{path} cannot be imported: {error}") from error


def _value(stage: StageOrder, result: object) -> bytes:
    """Return what a task gave that is no table, pickled. Raises `TaskError` where it cannot be used."""
    if stage.exchanged:
        raise TaskError(f"{stage.task} gave a {type(result).__name__}, but a later stage reads its tables")
    if result is None:
        return b""
    try:
        data = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever the value's own code raises
        raise TaskError(f"{stage.task} gave a {type(result).__name__} that cannot be sent: {error}") from error
    if len(data) > MAX_VALUE_BYTES:
        raise TaskError(f"{stage.task} gave {len(data)} bytes, more than {MAX_VALUE_BYTES}: return a table instead")
    return data


def _peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _failed(error: BaseException, attempt: Attempt, duration_ns: int) -> Report:
    """Return the report of an attempt that this error ended, and have it recorded so."""
    stopped = isinstance(error, StoppedError)
    ending = _STOPPED[error.outcome] if isinstance(error, StoppedError) else ending_of(error)
    if ending.outcome is AttemptOutcome.SUCCESS:  # SystemExit(0), which leaves no output
        ending = Ending(AttemptOutcome.FAILURE, Reason.EXCEPTION, type(error).__name__)
    attempt.end_as(ending.outcome, reason=ending.reason, error_type=ending.error_type)
    throttled = isinstance(error, Throttled)
    if throttled:
        attempt.add(storage_throttled=1)
    return Report(
        ending.outcome,
        ending.reason,
        ending.error_type,
        "" if stopped else str(error)[:_MESSAGE_CHARS],
        duration_ns,
        permanent=isinstance(error, _PERMANENT),
        throttled=throttled,
        retry_after_ns=int(error.retry_after * 1e9) if isinstance(error, Throttled) else 0,
    )


_STOPPED: Final = {
    AttemptOutcome.TIMEOUT: Ending(AttemptOutcome.TIMEOUT, Reason.DEADLINE),
    AttemptOutcome.SUPERSEDED: Ending(AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED),
    AttemptOutcome.CANCELLED: Ending(AttemptOutcome.CANCELLED, Reason.SHUTDOWN),
}
