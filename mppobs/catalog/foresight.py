"""Words for what was predicted of a job, and for what became of a charge that followed from it."""

from __future__ import annotations

from enum import StrEnum


class Foresight(StrEnum):
    """What was predicted of a judged job, against how it ended. The share that is right is an indicator itself."""

    CAUGHT = "caught"
    """A bad event that was charged before its deadline."""
    MISSED = "missed"
    """A bad event that was not."""
    FALSE_ALARM = "false_alarm"
    """A good event that was charged at some time."""
    QUIET = "quiet"
    """A good event that never was."""


class ChargeEnd(StrEnum):
    """What became of a provisional charge. Each ends in exactly one of these ways."""

    BAD = "bad"
    """The job was judged, and was the bad event that it was taken for."""
    GOOD = "good"
    """The job was judged, and kept its promise."""
    WITHDRAWN = "withdrawn"
    """While the job still ran, its finish was expected in time again."""
    VOID = "void"
    """The job was no event in the end, or the promise it was charged to is no more."""


class Weight(StrEnum):
    """How much a charge weighs."""

    CHARGE = "charge"
    """It burns the budget: predictions of the pipeline have been right often enough."""
    WARNING = "warning"
    """It only warns: too few runs of the pipeline have ended to say how good its predictions are."""
