"""
From what has been seen of a running job to how long its shards take: by stage, by size, and by node.

Shards that were started are a fair sample of all; of those that still run it is only known that they take longer than
they have. Leaving them out would make every stage look fast at its beginning, when only the quick ones are done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mppobs.slo.durations import LEAST_SPREAD, LOGISTIC, MODEL_ERROR, Durations, survival, tells
from mppobs.slo.progress import Finished, Numbers, Past, Seconds, StageNow, StagePast

RECENT: Final = 200
"""Finished shards that are looked at, the newest: a rate that changed must not hide behind the one before."""
USUAL_SPREAD: Final = 0.35
"""Of the logarithm of durations, where nothing is known of it, with the weight of so many finished shards."""
USUAL_WEIGHT: Final = 3.0
KNOWN_SHARE: Final = 0.9
"""Of shards whose input must be known before sizes are looked at."""
USUAL_SLOPE: Final = 0.8
"""Share of a duration that grows with the input, where too few shards tell: reading and computing, not starting."""
SLOPE_WEIGHT: Final = 0.2
"""In squared sizes, relative to the usual one."""
LEAST_SEEN: Final = 2
"""Newest shards of a node by which its speed is judged; twice as many as run on it where that is more."""
MOST_APART: Final = 4.0
"""Standard deviations that one shard counts for at the most: one large shard makes no slow node."""
NODE_DOUBT: Final = 4.0
"""Standard errors that a node must differ by before it is taken to be slow, or fast."""
STILL_GOING: Final = 0.4
"""Added to the logarithm of the time of a shard that runs on a slow node: it is not done yet."""
UNSEEN_ERROR: Final = 0.4
"""Relative error of a stage that has not begun and that no earlier run tells of."""

Models = Mapping[str, Durations]
"""By the name of a stage."""


def fit_all(stages: Sequence[StageNow], past: Past) -> tuple[Models, Seconds] | None:
    """
    Return how long shards take in the stages that have begun, and how many times as long on each node.

    `None` where the shards of a stage that goes on can be anything: none has finished, and no earlier run tells.
    """
    begun = [stage for stage in stages if stage.begun]
    nodes = 1 + max((int(each.max()) for stage in begun for each in _nodes(stage) if len(each)), default=-1)
    even = np.ones(nodes + 1)
    first = {stage.name: fit(stage, past.stages.get(stage.name), even) for stage in begun}
    known = {name: model for name, model in first.items() if model is not None}
    if not known or any(first[stage.name] is None for stage in begun if not stage.done):
        return None
    slowness = _slowness(begun, known, nodes)
    if (slowness == 1.0).all():
        return known, slowness
    again = {stage.name: fit(stage, past.stages.get(stage.name), slowness) for stage in begun}
    return {name: model for name, model in again.items() if model is not None}, slowness


def fit(stage: StageNow, past: StagePast | None, slowness: Seconds) -> Durations | None:
    """
    Return how long the shards of a stage take on a usual node; `None` where there is nothing to go by.

    `slowness` is by node, with a last one for those that are not known.

    >>> four = Finished(np.full(50, 4.0), np.zeros(50), np.zeros(50, np.int64))
    >>> found = fit(StageNow("map", 60, 50, four), None, np.ones(2))
    >>> round(found.mean, 6), found.error < 0.1
    (4.0, True)
    """
    finished, going = _newest(stage.finished), stage.going
    if not len(finished.seconds) and past is None:
        return None
    usual, slope, apart = _sizes(finished, going.bytes)
    sized = Durations(1.0, 1.0, 1.0, 0.0, usual, slope)
    done = finished.seconds / (sized.factors(finished.bytes) * slowness[finished.nodes])
    factors = sized.factors(going.bytes) * slowness[going.nodes]
    told = tells(going, float(np.median(finished.seconds)) if len(finished.seconds) else 0.0)
    done = np.concatenate([done, going.elapsed[told] / going.progress[told] / factors[told]])
    mean, spread, weight = _estimate(np.maximum(done, 1e-9), (going.elapsed / factors)[~told], past)
    made = Durations.of(mean, spread, spread / math.sqrt(max(weight, 1.0)))
    return replace(made, usual_bytes=usual, slope=slope, slope_error=made.spread / math.sqrt(apart))


def to_come(stages: Sequence[StageNow], past: Past, models: Models) -> list[tuple[StageNow, Durations]]:
    """
    Return the stages that have not begun: planned ones, and those that the pipeline used to have.

    Where stages of earlier runs were slow in the same runs, those to come are expected to be like those that were.
    """
    here = {stage.name: stage for stage in stages}
    usual = float(np.mean([model.mean for model in models.values()]))
    ratios = [math.log(model.mean / past.stages[name].seconds) for name, model in models.items() if name in past.stages]
    alike = math.exp(past.together * float(np.mean(ratios))) if ratios else 1.0
    found: list[tuple[StageNow, Durations]] = []
    for name in dict.fromkeys([*here, *past.stages]):
        stage, was = here.get(name), past.stages.get(name)
        if stage is not None and (stage.begun or not (stage.total or was)):
            continue
        shards = stage.total if stage is not None and stage.total else max(1, round(was.shards)) if was else 1
        fresh = stage if stage is not None and stage.total else StageNow(name, shards)
        if was is None:
            found.append((fresh, Durations.of(usual, 0.5, UNSEEN_ERROR)))
        else:
            rest = math.sqrt(1.0 - past.together**2) if ratios else 1.0
            found.append((fresh, Durations.of(was.seconds * alike, was.spread, was.drift * rest)))
    return found


def _nodes(stage: StageNow) -> tuple[Numbers, Numbers]:
    return stage.finished.nodes, stage.going.nodes


def _newest(finished: Finished) -> Finished:
    return Finished(finished.seconds[-RECENT:], finished.bytes[-RECENT:], finished.nodes[-RECENT:])


def _sizes(finished: Finished, running: Seconds) -> tuple[float, float, float]:
    """
    Return the usual input of a shard, the share of the duration that grows with it, and what that share is worth.

    Zeros where sizes say nothing. The worth is in squared sizes, relative to the usual one.
    """
    both = np.concatenate([finished.bytes, running])
    if not len(both) or (both > 0).mean() < KNOWN_SHARE:
        return 0.0, 0.0, SLOPE_WEIGHT
    usual = float(both[both > 0].mean())
    known = finished.bytes > 0
    if not known.any():
        return usual, USUAL_SLOPE, SLOPE_WEIGHT
    relative, took = finished.bytes[known] / usual, finished.seconds[known]
    apart, longer = relative - relative.mean(), took - took.mean()
    # A straight line through the durations, drawn to the usual slope while there are few, or all are of a size.
    worth = float(apart @ apart) + SLOPE_WEIGHT
    steep = (float(apart @ longer) + SLOPE_WEIGHT * USUAL_SLOPE * float(took.mean())) / worth
    level = float(took.mean()) - steep * (float(relative.mean()) - 1.0)
    return usual, min(1.0, max(0.0, steep / level)) if level > 0 else 1.0, worth


def _slowness(stages: Sequence[StageNow], models: Models, nodes: int) -> Seconds:
    """Return how many times as long as usual shards take on each node, where that is beyond doubt; else 1."""
    seen = [_Seen.of(stage, models[stage.name]) for stage in stages]
    logs, apart, owner, going = (np.concatenate(each) for each in zip(*seen, strict=True))
    busy = np.bincount(np.concatenate([stage.going.nodes + 1 for stage in stages]), minlength=nodes + 1)[1:]
    found = np.ones(nodes + 1)
    for node in np.unique(owner[owner >= 0]).tolist():
        mine = np.flatnonzero(owner == node)[-max(LEAST_SEEN, 2 * int(busy[node])) :]
        doubts = float(np.clip(apart[mine], -MOST_APART, MOST_APART).mean()) * math.sqrt(len(mine))
        if len(mine) >= LEAST_SEEN and abs(doubts) > NODE_DOUBT:
            newest = mine[-max(2, len(mine) // 2) :]
            found[node] = math.exp(float((logs[newest] + STILL_GOING * going[newest]).mean()))
    return found


class _Seen(NamedTuple):
    """What shards of one stage say of their nodes: those that finished, and those that have run too long already."""

    logs: Seconds
    """Logarithm of the time over what was expected."""
    apart: Seconds
    """The same in standard deviations."""
    owner: Numbers
    going: NDArray[np.bool_]

    @classmethod
    def of(cls, stage: StageNow, model: Durations) -> _Seen:
        """Return what the shards of a stage say. One that has run for less than the usual says nothing yet."""
        finished, going = _newest(stage.finished), stage.going
        done = np.log(np.maximum(finished.seconds, 1e-9) / (model.scale * model.factors(finished.bytes)))
        over = np.log(np.maximum(going.elapsed, 1e-9) / (model.scale * model.factors(going.bytes)))
        late = over > 0
        logs = np.concatenate([done, over[late]])
        owner = np.concatenate([finished.nodes, going.nodes[late]])
        return cls(logs, logs / model.spread, owner, np.arange(len(logs)) >= len(done))


def _estimate(done: Seconds, going: Seconds, past: StagePast | None) -> tuple[float, float, float]:
    """
    Return mean, spread of the logarithm, and the number of observations that the mean is worth.

    Expectation and maximisation: what runs takes as long as it has plus what the distribution of before says.
    """
    weight, before, spread = 0.0, 0.0, USUAL_SPREAD
    if past is not None:
        before, spread = past.seconds, max(past.spread, LEAST_SPREAD)
        weight = min(max((spread / max(past.drift, MODEL_ERROR)) ** 2, 0.5), 30.0)
    spread = _spread(done, spread)
    mean = float(done.mean()) if len(done) else before
    for _ in range(4):
        expected = going + _left(going, mean, spread)
        total = float(done.sum() + expected.sum()) + weight * before
        mean = total / (len(done) + len(going) + weight)
    return mean, spread, len(done) + weight + 0.25 * len(going)


def _spread(done: Seconds, usual: float) -> float:
    """Return the standard deviation of the logarithm, drawn to the usual one while there are few."""
    if len(done) < 2:
        return max(usual, LEAST_SPREAD)
    logs = np.log(done)
    squares = float(((logs - logs.mean()) ** 2).sum()) + USUAL_WEIGHT * usual * usual
    return max(math.sqrt(squares / (len(done) - 1 + USUAL_WEIGHT)), LEAST_SPREAD)


def _left(going: Seconds, mean: float, spread: float) -> Seconds:
    """Return how much longer each running shard is expected to take, up to three times the usual."""
    if not len(going):
        return going
    steps = np.linspace(0.0, 3.0 * mean, 13)
    scale, shape = np.array(mean * math.exp(-spread * spread / 2)), np.array(spread * LOGISTIC)
    now = survival(going, scale, shape)
    later = survival(going[:, None] + steps, scale, shape)
    found: Seconds = np.trapezoid(later, steps, axis=1) / now
    return found
