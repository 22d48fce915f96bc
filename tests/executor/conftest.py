"""Engines for the executor's tests: one Dask and one Ray for each process of the test run that needs them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from mppobs.executor.backends.base import Backend
from mppobs.executor.backends.local import LocalBackend
from mppobs.executor.backends.recording import recording
from mppobs.executor.backends.sim import SimBackend
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.settings import from_environment
from tests.executor.rig import ENGINES, Rig

WORKERS = 2
ROOT = Path(__file__).parents[2]


def require_package(name: str, extra: str) -> None:
    """Skip the test where a package is missing, or fail it where missing is an error."""
    if find_spec(name) is not None:
        return
    reason = f"{name} is not installed: pip install 'mppobs[{extra}]'"
    if os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def dask_address() -> Iterator[str]:
    """Return the address of a Dask cluster of two workers."""
    require_package("distributed", "dask")
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        yield str(cluster.scheduler_address)


@pytest.fixture(scope="session")
def ray_up() -> Iterator[None]:
    """Have this process connected to a Ray of its own, with room for two backends."""
    require_package("ray", "ray")
    import ray

    before = {name: os.environ.get(name) for name in _RAY_ENVIRONMENT}
    os.environ.update(_RAY_ENVIRONMENT)
    ray.init(
        "local", num_cpus=2 * WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error",
        object_store_memory=80 * 1024 * 1024,
    )  # fmt: skip
    yield
    ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # tests tell nobody that they were run
    "RAY_worker_maximum_startup_concurrency": "2",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}


@contextmanager
def recording_to(journals: Path) -> Iterator[None]:
    """Have this process, and the workers of backends that are made now, record in a directory."""
    old = RECORDER.reset(from_environment({})._replace(directory=journals, sample_seconds=0.0))
    try:
        yield
    finally:
        RECORDER.reset(old)


@pytest.fixture(scope="session")
def dask_rig(dask_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Return a backend on Dask for all tests, since its workers take seconds to start."""
    from mppobs.executor.backends.dask import dask_backend

    journals = tmp_path_factory.mktemp("dask")
    with recording_to(journals):
        backend = dask_backend(WORKERS, dask_address)
    yield Rig(backend, journals)
    backend.close()


@pytest.fixture(scope="session")
def ray_rig(ray_up: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Return a backend on Ray for all tests, since its workers take seconds to start."""
    from mppobs.executor.backends.ray import ray_backend

    journals = tmp_path_factory.mktemp("ray")
    with recording_to(journals):
        backend = ray_backend(WORKERS)
    yield Rig(backend, journals)
    backend.close()


@pytest.fixture
def rig(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Return a backend of two workers that are up, by its name."""
    if kind in ENGINES:
        shared: Rig = request.getfixturevalue(f"{kind}_rig")
        shared.wait_for_workers(WORKERS)
        shared.heard.clear()
        yield shared
        return
    with recording_to(tmp_path / "journals"):
        backend: Backend = SimBackend(WORKERS) if kind == "sim" else LocalBackend(WORKERS, recording(), "w")
        made = Rig(backend, tmp_path / "journals")
        made.wait_for_workers(WORKERS)
        made.heard.clear()
        yield made
        backend.close()


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the address of the engine of this process, which is up from here on; empty where it needs none."""
    if kind == "ray":
        request.getfixturevalue("ray_up")
    return str(request.getfixturevalue("dask_address")) if kind == "dask" else ""
