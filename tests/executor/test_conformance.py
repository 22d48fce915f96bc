"""
What every backend must do, the same tests on each. Where one differs, its capability flags say so, and are believed.

Engines are started once; a test that kills a worker waits for another one to come.
"""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from mppobs.executor.backends.base import Down, Draining, Ended, Progress, Started, UnsupportedError
from mppobs.executor.events import AttemptId
from mppobs.model import AttemptOutcome, Reason
from tests.executor.rig import JobOnRig, Rig, on_every_backend


@on_every_backend()
def test_workers_come_up_by_name(rig: Rig) -> None:
    """As many workers as there are to be, each with a name of its own and a place."""
    places = rig.backend.places

    assert rig.backend.size == len(places) == 2
    assert all(place.node for place in places.values()) or rig.kind == "local"


@on_every_backend()
def test_a_worker_runs_what_it_is_given_in_that_order(rig: Rig, tmp_path: Path) -> None:
    """Each attempt is told of twice, its begin and its end, with its worker and what it returned; one after another."""
    job = JobOnRig(rig, tmp_path, what="v" * 1000)
    worker = min(rig.backend.places)
    attempts = [job.give(worker, shard) for shard in range(4)]

    ended = rig.ended(*attempts)

    assert [pickle.loads(news.report.value) for news in ended] == ["v" * 1000] * 4
    told = [(type(news), news.attempt) for news in rig.heard if isinstance(news, Started | Ended)]
    assert told == [(kind, attempt) for attempt in attempts for kind in (Started, Ended)]
    assert {news.worker for news in rig.of(Started)} == {worker}


@on_every_backend()
def test_each_attempt_is_recorded_by_its_worker(rig: Rig, tmp_path: Path) -> None:
    """One record for each attempt, in the journal of the worker that made it, with the outcome that was reported."""
    job = JobOnRig(rig, tmp_path, "tasks:throttled")
    workers = sorted(rig.backend.places)
    attempts = [job.give(worker, shard, number) for shard, worker in enumerate(workers) for number in (0, 1)]

    outcomes = [news.report.outcome for news in rig.ended(*attempts)]

    assert outcomes == [AttemptOutcome.ERROR, AttemptOutcome.SUCCESS] * 2
    records = job.records()
    if rig.backend.capabilities.virtual_time:  # one process is all of them
        assert len(records) == 1
    else:
        assert sorted(records) == workers
    found = sorted((r.shard_key, r.attempt, r.outcome) for made in records.values() for r in made)
    assert found == sorted((a.shard, a.number, outcome) for a, outcome in zip(attempts, outcomes, strict=True))


@on_every_backend()
@pytest.mark.parametrize(
    ("what", "outcome", "permanent"),
    [("unsendable", AttemptOutcome.FAILURE, True), (None, AttemptOutcome.SUCCESS, False)],
)
def test_reports_say_the_same_everywhere(
    rig: Rig, tmp_path: Path, what: str | None, outcome: AttemptOutcome, permanent: bool
) -> None:
    """How an attempt ended does not depend on where it ran."""
    job = JobOnRig(rig, tmp_path, what=what)

    (ended,) = rig.ended(job.give(min(rig.backend.places), 0))

    assert (ended.report.outcome, ended.report.permanent) == (outcome, permanent)
    assert ended.report.duration_ns > 0


@on_every_backend()
def test_large_orders_and_values_do_not_block(rig: Rig, tmp_path: Path) -> None:
    """Megabytes go out and come back while others wait for nothing."""
    job = JobOnRig(rig, tmp_path)
    worker = min(rig.backend.places)
    began = time.monotonic()
    attempts = [job.give(worker, shard, what=b"x" * 2_000_000) for shard in range(3)]

    assert time.monotonic() - began < 5
    assert [len(pickle.loads(news.report.value)) for news in rig.ended(*attempts)] == [2_000_000] * 3


@on_every_backend()
def test_progress_is_told(rig: Rig, tmp_path: Path) -> None:
    """Where it can be, what a running task says of how far it is comes as news, before its end."""
    assert rig.backend.capabilities.progress, "every backend so far"
    job = JobOnRig(rig, tmp_path, "lingering:linger", seconds=3.0, mark=str(tmp_path / "mark"))
    attempt = job.give(min(rig.backend.places), 0)

    rig.ended(attempt)

    ratios = [news.ratio for news in rig.of(Progress) if news.attempt == attempt]
    # The simulated world tells only of attempts that take more than twice their time.
    assert ratios or rig.backend.capabilities.virtual_time
    assert all(0 <= ratio <= 1 for ratio in ratios)


@on_every_backend()
@pytest.mark.parametrize("outcome", [AttemptOutcome.TIMEOUT, AttemptOutcome.SUPERSEDED])
def test_a_running_attempt_is_stopped(rig: Rig, tmp_path: Path, outcome: AttemptOutcome) -> None:
    """It ends soon and as told; its worker goes on only where that is declared."""
    job = JobOnRig(rig, tmp_path, "lingering:linger", seconds=50.0, mark=str(tmp_path / "mark"))
    worker = min(rig.backend.places)
    attempt = job.give(worker, 0)
    rig.started(attempt)
    rig.poll_for(0.3)

    rig.backend.stop(attempt, outcome)
    (ended,) = rig.ended(attempt)

    assert ended.report.outcome is outcome
    if rig.backend.capabilities.survives_stop:
        rig.poll_for(0.2)
        assert rig.of(Down) == []
        assert pickle.loads(rig.ended(JobOnRig(rig, tmp_path, what=1).give(worker, 0))[0].report.value) == 1
    elif rig.backend.capabilities.replaces and not rig.backend.capabilities.virtual_time:
        rig.until(lambda: Down(worker, Reason.SHUTDOWN) in rig.heard, "the end of the worker")


@on_every_backend()
def test_an_attempt_that_waits_is_stopped_before_its_task_is_called(rig: Rig, tmp_path: Path) -> None:
    """What has not begun ends as told, when its turn comes at the latest, and its task is never called."""
    first = JobOnRig(rig, tmp_path, "lingering:linger", seconds=0.5, mark=str(tmp_path / "first"))
    second = JobOnRig(rig, tmp_path, "lingering:linger", seconds=0.5, mark=str(tmp_path / "second"))
    worker = min(rig.backend.places)
    running, waiting = first.give(worker, 0), second.give(worker, 0)
    rig.started(running)

    rig.backend.stop(waiting, AttemptOutcome.CANCELLED)
    ended = rig.ended(running, waiting)

    assert [news.report.outcome for news in ended] == [AttemptOutcome.SUCCESS, AttemptOutcome.CANCELLED]
    assert not (tmp_path / "second").exists()


@on_every_backend("local", "dask", "ray")
def test_what_does_not_stop_is_killed(rig: Rig, tmp_path: Path) -> None:
    """A task that survives the request is ended with its worker, and another worker comes."""
    job = JobOnRig(rig, tmp_path, "lingering:persist", seconds=50.0)
    worker = min(rig.backend.places)
    attempt = job.give(worker, 0)
    rig.started(attempt)
    rig.poll_for(0.2)

    rig.backend.stop(attempt, AttemptOutcome.TIMEOUT)
    rig.until(lambda: Down(worker, Reason.SHUTDOWN) in rig.heard, "the end of the worker")

    assert rig.of(Ended) == []
    assert worker not in rig.wait_for_workers(2)


@on_every_backend()
def test_a_worker_is_killed_alone(rig: Rig, tmp_path: Path) -> None:
    """Its attempts end without a word, the others' go on; what is said to it afterwards is lost; another one comes."""
    assert rig.backend.capabilities.kill_one
    job = JobOnRig(rig, tmp_path, "lingering:linger", seconds=1.5, mark=str(tmp_path / "mark"))
    victim, other = sorted(rig.backend.places)
    lost, kept, queued = job.give(victim, 0), job.give(other, 1), job.give(victim, 2)
    rig.started(lost)
    rig.started(kept)

    rig.backend.kill(victim, Reason.NODE_LOST)
    rig.until(lambda: Down(victim, Reason.NODE_LOST) in rig.heard, "the death of the worker")
    rig.backend.stop(lost, AttemptOutcome.CANCELLED)
    late = job.give(victim, 3)
    rig.ended(kept)

    assert {news.attempt for news in rig.of(Ended)} == {kept}
    assert {news.attempt for news in rig.of(Started)} == {lost, kept}
    assert victim not in rig.wait_for_workers(2)
    assert not {lost, queued, late} & {news.attempt for news in rig.of(Ended)}
    assert [record.shard_key for record in job.records().get(other, [])] == [1] or rig.kind == "sim"


@on_every_backend("local", "sim", "ray")
def test_a_node_stays_away_for_as_long_as_told(rig: Rig) -> None:
    """The replacement of a worker that is killed for a while comes no sooner."""
    victim = min(rig.backend.places)

    rig.backend.kill(victim, Reason.NODE_LOST, away=4.0)
    rig.poll_for(3.0)

    assert Down(victim, Reason.NODE_LOST) in rig.heard
    assert len(rig.backend.places) == 1
    rig.wait_for_workers(2)


@on_every_backend()
def test_an_eviction_has_its_notice(rig: Rig, tmp_path: Path) -> None:
    """First the notice, in which what runs may end, then the loss, as preempted."""
    assert rig.backend.capabilities.eviction
    job = JobOnRig(rig, tmp_path, what=1)
    victim = min(rig.backend.places)

    rig.backend.evict(victim, 1.0)
    rig.until(lambda: rig.of(Draining), "the notice")
    if not rig.backend.capabilities.virtual_time:  # whose shards take longer than the notice
        rig.ended(job.give(victim, 0))
    rig.until(lambda: rig.of(Down), "the eviction")

    assert rig.heard.index(Draining(victim)) < rig.heard.index(Down(victim, Reason.PREEMPTED))
    rig.wait_for_workers(2)


@on_every_backend()
def test_the_number_of_workers_can_change_or_is_refused(rig: Rig, tmp_path: Path) -> None:
    """More workers come, and those that are too many leave when they are idle; or it is said that this cannot be."""
    backend = rig.backend
    if not backend.capabilities.resize:
        with pytest.raises(UnsupportedError, match=f"the {rig.kind} backend has no resize"):
            backend.resize(3)
        return
    backend.resize(3)
    rig.wait_for_workers(3)
    assert backend.size == 3

    backend.resize(2)
    rig.wait_for_workers(2)

    assert len(rig.of(Draining)) == len(rig.of(Down)) == 1
    assert rig.of(Draining)[0].worker == rig.of(Down)[0].worker
    attempts = [JobOnRig(rig, tmp_path, what=1).give(worker, 0) for worker in rig.backend.places]
    assert all(news.report.outcome is AttemptOutcome.SUCCESS for news in rig.ended(*attempts))


@on_every_backend()
def test_what_is_not_known_is_no_matter(rig: Rig) -> None:
    """Requests about attempts, workers and jobs that are gone do nothing."""
    backend = rig.backend
    backend.stop(AttemptId("gone", 0, 0, 0), AttemptOutcome.CANCELLED)
    backend.kill("gone")
    backend.evict("gone", 0.0)
    backend.forget("gone")

    rig.poll_for(0.2)

    assert rig.of(Down) == rig.of(Draining) == []
