"""When the engine does what: how it paces itself, how long it keeps things, and what is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mppobs.clock import Clock
from mppobs.journal.format import RECORD_BYTES
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.follow import Block
from mppobs.sidecar.store import Round

MAX_BACKOFF_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine paces itself and how long it keeps things."""

    decide: DecideSettings = field(default_factory=DecideSettings)
    poll_bytes: int = 16 * 2**20
    """About what one round reads: so little that it is short, so much that its commit costs little beside it."""
    busy_seconds: float = 0.05
    """Pause between rounds while there is something to read."""
    idle_seconds: float = 0.5
    """Pause while there is not, and how often running attempts and due decisions are looked at."""
    checkpoint_bytes: int = 64 * 2**20
    """Folded bytes after which a checkpoint is due; eight times the running state where that is more."""
    checkpoint_journal_bytes: int = 128 * 2**20
    """The same of any one journal: half of what its worker may keep on disk."""
    checkpoint_seconds: float = 60.0
    """After which one is due if anything was folded."""
    retention_days: float = 30.0
    maintain_seconds: float = 600.0
    """Between looks for what retention lets go."""


class Pace:
    """What is due now, from what was done and when. Reads the monotonic clock and nothing else."""

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._looked = self._maintained = clock.monotonic_ns() - 10**18
        self._state_bytes = 0
        self._failures = 0
        self.restart(())

    def restart(self, replayed: Sequence[Round]) -> None:
        """Count from a state that was just recovered: what was folded again will be the next time too."""
        self._folded: dict[str, int] = {}
        for each in (each for one in replayed for each in one.ranges):
            self._folded[each.journal] = self._folded.get(each.journal, 0) + each.records * RECORD_BYTES
        self._checkpointed = self._clock.monotonic_ns()

    def folded(self, blocks: Sequence[Block]) -> None:
        """Count what a committed round read."""
        for block in blocks:
            self._folded[block.journal] = self._folded.get(block.journal, 0) + block.words.nbytes
        self._failures = 0

    def failed(self) -> None:
        """Count a round that was undone."""
        self._failures += 1

    def checkpointed(self, size: int | None) -> None:
        """Count a checkpoint of so many bytes; `None` for one that found no room and is tried again later."""
        self._checkpointed = self._clock.monotonic_ns()
        if size is not None:
            self._folded = {}
            self._state_bytes = size

    def look_due(self) -> bool:
        """Return whether it is time to look at what runs, and take it as done."""
        due = self._passed(self._looked, self._settings.idle_seconds)
        if due:
            self._looked = self._clock.monotonic_ns()
        return due

    def maintenance_due(self) -> bool:
        """Return whether it is time to let go what retention does not keep, and take it as done."""
        due = self._passed(self._maintained, self._settings.maintain_seconds)
        if due:
            self._maintained = self._clock.monotonic_ns()
        return due

    def checkpoint_due(self) -> bool:
        """Return whether enough was folded, or long enough ago, for the next checkpoint."""
        if not self._folded:
            return False
        limit = max(self._settings.checkpoint_bytes, 8 * self._state_bytes)
        return (
            sum(self._folded.values()) >= limit
            or max(self._folded.values()) >= self._settings.checkpoint_journal_bytes
            or self._passed(self._checkpointed, self._settings.checkpoint_seconds)
        )

    @property
    def has_folded(self) -> bool:
        """Whether anything was committed since the last checkpoint."""
        return bool(self._folded)

    def pause(self, *, records: int, more: bool) -> float:
        """Return how many seconds to wait before the next round."""
        if self._failures:
            return min(MAX_BACKOFF_SECONDS, self._settings.idle_seconds * float(1 << min(self._failures, 10)))
        if more:
            return 0.0
        return self._settings.busy_seconds if records else self._settings.idle_seconds

    def _passed(self, since_ns: int, seconds: float) -> bool:
        return self._clock.monotonic_ns() - since_ns >= seconds * 1e9
