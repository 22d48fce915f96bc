"""
When a running job is charged to its promise before it has broken it, and when the charge is withdrawn again.

Evidence adds up: each second counts for as many as the middle of the prediction is past the deadline, in units of its
distance to the interval's early end, and counts against where it is before (Page's cumulative sum, "Continuous
Inspection Schemes", 1954). So a job that is far too late is charged soon, one that is a little too late after a while,
and a moment's wobble wakes nobody. A charge is withdrawn when as much speaks for the job again. What is past its
deadline is no prediction any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mppobs.slo.draining import Prediction

NEEDED_SHARE: Final = 0.075
"""Of the time that a job is allowed: how much evidence opens a charge."""
WITHDRAWN_SHARE: Final = 0.03
"""The same for what withdraws it, where every second with the middle in time counts for one."""
MOST_WEIGHT: Final = 1.5
"""A second counts for no more, however late the middle is: no single look decides."""
LAST_SHARE: Final = 0.25
"""Of the time allowed. In this last part a charge comes little before the truth, so it needs the whole interval."""
MOST_STEP_SHARE: Final = 0.03
"""Of the time allowed: what was not looked at for longer counts for no more than that."""
_LEAST_DISTANCE: Final = 0.01
"""Of the time allowed: nobody knows the end better than that."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is thought of a running job's chances. Times in seconds."""

    charged: bool = False
    evidence: float = 0.0
    """For the other verdict, in weighed seconds."""
    looked: float | None = None
    """When it was looked at last; `None` for not yet."""


def consider(doubt: Doubt, prediction: Prediction | None, now: float, deadline: float, allowed: float) -> Doubt:
    """
    Return what is thought of a job after another look at it.

    `allowed` is the time from its submission to its deadline. Without a prediction nothing changes before the
    deadline, and what is past it is charged.

    >>> late = Prediction(60.0, 70.0, 90.0)
    >>> doubt = Doubt()
    >>> for now in range(42, 52):
    ...     doubt = consider(doubt, late, now, deadline=100.0, allowed=100.0)
    >>> doubt
    Doubt(charged=True, evidence=0.0, looked=51)
    """
    if now > deadline:
        return Doubt(charged=True)
    if prediction is None:
        return Doubt(doubt.charged, doubt.evidence, now)
    left = deadline - now
    since = 0.0 if doubt.looked is None else min(now - doubt.looked, MOST_STEP_SHARE * allowed)
    if doubt.charged:
        weight, needed = (1.0 if prediction.middle <= left else -1.0), WITHDRAWN_SHARE
    else:
        weight, needed = _weight(prediction, left, allowed), NEEDED_SHARE
    evidence = max(0.0, doubt.evidence + weight * since)
    if evidence > needed * allowed:
        return Doubt(not doubt.charged, 0.0, now)
    return Doubt(doubt.charged, evidence, now)


def _weight(prediction: Prediction, left: float, allowed: float) -> float:
    """Return what a second with this prediction counts for: above 0 for late, below 0 for in time."""
    if left < LAST_SHARE * allowed:
        return MOST_WEIGHT if prediction.low > left else -1.0
    distance = max(prediction.middle - prediction.low, _LEAST_DISTANCE * allowed)
    return min(max((prediction.middle - left) / distance, -1.0), MOST_WEIGHT)
