"""SLOs on minutes: freshness, late starts, checkpoints and money, judged once each."""

from __future__ import annotations

from pathlib import Path

from mppobs.cost.prices import NodePrice, PriceList
from mppobs.model import Context, JobEvent, JobRecord
from mppobs.slo.model import Counts
from tests.sidecar.slo_rig import MINUTE, SECOND, SUCCEEDED, Rig

MINUTES = """
team: risk
pipelines:
  nightly:
    objectives:
      freshness: {objective: 99%, at-most: 2m}
      scheduler-latency: {objective: 99%, at-most: 1s}
      spend: {usd-per-period: 1000}
"""


def minute_rig(directory: Path) -> Rig:
    """A rig with SLOs on minutes, at the beginning of one."""
    made = Rig(directory, MINUTES, PriceList(node_types={"small": NodePrice(36.0, 36.0)}))
    made.clock.advance((-made.clock.time_ns() % MINUTE) / SECOND)
    made.restart()
    return made


def test_minutes_are_judged_once_each_also_through_a_restart(tmp_path: Path) -> None:
    """Fresh up to two minutes after the success, late starts only where any start, a cent for a cent."""
    rig = minute_rig(tmp_path)
    try:
        rig.job(SUCCEEDED, committed=2, delay_ns=3 * SECOND, duration_ns=SECOND)
        rig.settle()
        rig.restart()
        seen = []
        for _ in range(4):
            rig.tick(60)
            rig.restart()
            seen.append((rig.counts()["nightly-freshness"], rig.counts()["nightly-scheduler-latency"]))

        assert [fresh for fresh, _ in seen] == [Counts(1, 0), Counts(2, 0), Counts(3, 0), Counts(4, 1)]
        assert {latency for _, latency in seen} == {Counts(1, 1)}
        spent = sum(next(iter(rig.engine.fold.pipelines.values())).cost_pusd.values())
        assert rig.counts()["nightly-spend"].bad == spent // 10**10 == 2
    finally:
        rig.close()


def test_minutes_in_which_nobody_looked_are_no_events_but_money_has_its_share(tmp_path: Path) -> None:
    """After an hour of silence of the aggregator freshness has one event, and the budget of the hour is all there."""
    rig = minute_rig(tmp_path)
    try:
        rig.job(SUCCEEDED, committed=1)
        rig.settle()
        rig.tick(60)
        before = rig.counts()
        rig.close_engine()
        rig.clock.advance(3600)
        rig.engine = rig._open()
        rig.tick()
        after = rig.counts()

        assert after["nightly-freshness"].total - before["nightly-freshness"].total == 1
        share = 2_000_000 * 60 // (30 * 1440)
        assert after["nightly-spend"].total - before["nightly-spend"].total in (share, share + 1)
    finally:
        rig.close()


def test_freshness_of_an_slo_that_is_new_begins_with_what_the_store_knows(tmp_path: Path) -> None:
    """A pipeline that succeeded before the SLO was written is not unknown to it."""
    rig = Rig(tmp_path)
    try:
        rig.job(SUCCEEDED, committed=1)
        rig.settle()
        rig.rewrite(MINUTES)
        rig.tick(61)

        assert rig.counts()["nightly-freshness"] == Counts(1, 0)
    finally:
        rig.close()


def test_the_worst_checkpoint_of_a_running_job_is_judged_each_minute(tmp_path: Path) -> None:
    """No event while nothing checkpoints; good while the last checkpoint is young, bad once it is old."""
    spec = "team: t\npipelines: {nightly: {objectives: {checkpoint-lag: {objective: 99%, at-most: 90s}}}}"
    rig = Rig(tmp_path, spec)
    try:
        rig.tick(61)
        assert rig.counts()["nightly-checkpoint-lag"] == Counts(0, 0)
        number = rig.coordinator.context_id(Context("nightly", "long", 1))
        now = rig.clock.time_ns()
        rig.coordinator.append(JobRecord(JobEvent.START, number, now, coordinated=True))
        rig.coordinator.append(JobRecord(JobEvent.CHECKPOINT, number, now))
        seen = []
        for _ in range(3):
            rig.tick(58)
            rig.tick(2)
            seen.append(rig.counts()["nightly-checkpoint-lag"])

        assert seen == [Counts(1, 0), Counts(2, 1), Counts(3, 2)]
    finally:
        rig.close()
