"""
How early a job that will be late is charged, and how seldom one that makes it: over thousands of simulated runs.

Runs are simulated shard by shard (`tests/slo/runs.py`: list scheduling on lanes, with its own distributions), of which
the predictor sees what an aggregator would: too few workers, skew, one slow node, a late start, half of the nodes lost
before half time, and healthy runs. Four pipelines in five say how large their shards are, three in ten how far attempts
have come. The seeds are not those that anything was tuned with.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import Figure, options, report

from mppobs.slo.draining import QUANTILES
from tests.slo.foresight import JOBS, Played, play_all, score
from tests.slo.runs import Fault

SEED = 70_000
"""Of the first of the parts that runs are made in; tuning used seeds below ten."""
PART = 4 * JOBS
CAUGHT = 0.9
FALSE = 0.02
CLAIM = QUANTILES[-1] - QUANTILES[0]


def play_part(seed: int, jobs: int, with_past: bool) -> tuple[list[Played], int, int, int]:
    """Return some runs, and of their charges how many were opened, how many settled, and how many still stand."""
    played, opened, settled, standing = [], 0, 0, 0
    for stand, found in play_all(seed, jobs, with_past=with_past):
        played += found
        opened += stand.opened
        settled += sum(stand.settled().values())
        standing += stand.foreteller.standing(stand.slo.full_name)
    return played, opened, settled, standing


def measure(jobs: int, workers: int) -> Iterator[Figure]:
    """Yield the figures of so many jobs."""
    began = time.perf_counter()
    parts = [(SEED + number, min(PART, jobs - first)) for number, first in enumerate(range(0, jobs, PART))]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        tasks = [pool.submit(play_part, seed, count, True) for seed, count in parts]
        fresh = [pool.submit(play_part, SEED + 1000 + number, JOBS, False) for number in range(max(1, len(parts) // 4))]
        found, new = [task.result() for task in tasks], [task.result() for task in fresh]
    played = [each for part in found for each in part[0]]
    opened, settled = sum(part[1] for part in found), sum(part[2] for part in found)
    standing = sum(part[3] for part in found)
    yield from _all(played, "")
    for fault in Fault:
        yield from _all([each for each in played if each.fault is fault], f", {fault}", target=False)
    yield from _all([each for part in new for each in part[0]], ", pipelines without a past", target=False)
    yield Figure("charges opened", opened, "charges")
    ended = settled + standing
    yield Figure("charges settled, or still standing", ended, "charges", opened, target=opened, must="exactly")
    yield Figure("time", time.perf_counter() - began, "s")


def _all(played: list[Played], what: str, *, target: bool = True) -> Iterator[Figure]:
    """Yield the figures of some runs."""
    found = score(played)
    yield Figure(f"jobs{what}", found.jobs, "jobs")
    if found.late:
        name = f"of {found.late} late, charged before 3/4 of their time{what}"
        share = found.caught / found.late
        yield Figure(name, share, "ratio", target=CAUGHT if target else None, must="at least")
    if found.in_time:
        name = f"of {found.in_time} in time, ever charged{what}"
        yield Figure(name, found.false / found.in_time, "ratio", target=FALSE if target else None)
    if found.said:
        name = f"of {found.said} intervals that claim {CLAIM:.0%}, held the end{what}"
        yield Figure(name, found.inside / found.said, "ratio", CLAIM)


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=6048, help="how many to simulate")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    given = parser.parse_args()
    return report(measure(given.jobs, given.workers), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
