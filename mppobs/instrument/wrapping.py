"""
Wrapping a function of any kind so that it is watched and not changed.

What the wrapped function returns, raises, yields and is sent passes through as it is. No wrapper leaves a frame in a
traceback: an exception gets the wrapper's frame when it arrives there and loses it before it goes on, since a bare
`raise` does not add it again. What remains is a frame on the live stack, which only `inspect.stack()` shows.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from enum import Enum
from typing import Any, Final, Protocol

from mppobs.errors import ConfigError


class Scope(Protocol):
    """What a wrapper drives: something that is current only while the wrapped body runs. No method raises."""

    def resume(self) -> None:
        """Make it current: the body runs from here."""
        ...

    def suspend(self) -> None:
        """Make what was current before current again."""
        ...

    def close(self, error: BaseException | None) -> None:
        """End it, with the exception that ended the body or with `None`."""
        ...


Opener = Callable[[tuple[Any, ...], dict[str, Any]], Scope]
"""Begins a scope for one call, from its arguments."""
Function = Callable[..., Any]


def unframe(error: BaseException) -> None:
    """Take the frame that caught an exception last out of its traceback: the wrapper's own."""
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next


def wrap(
    function: Any, opener: Callable[[Function], Opener], wrap_plain: Callable[[Function, Opener], Function]
) -> Any:
    """
    Return the function wrapped by its kind; a classmethod or staticmethod stays one.

    `wrap_plain` wraps what is neither coroutine function nor generator. Raises `ConfigError` for what cannot be called.
    """
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(wrap(function.__func__, opener, wrap_plain))
    if not callable(function):
        raise ConfigError(f"{function!r} cannot be decorated: it is no function")
    wrapper = _WRAPPERS[kind_of(function)] or wrap_plain
    return functools.update_wrapper(wrapper(function, opener(function)), function)


class Kind(Enum):
    """What a call of a function gives."""

    PLAIN = "a result"
    COROUTINE = "a coroutine"
    GENERATOR = "a generator"
    ASYNC_GENERATOR = "an asynchronous generator"


def kind_of(function: Any) -> Kind:
    """
    Return what a call of a function gives; for all but `PLAIN` it is spread over time.

    >>> async def fetch() -> None: ...
    >>> kind_of(fetch), kind_of(len)
    (<Kind.COROUTINE: 'a coroutine'>, <Kind.PLAIN: 'a result'>)
    """
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return Kind.COROUTINE
    return Kind.PLAIN


def wrap_plain(function: Function, open_scope: Opener) -> Function:
    """Wrap a function that runs from call to return."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        scope = open_scope(args, kwargs)
        scope.resume()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            _end(scope, error)
            raise
        scope.suspend()
        scope.close(None)
        return result

    return wrapper


def wrap_coroutine(function: Function, open_scope: Opener) -> Function:
    """Wrap a coroutine function: the scope lasts from the first step to the last."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        scope = open_scope(args, kwargs)
        scope.resume()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            _end(scope, error)
            raise
        scope.suspend()
        scope.close(None)
        return result

    return wrapper


def wrap_generator(function: Function, open_scope: Opener) -> Function:
    """Wrap a generator function: the scope lasts from the first `next` to the end, and is current in its steps."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = open_scope(args, kwargs)
        scope.resume()
        try:
            body = function(*args, **kwargs)
            item = next(body)
            while True:
                scope.suspend()
                thrown = None
                try:
                    sent = yield item
                except BaseException as error:
                    thrown = error
                # Outside the except block, so that what the body raises next has no context that is not its own.
                scope.resume()
                if thrown is None:
                    item = body.send(sent)
                else:
                    unframe(thrown)
                    item = body.throw(thrown)
        except StopIteration as stop:
            result = stop.value
        except BaseException as error:
            _end(scope, error)
            raise
        scope.suspend()
        scope.close(None)
        return result

    return wrapper


def wrap_async_generator(function: Function, open_scope: Opener) -> Function:
    """Wrap an asynchronous generator function, as `wrap_generator` does."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope = open_scope(args, kwargs)
        scope.resume()
        try:
            body = function(*args, **kwargs)
            item = await anext(body)
            while True:
                scope.suspend()
                thrown = None
                try:
                    sent = yield item
                except BaseException as error:
                    thrown = error
                scope.resume()
                if thrown is None:
                    item = await body.asend(sent)
                else:
                    unframe(thrown)
                    item = await body.athrow(thrown)
        except StopAsyncIteration:
            pass
        except BaseException as error:
            _end(scope, error)
            raise
        scope.suspend()
        scope.close(None)

    return wrapper


_WRAPPERS: Final[Mapping[Kind, Callable[[Function, Opener], Function] | None]] = {
    Kind.PLAIN: None,
    Kind.COROUTINE: wrap_coroutine,
    Kind.GENERATOR: wrap_generator,
    Kind.ASYNC_GENERATOR: wrap_async_generator,
}


def _end(scope: Scope, error: BaseException) -> None:
    unframe(error)
    scope.suspend()
    scope.close(error)
