"""The number of series hangs on what is there, not on how much of it has run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mppobs.catalog.metrics import BY_NAME
from mppobs.model import Context, JobEvent, JobOutcome, JobRecord, PlanRecord
from mppobs.sidecar.exposition import render
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.live import LiveSettings, RecentRuns, live_view
from mppobs.sidecar.view import View
from tests.sidecar.journals import NOW, SECOND, FakeJournal, fold_all, new_fold

BEGAN = NOW - 1000 * SECOND
BLOCK = 100_000
"""Shards to a round."""


def series(fold: Fold, recent: RecentRuns) -> tuple[set[tuple[str, str]], int]:
    """All series but those of single jobs and shards, and how many of those there are."""
    now = NOW + 10 * SECOND
    live = live_view(fold, [], now, LiveSettings(), recent=recent.runs(now))
    text = render(View(fold.pipelines, fold.stages, fold.clusters, fold.own, live), now, openmetrics=False).decode()
    capped = {name for name, metric in BY_NAME.items() if metric.per_run}
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    lasting = {(s.name, str(sorted(s.labels.items()))) for s in samples if s.name not in capped}
    return lasting, sum(sample.name in capped for sample in samples)


def run_jobs(fold: Fold, journal: FakeJournal, recent: RecentRuns, names: Sequence[str], shards: int) -> None:
    """Run jobs of two stages through the fold, all at a time, to their judgement."""
    contexts = [journal.context(Context("nightly", name, BEGAN)) for name in names]
    for context, name in zip(contexts, names, strict=True):
        journal.append(JobRecord(JobEvent.START, context, BEGAN, coordinated=True))
        for stage_name in ("map", "reduce"):
            stage = journal.context(Context("nightly", name, BEGAN, stage_name, "tasks.work"))
            journal.append(PlanRecord(stage, BEGAN, shards, final=True))
            for first in range(0, shards, BLOCK):
                journal.done_at_once(stage, first, min(BLOCK, shards - first), BEGAN)
                if shards > BLOCK:
                    fold_all(fold, [journal], NOW)
    fold_all(fold, [journal], NOW)
    for event, outcome in ((JobEvent.END, JobOutcome.SUCCESS), (JobEvent.SETTLED, None)):
        journal.append(*(JobRecord(event, context, NOW, outcome) for context in contexts))
        fold_all(fold, [journal], NOW)
    recent.add(fold.take_decided())


def after(jobs: int, shards: int) -> tuple[set[tuple[str, str]], int]:
    """The series after so many jobs of so many shards in each of two stages; a hundred jobs to a journal."""
    fold, recent = new_fold(), RecentRuns()
    for first in range(0, jobs, 100):
        journal = FakeJournal(f"{first:032x}")
        run_jobs(fold, journal, recent, [f"job-{n}" for n in range(first, min(jobs, first + 100))], shards)
    return series(fold, recent)


def test_a_million_shards_have_the_series_of_a_hundred() -> None:
    """Fifty shards in each of two stages or half a million: the very same series."""
    few, many = after(1, 50), after(1, 500_000)

    assert few == many
    assert len(few[0]) > 100


@pytest.mark.slow
def test_ten_thousand_jobs_have_the_series_of_ten() -> None:
    """The same series; the gauges of single jobs stop at their cap."""
    few, many = after(10, 2), after(10_000, 2)

    assert few[0] == many[0]
    assert many[1] == 50 * few[1] // 10


def test_a_thousand_jobs_have_the_series_of_ten() -> None:
    """The same series; the gauges of single jobs stop at their cap."""
    few, many = after(10, 2), after(1000, 2)

    assert few[0] == many[0]
    assert many[1] == 50 * few[1] // 10
