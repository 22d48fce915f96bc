"""Faults as values: what they say of themselves, how they are written, and whom they hit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.catalog.alerts import BY_NAME
from mppobs.errors import ConfigError
from mppobs.executor.faults import KINDS, Fault, FaultKind, Layer, arm, of_layer, parse_fault
from mppobs.executor.sabotage import run_sabotaged, stretch
from mppobs.executor.sim.model import Cluster
from mppobs.executor.sim.world import World
from mppobs.executor.task import TaskInput, Throttled
from mppobs.instrument.attempt import NOTHING, Attempt

NOW = 1_700_000_000_000_000_000


class Counting(type(NOTHING)):  # type: ignore[misc]
    """An attempt that keeps what is added to it."""

    __slots__ = ("added",)

    def __init__(self) -> None:
        super().__init__()
        self.added: list[dict[str, Any]] = []

    def add(self, **amounts: Any) -> None:
        """Keep it."""
        self.added.append(amounts)


def task(shard: int = 0, number: int = 0, read: Any = None) -> TaskInput:
    """Return a shard's input."""
    return TaskInput("job", "map", shard, number, {}, read or (lambda stage: iter(())))


def strike(text: str, shard: int = 0, number: int = 0, attempt: Attempt | None = None) -> Any:
    """Run a task under a fault; return what it returns."""
    armed = arm([parse_fault(text)], 0)
    return run_sabotaged(lambda given: "done", task(shard, number), armed, shard, attempt or Counting())


def test_every_kind_is_told_of() -> None:
    """Every kind of fault has an entry, with an alert that exists and is of the same failure mode."""
    assert set(KINDS) == set(FaultKind)
    for kind, about in KINDS.items():
        assert about.mode is BY_NAME[about.alert].failure_mode, kind
        assert about.looks
        assert about.answer


@pytest.mark.parametrize("mode", [f"F{number}" for number in range(1, 8)])
def test_every_failure_mode_can_be_injected(mode: str) -> None:
    """Each of the seven failure modes has a fault whose alert is that mode's own."""
    assert any(about.mode == mode and BY_NAME[about.alert].failure_mode == mode for about in KINDS.values())


def test_a_fault_is_written_with_its_schedule() -> None:
    """Times are seconds or durations; everything but the kind may be left out."""
    assert parse_fault("skew:severity=8,at=5,for=2m,target=join") == Fault(FaultKind.SKEW, 5.0, 120.0, 8.0, "join")
    assert parse_fault("node-loss") == Fault(FaultKind.NODE_LOSS, severity=KINDS[FaultKind.NODE_LOSS].severity)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("skwe", "did you mean 'skew'?"),
        ("skew:severty=8", "did you mean 'severity'?"),
        ("skew:severity", "severity has no value: write severity=VALUE"),
        ("skew:severity=", "severity has no value"),
        ("skew:at=1,at=2", "at is there twice"),
        ("skew:severity=0", "leave it out for the usual 8"),
        ("skew:severity=nan", "must be finite"),
        ("skew:at=inf", "must be finite"),
        ("skew:at=nan", "must be finite"),
        ("skew:for=1e12", "a century at most"),
        ("skew:severity=1e12", "is a factor, 1 to 1,000,000, not 1e+12"),
        ("cpu:severity=0.5", "is a factor, 1 to 1,000,000, not 0.5"),
        ("runaway:severity=1e6", "is a factor, 1 to 1,000, not"),
        ("skew:severity=much", "severity 'much' is no number"),
        ("skew:at=soon", "'soon' is no duration"),
        ("skew:at=-1", "must not be negative"),
        ("retry-storm:severity=3", "is a share, 1 at most"),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, hint: str) -> None:
    """The message names the fault and the nearest right word."""
    with pytest.raises(ConfigError, match=r"^fault") as refused:
        parse_fault(text)

    assert hint in str(refused.value)


@given(st.sampled_from(list(FaultKind)), st.floats(0, 1e5), st.floats(0, 1e5))
def test_a_fault_is_on_from_its_time_for_as_long_as_it_lasts(kind: FaultKind, at: float, lasts: float) -> None:
    """It is off before, on at its begin, and off from its end on, where it has one."""
    (armed,) = arm([Fault(kind, at, lasts)], NOW)

    assert not armed.active(armed.begin_ns - 1)
    assert armed.active(armed.begin_ns) or armed.end_ns == armed.begin_ns
    assert not armed.active(armed.end_ns)


@given(st.floats(0.01, 0.99))
def test_a_share_is_hit_and_not_more(share: float) -> None:
    """About the share of the attempts is hit, and whether a retry is does not depend on the first attempt."""
    fault = Fault(FaultKind.RETRY_STORM, severity=share)
    first = [fault.hits("map", shard, 0) for shard in range(2000)]
    both = sum(hit and fault.hits("map", shard, 1) for shard, hit in enumerate(first))

    assert abs(sum(first) / 2000 - share) < 0.06
    assert abs(both / 2000 - share**2) < 0.06


def test_layers_share_out_the_faults() -> None:
    """Every fault is applied at exactly one layer."""
    faults = [Fault(kind) for kind in FaultKind]

    assert sum(len(of_layer(faults, layer)) for layer in Layer) == len(faults)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("retry-storm:severity=1", ConnectionResetError),
        ("fabric:severity=1", ConnectionResetError),
        ("hot-key:severity=1", Throttled),
        ("hot-prefix:severity=1", Throttled),
        ("memory:severity=1", MemoryError),
    ],
)
def test_a_task_is_turned_away(text: str, error: type[Exception]) -> None:
    """The task is not called; what is raised is what the platform would raise."""
    with pytest.raises(error, match="on purpose"):
        strike(text)


def test_troubles_are_counted_by_their_kind() -> None:
    """What the network and the storage did is on the attempt's record."""
    attempt = Counting()
    with pytest.raises(ConnectionResetError):
        strike("fabric:severity=1", attempt=attempt)
    with pytest.raises(Throttled):
        strike("hot-prefix:severity=1", attempt=attempt)

    assert attempt.added == [{"network_errors": {"fabric": 3}}, {"storage_throttled": {"hot-prefix": 1}}]


def test_chosen_shards_alone_are_hit() -> None:
    """A hot key and a want of memory are the matter of one shard in ten, and memory of first attempts."""
    assert strike("hot-key:severity=1", shard=3) == "done"
    assert strike("memory", shard=3) == "done"
    assert strike("memory", shard=0, number=1) == "done"


@pytest.mark.parametrize("text", ["retry-storm:severity=1,target=join", "retry-storm:severity=1,target=map/7"])
def test_a_fault_for_others_changes_nothing(text: str) -> None:
    """A target is a stage, or one shard of it."""
    assert strike(text) == "done"


def test_reads_fail_and_are_counted() -> None:
    """With every transfer failing the attempt gives up after the third; with none it reads as ever."""
    table = pa.table({"x": [1]})

    def read(stage: str) -> Iterator[pa.Table]:
        yield table

    def total(given: TaskInput) -> int:
        return int(given.read("earlier").num_rows)

    attempt = Counting()
    with pytest.raises(ConnectionResetError, match="reading earlier failed"):
        run_sabotaged(total, task(read=read), arm([parse_fault("shuffle:severity=1")], 0), 0, attempt)
    assert attempt.added == [{"network_errors": {"reset": 1}}] * 3
    assert run_sabotaged(total, task(read=read), (), 0, attempt) == 1


def test_a_stretched_task_takes_its_time() -> None:
    """A skewed shard's sleep follows from the task's own time, ten milliseconds at the least."""
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mppobs.executor.sabotage.time.sleep", slept.append)
        assert strike("skew:severity=8") == "done"
        assert strike("skew:severity=8", shard=1) == "done"

    assert [round(seconds, 3) for seconds in slept] == [0.07]


def test_slowdowns_multiply() -> None:
    """Two faults on one attempt do both of what they do."""
    faults = [parse_fault("skew:severity=8"), parse_fault("cpu:severity=3")]

    assert stretch(faults, "map", 0, 0, "w-2") == 24.0
    assert stretch(faults, "map", 1, 0, "w-2") == 3.0
    assert stretch([parse_fault("slow-node:severity=5,target=w-7")], "map", 1, 0, "w-7") == 5.0


def test_a_world_takes_every_kind() -> None:
    """No kind of fault is unknown to a simulated world."""
    for kind in FaultKind:
        world = World(Cluster(nodes=4), 1, [Fault(kind, at=1.0, lasts=5.0)])
        while world.next_ns >= 0:
            world.next(world.next_ns)
        assert world.faults == []
