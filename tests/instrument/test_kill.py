"""SIGKILL at any instant: no finished attempt is lost, none is there twice, and what was in flight is in a slot."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mppobs.journal.reader import owner_is_alive, read_slots, scan
from mppobs.testing import Captured

CHILD = """
import os, sys, threading
import mppobs

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@mppobs.task(stage="map", shard="part")
def work(part):
    mppobs.current().add(rows=1)
    if part % 7 == 0:
        mppobs.current().progress(0.5)
        with mppobs.current().activity("read"):
            pass
    if part % 11 == 0:
        raise KeyError(part)

def loop(first):
    for part in range(first, first + 500_000_000):
        os.write(log, b"b%d\\n" % part)
        try:
            work(part)
        except KeyError:
            pass
        os.write(log, b"e%d\\n" % part)

print("ready", flush=True)
for i in range(1, 3):
    threading.Thread(target=loop, args=(i * 1_000_000_000,), daemon=True).start()
loop(0)
"""


def kill_once(directory: Path, log: Path, delay: float) -> None:
    """Start a process that records without pause, and kill it after a while."""
    environ = {**os.environ, "MPPOBS_DIR": str(directory), "MPPOBS_SAMPLE_SECONDS": "0.01", "PYTHONPATH": os.getcwd()}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(log)], env=environ, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()


def check(directory: Path, log: Path) -> int:
    """Hold the journal against what the child wrote down itself; return how many attempts it finished."""
    lines = log.read_text().splitlines()
    began = Counter(int(line[1:]) for line in lines if line.startswith("b"))
    ended = Counter(int(line[1:]) for line in lines if line.startswith("e"))
    recorded = Counter(record.shard_key for record in Captured(directory).attempts)
    assert not ended - recorded, "a finished attempt is missing"
    assert not recorded - began, "an attempt that never began is there, or one is there twice"
    for files in scan(directory):
        assert not owner_is_alive(files)
        running = {slot.shard_key for slot in read_slots(files.head)} if files.head else set()
        assert running <= set(began)
        assert set(began) - set(recorded) <= running | unstarted(began, ended, recorded)
    return len(ended)


def unstarted(began: Counter[int], ended: Counter[int], recorded: Counter[int]) -> set[int]:
    """Return the newest of each thread: killed between its own note and the slot, it left no trace, rightly."""
    newest: dict[int, int] = {}
    for shard in began:
        thread = shard // 1_000_000_000
        newest[thread] = max(newest.get(thread, 0), shard)
    return {shard for shard in newest.values() if shard not in ended and shard not in recorded}


def kill_many(tmp_path: Path, times: int, seed: int) -> int:
    """Kill a number of processes at random instants and check each journal."""
    chance = random.Random(seed)
    finished = 0
    for i in range(times):
        directory = tmp_path / str(i)
        kill_once(directory, tmp_path / f"{i}.log", chance.uniform(0.0, 0.08))
        finished += check(directory, tmp_path / f"{i}.log")
    return finished


def test_kills_at_random_instants_lose_nothing(tmp_path: Path) -> None:
    """Twenty processes, three threads each, killed while they record."""
    assert kill_many(tmp_path, 20, seed=1) > 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """The same two hundred times."""
    assert kill_many(tmp_path, 200, seed=2) > 10_000
