"""
Which policies the scheduler follows, and how far: each can be switched off, so that its worth can be measured.

Times are in seconds. Every default says where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mppobs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant may have of the workers."""

    weight: float = 1.0
    """Its part of them, beside the other tenants that want some: 2 gets twice as much as 1."""
    quota: int = 0
    """Most attempts that workers may hold for it at a time, even if others are idle; 0 for no limit."""
    jobs: int = 0
    """Most jobs of it that may have attempts at a time, those with the earliest deadlines first; 0 for no limit."""

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.quota < 0 or self.jobs < 0:
            raise ConfigError(f"a share's weight must be positive, its quota and jobs not negative: {self}")


@dataclass(frozen=True, slots=True)
class Speculation:
    """When a second attempt at a shard is begun beside one that runs long, and not because it has more to do."""

    done: float = 0.75
    """Share of the stage's shards that must be committed. Spark before 4.0 and Flink: 0.75."""
    least_done: int = 5
    """Shards that must be committed: a median of fewer says little."""
    factor: float = 2.0
    """Times the median that an attempt must have run. Between Flink's 1.5 and Spark's 3; Hadoop's rule comes to 1.5."""
    floor: float = 5.0
    """Seconds that an attempt must have run: for less, a copy costs more than it brings."""
    slow_rate: float = 0.75
    """Below this share of the median rate a shard is slow, above it is large. Spark's `processRateMultiplier`."""
    share: float = 0.1
    """Most copies at a time, as a share of the workers. LATE's and Hadoop's cap."""

    def __post_init__(self) -> None:
        if not (0 <= self.done <= 1 and self.least_done >= 1 and self.factor >= 1 and self.floor >= 0):
            raise ConfigError(f"speculation: done in [0, 1], least_done and factor from 1, floor from 0: {self}")
        if not (0 < self.slow_rate <= 1 and 0 < self.share <= 1):
            raise ConfigError(f"speculation: slow_rate and share are in (0, 1]: {self}")


@dataclass(frozen=True, slots=True)
class Splitting:
    """When a shard of a stage that says it can be split is replaced by smaller ones."""

    factor: float = 5.0
    """Times the median size. Spark's `skewedPartitionFactor`."""
    least_bytes: int = 64 << 20
    """Nothing smaller is split. Spark's advisory partition size, 64 MB: what a part should have."""
    most_parts: int = 32
    """A limit of the files that a split makes; it takes care of 32 times the median."""

    def __post_init__(self) -> None:
        if self.factor < 1 or self.least_bytes < 0 or self.most_parts < 2:
            raise ConfigError(f"splitting: factor from 1, least_bytes from 0, most_parts from 2: {self}")


@dataclass(frozen=True, slots=True)
class SlowNodes:
    """When a node is given nothing for a while because its attempts run long for no reason of their own."""

    strikes: int = 2
    """Stragglers that it must have had: one may be chance."""
    seconds: float = 60.0
    """How long. Flink's `block-slow-node-duration`: 1 min."""
    share: float = 0.1
    """Most nodes at a time, as a share of them, but one at least where there are two: a slow half is the norm."""

    def __post_init__(self) -> None:
        if self.strikes < 1 or self.seconds <= 0 or not 0 < self.share < 1:
            raise ConfigError(f"slow nodes: strikes from 1, seconds above 0, share in (0, 1): {self}")


@dataclass(frozen=True, slots=True)
class Spot:
    """Who runs on workers that may be evicted. Where there are no others, everybody does."""

    on_demand_from: int = 1
    """Stages of this priority and above do not."""
    evictions: int = 2
    """Nor does a shard that was evicted so often: a third time would cost more than it saves."""

    def __post_init__(self) -> None:
        if self.evictions < 1:
            raise ConfigError(f"spot: evictions from 1: {self}")


@dataclass(frozen=True, slots=True)
class Autoscale:
    """How many workers there are to be, by the work at hand."""

    lowest: int
    highest: int
    drain: float = 300.0
    """Seconds in which the work at hand should be done. As long as workers are kept on after it: see `down_after`."""
    up_after: float = 15.0
    """Seconds between two steps up: the Horizontal Pod Autoscaler's period."""
    down_after: float = 300.0
    """Seconds for which fewer must have been enough. The Horizontal Pod Autoscaler's stabilization window."""
    tolerance: float = 0.1
    """A difference up to this share changes nothing. The Horizontal Pod Autoscaler's tolerance."""

    def __post_init__(self) -> None:
        if not 0 <= self.lowest <= self.highest or self.highest < 1:
            raise ConfigError(f"autoscale: 0 <= lowest <= highest, and highest from 1: {self}")
        if self.drain <= 0 or min(self.up_after, self.down_after, self.tolerance) < 0:
            raise ConfigError(f"autoscale: drain above 0, up_after, down_after and tolerance from 0: {self}")


@dataclass(frozen=True, slots=True)
class Policy:
    """
    What the scheduler does beyond running each shard once its stage is ready. `None` or `False` switches a part off.

    >>> Policy(speculation=None).splitting
    Splitting(factor=5.0, least_bytes=67108864, most_parts=32)
    >>> Policy.plain().backoff
    False
    """

    fair: bool = True
    """Whether tenants share the workers by weight; else jobs are served one after the other, whose ever they are."""
    tenants: Mapping[str, Share] = field(default_factory=dict, hash=False)
    """The shares of tenants by name."""
    share: Share = Share()
    """The share of a tenant that is not named."""
    deadlines: bool = True
    """Whether a tenant's job with the earliest deadline goes first; else the first that was submitted."""
    budgets: bool = True
    """Whether jobs that are not critical wait while their tenant's budget is spent."""
    locality_wait: float = 3.0
    """Seconds for which a stage waits for workers beside its data, 0 to go anywhere. `spark.locality.wait`: 3 s."""
    backoff: bool = True
    """Whether retries wait; else they go at once."""
    retry_budget: bool = True
    """Whether a job's retries and copies are limited by `Plan.retry_share` and `retry_floor`."""
    back_pressure: bool = True
    """Whether a stage whose attempts are throttled runs fewer at a time, until they are not."""
    memory_retry: bool = True
    """Whether a shard that ran out of memory goes to a worker with more, or has a node to itself."""
    zones: bool = True
    """Whether a shard that was lost with its worker is next tried in another zone, where there is one."""
    speculation: Speculation | None = Speculation()
    splitting: Splitting | None = Splitting()
    slow_nodes: SlowNodes | None = SlowNodes()
    spot: Spot | None = Spot()
    autoscale: Autoscale | None = None
    """Off by default: it takes a backend that can have more and fewer workers."""

    def __post_init__(self) -> None:
        if self.locality_wait < 0:
            raise ConfigError(f"locality_wait must not be negative: {self.locality_wait}")

    @classmethod
    def plain(cls) -> Policy:
        """Return the policy with everything switched off that can be: the peer of every comparison."""
        return cls(
            fair=False,
            deadlines=False,
            budgets=False,
            locality_wait=0.0,
            backoff=False,
            retry_budget=False,
            back_pressure=False,
            memory_retry=False,
            zones=False,
            speculation=None,
            splitting=None,
            slow_nodes=None,
            spot=None,
        )

    def share_of(self, tenant: str) -> Share:
        """Return what a tenant may have."""
        return self.tenants.get(tenant, self.share)
