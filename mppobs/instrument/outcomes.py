"""How an attempt ended, from the exception that ended it. Failure is the work's fault, error the platform's."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final, NamedTuple

from mppobs.model import AttemptOutcome, JobOutcome, Reason


class Preempted(Exception):
    """Raise it (from a signal handler, say) where the platform takes the machine back: ends as `preempted`."""


class Superseded(Exception):
    """Raise it in the losing twin of a speculative pair: the attempt ends as `superseded`."""


class Ending(NamedTuple):
    """How an attempt ended, and why."""

    outcome: AttemptOutcome
    reason: Reason = Reason.NONE
    error_type: str = ""


SUCCESS: Final = Ending(AttemptOutcome.SUCCESS)


class _Status(IntEnum):
    """Statuses with which a process exits by convention."""

    TERMINATED = 128 + 15
    """After SIGTERM."""


_STORAGE_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE})
_NETWORK_ERRNOS: Final = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
_CANCELLED_NAMES: Final = frozenset({"CancelledError", "Cancelled"})
"""Names of the classes by which asyncio, concurrent.futures and trio cancel; by name, so that none is imported."""


def ending_of(error: BaseException) -> Ending:
    """
    Return how an attempt ended that this exception ended.

    >>> ending_of(ValueError("bad row"))
    Ending(outcome=<AttemptOutcome.FAILURE: 'failure'>, reason=<Reason.EXCEPTION: 'exception'>, error_type='ValueError')
    >>> ending_of(ConnectionResetError()).reason
    <Reason.NETWORK: 'network'>
    """
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return SUCCESS
    outcome, reason = _classify(error)
    return Ending(outcome, reason, type_name(type(error)))


def type_name(kind: type) -> str:
    """
    Return the name by which an exception's type is recorded: with its module, but for the built-in ones.

    >>> type_name(KeyError)
    'KeyError'
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def job_outcome(ending: Ending) -> JobOutcome:
    """
    Return how a job ended whose own code ended so.

    >>> str(job_outcome(Ending(AttemptOutcome.TIMEOUT)))
    'failure'
    """
    match ending.outcome:
        case AttemptOutcome.SUCCESS:
            return JobOutcome.SUCCESS
        case AttemptOutcome.CANCELLED | AttemptOutcome.SUPERSEDED:
            return JobOutcome.CANCELLED
        case AttemptOutcome.ERROR | AttemptOutcome.PREEMPTED:
            return JobOutcome.ERROR
        case _:
            return JobOutcome.FAILURE


def _classify(error: BaseException) -> tuple[AttemptOutcome, Reason]:
    match error:
        case Preempted():
            return AttemptOutcome.PREEMPTED, Reason.PREEMPTED
        case Superseded():
            return AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED
        case KeyboardInterrupt() | SystemExit(code=_Status.TERMINATED):
            return AttemptOutcome.CANCELLED, Reason.SHUTDOWN
        case SystemExit():
            return AttemptOutcome.FAILURE, Reason.EXCEPTION
        case GeneratorExit():
            return AttemptOutcome.CANCELLED, Reason.NONE
        case MemoryError():
            return AttemptOutcome.ERROR, Reason.MEMORY
        case TimeoutError():
            return AttemptOutcome.TIMEOUT, Reason.DEADLINE
        case ConnectionError():
            return AttemptOutcome.ERROR, Reason.NETWORK
        case OSError() if error.errno in _STORAGE_ERRNOS:
            return AttemptOutcome.ERROR, Reason.STORAGE
        case OSError() if error.errno in _NETWORK_ERRNOS:
            return AttemptOutcome.ERROR, Reason.NETWORK
    if any(kind.__name__ in _CANCELLED_NAMES for kind in type(error).__mro__):
        return AttemptOutcome.CANCELLED, Reason.NONE
    return AttemptOutcome.FAILURE, Reason.EXCEPTION
