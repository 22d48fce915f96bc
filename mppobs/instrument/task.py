"""`@mppobs.task`: a function whose calls are attempts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, overload

from mppobs.errors import ConfigError, nearest
from mppobs.instrument import otel
from mppobs.instrument.attempt import NOTHING, Attempt, current_attempt
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.recording import fail, start, succeed
from mppobs.instrument.run import Handoff, Run, current_run
from mppobs.instrument.scopes import RunningScope, handed
from mppobs.instrument.wrapping import Function, Kind, Opener, kind_of, unframe, wrap
from mppobs.model import Shard

P = ParamSpec("P")
R = TypeVar("R")

Resolver = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Gives a value from the arguments of a call."""

_OTEL: Final = otel.MODULE


@overload
def task(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(
    *,
    stage: str | None = None,
    shard: str | Callable[..., Shard] | None = None,
    attempt: str | Callable[..., int] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(
    function: Callable[P, R] | None = None,
    /,
    *,
    stage: str | None = None,
    shard: str | Callable[..., Shard] | None = None,
    attempt: str | Callable[..., int] | None = None,
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """
    Record every call of a function as one attempt of a shard.

    `stage` is its stage, the function's name where it is not given. `shard` says which shard a call works on: the name
    of an argument, or a callable that is given the call's arguments. Without it the shard is what was attached or what
    the environment says, and failing that every call is a shard of its own. `attempt` says in the same ways which try
    it is.

    Works on functions, coroutine functions, generator functions of both kinds and methods; the type is kept. What the
    function returns or raises passes through untouched. Raises `ConfigError` where it has no argument of that name.

    >>> import mppobs
    >>> @mppobs.task(stage="map", shard="part")
    ... def count(part: int, words: list[str]) -> int:
    ...     mppobs.current().add(rows=len(words))
    ...     return len(words)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def opener(plain: Function) -> Opener:
            begin = _Task(plain, stage, shard, attempt).begin
            return lambda args, kwargs: RunningScope(begin(args, kwargs) or NOTHING)

        def wrap_plain(plain: Function, _: Opener) -> Function:
            return _wrap_function(plain, _Task(plain, stage, shard, attempt))

        return wrap(function, opener, wrap_plain)  # type: ignore[no-any-return]

    return decorate if function is None else decorate(function)


class _Task:
    """What the decorator knows of a function: its stage, and how a call's shard and attempt are found."""

    __slots__ = ("attempt", "name", "own_stage", "place", "shard", "stage", "suspending")

    def __init__(self, function: Any, stage: str | None, shard: Any, attempt: Any) -> None:
        qualname = getattr(function, "__qualname__", type(function).__qualname__)
        self.name = f"{getattr(function, '__module__', '')}.{qualname}"
        self.own_stage = stage is not None
        self.stage = stage or str(getattr(function, "__name__", type(function).__name__))
        self.shard = _resolver(function, shard)
        self.place = _place(function, shard) if isinstance(shard, str) else None
        """Where the shard is among the positional arguments, if it is: the hot path's short cut."""
        self.attempt = _resolver(function, attempt)
        self.suspending = kind_of(function) is not Kind.PLAIN

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempt | None:
        """Begin the attempt that a call is; `None` where nothing is recorded. Never raises."""
        try:
            run = current_run.get() or RECORDER.run or RECORDER.present()
            handoff = run.handoff
            if handoff is not None:
                return self._begin_handed(run, handoff, args, kwargs)
            binding = run.stages.get(self)
            if binding is None or binding.journal.closed:
                binding = RECORDER.bind(run, self, self.stage, self.name)
                if binding is None:
                    return None
            place = self.place
            if place is not None and place < len(args):
                shard = args[place]
            elif self.shard is not None:
                shard = self.shard(args, kwargs)
            else:
                shard = None
            if shard is None:
                shard = next(RECORDER.own_shards)
            number = 0 if self.attempt is None else self.attempt(args, kwargs) or 0
            return start(binding, shard, number, False, None, not self.suspending)
        except Exception:
            RECORDER.note(f"an attempt of {self.name} could not be begun")
            return None

    def _begin_handed(
        self, run: Run, handoff: Handoff, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Attempt | None:
        """Begin an attempt that was handed over, or whose shard the environment names."""
        stage = self.stage if self.own_stage or not handoff.stage else handoff.stage
        key = self if stage == self.stage else (self, stage)
        binding = run.stages.get(key)
        if binding is None or binding.journal.closed:
            binding = RECORDER.bind(run, key, stage, self.name)
            if binding is None:
                return None
        shard = None if self.shard is None else self.shard(args, kwargs)
        number = None if self.attempt is None else self.attempt(args, kwargs)
        given = handed(handoff, shard, number, False, None)
        return start(binding, *given, not self.suspending)


def _wrap_function(function: Function, task: _Task) -> Function:
    """Wrap a plain function: the hot path, and so without a scope object."""
    begin, modules = task.begin, sys.modules
    set_current, reset_current = current_attempt.set, current_attempt.reset

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        attempt = begin(args, kwargs) or NOTHING
        token = set_current(attempt)
        span = otel.enter(attempt) if _OTEL in modules else None
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            unframe(error)
            reset_current(token)
            if span is not None:
                otel.leave(span)
            fail(attempt, error)
            raise
        reset_current(token)
        if span is not None:
            otel.leave(span)
        succeed(attempt)
        return result

    return wrapper


def _resolver(function: Any, source: object) -> Resolver | None:
    """Return what finds a value in the arguments of a call: by an argument's name, or with the user's callable."""
    if source is None:
        return None
    if isinstance(source, str):
        return _by_name(function, source)
    if not callable(source):
        raise ConfigError(f"{source!r} is neither the name of an argument nor a callable")
    own: Callable[..., Any] = source

    def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return own(*args, **kwargs)
        except Exception:
            RECORDER.note(f"{own!r} raised: the shard or attempt is taken from elsewhere")
            return None

    return ask


def _by_name(function: Any, name: str) -> Resolver:
    """Return what finds an argument by its name. Raises `ConfigError` where the function has none of that name."""
    parameters = inspect.signature(function).parameters
    if name not in parameters:
        raise ConfigError(f"{function!r} has no argument {name!r}: {nearest(name, parameters)}")
    default = parameters[name].default
    otherwise = None if default is inspect.Parameter.empty else default
    place = _place(function, name)

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[place] if place is not None and place < len(args) else kwargs.get(name, otherwise)

    return find


def _place(function: Any, name: str) -> int | None:
    """Return where an argument is among the positional ones, `None` where it can only be given by name."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters
    return list(parameters).index(name) if parameters[name].kind in positional else None
