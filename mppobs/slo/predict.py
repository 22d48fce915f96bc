"""
When a running job will be done, with an interval: from the shards that are left, the rate, and the tail.

How long shards take is learnt from those that finished and those that still run, by size and by node, and at the
beginning from the pipeline's earlier runs (`mppobs.slo.fitting`). The queue then drains at the rate of the lanes that
work now; but a job ends with its last shard, not with its average one (`mppobs.slo.draining`). Stages that have not
begun follow.

Pure: everything is in seconds from now, and the caller says what there is now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from mppobs.slo.draining import Prediction, drain
from mppobs.slo.durations import MODEL_ERROR
from mppobs.slo.fitting import UNSEEN_ERROR, fit_all, to_come
from mppobs.slo.progress import NO_PAST, Lanes, Past, Seconds, StageNow

_BOUND: Final = 1.645
"""Standard deviations beyond which lies a twentieth of a normal distribution."""


def predict(stages: Sequence[StageNow], lanes: Lanes, past: Past = NO_PAST) -> Prediction | None:
    """
    Return when a running job ends; `None` where there is nothing to go by, as before its very first shard.

    Stages that have begun share the lanes; those that have not follow them, one after the other.

    >>> from mppobs.slo.progress import Finished, Going
    >>> node = np.zeros(10, np.int64)
    >>> going = Going(np.full(10, 5.0), np.zeros(10), node, np.full(10, np.nan))
    >>> done = Finished(np.full(60, 10.0), np.zeros(60), np.zeros(60, np.int64))
    >>> found = predict([StageNow("map", 100, 60, done, going)], Lanes((0,) * 10, full=True))
    >>> round(found.middle), found.low < found.middle < found.high
    (40, True)
    """
    if not any(stage.begun for stage in stages):
        return _whole(past)
    fitted = fit_all(stages, past)
    if fitted is None:
        return None
    models, slowness = fitted
    width = _width(lanes, past, slowness)
    open_stages = [(stage, models[stage.name]) for stage in stages if stage.begun and not stage.done]
    found = drain(open_stages, width, slowness)
    for part in to_come(stages, past, models):
        found = found.then(drain([part], width, slowness))
    return found


def _whole(past: Past) -> Prediction | None:
    """Return when a job ends that has not begun: as its earlier runs did, if it began now."""
    if not past.seconds:
        return None
    logs = np.log(np.maximum(past.seconds, 1e-9))
    spread = math.hypot(float(logs.std(ddof=1)) if len(logs) > 1 else UNSEEN_ERROR, MODEL_ERROR)
    middle = math.exp(float(np.median(logs)))
    return Prediction(middle * math.exp(-_BOUND * spread), middle, middle * math.exp(_BOUND * spread))


def _width(lanes: Lanes, past: Past, slowness: Seconds) -> Seconds:
    """Return for each lane how many times as long as usual a shard takes on it; those that are not known are usual."""
    # A lane may be on a node of which no shard is looked at: the last of `slowness` stands for those.
    unknown = len(slowness) - 1
    known = slowness[np.array([min(unknown, node) for node in lanes.nodes], np.int64)]
    more = max(0, round(lanes.width(past)) - len(known))
    return np.concatenate([known, np.ones(more)])
