"""TPC-H on every backend, with faults: the answers are those that DuckDB gives, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mppobs.executor import Executor
from mppobs.executor.backends.make import BackendKind, BackendSpec, make_backend
from mppobs.executor.faults import Layer, arm, of_layer, parse_faults
from mppobs.model import AttemptOutcome, JobOutcome
from mppobs.testing import Captured, capture
from mppobs.workloads.registry import workload
from tests.executor.conftest import WORKERS
from tests.executor.rig import on_every_backend

QUERIES = ("tpch-q1", "tpch-q3", "tpch-q5", "tpch-q18")
FAULTS = ("node-loss:at=0.2,severity=0.5", "retry-storm:severity=0.06", "hot-key:severity=0.3,for=2")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tables are made, once."""
    return tmp_path_factory.mktemp("tpch")


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


def answer_all(kind: str, address: str, data: Path, scale: float, shards: int, directory: Path) -> int:
    """Run every query on one executor with faults, check each answer, and return how many attempts came to nothing."""
    spec = BackendSpec(BackendKind(kind), WORKERS, address, faults=parse_faults(FAULTS), seed=3)
    backend, clock = make_backend(spec)
    faults = () if kind == "sim" else arm(of_layer(spec.faults, Layer.TASK), clock.time_ns())
    lost = 0
    with Executor(WORKERS, directory, backend=backend, faults=faults, clock=clock) as executor:
        for name in QUERIES:
            query = workload(name)
            query.prepare(data, scale)
            result = executor.run(query.plan(data, scale, shards)).check()
            assert result.outcome is JobOutcome.SUCCESS
            query.check(data, scale, result.answer)
            lost += sum(count for outcome, count in result.attempts.items() if outcome is not AttemptOutcome.SUCCESS)
    return lost


@on_every_backend()
def test_answers_are_those_of_duckdb(kind: str, address: str, data: Path, captured: Captured, tmp_path: Path) -> None:
    """Four queries with a lost node, failing attempts and a throttled key."""
    assert answer_all(kind, address, data, 0.01, 12, tmp_path) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@on_every_backend()
def test_answers_are_those_of_duckdb_at_scale_factor_1(
    kind: str, address: str, data: Path, captured: Captured, tmp_path: Path
) -> None:
    """The same on six million line items."""
    assert answer_all(kind, address, data, 1.0, 24, tmp_path) > 0
