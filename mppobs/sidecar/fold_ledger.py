"""
What a round decided, by what totals do not keep apart: shards by the kind of run, delays at their worst.

SLOs are counted from this. It is taken after each round and starts empty again, so its size is that of one round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mppobs.journal.format import FLAG_HAS_DELAY
from mppobs.model import RunKind, ShardOutcome
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.running import JobStage, RunningJob


class DecidedKey(NamedTuple):
    """What shards that were decided have in common. Names are those of the records, whatever cap labels have."""

    pipeline: str
    tenant: str
    run_kind: RunKind
    stage: str


@dataclass(frozen=True, slots=True)
class Delays:
    """Attempts whose assignment is known, and the longest that one of them waited for its start."""

    starts: int
    worst_ns: int

    def __add__(self, other: Delays) -> Delays:
        """Return both together."""
        return Delays(self.starts + other.starts, max(self.worst_ns, other.worst_ns))


@dataclass(slots=True)
class RoundFacts:
    """What one round decided."""

    shards: dict[DecidedKey, dict[ShardOutcome, int]] = field(default_factory=dict)
    delays: dict[tuple[str, str], Delays] = field(default_factory=dict)
    """By pipeline and tenant."""


class Ledger:
    """Notes what is decided while it is folded. `delays_of` names the pipelines whose delays anybody wants to know."""

    def __init__(self) -> None:
        self.delays_of: frozenset[str] = frozenset()
        self._facts = RoundFacts()

    def take(self) -> RoundFacts:
        """Return what was decided since the last call."""
        facts, self._facts = self._facts, RoundFacts()
        return facts

    @contextmanager
    def watching(self, job: RunningJob, stages: Iterable[JobStage]) -> Iterator[None]:
        """Note the shards of these stages that the body decides."""
        before = [(stage, tuple(stage.shards.values())) for stage in stages]
        yield
        for stage, was in before:
            if tuple(stage.shards.values()) != was:
                key = DecidedKey(job.context.pipeline, job.key.tenant, job.context.run_kind, stage.name)
                noted = self._facts.shards.setdefault(key, dict.fromkeys(ShardOutcome, 0))
                for (outcome, now), then in zip(stage.shards.items(), was, strict=True):
                    noted[outcome] += now - then

    def attempts(self, group: Group) -> None:
        """Note how long the attempts of a group waited for their start, where that is known and wanted."""
        pipeline = group.job.context.pipeline
        if pipeline not in self.delays_of:
            return
        known = np.flatnonzero(group.batch.flags & FLAG_HAS_DELAY)
        if len(known):
            key = (pipeline, group.job.key.tenant)
            found = Delays(len(known), int(group.batch.value(6)[known].max()))
            self._facts.delays[key] = self._facts.delays.get(key, Delays(0, 0)) + found
