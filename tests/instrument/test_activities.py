"""Where the time goes: parts and `other` sum exactly to the wall time, whatever is nested in what."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

import mppobs
from mppobs.instrument.activities import MAX_ACTIVITIES, OTHER, Activity, Ledger
from mppobs.model import DetailKind
from mppobs.testing import Captured

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "leave"]), st.sampled_from(["read", "decode", "write", OTHER]), st.integers(0, 9)
    ),
    max_size=40,
)


def charged(steps: list[tuple[str, str, int]], last: int) -> dict[str, int]:
    """Work out naively, nanosecond by nanosecond, who is the innermost open activity."""
    spent = {OTHER: 0}
    stack = [OTHER]
    for kind, name, wait in [*steps, ("", "", last)]:
        for _ in range(wait):
            spent[stack[-1]] = spent.get(stack[-1], 0) + 1
        if kind == "enter":
            spent.setdefault(name, 0)
            stack.append(name)
        elif kind == "leave" and name in stack[1:]:
            place = len(stack) - 1 - stack[::-1].index(name)
            if place:
                del stack[place]
    return spent


@given(STEPS, st.integers(0, 9))
def test_parts_sum_exactly_and_go_to_the_innermost(steps: list[tuple[str, str, int]], last: int) -> None:
    """For any order of opening and closing, the ledger equals a count by single nanoseconds, and sums to the whole."""
    ledger, now = Ledger(1000), 1000
    for kind, name, wait in steps:
        now += wait
        if kind == "enter":
            ledger.enter(name, now)
        else:
            ledger.leave(name, now)
    now += last

    spent = ledger.close(now)

    assert spent == charged(steps, last)
    assert sum(spent.values()) == now - 1000


def test_the_details_of_an_attempt_sum_to_its_duration(captured: Captured) -> None:
    """Nested timers of a real attempt, and `other`, add up to the duration in its record, to the nanosecond."""

    @mppobs.task(shard="part")
    def work(part: int) -> None:
        attempt = mppobs.current()
        with attempt.activity("read"):
            time.sleep(0.004)
            with attempt.activity("decode"):
                time.sleep(0.002)
        with attempt.activity("read"):
            time.sleep(0.001)

    work(1)

    (record,) = captured.attempts
    (detail,) = captured.details
    amounts = dict(detail.amounts)
    assert detail.what is DetailKind.ACTIVITY
    assert set(amounts) == {"read", "decode", OTHER}
    assert sum(amounts.values()) == record.duration_ns
    assert (detail.start_ns, detail.shard_key) == (record.start_ns, record.shard_key)
    assert 5_000_000 <= amounts["read"] < 50_000_000
    assert 2_000_000 <= amounts["decode"] < 50_000_000


def test_an_activity_that_is_left_open_ends_with_the_attempt(captured: Captured) -> None:
    """An exception inside an activity, or one that is never left, leaves no gap."""
    with mppobs.attempt(stage="s", shard=1) as attempt:
        attempt.activity("stuck").__enter__()

    assert sum(amount for _, amount in captured.details[0].amounts) == captured.attempts[0].duration_ns


def test_too_many_names_count_as_other(captured: Captured) -> None:
    """The number of activities of an attempt is bounded, and their sum still exact."""
    with mppobs.attempt(stage="s", shard=1) as attempt:
        for i in range(100):
            with attempt.activity(f"step-{i}"):
                pass

    amounts = [pair for detail in captured.details for pair in detail.amounts]
    assert len(amounts) == MAX_ACTIVITIES
    assert sum(amount for _, amount in amounts) == captured.attempts[0].duration_ns


def test_activities_of_several_threads_are_charged_once(captured: Captured) -> None:
    """Threads that time parts of one attempt at once never make the parts exceed the whole."""

    def busy(activity: Activity) -> None:
        for _ in range(300):
            with activity:
                pass

    with mppobs.attempt(stage="s", shard=1) as attempt:
        threads = [threading.Thread(target=busy, args=(attempt.activity(f"a{i}"),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    amounts = [amount for detail in captured.details for _, amount in detail.amounts]
    assert sum(amounts) == captured.attempts[0].duration_ns


def test_troubles_by_kind_are_details_and_sum_to_the_total(captured: Captured) -> None:
    """Counts by kind come before the attempt's record, whose total includes those without a kind."""
    with mppobs.attempt(stage="s", shard="p") as attempt:
        attempt.add(network_errors={"reset": 2, "timeout": 1})
        attempt.add(network_errors=4, storage_throttled={"hot/": 5})
        attempt.add(network_errors={"reset": 1})

    records = captured.records
    (record,) = captured.attempts
    assert {detail.what: dict(detail.amounts) for detail in captured.details} == {
        DetailKind.NETWORK_ERROR: {"reset": 3, "timeout": 1},
        DetailKind.STORAGE_THROTTLED: {"hot/": 5},
    }
    assert (record.network_errors, record.storage_throttled) == (8, 5)
    assert max(records.index(detail) for detail in captured.details) < records.index(record)


def test_outside_an_attempt_timers_do_nothing() -> None:
    """Code that is instrumented runs unchanged where nothing is recorded."""
    with mppobs.current().activity("read") as activity:
        assert activity is not None
