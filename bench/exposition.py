"""
How much /metrics says, and how long it takes: 500 pipelines of 3 stages, beside prometheus_client on the same samples.

The peer is spared collecting: it is handed finished families and only writes them out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

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


def measure(rounds: int) -> list[dict[str, object]]:
    """Return the figures: medians over rounds in which both sides take turns."""
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
        took["openmetrics peer"].append(milliseconds(lambda: generate_openmetrics(registry)))
    medians = {name: statistics.median(values) for name, values in took.items()}
    samples = _samples(text)
    return [
        _figure("samples per pipeline", _of_pipelines(text) / PIPELINES, "samples", None, MOST_SAMPLES),
        _figure("text, first scrape", first, "ms", None, MOST_MS),
        _figure("text", medians["text"], "ms", medians["text peer"], MOST_MS),
        _figure("OpenMetrics", medians["openmetrics"], "ms", medians["openmetrics peer"], MOST_MS),
        _figure("text, per sample", medians["text"] * 1e3 / samples, "us", medians["text peer"] * 1e3 / samples, None),
    ]


def _samples(text: str) -> int:
    return sum(not line.startswith("#") for line in text.splitlines())


def _of_pipelines(text: str) -> int:
    """Return the samples that a pipeline brings, without those of SLOs, and of single jobs and shards."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return sum('pipeline="' in line and 'job_id="' not in line and 'slo="' not in line for line in lines)


def _figure(name: str, value: float, unit: str, peer: float | None, most: float | None) -> dict[str, object]:
    return {
        "figure": f"/metrics of {PIPELINES} pipelines: {name}",
        "value": round(value, 3),
        "unit": unit,
        "peer": round(peer, 3) if peer is not None else None,
        "ratio": round(value / peer, 3) if peer else None,
        "target": most,
        "met": value <= most if most is not None else None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure and line")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        print("\n".join(json.dumps(figure) for figure in figures))
        return
    print(f"{'figure':<50} {'value':>10} {'unit':<8} {'peer':>10} {'ratio':>6} {'at most':>8}")
    for each in figures:
        shown = {name: "" if value is None else value for name, value in each.items()}
        met = {True: "met", False: "MISSED", None: ""}[each["met"]]  # type: ignore[index]
        print(
            f"{shown['figure']:<50} {shown['value']:>10} {shown['unit']:<8} {shown['peer']:>10} "
            f"{shown['ratio']:>6} {shown['target']:>8} {met}"
        )


if __name__ == "__main__":
    main()
