"""
Which attempts of a job are kept one by one, for its spans: those worth a look, the slowest, and a fair sample.

What is kept depends on what the attempts are and not on chance: the sample is of those whose identity hashes lowest.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.model import AttemptRecord, Shard, WorkerInfo

_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """How many attempts are kept for each running job."""

    notable: int = 1000
    """Attempts that did not succeed, were retries, or were speculative: the first so many of a job."""
    slowest: int = 50
    """Of each stage."""
    sample: int = 200
    """Of the job, over all stages."""


@dataclass(frozen=True, slots=True)
class KeptAttempt:
    """An attempt that is shown by itself."""

    stage: str
    shard_key: int
    record: AttemptRecord
    """Its `context_id` and `slot` mean nothing here."""
    worker: WorkerInfo
    shard: Shard = 0
    """Filled in when the job is judged."""


Ranked = tuple[int, int, KeptAttempt]
"""A rank, a number that breaks ties, and what is ranked; the lowest gives way first."""


@dataclass(slots=True)
class KeptAttempts:
    """What is kept of one running job."""

    notable: list[KeptAttempt] = field(default_factory=list)
    dropped: int = 0
    """Notable attempts beyond the cap."""
    slowest: dict[str, list[Ranked]] = field(default_factory=dict)
    """By stage, a heap ranked by duration."""
    sample: list[Ranked] = field(default_factory=list)
    """A heap ranked by how low the hash is."""
    offered: int = 0

    def room_for_notable(self, positions: NDArray[np.int64], settings: KeepSettings) -> NDArray[np.int64]:
        """Return as many of the positions as there is room for, and count the rest."""
        room = max(0, settings.notable - len(self.notable))
        self.dropped += max(0, len(positions) - room)
        return positions[:room]

    def slow_enough(self, stage: str, durations: NDArray[np.int64], settings: KeepSettings) -> NDArray[np.int64]:
        """Return the positions of attempts that are among the slowest of their stage so far, in order."""
        heap = self.slowest.setdefault(stage, [])
        floor = heap[0][0] if heap and len(heap) >= settings.slowest else -1
        return _highest(durations, floor, settings.slowest)

    def in_sample(self, ranks: NDArray[np.int64], settings: KeepSettings) -> NDArray[np.int64]:
        """Return the positions of attempts that belong to the sample so far, in order."""
        floor = self.sample[0][0] if self.sample and len(self.sample) >= settings.sample else -1
        return _highest(ranks, floor, settings.sample)

    def keep_slow(self, stage: str, kept: Iterable[KeptAttempt], settings: KeepSettings) -> None:
        """Keep attempts among the slowest of their stage; quicker ones give way."""
        for each in kept:
            self._push(self.slowest[stage], each.record.duration_ns, each, settings.slowest)

    def keep_sample(self, ranked: Iterable[tuple[int, KeptAttempt]], settings: KeepSettings) -> None:
        """Keep attempts in the sample; those of lower rank give way."""
        for rank, each in ranked:
            self._push(self.sample, rank, each, settings.sample)

    def all(self) -> Iterator[KeptAttempt]:
        """Yield every kept attempt once, in the order in which they were kept."""
        ranked = [entry for heap in (*self.slowest.values(), self.sample) for entry in heap]
        seen: set[tuple[str, int, int, int, int]] = set()
        for each in (*self.notable, *(entry[2] for entry in sorted(ranked, key=lambda entry: -entry[1]))):
            record = each.record
            identity = (each.stage, each.shard_key, record.attempt, record.start_ns, record.duration_ns)
            if identity not in seen:
                seen.add(identity)
                yield each

    def _push(self, heap: list[Ranked], rank: int, kept: KeptAttempt, most: int) -> None:
        self.offered += 1
        entry = (rank, -self.offered, kept)
        if len(heap) < most:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)


def sample_ranks(stage: str, keys: NDArray[np.uint64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each attempt that depends on what it is alone: the highest are the sample."""
    seed = zlib.crc32(stage.encode("utf-8", "replace"))
    mixed: NDArray[np.uint64] = (keys + (numbers + seed).view(np.uint64) * _STEP) * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _MIX
    ranks: NDArray[np.int64] = (mixed >> np.uint64(1)).view(np.int64)
    return ranks


def _highest(values: NDArray[np.int64], floor: int, most: int) -> NDArray[np.int64]:
    """Return the positions, in order, of at most `most` values above `floor`: the highest, the first of equals."""
    chosen = np.flatnonzero(values > floor)
    if len(chosen) <= most:
        return chosen
    if most == 0:
        return chosen[:0]
    candidates = values[chosen]
    least = np.partition(candidates, len(candidates) - most)[len(candidates) - most]
    above = chosen[candidates > least]
    level = chosen[candidates == least][: most - len(above)]
    return np.sort(np.concatenate([above, level]))
