"""How long a simulated attempt will take and how it will end, from what it needs and the faults that are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from mppobs.executor.faults import Fault, FaultKind, crowd
from mppobs.executor.sabotage import CHOSEN_EVERY, RETRY_AFTER, SKEWED_EVERY, TAIL_SHARE
from mppobs.executor.sim.draw import lognormal, number_of, uniform
from mppobs.model import AttemptOutcome, Reason

_TURNED_AWAY: Final = 0.2
"""Seconds after which a request that is not served fails."""
_TRIES: Final = 3
"""Transfers that fail in a row before the attempt does."""
_OOM_AT: Final = 0.6
"""Share of an attempt's time after which it has touched most of its memory."""


class Demand(NamedTuple):
    """What an attempt takes."""

    job: int
    """The job's number in draws."""
    stage: int
    shard: int
    stage_name: str
    seconds: float
    """At speed 1 and on an ordinary day."""
    sigma: float
    memory_bytes: int = 0
    read_bytes: int = 0
    """From exchanges."""
    requests: int = 0
    root: int = 0
    """The planned shard that it is, or was split off."""
    offset: int = 0
    """Attempts of the shard under earlier coordinators."""
    plain: bool = False
    """Whether it takes nothing but time."""
    pipeline: str = ""


class Site(NamedTuple):
    """Where an attempt runs, as it is at its start."""

    node: str
    speed: float
    memory_bytes: int
    """What it may use."""
    bytes_per_second: float
    served: bool
    """Whether the store takes its requests."""


class Fate(NamedTuple):
    """What will become of an attempt."""

    seconds: float
    outcome: AttemptOutcome = AttemptOutcome.SUCCESS
    reason: Reason = Reason.NONE
    throttled: int = 0
    """Requests turned away."""
    network_errors: int = 0
    retry_after: float = 0.0
    cpu_share: float = 1.0
    """CPU time by wall time."""
    peak_memory: int = 0


_E = AttemptOutcome.ERROR


def decide(seed: int, demand: Demand, number: int, site: Site, faults: Sequence[Fault]) -> Fate:
    """Return the fate of an attempt. Draws are named by the shard and the attempt, so nothing else changes them."""
    seconds = usual_seconds(seed, demand, number, site.speed)
    if demand.read_bytes:
        seconds += demand.read_bytes / site.bytes_per_second
    fate = Fate(seconds, peak_memory=demand.memory_bytes)
    if not site.served:
        return Fate(_TURNED_AWAY, _E, Reason.STORAGE, throttled=1, retry_after=RETRY_AFTER)
    for fault in faults:
        fate = _under(fate, fault, seed, demand, number, site)
    if 0 < site.memory_bytes < fate.peak_memory and fate.outcome is AttemptOutcome.SUCCESS:
        return fate._replace(
            seconds=fate.seconds * _OOM_AT, outcome=_E, reason=Reason.OOM_KILLED, peak_memory=site.memory_bytes
        )
    return fate


def usual_seconds(seed: int, demand: Demand, number: int, speed: float) -> float:
    """Return how long an attempt takes on an ordinary day, but for what it reads from others."""
    if not demand.sigma:
        return demand.seconds / speed
    return demand.seconds / speed * lognormal(demand.sigma, seed, demand.job, demand.stage, demand.shard, number, 2)


def _under(fate: Fate, fault: Fault, seed: int, demand: Demand, number: int, site: Site) -> Fate:
    """Return a fate as one more fault makes it."""
    aim = fault.target
    if fault.kind is FaultKind.SLOW_NODE:
        return _longer(fate, fault.severity) if site.node == (aim or "node-1") else fate
    if aim and aim not in (demand.stage_name, f"{demand.stage_name}/{demand.root}", demand.pipeline):
        return fate
    if fate.outcome is not AttemptOutcome.SUCCESS:
        return fate
    draw = uniform(seed, number_of(fault.kind), demand.job, demand.stage, demand.shard, number)
    chosen = demand.root % CHOSEN_EVERY == 0
    match fault.kind:
        case FaultKind.LONG_TAIL:
            return _longer(fate, fault.severity) if draw < TAIL_SHARE else fate
        case FaultKind.CPU:
            return _longer(fate, fault.severity)._replace(cpu_share=fate.cpu_share / fault.severity)
        case FaultKind.MEMORY:
            return fate._replace(peak_memory=int(fate.peak_memory * fault.severity)) if chosen else fate
        case FaultKind.SHUFFLE:
            return _failing_reads(fate, fault.severity, draw) if demand.read_bytes else fate
        case FaultKind.RETRY_STORM if draw < fault.severity:
            return Fate(fate.seconds * draw / fault.severity, _E, Reason.NETWORK)
        case FaultKind.FABRIC if draw < fault.severity:
            return Fate(_TURNED_AWAY, _E, Reason.NETWORK, network_errors=_TRIES)
        case FaultKind.HOT_PREFIX if draw < crowd(fault.severity, number):
            return Fate(_TURNED_AWAY, _E, Reason.STORAGE, throttled=1, retry_after=RETRY_AFTER)
        case FaultKind.HOT_KEY if chosen and draw < crowd(fault.severity, number):
            return Fate(_TURNED_AWAY, _E, Reason.STORAGE, throttled=1, retry_after=RETRY_AFTER)
    return fate


def skewed_sizes(sizes: Sequence[int], names: Sequence[str], faults: Sequence[Fault]) -> list[int]:
    """
    Return the sizes of a stage's shards under the skew that is on: one key in so many has far more rows.

    A skew may be aimed at any of the stage's names: its own, its pipeline's.

    >>> skewed_sizes([10, 10, 10], ["map"], [Fault(FaultKind.SKEW, severity=8)])
    [80, 10, 10]
    """
    out = list(sizes)
    for fault in faults:
        if fault.kind is FaultKind.SKEW and fault.target in ("", *names):
            for position in range(0, len(out), SKEWED_EVERY):
                out[position] = int(out[position] * fault.severity)
    return out


def _longer(fate: Fate, factor: float) -> Fate:
    return fate._replace(seconds=fate.seconds * factor)


def _failing_reads(fate: Fate, share: float, draw: float) -> Fate:
    """Return a fate in which transfers fail, each with this probability: read again, or too often."""
    failed = 0
    while failed < _TRIES and draw < share ** (failed + 1):
        failed += 1
    if failed == _TRIES:
        return fate._replace(outcome=_E, reason=Reason.NETWORK, network_errors=failed)
    return fate._replace(seconds=fate.seconds * (1 + 0.5 * failed), network_errors=failed)
