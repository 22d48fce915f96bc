"""
Which stage belongs on which fabric, and why: measured figures in, advice with its reasons out.

Three fabrics are told apart. A **parallel engine** runs next to the data, exchanges it between stages and splits what
is uneven. **Containers** run any code, keep it up, give it links to its peers and accelerators; data comes to them.
**Functions** come by the thousand for seconds and cost nothing between calls. A rule looks at one thing and speaks for
one fabric, with a weight; the fabric with most weight is advised, and what speaks for others is kept beside it.

>>> scan = StageFacts("scan", shards=48, wall_seconds=60, cpu_seconds=50, input_bytes=8 * 10**9, written_bytes=10**8)
>>> found = advise([scan], Rates())[0]
>>> found.fabric, found.reasons[0].rule
(<Fabric.ENGINE: 'parallel engine'>, 'data volume')
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from mppobs.units import human_bytes, human_seconds

CORE_LINK_BYTES: Final = 10e9 / 8 / 16
"""A core's share of a link of 10 Gbit/s on a machine of 16, in bytes per second: beyond it the network is the limit."""
LIGHT_SHARE: Final = 0.1
"""A stage that needs less than this part of its link share can have its data brought."""
SHUFFLE_RATIO: Final = 0.2
"""Exchanged bytes over input from which the exchange is what the stage is about."""
REDUCTION_RATIO: Final = 0.1
"""Output over input up to which a stage is a filter or a sum, to be done before anything is moved."""
LEAST_REDUCED_BYTES: Final = 1 << 20
"""Less than this is no matter, wherever it goes."""
PEER_SHARE: Final = 0.05
"""Part of the time with peers from which they must run at the same moment. (A tenth is where rings stop scaling.)"""
BUSY_SHARE: Final = 0.8
"""CPU over wall from which a stage is bound by its processor: the upper end of the target for CPU, 60 to 80 %."""
SHORT_SECONDS: Final = 1.0
"""A median below which starting a container costs more than the work. Functions are billed by the millisecond."""
ALONE_BYTES: Final = 64 << 10
"""Exchanged bytes of a shard up to which it needs nothing of the others: a call's payload is of that order."""
MANY_SHARDS: Final = 8
IDLE_SHARE: Final = 0.5
"""Idle part of a stage, (longest − mean) ÷ longest, from which its shards are uneven: half of what is paid waits."""
MOVING_SHARE: Final = 1.0
"""Cost of moving the input over cost of computing from which moving is what would be paid for."""


class Fabric(StrEnum):
    """Where a stage can run. In this order where nothing tells them apart: the data is where the engine is."""

    ENGINE = "parallel engine"
    CONTAINERS = "containers"
    FUNCTIONS = "functions"


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What was measured of one stage over a job. Amounts are sums over its attempts."""

    stage: str
    shards: int
    wall_seconds: float
    cpu_seconds: float
    input_bytes: int = 0
    """What it had to read, of files and of exchanges."""
    read_bytes: int = 0
    """Of that, from exchanges and from peers."""
    written_bytes: int = 0
    """To exchanges and to peers."""
    peer_seconds: float = 0.0
    """Time in exchanges with processes that run at the same moment."""
    median_seconds: float = 0.0
    """Of its attempts, as the one below."""
    longest_seconds: float = 0.0
    custom_code: bool = False
    """Whether its work is code of its own, which an engine can neither look into nor push down."""

    @property
    def exchanged_bytes(self) -> int:
        """Return what it sent and got."""
        return self.read_bytes + self.written_bytes

    @property
    def idle_share(self) -> float:
        """Return the idle part of the stage had each shard a worker: (longest − mean) ÷ longest."""
        mean = self.wall_seconds / max(self.shards, 1)
        return max(0.0, 1.0 - mean / self.longest_seconds) if self.longest_seconds else 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """What things cost, in US dollars."""

    usd_per_core_hour: float = 0.0425
    """Half of a c5.large, on demand."""
    usd_per_gb_moved: float = 0.01
    """Between availability zones of a cloud; into another region or out of it is several times that."""


class Reason(NamedTuple):
    """What one rule found."""

    fabric: Fabric
    """What it speaks for."""
    weight: int
    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Where a stage belongs."""

    stage: str
    fabric: Fabric
    margin: int
    """By how much more speaks for it than for the next best; 0 where it is as good as another."""
    reasons: tuple[Reason, ...]
    """What speaks for it, the weightiest first."""
    against: tuple[Reason, ...]
    """What speaks for others."""


Rule = Callable[[StageFacts, Rates], Reason | None]


def advise(stages: Iterable[StageFacts], rates: Rates) -> list[Advice]:
    """Return for each stage where it belongs, in the order given."""
    return [_advise(facts, rates) for facts in stages]


def _advise(facts: StageFacts, rates: Rates) -> Advice:
    found = sorted(filter(None, (rule(facts, rates) for rule in RULES)), key=lambda reason: -reason.weight)
    weights = {fabric: sum(reason.weight for reason in found if reason.fabric is fabric) for fabric in Fabric}
    best = max(Fabric, key=lambda fabric: weights[fabric])
    next_best = max(weight for fabric, weight in weights.items() if fabric is not best)
    return Advice(
        facts.stage,
        best,
        weights[best] - next_best,
        tuple(reason for reason in found if reason.fabric is best),
        tuple(reason for reason in found if reason.fabric is not best),
    )


def data_volume(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for the engine where a link could not keep up, for containers where it would hardly be used."""
    if not (facts.cpu_seconds and facts.input_bytes):
        return None
    rate = facts.input_bytes / facts.cpu_seconds
    told = f"takes {human_bytes(rate)} in for each CPU second"
    if rate > CORE_LINK_BYTES:
        limit = human_bytes(CORE_LINK_BYTES)
        return Reason(Fabric.ENGINE, 3, "data volume", f"{told}, more than a core's share of a link ({limit})")
    if rate < CORE_LINK_BYTES * LIGHT_SHARE:
        return Reason(Fabric.CONTAINERS, 1, "transformation weight", f"{told}: the data can come to the work")
    return None


def exchange(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for the engine where rows are exchanged between all shards: that is its trade."""
    if facts.peer_seconds or facts.shards < 2 or facts.exchanged_bytes <= ALONE_BYTES * facts.shards:
        return None
    ratio = facts.exchanged_bytes / max(facts.input_bytes, 1)
    if ratio < SHUFFLE_RATIO:
        return None
    return Reason(Fabric.ENGINE, 2, "exchange", f"exchanges {human_bytes(facts.exchanged_bytes)} with other stages")


def reduction(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for the engine where little is left of much: a filter belongs where the data is, if it can go there."""
    if facts.peer_seconds or facts.custom_code or facts.input_bytes < LEAST_REDUCED_BYTES:
        return None
    ratio = facts.written_bytes / facts.input_bytes
    if ratio > REDUCTION_RATIO:
        return None
    told = f"passes on {ratio:.1%} of the {human_bytes(facts.input_bytes)} it reads"
    return Reason(Fabric.ENGINE, 2, "locality", told)


def peers(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for containers where processes wait for each other: a gang that starts together and stays up."""
    share = facts.peer_seconds / facts.wall_seconds if facts.wall_seconds else 0.0
    if share < PEER_SHARE:
        return None
    return Reason(Fabric.CONTAINERS, 3, "peers", f"is with its peers {share:.0%} of its time: all must run at once")


def processor(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for containers where the processor is the limit: a faster one, or an accelerator, can be had there."""
    share = facts.cpu_seconds / facts.wall_seconds if facts.wall_seconds else 0.0
    heavy = facts.input_bytes < CORE_LINK_BYTES * LIGHT_SHARE * facts.cpu_seconds
    if share < BUSY_SHARE or not (facts.custom_code and heavy):
        return None
    return Reason(Fabric.CONTAINERS, 1, "accelerators", f"computes {share:.0%} of its time: an accelerator would pay")


def own_code(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for containers where the work is code of its own."""
    if not facts.custom_code:
        return None
    return Reason(Fabric.CONTAINERS, 2, "custom code", "is code of its own, with libraries of its own")


def short_and_alone(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for functions where many short shards need nothing of each other."""
    alone = not facts.peer_seconds and facts.exchanged_bytes <= ALONE_BYTES * facts.shards
    if not alone or facts.shards < MANY_SHARDS or not 0 < facts.median_seconds < SHORT_SECONDS:
        return None
    told = f"has {facts.shards} shards of {human_seconds(facts.median_seconds)} that need nothing of each other"
    return Reason(Fabric.FUNCTIONS, 2, "elasticity", told)


def unevenness(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for the engine where shards are uneven: it can split them and give their rest to others."""
    if facts.peer_seconds or facts.shards < MANY_SHARDS or facts.idle_share < IDLE_SHARE:
        return None
    return Reason(Fabric.ENGINE, 1, "unevenness", f"would idle {facts.idle_share:.0%} were it not split")


def moving(facts: StageFacts, rates: Rates) -> Reason | None:
    """Speak for the engine where moving the input costs too much beside computing."""
    compute = facts.cpu_seconds / 3600 * rates.usd_per_core_hour
    move = facts.input_bytes / 1e9 * rates.usd_per_gb_moved
    if facts.peer_seconds or not compute or move < MOVING_SHARE * compute:
        return None
    return Reason(Fabric.ENGINE, 1, "cost", f"moving its input would cost {move / compute:.1f} × its computing")


RULES: Final[tuple[Rule, ...]] = (
    data_volume, exchange, reduction, peers, processor, own_code, short_and_alone, unevenness, moving,
)  # fmt: skip
"""Each looks at one thing; the order is that in which reasons of equal weight are told."""
