"""What shards put out, put together: nulls of no type meet the others, and what does not fit is the work's error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mppobs.executor import Executor, JobFailedError, Plan, ShardPlan, Stage
from mppobs.executor.task import TaskError, together
from mppobs.model import Reason
from mppobs.testing import Captured, capture


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


def sparse(*, read: bool, **arguments: str) -> Plan:
    """Return a plan whose first of three shards has a column of nulls alone, read by another stage or not."""
    first = Stage("sparse", "tests.executor.tasks:sparse", tuple(map(ShardPlan, range(3))), arguments=arguments)
    second = Stage("read", "tests.executor.tasks:read_sparse", reads=("sparse",))
    return Plan("sparse", (first, second) if read else (first,))


@pytest.mark.parametrize("read", [True, False])
def test_a_shard_may_have_nothing_but_nulls(captured: Captured, tmp_path: Path, read: bool) -> None:
    """Its column takes the type that the other shards have, for the next stage and in the answer."""
    with Executor(2, tmp_path) as executor:
        answer = executor.run(sparse(read=read)).check().answer
    assert answer["v"].type == pa.int64()
    assert sorted(answer["v"].to_pylist(), key=str) == [1, 2, None, None, None, None]


def test_shards_of_other_columns_are_the_works_error(captured: Captured, tmp_path: Path) -> None:
    """The job fails at once, and says which columns there are."""
    with Executor(2, tmp_path) as executor:
        result = executor.run(sparse(read=True, **{"name-2": "w"}))
    (failure,) = result.failures
    assert (failure.attempts, failure.reason) == (1, Reason.EXCEPTION)
    with pytest.raises(JobFailedError, match=r"stage 'sparse' put out different columns: \['v'\], \['w'\]"):
        result.check()


def test_what_does_not_fit_together_is_told() -> None:
    """Text is no number, and neither is made of the other."""
    with pytest.raises(TaskError, match="stage 'map' put out columns of different types"):
        together("map", [pa.table({"a": [1]}), pa.table({"a": ["x"]})])
    with pytest.raises(TaskError, match=r"different columns: \['a', 'b'\], \['b', 'a'\]"):
        together("map", [pa.table({"a": [1], "b": [2]}), pa.table({"b": [1], "a": [2]})])
