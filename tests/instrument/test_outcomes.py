"""How exceptions become outcomes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno

import pytest

import mppobs
from mppobs.instrument.outcomes import Ending, ending_of, job_outcome
from mppobs.model import AttemptOutcome, JobOutcome, Reason
from mppobs.testing import Captured


class Custom(Exception):
    """A user's own error."""


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (ValueError("x"), AttemptOutcome.FAILURE, Reason.EXCEPTION),
        (Custom(), AttemptOutcome.FAILURE, Reason.EXCEPTION),
        (asyncio.CancelledError(), AttemptOutcome.CANCELLED, Reason.NONE),
        (concurrent.futures.CancelledError(), AttemptOutcome.CANCELLED, Reason.NONE),
        (TimeoutError(), AttemptOutcome.TIMEOUT, Reason.DEADLINE),
        (concurrent.futures.TimeoutError(), AttemptOutcome.TIMEOUT, Reason.DEADLINE),
        (KeyboardInterrupt(), AttemptOutcome.CANCELLED, Reason.SHUTDOWN),
        (SystemExit(), AttemptOutcome.SUCCESS, Reason.NONE),
        (SystemExit(0), AttemptOutcome.SUCCESS, Reason.NONE),
        (SystemExit(1), AttemptOutcome.FAILURE, Reason.EXCEPTION),
        (SystemExit(143), AttemptOutcome.CANCELLED, Reason.SHUTDOWN),
        (mppobs.Preempted(), AttemptOutcome.PREEMPTED, Reason.PREEMPTED),
        (mppobs.Superseded(), AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED),
        (MemoryError(), AttemptOutcome.ERROR, Reason.MEMORY),
        (ConnectionResetError(), AttemptOutcome.ERROR, Reason.NETWORK),
        (OSError(errno.ENETUNREACH, "x"), AttemptOutcome.ERROR, Reason.NETWORK),
        (OSError(errno.ENOSPC, "x"), AttemptOutcome.ERROR, Reason.STORAGE),
        (FileNotFoundError(errno.ENOENT, "x"), AttemptOutcome.FAILURE, Reason.EXCEPTION),
        (GeneratorExit(), AttemptOutcome.CANCELLED, Reason.NONE),
    ],
)
def test_an_exception_says_whose_fault_it_was(
    captured: Captured, error: BaseException, outcome: AttemptOutcome, reason: Reason
) -> None:
    """Each kind of exception ends the attempt as its outcome and reason, and is raised again as it was."""

    @mppobs.task(shard="part")
    def work(part: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        work(1)

    assert caught.value is error
    (record,) = captured.attempts
    assert (record.outcome, record.reason) == (outcome, reason)


def test_error_types_carry_their_module() -> None:
    """A user's own error is recorded with its module, a built-in one without."""
    assert ending_of(Custom()).error_type == f"{__name__}.Custom"
    assert ending_of(KeyError()).error_type == "KeyError"


@pytest.mark.parametrize(
    ("attempt", "job"),
    [
        (AttemptOutcome.SUCCESS, JobOutcome.SUCCESS),
        (AttemptOutcome.FAILURE, JobOutcome.FAILURE),
        (AttemptOutcome.TIMEOUT, JobOutcome.FAILURE),
        (AttemptOutcome.ERROR, JobOutcome.ERROR),
        (AttemptOutcome.PREEMPTED, JobOutcome.ERROR),
        (AttemptOutcome.CANCELLED, JobOutcome.CANCELLED),
        (AttemptOutcome.SUPERSEDED, JobOutcome.CANCELLED),
    ],
)
def test_a_job_ends_as_its_own_code_did(attempt: AttemptOutcome, job: JobOutcome) -> None:
    """Every way in which code can end has its counterpart for jobs."""
    assert job_outcome(Ending(attempt)) is job


class Hostile(OSError):
    """An error whose attributes raise."""

    @property
    def errno(self) -> int:  # type: ignore[override]
        """Raise."""
        raise RuntimeError("no")


def test_an_exception_that_cannot_be_looked_at_is_a_failure(captured: Captured) -> None:
    """Classification that fails costs the reason, not the record and not the user's exception."""
    with pytest.raises(Hostile), mppobs.attempt(stage="s", shard=1):
        raise Hostile

    assert captured.attempts[0].outcome is AttemptOutcome.FAILURE
