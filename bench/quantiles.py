"""
How far quantiles are from exact, and what a value costs: our sketch beside a classic Prometheus histogram.

The values come to eight workers, each with its own sketch; they are merged, packed, unpacked (a restart) and then
asked. The peer is a `prometheus_client` histogram of twelve exponential buckets, asked as `histogram_quantile` does.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Histogram
from report import Figure, options, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mppobs.sidecar.sketch import WindowedSketch

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
BOUNDS = tuple(0.02 * 2.5**i for i in range(12))
"""20 ms to 8 minutes: what somebody would choose who does not know the durations yet."""
WORKERS = 8
SLICE_NS = 600 * 10**9
MOST_ERROR = 0.01
MOST_NS = {1000: 25.0, 10_000: 10.0}
Values = NDArray[np.int64]


def shapes(count: int, seed: int) -> dict[str, Values]:
    """Return durations in nanoseconds of three kinds: skewed, of two kinds of shard, and with a heavy tail."""
    rng = np.random.default_rng(seed)
    slow = rng.random(count) < 0.03
    seconds = {
        "lognormal": rng.lognormal(-0.2, 1.0, count),
        "bimodal": np.where(slow, rng.normal(20.0, 2.0, count).clip(1), rng.normal(0.2, 0.05, count).clip(0.01)),
        "pareto": 0.1 * (1.0 + rng.pareto(1.2, count)),
    }
    return {name: (values * 1e9).astype(np.int64) for name, values in seconds.items()}


def sketched(values: Values) -> WindowedSketch:
    """Return one sketch after workers, merging and a restart; the values are spread over two slices of time."""
    merged = WindowedSketch()
    for worker, part in enumerate(np.array_split(values, WORKERS)):
        own = WindowedSketch()
        for batch in np.array_split(part, 10):
            own.add(batch, SLICE_NS * (worker % 2))
        merged.merge(WindowedSketch.from_bytes(own.to_bytes()))
    return WindowedSketch.from_bytes(merged.to_bytes())


def bucket_quantile(counts: Sequence[int], q: float) -> float:
    """Return what `histogram_quantile` would: linear within a bucket, the highest bound beyond the last."""
    rank = q * sum(counts)
    below = 0
    for place, count in enumerate(counts[:-1]):
        if below + count >= rank:
            lower = BOUNDS[place - 1] if place else 0.0
            return lower + (BOUNDS[place] - lower) * (rank - below) / max(1, count)
        below += count
    return BOUNDS[-1]


def errors(values: Values) -> list[tuple[float, float, float]]:
    """Return for each quantile its number, our error and the peer's, relative to exact."""
    ordered = np.sort(values)
    counts = np.bincount([bisect_left(BOUNDS, value / 1e9) for value in values], minlength=len(BOUNDS) + 1).tolist()
    found = sketched(values).quantiles(QUANTILES, SLICE_NS)
    rows = []
    for q, mine in zip(QUANTILES, found, strict=True):
        exact = float(ordered[math.ceil(q * len(ordered)) - 1]) / 1e9
        rows.append((q, abs((mine or 0.0) / exact - 1), abs(bucket_quantile(counts, q) / exact - 1)))
    return rows


def nanoseconds(work: Callable[[], object], values: int) -> float:
    """Return the CPU time of some work for each value."""
    began = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - began) / values


def costs(rounds: int) -> dict[int, tuple[float, float]]:
    """Return what a value costs us and the peer, by size of batch: medians of rounds in which both take turns."""
    registry = CollectorRegistry()
    histogram = Histogram("duration_seconds", "As it would be made by hand.", buckets=BOUNDS, registry=registry)
    rng = np.random.default_rng(1)
    found = {}
    for size in MOST_NS:
        values = (rng.lognormal(-0.2, 1.0, size) * 1e9).astype(np.int64)
        seconds = (values / 1e9).tolist()
        sketch = WindowedSketch()

        def ours(sketch: WindowedSketch = sketch, values: Values = values) -> None:
            for _ in range(20):
                sketch.add(values, 0)

        def theirs(seconds: list[float] = seconds) -> None:
            for value in seconds:
                histogram.observe(value)

        turns = [(nanoseconds(ours, 20 * size), nanoseconds(theirs, size)) for _ in range(rounds)]
        found[size] = (statistics.median(t[0] for t in turns), statistics.median(t[1] for t in turns))
    return found


def measure(count: int, rounds: int) -> Iterator[Figure]:
    """Yield all figures."""
    for shape in ("lognormal", "bimodal", "pareto"):
        tried = [errors(shapes(count, seed)[shape]) for seed in range(3)]
        for place, q in enumerate(QUANTILES):
            mine = max(rows[place][1] for rows in tried)
            peer = max(rows[place][2] for rows in tried)
            yield Figure(f"error of p{q * 100:g}, {shape}", mine, "ratio", peer, MOST_ERROR)
    for size, (mine, peer) in costs(rounds).items():
        yield Figure(f"cost of a value, {size:,} at a time", mine, "ns", peer, MOST_NS[size])
    sketch = sketched(shapes(count, 0)["lognormal"])
    yield Figure("bytes of a sketch, two slices", len(sketch.to_bytes()), "bytes")


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--values", type=int, default=200_000, help="durations per distribution")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the cost measurement")
    given = parser.parse_args()
    return report(measure(given.values, given.rounds), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
