"""What the executor records: the coordinator's account and the workers' agree, however an attempt ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import mppobs
from mppobs.clock import SystemClock
from mppobs.executor import Executor, Limits, Plan, ShardPlan, Stage
from mppobs.executor.attempt import AttemptOrder, StageOrder, run_attempt
from mppobs.executor.files import JobFiles
from mppobs.journal.examine import records_of
from mppobs.journal.reader import scan
from mppobs.journal.seal import seal
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    ContextRecord,
    DispatchRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    ShardOutcome,
    WorkerEvent,
    WorkerRecord,
)
from mppobs.testing import Captured, capture

Named = tuple[Context, Record]
QUICK = Limits(backoff=0.01)


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


def sealed(directory: Path) -> list[Named]:
    """Return all records with their contexts, those included that a sealer adds to the journals of killed workers."""
    found: list[Named] = []
    for files in scan(directory):
        seal(files, clock=SystemClock(), oom_kills=None)
        contexts: dict[int, Context] = {}
        for record in (placed.record for placed in records_of(files)):
            if isinstance(record, ContextRecord):
                contexts[record.context_id] = record.context
            elif (number := getattr(record, "context_id", 0)) in contexts:
                found.append((contexts[number], record))
            elif isinstance(record, WorkerRecord):
                found.append((Context("", ""), record))
    return found


def of(kind: type, found: list[Named]) -> list[Named]:
    return [(context, record) for context, record in found if isinstance(record, kind)]


def attempts_of(kind: type, found: list[Named]) -> Counter[tuple[str, int, int]]:
    """Return how often each attempt has a record of a kind: stage, shard, number."""
    return Counter((context.stage, record.shard_key, record.attempt) for context, record in of(kind, found))  # type: ignore[union-attr]


def plan(**limits: float) -> Plan:
    return Plan(
        "pipe",
        (
            Stage(
                "map",
                "mppobs.executor.examples:split_words",
                tuple(ShardPlan(n, {"text": "a b c " * n}, input_bytes=n * 10) for n in range(6)),
                partition_by=("word",),
                partitions=3,
            ),
            Stage("reduce", "mppobs.executor.examples:count_words", reads=("map",)),
        ),
        job_id="pipe-1",
        tenant="t",
        owner="o",
        deadline=60.0,
    )


def test_plan_dispatch_attempt_and_commit_agree(captured: Captured, tmp_path: Path) -> None:
    """Each planned shard is dispatched, attempted and committed once, by records that name the same attempt."""
    with Executor(2, tmp_path) as executor:
        executor.run(plan()).check()
    found = sealed(captured.directory)
    everything = Counter({("map", n, 0): 1 for n in range(6)} | {("reduce", n, 0): 1 for n in range(3)})
    for kind in (DispatchRecord, AttemptRecord, CommitRecord):
        assert attempts_of(kind, found) == everything
    planned: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for context, record in of(PlanRecord, found):
        assert isinstance(record, PlanRecord)
        planned[context.stage] += record.added
        sizes[context.stage] += record.input_bytes
        assert record.final
    assert planned == {"map": 6, "reduce": 3}
    written = sum(record.shuffle_written for _, record in of(AttemptRecord, found))  # type: ignore[union-attr]
    read = sum(record.shuffle_read for _, record in of(AttemptRecord, found))  # type: ignore[union-attr]
    assert sizes == {"map": 150, "reduce": written}
    assert read == written > 0


def test_everything_is_part_of_one_job(captured: Captured, tmp_path: Path) -> None:
    """Coordinator and workers record under the same identity, which is the plan's."""
    with Executor(2, tmp_path) as executor:
        executor.run(plan()).check()
    contexts = {context for context, _ in sealed(captured.directory) if context.job_id}
    assert len({context.job_key for context in contexts}) == 1
    (one, *_) = contexts
    assert (one.pipeline, one.job_id, one.tenant, one.owner) == ("pipe", "pipe-1", "t", "o")
    assert {context.stage for context in contexts} == {"", "map", "reduce"}
    assert all(context.deadline_ns for context in contexts)


def test_the_job_is_coordinated_and_alive(captured: Captured, tmp_path: Path) -> None:
    """The job starts as one whose shards are decided by commits, beats at once, and ends with its outcome."""
    with Executor(2, tmp_path) as executor:
        executor.run(plan()).check()
        found = sealed(captured.directory)
    start, *_, end = (record for _, record in of(JobRecord, found))
    assert isinstance(start, JobRecord)
    assert isinstance(end, JobRecord)
    assert (start.event, start.coordinated) == (JobEvent.START, True)
    assert start.lease_ns >= 10**9
    assert (end.event, end.outcome) == (JobEvent.END, JobOutcome.SUCCESS)
    assert of(HeartbeatRecord, found)
    ups = [record for _, record in of(WorkerRecord, found) if record.event is WorkerEvent.UP]  # type: ignore[union-attr]
    assert len({record.info.worker for record in ups}) == 2  # type: ignore[union-attr]


def test_times_are_in_order(captured: Captured, tmp_path: Path) -> None:
    """Assignment, start and commit of a shard follow each other, and the delay is that from assignment to start."""
    with Executor(2, tmp_path) as executor:
        executor.run(plan()).check()
    found = sealed(captured.directory)
    attempts = {(c.stage, r.shard_key): r for c, r in of(AttemptRecord, found) if isinstance(r, AttemptRecord)}
    for context, record in of(CommitRecord, found):
        assert isinstance(record, CommitRecord)
        attempt = attempts[(context.stage, record.shard_key)]
        assert attempt.delay_ns is not None
        assert 0 <= attempt.delay_ns < 5 * 10**9
        assert abs(record.first_start_ns - attempt.start_ns) < 10**8
        assert attempt.start_ns + attempt.duration_ns <= record.time_ns
        assert record.outcome is ShardOutcome.COMMITTED
        assert record.output_bytes > 0


def test_killed_attempts_are_in_the_records(captured: Captured, tmp_path: Path) -> None:
    """Each attempt that died with its worker was dispatched, and is found as an error when the journal is sealed."""
    stage = Stage(
        "die",
        "tests.executor.tasks:die",
        tuple(ShardPlan(n) for n in range(4)),
        arguments={"survives": 2},
        limits=QUICK,
    )
    with Executor(2, tmp_path) as executor:
        executor.run(Plan("pipe", (stage,))).check()
    found = sealed(captured.directory)
    assert attempts_of(DispatchRecord, found) == attempts_of(AttemptRecord, found)
    lost = [
        r for _, r in of(AttemptRecord, found) if isinstance(r, AttemptRecord) and r.outcome is AttemptOutcome.ERROR
    ]
    assert {record.reason for record in lost} == {Reason.WORKER_LOST}
    assert Counter((record.shard_key, record.attempt) for record in lost) == {
        (s, a): 1 for s in range(4) for a in range(2)
    }
    workers = [r for _, r in of(WorkerRecord, found) if isinstance(r, WorkerRecord) and r.event is WorkerEvent.LOST]
    assert len(workers) == 8


def test_a_shard_that_is_given_up_is_decided(captured: Captured, tmp_path: Path) -> None:
    """The coordinator records the failure with its reason and the error's type; the other shard is left undecided."""
    stage = Stage(
        "only",
        "tests.executor.tasks:scripted",
        (ShardPlan("good"), ShardPlan("bad")),
        arguments={"directory": str(tmp_path), "script": {"bad": [-0.0] * 9, "good": [60.0]}},
        limits=QUICK,
    )
    with Executor(2, tmp_path / "exchange") as executor:
        result = executor.run(Plan("pipe", (stage,)))
    found = sealed(captured.directory)
    ((_, decided),) = of(CommitRecord, found)
    assert isinstance(decided, CommitRecord)
    assert (decided.outcome, decided.reason, decided.attempt) == (ShardOutcome.FAILED, Reason.RETRIES_EXHAUSTED, 3)
    assert decided.error_type == "mppobs.testing.ScriptedFailure"
    outcomes = Counter(r.outcome for _, r in of(AttemptRecord, found) if isinstance(r, AttemptRecord))
    assert outcomes == result.attempts == {AttemptOutcome.FAILURE: 4, AttemptOutcome.CANCELLED: 1}


def test_two_attempts_of_a_shard_leave_one_output(captured: Captured, tmp_path: Path) -> None:
    """Where two attempts run to the end, the first to commit wins and the other is recorded as superseded."""
    files = JobFiles(tmp_path / "job")
    files.prepare(1)
    task = "mppobs.executor.examples:split_words"
    stage = StageOrder("j", files.root, 0, "map", task, "", {"text": "a b"}, {}, True, (), 1, "lz4", {})
    reports = []
    with mppobs.job(pipeline="pipe"):
        for number in (1, 0):
            order = AttemptOrder(0, 0, number, None, 0)
            with mppobs.attempt(stage="map", shard=0, attempt=number) as attempt:
                reports.append(run_attempt(stage, order, attempt, lambda allowed: None))
    won, lost = reports
    assert (won.outcome, lost.outcome) == (AttemptOutcome.SUCCESS, AttemptOutcome.SUPERSEDED)
    assert won.output == lost.output
    assert won.output is not None
    assert won.output.attempt == 1
    assert [(r.attempt, r.outcome) for r in captured.attempts] == [
        (1, AttemptOutcome.SUCCESS),
        (0, AttemptOutcome.SUPERSEDED),
    ]
    assert captured.attempts[1].shuffle_written == 0
