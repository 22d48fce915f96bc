"""SLOs are counted with the round, exactly once, whatever restarts and full disks come between."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.model import JobOutcome, RunKind
from mppobs.sidecar.store_jobs import JobQuery
from mppobs.sidecar.store_schema import StoreFull
from mppobs.slo.model import Counts
from mppobs.slo.standing import standing, window
from tests.sidecar.slo_rig import FAILED, SUCCEEDED, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A rig with two SLOs on the pipeline `nightly`."""
    made = Rig(tmp_path)
    yield made
    made.close()


def test_first_job_ever_that_fails_is_exposed_as_one_bad_event_after_zero(rig: Rig) -> None:
    """The counters stand at 0 from the load of the SLO, before any record; the first failure takes them to 1."""
    bad, total = "mpp_slo_bad_events_total", "mpp_slo_events_total"
    name = "risk/nightly-job-success"
    assert (rig.exposed(bad)[name], rig.exposed(total)[name]) == ("0", "0")
    loaded = rig.exposed("mpp_slo_start_timestamp_seconds")[name]

    rig.tick()
    assert (rig.exposed(bad)[name], rig.exposed("mpp_slo_latched")[name]) == ("0", "0")
    rig.job(FAILED)
    rig.settle()

    assert (rig.exposed(bad)[name], rig.exposed(total)[name]) == ("1", "1")
    assert rig.exposed("mpp_slo_latched") == {name: "1"}, "the other has events enough for a rate, or none expected"
    assert rig.exposed("mpp_slo_start_timestamp_seconds")[name] == loaded
    assert rig.exposed("mpp_slo_budget_left_ratio")[name] == repr(1 / 3), "of one and a half"


def test_shards_count_when_they_are_decided_and_lost_ones_when_the_job_is_judged(rig: Rig) -> None:
    """Five good ones and a failed one at once; the two that never came are lost at settling. Attempts do not count."""
    rig.job(SUCCEEDED, committed=5, failed=1, lost=2)
    rig.tick(times=1)
    assert rig.counts()["nightly-shard-success"] == Counts(6, 1)

    rig.settle()

    assert rig.counts() == {"nightly-job-success": Counts(1, 0), "nightly-shard-success": Counts(8, 3)}


@pytest.mark.parametrize("kind", list(RunKind))
def test_excluded_kinds_of_run_do_not_count_and_lose_nothing(kind: RunKind, rig: Rig) -> None:
    """A backfill that fails is no event of these SLOs; every figure of the pipeline has it all the same."""
    rig.job(FAILED, kind=kind, committed=1, failed=1, lost=1)
    rig.settle()

    excluded = kind in (RunKind.BACKFILL, RunKind.DRILL)
    jobs, shards = (Counts(0, 0), Counts(0, 0)) if excluded else (Counts(1, 1), Counts(3, 2))
    assert rig.counts() == {"nightly-job-success": jobs, "nightly-shard-success": shards}
    (totals,) = rig.engine.store.totals().pipelines.values()
    assert totals.jobs[FAILED] == 1
    assert [job.run_kind for job in rig.engine.jobs(JobQuery()).jobs] == [kind]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("job"),
            st.sampled_from([SUCCEEDED, FAILED, JobOutcome.ERROR, JobOutcome.CANCELLED]),
            st.sampled_from([RunKind.SCHEDULED, RunKind.BACKFILL, RunKind.DRILL]),
            st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)),
        ),
        st.sampled_from([("tick",), ("wait",), ("kill",), ("stop",), ("checkpoint",), ("full",)]),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(ACTIONS)
def test_counts_are_exact_through_kills_stops_and_full_disks(actions: list[tuple[object, ...]]) -> None:
    """After any mixture of work and restarts each SLO has exactly the events of a recount by the list of jobs."""
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory))
        written: Counter[str] = Counter()
        try:
            for action in actions:
                _act(rig, action, written)
            rig.settle()
            assert rig.counts() == {
                "nightly-job-success": Counts(written["jobs"], written["bad jobs"]),
                "nightly-shard-success": Counts(written["shards"], written["bad shards"]),
            }
            before = rig.figures()
            rig.restart()
            after = rig.figures()
            for name, each in before.items():
                assert list(after[name].tally.history) == list(each.tally.history)
                assert after[name].tally.counts == each.tally.counts
                assert after[name].tally.start_ns == each.tally.start_ns
                assert after[name].latched == each.latched
                assert standing(each.slo, after[name].tally, 2**61) == standing(each.slo, each.tally, 2**61)
        finally:
            rig.close()


def _act(rig: Rig, action: tuple[object, ...], written: Counter[str]) -> None:
    match action:
        case ("job", JobOutcome() as outcome, RunKind() as kind, (int() as good, int() as failed, int() as lost)):
            rig.job(outcome, kind=kind, committed=good, failed=failed, lost=lost)
            if kind is RunKind.SCHEDULED:
                written["jobs"] += outcome is not JobOutcome.CANCELLED
                written["bad jobs"] += outcome in (FAILED, JobOutcome.ERROR)
                written["shards"] += good + failed + lost
                written["bad shards"] += failed + lost
        case ("kill",):
            rig.restart()
        case ("stop",):
            rig.restart(clean=True)
        case ("checkpoint",):
            rig.engine.checkpoint()
        case ("full",):
            _fill(rig)
        case ("wait",):
            rig.tick(6)
        case _:
            rig.tick()


def _fill(rig: Rig) -> None:
    """Let one commit find no room, then make room again."""
    store = rig.engine.store
    commit = store.commit

    def refuse(_commit: object) -> None:
        raise StoreFull("no space left on device")

    store.commit = refuse  # type: ignore[method-assign,assignment]
    rig.tick(times=1)
    store.commit = commit  # type: ignore[method-assign]
    rig.tick(12)


def test_windows_beyond_what_prometheus_keeps_are_exposed(rig: Rig) -> None:
    """A period of thirty days is longer than the fifteen that Prometheus keeps: its events come from the aggregator."""
    rig.job(FAILED)
    rig.settle()
    found = rig.figures()["nightly-job-success"]

    assert found.windows == {"30d": Counts(1, 1)}
    assert window(found.tally, rig.clock.time_ns(), 300) == Counts(1, 1)


def test_histories_are_thinned_in_memory_and_in_the_store_alike(rig: Rig) -> None:
    """Days later the steps of an hour are one, and a restart finds what memory has."""
    for _ in range(3):
        rig.job(FAILED)
        rig.settle()
        rig.tick(300)
    rig.tick(5 * 86_400)
    before = len(rig.figures()["nightly-job-success"].tally.history)
    for _ in range(60):
        rig.tick(60, times=1)
    after = list(rig.figures()["nightly-job-success"].tally.history)

    assert before == 3
    assert len(after) < 3
    assert after[-1].total == 3
    rig.restart()
    assert list(rig.figures()["nightly-job-success"].tally.history) == after
