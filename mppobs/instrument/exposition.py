"""Metrics of one worker, for a Prometheus that scrapes it directly: computed from the journal that it writes anyway."""

from __future__ import annotations

import mmap
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mppobs.catalog.metrics import BY_NAME, DELAY_BUCKETS
from mppobs.errors import ConfigError
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.totals import Labels, LocalTotals
from mppobs.journal import format as fmt
from mppobs.journal.writer import JournalWriter


class WorkerCollector(Collector):
    """
    Collects this process's own metrics, under their catalogued names. Counts start with the segment that was being
    written when the collector was made, so make it before the first attempt.

    Metrics of whole shards and jobs (durations, tails, cost, completeness) are not here: no single worker sees them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = LocalTotals()
        self._journal: JournalWriter | None = None
        self._full: deque[mmap.mmap] = deque()
        self._read = fmt.RECORD_BYTES
        """Position in the segment at hand, behind its header."""
        RECORDER.watch(self._begin, self.advance)

    def collect(self) -> Iterable[Metric]:
        """Yield every family that has samples."""
        self.advance()
        with self._lock:
            totals = self._totals
            yield _counter("mpp_attempts_total", totals.outcomes)
            yield _counter("mpp_retries_total", totals.retries)
            yield _counter("mpp_attempt_cpu_seconds_total", _seconds(totals.cpu_ns))
            yield _counter("mpp_attempt_wall_seconds_total", _seconds(totals.cpu_wall_ns))
            yield _counter("mpp_shuffle_bytes_total", totals.shuffle)
            yield _counter("mpp_activity_seconds_total", _seconds(totals.activity_ns))
            yield _counter("mpp_network_errors_total", totals.network)
            yield _counter("mpp_storage_throttled_requests_total", totals.throttled)
            yield _counter("mpp_jobs_total", totals.jobs)
            yield _delays(totals)
            if self._journal is not None:
                drops = self._journal.dropped()
                dropped: dict[Labels, float] = {("attempt",): sum(drops.attempts.values()), ("other",): drops.other}
                yield _counter("mppobs_records_dropped_total", dropped)
            if totals.memory_ratio is not None:
                ratio = BY_NAME["mpp_worker_memory_ratio"]
                family = GaugeMetricFamily(ratio.name, ratio.help, labels=("quantile",), unit=ratio.unit)
                family.add_metric(("1",), totals.memory_ratio)
                yield family

    def advance(self) -> None:
        """Add what was recorded since the last time."""
        with self._lock:
            while self._full:
                segment = self._full.popleft()
                self._add(segment, len(segment))
                segment.close()
                self._read = fmt.RECORD_BYTES
            segment_now = None if self._journal is None else self._journal.segment()
            if segment_now is not None and not self._full:
                self._add(segment_now, segment_now.tell())

    def _begin(self, journal: JournalWriter) -> None:
        """Follow the journal that the process writes from now on; the end of the one before is in its queue."""
        self.advance()
        with self._lock:
            self._totals.begin_journal()
            self._read = fmt.RECORD_BYTES
            self._full = journal.retired = deque()
            self._journal = journal

    def _add(self, segment: mmap.mmap, end: int) -> None:
        """Add the records up to `end`, all of which are complete: they are this process's own."""
        if end > self._read:
            self._totals.add(segment[self._read : end])
            self._read = end


def start_metrics_server(port: int, addr: str = "127.0.0.1") -> int:
    """
    Serve this worker's metrics over HTTP, on the loopback interface unless `addr` says otherwise; return the port.

    With port 0 the system chooses one. The server is a daemon thread of this process: it ends with it, and a forked
    child has none. Call it before the first attempt. Raises `ConfigError` where the port cannot be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector())
    try:
        server, _ = start_http_server(port, addr, registry)
    except OSError as error:
        raise ConfigError(f"{addr}:{port} cannot be listened on: {error}") from error
    return int(server.server_port)


def _counter(name: str, series: Mapping[Labels, float]) -> Metric:
    metric = BY_NAME[name]
    labels = (*metric.labels, *(label for label, _ in metric.values if label not in metric.labels))
    family = CounterMetricFamily(name.removesuffix("_total"), metric.help, labels=labels, unit=metric.unit)
    for values, total in sorted(series.items()):
        family.add_metric(values, total)
    return family


def _delays(totals: LocalTotals) -> Metric:
    metric = BY_NAME["mpp_scheduler_delay_seconds"]
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    bounds = [*map(str, DELAY_BUCKETS), "+Inf"]
    for pipeline, (counts, sum_ns) in sorted(totals.delays.items()):
        family.add_metric(pipeline, list(zip(bounds, accumulate(counts), strict=True)), sum_ns / 1e9)
    return family


def _seconds(nanoseconds: Mapping[Labels, int]) -> dict[Labels, float]:
    return {labels: total / 1e9 for labels, total in nanoseconds.items()}
