"""The end of a worker process that does not end by itself: because its task does not stop, or nobody is left."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from contextlib import suppress
from typing import Final

from mppobs.executor.attempt import StoppedError
from mppobs.instrument.attempt import Attempt
from mppobs.instrument.recording import fail, forget_cpu
from mppobs.model import AttemptOutcome, Reason

PATIENCE_SECONDS: Final = 0.7
"""How long a task that was told to stop may take. Shorter than the coordinator's patience: this way it is recorded."""
_PR_SET_PDEATHSIG: Final = 1
_REASONS: Final = {AttemptOutcome.TIMEOUT: Reason.DEADLINE, AttemptOutcome.SUPERSEDED: Reason.SUPERSEDED}


def die_with_parent() -> None:
    """
    Have the kernel kill this process when the one that forked it dies.

    That is the fork server, which ends with the coordinator: no worker outlives them, whatever its task is doing.
    """
    with suppress(AttributeError):  # not Linux: then it ends when it finds its pipes closed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_unless_stopped(attempt: Attempt, outcome: AttemptOutcome) -> threading.Timer:
    """
    Record an attempt that does not stop in time as what it was stopped for, and end the process then.

    To be cancelled when it has stopped.
    """
    timer = threading.Timer(PATIENCE_SECONDS, _end, (attempt, outcome))
    timer.daemon = True
    timer.start()
    return timer


def _end(attempt: Attempt, outcome: AttemptOutcome) -> None:
    try:
        forget_cpu(attempt)  # this thread's is not the attempt's
        attempt.end_as(outcome, reason=_REASONS.get(outcome, Reason.SHUTDOWN))
        fail(attempt, StoppedError(outcome))
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
