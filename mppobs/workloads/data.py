"""
TPC-H data as Parquet, made once per scale factor by `tpchgen-cli` and kept.

A table is a directory of parts, and a shard reads one or several of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mppobs.errors import ConfigError
from mppobs.workloads.made import make_once

TABLES: Final = ("lineitem", "orders", "customer", "supplier", "nation", "region")
"""The tables that the bundled queries read."""
_WHOLE: Final = frozenset({"nation", "region"})
"""Tables of a few rows, which the generator does not cut."""
_LAYOUT: Final = f"t{len(TABLES)}"
"""Part of the directory's name: data that was made with fewer tables is not taken for complete."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """TPC-H tables of one scale factor, cut into parts. Make one with `make_dataset`."""

    directory: Path
    scale_factor: float
    """1 is a gigabyte of text, about 6 million line items."""
    parts: int
    """Files per table, but for the smallest."""

    def files(self, table: str) -> list[Path]:
        """Return the parts of a table, in order; the part's place in the list is its shard."""
        parts = 1 if table in _WHOLE else self.parts
        return [self.directory / table / f"{table}.{part}.parquet" for part in range(1, parts + 1)]

    def cut(self, table: str, shards: int) -> list[list[Path]]:
        """Return the parts of a table dealt out to so many shards, or to one per part where there are fewer parts."""
        files = self.files(table)
        return [files[shard::shards] for shard in range(min(shards, len(files)))]

    def glob(self, table: str) -> str:
        """Return the pattern by which DuckDB reads the whole table."""
        return str(self.directory / table / "*.parquet")

    @property
    def size_bytes(self) -> int:
        """Return what the tables take on disk."""
        return sum(path.stat().st_size for table in TABLES for path in self.files(table))


def parts_of(scale_factor: float) -> int:
    """Return in how many parts tables are cut where nobody says: enough for dozens of shards, and no crumbs."""
    return 48 if scale_factor >= 0.1 else 8


def make_dataset(root: Path, scale_factor: float, parts: int) -> Dataset:
    """
    Return the tables at `scale_factor` in `parts` parts each, below `root`; make them where they are not there yet.

    Raises `ConfigError` where `tpchgen-cli` is missing or fails. Two processes may ask at once: the first
    rename wins, and both get the same complete directory.
    """
    if scale_factor <= 0 or parts < 1:
        raise ConfigError(f"scale factor {scale_factor:g} in {parts} parts: both must be positive")
    final = root / f"tpch-sf{scale_factor:g}-p{parts}-{_LAYOUT}"
    make_once(final, lambda directory: _generate(directory, scale_factor, parts))
    return Dataset(final, scale_factor, parts)


def _generate(directory: Path, scale_factor: float, parts: int) -> None:
    """Run the generator, which writes `<table>/<table>.<part>.parquet`."""
    command = [
        _generator(), "parquet", f"--scale-factor={scale_factor:g}", f"--tables={','.join(TABLES)}",
        f"--parts={parts}", f"--output-dir={directory}", "--quiet",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"tpchgen-cli ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def _generator() -> str:
    """Return the path of `tpchgen-cli`: beside this interpreter, or on the path."""
    beside = Path(sys.executable).with_name("tpchgen-cli")
    found = str(beside) if beside.exists() else shutil.which("tpchgen-cli")
    if found is None:
        raise ConfigError("tpchgen-cli is not installed: pip install 'mppobs[demo]'")
    return found
