"""The data of the workloads: whole or not there, the same every time, made once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import parquet

from mppobs.errors import ConfigError
from mppobs.workloads import data
from mppobs.workloads.data import TABLES, make_dataset, parts_of
from tests.workloads.conftest import SCALE


def test_every_table_is_there_in_all_its_parts(tables: Path) -> None:
    """Each table has the parts asked for, together the rows that TPC-H prescribes for the scale factor."""
    dataset = make_dataset(tables, SCALE, parts_of(SCALE))
    rows = {table: sum(parquet.read_metadata(path).num_rows for path in dataset.files(table)) for table in TABLES}

    assert rows["customer"] == 1500
    assert rows["orders"] == 15000
    assert rows["lineitem"] == pytest.approx(60000, rel=0.01)
    assert dataset.size_bytes == sum(path.stat().st_size for path in dataset.directory.rglob("*.parquet"))


def test_data_is_made_once(tmp_path: Path) -> None:
    """A second call finds what the first one made, and another scale factor or cut has a place of its own."""
    first = make_dataset(tmp_path, 0.001, 2)
    made = first.files("orders")[0].stat().st_mtime_ns

    assert make_dataset(tmp_path, 0.001, 2) == first
    assert first.files("orders")[0].stat().st_mtime_ns == made
    assert make_dataset(tmp_path, 0.001, 3).directory != first.directory


def test_two_may_make_it_at_once(tmp_path: Path) -> None:
    """Callers that ask at the same time all get the complete data, and nothing else is left behind."""
    with ThreadPoolExecutor(2) as pool:
        datasets = list(pool.map(lambda _: make_dataset(tmp_path, 0.001, 2), range(2)))

    assert len(set(datasets)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tpch-sf0.001-p2-t6"]
    assert all(path.exists() for table in TABLES for path in datasets[0].files(table))


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that fails is an error with its words, and leaves no half-made data that a later run would take."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(data, "_generator", lambda: str(broken))
    with pytest.raises(ConfigError, match="ended with 3: no space left"):
        make_dataset(tmp_path / "cache", 0.001, 2)

    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_generator_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tpchgen-cli the error names the extra that brings it."""
    monkeypatch.setattr(data.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"pip install 'mppobs\[demo\]'"):
        make_dataset(tmp_path, 0.001, 2)


@pytest.mark.parametrize(("scale_factor", "parts"), [(0, 1), (-1, 1), (1, 0)])
def test_nonsense_is_refused(tmp_path: Path, scale_factor: float, parts: int) -> None:
    """A scale factor or a number of parts that is not positive is refused before anything is made."""
    with pytest.raises(ConfigError, match="must be positive"):
        make_dataset(tmp_path, scale_factor, parts)
