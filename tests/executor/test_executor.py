"""The executor from end to end, on real processes: right answers, whatever happens to the workers."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mppobs.errors import ConfigError
from mppobs.executor import (
    Executor,
    JobFailedError,
    Limits,
    OnFailure,
    Plan,
    Progress,
    ShardPlan,
    Stage,
)
from mppobs.model import AttemptOutcome, JobOutcome, Reason
from mppobs.testing import Captured, Script, capture
from tests.executor import tasks
from tests.executor.plans import QUICK, as_dict, expected, group_by

ROOT = Path(__file__).parents[2]


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


@pytest.fixture
def executor(captured: Captured, tmp_path: Path) -> Iterator[Executor]:
    """Two workers."""
    with Executor(2, tmp_path / "exchange") as made:
        yield made


def one_stage(task: Any, shards: int = 1, limits: Limits = QUICK, **arguments: Any) -> Plan:
    """Return a plan of one stage whose shards all get the same arguments."""
    parts = tuple(ShardPlan(number) for number in range(shards))
    stage = Stage("only", f"tests.executor.tasks:{task.__name__}", parts, arguments=arguments, limits=limits)
    return Plan("test", (stage,))


def test_a_word_count_is_right(executor: Executor) -> None:
    """Words counted by shards and partitions are the words counted at once."""
    chance = random.Random(5)
    texts = [" ".join(chance.choices(["to", "be", "or", "not", "höö", "that"], k=200)) for _ in range(10)]
    plan = Plan(
        "word-count",
        (
            Stage(
                "map",
                "mppobs.executor.examples:split_words",
                tuple(ShardPlan(n, {"text": text}) for n, text in enumerate(texts)),
                partition_by=("word",),
                partitions=3,
                combiner="mppobs.executor.examples:sum_counts",
            ),
            Stage("reduce", "mppobs.executor.examples:count_words", reads=("map",)),
        ),
    )
    table = executor.run(plan).check().answer
    assert dict(zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True)) == Counter(
        " ".join(texts).split()
    )


def test_a_combiner_changes_the_bytes_and_not_the_answer(executor: Executor) -> None:
    """The same group-by with a combiner sends less and gives the same; what is written is read."""
    plain = executor.run(group_by())
    combined = executor.run(group_by(combiner="tests.executor.tasks:add_up"))
    assert as_dict(plain) == as_dict(combined) == expected()
    for result in (plain, combined):
        assert result.stages[0].shuffle_written == result.stages[1].shuffle_read > 0
    assert combined.stages[0].shuffle_written < plain.stages[0].shuffle_written / 2
    assert (plain.stages[0].rows, combined.stages[0].rows) == (8000, 8 * 50)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_stage_may_read_everything(executor: Executor, compression: str) -> None:
    """A stage with shards of its own reads all partitions of another, in each of its shards."""
    plan = group_by(compression=compression)
    top = Stage("top", "tests.executor.tasks:biggest", (ShardPlan(0), ShardPlan(1)), reads=("sums",))
    plan = Plan(plan.pipeline, (*plan.stages, top), compression=compression)
    answer = executor.run(plan).check().answer
    key, total = max(expected().items(), key=lambda item: item[1])
    assert answer.to_pylist() == [{"k": key, "v": total}] * 2


def test_killed_workers_cost_time_and_nothing_else(executor: Executor, captured: Captured) -> None:
    """With workers killed by SIGKILL all along, the answer is right and every shard is committed once."""
    over = threading.Event()
    chance = random.Random(11)

    def kill() -> None:
        left = 15  # not for ever: a slow machine starts workers less fast than they can be killed
        while left and not over.wait(chance.uniform(0.02, 0.08)):
            pids = list(executor.worker_pids.values())
            with suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(pids), signal.SIGKILL)
                left -= 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = executor.run(group_by(shards=30, pause=0.04, limits=Limits(losses=100, backoff=0.001)))
    finally:
        over.set()
        killer.join()
    assert as_dict(result) == expected(shards=30)
    assert result.attempts[AttemptOutcome.ERROR] >= 3
    committed = Counter((record.context_id, record.shard_key) for record in captured.commits)
    assert len(committed) == 34
    assert set(committed.values()) == {1}


def test_a_task_that_fails_is_tried_again(executor: Executor, tmp_path: Path) -> None:
    """Shards that fail once or twice succeed at a later attempt, and the attempts are counted."""
    script = {1: [-0.0], 3: [-0.0, -0.0]}
    result = executor.run(one_stage(tasks.scripted, 5, directory=str(tmp_path), script=script)).check()
    assert result.answer == [0, 1, 0, 2, 0]
    assert result.attempts == {AttemptOutcome.SUCCESS: 5, AttemptOutcome.FAILURE: 3}
    assert (result.stages[0].attempts, result.stages[0].retries) == (8, 3)
    assert [Script(tmp_path, {}).attempts(shard) for shard in range(5)] == [1, 2, 1, 3, 1]


def test_a_task_that_always_fails_says_why(executor: Executor, tmp_path: Path) -> None:
    """After four attempts the shard is given up, the rest is not run, and the result says which shard and why."""
    plan = one_stage(tasks.scripted, 3, directory=str(tmp_path), script={1: [-0.0] * 9})
    result = executor.run(plan)
    assert (result.outcome, result.reason, result.answer) == (JobOutcome.FAILURE, Reason.RETRIES_EXHAUSTED, None)
    (failure,) = result.failures
    assert (failure.stage, failure.shard, failure.attempts) == ("only", 1, 4)
    assert failure.error_type.endswith("ScriptedFailure")
    with pytest.raises(JobFailedError, match=r"only/1 after 4 attempts.*shard 1 fails at attempt 3"):
        result.check()


def test_the_rest_is_finished_where_that_is_asked_for(executor: Executor, tmp_path: Path) -> None:
    """With FINISH a failed shard leaves the others of its stage alone."""
    plan = one_stage(tasks.scripted, 6, directory=str(tmp_path), script={0: [-0.0] * 9})
    result = executor.run(Plan("test", plan.stages, on_failure=OnFailure.FINISH))
    assert (result.stages[0].done, result.stages[0].failed) == (5, 1)


def test_a_task_that_kills_its_worker_is_given_up(executor: Executor) -> None:
    """A shard survives the loss of three workers; one that kills a fourth ends the job as an error."""
    assert executor.run(one_stage(tasks.die, survives=3)).outcome is JobOutcome.SUCCESS
    result = executor.run(one_stage(tasks.die, survives=9))
    assert (result.outcome, result.reason) == (JobOutcome.ERROR, Reason.WORKER_LOST)
    assert result.attempts == {AttemptOutcome.ERROR: 4}


@pytest.mark.parametrize("how", ["sys.exit", "os._exit"])
def test_a_task_cannot_end_the_job_by_leaving(executor: Executor, how: str) -> None:
    """A task that exits fails its attempt, in whatever way it exits."""
    result = executor.run(one_stage(tasks.leave, how=how)).check()
    assert sum(result.attempts.values()) == 2


@pytest.mark.parametrize("kind", [True, False])
def test_a_timeout_ends_one_attempt_and_one_worker(executor: Executor, captured: Captured, kind: bool) -> None:
    """An attempt that hangs is stopped, by force where it does not listen; other workers and their work go on."""
    while len(before := set(executor.worker_pids.values())) < 2:
        executor.map(abs, range(8))
    plan = one_stage(tasks.hang, 6, Limits(timeout=0.3, backoff=0.01), slow=[2], kind=kind)
    result = executor.run(plan).check()
    assert result.answer == ["0:0", "1:0", "2:1", "3:0", "4:0", "5:0"]
    assert result.attempts == {AttemptOutcome.SUCCESS: 6, AttemptOutcome.TIMEOUT: 1}
    deadline = time.monotonic() + 5
    while len(before & set(executor.worker_pids.values())) == 2 and time.monotonic() < deadline:
        executor.map(abs, range(8))
    assert len(before & set(executor.worker_pids.values())) == 1
    (stopped,) = [record for record in captured.attempts if record.outcome is not AttemptOutcome.SUCCESS]
    assert (stopped.outcome, stopped.reason, stopped.shard_key) == (AttemptOutcome.TIMEOUT, Reason.DEADLINE, 2)
    assert (stopped.cpu_ns is None) == (not kind)


def test_throttled_tasks_wait_as_long_as_they_are_told(executor: Executor, captured: Captured) -> None:
    """A throttled attempt is recorded as the storage's error and retried after the time that it was given."""
    result = executor.run(one_stage(tasks.throttled, 1)).check()
    first, second = sorted((r for r in captured.attempts), key=lambda record: record.attempt)
    assert (first.outcome, first.reason, first.storage_throttled) == (AttemptOutcome.ERROR, Reason.STORAGE, 1)
    assert second.start_ns - first.start_ns >= 50_000_000
    assert result.answer == [1]


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_damaged_exchange_data_is_computed_again(
    executor: Executor, captured: Captured, tmp_path: Path, how: str
) -> None:
    """Data that was changed on disk is never read as if it were right: the shards that wrote it run again, once."""
    numbers, sums = group_by(shards=2).stages
    spoil = Stage(
        "spoil",
        "tests.executor.tasks:spoil",
        (ShardPlan(0),),
        after=("numbers",),
        arguments={"directory": str(tmp_path / "exchange"), "how": how},
    )
    sums = Stage("sums", sums.task, reads=("numbers",), after=("spoil",), limits=QUICK)
    result = executor.run(Plan("test", (numbers, spoil, sums)))
    assert as_dict(result) == expected(shards=2)
    assert [stage.done for stage in result.stages] == [2, 1, 4]
    assert result.attempts[AttemptOutcome.ERROR] >= 1
    committed = Counter((record.context_id, record.shard_key) for record in captured.commits)
    assert len(committed) == 7
    assert set(committed.values()) == {1}


def test_values_are_the_answer_where_there_are_no_tables(executor: Executor) -> None:
    """What a task returns that is no table comes back in the order of the shards; nothing is a value too."""
    assert executor.run(one_stage(tasks.value, 2, what={"a": 1})).check().answer == [{"a": 1}] * 2
    assert executor.run(one_stage(tasks.value, 2, what="nothing")).check().answer == [None, None]


@pytest.mark.parametrize(
    ("what", "told"),
    [("large", "more than 8388608"), ("unsendable", "cannot be sent"), ("unknown", "does not read 'nowhere'")],
)
def test_what_no_retry_can_mend_is_not_retried(executor: Executor, what: str, told: str) -> None:
    """Mistakes in a task's use of the executor fail at the first attempt, with a message that says what to do."""
    result = executor.run(one_stage(tasks.value, what=what))
    assert result.outcome is JobOutcome.FAILURE
    assert sum(result.attempts.values()) == 1
    assert told in result.failures[0].message


def test_a_function_that_is_not_there_fails_at_once(executor: Executor) -> None:
    """An import path that leads nowhere is told by name."""
    result = executor.run(Plan("test", (Stage("only", "tests.executor.tasks:nothing", (ShardPlan(0),)),)))
    assert "tests.executor.tasks:nothing cannot be imported" in result.failures[0].message


def test_map_is_map(executor: Executor) -> None:
    """`map` gives what the built-in gives, whatever the chunks; failures come out as an error."""
    for chunk in (1, 7, 1000):
        assert executor.map(tasks.double, iter(range(100)), chunk=chunk) == [2 * n for n in range(100)]
    assert executor.map(math.sqrt, []) == []
    with pytest.raises(JobFailedError, match="-3 is negative"):
        executor.map(tasks.double, [1, 2, -3])
    with pytest.raises(ConfigError, match="top of a module"):
        executor.map(lambda number: number, [1])


def test_progress_goes_from_nothing_to_everything(executor: Executor) -> None:
    """The callback sees counts that grow, and at the end all of them."""
    seen: list[Progress] = []
    executor.run(group_by(pause=0.05), seen.append).check()
    assert len(seen) >= 3
    done = [sum(stage.done for stage in progress.stages) for progress in seen]
    assert done == sorted(done)
    assert (seen[0].ratio, seen[-1].ratio) == (0.0, 1.0)
    assert [stage.planned for stage in seen[-1].stages] == [8, 4]
    assert any(stage.running for progress in seen for stage in progress.stages)


def test_nothing_is_left_behind(captured: Captured, tmp_path: Path) -> None:
    """After a job its data is gone, after `close` its workers and directories; a second `close` changes nothing."""
    executor = Executor(2, tmp_path / "exchange")
    executor.run(group_by()).check()
    assert list((tmp_path / "exchange").rglob("*.exchange")) == []
    pids = executor.worker_pids.values()
    executor.close()
    executor.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert list((tmp_path / "exchange").iterdir()) == []
    with pytest.raises(ConfigError, match="closed"):
        executor.map(abs, [1])


def test_an_interrupt_cancels_cleanly(executor: Executor, captured: Captured) -> None:
    """Ctrl-C stops the attempts, records the job as cancelled and comes out as it should; the executor can go on."""
    plan = one_stage(tasks.hang, 4, slow=[0, 1, 2, 3], kind=True)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        executor.run(plan)
    assert time.monotonic() - began < 5
    assert captured.jobs[-1].outcome is JobOutcome.CANCELLED
    outcomes = Counter(record.outcome for record in captured.attempts)
    assert outcomes == {AttemptOutcome.CANCELLED: 2}
    assert executor.map(abs, [-1]) == [1]


ORPHAN = """
import sys
from mppobs.executor import *
from tests.executor import tasks
from tests.executor.plans import QUICK, as_dict, expected, group_by
if __name__ == "__main__":
    stage = Stage("only", "tests.executor.tasks:hang", (ShardPlan(0),), arguments={"slow": [0], "kind": KIND})
    with Executor(2, sys.argv[1]) as executor:
        told = lambda progress: print(*executor.worker_pids.values(), flush=True)
        executor.run(Plan("test", (stage,)), told)
"""


@pytest.mark.parametrize("kind", ["True", "False"])
def test_workers_end_when_their_coordinator_dies(tmp_path: Path, kind: str) -> None:
    """A coordinator that is killed leaves no process behind, not even one whose task does not let itself be stopped."""
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN.replace("KIND", kind))
    environment = {**os.environ, "MPPOBS_DIR": str(tmp_path / "journal"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path / "exchange")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        assert process.stdout is not None
        pids = next(line.split() for line in process.stdout if len(line.split()) == 2)
        time.sleep(0.3)
        process.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_answers_are_tables_in_the_order_of_the_shards(executor: Executor) -> None:
    """The parts of an answer come in the order of the shards, not in that of their ends."""
    parts = tuple(ShardPlan(n, {"first": n, "count": 1, "keys": 1000, "pause": 0.1 - n / 50}) for n in range(5))
    table: pa.Table = executor.run(Plan("test", (Stage("only", "tests.executor.tasks:numbers", parts),))).check().answer
    assert table["v"].to_pylist() == [0, 1, 2, 3, 4]


def test_a_broken_callback_closes_the_executor(executor: Executor, captured: Captured) -> None:
    """What the callback raises comes out, the job is recorded as ended, and no worker goes on with it."""

    def broken(progress: Progress) -> None:
        raise LookupError("of the caller's own")

    with pytest.raises(LookupError):
        executor.run(group_by(), broken)
    assert captured.jobs[-1].outcome is JobOutcome.FAILURE
    assert executor.worker_pids == {}
    with pytest.raises(ConfigError, match="closed"):
        executor.run(group_by())


def test_a_long_directory_of_temporary_files_is_no_obstacle(tmp_path: Path) -> None:
    """Where TMPDIR is longer than the path of a socket may be, workers start all the same."""
    long = tmp_path / ("long-" * 20) / "x"
    long.mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(
        "from mppobs.executor import Executor\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1) as executor:\n"
        "        print(executor.map(abs, [-1]))\n"
    )
    environment = {**os.environ, "MPPOBS_DIR": str(tmp_path / "journal"), "PYTHONPATH": str(ROOT), "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "[1]\n", done.stderr
    assert list(long.iterdir()) == []


def test_an_executor_without_workers_is_refused() -> None:
    """At least one worker is needed."""
    with pytest.raises(ConfigError, match="at least one"):
        Executor(0)
