"""Samples: what the process uses, on a timer, and what the kernel's files say."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import mppobs
from mppobs.instrument.process import ProcessReader, Usage
from mppobs.instrument.recorder import RECORDER
from mppobs.testing import Captured


def write(root: Path, files: dict[str, str]) -> Path:
    """Write a tree of files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


STATUS = "Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"


def test_cgroup_version_2_is_read_with_the_tightest_limit_above(tmp_path: Path) -> None:
    """Limit, throttling and kills come from the process's own cgroup; a parent's smaller limit counts."""
    root = write(
        tmp_path,
        {
            "proc/self/status": STATUS,
            "proc/self/cgroup": "0::/pod/worker\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/pod/memory.max": "5000\n",
            "sys/fs/cgroup/pod/worker/memory.max": "max\n",
            "sys/fs/cgroup/pod/worker/cpu.stat": "usage_usec 9\nnr_throttled 3\nthrottled_usec 250\n",
            "sys/fs/cgroup/pod/worker/memory.events": "low 0\noom 1\noom_kill 2\n",
        },
    )
    assert ProcessReader(root).read() == Usage(1024**2, 2 * 1024**2, 5000, 250_000, 2)


def test_in_a_container_the_visible_root_is_the_cgroup(tmp_path: Path) -> None:
    """Where the path that the kernel names is not visible, the root of the mount is the process's own."""
    root = write(
        tmp_path,
        {
            "proc/self/status": STATUS,
            "proc/self/cgroup": "0::/../../elsewhere\n",
            "sys/fs/cgroup/cgroup.controllers": "memory\n",
            "sys/fs/cgroup/memory.max": "7000\n",
        },
    )
    assert ProcessReader(root).read().memory_limit == 7000


def test_cgroup_version_1_is_read_too(tmp_path: Path) -> None:
    """Limits that are only a huge number mean none, and throttling is in nanoseconds already."""
    files = {
        "proc/self/status": STATUS,
        "proc/self/cgroup": "5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "6000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        "sys/fs/cgroup/cpu/job/cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 77\n",
    }
    assert ProcessReader(write(tmp_path, files)).read() == Usage(1024**2, 2 * 1024**2, 6000, 77, 4)


def test_a_kernel_that_says_nothing_gives_zeros(tmp_path: Path) -> None:
    """Without the files there is nothing to say, and no error."""
    assert ProcessReader(tmp_path).read() == Usage()


def test_a_journal_begins_and_ends_with_a_sample(captured: Captured) -> None:
    """One sample when it is opened, one when it is closed: even a short process says what it used."""
    with mppobs.attempt(stage="s", shard=1):
        block = bytearray(30_000_000)
        deadline = time.thread_time() + 0.02
        while time.thread_time() < deadline:
            block[0] += 0
    RECORDER.close()

    first, last = captured.samples
    assert last.cpu_ns - first.cpu_ns >= 20_000_000
    assert last.peak_rss >= first.peak_rss
    assert last.peak_rss >= last.rss > 10**6
    assert (first.context_id, last.context_id) == (0, captured.attempts[0].context_id)


def test_samples_are_taken_on_a_timer_and_see_what_is_in_flight(captured: Captured) -> None:
    """While an attempt runs, samples tell how long it has run so far."""
    mppobs.configure(sample_seconds=0.01)
    with mppobs.attempt(stage="s", shard=1):
        time.sleep(0.15)

    samples = captured.samples
    assert len(samples) >= 4
    assert max(sample.in_flight_ns for sample in samples) >= 50_000_000
    assert samples[0].in_flight_ns == 0


def test_the_timer_stops_with_the_journal(captured: Captured) -> None:
    """Closing the recorder leaves no thread behind; an interval of 0 starts none."""

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "mppobs-sampler"]

    with mppobs.attempt(stage="s", shard=1):
        assert len(threads()) == 1
    RECORDER.close()
    assert threads() == []
    mppobs.configure(sample_seconds=0)
    with mppobs.attempt(stage="s", shard=2):
        assert threads() == []


def test_flush_takes_a_sample_and_syncs(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """`flush` is quiet where nothing is open, and where the disk fails."""
    mppobs.flush()
    assert captured.samples == []
    with mppobs.attempt(stage="s", shard=1):
        mppobs.flush()
        journal = RECORDER.journal()
        assert journal is not None
        before = RECORDER.notes
        monkeypatch.setattr(journal, "sync", lambda: (_ for _ in ()).throw(OSError(5, "io")))
        mppobs.flush()

    assert len(captured.samples) == 3
    assert RECORDER.notes == before + 1


@pytest.mark.parametrize(
    ("values", "running", "warned"),
    [
        ({"dedicated": True}, 3, True),
        ({"node_type": "m5"}, 3, True),
        ({"dedicated": True}, 2, False),
        ({"dedicated": True, "lanes": 2}, 3, False),
        ({"dedicated": True, "lanes": 2}, 5, True),
        ({}, 9, False),
    ],
)
def test_too_few_lanes_are_said_once(
    captured: Captured, caplog: pytest.LogCaptureFixture, values: dict[str, object], running: int, warned: bool
) -> None:
    """Attempts that overlap more than twice as much as was said are billed far too high, where there is a price."""
    mppobs.configure(**{"sample_seconds": 0, **values})  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "mppobs"), ExitStack() as stack:
        for shard in range(running):
            stack.enter_context(mppobs.attempt(stage="s", shard=shard))
        mppobs.flush()
        mppobs.flush()

    assert [record.getMessage().count("MPPOBS_LANES") for record in caplog.records] == [1] * warned
