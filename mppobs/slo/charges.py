"""
When a running job is charged to its promise before it has broken it, and when the charge is withdrawn again.

A charge needs that the finish is likely to be late, and that for a while: a moment's wobble wakes nobody. It is
withdrawn once the middle of the prediction's interval is in time again, for as long. Between the two nothing changes.
What is past its deadline is no prediction any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mppobs.slo.draining import Prediction

DWELL_SHARE: Final = 0.03
"""Of the time that a job is allowed: how long another verdict must hold before it counts."""
LIKELY: Final = 0.55
"""Of the way from the middle of the interval to its early end, that must be past the deadline too: some 4 in 5."""
MOST_DOUBT: Final = 0.12
"""Of the time allowed: more than so much earlier a finish is not waited for, since of a straggler nobody ever knows."""
LAST_SHARE: Final = 0.25
"""Of the time allowed. In this last part a charge comes little before the truth, so it needs the whole interval."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is thought of a running job's chances. Times in seconds."""

    charged: bool = False
    turned: float | None = None
    """Since when the other verdict has held; `None` where it does not."""


def consider(doubt: Doubt, prediction: Prediction | None, now: float, deadline: float, allowed: float) -> Doubt:
    """
    Return what is thought of a job after another look at it.

    `allowed` is the time from its submission to its deadline. Without a prediction nothing changes before the
    deadline, and what is past it is charged.

    >>> late = Prediction(60.0, 70.0, 90.0)
    >>> first = consider(Doubt(), late, now=50.0, deadline=100.0, allowed=100.0)
    >>> first, consider(first, late, now=53.0, deadline=100.0, allowed=100.0)
    (Doubt(charged=False, turned=50.0), Doubt(charged=True, turned=None))
    """
    if now > deadline:
        return Doubt(charged=True)
    if prediction is None:
        return Doubt(doubt.charged)
    left = deadline - now
    other = prediction.middle <= left if doubt.charged else _is_late(prediction, left, allowed)
    if not other:
        return Doubt(doubt.charged)
    since = now if doubt.turned is None else doubt.turned
    if now - since < DWELL_SHARE * allowed:
        return Doubt(doubt.charged, since)
    return Doubt(not doubt.charged)


def _is_late(prediction: Prediction, left: float, allowed: float) -> bool:
    """Return whether a finish is likely to be later than the time that is left."""
    if left < LAST_SHARE * allowed:
        return prediction.low > left
    doubt = min(LIKELY * (prediction.middle - prediction.low), MOST_DOUBT * allowed)
    return prediction.middle - doubt > left
