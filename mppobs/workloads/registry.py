"""
The bundled workloads by name, each loaded only when it is used: one may need packages that another does not.

>>> sorted(WORKLOADS)[-1] in WORKLOADS
True
>>> workload("tpch-q11")
Traceback (most recent call last):
    ...
mppobs.errors.ConfigError: no workload 'tpch-q11': did you mean 'tpch-q1'?
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from mppobs.errors import ConfigError, nearest
from mppobs.executor.plan import Plan
from mppobs.workloads.base import Setup, Value, Work

_ON: Final = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something of a workload that can be set."""

    name: str
    default: Value
    help: str
    least: float = 0.0
    """The smallest number that has a meaning, where it is a number."""

    def parse(self, text: str) -> Value:
        """Return the value that a text stands for, in the type of the default. Raises `ConfigError`."""
        if isinstance(self.default, bool):
            if text.lower() not in _ON:
                raise ConfigError(f"{self.name}={text}: write on or off")
            return _ON[text.lower()]
        if isinstance(self.default, str):
            return text
        try:
            value = type(self.default)(text)
        except ValueError:
            kind = "a whole number" if isinstance(self.default, int) else "a number"
            raise ConfigError(f"{self.name}={text}: it must be {kind}") from None
        if not self.least <= value < math.inf:
            raise ConfigError(f"{self.name}={text}: it must be a number from {self.least:g} on")
        return value


@dataclass(frozen=True, slots=True)
class Workload:
    """A bundled workload: what it is for, and the three things that can be done with it."""

    name: str
    summary: str
    pattern: str
    """The shape of parallel work that it stands for."""
    stresses: str
    """What of the executor and of its observation it exercises."""
    home: str
    """`module:name` of its `Work`."""
    parameters: tuple[Parameter, ...] = ()
    custom_code: tuple[str, ...] = ()
    """Stages whose work is code of its own. With any the job spans fabrics, and a run tells what belongs where."""
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)
    """What parameters were set to; the others have their defaults."""

    def prepare(self, directory: Path, scale: float) -> None:
        """Make the data below `directory`, unless it is there. Raises `ConfigError` where that cannot be done."""
        self._work().prepare(self._setup(directory, scale))

    def plan(self, directory: Path, scale: float, shards: int) -> Plan:
        """Return the plan for prepared data, with `shards` shards in its widest stage where the data allows it."""
        if shards < 1:
            raise ConfigError(f"{self.name}: a stage needs at least one shard, not {shards}")
        return self._work().plan(self._setup(directory, scale), shards)

    def check(self, directory: Path, scale: float, answer: Any) -> None:
        """Compare a job's answer with that of a plain computation. Raises `WrongAnswerError`."""
        self._work().check(self._setup(directory, scale), answer)

    def tell(self, directory: Path, scale: float, answer: Any) -> list[str]:
        """Return what is worth saying of a right answer, in lines for people; often nothing."""
        return self._work().tell(self._setup(directory, scale), answer)

    def configured(self, settings: Mapping[str, str]) -> Workload:
        """Return the workload with parameters set from text. Raises `ConfigError` that names the nearest one."""
        known = {parameter.name: parameter for parameter in self.parameters}
        values = dict(self.values)
        for name, text in settings.items():
            if name not in known:
                hint = nearest(name, known) if known else "it has none"
                raise ConfigError(f"workload {self.name!r} has no parameter {name!r}: {hint}")
            values[name] = known[name].parse(text)
        return dataclasses.replace(self, values=values)

    def _setup(self, directory: Path, scale: float) -> Setup:
        defaults = {parameter.name: parameter.default for parameter in self.parameters}
        return Setup(Path(directory), scale, MappingProxyType(defaults | dict(self.values)))

    def _work(self) -> Work:
        """Return the workload's functions; loading them may need packages that only it does."""
        module, _, name = self.home.partition(":")
        found = getattr(importlib.import_module(module), name)
        if not isinstance(found, Work):
            raise TypeError(f"{self.home} is no Work")
        return found


def workload(name: str) -> Workload:
    """Return the workload of that name. Raises `ConfigError` that names the nearest one."""
    found = WORKLOADS.get(name)
    if found is None:
        raise ConfigError(f"no workload {name!r}: {nearest(name, WORKLOADS)}")
    return found


_TRAINING: Final = (
    Parameter("workers", 2, "Processes that compute gradients.", least=1),
    Parameter("steps", 24, "Steps of training.", least=1),
    Parameter("batch", 256, "Sequences of a step, over all workers.", least=1),
    Parameter("hidden", 16, "Width of the hidden state.", least=1),
    Parameter("checkpoint-every", 8, "Steps from one checkpoint to the next.", least=1),
    Parameter("kill-step", 0, "The step at which a worker is killed, once; 0 for none."),
)
_SERVERS: Final = Parameter("servers", 1, "Processes that hold the weights.", least=1)

_ALL: Final = (
    Workload(
        name="tpch-q1",
        summary="TPC-H Q1, pricing summary: a scan that shrinks at once",
        pattern="map, combine, reduce",
        stresses="scan speed, stragglers, combiner",
        home="mppobs.workloads.tpch_q1:Q1_WORK",
    ),
    Workload(
        name="tpch-q3",
        summary="TPC-H Q3, shipping priority: two joins and a top ten",
        pattern="shuffle-heavy join",
        stresses="exchanges, lost workers and retries in the middle of a job",
        home="mppobs.workloads.tpch_q3:Q3_WORK",
    ),
    Workload(
        name="tpch-q5",
        summary="TPC-H Q5, local supplier volume: six tables, joined by broadcast and by exchange",
        pattern="star join",
        stresses="broadcast reads, stages side by side, a long chain of stages",
        home="mppobs.workloads.tpch_q5:Q5_WORK",
    ),
    Workload(
        name="tpch-q18",
        summary="TPC-H Q18, large volume customer: a group-by of as many groups as orders",
        pattern="group-by of high cardinality with HAVING",
        stresses="memory of reducers, bytes exchanged, stages that run almost empty",
        home="mppobs.workloads.tpch_q18:Q18_WORK",
    ),
    Workload(
        name="rnn-ring",
        summary="Training of a small RNN by ring all-reduce, on features that a query prepared",
        pattern="ring all-reduce, hybrid of two fabrics",
        stresses="one job over two fabrics, gangs that restart as one, checkpoints and resume",
        home="mppobs.workloads.rnn:RING_WORK",
        parameters=_TRAINING,
        custom_code=("train", "step"),
    ),
    Workload(
        name="rnn-server",
        summary="The same training with parameter servers",
        pattern="parameter server, hybrid of two fabrics",
        stresses="everybody calling one process at once, bytes that grow with the workers",
        home="mppobs.workloads.rnn:SERVER_WORK",
        parameters=(*_TRAINING, _SERVERS),
        custom_code=("train", "step", "serve"),
    ),
    Workload(
        name="thumbnails",
        summary="Thumbnails of what customers upload: many short tasks, one that gathers",
        pattern="fan-out and fan-in of short tasks",
        stresses="scheduler latency, cold starts, caps for each customer, cost of a call",
        home="mppobs.workloads.thumbnails:WORK",
        parameters=(
            Parameter("customers", 4, "Customers; each uploads half as much as the one before.", least=1),
            Parameter("limit", 2, "Shards of one customer that may run at a time; 0 for no limit."),
            Parameter("pixels", 64, "Longest side of a thumbnail.", least=1),
        ),
    ),
    Workload(
        name="reindex",
        summary="Logs into an inverted index, written to a store that throttles its prefixes",
        pattern="map-reduce with hot keys and a sink",
        stresses="hot terms, throttled writes, sinks that may be written twice",
        home="mppobs.workloads.reindex:WORK",
        parameters=(
            Parameter("buffered", True, "Write few large objects fanned out over prefixes, not one for each term."),
            Parameter("slices", 4, "Slices that a hot term is cut into; 1 leaves it whole.", least=1),
            Parameter("writes-per-second", 400.0, "What the store takes on one prefix.", least=1.0),
        ),
    ),
    Workload(
        name="alignment",
        summary="Short reads find their place in a genome by the words that both have",
        pattern="join with skewed keys",
        stresses="skew by repeats, inputs that are no guide to the work",
        home="mppobs.workloads.alignment:WORK",
        parameters=(Parameter("mask-above", 0, "Leave out words that are there more often; 0 for none."),),
    ),
    Workload(
        name="lookups",
        summary="Lookups in a remote store by workers with a cache beside them",
        pattern="workers with a cache beside them",
        stresses="locality, warm caches lost with their worker",
        home="mppobs.workloads.lookups:WORK",
        parameters=(
            Parameter("locality", True, "Send shards to the node whose cache knows their blocks."),
            Parameter("nodes", "node-0,node-1", "The names of the nodes, with commas between."),
            Parameter("cache-blocks", 48, "Blocks that a cache holds.", least=1),
            Parameter("latency-ms", 1.0, "How long the remote store takes for a block."),
        ),
    ),
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({each.name: each for each in _ALL})
"""Every bundled workload by its name, in the order in which they are told of."""
