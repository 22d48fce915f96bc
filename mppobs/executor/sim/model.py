"""What is simulated, as frozen values: a cluster of nodes, and jobs whose shards take time, memory and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from mppobs.errors import ConfigError
from mppobs.executor.events import JobSubmitted, StageSpec
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.sim.draw import lognormal
from mppobs.model import RunKind, Tier

GIB: Final = 1 << 30
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines. Defaults: general-purpose nodes of 8 lanes at what such machines cost at large clouds."""

    nodes: int
    lanes: int = 8
    """Workers on each node."""
    zones: int = 3
    """Failure domains; nodes go round them."""
    speed_sigma: float = 0.1
    """How nodes differ in speed: standard deviation of its logarithm. Clouds sell nodes of one type 10 % apart."""
    memory_bytes: int = 32 * GIB
    """Of a node, shared by its workers."""
    spot_share: float = 0.0
    """Share of the nodes that are spot."""
    evictions_per_hour: float = 0.0
    """Of each spot node, by chance."""
    notice: float = 120.0
    """Seconds between an eviction's notice and the eviction: two minutes, as on EC2."""
    replacement: float = 90.0
    """Seconds until a new node is there for one that is gone."""
    cold_start: float = 5.0
    """Seconds until a worker on a new node is ready: image and imports. 0: a warm pool."""
    detection: float = 10.0
    """Seconds until the loss of a node is noticed."""
    dispatch: float = 0.005
    """Seconds between a decision and the start of an attempt."""
    node_bytes_per_second: float = 1.25e9
    """What a node's network carries: 10 Gbit/s."""
    fabric_bytes_per_second: float = 0.0
    """What the network between all nodes carries; 0 for no limit."""
    storage_requests_per_second: float = 0.0
    """What one prefix of the store serves (S3: 3,500 writes, 5,500 reads); 0 for no limit."""
    usd_per_hour: float = 0.40
    spot_usd_per_hour: float = 0.12
    """Of a node."""

    def __post_init__(self) -> None:
        if min(self.nodes, self.lanes, self.zones) < 1:
            raise ConfigError(f"a cluster needs nodes, lanes and zones: {self}")
        if not 0 <= self.spot_share <= 1:
            raise ConfigError(f"spot_share is a share in [0, 1], not {self.spot_share}")

    @property
    def workers(self) -> int:
        """Return how many workers there are to be."""
        return self.nodes * self.lanes

    @property
    def lane_memory(self) -> int:
        """Return what each worker may use while all of its node's are busy."""
        return self.memory_bytes // self.lanes


@dataclass(frozen=True, slots=True)
class StageModel:
    """A stage whose shards take about so long."""

    name: str
    shards: int
    seconds: float
    """The median time of a shard of median size, at speed 1."""
    sigma: float = 0.3
    """Spread of attempts: standard deviation of the logarithm."""
    size_sigma: float = 0.2
    """Spread of sizes, which time and memory follow."""
    input_bytes: int = 128 * MIB
    """Of a shard of median size."""
    memory_bytes: int = 0
    """That a shard of median size needs."""
    shuffle_bytes: int = 0
    """That a shard of median size reads from exchanges."""
    rows: int = 0
    """That a shard of median size holds."""
    requests: int = 0
    """To the prefix that all shards of all stages share."""
    needs: tuple[int, ...] = ()
    splittable: bool = True
    priority: int = 0
    limits: Limits = field(default_factory=Limits)

    def sizes(self, seed: int, job: int, stage: int) -> list[int]:
        """Return the input bytes of each shard of a run, which are the same whatever happens to it."""
        median = self.input_bytes
        return [
            max(1, math.floor(median * lognormal(self.size_sigma, seed, job, stage, shard, 1)))
            for shard in range(self.shards)
        ]

    def spec(self) -> StageSpec:
        """Return the stage as the scheduler knows it."""
        return StageSpec(
            self.shards, self.needs, self.limits,
            splittable=self.splittable, memory_bytes=self.memory_bytes, priority=self.priority,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobModel:
    """A job: whose it is, when it must be done, and its stages."""

    pipeline: str
    job_id: str
    stages: tuple[StageModel, ...]
    tenant: str = "default"
    owner: str = ""
    tier: Tier = Tier.STANDARD
    deadline: float = 0.0
    """Seconds after its submission; 0 for none."""
    on_failure: OnFailure = OnFailure.STOP
    retry_share: float = 0.1
    retry_floor: int = 3
    run_kind: RunKind = RunKind.SCHEDULED

    @property
    def shards(self) -> int:
        """Return how many shards are planned."""
        return sum(stage.shards for stage in self.stages)

    def submission(self, key: str, now_ns: int) -> JobSubmitted:
        """Return the event that submits it now under a key."""
        return JobSubmitted(
            key, tuple(stage.spec() for stage in self.stages), self.on_failure, self.retry_share, self.retry_floor,
            tenant=self.tenant, tier=self.tier, deadline_ns=now_ns + round(self.deadline * 1e9) if self.deadline else 0,
        )  # fmt: skip
