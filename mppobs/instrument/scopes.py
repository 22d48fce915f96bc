"""`with mppobs.attempt(...)`: one attempt as a scope, and what the wrapped functions drive."""

from __future__ import annotations

import sys
from contextlib import suppress
from contextvars import Token
from threading import get_ident
from types import TracebackType
from typing import Final

from mppobs.instrument import otel
from mppobs.instrument.attempt import NOTHING, Attempt, current_attempt
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.recording import fail, forget_cpu, start, succeed
from mppobs.instrument.run import Handoff, current_run
from mppobs.model import Shard

DEFAULT_STAGE: Final = "main"
"""The stage of an attempt for which nobody names one."""


class RunningScope:
    """An attempt that has begun, and is current from `resume` to `suspend`."""

    __slots__ = ("_attempt", "_span", "_token")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._span: object | None = None
        self._token: Token[Attempt] | None = None

    def resume(self) -> None:
        """Make the attempt current."""
        self._token = current_attempt.set(self._attempt)
        if otel.MODULE in sys.modules:
            self._span = otel.enter(self._attempt)

    def suspend(self) -> None:
        """Make what was current before current again."""
        if self._span is not None:
            otel.leave(self._span)
            self._span = None
        if self._token is not None:
            with suppress(ValueError):  # a step that ended in another context than it began: that one goes away
                current_attempt.reset(self._token)
            self._token = None

    def close(self, error: BaseException | None) -> None:
        """Record how it ended."""
        if error is None:
            succeed(self._attempt)
        else:
            fail(self._attempt, error)


class AttemptScope(RunningScope):
    """
    One attempt, from `with` to its end. Made by `mppobs.attempt`, for one use; also an asynchronous context manager.

    An attempt that is begun inside an event loop, or ended by another thread, has no CPU time of its own.
    """

    __slots__ = ("_given", "_stage", "_thread")

    def __init__(self, stage: str, given: tuple[Shard | None, int | None, bool, int | None]) -> None:
        super().__init__(NOTHING)
        self._stage = stage
        self._given = given
        self._thread = 0

    def __enter__(self) -> Attempt:
        self._thread = get_ident()
        self._attempt = self._begin() or NOTHING
        self.resume()
        return self._attempt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread != get_ident():
            forget_cpu(self._attempt)
        self.suspend()
        self.close(error)

    async def __aenter__(self) -> Attempt:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _begin(self) -> Attempt | None:
        try:
            run = current_run.get() or RECORDER.run or RECORDER.present()
            handoff = run.handoff
            stage = self._stage or (handoff.stage if handoff is not None else "") or DEFAULT_STAGE
            binding = run.stages.get(stage)
            if binding is None or binding.journal.closed:
                binding = RECORDER.bind(run, stage, stage, "")
                if binding is None:
                    return None
            return start(binding, *handed(handoff, *self._given), not _in_event_loop())
        except Exception:
            RECORDER.note("an attempt could not be begun")
            return None


def handed(
    handoff: Handoff | None, shard: Shard | None, number: int | None, speculative: bool, assigned_ns: int | None
) -> tuple[Shard, int, bool, int | None]:
    """Return shard, attempt, whether speculative and time of assignment: as given, or else as handed over."""
    if handoff is not None and (shard is None or handoff.shard is None or shard == handoff.shard):
        shard = handoff.shard if shard is None else shard
        number = handoff.attempt if number is None else number
        speculative = speculative or handoff.speculative
        assigned_ns = handoff.take_assigned() if assigned_ns is None else assigned_ns
    if shard is None:
        shard = next(RECORDER.own_shards)
    return shard, number or 0, speculative, assigned_ns


def attempt(
    *,
    stage: str | None = None,
    shard: Shard | None = None,
    attempt: int | None = None,
    speculative: bool = False,
    assigned_ns: int | None = None,
) -> AttemptScope:
    """
    Return a scope that records its body as one attempt of a shard.

    What is not given comes from what was attached (`mppobs.attach`) or from the environment. `assigned_ns` is when the
    attempt was assigned, in nanoseconds since the epoch: the scheduler's delay is measured from there.

    >>> import mppobs.testing
    >>> with mppobs.testing.capture() as captured:
    ...     with mppobs.attempt(stage="map", shard=7) as running:
    ...         running.add(rows=10)
    >>> [(record.shard_key, record.rows) for record in captured.attempts]
    [(7, 10)]
    """
    return AttemptScope(stage or "", (shard, attempt, speculative, assigned_ns))


def current() -> Attempt:
    """
    Return the attempt that runs here; outside of one, an object that takes everything and keeps nothing.

    >>> current().add(rows=1)
    """
    return current_attempt.get()


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
