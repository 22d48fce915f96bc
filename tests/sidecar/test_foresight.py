"""Running jobs are charged before they are late and settled when they are judged, whatever restarts come between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mppobs.catalog.foresight import ChargeEnd, Foresight, Weight
from mppobs.sidecar.web import build_app
from mppobs.slo.calibration import LEAST_RUNS
from mppobs.slo.model import Counts
from tests.sidecar.foresight_rig import DEADLINE_SECONDS, SECOND, Rig
from tests.sidecar.handmade import Client, parts

SLOW = 25.0
"""Seconds a shard: the run takes 200 seconds, and its deadline is after 120."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """What an engine leaves behind that has seen as many healthy runs as it takes to trust its predictions."""
    made = Rig(tmp_path_factory.mktemp("trained"))
    made.train()
    made.close()
    return made


@pytest.fixture
def rig(template: Rig, tmp_path: Path) -> Iterator[Rig]:
    """An engine that has seen ten healthy runs."""
    made = Rig.trained(template, tmp_path / "rig")
    yield made
    made.close()


def test_a_job_that_will_be_late_is_charged_before_its_deadline_and_settled_at_its_end(rig: Rig) -> None:
    """The charge burns like an event while the job runs; at its judgement the event takes its place."""
    before = rig.figures
    assert before.tally.counts == Counts(10, 0)
    charged: list[float] = []
    for now in rig.run(SLOW):
        if rig.figures.provisional:
            charged.append(now)
        assert rig.figures.tally.counts == before.tally.counts

    assert 0 < charged[0] < 0.75 * DEADLINE_SECONDS
    found = rig.figures
    assert (found.provisional, found.tally.counts) == (0, Counts(11, 1))
    assert found.foresight is not None
    assert found.foresight.settled == {**dict.fromkeys(ChargeEnd, 0), ChargeEnd.BAD: 1}
    assert found.foresight.verdicts == {**dict.fromkeys(Foresight, 0), Foresight.QUIET: 10, Foresight.CAUGHT: 1}


def test_a_healthy_run_is_never_charged_and_its_finish_is_foretold(rig: Rig) -> None:
    """From the first look on, by the runs before it."""
    start = rig.clock.time_ns()
    off = []
    for _ in rig.run():
        assert rig.figures.provisional == 0
        run = rig.live
        assert run.deadline_ns == start + DEADLINE_SECONDS * SECOND
        if run.state == "running" and run.predicted_finish_ns is not None and run.finish_bounds_ns is not None:
            low, high = run.finish_bounds_ns
            assert low <= run.predicted_finish_ns <= high
            off.append((run.predicted_finish_ns - start) / SECOND / 80 - 1)

    assert len(off) > 10
    assert max(map(abs, off)) < 0.25
    assert sum(abs(each) < 0.1 for each in off) > 0.8 * len(off)


def test_before_enough_runs_there_is_a_warning_and_no_charge(tmp_path: Path) -> None:
    """Nothing burns, and what would have been charged is shown as a warning; the verdict counts all the same."""
    with closing(Rig(tmp_path)) as rig:
        rig.train(LEAST_RUNS - 1)
        weights = set()
        for _ in rig.run(SLOW):
            assert rig.figures.provisional == 0
            weights.add(rig.live.weight)
        found = rig.figures.foresight

    assert weights == {None, Weight.WARNING}
    assert found is not None
    assert found.verdicts[Foresight.CAUGHT] == 1


@pytest.mark.parametrize(("every", "paces"), [(1, (SLOW,)), (4, (SLOW, 10.0, SLOW))])
def test_charges_survive_kills_and_are_settled_exactly_once(
    template: Rig, tmp_path: Path, every: int, paces: tuple[float, ...]
) -> None:
    """An engine that is killed again and again ends with the events of one that never was, and with no charge left."""
    with closing(Rig.trained(template, tmp_path / "killed")) as rig:
        for pace in paces:
            for step, _ in enumerate(rig.run(pace), 1):
                if step % every == 0:
                    standing, kept = rig.figures.provisional, rig.kept
                    rig.kill()
                    assert (rig.figures.provisional, rig.kept) == (standing, kept)
        found, jobs = rig.figures, rig.kept.jobs

    late, quiet = paces.count(SLOW), 10 + paces.count(10.0)
    assert (found.tally.counts, found.provisional, jobs) == (Counts(quiet + late, late), 0, {})
    assert found.foresight is not None
    assert found.foresight.settled == {**dict.fromkeys(ChargeEnd, 0), ChargeEnd.BAD: late}
    # What is in doubt at a kill is doubted anew, so a charge may come later; killed at every look, too late.
    foretold = Foresight.CAUGHT if every > 1 else Foresight.MISSED
    assert found.foresight.verdicts == {**dict.fromkeys(Foresight, 0), Foresight.QUIET: quiet, foretold: late}


def test_a_promise_that_is_gone_takes_its_charges_with_it(rig: Rig) -> None:
    """They end as no event; when the promise comes back it begins with none."""
    run = rig.run(SLOW)
    while not rig.figures.provisional:
        next(run)
    spec = rig.path.read_text()
    rig.path.write_text(spec.replace("      on-time: 90%\n", ""))
    next(run)
    accounts = rig.kept.accounts["risk/nightly-on-time"]
    assert accounts.settled == {**dict.fromkeys(ChargeEnd, 0), ChargeEnd.VOID: 1}

    for _ in run:
        pass
    rig.path.write_text(spec)
    rig.clock.advance(1)
    rig.tick()
    assert (rig.figures.provisional, rig.figures.tally.counts) == (0, Counts(10, 0))


def test_what_is_foretold_is_exposed_and_answered(rig: Rig) -> None:
    """The gauges that alerts look at, and the API that people and the command line read."""
    run = rig.run(SLOW)
    while not rig.figures.provisional:
        next(run)
    (late,) = rig.exposed("mpp_run_predicted_late_seconds")
    assert 'kind="charge"' in late
    assert float(late.split()[-1]) > 30
    assert len(rig.exposed("mpp_run_predicted_bound_timestamp_seconds")) == 2
    assert rig.exposed("mpp_slo_provisional_bad_events") == [
        'mpp_slo_provisional_bad_events{slo="risk/nightly-on-time"} 1',
        'mpp_slo_provisional_bad_events{slo="risk/nightly-job-success"} 0',
    ]
    assert rig.exposed("mpp_slo_prediction_runs") == ['mpp_slo_prediction_runs{slo="risk/nightly-on-time"} 10']
    with Client(build_app(parts(rig.reading()))) as client:  # type: ignore[arg-type]
        (job,) = client.get("/api/v1/jobs", params={"state": "running"}).json()["jobs"]
        slos = {each["slo"]: each for each in client.get("/api/v1/slos").json()["slos"]}
    assert job["at_risk"] == "charge"
    assert job["predicted_earliest"] < job["predicted_finish"] < job["predicted_latest"]
    assert job["deadline"] < job["predicted_finish"]
    assert slos["risk/nightly-on-time"]["provisional_bad_events"] == 1
    assert slos["risk/nightly-on-time"]["foresight"]["runs"] == 10
    assert slos["risk/nightly-job-success"]["foresight"] is None
