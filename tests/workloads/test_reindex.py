"""The reindex and its store: a prefix takes what it takes, and gathering and fanning out stay below that."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import pytest

import mppobs
from mppobs.executor.task import Throttled
from mppobs.model import DetailKind
from mppobs.testing import Captured, capture
from mppobs.workloads import store as module
from mppobs.workloads.registry import workload
from mppobs.workloads.store import PrefixStore
from tests.workloads.conftest import SCALE
from tests.workloads.serial import run_serially


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


class StillTime:
    """Stands for the module `time`: it passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return how long was slept."""
        return 1000.0 + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> StillTime:
    """Return the time of the store, which stands still."""
    found = StillTime()
    monkeypatch.setattr(module, "time", found)
    return found


def test_a_prefix_takes_its_burst_and_then_its_rate(tmp_path: Path) -> None:
    """A tenth of a second's writes go through at once; the next is told how long to wait; other prefixes are free."""
    store = PrefixStore(tmp_path, 50.0)
    for number in range(5):
        store.put(f"hot/{number}", b"x")
    with pytest.raises(Throttled, match="hot/ takes 50 writes a second") as told:
        store.put("hot/5", b"x")
    store.put("cold/0", b"y")

    assert 0 < told.value.retry_after <= 1 / 50
    assert store.names() == ["cold/0", *(f"hot/{number}" for number in range(5))]
    assert store.get("cold/0") == b"y"


def test_writers_take_turns_at_the_tokens(tmp_path: Path) -> None:
    """Who writes waits while another counts, so that no token is given twice."""
    store = PrefixStore(tmp_path, 100.0)
    store.put("hot/0", b"x")
    with (tmp_path / ".limits" / "hot").open("rb") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        writing = pool.submit(store.put, "hot/1", b"x")
        with pytest.raises(FutureTimeoutError):
            writing.result(timeout=0.1)
        fcntl.flock(held, fcntl.LOCK_UN)
        writing.result(timeout=10)

    assert store.names() == ["hot/0", "hot/1"]


def test_a_clock_that_began_anew_owes_nothing(tmp_path: Path, still: StillTime) -> None:
    """After the machine was started again the bucket of the boot before is as full as any."""
    store = PrefixStore(tmp_path, 1.0)
    store.put("hot/0", b"x")
    still.slept.append(-500.0)

    store.put("hot/1", b"x")
    with pytest.raises(Throttled):
        store.put("hot/2", b"x")


def test_patience_counts_and_has_an_end(tmp_path: Path, captured: Captured, still: StillTime) -> None:
    """Each refusal counts as a throttled request of its prefix, and after some the attempt is given back."""
    store = PrefixStore(tmp_path, 0.01)
    store.put("hot/0", b"x")
    with mppobs.attempt(stage="write", shard=0) as attempt:
        with pytest.raises(Throttled):
            store.put_patiently("hot/1", b"x")
        attempt.checkpoint()
    told = [each.amounts for each in captured.details if each.what is DetailKind.STORAGE_THROTTLED]

    assert captured.attempts[0].storage_throttled == 6
    assert told == [(("hot", 6),)]
    assert still.slept == [0.5] * 5


@pytest.mark.parametrize("buffered", ["on", "off"])
@pytest.mark.usefixtures("still")
def test_writes_are_throttled_where_they_are_not_gathered(buffered: str, tmp_path: Path, captured: Captured) -> None:
    """Term by term on one prefix the store says no; gathered and fanned out it never does. The answer is the same."""
    found = workload("reindex").configured({"buffered": buffered})
    found.prepare(tmp_path, SCALE)
    with mppobs.attempt(stage="all", shard=0):
        answer = run_serially(found.plan(tmp_path, SCALE, 8))
    found.check(tmp_path, SCALE, answer)
    written = PrefixStore(tmp_path / "indexes" / "serial", 1.0).names()

    assert (captured.attempts[0].storage_throttled > 0) is (buffered == "off")
    assert {name.partition("/")[0] for name in written} == (
        {"index"} if buffered == "off" else {f"{prefix:02x}" for prefix in range(16)}
    )
    assert (len(written) > 300) is (buffered == "off")


@pytest.mark.parametrize(("slices", "widest"), [(1, 1.0), (4, 0.4)])
def test_slices_cut_hot_terms(slices: int, widest: float, tmp_path: Path) -> None:
    """The largest list of documents is a whole hot term's, or a fourth of it where it is cut into four."""
    found = workload("reindex").configured({"slices": str(slices)})
    found.prepare(tmp_path, SCALE)
    run_serially(found.plan(tmp_path, SCALE, 8))
    store = PrefixStore(tmp_path / "indexes" / "serial", 1.0)
    lists = [len(line.split(" ")) - 1 for name in store.names() for line in store.get(name).decode().splitlines()]

    assert max(lists) <= 1300 * widest
    assert max(lists) > 1000 * widest * 0.6
