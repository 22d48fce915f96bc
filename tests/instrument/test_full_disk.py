"""A full disk, as the user's work sees it: not at all."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import mppobs
from mppobs.instrument.recorder import RECORDER
from mppobs.model import AttemptOutcome
from mppobs.testing import Captured


@mppobs.task(stage="map", shard="part")
def work(part: int) -> int:
    """Do something that fails now and then."""
    with mppobs.current().activity("read"):
        mppobs.current().progress(0.5)
    if part % 10 == 0:
        raise KeyError(part)
    return part


def run(count: int) -> dict[AttemptOutcome, int]:
    """Run many attempts; return how they ended, as the caller saw it."""
    seen = {AttemptOutcome.SUCCESS: 0, AttemptOutcome.FAILURE: 0}
    with mppobs.job(pipeline="nightly") as job:
        job.plan("map", count)
        for part in range(count):
            try:
                assert work(part) == part
                seen[AttemptOutcome.SUCCESS] += 1
            except KeyError:
                seen[AttemptOutcome.FAILURE] += 1
        job.checkpoint()
    return seen


def test_a_budget_that_is_used_up_costs_records_but_no_work(captured: Captured) -> None:
    """Past the budget work goes on at full speed, and the head counts by outcome what was not recorded."""
    mppobs.configure(budget_bytes=64 * 1024)
    started = time.monotonic()
    seen = run(3000)
    took = time.monotonic() - started

    kept = dict.fromkeys(seen, 0)
    for record in captured.attempts:
        kept[record.outcome] += 1
    dropped = captured.dropped()
    assert 100 < sum(kept.values()) < 1000
    assert {outcome: kept[outcome] + dropped[outcome] for outcome in seen} == seen
    assert took < 5
    assert RECORDER.notes == 0 or RECORDER.journal() is not None


def test_a_full_file_system_costs_records_but_no_work(captured: Captured, tmp_path: Path) -> None:
    """On a tmpfs of 128 KiB the same: the mapped pages were allocated before, so nothing is killed by SIGBUS."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        mppobs.configure(directory=tmp_path)
        seen = run(3000)
        found = Captured(tmp_path)
        kept = dict.fromkeys(seen, 0)
        for record in found.attempts:
            kept[record.outcome] += 1
        assert {outcome: kept[outcome] + found.dropped().get(outcome, 0) for outcome in seen} == seen
        assert sum(kept.values()) > 100
        mppobs.configure(enabled=False)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_small_ext4_costs_records_but_no_work(captured: Captured, tmp_path: Path) -> None:
    """On a loop-mounted file system of 1 MiB, filled to the brim, the same."""
    image, mountpoint = tmp_path / "image", tmp_path / "mounted"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(1024 * 1024)
    made = subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], capture_output=True, check=False)
    if made.returncode == 0:
        made = subprocess.run(["mount", "-o", "loop", str(image), str(mountpoint)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a loop mount is not possible here: {made.stderr.decode().strip()}")
    try:
        mppobs.configure(directory=mountpoint)
        seen = run(12_000)
        found = Captured(mountpoint)
        kept = sum(1 for _ in found.attempts)
        assert kept + sum(found.dropped().values()) == sum(seen.values())
        assert 100 < kept < 12_000
        mppobs.configure(enabled=False)
    finally:
        subprocess.run(["umount", "-l", str(mountpoint)], check=True)
