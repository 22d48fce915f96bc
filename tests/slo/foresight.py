"""Plays simulated runs to the predictor, look by look, and notes what it said and when it charged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mppobs.slo.charges import Doubt, consider
from mppobs.slo.draining import Prediction
from mppobs.slo.past import RUNS, learn
from mppobs.slo.predict import predict
from mppobs.slo.progress import NO_PAST, Lanes, Past
from tests.slo.runs import Conditions, Fault, Pipeline, any_conditions, any_pipeline, seen, simulate

LOOKS = 50
"""At a run, before its deadline."""
JOBS = 25
"""Of each pipeline."""
FAULTS = (Fault.NONE, *Fault)
"""What the jobs of a pipeline meet with, in turn: two of seven are healthy."""


@dataclass(frozen=True)
class Played:
    """One run, and what was foretold of it. Times in seconds since its submission."""

    pipeline: Pipeline
    conditions: Conditions
    deadline: float
    end: float
    charged: tuple[float, ...]
    """When charges began."""
    withdrawn: tuple[float, ...]
    standing: bool
    """Whether it was charged at its end."""
    looks: tuple[tuple[float, Prediction | None], ...]
    """Every prediction before its deadline."""
    said: tuple[tuple[float, Prediction], ...]
    """The prediction at a quarter, a half, and three quarters of the run."""

    @property
    def fault(self) -> Fault:
        """Return what went wrong."""
        return self.conditions.fault

    @property
    def late(self) -> bool:
        """Return whether it missed its deadline."""
        return self.end > self.deadline

    @property
    def early_warning(self) -> bool:
        """Return whether it was charged before three quarters of its time had passed."""
        return bool(self.charged) and self.charged[0] < 0.75 * self.deadline


def play_all(seed: int, jobs: int, *, with_past: bool = True) -> Iterator[Played]:
    """Yield so many runs of as many pipelines as it takes."""
    chance = np.random.default_rng(seed)
    for first in range(0, jobs, JOBS):
        pipeline = any_pipeline(chance)
        past, usual = _history(pipeline, chance)
        deadline = usual * chance.uniform(1.2, 2.0)
        for number in range(first, min(jobs, first + JOBS)):
            conditions = any_conditions(FAULTS[number % len(FAULTS)], pipeline, usual, deadline, chance)
            yield play(pipeline, conditions, past if with_past else NO_PAST, deadline, chance)


def play(
    pipeline: Pipeline, conditions: Conditions, past: Past, deadline: float, chance: np.random.Generator
) -> Played:
    """Run a job, and look at it again and again until its end or its deadline."""
    trace = simulate(pipeline, conditions, chance)
    columns = trace.columns()
    lanes, doubt, charged, withdrawn, said, looked = Lanes(), Doubt(), [], [], [], []
    asked = [trace.start + share * (trace.end - trace.start) for share in (0.25, 0.5, 0.75)]
    looks = list(np.arange(1, LOOKS + 1) * deadline / LOOKS)
    for now in sorted([*looks, *asked]):
        if now >= trace.end:
            break
        stages = seen(trace, columns, now)
        lanes = lanes.after(stages)
        found = predict(stages, lanes, past)
        if now in asked and found is not None:
            said.append((now, found))
        if now in looks:
            looked.append((now, found))
            before, doubt = doubt, consider(doubt, found, now, deadline, deadline)
            if before.charged != doubt.charged:
                (charged if doubt.charged else withdrawn).append(now)
    return Played(
        pipeline, conditions, deadline, trace.end, tuple(charged), tuple(withdrawn), doubt.charged,
        tuple(looked), tuple(said),
    )  # fmt: skip


def _history(pipeline: Pipeline, chance: np.random.Generator) -> tuple[Past, float]:
    """Return what earlier runs, all of them healthy, say of the next, and how long they took."""
    runs = [simulate(pipeline, Conditions(), chance).run() for _ in range(RUNS)]
    return learn(runs), float(np.median([run.seconds for run in runs]))


@dataclass(frozen=True)
class Score:
    """How good the predictions of some runs were, as counts."""

    jobs: int
    late: int
    caught: int
    """Of the late, those charged before three quarters of their time had passed."""
    in_time: int
    false: int
    """Of those in time, those that were ever charged."""
    said: int
    inside: int
    """Of the predictions, those whose interval held the end."""


def score(played: Sequence[Played]) -> Score:
    """Return how good the predictions were."""
    late = [each for each in played if each.late]
    in_time = [each for each in played if not each.late]
    said = [(each.end - now, found) for each in played for now, found in each.said]
    return Score(
        len(played), len(late), sum(each.early_warning for each in late), len(in_time),
        sum(bool(each.charged) for each in in_time), len(said),
        sum(found.low <= left <= found.high for left, found in said),
    )  # fmt: skip
