"""What the tests of workloads share: small TPC-H tables, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mppobs.workloads.data import make_dataset, parts_of

SCALE = 0.01


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which workloads find the tables of `SCALE`."""
    directory = tmp_path_factory.mktemp("tables")
    make_dataset(directory, SCALE, parts_of(SCALE))
    return directory
