"""How the fold decides, one rule at a time; `test_fold_oracle.py` holds all of them together on random histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mppobs.catalog.metrics import OTHER
from mppobs.cost.prices import NodePrice, PriceList
from mppobs.errors import JournalError
from mppobs.journal.format import shard_key
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    CostKind,
    DetailKind,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    JobEvent,
    JobKey,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    SampleRecord,
    Shard,
    ShardOutcome,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.sidecar.fold import EndedJob, Fold, FoldSettings
from mppobs.sidecar.follow import Block
from mppobs.sidecar.kept import KeepSettings
from mppobs.sidecar.running import DecidedJob, RunningJob
from tests.sidecar.journals import NOW, SECOND, FakeJournal, fold_all, new_fold

JOB = Context("nightly", "job-1", NOW)
MAP = replace(JOB, stage="map", task="tasks.map")


class Story:
    """One coordinator's journal and a fold that reads it."""

    def __init__(self, fold: Fold | None = None, journal: FakeJournal | None = None) -> None:
        self.fold = fold or new_fold()
        self.journal = journal or FakeJournal()
        self.now = NOW

    def job(self, event: JobEvent, context: Context = JOB, **values: object) -> None:
        """Write a step of a job's life."""
        record = JobRecord(event, self.journal.context(context), self.now)
        self.journal.append(replace(record, **values))  # type: ignore[arg-type]

    def attempt(self, shard: Shard, number: int = 0, context: Context = MAP, **values: object) -> None:
        """Write an attempt that took a second and succeeded."""
        key, context_id = self.journal.shard(shard), self.journal.context(context)
        record = AttemptRecord(context_id, key, number, AttemptOutcome.SUCCESS, self.now - SECOND, SECOND)
        self.journal.append(replace(record, **values))  # type: ignore[arg-type]

    def dispatch(self, shard: Shard, number: int = 0) -> None:
        """Write that an attempt was handed out."""
        key = self.journal.shard(shard)
        self.journal.append(DispatchRecord(self.journal.context(MAP), key, number, self.now))

    def commit(self, shard: Shard, **values: object) -> None:
        """Write that a shard was decided."""
        key = self.journal.shard(shard)
        record = CommitRecord(self.journal.context(MAP), key, 0, ShardOutcome.COMMITTED, self.now)
        self.journal.append(replace(record, **values))  # type: ignore[arg-type]

    def fold_round(self, seconds: float = 1.0) -> Story:
        """Fold what was written, as one round, and let time pass."""
        fold_all(self.fold, [self.journal], self.now)
        self.now += round(seconds * SECOND)
        return self

    def settle(self, outcome: JobOutcome = JobOutcome.SUCCESS, context: Context = JOB) -> DecidedJob:
        """End the job and judge it."""
        self.job(JobEvent.END, context, outcome=outcome)
        self.job(JobEvent.SETTLED, context)
        self.fold_round()
        [decided] = self.fold.take_decided()
        return decided

    @property
    def only(self) -> RunningJob:
        """Return the one running job."""
        [job] = self.fold.running.values()
        return job


def test_a_start_opens_a_job_with_its_submission_and_deadline() -> None:
    """Everything that a start says is on the job."""
    story = Story()
    story.job(JobEvent.START, submit_ns=NOW - 5 * SECOND, deadline_ns=NOW + 60 * SECOND, coordinated=True)
    job = story.fold_round().only
    assert (job.start_ns, job.submit_ns, job.deadline_ns) == (NOW, NOW - 5 * SECOND, NOW + 60 * SECOND)
    assert job.coordinated
    assert not job.implicit
    assert story.settle().duration_ns == 6 * SECOND


def test_records_of_a_job_that_nobody_started_open_it() -> None:
    """An implicit job starts with the earliest of its attempts."""
    story = Story()
    story.attempt(1)
    story.attempt(2, start_ns=NOW - 9 * SECOND)
    job = story.fold_round().only
    assert job.implicit
    assert job.start_ns == NOW - 9 * SECOND
    assert job.key.incarnation == JOB.incarnation


def test_an_unknown_incarnation_means_the_job_that_runs() -> None:
    """Workers that were not told the incarnation take part in the running job."""
    story = Story()
    story.job(JobEvent.START)
    story.attempt(1, context=replace(MAP, incarnation=0))
    assert story.fold_round().only.committed == 1


def test_an_unknown_incarnation_begins_a_job_only_after_the_last_one_ended() -> None:
    """What began before the end of the last run is late; what began after it is a new run, named by its start."""
    story = Story()
    story.job(JobEvent.START)
    story.fold_round(10)
    story.settle()
    unnamed = replace(MAP, incarnation=0)
    story.attempt(1, context=unnamed, start_ns=NOW + 9 * SECOND)
    story.attempt(2, context=unnamed, start_ns=NOW + 11 * SECOND)
    story.attempt(3, context=unnamed, start_ns=NOW + 9 * SECOND)
    job = story.fold_round().only
    assert job.key.incarnation == NOW + 11 * SECOND
    assert job.seen == 2
    assert story.fold.own.late == {"attempt": 1}


def test_the_run_that_ended_last_closes_the_door() -> None:
    """Whichever run is judged last, what an unknown incarnation did before the latest end is late."""
    story = Story()
    runs = [replace(JOB, incarnation=NOW + number) for number in range(2)]
    for run, end in zip(runs, (NOW + 50 * SECOND, NOW + 20 * SECOND), strict=True):
        story.job(JobEvent.START, run)
        story.job(JobEvent.END, run, outcome=JobOutcome.SUCCESS, time_ns=end)
        story.job(JobEvent.SETTLED, run)
        story.fold_round(30)
    story.attempt(1, context=replace(MAP, incarnation=0), start_ns=NOW + 40 * SECOND)
    story.fold_round()
    assert story.fold.own.late == {"attempt": 1}


def test_a_start_adopts_a_job_that_was_opened_without_incarnation() -> None:
    """Workers whose records came before the coordinator's belong to its job."""
    story = Story()
    story.attempt(1, context=replace(MAP, incarnation=0))
    story.fold_round()
    story.job(JobEvent.START, time_ns=NOW)
    story.attempt(2)
    job = story.fold_round().only
    assert not job.implicit
    assert job.committed == 2
    assert job.aliases == [JOB.incarnation]


@pytest.mark.parametrize(("after", "jobs"), [(30, 1), (90, 2)])
def test_an_orphaned_job_can_be_resumed_within_its_lease(after: int, jobs: int) -> None:
    """A start within the lease goes on with the job; a later one is another incarnation."""
    story = Story()
    story.job(JobEvent.START, lease_ns=60 * SECOND)
    story.job(JobEvent.ORPHANED)
    story.fold_round(after)
    story.job(JobEvent.START, replace(JOB, incarnation=story.now))
    story.fold_round()
    assert len(story.fold.running) == jobs
    if jobs == 1:
        assert story.only.orphaned_ns == 0
        assert story.only.start_ns == NOW


def test_a_death_is_seen_before_the_start_that_resumes_its_job() -> None:
    """Whatever the order of the journals in a round, the one that tells of a death is read first."""
    story, other = Story(), FakeJournal("1" * 32)
    story.job(JobEvent.START)
    story.fold_round()
    story.job(JobEvent.ORPHANED)
    resumed = replace(JOB, incarnation=NOW + 5)
    other.append(JobRecord(JobEvent.START, other.context(resumed), NOW + 5))
    fold_all(story.fold, [other, story.journal], story.now)
    assert story.only.aliases == [NOW + 5]


def test_the_death_of_an_old_coordinator_does_not_orphan_a_resumed_job() -> None:
    """Only the journal of the newest start can orphan a job."""
    story, other = Story(), FakeJournal("1" * 32)
    story.job(JobEvent.START)
    story.fold_round()
    other.append(JobRecord(JobEvent.START, other.context(JOB), NOW + 1))
    fold_all(story.fold, [other], story.now)
    story.job(JobEvent.ORPHANED)
    story.fold_round()
    assert story.only.orphaned_ns == 0
    assert story.fold.own.late == {"job": 1}


def test_coordinated_jobs_decide_by_commit_alone() -> None:
    """A success does not decide a shard of a coordinated job; its commit does, once."""
    story = Story()
    story.job(JobEvent.START, coordinated=True)
    story.attempt(1)
    assert story.fold_round().only.committed == 0
    story.commit(1)
    story.commit(1, outcome=ShardOutcome.FAILED)
    job = story.fold_round().only
    assert job.stages["map"].shards == {ShardOutcome.COMMITTED: 1, ShardOutcome.FAILED: 0, ShardOutcome.LOST: 0}
    assert story.fold.own.late == {"commit": 1}


def test_the_duration_of_a_shard_begins_with_its_first_attempt() -> None:
    """Retries count into the duration; attempts after the decision do not."""
    story = Story()
    story.attempt(1, start_ns=NOW - 8 * SECOND, outcome=AttemptOutcome.FAILURE)
    story.attempt(1, 1, start_ns=NOW - 3 * SECOND)
    story.attempt(1, 2, start_ns=NOW - 20 * SECOND)
    story.fold_round()
    [totals] = story.fold.stages.values()
    assert totals.durations.sum_ns == 6 * SECOND
    assert totals.retries == 2


def test_a_commit_without_any_known_start_counts_but_has_no_duration() -> None:
    """M2 counts the shard; M3 cannot know how long it took."""
    story = Story()
    story.job(JobEvent.START, coordinated=True)
    story.commit(1)
    story.fold_round()
    [totals] = story.fold.stages.values()
    assert totals.shards[ShardOutcome.COMMITTED] == 1
    assert sum(totals.durations.counts) == 0


def test_a_split_shard_is_replaced_by_its_children() -> None:
    """The parent leaves the count, its later records decide nothing, and the children are planned."""
    story = Story()
    story.job(JobEvent.START)
    context_id = story.journal.context(MAP)
    story.journal.append(PlanRecord(context_id, NOW, 1))
    story.journal.append(PlanRecord(context_id, NOW, 2, parent_key=story.journal.shard("p")))
    for shard in ("p", "p/0", "p/1"):
        story.attempt(shard)
    job = story.fold_round().only
    assert (job.planned, job.seen, job.committed) == (2, 2, 2)


def test_a_shard_that_is_decided_cannot_be_split_away() -> None:
    """A split that comes after the decision adds its children and leaves the parent."""
    story = Story()
    story.job(JobEvent.START)
    story.attempt("p")
    story.fold_round()
    story.journal.append(PlanRecord(story.journal.context(MAP), NOW, 2, parent_key=shard_key("p")))
    job = story.fold_round().only
    assert (job.planned, job.committed, job.stages["map"].split) == (2, 1, 0)


def test_what_is_undecided_at_the_end_is_failed_or_lost() -> None:
    """The last attempt says whose fault it was; planned shards that nobody saw are lost."""
    story = Story()
    story.job(JobEvent.START, coordinated=True)
    story.journal.append(PlanRecord(story.journal.context(MAP), NOW, 6))
    story.attempt(1, outcome=AttemptOutcome.FAILURE)
    story.attempt(2, outcome=AttemptOutcome.TIMEOUT)
    story.attempt(3, outcome=AttemptOutcome.ERROR)
    story.attempt(4)
    story.fold_round()
    decided = story.settle(JobOutcome.FAILURE)
    assert decided.shards == {ShardOutcome.COMMITTED: 0, ShardOutcome.FAILED: 2, ShardOutcome.LOST: 4}


def test_a_dispatched_attempt_without_record_vanished() -> None:
    """It counts as an error, and a shard whose last attempt vanished is lost, not failed."""
    story = Story()
    story.job(JobEvent.START, coordinated=True)
    story.dispatch(1)
    story.dispatch(1, 1)
    story.attempt(1, outcome=AttemptOutcome.FAILURE)
    story.fold_round()
    assert (story.only.dispatched, story.only.recorded) == (2, 1)
    decided = story.settle(JobOutcome.ERROR)
    assert decided.vanished == 1
    assert decided.stages["map"].attempts[AttemptOutcome.ERROR] == 1
    assert decided.shards[ShardOutcome.LOST] == 1
    [pipeline] = story.fold.pipelines.values()
    assert (pipeline.recorded, pipeline.dispatched) == (1, 2)


def test_what_comes_after_the_judgement_is_late_and_changes_nothing() -> None:
    """Each kind of record is set aside under its own name."""
    story = Story()
    story.job(JobEvent.START)
    story.fold_round()
    story.settle()
    before = dict(story.fold.stages)
    story.attempt(1)
    story.commit(1)
    story.dispatch(1)
    story.job(JobEvent.END, outcome=JobOutcome.ERROR)
    context_id = story.journal.context(MAP)
    story.journal.append(PlanRecord(context_id, NOW, 1))
    story.journal.append(DetailRecord(DetailKind.ACTIVITY, context_id, 1, 0, NOW, (("read", 5),)))
    story.fold_round()
    assert story.fold.own.late == {"attempt": 1, "commit": 1, "dispatch": 1, "job": 1, "plan": 1, "detail": 1}
    assert story.fold.stages == before
    assert not story.fold.running


def test_a_job_that_memory_forgot_is_looked_up() -> None:
    """The store is asked with the time of the round, so that a replay is told what was known then."""
    asked: list[tuple[JobKey, int]] = []

    def ended(key: JobKey, before_ns: int) -> EndedJob | None:
        asked.append((key, before_ns))
        return EndedJob(key, NOW - SECOND, NOW - SECOND)

    story = Story(Fold(FoldSettings(), PriceList(), ended=ended))
    story.attempt(1)
    story.fold_round()
    assert story.fold.own.late == {"attempt": 1}
    assert asked == [(JOB.job_key, NOW)]


def test_only_so_many_judged_jobs_are_remembered() -> None:
    """Memory does not grow with the number of jobs that have run."""
    story = Story(new_fold(FoldSettings(max_ended=10)))
    for number in range(50):
        context = Context("nightly", f"job-{number}", NOW)
        story.job(JobEvent.START, context)
        story.fold_round()
        story.settle(context=context)
    assert len(story.fold.dump_running()["shared"]) < 4000


def test_the_second_success_of_a_shard_is_speculation() -> None:
    """Money is useful once per shard; what failed is retry, what was preempted is its own kind."""
    story = Story(Fold(FoldSettings(), PriceList(NodePrice(3.6, 3.6))))
    story.attempt(1)
    story.attempt(1, 1, speculative=True)
    story.attempt(2, outcome=AttemptOutcome.SUPERSEDED)
    story.attempt(3, outcome=AttemptOutcome.PREEMPTED)
    story.attempt(4, outcome=AttemptOutcome.FAILURE)
    cost = story.fold_round().only.cost_pusd
    assert cost == {
        CostKind.USEFUL: SECOND, CostKind.SPECULATION: 2 * SECOND, CostKind.PREEMPTED: SECOND,
        CostKind.RETRY: SECOND, CostKind.IDLE: 0,
    }  # fmt: skip


def test_a_dedicated_worker_is_charged_for_its_idle_lanes() -> None:
    """Between two samples, what the lanes did not run is idle; attempts in flight count as running."""
    journal = FakeJournal(info=WorkerInfo("w", "n", dedicated=True, lanes=2))
    story = Story(Fold(FoldSettings(), PriceList(NodePrice(7.2, 7.2))), journal)
    context_id = journal.context(MAP)
    journal.append(SampleRecord(context_id, NOW, 0, 0, 0, 0, 0, 0, 2 * SECOND))
    story.attempt(1, duration_ns=5 * SECOND)
    story.attempt(99, context=replace(MAP, job_id="elsewhere"), duration_ns=2**62)
    journal.append(SampleRecord(context_id, NOW + 10 * SECOND, 0, 0, 0, 0, 0, 0, SECOND))
    story.fold_round()
    [pipeline] = [each for each in story.fold.pipelines.values() if each.cost_pusd[CostKind.IDLE]]
    assert pipeline.cost_pusd[CostKind.IDLE] == (2 * 10 - 5 - (1 - 2)) * SECOND
    assert story.fold.own.invalid == {"absurd_duration": 1}


def test_throttling_counts_once_for_workers_that_share_a_cgroup() -> None:
    """Two workers of one node with one limit report the same counter."""
    story = Story()
    journals = [FakeJournal(f"{n:032x}", WorkerInfo(f"w{n}", "n", pid=n)) for n in range(2)]
    for total in (10, 40):
        for journal in journals:
            journal.append(SampleRecord(journal.context(MAP), NOW + total, 0, 0, 0, 100, total * SECOND, 0, 0))
        fold_all(story.fold, journals, NOW + total)
    assert [each.throttled_ns for each in story.fold.pipelines.values()] == [30 * SECOND]


def test_network_errors_are_told_by_kind_or_as_unspecified() -> None:
    """What details explain is counted by kind, the rest of an attempt's total as unspecified; nothing twice."""
    story = Story()
    context_id = story.journal.context(MAP)
    kinds = (("reset", 2), ("dns", 1))
    story.journal.append(DetailRecord(DetailKind.NETWORK_ERROR, context_id, 1, 0, NOW - SECOND, kinds))
    story.fold_round()
    story.attempt(1, network_errors=5, start_ns=NOW - SECOND)
    story.attempt(2, network_errors=1)
    story.fold_round()
    [pipeline] = story.fold.pipelines.values()
    assert pipeline.network_errors == {"reset": 2, "dns": 1, "unspecified": 3}


def test_a_worker_that_died_counts_once_whoever_tells() -> None:
    """Its sealed attempts and its coordinator speak of the same death; one for want of memory is an OOM kill too."""
    story = Story()
    died = {"outcome": AttemptOutcome.ERROR, "reason": Reason.OOM_KILLED}
    story.attempt(1, **died)
    story.attempt(2, **died)
    story.fold_round()
    lost = WorkerRecord(WorkerEvent.LOST, NOW, story.journal.info, Reason.NODE_LOST)
    story.journal.append(lost)
    story.fold_round()
    assert story.fold.clusters["default"].workers_lost == {"oom_killed": 1}
    assert [each.oom_kills for each in story.fold.pipelines.values()] == [1]


def test_drops_are_counted_by_their_increase() -> None:
    """A journal says running totals; saying them again adds nothing."""
    story = Story()
    for count in (3, 3, 5):
        story.journal.append(DropRecord(NOW, {AttemptOutcome.SUCCESS: count}, count))
    story.fold_round()
    assert story.fold.own.dropped == {"attempt": 5, "other": 5}


def test_label_sets_beyond_the_caps_fold_into_other() -> None:
    """Pipelines, stages and kinds have caps; what passes them still counts, and says so."""
    story = Story(new_fold(FoldSettings(max_pipelines=2, max_stages=1, max_kinds=2)))
    for number in range(4):
        for stage in ("a", "b"):
            context = Context(f"p{number}", f"job-{number}", NOW, stage=stage)
            story.attempt(1, context=context)
            story.journal.append(
                *(
                    DetailRecord(DetailKind.ACTIVITY, story.journal.context(context), 1, 0, NOW, ((f"k{kind}", 7),))
                    for kind in range(4)
                )
            )
    story.fold_round()
    assert sorted({key.pipeline for key in story.fold.pipelines}) == [OTHER, "p0", "p1"]
    assert len(story.fold.stages) == 5
    assert sum(totals.attempts[AttemptOutcome.SUCCESS] for totals in story.fold.stages.values()) == 8
    assert all(sum(totals.activity_ns.values()) % 28 == 0 for totals in story.fold.stages.values())
    assert set(story.fold.own.series_folded) == {"pipeline", "stage", "activity"}


def test_sums_do_not_overflow() -> None:
    """However long attempts claim to have run, totals are exact."""
    story = Story(Fold(FoldSettings(), PriceList(NodePrice(1e6, 1e6))))
    longest = 10 * 365 * 86_400 * SECOND
    for shard in range(100):
        story.attempt(shard, start_ns=NOW - SECOND, duration_ns=longest, shuffle_read=2**53)
    story.fold_round()
    [totals] = story.fold.stages.values()
    assert totals.wall_ns == 100 * longest
    assert totals.shuffle_read == 100 * 2**53
    assert totals.durations.sum_ns == 100 * longest
    assert story.only.cost_pusd[CostKind.USEFUL] == 100 * 10**18


def test_garbage_is_counted_and_does_no_harm() -> None:
    """Random words, of known and of unknown kinds, never raise, and every record is counted exactly once."""
    rng = np.random.default_rng(7)
    story = Story()
    story.job(JobEvent.START)
    story.fold_round()
    rows = 3000
    words = rng.integers(1, 2**63, (rows, 12), dtype=np.uint64)
    words[:, 0] = (words[:, 0] & ~np.uint64(0xFF)) | rng.integers(0, 18, rows, dtype=np.uint64)
    mild = words[::2]
    mild[:, 1:] %= rng.integers(2, 2**40, mild[:, 1:].shape, dtype=np.uint64)
    mild[:, 1:] |= np.uint64(1)
    before = counted(story.fold)
    story.fold.round([Block("9" * 32, 0, 0, words)], story.now)
    padding = int(np.count_nonzero(words[:, 0] & np.uint64(0xFF) == 14))
    assert rows // 2 < counted(story.fold) - before <= rows - padding
    assert len(story.fold.running) == 1


def counted(fold: Fold) -> int:
    """Return how many records the fold has counted, each in one of three ways."""
    own = fold.own
    return sum(own.invalid.values()) + sum(own.late.values()) + sum(own.records.values())


TEN_CENTURIES = 10**12 * SECOND // 31


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (JobRecord(JobEvent.START, 1, 5), "absurd_time"),
        (JobRecord(JobEvent.START, 1, NOW, submit_ns=5), "absurd_time"),
        (JobRecord(JobEvent.START, 1, NOW, deadline_ns=NOW + TEN_CENTURIES), "absurd_time"),
        (JobRecord(JobEvent.START, 1, NOW, lease_ns=TEN_CENTURIES), "absurd_duration"),
        (JobRecord(JobEvent.END, 1, NOW), "unknown_code"),
        (JobRecord(JobEvent.SETTLED, 1, NOW), "unended_job"),
        (JobRecord(JobEvent.CHECKPOINT, 99, NOW), "unknown_context"),
        (PlanRecord(1, NOW, 2**50), "absurd_amount"),
        (PlanRecord(1, NOW + 2 * 86_400 * SECOND, 1), "absurd_time"),
        (SampleRecord(1, NOW, 2**63, 0, 0, 0, 0, 0, 0), "absurd_duration"),
        (SampleRecord(1, NOW, 0, 2**61, 0, 0, 0, 0, 0), "absurd_amount"),
        (EndRecord(5, sealed=False), "absurd_time"),
        (CommitRecord(1, 1, 0, ShardOutcome.COMMITTED, NOW, first_start_ns=5), "absurd_time"),
        (CommitRecord(1, 1, 0, ShardOutcome.COMMITTED, NOW, output_rows=2**60), "absurd_amount"),
        (DispatchRecord(1, 1, 0, NOW, input_bytes=2**60), "absurd_amount"),
        (DetailRecord(DetailKind.ACTIVITY, 1, 1, 0, NOW, (("read", TEN_CENTURIES),)), "absurd_amount"),
        (AttemptRecord(1, 1, 0, AttemptOutcome.SUCCESS, NOW, 1, delay_ns=TEN_CENTURIES), "absurd_duration"),
    ],
)
def test_nonsense_is_counted_by_reason_and_nowhere_else(record: Record, reason: str) -> None:
    """A record that no sane writer writes changes one count."""
    story = Story()
    story.job(JobEvent.START)
    story.fold_round()
    before = story.fold.dump_running(), dict(story.fold.own.records)
    story.journal.append(record)
    story.fold_round()
    assert story.fold.own.invalid == {reason: 1}
    after = {name: count for name, count in story.fold.own.records.items() if name != "text"}
    assert after == {name: count for name, count in before[1].items() if name != "text"}
    assert story.fold.dump_running() == before[0]


def test_clusters_beyond_their_cap_fold_into_other() -> None:
    """Lost workers of too many clusters still count."""
    story = Story(new_fold(FoldSettings(max_clusters=2)))
    for number in range(4):
        story.journal.context(replace(MAP, cluster=f"c{number}"))
        lost = WorkerRecord(WorkerEvent.LOST, NOW, WorkerInfo(f"w{number}"))
        story.journal.append(lost)
    story.fold_round()
    assert {name: sum(each.workers_lost.values()) for name, each in story.fold.clusters.items()} == {
        "c0": 1, "c1": 1, OTHER: 2,
    }  # fmt: skip


def test_failed_retried_and_slow_attempts_are_all_kept() -> None:
    """Of 2,000 shards, 20 that failed and 30 that were slow are there, and a sample of the rest."""
    story = Story()
    for shard in range(2000):
        slow = shard % 67 == 0
        if shard % 100 == 50:
            story.attempt(shard, outcome=AttemptOutcome.FAILURE, error_type="KeyError")
        story.attempt(shard, shard % 100 == 50, duration_ns=(100 if slow else 1) * SECOND + shard)
    story.fold_round()
    kept = story.settle().kept
    assert sum(each.record.outcome is AttemptOutcome.FAILURE for each in kept) == 20
    assert sum(each.record.duration_ns > 50 * SECOND for each in kept) == 30
    assert all(each.record.error_type == "KeyError" for each in kept if each.record.outcome is AttemptOutcome.FAILURE)
    assert 200 <= len(kept) <= 20 + 20 + 50 + 200
    assert len({(each.shard, each.record.attempt) for each in kept}) == len(kept)


def test_what_is_kept_has_a_cap_that_says_what_it_left_out() -> None:
    """A job with a million failures keeps the first thousand and counts the rest."""
    settings = FoldSettings(keep=KeepSettings(notable=5, slowest=0, sample=0))
    story = Story(new_fold(settings))
    for shard in range(12):
        story.attempt(shard, outcome=AttemptOutcome.FAILURE)
    story.fold_round()
    decided = story.settle(JobOutcome.FAILURE)
    assert (len(decided.kept), decided.kept_dropped) == (5, 7)


def test_names_of_shards_come_along() -> None:
    """Long and short names are those that were given; a shard whose name never came is shown by its key."""
    story = Story()
    names = ["part-1", "ä" * 40, "x" * 300, "🙂"]
    for name in names:
        story.attempt(name)
    story.journal.append(
        AttemptRecord(story.journal.context(MAP), shard_key("never said"), 0, AttemptOutcome.SUCCESS, NOW, 1)
    )
    story.fold_round()
    shards = story.settle().stages["map"].columns().shards()
    assert set(names) <= set(shards)
    assert f"{shard_key('never said'):x}" in shards


def test_a_journal_that_ended_is_forgotten() -> None:
    """Its contexts go with it."""
    story = Story()
    story.attempt(1)
    story.fold_round()
    journal = story.journal.uuid
    assert story.fold.resolve(journal, 1) == MAP
    assert story.fold.worker(journal) == story.journal.info
    story.journal.append(EndRecord(NOW, sealed=False))
    story.fold_round()
    assert story.fold.resolve(journal, 1) is None
    assert story.fold.worker(journal) is None


def test_a_slot_may_name_a_context_of_the_segment_before() -> None:
    """What took its slot before the segment was full is still resolved, and its worker known."""
    story = Story()
    story.attempt(1)
    story.fold_round()
    texts = FakeJournal(info=WorkerInfo("")).take().words[:0]
    story.fold.round([Block(story.journal.uuid, 1, 0, texts)], story.now)
    assert story.fold.resolve(story.journal.uuid, 1) == MAP
    assert story.fold.worker(story.journal.uuid) == story.journal.info
    assert story.fold.cluster(story.journal.uuid) == MAP.cluster


def test_a_checkpoint_that_is_none_is_refused() -> None:
    """Whatever is not what `dump_running` returned raises, and says so."""
    for parts in ({}, {"shared": b"[]"}, {"shared": b'{"version": 99}'}, {"shared": b"\xff"}):
        with pytest.raises(JournalError):
            new_fold().load_running(parts)


def test_memory_goes_back_when_a_job_is_judged() -> None:
    """Nothing of a settled job stays but its name."""
    story = Story()
    story.job(JobEvent.START, coordinated=True)
    story.journal.done_at_once(story.journal.context(MAP), 0, 20_000, NOW)
    story.fold_round()
    assert story.only.committed == 20_000
    story.settle()
    assert sum(map(len, story.fold.dump_running().values())) < 2000
