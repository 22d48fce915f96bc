"""
Where the samples of each metric come from: one function per family of the catalogue, from a view to figures.

A figure is a number, counts by the family's last label, a histogram or a summary; `None` is no data, and no sample.
Integers of seconds are nanoseconds and integers of dollars are picodollars, as the aggregates keep them; floats
are in the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from mppobs.catalog.metrics import BOUNDS, OTHER, QUANTILES
from mppobs.sidecar.aggregates import Histogram, PipelineTotals, StageKey, StageTotals, Summary
from mppobs.sidecar.view import ForesightFigures, LivePipeline, LiveRun, SloFigures, ToolFigures, View
from mppobs.slo.model import EventUnit
from mppobs.version import __version__

Counts = Mapping[Any, float]
"""Figures by label value: text or a member of an enumeration of texts (`Mapping` is invariant in its keys)."""
Figure = float | Counts | Histogram | Summary | None
Labels = tuple[str, ...]

_MEDIAN: Final = QUANTILES.index("0.5")
_P99: Final = QUANTILES.index("0.99")
_DAY_NS: Final = 86_400 * 10**9


class Moment:
    """A view and the time at which it is shown, with what several families need computed once."""

    def __init__(self, view: View, now_ns: int) -> None:
        self.view = view
        self.now_ns = now_ns

    @cached_property
    def quantiles(self) -> dict[StageKey, list[float | None]]:
        """The catalogue's quantiles of each stage's shard durations in the window, in seconds."""
        wanted = [float(q) for q in QUANTILES]
        return {key: totals.sketch.quantiles(wanted, self.now_ns) for key, totals in self.view.stages.items()}


Family = Callable[[Moment], Iterator[tuple[Labels, Figure]]]
"""From a moment to label values (but for the last label where the figure maps it) and figures."""


def _pipelines(read: Callable[[PipelineTotals], Figure]) -> Family:
    """Return a family with one figure for each pipeline's totals."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        for key, totals in moment.view.pipelines.items():
            yield key, read(totals)

    return family


def _stages(read: Callable[[StageTotals], Figure]) -> Family:
    """Return a family with one figure for each stage's totals."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        for key, totals in moment.view.stages.items():
            yield key, read(totals)

    return family


def _live(read: Callable[[LivePipeline], Figure]) -> Family:
    """Return a family with one figure for what runs of each pipeline; those with nothing running are there too."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        nothing = LivePipeline()
        for key in moment.view.pipelines:
            yield key, read(moment.view.live.pipelines.get(key, nothing))

    return family


def _runs(read: Callable[[LiveRun], Figure], *further: str) -> Family:
    """Return a family with one figure for each of the worst runs; `further` attributes are labels too."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        for run in moment.view.live.runs[: moment.view.max_runs]:
            more = [str(getattr(run, name)) for name in further]
            yield (*run.key, run.job.job_id, *more), read(run)

    return family


def _bounds(run: LiveRun) -> Figure:
    return None if run.finish_bounds_ns is None else dict(zip(BOUNDS, run.finish_bounds_ns, strict=True))


def _late(run: LiveRun) -> Figure:
    """Return how late a run will be, while it is likely to be late at all."""
    return None if run.weight is None else {run.weight: run.late_ns}


def _tool(read: Callable[[ToolFigures], Figure]) -> Family:
    """Return a family of the sidecar itself."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        yield (), read(moment.view.tool)

    return family


def _own(name: str) -> Family:
    """Return a family that the fold counts by one label."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        yield (), getattr(moment.view.own, name)

    return family


def _quantiles(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for key, values in moment.quantiles.items():
        yield key, {q: value for q, value in zip(QUANTILES, values, strict=True) if value is not None}


def _tail(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for key, values in moment.quantiles.items():
        middle, tail = values[_MEDIAN], values[_P99]
        yield key, tail / middle if middle and tail is not None else None


def _completeness(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for key, live in moment.view.live.pipelines.items():
        yield key, live.recorded / live.dispatched if live.dispatched else None


def _stragglers(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for rank, found in enumerate(moment.view.live.stragglers[: moment.view.worst_k], 1):
        running = found.attempt
        yield (*running.key, running.job.job_id, str(running.shard), str(rank), str(found.cause)), found.elapsed


def _clusters(view: View) -> Iterator[str]:
    """Return each cluster once, in an order that stays; one of which only a pipeline is known begins at 0 as well."""
    named = (key.cluster for key in view.pipelines if key.cluster != OTHER)
    return iter(dict.fromkeys([*view.clusters, *view.live.workers, *named]))


def _workers(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for cluster in _clusters(moment.view):
        yield (cluster,), moment.view.live.workers.get(cluster, {})


def _workers_lost(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for cluster in _clusters(moment.view):
        totals = moment.view.clusters.get(cluster)
        yield (cluster,), totals.workers_lost if totals else {}


def _journals(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    yield (), moment.view.live.journals


def _pipeline_info(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for key, totals in moment.view.pipelines.items():
        yield (*key, totals.owner, str(totals.tier)), 1


def _slos(read: Callable[[SloFigures], Figure], *further: Callable[[SloFigures], str]) -> Family:
    """Return a family with one figure for each SLO; what `further` reads are labels too."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        for each in moment.view.slos:
            yield (each.slo.full_name, *(label(each) for label in further)), read(each)

    return family


def _counted(read: Callable[[SloFigures], Figure]) -> Family:
    """Return a family with one figure for each SLO that is counted here; Prometheus counts those on queries itself."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        for each in moment.view.slos:
            yield (each.slo.full_name,), None if each.slo.unit is EventUnit.QUERY else read(each)

    return family


def _foresight(read: Callable[[ForesightFigures], Figure]) -> Family:
    """Return a family with one figure for each SLO whose events can be foretold."""

    def family(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
        for each in moment.view.slos:
            yield (
                (each.slo.full_name,),
                None if each.foresight is None or each.slo.unit is EventUnit.QUERY else read(each.foresight),
            )

    return family


def _slo_windows(moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    for each in moment.view.slos:
        for window, counts in each.windows.items() if each.slo.unit is not EventUnit.QUERY else ():
            yield (each.slo.full_name, window), {"good": counts.total - counts.bad, "bad": counts.bad}


_slo_info: Final = _slos(
    lambda _each: 1,
    lambda each: each.slo.owner,
    lambda each: str(each.slo.tier),
    lambda each: each.slo.tenant,
    lambda each: each.slo.pipeline,
    lambda each: str(each.slo.indicator),
)


def _build(_moment: Moment) -> Iterator[tuple[Labels, Figure]]:
    yield (__version__,), 1


FAMILIES: Final[Mapping[str, Family]] = {
    "mpp_job_duration_seconds": _pipelines(lambda totals: totals.durations),
    "mpp_job_queue_seconds": _pipelines(lambda totals: totals.queue),
    "mpp_shards_total": _stages(lambda totals: totals.shards),
    "mpp_shard_duration_seconds": _stages(lambda totals: totals.durations),
    "mpp_shard_duration_quantile_seconds": _quantiles,
    "mpp_tail_ratio": _tail,
    "mpp_shuffle_bytes_total": _stages(lambda totals: {"read": totals.shuffle_read, "written": totals.shuffle_written}),
    "mpp_job_shuffle_bytes": _pipelines(lambda totals: totals.job_shuffle),
    "mpp_job_shuffle_baseline_ratio": _pipelines(lambda totals: totals.baseline_ratio),
    "mpp_network_errors_total": _pipelines(lambda totals: totals.network_errors),
    "mpp_attempt_cpu_seconds_total": _stages(lambda totals: totals.cpu_ns),
    "mpp_attempt_wall_seconds_total": _stages(lambda totals: totals.cpu_wall_ns),
    "mpp_cpu_throttled_seconds_total": _pipelines(lambda totals: totals.throttled_ns),
    "mpp_worker_memory_ratio": _live(lambda live: live.memory),
    "mpp_oom_kills_total": _pipelines(lambda totals: totals.oom_kills),
    "mpp_attempts_total": _stages(lambda totals: totals.attempts),
    "mpp_retries_total": _stages(lambda totals: totals.retries),
    "mpp_cost_usd_total": _pipelines(lambda totals: totals.cost_pusd),
    "mpp_job_cost_usd": _pipelines(lambda totals: totals.job_cost),
    "mpp_scheduler_delay_seconds": _pipelines(lambda totals: totals.delays),
    "mpp_checkpoint_lag_seconds": _live(lambda live: live.checkpoint_lag),
    "mpp_jobs_total": _pipelines(lambda totals: totals.jobs),
    "mpp_telemetry_completeness_ratio": _completeness,
    "mpp_activity_seconds_total": _stages(lambda totals: totals.activity_ns),
    "mpp_run_progress_ratio": _runs(lambda run: run.progress),
    "mpp_run_predicted_finish_timestamp_seconds": _runs(lambda run: run.predicted_finish_ns),
    "mpp_run_predicted_bound_timestamp_seconds": _runs(_bounds),
    "mpp_run_predicted_late_seconds": _runs(_late),
    "mpp_run_deadline_timestamp_seconds": _runs(lambda run: run.deadline_ns or None),
    "mpp_run_info": _runs(lambda _run: 1, "owner", "tier", "state"),
    "mpp_coordinator_heartbeat_timestamp_seconds": _pipelines(lambda totals: totals.heartbeat_ns or None),
    "mpp_jobs_current": _live(lambda live: live.jobs),
    "mpp_shards_current": _live(lambda live: live.shards),
    "mpp_stragglers_current": _live(lambda live: live.stragglers),
    "mpp_straggler_seconds": _stragglers,
    "mpp_skew_idle_ratio": _stages(lambda totals: totals.skew_idle_ratio),
    "mpp_storage_throttled_requests_total": _pipelines(lambda totals: totals.storage_throttled),
    "mpp_workers_current": _workers,
    "mpp_workers_lost_total": _workers_lost,
    "mpp_pipeline_info": _pipeline_info,
    "mpp_slo_events_total": _counted(lambda each: each.tally.counts.total),
    "mpp_slo_bad_events_total": _counted(lambda each: each.tally.counts.bad),
    "mpp_slo_objective_ratio": _slos(lambda each: float(each.slo.objective)),
    "mpp_slo_start_timestamp_seconds": _counted(lambda each: each.tally.start_ns),
    "mpp_slo_period_seconds": _slos(lambda each: each.slo.period_days * _DAY_NS),
    "mpp_slo_info": _slo_info,
    "mpp_slo_provisional_bad_events": _counted(lambda each: each.provisional),
    "mpp_slo_charges_total": _foresight(lambda each: each.settled),
    "mpp_slo_predictions_total": _foresight(lambda each: each.verdicts),
    "mpp_slo_prediction_coverage_ratio": _foresight(lambda each: each.coverage),
    "mpp_slo_prediction_runs": _foresight(lambda each: each.runs),
    "mpp_slo_latched": _counted(lambda each: None if each.latched is None else int(each.latched)),
    "mpp_slo_window_events": _slo_windows,
    "mpp_slo_budget_left_ratio": _counted(lambda each: float(each.budget_left)),
    "mpp_slo_revision": _slos(lambda each: each.tally.revision),
    "mppobs_build_info": _build,
    "mppobs_records_total": _own("records"),
    "mppobs_records_dropped_total": _own("dropped"),
    "mppobs_late_records_total": _own("late"),
    "mppobs_invalid_records_total": _own("invalid"),
    "mppobs_journals_current": _journals,
    "mppobs_stuck_attempts_current": _live(lambda live: live.stuck),
    "mppobs_lag_seconds": _tool(lambda tool: tool.lag_seconds),
    "mppobs_fold_seconds_total": _tool(lambda tool: tool.fold_ns),
    "mppobs_commits_total": _tool(lambda tool: tool.commits),
    "mppobs_refused_rounds_total": _tool(lambda tool: tool.refused_rounds),
    "mppobs_lost_records_total": _tool(lambda tool: tool.lost_records),
    "mppobs_quarantined_journals_total": _tool(lambda tool: tool.quarantined_journals),
    "mppobs_unreadable_files_total": _tool(lambda tool: tool.unreadable_files),
    "mppobs_failed_predictions_total": _tool(lambda tool: tool.failed_predictions),
    "mppobs_received_bytes_total": _tool(lambda tool: tool.received_bytes),
    "mppobs_shipped_bytes_total": _tool(lambda tool: tool.shipped_bytes),
    "mppobs_ship_errors_total": _tool(lambda tool: tool.ship_errors),
    "mppobs_rejected_requests_total": _tool(lambda tool: tool.rejected),
    "mppobs_series_folded_total": _own("series_folded"),
    "mppobs_spans_exported_total": _tool(lambda tool: tool.spans_exported),
    "mppobs_spans_dropped_total": _tool(lambda tool: tool.spans_dropped),
    "mppobs_archived_shards_total": _tool(lambda tool: tool.archived_shards),
    "mppobs_unarchived_jobs_total": _tool(lambda tool: tool.unarchived_jobs),
    "mppobs_slo_reload_errors_total": _tool(lambda tool: tool.slo_reload_errors),
    "mppobs_scrape_seconds": _tool(lambda tool: tool.scrape_seconds),
}
"""By metric name; exactly the metrics of the catalogue."""
