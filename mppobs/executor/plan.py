"""
What a job is to do, as frozen values: stages, their shards, and who reads whose output.

A plan holds no code, only the import paths of functions, so it can be sent, stored and compared.
`mppobs.executor.task.TaskInput` says what those functions are given and what they may return;
`mppobs.executor.Executor` runs plans.

A word count, with a combiner so that each map task sends every word once:

>>> plan = Plan(
...     pipeline="word-count",
...     stages=(
...         Stage(
...             name="map",
...             task="mppobs.executor.examples:split_words",
...             shards=tuple(ShardPlan(i, {"text": text}) for i, text in enumerate(["a b a", "b c"])),
...             partition_by=("word",),
...             partitions=2,
...             combiner="mppobs.executor.examples:sum_counts",
...         ),
...         Stage(name="reduce", task="mppobs.executor.examples:count_words", reads=("map",)),
...     ),
... )
>>> [plan.shard_count(stage.name) for stage in plan.stages]
[2, 2]
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from mppobs.errors import ConfigError, nearest
from mppobs.model import RunKind, Shard, Tier

MAX_PARTITIONS: Final = 4096
"""More would make exchange files of mostly headers; a wider exchange wants a second level."""
MAX_ATTEMPTS: Final = 200
"""The highest limit of any kind; the scheduler counts in single bytes."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class OnFailure(StrEnum):
    """What becomes of a job when one of its shards has failed for good."""

    STOP = "stop"
    """Stop what runs, lose what is left: nobody wants an answer without that shard."""
    FINISH = "finish"
    """Finish every shard that does not depend on the failed one; the job still ends as a failure."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one shard of a stage may go before it is given up. Times are in seconds."""

    attempts: int = 4
    """Tries that end by the work's or the platform's fault. Four, as in Spark (`spark.task.maxFailures`) and Trino."""
    losses: int = 3
    """Attempts that may die with their worker, on top. Three: Dask's `allowed-failures`. A fourth is no accident."""
    preemptions: int = 20
    """Attempts whose worker was taken away on purpose, on top; not the shard's doing (as Kubernetes' `Ignore`)."""
    timeout: float = 0.0
    """How long one attempt may run, from its start; 0 for no limit."""
    backoff: float = 0.1
    """The wait before the first retry, doubled with each: an upper limit, since jitter shortens it."""
    backoff_cap: float = 30.0
    """The longest wait before a retry."""

    def __post_init__(self) -> None:
        counts = (self.attempts, self.losses, self.preemptions)
        if self.attempts < 1 or min(counts) < 0 or max(counts) > MAX_ATTEMPTS:
            raise ConfigError(f"attempts, losses and preemptions go up to {MAX_ATTEMPTS}, attempts from 1: {self}")
        if min(self.timeout, self.backoff, self.backoff_cap) < 0:
            raise ConfigError(f"timeout, backoff and backoff_cap must not be negative: {self}")


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard of a stage: a part of the work that succeeds or fails as a whole."""

    shard: Shard
    """Its identifier, unique within the stage."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What its task finds in `TaskInput.arguments`, on top of the stage's. Small: data travels in files."""
    input_bytes: int = 0
    """How much it has to read, as far as is known. Large shards are started first."""
    node: str = ""
    """The node that holds its input, where it had best run; empty where that makes no difference."""


@dataclass(frozen=True, slots=True)
class Stage:
    """
    A named step of a job: the same task over many shards.

    Give `shards`, or leave them out and name in `reads` the stages whose output is to be read: there is then one
    shard for each of their partitions, numbered from 0. With both, each shard may read the whole output (broadcast).
    """

    name: str
    """Letters, digits, `_`, `.` and `-`: it is a label of metrics and part of a path."""
    task: str
    """Import path of the function, `package.module:function`. See `mppobs.executor.task`."""
    shards: tuple[ShardPlan, ...] | None = None
    reads: tuple[str, ...] = ()
    """Earlier stages whose output the task reads; they must be done first."""
    after: tuple[str, ...] = ()
    """Earlier stages that must be done first although nothing is read from them."""
    partition_by: tuple[str, ...] = ()
    """Columns whose hash decides the partition of a row of this stage's output; rows with equal values meet."""
    partitions: int = 1
    combiner: str = ""
    """Import path of `combine(table) -> table`, applied to a task's output before it is written."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What the tasks of all shards find in `TaskInput.arguments`."""
    limits: Limits = Limits()
    splittable: bool = False
    """
    Whether a shard that is far larger than the others may be replaced by smaller ones: without `shards`, each reads
    the output of a share of the shards that its partition comes from; with them, `split` says how.
    """
    split: str = ""
    """Import path of `split(arguments, parts) -> sequence of arguments`, for stages with `shards`."""
    memory_bytes: int = 0
    """What an attempt needs, where that is known: it goes to a worker that has as much."""
    priority: int = 0
    """Above 0: not on workers that may be evicted. Below 0: on those first."""
    cap: int = 0
    """Most attempts of the stage at a time, for what it reads or calls; 0 for no limit."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"stage {self.name!r}: a name has letters, digits, '_', '.' and '-', 100 at most")
        for path in (self.task, self.combiner or "a:b", self.split or "a:b"):
            if path.count(":") != 1:
                raise ConfigError(f"stage {self.name!r}: {path!r} is no import path: write 'package.module:function'")
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise ConfigError(f"stage {self.name!r}: partitions must be 1 to {MAX_PARTITIONS}, not {self.partitions}")
        if self.partitions > 1 and not self.partition_by:
            raise ConfigError(f"stage {self.name!r}: {self.partitions} partitions need columns in partition_by")
        if self.shards is None and not self.reads:
            raise ConfigError(f"stage {self.name!r}: give its shards, or the stages that it reads")
        if min(self.memory_bytes, self.cap) < 0:
            raise ConfigError(f"stage {self.name!r}: memory_bytes and cap must not be negative")
        if self.shards is not None:
            _check_shards(self.name, self.shards)
            if self.splittable and not self.split:
                raise ConfigError(f"stage {self.name!r}: shards of its own can be split only by a function in split")

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the stages that must be done before this one starts."""
        return tuple(dict.fromkeys(self.reads + self.after))


@dataclass(frozen=True, slots=True)
class Plan:
    """
    A whole job: who it belongs to, its stages in an order in which each comes after those that it needs.

    The output of the last stage is the job's answer.
    """

    pipeline: str
    stages: tuple[Stage, ...]
    job_id: str = ""
    """Empty: the executor makes one of the pipeline's name and the time."""
    tenant: str = ""
    """Empty, like `owner`, and `None` for the two after it: what `mppobs.configure` says."""
    owner: str = ""
    tier: Tier | None = None
    run_kind: RunKind | None = None
    deadline: float = 0.0
    """Seconds after submission by which the job should have finished; 0 for none. It decides who goes first."""
    on_failure: OnFailure = OnFailure.STOP
    retry_share: float = 0.1
    """Retries that the job may spend, as a share of its planned shards: a tenth, as in the SRE book's client budget."""
    retry_floor: int = 3
    """Retries that even the smallest job may spend, as Envoy's least concurrency of retries."""
    cap: int = 0
    """Most attempts of the job at a time; 0 for no limit."""
    compression: str = "lz4"
    """Of exchanged data: `lz4`, `zstd` or `none`."""

    def __post_init__(self) -> None:
        if not self.pipeline or not self.stages:
            raise ConfigError("a plan needs the name of its pipeline and at least one stage")
        if self.compression not in ("lz4", "zstd", "none"):
            raise ConfigError(f"compression {self.compression!r}: {nearest(self.compression, ['lz4', 'zstd', 'none'])}")
        if min(self.retry_share, self.retry_floor, self.deadline, self.cap) < 0:
            raise ConfigError("retry_share, retry_floor, deadline and cap must not be negative")
        earlier: dict[str, Stage] = {}
        for stage in self.stages:
            _check_order(stage, earlier)
            earlier[stage.name] = stage

    def stage(self, name: str) -> Stage:
        """Return the stage of that name; raises `ConfigError` that names the nearest one."""
        return self.stages[self.index(name)]

    def index(self, name: str) -> int:
        """Return the position of the stage of that name; raises `ConfigError` that names the nearest one."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                return index
        raise ConfigError(f"no stage {name!r}: {nearest(name, [stage.name for stage in self.stages])}")

    def shard_count(self, name: str) -> int:
        """Return how many shards a stage has."""
        stage = self.stage(name)
        return len(stage.shards) if stage.shards is not None else self.stage(stage.reads[0]).partitions


def path_of(function: Callable[..., Any]) -> str:
    """
    Return the import path of a function, for `Stage.task` and `Stage.combiner`.

    Raises `ConfigError` for what no other process could import: lambdas, closures, methods of instances.

    >>> path_of(path_of)
    'mppobs.executor.plan:path_of'
    """
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", "")
    if not name or not module or "<" in name:
        raise ConfigError(f"{function!r} cannot be imported by a worker: define it at the top of a module")
    return f"{module}:{name}"


@functools.lru_cache(maxsize=1024)
def resolve(path: str) -> Callable[..., Any]:
    """
    Return the function behind an import path.

    Raises `ImportError` or `AttributeError` where there is none, and `TypeError` where it cannot be called.

    >>> resolve("math:floor")(2.5)
    2
    """
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{path} is not callable")
    return found  # type: ignore[no-any-return]


def _check_shards(stage: str, shards: tuple[ShardPlan, ...]) -> None:
    """Refuse a stage without shards, or with two of the same name."""
    if not shards:
        raise ConfigError(f"stage {stage!r} has no shards")
    # "1" and 1 are one on a label and in a path, so they are one here.
    counts = Counter(str(part.shard) for part in shards)
    if len(counts) < len(shards):
        raise ConfigError(f"stage {stage!r}: shard {counts.most_common(1)[0][0]!r} is there twice")


def _check_order(stage: Stage, earlier: Mapping[str, Stage]) -> None:
    """Refuse a stage that needs one which is not before it, or reads exchanges of different widths side by side."""
    if stage.name in earlier:
        raise ConfigError(f"stage {stage.name!r} is there twice")
    for need in stage.needs:
        if need not in earlier:
            raise ConfigError(f"stage {stage.name!r} needs {need!r}, which is not before it: {nearest(need, earlier)}")
    widths = {name: earlier[name].partitions for name in stage.reads}
    if stage.shards is None and len(set(widths.values())) > 1:
        raise ConfigError(f"stage {stage.name!r} reads partitions side by side, but their numbers differ: {widths}")
