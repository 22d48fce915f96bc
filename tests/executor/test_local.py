"""Worker processes and their pipes: what can break, and what it breaks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.backends.base import Down, Ended, News, Started, Up, WorkersBrokenError
from mppobs.executor.backends.local import LocalBackend
from mppobs.executor.backends.wire import Inbox, Outbox, frame
from mppobs.executor.backends.worker import pack_report, unpack_report
from mppobs.executor.events import AttemptId
from mppobs.executor.shuffle import Output
from mppobs.model import AttemptOutcome, Reason


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    """Return one worker that is not started."""
    made = LocalBackend(1, {"directory": tmp_path / "journal"}, "w")
    yield made
    made.close()


def until(backend: LocalBackend, done: Callable[[list[News]], bool]) -> list[News]:
    """Gather news until there is what a test waits for."""
    news: list[News] = []
    deadline = time.monotonic() + 20
    while not done(news):
        assert time.monotonic() < deadline, news
        news += backend.poll(0.1)
    return news


def stage(what: object, root: Path) -> StageOrder:
    """Return a stage whose task returns a value."""
    task = "tests.executor.tasks:value"
    context = {"mppobs-pipeline": "p", "mppobs-job-id": "j"}
    return StageOrder("j", root, 0, "only", task, "", {"what": what}, {}, False, (), 1, "none", context)


def test_attempts_run_in_the_order_in_which_they_were_given(backend: LocalBackend, tmp_path: Path) -> None:
    """One worker begins an attempt when the one before has ended, and tells both."""
    backend.start()
    until(backend, lambda news: Up("w-1") in news)
    for shard in range(3):
        order = AttemptOrder(shard, shard, 0, None, time.time_ns())
        backend.submit("w-1", AttemptId("j", 0, shard, 0), stage("x" * 100_000, tmp_path), order)
    news = until(backend, lambda news: sum(isinstance(each, Ended) for each in news) == 3)
    told = [(type(each), each.attempt.shard) for each in news if isinstance(each, Started | Ended)]
    assert told == [(kind, shard) for shard in range(3) for kind in (Started, Ended)]
    assert all(each.report.outcome is AttemptOutcome.SUCCESS for each in news if isinstance(each, Ended))


def test_large_orders_do_not_block(backend: LocalBackend, tmp_path: Path) -> None:
    """Orders far larger than a pipe holds go out while the worker is busy, without anybody waiting."""
    backend.start()
    until(backend, lambda news: Up("w-1") in news)
    big = {"what": "y", "padding": b"x" * 3_000_000}
    began = time.monotonic()
    for shard in range(5):
        order = AttemptOrder(shard, shard, 0, big, 0)
        backend.submit("w-1", AttemptId("j", 0, shard, 0), stage("z", tmp_path), order)
    assert time.monotonic() - began < 2
    until(backend, lambda news: sum(isinstance(each, Ended) for each in news) == 5)


def test_what_a_worker_said_before_it_died_is_heard(backend: LocalBackend, tmp_path: Path) -> None:
    """The death of a worker comes after all that it reported, and another one comes up."""
    backend.start()
    until(backend, lambda news: Up("w-1") in news)
    attempt = AttemptId("j", 0, 0, 0)
    backend.submit("w-1", attempt, stage(1, tmp_path), AttemptOrder(0, 0, 0, None, 0))
    backend.poll(0)
    time.sleep(0.5)
    os.kill(backend.pids["w-1"], 9)
    time.sleep(0.3)
    news = until(backend, lambda news: Up("w-2") in news)
    assert [type(each) for each in news] == [Started, Ended, Down, Up]
    assert Down("w-1", Reason.WORKER_LOST) in news
    backend.submit("w-1", attempt, stage(1, tmp_path), AttemptOrder(0, 0, 0, None, 0))
    backend.stop(attempt, AttemptOutcome.CANCELLED)
    assert backend.poll(0.1) == []


def test_workers_that_never_get_ready_are_an_error() -> None:
    """Where processes die at their start, it is said and not tried for ever."""
    backend = LocalBackend(1, {"lanes": -1}, "w")
    backend.start()
    with pytest.raises(WorkersBrokenError, match="3 worker processes in a row"):
        until(backend, lambda news: False)
    backend.close()


def test_reports_survive_the_way() -> None:
    """A report with everything in it comes back as it was."""
    report = Report(AttemptOutcome.ERROR, Reason.STORAGE, "T", "m", 5, True, True, 7, Output(1, 2, (3, 4)), b"v", 9)
    for sent in (report, Report(AttemptOutcome.SUCCESS)):
        (message,) = Inbox(-1).take(frame(pack_report(3, sent)))
        assert unpack_report(message) == sent


def test_frames_may_come_in_any_pieces() -> None:
    """Messages come out whole and in order, wherever the bytes were cut."""
    data = b"".join(frame(number) for number in range(20))
    for step in (1, 3, 7, len(data)):
        inbox = Inbox(-1)
        found = [message for at in range(0, len(data), step) for message in inbox.take(data[at : at + step])]
        assert found == list(range(20))


def test_a_full_pipe_keeps_what_it_cannot_take() -> None:
    """Writing never waits: what has no room goes out later, in order."""
    reading, writing = os.pipe()
    outbox, inbox = Outbox(writing), Inbox(reading)
    outbox.put(frame("x" * 300_000) + frame("end"))
    found = []
    while "end" not in found:
        full = not outbox.flush()
        found += list(inbox.read())
        assert full or found
    os.close(reading)
    outbox.put(b"to nobody")
    assert outbox.flush()
    os.close(writing)
