"""What an onlooker knows of a running job and of its pipeline's earlier runs. Seconds; arrays are by shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
"""Also other figures by shard."""
Numbers = NDArray[np.int64]

NEXT_REPORT: Final = 0.1
"""How much further an attempt can be than it said, at the most."""


def _none() -> Seconds:
    return np.zeros(0)


def _nobody() -> Numbers:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class StagePast:
    """One stage in the earlier runs of a pipeline."""

    shards: float
    """Of a typical run."""
    seconds: float
    """Mean duration of a shard, of a typical run: the time of all attempts over the number of shards."""
    spread: float
    """Standard deviation of the logarithm of durations within a run."""
    drift: float
    """The same between the means of runs."""


@dataclass(frozen=True, slots=True)
class Past:
    """The earlier runs of a pipeline, as far as they succeeded."""

    seconds: tuple[float, ...] = ()
    """From start to end, of each."""
    stages: Mapping[str, StagePast] = field(default_factory=dict)
    """In the order in which they begin."""
    lanes: float = 0.0
    """Attempts that a typical run has going at a time; 0 for not known."""
    together: float = 0.0
    """How far stages are slow in the same runs: 0 for not at all, 1 for always."""


NO_PAST: Final = Past()


@dataclass(frozen=True, slots=True)
class Finished:
    """Attempts that committed a shard, oldest first; a sample where there are many."""

    seconds: Seconds = field(default_factory=_none)
    bytes: Seconds = field(default_factory=_none)
    """Of input; 0 where nobody said."""
    nodes: Numbers = field(default_factory=_nobody)
    """Which node ran it, by a number that stays the same for the job; -1 for not known."""


@dataclass(frozen=True, slots=True)
class Going:
    """Attempts that run now."""

    elapsed: Seconds = field(default_factory=_none)
    bytes: Seconds = field(default_factory=_none)
    nodes: Numbers = field(default_factory=_nobody)
    progress: Seconds = field(default_factory=_none)
    """In [0, 1]; NaN where it never said."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.elapsed)


@dataclass(frozen=True, slots=True)
class StageNow:
    """One stage of a running job."""

    name: str
    total: int
    """Shards that it is known to have."""
    decided: int = 0
    finished: Finished = field(default_factory=Finished)
    going: Going = field(default_factory=Going)
    waiting_bytes: float = 0.0
    """Input of all the shards that no attempt runs and that are not decided; 0 for not known."""
    failed: int = 0
    """Attempts that failed by the work's own fault, so that others may as well; those lost with a node are none."""

    @property
    def begun(self) -> bool:
        """Return whether any attempt of it has started."""
        return bool(len(self.going) or len(self.finished.seconds) or self.decided)

    @property
    def done(self) -> bool:
        """Return whether nothing of it is left, as far as is known."""
        return self.decided >= self.total

    @property
    def waiting(self) -> int:
        """Return how many shards are neither decided nor running."""
        return max(0, self.total - self.decided - len(self.going))


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many attempts a job can have going at a time, as far as it has shown, and on which nodes."""

    nodes: tuple[int, ...] = ()
    """One for each lane."""
    full: bool = False
    """Whether shards waited at that time, so that there were no more lanes."""

    def after(self, stages: Sequence[StageNow]) -> Lanes:
        """
        Return what is known after another look. Where nothing waits, what runs is no more than a lower bound.

        >>> one = Going(np.ones(1), np.zeros(1), np.zeros(1, np.int64), np.ones(1))
        >>> Lanes((0, 0), full=True).after([StageNow("map", 10, decided=9, going=one)])
        Lanes(nodes=(0, 0), full=True)
        """
        running = tuple(node for stage in stages for node in stage.going.nodes.tolist())
        if running and any(stage.waiting for stage in stages if stage.begun):
            return Lanes(running, full=True)
        return Lanes(running) if len(running) > len(self.nodes) else self

    def width(self, past: Past) -> float:
        """Return the number to reckon with: that of earlier runs where this one has not come to its limit."""
        return max(1.0, len(self.nodes) if self.full else max(len(self.nodes), past.lanes))


def progress_now(reported: Seconds, after: Seconds, elapsed: Seconds) -> Seconds:
    """
    Return how far running attempts are by now, from what each reported and how long after its start it did.

    They went on at the same pace since, but no further than their next report can be away.

    >>> progress_now(np.array([0.2, 0.2, np.nan]), np.array([10.0, 10.0, 0.0]), np.array([12.0, 90.0, 5.0])).round(2)
    array([0.24, 0.3 ,  nan])
    """
    pace = reported / np.maximum(after, 1e-9)
    found: Seconds = np.minimum(np.minimum(pace * elapsed, reported + NEXT_REPORT), 0.99)
    return found
