"""
Every metric with its type, unit, labels, buckets and help: what emits and what queries import this table.

`mpp_*` describes the workload, `mppobs_*` the tool itself. Labels come from one closed set, so that the
number of series does not depend on how many jobs or shards have run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mppobs.catalog.foresight import ChargeEnd, Foresight
from mppobs.model import AttemptOutcome, CostKind, JobOutcome, ShardOutcome, StragglerCause

LABELS: Final = frozenset({
    "pipeline", "stage", "tenant", "tier", "owner", "cluster", "zone", "outcome", "state", "reason", "cause", "kind",
    "direction", "quantile", "rank", "slo", "window", "leg",
})  # fmt: skip
"""The labels that any metric may carry; `job_id` and `shard_id` only where `Metric.per_run` says so."""

RUN_LABELS: Final = frozenset({"job_id", "shard_id"})

OTHER: Final = "__other__"
"""The label value into which a family folds what would pass its cap."""

QUANTILES: Final = ("0.5", "0.95", "0.99")
BOUNDS: Final = ("0.05", "0.95")
"""Of a predicted finish: it is later than the first, and earlier than the second, in 19 cases of 20 each."""
QUANTILE_WINDOW: Final = "the last 50 to 60 minutes"
SKETCH_SLICE_SECONDS: Final = 600
SKETCH_SLICES: Final = 6


class Type(StrEnum):
    """Prometheus metric types. `SUMMARY` has no quantiles here: a sum and a count, for averages over any window."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family."""

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """`seconds`, `bytes`, `usd` or `ratio`; empty for counts. The name ends in it."""
    indicator: str = ""
    """`M1` to `M12`, `+` for the further rows of the design, empty for the tool's own."""
    buckets: tuple[float, ...] = ()
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Labels whose values can be listed; all of them exist, at 0, from a series' start."""
    per_run: bool = False
    """Whether it carries `job_id` or `shard_id`: capped, and only for running or just-finished jobs."""


def exponential(first: float, factor: float, count: int) -> tuple[float, ...]:
    """
    Return `count` bucket bounds, each `factor` times the one before.

    >>> exponential(1.0, 4.0, 3)
    (1.0, 4.0, 16.0)
    """
    return tuple(float(f"{first * factor**i:.6g}") for i in range(count))


def _outcomes(enum: type[StrEnum], label: str = "outcome") -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ((label, tuple(str(member) for member in enum)),)


_PIPELINE: Final = ("cluster", "tenant", "pipeline")
_STAGE: Final = (*_PIPELINE, "stage")
_SLO: Final = ("slo",)

JOB_BUCKETS: Final = exponential(1.0, 5.0, 8)
"""1 s to 21 hours."""
QUEUE_BUCKETS: Final = exponential(0.25, 8.0, 5)
"""0.25 s to 17 minutes."""
SHARD_BUCKETS: Final = exponential(0.05, 8.0, 6)
"""50 ms to 27 minutes; quantiles come from the sketch, not from these."""
DELAY_BUCKETS: Final = exponential(0.005, 8.0, 5)
"""5 ms to 20 s."""

METRICS: Final[tuple[Metric, ...]] = (
    # M1
    Metric("mpp_job_duration_seconds", Type.HISTOGRAM, "Job completion latency: end minus submission, queue wait included.",
           _PIPELINE, "seconds", "M1", JOB_BUCKETS),
    Metric("mpp_job_queue_seconds", Type.HISTOGRAM, "Time that a job waited between submission and start.",
           _PIPELINE, "seconds", "M1", QUEUE_BUCKETS),
    # M2
    Metric("mpp_shards_total", Type.COUNTER, "Shards decided: committed, terminally failed, or lost when the job ended.",
           (*_STAGE, "outcome"), "", "M2", values=_outcomes(ShardOutcome)),
    # M3
    Metric("mpp_shard_duration_seconds", Type.HISTOGRAM, "Duration of committed shards, first start to commit.",
           _STAGE, "seconds", "M3", SHARD_BUCKETS),
    Metric("mpp_shard_duration_quantile_seconds", Type.GAUGE,
           f"Quantile of the duration of shards committed in {QUANTILE_WINDOW}, at most 1 % off.",
           (*_STAGE, "quantile"), "seconds", "M3", values=(("quantile", QUANTILES),)),
    Metric("mpp_tail_ratio", Type.GAUGE, f"p99 over median of the duration of shards committed in {QUANTILE_WINDOW}.",
           _STAGE, "ratio", "M3"),
    # M4
    Metric("mpp_shuffle_bytes_total", Type.COUNTER, "Bytes that attempts wrote to and read from exchanges.",
           (*_STAGE, "direction"), "bytes", "M4", values=(("direction", ("read", "written")),)),
    Metric("mpp_job_shuffle_bytes", Type.SUMMARY, "Shuffle bytes, read and written, of finished jobs.",
           _PIPELINE, "bytes", "M4"),
    Metric("mpp_job_shuffle_baseline_ratio", Type.GAUGE,
           "Shuffle bytes of the job that finished last over the median of the 20 successful ones before it.",
           _PIPELINE, "ratio", "M4"),
    # M5
    Metric("mpp_network_errors_total", Type.COUNTER, "Failed transfers that attempts reported, by kind.",
           (*_PIPELINE, "kind"), "", "M5", values=(("kind", ("unspecified",)),)),
    # M6
    Metric("mpp_attempt_cpu_seconds_total", Type.COUNTER, "CPU time of attempts that measure it.", _STAGE, "seconds", "M6"),
    Metric("mpp_attempt_wall_seconds_total", Type.COUNTER, "Wall time of the attempts whose CPU time is counted.",
           _STAGE, "seconds", "M6"),
    Metric("mpp_cpu_throttled_seconds_total", Type.COUNTER, "Time that CFS throttled the workers' cgroups.",
           _PIPELINE, "seconds", "M6"),
    # M7
    Metric("mpp_worker_memory_ratio", Type.GAUGE, "Peak resident memory over the limit, as maximum and 90th percentile over live workers.",
           (*_PIPELINE, "quantile"), "ratio", "M7", values=(("quantile", ("0.9", "1")),)),
    Metric("mpp_oom_kills_total", Type.COUNTER, "Workers killed by the kernel for want of memory.", _PIPELINE, "", "M7"),
    # M8
    Metric("mpp_attempts_total", Type.COUNTER, "Attempts, by how they ended. Failure is the work's fault, error the platform's.",
           (*_STAGE, "outcome"), "", "M8", values=_outcomes(AttemptOutcome)),
    Metric("mpp_retries_total", Type.COUNTER, "Attempts with a number above 0 that are not speculative.", _STAGE, "", "M8"),
    # M9
    Metric("mpp_cost_usd_total", Type.COUNTER, "Cost of attempts and of idle workers, by what the money bought.",
           (*_PIPELINE, "kind"), "usd", "M9", values=_outcomes(CostKind, "kind")),
    Metric("mpp_job_cost_usd", Type.SUMMARY, "Cost of finished jobs, waste included.", _PIPELINE, "usd", "M9"),
    # M10
    Metric("mpp_scheduler_delay_seconds", Type.HISTOGRAM, "Time from an attempt's assignment to its start.",
           _PIPELINE, "seconds", "M10", DELAY_BUCKETS),
    # M11
    Metric("mpp_checkpoint_lag_seconds", Type.GAUGE, "Time since the last checkpoint of the running job that is worst off.",
           _PIPELINE, "seconds", "M11"),
    # M12
    Metric("mpp_jobs_total", Type.COUNTER, "Jobs decided, by outcome.",
           (*_PIPELINE, "outcome"), "", "M12", values=_outcomes(JobOutcome)),
    # further rows
    Metric("mpp_telemetry_completeness_ratio", Type.GAUGE,
           "Attempts recorded over attempts dispatched, of running and just-finished jobs.", _PIPELINE, "ratio", "+"),
    Metric("mpp_activity_seconds_total", Type.COUNTER, "Time of attempts by activity; `other` is what no activity covers.",
           (*_STAGE, "kind"), "seconds", "+"),
    Metric("mpp_run_progress_ratio", Type.GAUGE, "Decided over planned shards of a running or just-finished job.",
           (*_PIPELINE, "job_id"), "ratio", "+", per_run=True),
    Metric("mpp_run_predicted_finish_timestamp_seconds", Type.GAUGE, "When a running job is expected to finish at its present rate.",
           (*_PIPELINE, "job_id"), "seconds", "+", per_run=True),
    Metric("mpp_run_predicted_bound_timestamp_seconds", Type.GAUGE,
           "Between these a running job finishes in nine cases of ten, as predicted now.",
           (*_PIPELINE, "job_id", "quantile"), "seconds", "+", per_run=True),
    Metric("mpp_run_predicted_late_seconds", Type.GAUGE,
           "How late a running job will be, once that is likely; `charge` where predictions are calibrated, else `warning`.",
           (*_PIPELINE, "job_id", "kind"), "seconds", "+", per_run=True),
    Metric("mpp_run_deadline_timestamp_seconds", Type.GAUGE, "When a running job must have finished.",
           (*_PIPELINE, "job_id"), "seconds", "+", per_run=True),
    Metric("mpp_run_info", Type.GAUGE, "1 for each running or just-finished job, with who owns it and its state.",
           (*_PIPELINE, "job_id", "owner", "tier", "state"), "", "+", per_run=True),
    Metric("mpp_coordinator_heartbeat_timestamp_seconds", Type.GAUGE, "Newest heartbeat of a pipeline's coordinator.",
           _PIPELINE, "seconds", "+"),
    Metric("mpp_jobs_current", Type.GAUGE, "Jobs that are pending or running now.",
           (*_PIPELINE, "state"), "", "+", values=(("state", ("pending", "running")),)),
    Metric("mpp_shards_current", Type.GAUGE, "Shards of running jobs that are pending or running now.",
           (*_PIPELINE, "state"), "", "+", values=(("state", ("pending", "running")),)),
    Metric("mpp_stragglers_current", Type.GAUGE, "Attempts that run far longer than their stage's others, by likely cause.",
           (*_PIPELINE, "cause"), "", "+", values=_outcomes(StragglerCause, "cause")),
    Metric("mpp_straggler_seconds", Type.GAUGE, "How long the worst stragglers have run, by rank, each with its likely cause.",
           (*_STAGE, "job_id", "shard_id", "rank", "cause"), "seconds", "+", per_run=True),
    Metric("mpp_skew_idle_ratio", Type.GAUGE,
           "Idle fraction (max − mean) ÷ max of shard durations, in the last job that finished the stage.",
           _STAGE, "ratio", "+"),
    Metric("mpp_storage_throttled_requests_total", Type.COUNTER, "Requests that storage throttled, by prefix class.",
           (*_PIPELINE, "kind"), "", "+", values=(("kind", ("unspecified",)),)),
    Metric("mpp_workers_current", Type.GAUGE, "Workers by state.",
           ("cluster", "state"), "", "+", values=(("state", ("idle", "busy", "draining")),)),
    Metric("mpp_workers_lost_total", Type.COUNTER, "Workers that died or vanished, by reason.",
           ("cluster", "reason"), "", "+", values=(("reason", ("worker_lost", "oom_killed", "node_lost", "preempted")),)),
    Metric("mpp_pipeline_info", Type.GAUGE, "1 for each pipeline, with who owns it and its tier, for alerts to join.",
           (*_PIPELINE, "owner", "tier"), "", "+"),
    # promises
    Metric("mpp_slo_events_total", Type.COUNTER, "Events of an SLO: finished jobs, decided shards, minutes or cents.",
           _SLO, "", "+"),
    Metric("mpp_slo_bad_events_total", Type.COUNTER, "Events of an SLO that broke its promise.", _SLO, "", "+"),
    Metric("mpp_slo_objective_ratio", Type.GAUGE, "Share of events that must be good.", _SLO, "ratio", "+"),
    Metric("mpp_slo_start_timestamp_seconds", Type.GAUGE, "When an SLO's present counting began, at 0.", _SLO, "seconds", "+"),
    Metric("mpp_slo_period_seconds", Type.GAUGE, "Length of the period that an SLO's budget is for.", _SLO, "seconds", "+"),
    Metric("mpp_slo_info", Type.GAUGE, "1 for each SLO, with whom and what it is about; `kind` is its indicator.",
           ("slo", "owner", "tier", "tenant", "pipeline", "kind"), "", "+"),
    Metric("mpp_slo_provisional_bad_events", Type.GAUGE, "Running jobs that are predicted to become bad events.", _SLO, "", "+"),
    Metric("mpp_slo_charges_total", Type.COUNTER,
           "Provisional bad events that are settled, by what became of them: `void` were no event in the end.",
           ("slo", "outcome"), "", "+", values=_outcomes(ChargeEnd)),
    Metric("mpp_slo_predictions_total", Type.COUNTER, "Judged jobs, by what was predicted of them and how they ended.",
           ("slo", "outcome"), "", "+", values=_outcomes(Foresight)),
    Metric("mpp_slo_prediction_coverage_ratio", Type.GAUGE,
           "Share of recent predictions whose interval held the finish; 0.9 is what they claim.", _SLO, "ratio", "+"),
    Metric("mpp_slo_prediction_runs", Type.GAUGE, "Recent runs by which predictions are calibrated.", _SLO, "", "+"),
    Metric("mpp_slo_latched", Type.GAUGE, "1 while the newest event was bad, of SLOs with too few events for a rate.",
           _SLO, "", "+"),
    Metric("mpp_slo_window_events", Type.GAUGE, "Events of an SLO in a window that reaches beyond what Prometheus keeps.",
           ("slo", "window", "outcome"), "", "+", values=(("outcome", ("good", "bad")),)),
    Metric("mpp_slo_budget_left_ratio", Type.GAUGE, "Share of the period's error budget that is left; negative where overspent.",
           _SLO, "ratio", "+"),
    Metric("mpp_slo_revision", Type.GAUGE, "How often it was changed what an SLO's events are; each change counts anew.",
           _SLO, "", "+"),
    # the tool itself
    Metric("mppobs_build_info", Type.GAUGE, "1, with the version as a label value.", ("kind",)),
    Metric("mppobs_records_total", Type.COUNTER, "Journal records folded, by kind.", ("kind",)),
    Metric("mppobs_records_dropped_total", Type.COUNTER, "Records that writers could not hold, by what they were.",
           ("kind",), values=(("kind", ("attempt", "other")),)),
    Metric("mppobs_late_records_total", Type.COUNTER, "Records that came after their decision and were set aside.",
           ("kind",), values=(("kind", ("attempt", "commit", "dispatch", "plan", "job", "detail")),)),
    Metric("mppobs_invalid_records_total", Type.COUNTER, "Records that made no sense, by reason.", ("reason",)),
    Metric("mppobs_journals_current", Type.GAUGE, "Journals followed, by state.",
           ("state",), values=(("state", ("live", "dead")),)),
    Metric("mppobs_stuck_attempts_current", Type.GAUGE, "Attempts of live workers that report progress but have made none for long.",
           _PIPELINE),
    Metric("mppobs_lag_seconds", Type.GAUGE, "Age of the oldest bytes that are written but not yet folded.", (), "seconds"),
    Metric("mppobs_fold_seconds_total", Type.COUNTER, "Time spent folding and committing.", (), "seconds"),
    Metric("mppobs_commits_total", Type.COUNTER, "Transactions committed to the store."),
    Metric("mppobs_refused_rounds_total", Type.COUNTER, "Rounds that could not be committed and were undone; they are read again."),
    Metric("mppobs_lost_records_total", Type.COUNTER, "Records of running jobs that were folded before a restart and gone after it."),
    Metric("mppobs_quarantined_journals_total", Type.COUNTER, "Times that a journal was left alone because rounds failed on it."),
    Metric("mppobs_unreadable_files_total", Type.COUNTER, "Looks at files that are no journal's, or could not be read at the time."),
    Metric("mppobs_failed_predictions_total", Type.COUNTER, "Predictions of a job's finish that could not be made because the code failed."),
    Metric("mppobs_received_bytes_total", Type.COUNTER, "Journal bytes received from agents.", (), "bytes"),
    Metric("mppobs_shipped_bytes_total", Type.COUNTER, "Journal bytes acknowledged by the aggregator (agent).", (), "bytes"),
    Metric("mppobs_ship_errors_total", Type.COUNTER, "Requests to the aggregator that failed (agent)."),
    Metric("mppobs_rejected_requests_total", Type.COUNTER, "Requests refused, by reason.", ("reason",)),
    Metric("mppobs_series_folded_total", Type.COUNTER, "Label sets folded into `__other__`, by family.", ("kind",)),
    Metric("mppobs_spans_exported_total", Type.COUNTER, "Spans accepted by the tracing backend."),
    Metric("mppobs_spans_dropped_total", Type.COUNTER, "Spans not exported, by reason.",
           ("reason",), values=(("reason", ("sampled", "cap", "export")),)),
    Metric("mppobs_archived_shards_total", Type.COUNTER, "Shard records written to the archive."),
    Metric("mppobs_unarchived_jobs_total", Type.COUNTER, "Jobs whose shards could not be archived, for another reason than want of room."),
    Metric("mppobs_slo_reload_errors_total", Type.COUNTER, "Changed SLO files that were refused; the SLOs before stay in force."),
    Metric("mppobs_scrape_seconds", Type.GAUGE, "How long the exposition before this one took to render.", (), "seconds"),
)  # fmt: skip

BY_NAME: Final[dict[str, Metric]] = {metric.name: metric for metric in METRICS}
"""The table by metric name."""
