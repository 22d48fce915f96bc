"""
What the executor costs: no-op tasks, and a group-by through an exchange.

Wall time on two processes, each attempt recorded on our side, in turns with the standard library's pool, Dask and Ray:
each side is a process of its own (`bench/sides.py`), and what counts is the median of its rounds. On a busy machine
they measure who is woken first. What the scheduler's decisions cost is in `bench/scheduler.py`.

The group-by reads 10 million rows of two integers from eight Parquet files and sums them into a million groups. Memory
is the most that all processes of a side have at a time, what they share counted once, the page cache not at all.

    python bench/executor.py [--rounds 5] [--tasks 10000] [--rows 10000000] [--json]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from report import Figure, options, report

FILES = 8
PEERS = {"pool": "ProcessPoolExecutor", "dask": "Dask", "dask-p2p": "Dask p2p", "ray": "Ray"}
SLOW = ("dask", "ray")
"""Sides that take a tenth of the tasks for a measurement."""


class Side:
    """A process that is one side."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        command = [sys.executable, str(Path(__file__).with_name("sides.py")), name]
        # In a session of its own, which Linux gives a fair share of a busy machine (autogroup): Ray makes one anyway.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        stack.callback(self._close)
        self._answer()

    def ask(self, **order: Any) -> dict[str, Any]:
        """Have the side do something, and return what it says of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"bench/sides.py {self.name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def no_ops(sides: dict[str, Side], rounds: int, tasks: int, chunk: int) -> dict[str, float]:
    """Return tasks of a chunk a second by side, measured in turns."""
    counts = {name: max(tasks // 10, 100) if name in SLOW else tasks for name in sides if name != "dask-p2p"}
    found: dict[str, list[float]] = {name: [] for name in counts}
    for name, count in counts.items():  # functions are imported
        sides[name].ask(do="no-ops", tasks=count // 10 * chunk, chunk=chunk)
    for _ in range(rounds):
        for name, count in counts.items():
            found[name].append(
                count * chunk / sides[name].ask(do="no-ops", tasks=count * chunk, chunk=chunk)["seconds"]
            )
    return {name: statistics.median(values) for name, values in found.items()}


def group_by(
    sides: dict[str, Side], rounds: int, files: list[str], expected: list[int]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds and bytes of memory by side, measured in turns, one round more for the memory."""
    found: dict[str, list[float]] = {name: [] for name in sides if name != "pool"}
    memory: dict[str, float] = {}
    for turn in range(-1, rounds + 1):  # the first is to get warm, the last for the memory
        for name in found:
            told = sides[name].ask(do="group", files=files, watch=turn == rounds)
            if told["answer"] != expected:
                raise SystemExit(f"{name} found {told['answer']}, not {expected}")
            if turn == rounds:
                memory[name] = told["memory"] / 2**20
            elif turn >= 0:
                found[name].append(told["seconds"])
    return {name: statistics.median(values) for name, values in found.items()}, memory


def make_files(directory: Path, rows: int) -> tuple[list[str], list[int]]:
    """Write the rows; return the files, and the number of groups and the sum of all values."""
    chance = np.random.default_rng(1)
    groups, total, files = np.zeros(max(rows // 10, 1), bool), 0, []
    for number in range(FILES):
        keys, values = chance.integers(0, len(groups), rows // FILES), chance.integers(0, 1000, rows // FILES)
        groups[keys] = True
        total += int(values.sum())
        path = directory / f"{number}.parquet"
        parquet.write_table(pa.table({"k": keys, "v": values}), path, compression="none", use_dictionary=False)
        files.append(str(path))
    return files, [int(groups.sum()), total]


def measure(rounds: int, tasks: int, rows: int) -> Iterator[Figure]:
    """Yield the figures; what the peer needs is the target."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mppobs-bench-")))
        sides = {name: Side(name, stack) for name in ("ours", *PEERS)}
        for chunk in (1, 16):
            speeds = no_ops(sides, rounds, tasks, chunk)
            ours = speeds.pop("ours")
            for peer, speed in speeds.items():
                name = f"no-op tasks, chunk {chunk}, by {PEERS[peer]}"
                yield Figure(name, ours, "per s", speed, target=speed, must="at least")
        walls, memories = group_by(sides, rounds, *make_files(directory, rows))
        for peer in [peer for peer in walls if peer != "ours"]:
            for name, unit, found in (("time", "s", walls), ("memory", "MiB", memories)):
                what = f"group-by of {rows:,} rows, {name}, by {PEERS[peer]}"
                yield Figure(what, found["ours"], unit, found[peer], target=found[peer])


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks per round")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows that are grouped")
    given = parser.parse_args()
    return report(measure(given.rounds, given.tasks, given.rows), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
