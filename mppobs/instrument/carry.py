"""`inject` and `attach`: the job, and the attempt that is handed over, carried to another process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import Self

from mppobs.instrument.attempt import current_attempt
from mppobs.instrument.carrier import VARIABLE, carrier_of, decode_text, run_of
from mppobs.instrument.handover import variable_text
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import Handoff, Run, current_run
from mppobs.model import Shard


def inject(
    *,
    stage: str | None = None,
    shard: Shard | None = None,
    attempt: int = 0,
    speculative: bool = False,
    assigned: bool = True,
) -> dict[str, str]:
    """
    Return what another process needs to take part in the job that is current here: pass it to `mppobs.attach` there.

    With `shard` it hands over one attempt. Its assignment is stamped with the time of this call, from which the
    scheduler's delay is measured; `assigned=False` leaves that out. Keys and values are text, fit for the headers
    of a message. Inside an attempt the stage is carried on where none is given.

    >>> carrier = inject(stage="map", shard=7)
    >>> carrier["mppobs-stage"], carrier["mppobs-shard"]
    ('map', '7')
    """
    if stage is None:
        stage = current_attempt.get().stage
    return carrier_of(RECORDER.present().context, Handoff(stage, shard, attempt, speculative, _stamp(shard, assigned)))


def _stamp(shard: Shard | None, assigned: bool) -> int | None:
    return time.time_ns() if assigned and shard is not None else None


def environment(carrier: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Return what `inject` gave as an environment variable, for a child process: it attaches without a call.

    Without an argument it is the job that is current here.

    >>> list(environment())
    ['MPPOBS_CONTEXT']
    """
    return {VARIABLE: variable_text(inject() if carrier is None else dict(carrier))}


class Attachment:
    """What `attach` gives: a scope for `with`, or to be ended with `detach`."""

    __slots__ = ("_token",)

    def __init__(self, run: Run | None) -> None:
        self._token: Token[Run | None] | None = None if run is None else current_run.set(run)

    def detach(self) -> None:
        """Go back to what was attached before. A second call changes nothing."""
        token, self._token = self._token, None
        if token is not None:
            try:
                current_run.reset(token)
            except ValueError:
                RECORDER.note("detach was called in another context than attach")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()


def attach(carrier: Mapping[str, str] | None = None) -> Attachment:
    """
    Take part in the job that `inject` described, from this call on or for the length of a `with`.

    Takes what `inject` returned, an environment that holds it, or nothing for this process's own environment. What
    cannot be understood is passed over, and the job stays what it was.

    >>> with attach({"mppobs-pipeline": "nightly", "mppobs-job-id": "n-1"}):
    ...     inject()["mppobs-job-id"]
    'n-1'
    """
    given = os.environ if carrier is None else carrier
    try:
        values = decode_text(given[VARIABLE]) if VARIABLE in given else given
        run = run_of(values, RECORDER.settings(), None)
        return Attachment(Run(run.context, run.handoff, RECORDER.stages_of(run.context)))
    except (KeyError, TypeError, ValueError):
        RECORDER.note("what was to be attached could not be understood")
        return Attachment(None)
