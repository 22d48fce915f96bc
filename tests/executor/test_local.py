"""Worker processes and their pipes: what can break, and what it breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.backends.base import Down, Ended, News, Place, Started, Up, WorkersBrokenError
from mppobs.executor.backends.local import LocalBackend, Pool
from mppobs.executor.backends.recording import recording
from mppobs.executor.backends.wire import Inbox, Outbox, frame
from mppobs.executor.backends.worker import pack_report, unpack_report
from mppobs.executor.events import AttemptId
from mppobs.executor.shuffle import Output
from mppobs.model import AttemptOutcome, Reason, WorkerRecord
from mppobs.testing import capture
from tests.executor.rig import JobOnRig, Rig

ROOT = Path(__file__).parents[2]


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


def is_running(pid: int) -> bool:
    """Return whether a process lives; one that is dead may stay in the table until its new parent looks."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_the_death_of_the_fork_server_is_that_of_its_workers(tmp_path: Path) -> None:
    """All that it forked is told as lost, once each, and replaced by what another one forks, again and again."""
    made = LocalBackend(4, {"directory": tmp_path / "journal"}, "w")
    try:
        made.start()
        until(made, lambda news: sum(isinstance(each, Up) for each in news) == 4)
        for _ in range(4):
            before = dict(made.pids)
            server = int(Path(f"/proc/{next(iter(before.values()))}/stat").read_text().rsplit(")", 1)[1].split()[1])
            os.kill(server, 9)
            time.sleep(0.2)  # the ends of all pipes and all processes are there in one look
            news = until(made, lambda news: sum(isinstance(each, Up) for each in news) >= 4)
            assert sorted(each.worker for each in news if isinstance(each, Down)) == sorted(before)
            assert not [pid for pid in before.values() if is_running(pid)]
    finally:
        made.close()


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


def test_a_task_that_takes_too_much_memory_ends_alone(tmp_path: Path) -> None:
    """With a limit of memory the attempt ends as an error of the platform, and its worker goes on."""
    made = LocalBackend(1, recording(), "w", Pool(places=(Place(memory_bytes=64 << 20),)))
    rig = Rig(made, tmp_path / "journal")
    rig.wait_for_workers(1)
    small = JobOnRig(rig, tmp_path, "lingering:gather_memory", bytes=16 << 20)
    large = JobOnRig(rig, tmp_path, "lingering:gather_memory", bytes=256 << 20)

    ended = rig.ended(small.give("w-1", 0), large.give("w-1", 0), small.give("w-1", 1))

    outcomes = [(each.report.outcome, each.report.reason) for each in ended]
    assert outcomes[0] == outcomes[2] == (AttemptOutcome.SUCCESS, Reason.NONE)
    assert outcomes[1] == (AttemptOutcome.ERROR, Reason.MEMORY)
    assert rig.of(Down) == []
    made.close()


def test_workers_are_spread_over_the_places_they_are_given(tmp_path: Path) -> None:
    """Each says where it is when it comes up, and says so in its journal; its replacement takes the same place."""
    places = (Place("n-0", "a"), Place("n-1", "b", spot=True))
    with capture() as captured:
        made = LocalBackend(3, recording(), "w", Pool(places=places))
        rig = Rig(made, captured.directory)
        rig.wait_for_workers(3)
        assert sorted(made.places.values()) == sorted([*places, places[0]])
        victim = next(name for name, place in made.places.items() if place.spot)

        made.kill(victim)
        rig.until(lambda: Down(victim, Reason.WORKER_LOST) in rig.heard, "the death")
        rig.wait_for_workers(3)

        assert sorted(made.places.values()) == sorted([*places, places[0]])
        made.close()
        told = {record.info.worker: record.info for record in captured.of(WorkerRecord)}
    assert (told[victim].node, told[victim].zone, told[victim].spot) == ("n-1", "b", True)


def test_a_spare_process_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    """It was started beforehand: no process is forked between the death and the replacement."""
    made = LocalBackend(1, recording(), "w", Pool(spares=1))
    rig = Rig(made, tmp_path / "journal")
    rig.wait_for_workers(1)
    (spare,) = set(made.process_ids) - set(made.pids.values())

    made.kill("w-1")
    rig.until(lambda: made.pids.get("w-2"), "the replacement")

    assert made.pids == {"w-2": spare}
    rig.until(lambda: len(made.process_ids) == 2, "another spare")
    made.close()


def test_modules_are_imported_before_the_first_task(tmp_path: Path) -> None:
    """What the pool is told to preload is there in a new process, so that no task pays for it."""
    (tmp_path / "slow_to_import.py").write_text("")
    command = [sys.executable, "-m", "tests.executor.preloading", str(tmp_path), "slow_to_import"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    told = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    assert told.stdout == "True\n"
