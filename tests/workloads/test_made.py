"""What jobs leave goes after a day, and what is younger stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mppobs.workloads.made import sweep


def test_what_is_older_than_a_day_goes(tmp_path: Path) -> None:
    """Directories and files alike, by when they were last touched; a directory that is not there holds nothing."""
    old = time.time() - 25 * 3600
    for name, age in (("old-job", old), ("new-job", old + 7200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint").write_text("x")
        (tmp_path / f"{name}.lock").write_text("")
        for path in (tmp_path / name, tmp_path / f"{name}.lock"):
            os.utime(path, (age, age))
    sweep(tmp_path)
    sweep(tmp_path / "nowhere")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["new-job", "new-job.lock"]
