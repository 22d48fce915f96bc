"""
Which attempts of a job are kept one by one, for its spans: those worth a look, the slowest, and a fair sample.

What is kept depends on what the attempts are and not on chance: the sample is of those whose identity hashes lowest.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mppobs.journal.format import (
    ATTEMPT_CODES,
    FLAG_HAS_DELAY,
    FLAG_NO_CPU,
    FLAG_SPECULATIVE,
    NO_SLOT,
    REASON_CODES,
    unlink,
    unpair,
)
from mppobs.model import AttemptRecord, Shard, WorkerInfo

_OUTCOMES: Final = {code: outcome for outcome, code in ATTEMPT_CODES.items()}
_REASONS: Final = {code: reason for reason, code in REASON_CODES.items()}
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


class RawAttempt(NamedTuple):
    """An attempt as its job keeps it while it runs: most make way for others before anybody looks at them."""

    stage: str
    words: tuple[int, ...]
    """Of its record."""
    error_type: str
    worker: WorkerInfo

    def attempt(self) -> KeptAttempt:
        """Return it as it is shown."""
        words, flags = self.words, self.words[0] >> 24 & 0xFF
        number, _, _ = unlink(words[2])
        network_errors, storage_throttled = unpair(words[10])
        record = AttemptRecord(
            context_id=0,
            shard_key=words[1] >> 1,
            attempt=number,
            outcome=_OUTCOMES[words[0] >> 8 & 0xFF],
            start_ns=words[3] - 1,
            duration_ns=words[4] - 1,
            reason=_REASONS[words[0] >> 16 & 0xFF],
            error_type=self.error_type,
            speculative=bool(flags & FLAG_SPECULATIVE),
            cpu_ns=None if flags & FLAG_NO_CPU else words[5] - 1,
            delay_ns=words[6] - 1 if flags & FLAG_HAS_DELAY else None,
            rows=words[7] - 1,
            shuffle_read=words[8] - 1,
            shuffle_written=words[9] - 1,
            network_errors=network_errors,
            storage_throttled=storage_throttled,
            peak_rss=words[11] - 1,
            slot=NO_SLOT,
        )
        return KeptAttempt(self.stage, record.shard_key, record, self.worker)

    @property
    def identity(self) -> tuple[str, int, int, int, int]:
        """Return what no other attempt of the job has."""
        return self.stage, self.words[1], unlink(self.words[2])[0], self.words[3], self.words[4]


Ranked = tuple[int, int, RawAttempt]
"""A rank, a number that breaks ties, and what is ranked; the lowest gives way first."""


@dataclass(slots=True)
class KeptAttempts:
    """What is kept of one running job."""

    notable: list[RawAttempt] = field(default_factory=list)
    dropped: int = 0
    """Notable attempts beyond the cap."""
    slowest: dict[str, list[Ranked]] = field(default_factory=dict)
    """By stage, a heap ranked by duration (plus one, as its word has it)."""
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
        floor = heap[0][0] - 1 if heap and len(heap) >= settings.slowest else -1
        return _highest(durations, floor, settings.slowest)

    def in_sample(self, ranks: NDArray[np.int64], settings: KeepSettings) -> NDArray[np.int64]:
        """Return the positions of attempts that belong to the sample so far, in order."""
        floor = self.sample[0][0] if self.sample and len(self.sample) >= settings.sample else -1
        return _highest(ranks, floor, settings.sample)

    def keep_slow(self, stage: str, kept: Iterable[RawAttempt], settings: KeepSettings) -> None:
        """Keep attempts among the slowest of their stage; quicker ones give way."""
        for each in kept:
            self._push(self.slowest[stage], each.words[4], each, settings.slowest)

    def keep_sample(self, ranked: Iterable[tuple[int, RawAttempt]], settings: KeepSettings) -> None:
        """Keep attempts in the sample; those of lower rank give way."""
        for rank, each in ranked:
            self._push(self.sample, rank, each, settings.sample)

    def all(self) -> Iterator[KeptAttempt]:
        """Yield every kept attempt once, in the order in which they were kept."""
        ranked = [entry for heap in (*self.slowest.values(), self.sample) for entry in heap]
        seen: set[tuple[str, int, int, int, int]] = set()
        for each in (*self.notable, *(entry[2] for entry in sorted(ranked, key=lambda entry: -entry[1]))):
            if each.identity not in seen:
                seen.add(each.identity)
                yield each.attempt()

    def _push(self, heap: list[Ranked], rank: int, kept: RawAttempt, most: int) -> None:
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
