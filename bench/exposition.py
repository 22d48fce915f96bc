"""
How much /metrics says, and how long it takes: 500 pipelines of 3 stages, beside prometheus_client on the same samples.

The peer is spared collecting: it is handed finished families and only writes them out.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from report import Figure, options, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mppobs.clock import SystemClock
from mppobs.sidecar.exposition import Renderer
from tests.sidecar.views import NOW, full_view

PIPELINES = 500
STAGES = 3
MOST_SAMPLES = 150.0
MOST_MS = 500.0


class Replay(Collector):
    """Families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


def milliseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call: it waits for nothing, and other work on the machine is not its own."""
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1e3


def measure(rounds: int) -> Iterator[Figure]:
    """Yield the figures: medians over rounds in which both sides take turns."""
    view = full_view(PIPELINES, STAGES)
    renderer = Renderer(SystemClock())
    first = milliseconds(lambda: renderer.render(view, NOW, openmetrics=False))
    text = renderer.render(view, NOW, openmetrics=False).decode()
    registry = CollectorRegistry()
    registry.register(Replay(text_string_to_metric_families(text)))
    took: dict[str, list[float]] = {name: [] for name in ("text", "text peer", "openmetrics", "openmetrics peer")}
    for _ in range(rounds):
        took["text"].append(milliseconds(lambda: renderer.render(view, NOW, openmetrics=False)))
        took["text peer"].append(milliseconds(lambda: generate_latest(registry)))
        took["openmetrics"].append(milliseconds(lambda: renderer.render(view, NOW, openmetrics=True)))
        took["openmetrics peer"].append(milliseconds(lambda: generate_openmetrics(registry)))  # type: ignore[no-untyped-call]
    medians = {name: statistics.median(values) for name, values in took.items()}
    per_sample = {name: took * 1e3 / _samples(text) for name, took in medians.items()}
    what = f"/metrics of {PIPELINES} pipelines"
    yield Figure(f"{what}: samples per pipeline", _of_pipelines(text) / PIPELINES, "samples", target=MOST_SAMPLES)
    yield Figure(f"{what}: text, first scrape", first, "ms", target=MOST_MS)
    yield Figure(f"{what}: text", medians["text"], "ms", medians["text peer"], MOST_MS)
    yield Figure(f"{what}: OpenMetrics", medians["openmetrics"], "ms", medians["openmetrics peer"], MOST_MS)
    yield Figure(f"{what}: text, per sample", per_sample["text"], "us", per_sample["text peer"])


def _samples(text: str) -> int:
    return sum(not line.startswith("#") for line in text.splitlines())


def _of_pipelines(text: str) -> int:
    """Return the samples that a pipeline brings, without those of SLOs, and of single jobs and shards."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return sum('pipeline="' in line and 'job_id="' not in line and 'slo="' not in line for line in lines)


def main() -> int:
    """Measure and print; return 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    return report(measure(given.rounds), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
