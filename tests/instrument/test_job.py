"""`mppobs.job`: a run's life, and what its coordinator says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

import mppobs
from mppobs.errors import ConfigError
from mppobs.journal.format import shard_key
from mppobs.journal.reader import read_slots, scan
from mppobs.model import (
    AttemptOutcome,
    CommitRecord,
    DispatchRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    PlanRecord,
    Reason,
    RunKind,
    ShardOutcome,
    Tier,
    WorkerEvent,
    WorkerRecord,
)
from mppobs.testing import Captured


def test_a_job_starts_and_ends_with_all_that_it_was_told(captured: Captured) -> None:
    """Start and end, lease and deadline, submission and owner are in its records."""
    submitted = datetime.now(UTC) - timedelta(seconds=30)
    with mppobs.job(
        pipeline="nightly",
        job_id="n-1",
        tenant="ads",
        owner="team-a",
        tier="critical",
        run_kind="backfill",
        deadline=3600,
        submitted=submitted,
        lease=90,
        coordinated=True,
    ) as run:
        assert (run.pipeline, run.job_id) == ("nightly", "n-1")

    start, end = captured.jobs
    context = captured.context(start)
    assert (start.event, end.event, end.outcome) == (JobEvent.START, JobEvent.END, JobOutcome.SUCCESS)
    assert (start.lease_ns, start.coordinated) == (90 * 10**9, True)
    assert start.submit_ns == round(submitted.timestamp() * 1e9)
    assert start.deadline_ns == context.deadline_ns == start.time_ns + 3600 * 10**9
    assert (context.tenant, context.owner, context.tier, context.run_kind) == (
        "ads", "team-a", Tier.CRITICAL, RunKind.BACKFILL,
    )  # fmt: skip
    assert (context.stage, context.incarnation) == ("", start.time_ns)
    assert start.time_ns <= end.time_ns <= time.time_ns()


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [(60, 60), (0.5, 0.5), ("1h30m", 5400), (timedelta(minutes=2), 120), (datetime(2100, 1, 1, tzinfo=UTC), None)],
)
def test_deadlines_are_spans_or_moments(
    captured: Captured, deadline: float | str | timedelta | datetime, seconds: float | None
) -> None:
    """Numbers and spans count from the start, an aware moment is itself."""
    with mppobs.job(pipeline="p", deadline=deadline):
        pass

    start = captured.jobs[0]
    expected = 4102444800 * 10**9 if seconds is None else start.time_ns + round(seconds * 10**9)
    assert start.deadline_ns == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"deadline": -1},
        {"deadline": datetime(2100, 1, 1)},  # noqa: DTZ001
        {"deadline": "soon"},
        {"submitted": datetime(2020, 1, 1)},  # noqa: DTZ001
        {"tier": "gold"},
        {"run_kind": "x"},
    ],
)
def test_arguments_without_meaning_are_errors(arguments: dict[str, object]) -> None:
    """A job that is set up wrongly says so where it is set up."""
    with pytest.raises(ConfigError, match="job"):
        mppobs.job(**arguments)  # type: ignore[call-overload]


def test_each_call_of_a_decorated_function_is_a_run_of_its_own(captured: Captured) -> None:
    """The pipeline takes the function's name, and every run a name that no other has."""

    @mppobs.job
    def nightly() -> str:
        with mppobs.attempt(stage="s", shard=1):
            pass
        return "done"

    assert [nightly(), nightly()] == ["done", "done"]

    starts = [captured.context(record) for record in captured.jobs if record.event is JobEvent.START]
    assert {context.pipeline for context in starts} == {"nightly"}
    assert len({context.job_id for context in starts}) == 2
    assert [captured.context(record).job_id for record in captured.attempts] == [context.job_id for context in starts]


def test_jobs_can_be_functions_of_every_kind(captured: Captured) -> None:
    """Coroutines and generators are jobs too, current only while their bodies run."""

    @mppobs.job(pipeline="coroutine")
    async def run() -> int:
        await asyncio.sleep(0)
        return 1

    @mppobs.job(pipeline="generator")
    def rows() -> Iterator[str]:
        yield mppobs.inject()["mppobs-pipeline"]

    @mppobs.job(pipeline="stream")
    async def pages() -> AsyncIterator[str]:
        yield mppobs.inject()["mppobs-pipeline"]

    async def main() -> list[str]:
        assert await run() == 1
        async with mppobs.job(pipeline="scope"):
            pass
        return [page async for page in pages()]

    outside = mppobs.inject()["mppobs-pipeline"]
    stepping = rows()
    assert next(stepping) == "generator"
    assert mppobs.inject()["mppobs-pipeline"] == "generator"  # the only open job of the process
    assert list(stepping) == []
    assert mppobs.inject()["mppobs-pipeline"] == outside
    assert asyncio.run(main()) == ["stream"]
    ends = [captured.context(record).pipeline for record in captured.jobs if record.event is JobEvent.END]
    assert ends == ["generator", "coroutine", "scope", "stream"]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (KeyError(1), JobOutcome.FAILURE, Reason.EXCEPTION),
        (ConnectionResetError(), JobOutcome.ERROR, Reason.NETWORK),
        (KeyboardInterrupt(), JobOutcome.CANCELLED, Reason.SHUTDOWN),
    ],
)
def test_a_job_ends_as_its_exception_says(
    captured: Captured, error: BaseException, outcome: JobOutcome, reason: Reason
) -> None:
    """Failure is the work's fault, error the platform's, for jobs as for attempts."""
    with pytest.raises(type(error)), mppobs.job(pipeline="p"):
        raise error

    end = captured.jobs[-1]
    assert (end.outcome, end.reason, end.error_type) == (outcome, reason, type(error).__name__)


def test_a_job_can_say_how_it_ends(captured: Captured) -> None:
    """A coordinator that knows better than the return of its code says so."""
    with mppobs.job(pipeline="p") as run:
        run.end_as("error", reason="retries_exhausted")

    assert (captured.jobs[-1].outcome, captured.jobs[-1].reason) == (JobOutcome.ERROR, Reason.RETRIES_EXHAUSTED)


def test_a_coordinator_writes_its_records(captured: Captured) -> None:
    """Plan, split, dispatch, commit, heartbeat, checkpoint and workers come back as they were said."""
    with mppobs.job(pipeline="p", job_id="j", coordinated=True) as run:
        run.plan("map", ["a", "b"], final=False, input_bytes=10)
        run.plan("map", 3)
        run.split("map", "a", 4)
        carrier = run.dispatch("map", "b", 2, worker="w1", speculative=True, input_bytes=7)
        run.commit("map", "b", 2, first_start_ns=5, output_bytes=6, output_rows=7)
        run.commit("map", 9, outcome="failed", reason="retries_exhausted", error_type="KeyError")
        run.heartbeat(pending_shards=3, busy_workers=2)
        run.worker("w1", "lost", node="n1", reason="node_lost")
        run.checkpoint()

    plans = captured.of(PlanRecord)
    assert [(plan.added, plan.final, plan.input_bytes, plan.parent_key) for plan in plans] == [
        (2, False, 10, None), (3, True, 0, None), (4, False, 0, shard_key("a")),
    ]  # fmt: skip
    (dispatch,) = captured.of(DispatchRecord)
    assert (dispatch.shard_key, dispatch.attempt, dispatch.worker) == (shard_key("b"), 2, "w1")
    assert dispatch.speculative
    first, second = captured.of(CommitRecord)
    assert (first.outcome, first.output_bytes, first.output_rows) == (ShardOutcome.COMMITTED, 6, 7)
    assert (second.shard_key, second.outcome, second.error_type) == (9, ShardOutcome.FAILED, "KeyError")
    (beat,) = captured.of(HeartbeatRecord)
    assert (beat.running_jobs, beat.pending_shards, beat.busy_workers) == (1, 3, 2)
    lost = captured.of(WorkerRecord)[-1]
    assert (lost.event, lost.info.worker, lost.info.node, lost.reason) == (
        WorkerEvent.LOST, "w1", "n1", Reason.NODE_LOST,
    )  # fmt: skip
    assert [record.event for record in captured.jobs] == [JobEvent.START, JobEvent.CHECKPOINT, JobEvent.END]
    assert captured.shard_names() == {shard_key("a"): "a", shard_key("b"): "b"}
    assert (carrier["mppobs-job-id"], carrier["mppobs-attempt"]) == ("j", "2")
    assert int(carrier["mppobs-assigned-ns"]) == dispatch.time_ns


def test_a_running_job_is_in_a_slot(captured: Captured) -> None:
    """While it runs a reader sees the job and its last checkpoint; after the end it does not."""

    def jobs() -> list[int]:
        heads = [files.head for files in scan(captured.directory) if files.head]
        return [slot.checkpoint_ns for head in heads for slot in read_slots(head) if slot.is_job]

    with mppobs.job(pipeline="p") as run:
        assert jobs() == [0]
        run.checkpoint()
        assert jobs()[0] > 0
    assert jobs() == []


def test_jobs_nest_and_stand_side_by_side(captured: Captured) -> None:
    """An attempt belongs to the innermost job of its own code."""

    async def one(name: str) -> None:
        async with mppobs.job(pipeline=name):
            await asyncio.sleep(0.01)
            with mppobs.attempt(stage="s", shard=name):
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(one("a"), one("b"))

    asyncio.run(main())
    with mppobs.job(pipeline="outer"):
        with mppobs.job(pipeline="inner"), mppobs.attempt(stage="s", shard="inner"):
            pass
        with mppobs.attempt(stage="s", shard="outer"):
            pass

    names = captured.shard_names()
    for record in captured.attempts:
        assert captured.context(record).pipeline == names[record.shard_key]
        assert record.outcome is AttemptOutcome.SUCCESS
