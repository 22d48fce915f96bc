"""
From journals to durable aggregates: records a second, over files and over HTTP, and memory per shard.

The engine is the real one, with its commits, checkpoints and archive in a temporary directory. The peer is what one
would write by hand: a service that takes attempts as JSON over FastAPI, checks them with pydantic and inserts them
as rows into SQLite, in batches of a thousand, measured in the same run.

    python bench/ingest.py [--records 3000000] [--rounds 3] [--shards 1000000] [--json]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import journals
import numpy as np
import peer_sidecar
from report import Figure, options, report

from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.ship import Shipper

TARGET_FILES = 3_000_000
TARGET_HTTP = 1_000_000
TARGET_INTEGER = 64
TARGET_NAMED = 140
TARGET_GROWTH = 8
JOURNALS = 4
PEER_RECORDS = 50_000
TOKEN = "a-token-for-the-benchmark"


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory that goes away again."""
    path = Path(tempfile.mkdtemp(prefix="mppobs-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def attempts_only(directory: Path, records: int, job: str = "job-1", first: int = 1) -> None:
    """Write a job of three stages without coordinator: attempts alone, over several journals."""
    now, per_stage = time.time_ns() - 60 * journals.SECOND, records // len(journals.STAGES)
    known = journals.contexts(job, now)
    parts = [
        [journals.attempts(number, keys, now) for keys in journals.chunked(per_stage, JOURNALS)]
        for number in range(2, 2 + len(journals.STAGES))
    ]
    for at in range(JOURNALS):
        body = [stage[at] for stage in parts]
        if at == 0:
            body.insert(0, journals.control(journals.start(coordinated=False, time_ns=now)))
        journals.write(directory, first + at, known, np.concatenate(body))


def coordinated(directory: Path, records: int) -> None:
    """Write a job whose coordinator dispatches and commits: a third of the records each, commits after attempts."""
    now, shards = time.time_ns() - 60 * journals.SECOND, records // 3
    known = journals.contexts("job-2", now)
    head = [
        journals.control(journals.start(coordinated=True, time_ns=now)),
        journals.control(journals.plan(2, shards, now)),
    ]
    said, done = [], []
    for number, keys in enumerate(journals.chunked(shards, 30)):
        said.append(journals.dispatches(2, keys, now + number))
        done.append((number % (JOURNALS - 1), journals.attempts(2, keys, now + number)))
        said.append(journals.commits(2, keys, now + 4 * journals.SECOND))
    journals.write(directory, 1, known, np.concatenate(head + said))
    for at in range(JOURNALS - 1):
        journals.write(directory, 2 + at, known, np.concatenate([words for whose, words in done if whose == at]))


def drain(engine: Engine) -> int:
    """Tick until there is no more; return the records."""
    total = 0
    while True:
        report = engine.tick()
        total += report.records
        if not report.records:
            return total


def files_rate(make: Callable[[Path, int], None], records: int) -> tuple[float, float]:
    """Return records per second of wall time and of CPU time."""
    with scratch() as path:
        make(path, records)
        engine = open_engine(path / "state", [path])
        wall, cpu = time.perf_counter(), time.process_time()
        total = drain(engine)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert sum(sum(stage.attempts.values()) for stage in engine.fold.stages.values()) >= records // 3
        engine.close()
    return total / wall, total / cpu


def http_rate(records: int) -> tuple[float, float]:
    """Return records per second of wall time and of the aggregator's CPU time, from an agent to committed totals."""
    with scratch() as path:
        source = path / "agent"
        source.mkdir()
        attempts_only(source, records)
        with aggregator(path) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
            shipper = Shipper([source], url, TOKEN)
            wall, cpu = time.perf_counter(), cpu_seconds(process.pid)
            while shipper.step():
                pass
            while counted(client) < records:
                time.sleep(0.02)
            wall, cpu = time.perf_counter() - wall, cpu_seconds(process.pid) - cpu
            shipper.close()
    return records / wall, records / cpu


@contextmanager
def aggregator(path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a real aggregator on a state directory; give its process and its address."""
    (path / "none").mkdir()
    port_file = path / "port"
    command = [
        sys.executable, "-m", "mppobs.cli.main", "sidecar", "--directory", str(path / "none"), "--state-directory",
        str(path / "state"), "--port", "0", "--port-file", str(port_file), "--write-token", TOKEN,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not port_file.exists():
                time.sleep(0.05)
            yield process, f"http://127.0.0.1:{port_file.read_text().strip()}"
        finally:
            process.kill()


def counted(client: httpx.Client) -> int:
    """Return how many attempts the aggregator shows as folded."""
    for line in client.get("/metrics").raise_for_status().text.splitlines():
        if line.startswith('mppobs_records_total{kind="attempt"}'):
            return int(float(line.split()[-1]))
    return 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peer_rate() -> float:
    """Return attempts per second of the peer, over HTTP on loopback."""
    with scratch() as path:
        return peer_sidecar.rate(path, PEER_RECORDS)


def resident() -> int:
    """Return this process's resident memory in bytes, after giving back what is free."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_in_this_process(shards: int, *, named: bool) -> dict[str, float]:
    """Measure jobs of so many shards one after the other: while each runs, and after its end. The first warms up."""
    running, ended = [], []
    with scratch() as path:
        engine = open_engine(path / "state", [path])
        for number in range(4):
            running.append(one_job(path, engine, number, shards, named=named))
            ended.append(resident())
        engine.close()
    held = [(most - before) / shards for most, before in zip(running[1:], ended, strict=False)]
    return {"per_shard": statistics.median(held), "growth": (ended[-1] - ended[0]) / 2**20}


def one_job(path: Path, engine: Engine, number: int, shards: int, *, named: bool) -> int:
    """Run a job through the engine; return the resident memory at its largest, before its end is known."""
    now = time.time_ns() - 60 * journals.SECOND
    known = journals.contexts(f"job-{number}", now)
    parts = [journals.control(journals.start(coordinated=False, time_ns=now))]
    parts.append(journals.control(journals.plan(2, shards, now)))
    for keys in journals.chunked(shards, 20):
        if named:
            keys, texts = journals.names([f"part-{key:08d}" for key in keys.tolist()])
            parts.append(texts)
        parts.append(journals.attempts(2, keys, now))
    journals.write(path, 1000 + number, known, np.concatenate(parts), ended=False)
    del parts
    drain(engine)
    running = resident()
    end = journals.control(journals.end(now + 50 * journals.SECOND))
    journals.write(path, 2000 + number, known, end)
    for _ in range(200):
        engine.tick()
        if not engine.fold.running:
            break
        time.sleep(0.1)
    assert not engine.fold.running
    engine.checkpoint()
    return running


def memory(shards: int, *, named: bool) -> dict[str, float]:
    """Measure in a process of its own, whose allocator gives large blocks back at once and not when it sees fit."""
    kind = "named" if named else "integer"
    command = [sys.executable, __file__, "--memory-of", kind, "--shards", str(shards)]
    environ = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def figures(records: int, rounds: int, shards: int) -> Iterator[Figure]:
    """Measure everything, each peer beside what it is the peer of."""
    rows: dict[str, list[tuple[float, float]]] = {"attempts": [], "coordinated": [], "shipped_over_http": []}
    peers = []
    for _ in range(rounds):
        rows["shipped_over_http"].append(http_rate(records))
        rows["attempts"].append(files_rate(attempts_only, records))
        rows["coordinated"].append(files_rate(coordinated, records))
        peers.append(peer_rate())
    peer = statistics.median(peers)
    for name, measured in rows.items():
        wall, cpu = (statistics.median(rates) for rates in zip(*measured, strict=True))
        target = TARGET_HTTP if name == "shipped_over_http" else TARGET_FILES
        yield Figure(f"{name}_per_cpu_second", cpu, "records/s", peer, target, "at least")
        yield Figure(f"{name}_per_wall_second", wall, "records/s", peer)
    for name, target in (("integer", TARGET_INTEGER), ("named", TARGET_NAMED)):
        found = memory(shards, named=name == "named")
        yield Figure(f"memory_per_shard_{name}", found["per_shard"], "bytes", target=target)
        growth = f"memory_growth_over_three_more_jobs_{name}"
        yield Figure(growth, found["growth"], "MiB", target=TARGET_GROWTH)


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--records", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--memory-of", choices=("integer", "named"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(json.dumps(memory_in_this_process(given.shards, named=given.memory_of == "named")))
        return 0
    return report(figures(given.records, given.rounds, given.shards), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
