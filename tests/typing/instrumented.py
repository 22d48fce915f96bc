"""Type hints survive decoration. Not run: a test has mypy check this file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

import mppobs


@mppobs.task(stage="map", shard="part")
def plain(part: int, *, scale: float = 1.0) -> str:
    return str(part * scale)


@mppobs.task
def bare(part: int) -> str:
    return str(part)


@mppobs.task(shard=lambda part: part)
async def fetch(part: int) -> bytes:
    return b""


@mppobs.task
def rows(part: int) -> Iterator[int]:
    yield part


@mppobs.task
async def pages(part: int) -> AsyncIterator[int]:
    yield part


@mppobs.job(pipeline="nightly", deadline=60)
def nightly(day: str) -> int:
    return len(day)


@mppobs.job
async def streaming(batch: int) -> None:
    pass


class Reader:
    @mppobs.task(shard="part")
    def read(self, part: int) -> list[int]:
        return [part]


assert_type(plain(1, scale=2.0), str)
assert_type(bare(1), str)
waiting = assert_type(fetch(1), Coroutine[Any, Any, bytes])
assert_type(rows(1), Iterator[int])
assert_type(pages(1), AsyncIterator[int])
assert_type(nightly("today"), int)
running = assert_type(streaming(1), Coroutine[Any, Any, None])
handler: Callable[[int], str] = bare

with mppobs.job(pipeline="nightly") as run, mppobs.attempt(stage="map", shard="p") as attempt:
    assert_type(attempt, mppobs.Attempt)
    assert_type(run, mppobs.RunHandle)
    assert_type(mppobs.inject(), dict[str, str])

plain("one")  # type: ignore[arg-type]
plain(1, 2)  # type: ignore[call-arg]
bare()  # type: ignore[call-arg]
nightly(1)  # type: ignore[arg-type]
