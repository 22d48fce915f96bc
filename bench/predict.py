"""
How early a job that will be late is charged, and how seldom one that makes it: over thousands of simulated runs.

Runs are simulated shard by shard (`tests/slo/runs.py`: list scheduling on lanes, with its own distributions), of which
the predictor sees what an aggregator would: too few workers, skew, one slow node, a late start, half of the nodes lost
before half time, and healthy runs. Four pipelines in five say how large their shards are, three in ten how far attempts
have come. The seeds are not those that anything was tuned with.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mppobs.slo.draining import QUANTILES
from tests.slo.foresight import JOBS, Played, play_all, score
from tests.slo.runs import Fault

SEED = 40_000
"""Of the first of the parts that runs are made in; tuning used seeds below ten."""
PART = 4 * JOBS
CAUGHT = 0.9
FALSE = 0.02
CLAIM = QUANTILES[-1] - QUANTILES[0]

Figure = dict[str, Any]


def play_part(seed: int, jobs: int, with_past: bool) -> tuple[list[Played], int, int, int]:
    """Return some runs, and of their charges how many were opened, how many settled, and how many still stand."""
    played, opened, settled, standing = [], 0, 0, 0
    for stand, found in play_all(seed, jobs, with_past=with_past):
        played += found
        opened += stand.opened
        settled += sum(stand.settled().values())
        standing += stand.foreteller.standing(stand.slo.full_name)
    return played, opened, settled, standing


def measure(jobs: int, workers: int) -> list[Figure]:
    """Return the figures of so many jobs."""
    began = time.perf_counter()
    parts = [(SEED + number, min(PART, jobs - first)) for number, first in enumerate(range(0, jobs, PART))]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        tasks = [pool.submit(play_part, seed, count, True) for seed, count in parts]
        fresh = [pool.submit(play_part, SEED + 1000 + number, JOBS, False) for number in range(max(1, len(parts) // 4))]
        found, new = [task.result() for task in tasks], [task.result() for task in fresh]
    played = [each for part in found for each in part[0]]
    opened, settled = sum(part[1] for part in found), sum(part[2] for part in found)
    standing = sum(part[3] for part in found)
    figures = _all(played, "")
    for fault in Fault:
        figures += _all([each for each in played if each.fault is fault], f", {fault}", target=False)
    figures += _all([each for part in new for each in part[0]], ", pipelines without a past", target=False)
    figures.append(_figure("charges opened", opened, "charges", None, None))
    figures.append(_figure("charges settled, or still standing", settled + standing, "charges", opened, "equal"))
    figures.append(_figure("time", time.perf_counter() - began, "s", None, None))
    return figures


def _all(played: list[Played], what: str, *, target: bool = True) -> list[Figure]:
    """Return the figures of some runs."""
    found = score(played)
    figures = [_figure(f"jobs{what}", found.jobs, "jobs", None, None)]
    if found.late:
        share = found.caught / found.late
        name = f"of {found.late} late, charged before 3/4 of their time{what}"
        figures.append(_figure(name, share, "ratio", None, CAUGHT if target else None))
    if found.in_time:
        share = found.false / found.in_time
        name = f"of {found.in_time} in time, ever charged{what}"
        figures.append(_figure(name, share, "ratio", None, FALSE if target else None, at_most=True))
    if found.said:
        share = found.inside / found.said
        name = f"of {found.said} intervals that claim {CLAIM:.0%}, held the end{what}"
        figures.append(_figure(name, share, "ratio", CLAIM, None))
    return figures


def _figure(
    name: str, value: float, unit: str, peer: float | None, target: float | str | None, *, at_most: bool = False
) -> Figure:
    if target is None:
        met = None
    elif target == "equal":
        met = value == peer
    else:
        met = value <= float(target) if at_most else value >= float(target)
    return {
        "figure": name, "value": round(value, 4), "unit": unit, "peer": peer,
        "ratio": round(value / peer, 3) if peer else None, "target": target, "met": met,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure and line")
    parser.add_argument("--jobs", type=int, default=2240, help="how many to simulate")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate")
    arguments = parser.parse_args()
    figures = measure(arguments.jobs, arguments.workers)
    if arguments.json:
        print("\n".join(json.dumps(figure) for figure in figures))
        return
    print(f"{'figure':<86} {'value':>9} {'unit':<8} {'peer':>7} {'target':>7}")
    for each in figures:
        shown = {name: "" if value is None else value for name, value in each.items()}
        met = {True: "met", False: "MISSED", None: ""}[each["met"]]
        line = f"{shown['figure']:<86} {shown['value']:>9} {shown['unit']:<8} {shown['peer']:>7}"
        print(line, f"{shown['target']:>7} {met}")


if __name__ == "__main__":
    main()
