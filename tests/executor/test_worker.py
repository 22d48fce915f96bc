"""The worker's side, in this process: what an attempt does and reports, and when a worker stops."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace
from decimal import Decimal
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mppobs
from mppobs.executor.attempt import AttemptOrder, Input, Report, StageOrder, run_attempt
from mppobs.executor.backends import worker
from mppobs.executor.backends.wire import Inbox, frame
from mppobs.executor.files import JobFiles
from mppobs.executor.shuffle import read_everything, write_exchange
from mppobs.model import AttemptOutcome, Reason
from mppobs.testing import Captured, capture

TASKS = "tests.executor.tasks"


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own; put back the handlers and threads that a worker changes."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGIO)}
    threads = pa.cpu_count()
    with capture() as found:
        yield found
    pa.set_cpu_count(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    """Return the directories of a job of two stages."""
    made = JobFiles(tmp_path / "job")
    made.prepare(2)
    return made


def stage(files: JobFiles, task: str = "value", **arguments: Any) -> StageOrder:
    return StageOrder(
        job_id="j",
        root=files.root,
        index=0,
        name="only",
        task=f"{TASKS}:{task}",
        combiner="",
        arguments=arguments,
        inputs={},
        exchanged=False,
        partition_by=(),
        partitions=1,
        compression="none",
        context={"mppobs-pipeline": "p", "mppobs-job-id": "j"},
    )


def attempt(order: StageOrder, number: int = 0, **arguments: Any) -> Report:
    """Make one attempt here and now."""
    with mppobs.attempt(stage=order.name, shard=0, attempt=number) as running:
        return run_attempt(order, AttemptOrder(0, 0, number, arguments, 0), running, lambda allowed: None)


def test_a_value_is_reported(captured: Captured, files: JobFiles) -> None:
    """What a task returns travels in the report; a shard's arguments go over those of its stage."""
    report = attempt(stage(files, what=1), what=2)
    assert report.outcome is AttemptOutcome.SUCCESS
    assert pickle.loads(report.value) == 2
    assert report.duration_ns > 0


def test_a_table_is_written_combined_and_counted(captured: Captured, files: JobFiles) -> None:
    """A table goes through the combiner into its partitions, and what was written is counted where it is exchanged."""
    numbers = replace(
        stage(files, "numbers", first=0, count=100, keys=7),
        combiner=f"{TASKS}:add_up",
        exchanged=True,
        partition_by=("k",),
        partitions=3,
    )
    written = attempt(numbers)
    assert written.output is not None
    assert (written.output.rows, len(written.output.sizes)) == (7, 3)
    assert captured.attempts[-1].shuffle_written == written.output.size
    sums = replace(stage(files, "sums"), index=1, inputs={"numbers": Input(0, (0,), whole=True)})
    read = attempt(sums)
    assert read.bytes_read == captured.attempts[-1].shuffle_read == written.output.size
    assert captured.attempts[-1].rows == 7
    assert sum(read_everything(files.data(1, 0))[0]["v"].to_pylist()) == sum(range(100))


@pytest.mark.parametrize(
    ("task", "arguments", "outcome", "reason", "permanent"),
    [
        ("value", {"what": "unknown"}, AttemptOutcome.FAILURE, Reason.EXCEPTION, True),
        ("value", {"what": "unsendable"}, AttemptOutcome.FAILURE, Reason.EXCEPTION, True),
        ("value", {}, AttemptOutcome.FAILURE, Reason.EXCEPTION, False),
        ("leave", {"how": "sys.exit"}, AttemptOutcome.FAILURE, Reason.EXCEPTION, False),
        ("throttled", {}, AttemptOutcome.ERROR, Reason.STORAGE, False),
        ("nothing", {}, AttemptOutcome.FAILURE, Reason.EXCEPTION, True),
    ],
)
def test_the_report_and_the_record_agree(
    captured: Captured,
    files: JobFiles,
    task: str,
    arguments: dict[str, Any],
    outcome: AttemptOutcome,
    reason: Reason,
    permanent: bool,
) -> None:
    """However an attempt ends, the coordinator is told what the journal says, and nothing is left in its directory."""
    report = attempt(stage(files, task, **arguments))
    record = captured.attempts[-1]
    assert (report.outcome, report.reason, report.permanent) == (outcome, reason, permanent)
    assert (record.outcome, record.reason, record.error_type) == (outcome, reason, report.error_type)
    assert list((files.root / "attempts").iterdir()) == []


@pytest.mark.parametrize(
    ("left", "right", "whole", "told"),
    [
        (pa.array([1, 2]), pa.array([1.0, 2.0]), False, ""),
        (pa.array([1, 2]), pa.nulls(2), False, ""),
        (pa.array([1, 2]), pa.array(["1", "2"]), True, ""),
        (
            pa.array([1, 2]),
            pa.array(["1", "2"]),
            False,
            "key 1 by which they are partitioned is integer in one and text",
        ),
        (pa.array([0.5]), pa.array([Decimal("0.5")]), False, "float in one and decimal in the other: equal values are"),
    ],
)
def test_keys_that_cannot_meet_are_told(
    captured: Captured, files: JobFiles, left: pa.Array, right: pa.Array, whole: bool, told: str
) -> None:
    """Two stages read side by side whose keys differ in kind are a mistake that no retry mends, and no silent miss."""
    files.prepare(3)
    for index, keys in enumerate((left, right)):
        path = files.begin(index, 0, 0)
        write_exchange(path, pa.table({"k": keys}), ("k",), 2, attempt=0, compression="none")
        files.commit(index, 0, 0)
    inputs = {"left": Input(0, (0,), whole=whole), "right": Input(1, (0,), whole=whole)}
    report = attempt(replace(stage(files, "side_by_side"), index=2, inputs=inputs))
    assert (told in report.message, report.permanent) == (True, bool(told))


def test_a_value_that_others_want_to_read_is_a_mistake(captured: Captured, files: JobFiles) -> None:
    """Only tables can be read by later stages; the report says so."""
    report = attempt(replace(stage(files, what=1), exchanged=True))
    assert (report.permanent, "later stage reads its tables" in report.message) == (True, True)


class Wires:
    """A worker's three pipes, held at both ends."""

    def __init__(self) -> None:
        self.orders_in, self.orders = Pipe(duplex=False)
        self.results, self.results_out = Pipe(duplex=False)
        self.stops_in, self.stops = Pipe(duplex=False)

    def order(self, *messages: object) -> None:
        os.write(self.orders.fileno(), b"".join(frame(message) for message in messages))

    def begin(self, captured: Captured) -> None:
        """Give the worker its setup, which comes before all orders."""
        self.order(worker.WorkerSetup({"directory": captured.directory, "worker": "w"}))

    def run(self) -> list[tuple[Any, ...]]:
        """Run the worker to its end; return what it said."""
        # In a context of its own, as in a process of its own: a worker stays in the job that it attached to.
        copy_context().run(worker.main, self.orders_in, self.results_out, self.stops_in)
        self.results_out.close()
        inbox, said = Inbox(self.results.fileno()), []
        while not inbox.closed:
            said += [message for messages in inbox.read() for message in messages]
        for pipe in (self.orders_in, self.orders, self.results, self.stops_in, self.stops):
            pipe.close()
        return said


def test_a_worker_makes_attempts_until_the_orders_end(captured: Captured, files: JobFiles) -> None:
    """It says that it is ready, then of each attempt that it begins and how it ended, and closes its journal."""
    wires = Wires()
    wires.begin(captured)
    wires.order(("stage", 1, stage(files, what="v")), ("attempts", [(n, 1, n, n, 0, None, 5) for n in (1, 2)]))
    wires.orders.close()
    said = wires.run()
    assert [message[:2] for message in said] == [
        (worker.READY, os.getpid()),
        (worker.STARTED, 1),
        (worker.ENDED, 1),
        (worker.STARTED, 2),
        (worker.ENDED, 2),
    ]
    assert [record.shard_key for record in captured.attempts] == [1, 2]
    assert all(record.delay_ns for record in captured.attempts)


@pytest.mark.parametrize("outcome", list(worker.STOP_OUTCOMES))
def test_a_worker_ends_after_it_was_stopped(captured: Captured, files: JobFiles, outcome: AttemptOutcome) -> None:
    """The attempt that is to be stopped ends as told, and what came after it is left undone."""
    wires = Wires()
    wires.begin(captured)
    wires.order(("stage", 1, stage(files, what="v")), ("attempts", [(n, 1, n, n, 0, None, 5) for n in (1, 2, 3)]))
    os.write(wires.stops.fileno(), worker.STOP.pack(2, worker.STOP_OUTCOMES.index(outcome)))
    said = wires.run()
    assert [message[:2] for message in said][-2:] == [(worker.STARTED, 2), (worker.ENDED, 2)]
    assert said[-1][2] == outcome
    assert [record.outcome for record in captured.attempts] == [AttemptOutcome.SUCCESS, outcome]


def test_a_worker_ends_when_nobody_listens(captured: Captured, files: JobFiles) -> None:
    """With the coordinator's ends of the pipes closed it makes no further attempt."""
    wires = Wires()
    wires.begin(captured)
    wires.order(("stage", 1, stage(files, what="v")), ("attempts", [(1, 1, 0, 0, 0, None, 5)]))
    wires.stops.close()
    assert [message[0] for message in wires.run()] == [worker.READY]
    assert captured.attempts == []
