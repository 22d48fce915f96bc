"""What an observer knows of shards that were lost with their workers, and of how long they may wait for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mppobs.executor.events import AttemptId
from mppobs.executor.policies import SECOND, Blame
from mppobs.model import Reason

Shard = tuple[str, int, int]
"""A job, a stage of it and a shard of that."""
_OF_A_ZONE = (Reason.WORKER_LOST, Reason.NODE_LOST, Reason.PREEMPTED)


@dataclass
class Loss:
    """What is known of a shard that was lost and is not decided."""

    at_ns: int
    ran_ns: int
    """How long the attempt had run that was lost last."""
    longest_ns: int
    """For how long it may pass on workers, at most."""
    backoff_ns: int
    """For how long it may wait whatever its zones are."""
    zones: set[str] = field(default_factory=set)
    free_ns: int = -1
    """Since when nothing but its zones keeps it from being tried; negative while something does."""
    bound_ns: int = -1
    """Since when, besides, no other zone has workers; negative while one has."""


@dataclass
class Losses:
    """Keeps them, for one life of the coordinator."""

    zones: set[str] = field(default_factory=set)
    """Every zone that had a worker."""
    began: dict[AttemptId, int] = field(default_factory=dict)
    usual: dict[tuple[str, int], int] = field(default_factory=dict)
    """The longest success of each stage."""
    of: dict[Shard, Loss] = field(default_factory=dict)

    def learn(self, attempt: AttemptId, took_ns: int) -> None:
        """Take in that an attempt has succeeded."""
        stage = attempt[:2]
        self.usual[stage] = max(took_ns, self.usual.get(stage, 0))

    def note(self, attempt: AttemptId, blame: Blame, reason: Reason, zone: str, backoff_ns: int, now_ns: int) -> None:
        """Take in that an attempt came to nothing, and perhaps by the doing of its zone."""
        before = self.of.get(attempt[:3])
        if before is not None:
            before.backoff_ns = backoff_ns
        if blame is Blame.SHARD or reason not in _OF_A_ZONE or len(self.zones) < 2:
            return
        ran = now_ns - self.began[attempt]
        longest = max(ran, self.usual.get(attempt[:2], 60 * SECOND))
        zones = {zone, *(before.zones if before else ())}
        self.of[attempt[:3]] = Loss(now_ns, ran, longest, backoff_ns, zones)
