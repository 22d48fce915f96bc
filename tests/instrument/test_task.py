"""`@mppobs.task`: every call is one attempt, and nothing that the function does is changed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

import mppobs
from mppobs.errors import ConfigError
from mppobs.instrument.recorder import RECORDER
from mppobs.journal.format import MAX_SLOTS, shard_key
from mppobs.model import AttemptOutcome, Reason
from mppobs.testing import Captured


def test_a_call_is_recorded_with_what_it_did(captured: Captured) -> None:
    """Shard, stage, task, time, CPU time and amounts of a call are in its record."""

    @mppobs.task(stage="map", shard="part")
    def count(words: list[str], part: int) -> int:
        started = time.thread_time_ns()
        while time.thread_time_ns() - started < 2_000_000:
            pass
        mppobs.current().add(rows=2, shuffle_read=10, shuffle_written=30, network_errors=3, storage_throttled=1)
        mppobs.current().add(rows=len(words))
        return len(words)

    assert count(["a"], part=7) == 1

    (record,) = captured.attempts
    context = captured.context(record)
    assert (record.shard_key, record.attempt, record.outcome) == (7, 0, AttemptOutcome.SUCCESS)
    assert (context.stage, context.task) == ("map", f"{__name__}.{count.__qualname__}")
    assert (record.rows, record.shuffle_read, record.shuffle_written) == (3, 10, 30)
    assert (record.network_errors, record.storage_throttled) == (3, 1)
    assert record.cpu_ns is not None
    assert 2_000_000 <= record.cpu_ns <= record.duration_ns < 10**9
    assert 0 <= time.time_ns() - record.start_ns < 10 * 10**9
    assert record.peak_rss > 10**6


def test_a_task_without_arguments_takes_the_functions_name(captured: Captured) -> None:
    """Used bare, the decorator names the stage after the function, and every call is a shard of its own."""

    @mppobs.task
    def score() -> None:
        pass

    score()
    score()

    first, second = captured.attempts
    assert first.shard_key != second.shard_key
    assert captured.context(first).stage == "score"


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1, 9), {}), ((1,), {"part": 9}), ((), {"part": 9, "other": 1}), ((1,), {})]
)
def test_the_shard_is_found_however_it_is_passed(captured: Captured, args: Any, kwargs: Any) -> None:
    """By position, by keyword or by its default."""

    @mppobs.task(shard="part")
    def work(other: int, part: int = 9) -> None:
        pass

    work(*args, **kwargs)

    assert captured.attempts[0].shard_key == 9


def test_keyword_only_arguments_and_callables_name_shard_and_attempt(captured: Captured) -> None:
    """The shard may be a keyword-only argument, and shard or attempt may be worked out from the arguments."""

    @mppobs.task(shard="part", attempt="number")
    def by_name(*, part: str, number: int) -> None:
        pass

    @mppobs.task(shard=lambda path, number: path.rpartition("/")[2], attempt=lambda path, number: number)
    def by_callable(path: str, number: int) -> None:
        pass

    by_name(part="p1", number=2)
    by_callable("data/p2", 3)

    assert [(record.shard_key, record.attempt) for record in captured.attempts] == [
        (shard_key("p1"), 2), (shard_key("p2"), 3),
    ]  # fmt: skip
    assert set(captured.shard_names().values()) == {"p1", "p2"}


def test_an_argument_that_does_not_exist_is_an_error_that_names_the_nearest() -> None:
    """A typing error in the name of the shard's argument shows when the function is decorated."""
    with pytest.raises(ConfigError, match="did you mean 'part'"):

        @mppobs.task(shard="prat")
        def work(part: int) -> None:
            pass


def test_a_shard_callable_that_raises_never_breaks_the_call(captured: Captured) -> None:
    """The call goes through, is recorded under a shard of its own, and the fault is counted."""
    before = RECORDER.notes

    @mppobs.task(shard=lambda part: 1 // part)
    def work(part: int) -> str:
        return "fine"

    assert work(0) == "fine"
    assert len(captured.attempts) == 1
    assert RECORDER.notes == before + 1


@pytest.mark.parametrize("shard", [-1, True, 3.5, (1, 2), "", b"x", 2**61, 2**70])
def test_any_value_can_name_a_shard(captured: Captured, shard: Any) -> None:
    """What is no plain integer is named by its text."""

    @mppobs.task(shard="part")
    def work(part: Any) -> None:
        pass

    work(shard)

    assert captured.attempts[0].shard_key == shard_key(str(shard))
    assert captured.attempts[0].shard_key >= 2**61


def test_methods_of_every_kind_are_recorded(captured: Captured) -> None:
    """Methods, class methods and static methods work whichever decorator is outermost."""

    class Job:
        base = 10

        @mppobs.task(shard="part")
        def method(self, part: int) -> int:
            return self.base + part

        @classmethod
        @mppobs.task(shard="part")
        def inner_class(cls, part: int) -> int:
            return cls.base + part

        @mppobs.task(shard="part")
        @classmethod
        def outer_class(cls, part: int) -> int:
            return cls.base + part

        @mppobs.task(shard="part")
        @staticmethod
        def static(part: int) -> int:
            return part

    assert [Job().method(1), Job.inner_class(2), Job.outer_class(3), Job().static(4)] == [11, 12, 13, 4]
    assert [record.shard_key for record in captured.attempts] == [1, 2, 3, 4]


def test_decoration_keeps_what_introspection_sees() -> None:
    """Name, signature, documentation and kind of the function are those of the original."""

    @mppobs.task
    async def fetch(part: int) -> None:
        """Fetch a part."""

    @mppobs.task
    def rows(part: int) -> Iterator[int]:
        yield part

    @mppobs.task
    async def pages(part: int) -> AsyncIterator[int]:
        yield part

    assert fetch.__name__ == "fetch"
    assert fetch.__doc__ == "Fetch a part."
    assert str(inspect.signature(fetch)) == "(part: 'int') -> 'None'"
    assert inspect.iscoroutinefunction(fetch)
    assert inspect.isgeneratorfunction(rows)
    assert inspect.isasyncgenfunction(pages)


def test_what_is_no_function_cannot_be_decorated() -> None:
    """Decorating something that cannot be called is an error at once."""
    with pytest.raises(ConfigError, match="is no function"):
        mppobs.task(5)  # type: ignore[call-overload]


# Exceptions


def raise_key_error(part: int) -> None:
    """Raise from the user's own code."""
    raise KeyError(part)


def frames_of(error: BaseException) -> list[str]:
    """Return the names of the functions in a traceback."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_an_exception_passes_untouched_and_without_a_frame_of_ours(captured: Captured) -> None:
    """The same exception object arrives with the traceback that it would have had, and the attempt is a failure."""
    work = mppobs.task(shard="part")(raise_key_error)
    error = None
    try:
        work(3)
    except KeyError as caught:
        error = caught

    assert error is not None
    assert frames_of(error) == [
        test_an_exception_passes_untouched_and_without_a_frame_of_ours.__name__,
        "raise_key_error",
    ]
    assert error.__context__ is None
    (record,) = captured.attempts
    assert (record.outcome, record.reason, record.error_type) == (
        AttemptOutcome.FAILURE, Reason.EXCEPTION, "KeyError",
    )  # fmt: skip


def test_nested_tasks_leave_no_frames_either(captured: Captured) -> None:
    """With three wrappers on the way the traceback still names the user's functions alone."""

    @mppobs.task
    def inner() -> None:
        raise_key_error(1)

    @mppobs.task
    def middle() -> None:
        inner()

    @mppobs.job
    def outer() -> None:
        with mppobs.attempt(stage="s"):
            middle()

    with pytest.raises(KeyError) as caught:
        outer()

    names = frames_of(caught.value)
    assert names[1:] == ["outer", "middle", "inner", "raise_key_error"]


def test_coroutines_and_generators_leave_no_frames(captured: Captured) -> None:
    """Exceptions of the other kinds of function carry no wrapper's frame."""

    @mppobs.task
    async def fetch() -> None:
        raise_key_error(1)

    @mppobs.task
    def rows() -> Iterator[int]:
        yield 1
        raise_key_error(2)

    @mppobs.task
    async def pages() -> AsyncIterator[int]:
        yield 1
        raise_key_error(3)

    async def consume() -> None:
        async for _ in pages():
            pass

    with pytest.raises(KeyError) as caught:
        asyncio.run(fetch())
    assert frames_of(caught.value)[-2:] == ["fetch", "raise_key_error"]
    assert "wrapper" not in frames_of(caught.value)
    with pytest.raises(KeyError) as caught:
        list(rows())
    assert frames_of(caught.value)[1:] == ["rows", "raise_key_error"]
    with pytest.raises(KeyError) as caught:
        asyncio.run(consume())
    assert "wrapper" not in frames_of(caught.value)
    assert [record.outcome for record in captured.attempts] == [AttemptOutcome.FAILURE] * 3


def test_failures_inside_the_recorder_never_reach_the_call(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks in this package, the function is called and its result returned."""

    @mppobs.task(shard="part")
    def work(part: int) -> int:
        return part

    def broken(*args: object) -> None:
        raise RuntimeError("ours")

    before = RECORDER.notes
    monkeypatch.setattr(RECORDER, "bind", broken)
    assert work(4) == 4
    assert RECORDER.notes == before + 1


def test_amounts_that_make_no_sense_cost_nothing_but_themselves(captured: Captured) -> None:
    """Negative amounts are passed over, fractions are cut, text is noted; the attempt is recorded."""

    @mppobs.task(shard="part")
    def work(part: int) -> None:
        mppobs.current().add(rows=-1, shuffle_read=2.7, shuffle_written="many")  # type: ignore[arg-type]
        mppobs.current().add(rows=5, network_errors={"reset": -2, "timeout": 1})
        mppobs.current().progress("half")  # type: ignore[arg-type]

    work(1)

    (record,) = captured.attempts
    assert (record.rows, record.shuffle_read, record.shuffle_written, record.network_errors) == (5, 2, 0, 1)


def test_counts_too_large_for_a_word_are_recorded_as_the_largest(captured: Captured) -> None:
    """An amount beyond 64 bits does not lose the attempt."""

    @mppobs.task(shard="part")
    def work(part: int) -> None:
        mppobs.current().add(rows=2**70, network_errors=2**40)

    work(1)

    (record,) = captured.attempts
    assert record.rows == 2**64 - 2
    assert record.network_errors == 2**32 - 1


# Coroutines and generators


def test_a_coroutine_is_timed_over_its_awaits_and_has_no_cpu_time(captured: Captured) -> None:
    """Two hundred coroutines at once are two hundred attempts, each current in its own task."""

    @mppobs.task(shard="part")
    async def fetch(part: int) -> object:
        await asyncio.sleep(0.02)
        mppobs.current().add(rows=part)
        return mppobs.current().shard

    async def main() -> list[object]:
        return await asyncio.gather(*(fetch(part) for part in range(200)))

    assert asyncio.run(main()) == list(range(200))
    assert {record.shard_key: record.rows for record in captured.attempts} == {part: part for part in range(200)}
    assert all(record.cpu_ns is None and record.duration_ns >= 19_000_000 for record in captured.attempts)


def test_thousands_of_coroutines_at_once_pass_the_slots_limit(captured: Captured) -> None:
    """More attempts than slots: all are recorded, and those without a slot are counted."""

    @mppobs.task(shard="part")
    async def fetch(part: int, gate: asyncio.Event) -> None:
        await gate.wait()

    async def main() -> None:
        gate = asyncio.Event()
        tasks = [asyncio.create_task(fetch(part, gate)) for part in range(MAX_SLOTS + 500)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())

    journal = RECORDER.journal()
    assert journal is not None
    assert journal.unslotted() == 500
    assert Counter(record.shard_key for record in captured.attempts) == Counter(range(MAX_SLOTS + 500))


def test_a_cancelled_coroutine_is_recorded_as_cancelled(captured: Captured) -> None:
    """Cancelling a task ends its attempt as cancelled, and a timeout around it as the timeout's own business."""

    @mppobs.task(shard="part")
    async def wait(part: int) -> None:
        await asyncio.sleep(30)

    @mppobs.task(shard="part")
    async def limited(part: int) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(30)

    async def main() -> None:
        task = asyncio.create_task(wait(1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await limited(2)

    asyncio.run(main())

    assert {record.shard_key: record.outcome for record in captured.attempts} == {
        1: AttemptOutcome.CANCELLED,
        2: AttemptOutcome.TIMEOUT,
    }


def test_a_generator_passes_values_both_ways(captured: Captured) -> None:
    """What is sent, thrown, yielded and returned is what the body sees and gives."""

    @mppobs.task(shard="part")
    def talk(part: int) -> Any:
        got = yield 1
        try:
            yield got
        except LookupError as error:
            yield repr(error)
        return "done"

    talking = talk(5)
    assert captured.attempts == []
    assert next(talking) == 1
    assert talking.send("hello") == "hello"
    assert talking.throw(LookupError("x")) == "LookupError('x')"
    with pytest.raises(StopIteration) as stopped:
        next(talking)
    assert stopped.value.value == "done"
    assert [(record.shard_key, record.outcome) for record in captured.attempts] == [(5, AttemptOutcome.SUCCESS)]


def test_a_generator_is_current_only_while_its_body_runs(captured: Captured) -> None:
    """Between steps, and in another generator's steps, the attempt is not current."""

    @mppobs.task(shard="part")
    def rows(part: int) -> Iterator[object]:
        for _ in range(3):
            mppobs.current().add(rows=1)
            yield mppobs.current().shard

    seen = []
    for first, second in zip(rows(1), rows(2), strict=True):
        seen.append((first, second, mppobs.current().start_ns))

    assert seen == [(1, 2, 0)] * 3
    assert {record.shard_key: record.rows for record in captured.attempts} == {1: 3, 2: 3}


def test_a_generators_time_runs_from_first_step_to_the_last(captured: Captured) -> None:
    """The time in which the consumer holds the generator counts; that before the first step does not."""

    @mppobs.task(shard="part")
    def rows(part: int) -> Iterator[int]:
        yield 1

    waiting = rows(1)
    time.sleep(0.03)
    next(waiting)
    time.sleep(0.02)
    assert list(waiting) == []

    (record,) = captured.attempts
    assert 19_000_000 < record.duration_ns < 10**9
    assert time.time_ns() - record.start_ns - record.duration_ns < 10**9
    assert record.cpu_ns is None


def test_abandoned_generators_are_recorded_as_cancelled(captured: Captured) -> None:
    """Closed or just dropped before its end, a generator's attempt is cancelled and its clean-up has run."""
    cleaned = []

    @mppobs.task(shard="part")
    def rows(part: int) -> Iterator[int]:
        try:
            while True:
                yield part
        finally:
            cleaned.append((part, mppobs.current().shard))

    closed, dropped, never = rows(1), rows(2), rows(3)
    next(closed)
    next(dropped)
    closed.close()  # type: ignore[attr-defined]
    del dropped, never
    gc.collect()

    assert cleaned == [(1, 1), (2, 2)]
    assert [(record.shard_key, record.outcome) for record in captured.attempts] == [
        (1, AttemptOutcome.CANCELLED), (2, AttemptOutcome.CANCELLED),
    ]  # fmt: skip


def test_what_a_generator_raises_after_a_throw_keeps_its_own_context(captured: Captured) -> None:
    """An exception that the body raises later is not chained to one that was thrown in and handled before."""

    def plain() -> Iterator[int]:
        with suppress(LookupError):
            yield 1
        raise ValueError("later")

    contexts = []
    for make in (plain, mppobs.task(plain)):
        body = make()
        next(body)
        with pytest.raises(ValueError, match="later") as caught:
            body.throw(LookupError("thrown"))  # type: ignore[attr-defined]
        contexts.append(caught.value.__context__)

    assert contexts == [None, None]


def test_asynchronous_generators_pass_values_and_close(captured: Captured) -> None:
    """Sending, throwing and closing reach the body of an asynchronous generator, with its attempt current."""
    cleaned = []

    @mppobs.task(shard="part")
    async def pages(part: int) -> Any:
        try:
            got = yield 1
            try:
                yield got
            except LookupError:
                yield "caught"
            await asyncio.sleep(0)
        finally:
            cleaned.append(mppobs.current().shard)

    async def main() -> None:
        whole = pages(1)
        assert await anext(whole) == 1
        assert await whole.asend("sent") == "sent"
        assert mppobs.current().start_ns == 0
        assert await whole.athrow(LookupError()) == "caught"
        assert [item async for item in whole] == []
        early = pages(2)
        await anext(early)
        await early.aclose()

    asyncio.run(main())

    assert cleaned == [1, 2]
    assert {record.shard_key: record.outcome for record in captured.attempts} == {
        1: AttemptOutcome.SUCCESS,
        2: AttemptOutcome.CANCELLED,
    }


# Threads


def test_threads_share_the_open_job_and_have_attempts_of_their_own(captured: Captured) -> None:
    """A pool's threads, which inherit no context, record under the only job that is open."""

    @mppobs.task(shard="part")
    def work(part: int) -> object:
        time.sleep(0.001)
        mppobs.current().add(rows=part)
        return mppobs.current().shard

    with mppobs.job(pipeline="nightly", job_id="n-1"), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(300))) == list(range(300))

    assert {record.shard_key: record.rows for record in captured.attempts} == {part: part for part in range(300)}
    assert {captured.context(record).job_id for record in captured.attempts} == {"n-1"}


def test_an_attempt_that_another_thread_ends_has_no_cpu_time(captured: Captured) -> None:
    """The CPU time of one thread says nothing about work that ended in another."""
    scope = mppobs.attempt(stage="map", shard=1)
    contextvars.copy_context().run(scope.__enter__)
    thread = threading.Thread(target=scope.__exit__, args=(None, None, None))
    thread.start()
    thread.join()

    assert [(record.shard_key, record.cpu_ns) for record in captured.attempts] == [(1, None)]


def test_an_attempt_in_an_event_loop_has_no_cpu_time(captured: Captured) -> None:
    """`with` and `async with` inside a coroutine know that the thread is shared."""

    async def main() -> None:
        with mppobs.attempt(stage="map", shard=1):
            await asyncio.sleep(0)
        async with mppobs.attempt(stage="map", shard=2):
            await asyncio.sleep(0)

    asyncio.run(main())

    assert [record.cpu_ns for record in captured.attempts] == [None, None]


def test_recording_can_be_switched_off(captured: Captured) -> None:
    """Disabled, functions of every kind run as before and nothing is written."""
    mppobs.configure(enabled=False)

    @mppobs.task(shard="part")
    def work(part: int) -> int:
        mppobs.current().progress(0.5)
        with mppobs.current().activity("read"):
            return part

    @mppobs.task
    async def fetch() -> int:
        return 2

    with mppobs.job(pipeline="p") as run, mppobs.attempt(stage="s", shard=1) as attempt:
        run.plan("s", 3)
        run.checkpoint()
        attempt.add(rows=1)
        assert [work(1), asyncio.run(fetch())] == [1, 2]

    assert captured.records == []
