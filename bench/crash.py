"""
What a killed worker costs: finished attempts that are lost, and how long until the one in flight is reported.

Workers are killed with SIGKILL at random instants while an engine at its usual pace follows them. Each notes what it
does in a file of its own, apart from mppobs, and that is what is compared. The peer is the usual way: a worker with
prometheus_client, scraped over HTTP every second (which is generous), killed in the same way. What it finished since
the last scrape is gone, and it never tells of the attempt in flight.

    python bench/crash.py [--kills 40] [--gigabytes 1] [--json]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from report import Figure, options, report

from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.reading import ShardQuery
from mppobs.sidecar.store_jobs import JobQuery

ATTEMPT_SECONDS = 0.002
LARGE_ATTEMPT_SECONDS = 0.05
SCRAPE_SECONDS = 1.0
BASE_TARGET = 2.0
TARGET_PER_GIGABYTE = 0.1
PATIENCE = 120.0


def work(notes: str, first: int, gigabytes: float) -> None:
    """Run attempts until killed, holding so much memory."""
    import mppobs

    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    held = np.ones(int(gigabytes * 2**30), np.uint8)
    for shard in range(first, first + 1_000_000):
        with mppobs.attempt(stage="map", shard=shard):
            os.write(file, b"inside %d\n" % shard)
            time.sleep(LARGE_ATTEMPT_SECONDS if len(held) else ATTEMPT_SECONDS)
        os.write(file, b"end %d\n" % shard)


def work_as_peer(notes: str, port: int) -> None:
    """Do the same work, counted with prometheus_client."""
    from prometheus_client import Counter, start_http_server

    start_http_server(port, addr="127.0.0.1")
    attempts = Counter("attempts", "Attempts by outcome.", ["stage", "outcome"])
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for shard in range(1_000_000):
        os.write(file, b"inside %d\n" % shard)
        time.sleep(ATTEMPT_SECONDS)
        attempts.labels("map", "success").inc()
        os.write(file, b"end %d\n" % shard)


def said(notes: Path, word: str) -> list[int]:
    """Return the shards of which a worker noted a word."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("waited too long")
        time.sleep(0.005)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory that goes away again."""
    path = Path(tempfile.mkdtemp(prefix="mppobs-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Run an engine in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def has_worked(notes: Path) -> bool:
    """Return whether a worker has finished some attempts."""
    return len(said(notes, "end")) > 5


def is_known(engine: Engine, notes: Path) -> bool:
    """Return whether there is a record of the shard that a worker began last."""
    shard = said(notes, "inside")[-1]
    with engine.lock:
        stages = [job.stages["map"] for job in engine.fold.running.values() if "map" in job.stages]
        return any(stage.table.index.find(np.array([shard], np.uint64))[0] >= 0 for stage in stages)


def kill_workers(path: Path, kills: int, gigabytes: float) -> tuple[int, int, list[float]]:
    """Kill workers one by one. Return attempts lost, attempts doubled, and the seconds until each was known."""
    journals, chance, waits = path / "journals", random.Random(1), []
    engine = open_engine(path / "state", [journals])
    with running(engine):
        for number in range(kills):
            notes, first = path / f"notes-{number}", number * 1_000_000
            environ = {**os.environ, "MPPOBS_DIR": str(journals), "MPPOBS_PIPELINE": "p", "MPPOBS_JOB_ID": "crash"}
            command = [sys.executable, __file__, "--worker", str(notes), str(first), str(gigabytes)]
            with subprocess.Popen(command, env=environ) as process:
                wait_for(partial(has_worked, notes))
                time.sleep(chance.uniform(0, 0.1))
                process.kill()
                killed = time.monotonic()
                wait_for(partial(is_known, engine, notes))
                waits.append(time.monotonic() - killed)
    ended = {shard for number in range(kills) for shard in said(path / f"notes-{number}", "end")}
    inside = {shard for number in range(kills) for shard in said(path / f"notes-{number}", "inside")}
    (job,) = engine.jobs(JobQuery()).jobs
    rows = {row.shard: row for row in engine.shards(job.key, ShardQuery(limit=10**7))}
    recorded = sum(engine.store.totals().stages.popitem()[1].attempts.values())
    done = {shard for shard, row in rows.items() if row.outcome is not None}
    engine.close()
    lost = len(ended - done) + len(inside - rows.keys())
    return lost, recorded - len(rows), waits


def kill_peers(path: Path, kills: int) -> float:
    """Kill the peer's workers likewise. Return how many finished attempts were lost per kill."""
    chance, lost = random.Random(1), []
    for number in range(kills):
        notes, port = path / f"peer-{number}", 20_000 + os.getpid() % 20_000 + number
        with subprocess.Popen([sys.executable, __file__, "--peer-worker", str(notes), str(port)]) as process:
            wait_for(partial(has_worked, notes))
            until = time.monotonic() + SCRAPE_SECONDS * (1 + chance.random())
            scraped = 0
            while (left := until - time.monotonic()) > 0:
                scraped = scrape(port)
                time.sleep(min(SCRAPE_SECONDS, left))
            process.kill()
        lost.append(len(said(notes, "end")) - scraped)
    return statistics.mean(lost)


def scrape(port: int) -> int:
    """Return what the peer shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("attempts_total{"):
                return int(float(line.split()[-1]))
    return 0


def figures(kills: int, gigabytes: float) -> Iterator[Figure]:
    """Measure everything."""
    with scratch() as path:
        lost, doubled, waits = kill_workers(path, kills, 0.0)
        peer = kill_peers(path, min(kills, 10))
    yield Figure("attempts_lost_per_kill", lost / kills, "attempts", peer, target=0, must="exactly")
    yield Figure("attempts_counted_twice", doubled, "attempts", target=0, must="exactly")
    yield Figure("in_flight_reported_median", statistics.median(waits), "s")
    yield Figure("in_flight_reported_worst", max(waits), "s", target=BASE_TARGET)
    with scratch() as path:
        _, _, waits = kill_workers(path, 5, gigabytes)
    target = BASE_TARGET + TARGET_PER_GIGABYTE * gigabytes
    yield Figure(f"in_flight_reported_worst_at_{gigabytes:g}_GiB", max(waits), "s", target=target)


def main() -> int:
    """Measure and print, and return 1 where a target is missed; or be one of the workers."""
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--peer-worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker[0], int(given.worker[1]), float(given.worker[2]))
        return 0
    if given.peer_worker:
        work_as_peer(given.peer_worker[0], int(given.peer_worker[1]))
        return 0
    return report(figures(given.kills, given.gigabytes), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
