"""The CPU time of attempts, of which close ones share a reading of the clock."""

from __future__ import annotations

import threading

import pytest

import mppobs
from mppobs.instrument import recording
from mppobs.instrument.recording import CPU_READ_NS
from mppobs.testing import capture


class Clocks:
    """The two clocks of a thread that a test moves by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall = 1_000_000_000
        self.cpu = 500_000_000
        self.readings = 0
        patch.setattr(recording, "monotonic_ns", lambda: self.wall)
        patch.setattr(recording, "thread_time_ns", self.read)

    def read(self) -> int:
        """Return the CPU time, counting how often that was asked."""
        self.readings += 1
        return self.cpu

    def work(self, ns: int) -> None:
        """Use the CPU for a while."""
        self.wall += ns
        self.cpu += ns

    def sleep(self, ns: int) -> None:
        """Let time pass without using the CPU."""
        self.wall += ns


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Put the clocks under the test's control."""
    return Clocks(monkeypatch)


def test_close_attempts_share_readings_and_their_cpu_time_is_exact(clocks: Clocks) -> None:
    """A thread that never waits is read once in every ten microseconds, and every attempt has its own time."""
    with capture() as captured, mppobs.job(pipeline="nightly"):
        for shard in range(100):
            with mppobs.attempt(stage="map", shard=shard):
                clocks.work(1_000 + shard)
            clocks.work(500)
    assert [record.cpu_ns for record in captured.attempts] == [1_000 + shard for shard in range(100)]
    assert clocks.readings <= 100 * 1_600 / CPU_READ_NS + 2


def test_a_long_attempt_is_read_at_both_ends(clocks: Clocks) -> None:
    """What an attempt slept is not in its CPU time, whatever came before it."""
    with capture() as captured, mppobs.job(pipeline="nightly"):
        for shard in range(10):
            with mppobs.attempt(stage="map", shard=shard):
                clocks.work(30_000)
                clocks.sleep(5_000_000)
                clocks.work(40_000)
            clocks.sleep(50_000)
    assert [record.cpu_ns for record in captured.attempts] == [70_000] * 10
    assert clocks.readings == 20


def test_a_short_wait_costs_no_more_than_the_life_of_a_reading(clocks: Clocks) -> None:
    """Waits too short to notice count as work or are missed, by ten microseconds at most, and never as less than 0."""
    with capture() as captured, mppobs.job(pipeline="nightly"):
        for shard in range(50):
            with mppobs.attempt(stage="map", shard=shard):
                clocks.work(4_000)
                clocks.sleep(3_000)
            clocks.sleep(4_000)
    assert all(abs((record.cpu_ns or 0) - 4_000) <= CPU_READ_NS for record in captured.attempts)


def test_the_reading_of_one_thread_serves_no_other(clocks: Clocks) -> None:
    """A slot that another thread takes over begins with a reading of its own."""

    def attempt(shard: int) -> None:
        with mppobs.attempt(stage="map", shard=shard):
            clocks.work(1_000)

    with capture(), mppobs.job(pipeline="nightly"):
        attempt(0)
        before = clocks.readings
        attempt(1)
        assert clocks.readings == before
        carrier = mppobs.inject()

        def elsewhere() -> None:
            with mppobs.attach(carrier):
                attempt(2)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert clocks.readings == before + 1


def test_an_attempt_that_fails_is_read_at_its_end(clocks: Clocks) -> None:
    """An exception takes the slow path, which always reads."""

    @mppobs.task(stage="map", shard="shard")
    def refuse(shard: int) -> None:
        clocks.work(2_000)
        raise ValueError(shard)

    with capture() as captured, mppobs.job(pipeline="nightly"), pytest.raises(ValueError, match="0"):
        refuse(0)
    assert [record.cpu_ns for record in captured.attempts] == [2_000]
