"""
Faults on purpose: what can be done to a run, when, how badly and to whom, and which alert must tell of it.

One fault for every failure mode, and one for each of five production stories. They are values: workers apply them
around a task (`mppobs.executor.sabotage`), a wrapped backend applies those of machines and of the control plane
(`mppobs.executor.backends.faulty`), and the simulated world has its own way for each (`mppobs.executor.backends.sim`).

>>> parse_fault("skew:severity=8,at=5,for=30,target=join")
Fault(kind=<FaultKind.SKEW: 'skew'>, at=5.0, lasts=30.0, severity=8.0, target='join')
>>> parse_fault("node-loss").about.alert
'MppWorkersLost'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from mppobs.catalog.alerts import FailureMode
from mppobs.errors import ConfigError, nearest
from mppobs.units import parse_duration


class FaultKind(StrEnum):
    """What is done. The first word of a fault on the command line."""

    SKEW = "skew"
    SHUFFLE = "shuffle"
    HOT_KEY = "hot-key"
    COORDINATOR = "coordinator"
    RETRY_STORM = "retry-storm"
    NODE_LOSS = "node-loss"
    ZONE_LOSS = "zone-loss"
    SLOW_NODE = "slow-node"
    EVICTION = "eviction"
    MEMORY = "memory"
    CPU = "cpu"
    FABRIC = "fabric"
    LONG_TAIL = "long-tail"
    HOT_PREFIX = "hot-prefix"
    STALLED_CONTROL = "stalled-control"
    RUNAWAY = "runaway"


class Layer(StrEnum):
    """Who applies a fault on a real backend; the simulated world applies them all itself."""

    TASK = "task"
    """The worker, around the task."""
    MACHINE = "machine"
    """What stands between the loop and the workers: processes die or are taken away."""
    CONTROL = "control"
    """The same place, but what suffers is the coordinator."""
    LOAD = "load"
    """Whoever submits: there is more work than was planned."""


class About(NamedTuple):
    """What is to be known of a kind of fault."""

    mode: FailureMode
    """The failure mode that it exercises."""
    alert: str
    """The alert that must fire, by its name in `mppobs.catalog.alerts`."""
    layer: Layer
    severity: float
    """How bad it is where nobody says."""
    means: str
    """What the severity is."""
    looks: str
    """What people see."""
    answer: str
    """What is there against it."""

    def as_json(self) -> dict[str, str | float]:
        """Return it as a JSON object."""
        return {name: value if isinstance(value, float) else str(value) for name, value in self._asdict().items()}


_M = FailureMode

KINDS: Final[dict[FaultKind, About]] = {
    FaultKind.SKEW: About(
        _M.SKEW, "MppPartitionSkew", Layer.TASK, 8.0, "times the work in one shard of 50",
        "one shard, or a few, hold the job while the other workers are idle", "dynamic splitting; largest shards first",
    ),
    FaultKind.SHUFFLE: About(
        _M.SHUFFLE, "MppShuffleOverload", Layer.TASK, 0.3, "share of exchange reads that fail once",
        "transfers between workers fail and are read again; stages that read wait", "combiner; locality; retry budget",
    ),
    FaultKind.HOT_KEY: About(
        _M.HOT_KEY, "MppStorageThrottled", Layer.TASK, 0.5, "share of first attempts at one shard of 10 turned away",
        "storage throttles the requests for one key", "backoff with a floor that honours what the storage asks for",
    ),
    FaultKind.COORDINATOR: About(
        _M.COORDINATOR, "MppCoordinatorDown", Layer.CONTROL, 1.0, "1: killed",
        "the heartbeat stops; jobs stay pending", "journal of decisions; a standby takes the lease; idempotent commit",
    ),
    FaultKind.RETRY_STORM: About(
        _M.RETRY_STORM, "MppRetryStorm", Layer.TASK, 0.3, "share of attempts that fail",
        "attempts fail and are tried again; cost rises and nothing more gets done", "backoff with jitter; retry budget",
    ),
    FaultKind.NODE_LOSS: About(
        _M.NODE_LOSS, "MppWorkersLost", Layer.MACHINE, 0.25, "share of the nodes that die",
        "workers vanish with what they ran; the queue grows", "losses are reassigned, not counted against the shard",
    ),
    FaultKind.ZONE_LOSS: About(
        _M.NODE_LOSS, "MppWorkersLost", Layer.MACHINE, 1.0, "share of one zone's nodes that die",
        "all workers of a zone vanish at once", "reassignment across zones; autoscaling",
    ),
    FaultKind.SLOW_NODE: About(
        _M.SKEW, "MppPartitionSkew", Layer.TASK, 8.0, "times longer on one node",
        "shards of ordinary size take long, all on one node", "a copy on another node; the slow one is set aside",
    ),
    FaultKind.EVICTION: About(
        _M.NODE_LOSS, "MppWorkersLost", Layer.MACHINE, 0.05, "share of the nodes that are taken back, one by one",
        "spot nodes get a notice and are gone soon after",
        "draining; no failure of the shard; on-demand for critical work",
    ),
    FaultKind.MEMORY: About(
        _M.STARVATION, "MppWorkerStarved", Layer.TASK, 2.0, "times the memory in one shard of 10",
        "workers run out of memory, again and again on the same shards",
        "retry with more memory, alone on its worker",
    ),
    FaultKind.CPU: About(
        _M.STARVATION, "MppWorkerStarved", Layer.TASK, 3.0, "times the wall time for the same CPU time",
        "attempts are throttled: wall time grows, CPU time does not", "limits; autoscaling",
    ),
    FaultKind.FABRIC: About(
        _M.SHUFFLE, "MppShuffleOverload", Layer.TASK, 0.9, "share of attempts whose transfers fail",
        "the network fails for a while: everything that reads fails at once and is retried at once",
        "backoff spreads the retries; the budget stops the cascade",
    ),
    FaultKind.LONG_TAIL: About(
        _M.SLO, "MppDeadlineAtRisk", Layer.TASK, 20.0, "times longer for one attempt of 50, by chance",
        "nearly done for a long time, while what waits downstream misses its own deadline", "speculative copies",
    ),
    FaultKind.HOT_PREFIX: About(
        _M.HOT_KEY, "MppStorageThrottled", Layer.TASK, 0.05, "share of first attempts that are turned away",
        "many workers on one prefix of an object store get 503 Slow Down", "backoff with a floor; caps",
    ),
    FaultKind.STALLED_CONTROL: About(
        _M.SLO, "MppCheckpointStale", Layer.CONTROL, 1.0, "1: nothing gets through",
        "the control plane lives but schedules and checkpoints nothing", "an alert on the lag; workers keep their work",
    ),
    FaultKind.RUNAWAY: About(
        _M.COST, "MppQuotaExhausted", Layer.LOAD, 4.0, "times as many jobs as planned",
        "jobs run side by side and overrun the budget", "caps and quotas by tenant; a spent budget holds the rest",
    ),
}  # fmt: skip
"""Every kind of fault."""

_KEYS: Final = ("at", "for", "severity", "target")
_NEVER: Final = 1 << 62
_CENTURY: Final = 3.2e9
_MAX_FACTOR: Final = 1e6
"""A second becomes twelve days."""
_MAX_JOBS: Final = 1000.0
"""Times as many jobs as planned: more are not a load but a full memory."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on schedule. The same plan, faults and seeds hit the same shards."""

    kind: FaultKind
    at: float = 0.0
    """Seconds from the start of the run until it begins."""
    lasts: float = 0.0
    """Seconds until it is over; 0: until the run is."""
    severity: float = 0.0
    """How bad, in the unit of its kind (`About.means`); 0 in the constructor: the kind's own."""
    target: str = ""
    """
    A stage, `stage/shard`, a worker, a node or a zone, as its kind has use for; in simulations also a pipeline, and a
    tenant for more jobs. Empty: any stage, some node or zone.
    """

    def __post_init__(self) -> None:
        numbers = (self.at, self.lasts, self.severity)
        if min(numbers) < 0 or not all(map(math.isfinite, numbers)):
            raise ConfigError(f"fault {self.kind}: at, for and severity must be finite and must not be negative")
        if max(self.at, self.lasts) > _CENTURY:
            raise ConfigError(f"fault {self.kind}: at and for are seconds, a century at most")
        if self.severity == 0:
            object.__setattr__(self, "severity", self.about.severity)
        if self.is_share and self.severity > 1:
            raise ConfigError(f"fault {self.kind}: severity is a share, 1 at most, not {self.severity:g}")
        most = _MAX_JOBS if self.kind is FaultKind.RUNAWAY else _MAX_FACTOR
        if self.about.means.startswith("times") and not 1 <= self.severity <= most:
            raise ConfigError(f"fault {self.kind}: severity is a factor, 1 to {most:,.0f}, not {self.severity:g}")

    @property
    def about(self) -> About:
        """Return what is to be known of its kind."""
        return KINDS[self.kind]

    @property
    def is_share(self) -> bool:
        """Return whether the severity is a share in [0, 1], and not a factor."""
        return self.about.means.startswith("share")

    def require_target(self, known: Iterable[str], where: str) -> None:
        """
        Raise `ConfigError` where the target is none of what is known: such a fault would hit nobody, and say nothing.

        What follows a `/` is not looked at: a stage has its shards only when it runs.

        >>> Fault(FaultKind.SKEW, target="jion/3").require_target(["scan", "join"], "the job")
        Traceback (most recent call last):
        mppobs.errors.ConfigError: fault skew: the job has no target 'jion': did you mean 'join'?
        """
        names, aim = list(known), self.target.partition("/")[0]
        if self.target and aim not in names:
            hint = nearest(aim, names) if names else "leave it out"
            raise ConfigError(f"fault {self.kind}: {where} has no target {aim!r}: {hint}")

    def hits(self, *what: object, share: float | None = None) -> bool:
        """
        Return whether something, named by its parts, is among the share that is hit: always the same answer.

        >>> fault = Fault(FaultKind.RETRY_STORM, severity=0.3)
        >>> sum(fault.hits("map", shard, 0) for shard in range(1000))
        316
        """
        wanted = self.severity if share is None else share
        name = "/".join(map(str, (self.kind, self.at, *what)))
        # Not a checksum: those of neighbouring names are related, and a retry would meet what its first attempt met.
        return int.from_bytes(blake2b(name.encode(), digest_size=4).digest()) < wanted * 2**32


def crowd(severity: float, number: int) -> float:
    """
    Return the share of attempts of a number that a throttled store turns away.

    Who has waited meets half the crowd: the others wait as well.

    >>> crowd(0.5, 0), crowd(0.5, 1)
    (0.5, 0.25)
    """
    return severity / (1 << number)


class ArmedFault(NamedTuple):
    """A fault with its place in time: wall nanoseconds, or those of a simulated clock."""

    fault: Fault
    begin_ns: int
    end_ns: int

    def active(self, now_ns: int) -> bool:
        """Return whether it is on."""
        return self.begin_ns <= now_ns < self.end_ns


def arm(faults: Iterable[Fault], began_ns: int) -> tuple[ArmedFault, ...]:
    """Return faults with their place in time, for a run that began then."""
    armed = []
    for fault in faults:
        begin = began_ns + round(fault.at * 1e9)
        armed.append(ArmedFault(fault, begin, begin + round(fault.lasts * 1e9) if fault.lasts else _NEVER))
    return tuple(armed)


def of_layer(faults: Iterable[Fault], layer: Layer) -> tuple[Fault, ...]:
    """Return the faults that are applied at one layer."""
    return tuple(fault for fault in faults if fault.about.layer is layer)


def parse_fault(text: str) -> Fault:
    """
    Return the fault that a text describes: `kind:severity=8,at=5,for=30,target=join`; all but the kind is optional.

    Times are seconds, or durations such as `2m`. Raises `ConfigError` with the nearest right word.

    >>> parse_fault("slownode:severity=3")
    Traceback (most recent call last):
    mppobs.errors.ConfigError: fault 'slownode:severity=3': no kind 'slownode': did you mean 'slow-node'?
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in KINDS:
        raise ConfigError(f"fault {text!r}: no kind {kind!r}: {nearest(kind, map(str, KINDS))}")
    values = _values(text, kind, rest)
    return Fault(
        FaultKind(kind),
        _seconds(text, values.get("at", "0")),
        _seconds(text, values.get("for", "0")),
        _number(text, values.get("severity", "0")),
        values.get("target", ""),
    )


def parse_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """Return the faults of some texts. Raises `ConfigError` as `parse_fault` does."""
    return tuple(parse_fault(text) for text in texts)


def _values(text: str, kind: str, rest: str) -> dict[str, str]:
    """Return what is written behind the kind of a fault, by key."""
    values: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = (each.strip() for each in part.partition("="))
        if key not in _KEYS:
            raise ConfigError(f"fault {text!r}: no key {key!r}: {nearest(key, _KEYS)}")
        if not value or key in values:
            what = "is there twice" if value else f"has no value: write {key}=VALUE"
            raise ConfigError(f"fault {text!r}: {key} {what}")
        values[key] = value
    if "severity" in values and not _number(text, values["severity"]):
        usual = f"{KINDS[FaultKind(kind)].severity:g}"
        raise ConfigError(f"fault {text!r}: without severity there is no fault: leave it out for the usual {usual}")
    return values


def _seconds(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        pass  # then it has a unit
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigError(f"fault {text!r}: {error}") from None


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"fault {text!r}: severity {value!r} is no number") from None
