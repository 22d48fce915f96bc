"""
What the executor costs: decisions of the pure scheduler, and no-op tasks beside the standard library's process pool.

The scheduler is measured in CPU time, with a simulated clock. Tasks are measured in wall time, both sides in turns,
with every attempt recorded on our side. On a busy machine they measure who is woken first.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mppobs
from mppobs.executor import Executor
from mppobs.executor.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    JobSubmitted,
    StageOpened,
    StageReady,
    StageSpec,
    Submit,
    WorkerUp,
)
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome

SECOND = 1_000_000_000
DECISIONS_PER_SECOND = 50_000.0
SIMULATED_SECONDS = 60.0
SIMULATED_SHARDS = 1_000_000
WORKERS = 2


def simulate(shards: int, workers: int) -> tuple[float, int]:
    """Run a job of that many shards, whose times are lognormal, in simulated time; return CPU seconds and actions."""
    scheduler, chance = Scheduler(random.Random(1)), random.Random(2)
    queue: list[tuple[int, int, Event]] = [(0, n, WorkerUp(f"w{n}")) for n in range(workers)]
    queue.append((0, workers, JobSubmitted("job", (StageSpec(shards),))))
    decided, serial = 0, workers
    began = time.process_time()
    while queue:
        now, _, event = heapq.heappop(queue)
        for action in scheduler.on(event, now):
            decided += 1
            serial += 2
            if isinstance(action, Submit):
                took = int(chance.lognormvariate(0, 1) * SECOND)
                ended = AttemptEnded(action.attempt, AttemptOutcome.SUCCESS, duration_ns=took)
                heapq.heappush(queue, (now, serial - 1, AttemptStarted(action.attempt)))
                heapq.heappush(queue, (now + took, serial, ended))
            elif isinstance(action, StageReady):
                heapq.heappush(queue, (now, serial, StageOpened(action.job, action.stage)))
    return time.process_time() - began, decided


def rate(tasks: int, work: Callable[[range], object]) -> float:
    """Return tasks per second of wall time."""
    began = time.perf_counter()
    work(range(tasks))
    return tasks / (time.perf_counter() - began)


def no_ops(rounds: int, tasks: int) -> dict[str, list[float]]:
    """Return tasks per second at chunks of 1 and 16, ours and the pool's, measured in turns."""
    found: dict[str, list[float]] = {}
    with Executor(WORKERS) as ours, ProcessPoolExecutor(WORKERS) as peer:
        sides: dict[str, tuple[int, Callable[[range], object]]] = {
            "1": (tasks, lambda items: ours.map(math.sqrt, items)),
            "1 peer": (tasks, lambda items: list(peer.map(math.sqrt, items))),
            "16": (tasks * 16, lambda items: ours.map(math.sqrt, items, chunk=16)),
            "16 peer": (tasks * 16, lambda items: list(peer.map(math.sqrt, items, chunksize=16))),
        }
        for _, work in sides.values():
            work(range(1000))  # processes start, functions are imported
        for _ in range(rounds):
            for name, (count, work) in sides.items():
                found.setdefault(name, []).append(rate(count, work))
    return found


def measure(rounds: int, tasks: int, shards: int) -> list[dict[str, object]]:
    """Return the figures."""
    seconds, decided = simulate(shards, 10_000)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory(prefix="mppobs-bench-") as journals:
        mppobs.configure(directory=journals)
        speeds = {name: statistics.median(values) for name, values in no_ops(rounds, tasks).items()}
    allowed = SIMULATED_SECONDS * shards / SIMULATED_SHARDS
    return [
        _figure("scheduler: decisions", decided / seconds, "per s", None, DECISIONS_PER_SECOND, at_least=True),
        _figure(f"scheduler: {shards:,} shards on 10,000 workers", seconds, "s", None, allowed, at_least=False),
        _figure("scheduler: memory of the process", memory, "MiB", None, 4096.0, at_least=False),
        *(
            _figure(
                f"no-op tasks, chunk {n}", speeds[n], "per s", speeds[f"{n} peer"], speeds[f"{n} peer"], at_least=True
            )
            for n in ("1", "16")
        ),
    ]


def _figure(
    name: str, value: float, unit: str, peer: float | None, target: float, *, at_least: bool
) -> dict[str, object]:
    return {
        "figure": name,
        "value": round(value, 1),
        "unit": unit,
        "peer": round(peer, 1) if peer is not None else None,
        "ratio": round(value / peer, 2) if peer else None,
        "target": round(target, 1),
        "met": value >= target if at_least else value <= target,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure and line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks per round")
    parser.add_argument("--shards", type=int, default=SIMULATED_SHARDS, help="shards that are simulated")
    arguments = parser.parse_args()
    figures = measure(arguments.rounds, arguments.tasks, arguments.shards)
    if arguments.json:
        print("\n".join(json.dumps(figure) for figure in figures))
        return
    print(f"{'figure':<50} {'value':>11} {'unit':<6} {'peer':>11} {'ratio':>6} {'target':>11}")
    for each in figures:
        shown = {name: "" if value is None else value for name, value in each.items()}
        print(
            f"{shown['figure']:<50} {shown['value']:>11} {shown['unit']:<6} {shown['peer']:>11} {shown['ratio']:>6} "
            f"{shown['target']:>11} {'met' if each['met'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
