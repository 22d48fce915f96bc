"""
How good the predictions of a pipeline have been, and by how much its intervals have to be wider, or may be narrower.

A prediction is held against the end that came: how far it was off, in units of the distance from the middle to the
bound on that side. If runs are alike, the next one is no further off than 19 of 20 of these were: split conformal
prediction (Vovk and others, "Algorithmic Learning in a Random World", 2005), each side by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mppobs.slo.draining import Prediction

LEAST_RUNS: Final = 10
"""Before a pipeline's predictions are trusted with its budget."""
KEPT_RUNS: Final = 50
LEAST_COVERAGE: Final = 0.5
"""Share of intervals that must have held the end: with fewer than this the model does not fit the pipeline at all."""
SIDE: Final = 0.95
"""Of ends that are to be within the bound, on each side."""
NARROWEST: Final = 0.85
WIDEST: Final = 4.0


@dataclass(frozen=True, slots=True)
class Check:
    """One prediction against the end that came."""

    off: float
    """In distances from the middle to the bound on its side; below 0 where the end came before the middle."""
    inside: bool
    """Whether the interval that was shown held it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The recent runs of a pipeline, oldest first, each with the predictions that were made of it."""

    runs: tuple[tuple[Check, ...], ...] = ()

    @property
    def trusted(self) -> bool:
        """Return whether a prediction may burn a budget, and not only warn."""
        coverage = self.coverage
        return len(self.runs) >= LEAST_RUNS and coverage is not None and coverage >= LEAST_COVERAGE

    @property
    def coverage(self) -> float | None:
        """Return the share of predictions whose interval held the end; `None` where there is none."""
        checks = [check for run in self.runs for check in run]
        return sum(check.inside for check in checks) / len(checks) if checks else None

    def after(self, checks: Iterable[Check]) -> Calibration:
        """Return what is known after another run; one of which nothing was predicted teaches nothing."""
        found = tuple(checks)
        return Calibration((*self.runs, found)[-KEPT_RUNS:]) if found else self

    def fitted(self, prediction: Prediction) -> Prediction:
        """
        Return a prediction with the interval that the pipeline's own runs call for.

        >>> often_late = Calibration((tuple([Check(2.0, inside=False)] * 2),) * 10)
        >>> often_late.fitted(Prediction(8.0, 10.0, 11.0))
        Prediction(low=8.3, middle=10.0, high=12.0)
        """
        if len(self.runs) < LEAST_RUNS:
            return prediction
        offs = [check.off for run in self.runs for check in run]
        return prediction.widened(_bound([-off for off in offs]), _bound(offs))


def check(raw: Prediction, shown: Prediction, took: float) -> Check:
    """
    Return how a prediction did; `took` is how long it was to the end after all.

    >>> one = Prediction(8.0, 10.0, 14.0)
    >>> check(one, one, 12.0), check(one, one, 7.0)
    (Check(off=0.5, inside=True), Check(off=-1.5, inside=False))
    """
    distance = raw.high - raw.middle if took > raw.middle else raw.middle - raw.low
    return Check((took - raw.middle) / max(distance, 1e-6), shown.low <= took <= shown.high)


def _bound(offs: Sequence[float]) -> float:
    """Return the distance that enough of the ends did not pass on one side."""
    rank = math.ceil((len(offs) + 1) * SIDE)
    if rank > len(offs):
        return min(max(1.0, *offs), WIDEST)
    return min(max(sorted(offs)[rank - 1], NARROWEST), WIDEST)
