"""The indicators M1 to M12 and the further ones: what each means, and which metrics carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mppobs.catalog.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Indicator:
    """One signal that an SLO can be built on."""

    key: str
    """`M1` to `M12`."""
    title: str
    definition: str
    unit: str
    """Of the headline figure: `seconds`, `bytes`, `usd`, `ratio`, or empty for a count or a rate."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics that carry this indicator."""
        return tuple(metric.name for metric in METRICS if metric.indicator == self.key)


INDICATORS: Final[tuple[Indicator, ...]] = (
    Indicator("M1", "job completion latency", "end − submission, queue wait included", "seconds"),
    Indicator("M2", "shard success rate", "committed ÷ decided shards; attempts do not count", "ratio"),
    Indicator("M3", "tail latency", "p50, p95, p99 of shard durations, and p99 ÷ median per stage", "seconds"),
    Indicator("M4", "shuffle bytes per job", "bytes written and read in exchanges, and the ratio to the pipeline's baseline", "bytes"),
    Indicator("M5", "network errors", "failed transfers, by kind", ""),
    Indicator("M6", "worker CPU utilisation", "CPU seconds ÷ wall seconds of attempts, and CFS throttling", "ratio"),
    Indicator("M7", "worker memory pressure", "peak RSS ÷ limit, as maximum and p90 over workers", "ratio"),
    Indicator("M8", "retry rate", "attempts with number > 0 that are not speculative ÷ completed shards", "ratio"),
    Indicator("M9", "cost per job", "Σ attempts × price, split into useful, retry, speculation, preempted and idle", "usd"),
    Indicator("M10", "scheduler latency", "assignment → start", "seconds"),
    Indicator("M11", "checkpoint lag", "now − last checkpoint, of the running job that is worst off", "seconds"),
    Indicator("M12", "failed jobs", "jobs decided, by outcome", ""),
)  # fmt: skip

BY_KEY: Final[dict[str, Indicator]] = {indicator.key: indicator for indicator in INDICATORS}
"""The table by key."""
