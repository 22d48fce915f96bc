"""
Plays simulated runs to the predictor, look by look, and notes what it said, what it charged, and how that was settled.

What decides is what decides in the aggregator: earlier runs are learnt from, predictions are calibrated by runs of the
pipeline before, and charges are opened, withdrawn and settled by the same `Foreteller`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

import numpy as np

from mppobs.catalog.foresight import ChargeEnd, Foresight
from mppobs.model import JobOutcome, RunKind
from mppobs.slo.draining import Prediction
from mppobs.slo.foresight import Account, Foreteller, RunningFacts, Who
from mppobs.slo.indicators import JobFacts
from mppobs.slo.model import Bounds, IndicatorKind, Slo
from mppobs.slo.past import RUNS, learn
from mppobs.slo.predict import predict
from mppobs.slo.progress import NO_PAST, Lanes, Past
from tests.slo.runs import Conditions, Fault, Pipeline, Trace, any_conditions, any_pipeline, seen, simulate

LOOKS = 100
"""At a run, before its deadline: as many as an aggregator takes."""
JOBS = 28
"""Of each pipeline."""
TRIALS = 12
"""Healthy runs of each pipeline before those: its predictions are calibrated by them."""
FAULTS = (Fault.NONE, *Fault)
"""What the jobs of a pipeline meet with, in turn: two of seven are healthy."""
WHO = Who("default", "default", "simulated")
NS = 10**9


@dataclass(frozen=True)
class Played:
    """One run, and what was foretold of it. Times in seconds since its submission."""

    pipeline: Pipeline
    conditions: Conditions
    deadline: float
    end: float
    charged: tuple[float, ...]
    """When charges were opened."""
    withdrawn: tuple[float, ...]
    looks: tuple[tuple[float, Prediction | None], ...]
    """Every prediction before its deadline."""
    said: tuple[tuple[float, float, float], ...]
    """When a prediction was made, at a quarter, a half and three quarters, with the bounds of its interval."""

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


@dataclass
class Stand:
    """A pipeline with its promise, its earlier runs, and the one who foretells."""

    pipeline: Pipeline
    chance: np.random.Generator
    looks: int = LOOKS
    past: Past = NO_PAST
    usual: float = 0.0
    deadline: float = 0.0
    foreteller: Foreteller = field(default_factory=Foreteller)
    opened: int = 0
    """Charges, those that were opened again included."""
    jobs: int = 0

    @classmethod
    def any(cls, chance: np.random.Generator, *, with_past: bool = True, looks: int = LOOKS) -> Stand:
        """Return a pipeline that has run for a while, or one that is new."""
        stand = cls(any_pipeline(chance), chance, looks)
        runs = [simulate(stand.pipeline, Conditions(), chance).run() for _ in range(RUNS)]
        stand.usual = float(np.median([run.seconds for run in runs]))
        stand.deadline = stand.usual * chance.uniform(1.2, 2.0)
        if with_past:
            stand.past = learn(runs)
            for _ in range(TRIALS):
                stand.play(Conditions(), looks=looks // 4)
        return stand

    @property
    def slo(self) -> Slo:
        """Return the promise."""
        bounds = Bounds(deadline_seconds=Decimal(round(self.deadline * NS)) / NS)
        return Slo("team", "on-time", IndicatorKind.ON_TIME, Fraction(95, 100), 30, WHO.pipeline, bounds=bounds)

    def play(self, conditions: Conditions, *, looks: int = 0) -> Played:
        """Run a job, and look at it again and again until its end or its deadline; then judge it."""
        self.jobs += 1
        trace = simulate(self.pipeline, conditions, self.chance)
        columns, uid, lanes = trace.columns(), f"{self.jobs:032x}", Lanes()
        looked: list[tuple[float, Prediction | None]] = []
        turns: list[tuple[float, bool]] = []
        looks = looks or self.looks
        for now in (np.arange(1, looks + 1) * self.deadline / looks).tolist():
            if now >= trace.end:
                break
            stages = seen(trace, columns, now)
            lanes = lanes.after(stages)
            looked.append((now, predict(stages, lanes, self.past)))
            before = self.standing(uid)
            self.foreteller.look(self._facts(uid, trace), looked[-1][1], self._ns(now), [self.slo])
            if self.standing(uid) != before:
                turns.append((now, not before))
        self.opened += sum(charged for _, charged in turns)
        said = self.foreteller.state.jobs[uid].said if uid in self.foreteller.state.jobs else []
        self.foreteller.settle(uid, WHO, self._judged(trace), [self.slo])
        return Played(
            self.pipeline, conditions, self.deadline, trace.end,
            tuple(time for time, charged in turns if charged), tuple(time for time, charged in turns if not charged),
            tuple(looked), tuple((each.at_ns / NS - 1, each.shown.low, each.shown.high) for each in said),
        )  # fmt: skip

    def standing(self, uid: str) -> bool:
        """Return whether a job is charged now."""
        job = self.foreteller.state.jobs.get(uid)
        charge = job.charges.get(self.slo.full_name) if job is not None else None
        return charge is not None and charge.standing

    def settled(self) -> dict[ChargeEnd, int]:
        """Return what became of the charges."""
        return self._account().settled

    def verdicts(self) -> dict[Foresight, int]:
        """Return what had been foretold of the jobs that were judged."""
        return self._account().verdicts

    def _account(self) -> Account:
        return self.foreteller.state.accounts.get(self.slo.full_name, Account())

    def _ns(self, seconds: float) -> int:
        """Return a time since submission, which is a second after the beginning of time."""
        return NS + round(seconds * NS)

    def _facts(self, uid: str, trace: Trace) -> RunningFacts:
        return RunningFacts(uid, WHO, RunKind.SCHEDULED, NS, self._ns(trace.start))

    def _judged(self, trace: Trace) -> JobFacts:
        return JobFacts(
            WHO.pipeline, WHO.tenant, RunKind.SCHEDULED, JobOutcome.SUCCESS, NS, self._ns(trace.end)
        )  # fmt: skip


def play_all(
    seed: int, jobs: int, *, with_past: bool = True, looks: int = LOOKS
) -> Iterator[tuple[Stand, list[Played]]]:
    """Yield pipelines with so many runs in all."""
    chance = np.random.default_rng(seed)
    for first in range(0, jobs, JOBS):
        stand = Stand.any(chance, with_past=with_past, looks=looks)
        played = []
        for number in range(first, min(jobs, first + JOBS)):
            fault = FAULTS[number % len(FAULTS)]
            conditions = any_conditions(fault, stand.pipeline, stand.usual, stand.deadline, chance)
            played.append(stand.play(conditions))
        yield stand, played


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
    said = [(each.end - now, low, high) for each in played for now, low, high in each.said]
    return Score(
        len(played), len(late), sum(each.early_warning for each in late), len(in_time),
        sum(bool(each.charged) for each in in_time), len(said), sum(low <= left <= high for left, low, high in said),
    )  # fmt: skip
