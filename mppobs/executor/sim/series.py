"""
A simulation's time series: what a Prometheus would have scraped, as OpenMetrics text with simulated timestamps.

`promtool tsdb create-blocks-from openmetrics FILE DIRECTORY` makes blocks of a real Prometheus of it. There is one file
a day: promtool reads a file once for each block of two hours, so a month in one file would be read 360 times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mppobs.catalog.metrics import BY_NAME, JOB_BUCKETS, Type
from mppobs.executor.events import Load
from mppobs.executor.sim.jobs import JobState
from mppobs.executor.sim.observe import Observer, Tried
from mppobs.executor.sim.places import Node
from mppobs.executor.sim.tally import COST_OF
from mppobs.model import CostKind, JobOutcome, Reason, ShardOutcome

_DAY_NS: Final = 86_400 * 10**9
_HOUR_NS: Final = 3600e9

Labels = tuple[tuple[str, str], ...]


class Series(Observer):
    """Keeps the metrics of the catalogue that a simulation can tell, and writes them down every so often."""

    def __init__(self, directory: Path, step: float, start_ns: int, lane_price: tuple[float, float]) -> None:
        """
        Write below `directory` every `step` seconds of the simulation, from `start_ns` on.

        `lane_price` is what an hour of a lane costs, on demand and spot.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._step_ns = int(step * 1e9)
        self._next_ns = start_ns + self._step_ns
        self._start_ns = start_ns
        self._day = 0
        self._price = lane_price
        self._values: dict[tuple[str, Labels], float] = {}
        self._lines: dict[tuple[str, Labels], list[tuple[int, str]]] = defaultdict(list)
        """What is to be written of each series: times, and the ends of the lines."""
        self._buckets: dict[Labels, list[int]] = {}
        self._job_cost: dict[int, float] = defaultdict(float)
        self.samples = 0
        """Samples that were written."""

    # What is counted

    def submitted(self, job: JobState, now_ns: int) -> None:
        """Have the series of a pipeline begin at 0."""
        labels = _pipeline(job)
        if ("mpp_jobs_total", (*labels, ("outcome", "success"))) in self._values:
            return
        for name, label, values in (
            ("mpp_jobs_total", "outcome", JobOutcome),
            ("mpp_cost_usd_total", "kind", CostKind),
        ):
            for value in values:
                self._values[name, (*labels, (label, str(value)))] = 0.0
        model = job.model
        self._values["mpp_pipeline_info", (*labels, ("owner", model.owner), ("tier", str(model.tier)))] = 1.0
        for objective, ratio in _objectives(job):
            slo = (("slo", slo_name(model.pipeline, objective)),)
            self._values["mpp_slo_events_total", slo] = self._values["mpp_slo_bad_events_total", slo] = 0.0
            self._values["mpp_slo_objective_ratio", slo] = ratio
            self._values["mpp_slo_start_timestamp_seconds", slo] = self._start_ns / 1e9
            self._values["mpp_slo_period_seconds", slo] = 30 * 86400.0
            about = (("owner", model.owner), ("tier", str(model.tier)), *labels[1:], ("kind", objective))
            self._values["mpp_slo_info", (*slo, *about)] = 1.0

    def started(self, job: JobState, stage: int, shard: int, number: int, worker: str, speculative: bool) -> None:
        """Count retries."""
        if number > 0 and not speculative:
            self._add("mpp_retries_total", _stage(job, stage), 1)

    def tried(self, tried: Tried) -> None:
        """Count an attempt, its time and its cost."""
        labels, fate = _stage(tried.job, tried.stage), tried.fate
        took_ns = tried.end_ns - tried.start_ns
        self._add("mpp_attempts_total", (*labels, ("outcome", str(tried.outcome))), 1)
        self._add("mpp_attempt_wall_seconds_total", labels, took_ns / 1e9)
        self._add("mpp_attempt_cpu_seconds_total", labels, took_ns / 1e9 * fate.cpu_share)
        usd = took_ns / _HOUR_NS * self._price[tried.node.spot]
        kind = str(COST_OF.get(tried.outcome, CostKind.RETRY))
        pipeline = _pipeline(tried.job)
        self._add("mpp_cost_usd_total", (*pipeline, ("kind", kind)), usd)
        self._job_cost[tried.job.number] += usd
        if fate.network_errors:
            self._add("mpp_network_errors_total", (*pipeline, ("kind", "unspecified")), fate.network_errors)
        if fate.throttled:
            self._add("mpp_storage_throttled_requests_total", (*pipeline, ("kind", "unspecified")), fate.throttled)
        if tried.reason is Reason.OOM_KILLED:
            self._add("mpp_oom_kills_total", pipeline, 1)

    def decided(
        self, job: JobState, stage: int, shard: int, number: int, outcome: ShardOutcome, reason: Reason, now_ns: int
    ) -> None:
        """Count a shard, and the promise about it."""
        self._add("mpp_shards_total", (*_stage(job, stage), ("outcome", str(outcome))), 1)
        self._event(job, "shard-success", outcome is not ShardOutcome.COMMITTED)

    def ended(self, job: JobState, now_ns: int) -> None:
        """Count a job, its time and cost, and whether it was on time; shards that it never decided are lost."""
        assert job.end is not None
        labels, seconds = _pipeline(job), (now_ns - job.submit_ns) / 1e9
        self._add("mpp_jobs_total", (*labels, ("outcome", str(job.end.outcome))), 1)
        self._add("mpp_job_cost_usd_sum", labels, self._job_cost.pop(job.number, 0.0))
        self._add("mpp_job_cost_usd_count", labels, 1)
        self._observe_job(labels, seconds)
        good = job.end.outcome is JobOutcome.SUCCESS
        if job.model.deadline:
            self._event(job, "on-time", not good or seconds > job.model.deadline)
        for index, stage in enumerate(job.stages):
            lost = stage.status.count(0)
            if lost:
                self._add("mpp_shards_total", (*_stage(job, index), ("outcome", "lost")), lost)

    def worker_lost(self, worker: str, node: Node, reason: Reason, now_ns: int) -> None:
        """Count a lost worker."""
        self._add("mpp_workers_lost_total", (("cluster", "sim"), ("reason", str(reason))), 1)

    def beat(self, load: Load, now_ns: int) -> None:
        """Keep what the coordinator has on its hands, and write everything down where that is due."""
        cluster = (("cluster", "sim"),)
        for state, count in (
            ("idle", load.idle_workers),
            ("busy", load.busy_workers),
            ("draining", load.draining_workers),
        ):
            self._values["mpp_workers_current", (*cluster, ("state", state))] = count
        while now_ns >= self._next_ns:
            self._sample(self._next_ns)
            self._next_ns += self._step_ns

    def close(self, now_ns: int) -> None:
        """Take everything down once more, at the end, and write what is not written yet."""
        if now_ns > self._next_ns - self._step_ns:
            self._sample(now_ns)
        self._write_day()

    # How it is written

    def _add(self, name: str, labels: Labels, amount: float) -> None:
        key = (name, labels)
        self._values[key] = self._values.get(key, 0.0) + amount

    def _event(self, job: JobState, objective: str, bad: bool) -> None:
        slo = (("slo", slo_name(job.model.pipeline, objective)),)
        self._add("mpp_slo_events_total", slo, 1)
        self._add("mpp_slo_bad_events_total", slo, int(bad))

    def _observe_job(self, labels: Labels, seconds: float) -> None:
        """Count a job's duration in its bucket and all above."""
        counts = self._buckets.setdefault(labels, [0] * (len(JOB_BUCKETS) + 1))
        for index in range(bisect_left(JOB_BUCKETS, seconds), len(counts)):
            counts[index] += 1
        for bound, count in zip((*map(str, JOB_BUCKETS), "+Inf"), counts, strict=True):
            self._values["mpp_job_duration_seconds_bucket", (*labels, ("le", bound))] = count
        self._add("mpp_job_duration_seconds_sum", labels, seconds)
        self._values["mpp_job_duration_seconds_count", labels] = counts[-1]

    def _sample(self, at_ns: int) -> None:
        """Take all values down, with the time."""
        day = (at_ns - self._start_ns) // _DAY_NS
        if day != self._day:
            self._write_day()
            self._day = day
        stamp = at_ns // 10**9
        for key, value in self._values.items():
            self._lines[key].append((stamp, f"{value:.9g} {stamp}\n"))

    def _write_day(self) -> None:
        """Write the day's samples: by family, as OpenMetrics asks."""
        if not self._lines:
            return
        families: dict[str, dict[Labels, list[tuple[str, Labels]]]] = defaultdict(lambda: defaultdict(list))
        for name, labels in self._lines:
            group = tuple(pair for pair in labels if pair[0] != "le")
            families[_family(name)][group].append((name, labels))
        path = self._directory / f"day-{self._day + 1:02}.om"
        with path.open("w", encoding="utf-8") as file:
            for family in sorted(families):
                metric = BY_NAME[family]
                name = family.removesuffix("_total") if metric.type is Type.COUNTER else family
                file.write(f"# TYPE {name} {metric.type}\n# HELP {name} {metric.help}\n")
                for keys in families[family].values():
                    file.writelines(self._text(keys))
            file.write("# EOF\n")
        self._lines.clear()

    def _text(self, keys: Sequence[tuple[str, Labels]]) -> Iterator[str]:
        """Yield the lines of series that belong together, such as the buckets of one histogram: time by time."""
        begins = [
            name + "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "} " for name, labels in keys
        ]
        ends = ((stamp, index, end) for index, key in enumerate(keys) for stamp, end in self._lines[key])
        for _, index, end in sorted(ends) if len(keys) > 1 else ends:
            self.samples += 1
            yield begins[index] + end


def slo_name(pipeline: str, objective: str) -> str:
    """Return the name of an SLO of the estate, as `slo.yaml` makes it."""
    return f"estate/{pipeline}-{objective}"


def _objectives(job: JobState) -> list[tuple[str, float]]:
    """Return the promises about a job's pipeline, and their objectives."""
    return [("on-time", 0.95), ("shard-success", 0.999)] if job.model.deadline else [("shard-success", 0.999)]


def _pipeline(job: JobState) -> Labels:
    return (("cluster", "sim"), ("tenant", job.model.tenant), ("pipeline", job.model.pipeline))


def _stage(job: JobState, stage: int) -> Labels:
    return (*_pipeline(job), ("stage", job.model.stages[stage].name))


def _family(name: str) -> str:
    """Return the metric of the catalogue that a sample belongs to."""
    for ending in ("_bucket", "_sum", "_count"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name
