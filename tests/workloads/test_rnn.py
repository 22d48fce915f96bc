"""Training over two fabrics: one process's results, one job in the records, and on from the checkpoint after a kill."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mppobs
from mppobs.executor import Executor, JobResult
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    DispatchRecord,
    JobRecord,
    PlanRecord,
    Reason,
    ShardOutcome,
)
from mppobs.testing import Captured, capture
from mppobs.workloads import gang as module
from mppobs.workloads.base import WrongAnswerError
from mppobs.workloads.checkpoints import Checkpoint, save
from mppobs.workloads.data import make_dataset, parts_of
from mppobs.workloads.gang import Gang, GangError, Ledger
from mppobs.workloads.gang_member import Membership, Training
from mppobs.workloads.registry import Workload, workload
from mppobs.workloads.rnn import RATE, SEED
from mppobs.workloads.rnn_features import FEATURES, expected_features
from mppobs.workloads.rnn_model import Shape, train_alone
from tests.executor.test_records import attempts_of, of, sealed
from tests.workloads.conftest import SCALE

TRAINING = Training("d", 8, 64, 0.05, 4, 4, 1, 4, workers=2, servers=1)


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found


def run(found: Workload, tables: Path) -> JobResult:
    with Executor(2) as executor:
        return executor.run(found.plan(tables, SCALE, 4)).check()


def test_a_ring_that_loses_a_rank_goes_on_from_its_checkpoint(tables: Path, captured: Captured) -> None:
    """
    Training gives the weights of one process although a rank is killed in its midst.

    The records are of one job: every step of every rank is committed once, the steps since the checkpoint were
    attempted twice, and the kill is there as an attempt that was begun and ended as a lost worker's.
    """
    ring = workload("rnn-ring").configured({"steps": "8", "batch": "64", "checkpoint-every": "3", "kill-step": "5"})
    result = run(ring, tables)
    ring.check(tables, SCALE, result.answer)
    found = sealed(captured.directory)

    commits = Counter((context.stage, record.shard_key) for context, record in of(CommitRecord, found))  # type: ignore[union-attr]
    steps = {key: number for key, number in commits.items() if key[0] == "step"}
    attempted, dispatched = attempts_of(AttemptRecord, found), attempts_of(DispatchRecord, found)
    tried = Counter(key[1] // 2 for key in attempted if key[0] == "step")
    lost = [
        record.reason  # type: ignore[union-attr]
        for context, record in of(AttemptRecord, found)
        if (context.stage, record.shard_key, record.attempt) == ("step", 11, 0)  # type: ignore[union-attr]
    ]

    assert ring.tell(tables, SCALE, result.answer)[1:] == [
        "a process died; all went on from the checkpoint after step 3"
    ]
    assert steps == {("step", shard): 1 for shard in range(16)}
    assert {step: tried[step] for step in (0, 2, 3, 4, 6, 7)} == {0: 2, 2: 2, 3: 4, 4: 4, 6: 2, 7: 2}
    assert {context.job_id for context, _ in of(AttemptRecord, found)} == {result.job_id}
    assert attempted.keys() <= dispatched.keys()
    assert dispatched.keys() - attempted.keys() <= {("step", 10, 0)}  # the other rank's part of the step, at most
    assert max(attempted.values()) == 1
    assert Reason.WORKER_LOST in lost
    assert len(of(JobRecord, found)) >= 2
    assert not list((tables / "training").glob("rnn-ring-*"))


def test_parameter_servers_train_the_same(tables: Path, captured: Captured) -> None:
    """Two servers with a slice of the weights each give the weights of one process, and their work is recorded too."""
    servers = workload("rnn-server").configured({"steps": "4", "batch": "64", "servers": "2"})
    result = run(servers, tables)
    servers.check(tables, SCALE, result.answer)
    found = sealed(captured.directory)
    outcomes = Counter(record.outcome for _, record in of(AttemptRecord, found))  # type: ignore[union-attr]
    served = [record for context, record in of(AttemptRecord, found) if context.stage == "serve"]

    assert outcomes.keys() == {AttemptOutcome.SUCCESS}
    assert {record.outcome for _, record in of(CommitRecord, found)} == {ShardOutcome.COMMITTED}  # type: ignore[union-attr]
    assert len(served) == 8
    assert all(record.shuffle_read == record.shuffle_written > 0 for record in served)  # type: ignore[union-attr]


def test_a_task_whose_worker_is_killed_goes_on_in_another(tables: Path, captured: Captured) -> None:
    """
    The launcher's own worker is killed while its processes train: the next try goes on from the newest checkpoint.

    The processes end with it; no attempt is recorded twice, steps are planned once, and each is committed. (A commit
    that is said again changes nothing.)
    """
    ring = workload("rnn-ring").configured({"steps": "150", "batch": "64", "checkpoint-every": "10"})
    with Executor(2) as executor:
        handle = executor.submit(ring.plan(tables, SCALE, 4))
        while not list((tables / "training").glob(f"{handle.job_id}/checkpoint-*")):
            time.sleep(0.002)
        launchers = [pid for pid in executor.worker_pids.values() if _children(pid)]
        orphans = [child for pid in launchers for child in _children(pid)]
        for pid in launchers:
            os.kill(pid, signal.SIGKILL)
        result = handle.result().check()
    ring.check(tables, SCALE, result.answer)
    found = sealed(captured.directory)
    attempted = attempts_of(AttemptRecord, found)
    commits = Counter(record.shard_key for context, record in of(CommitRecord, found) if context.stage == "step")  # type: ignore[union-attr]
    plans = [record.added for context, record in of(PlanRecord, found) if context.stage == "step"]  # type: ignore[union-attr]

    assert len(launchers) == 1
    assert [stage.retries for stage in result.stages if stage.stage == "train"] == [1]
    assert len(commits) == 300 == sum(plans)
    assert set(commits.values()) <= {1, 2}  # twice where the kill came between committing and noting it
    assert max(attempted.values()) == 1
    assert attempted.keys() <= attempts_of(DispatchRecord, found).keys()
    assert 300 < sum(1 for key in attempted if key[0] == "step") < 500  # began anew at a checkpoint, not at the start
    assert not [pid for pid in orphans if _runs(pid)]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_check_sees_a_weight_that_is_off(tables: Path) -> None:
    """A billionth more in one weight is noise; a millionth is a wrong answer."""
    ring = workload("rnn-ring").configured({"steps": "3"})
    inputs, targets = expected_features(make_dataset(tables, SCALE, parts_of(SCALE)))
    weights, losses, first = train_alone(Shape(FEATURES, 16), inputs, targets, steps=3, batch=256, rate=RATE, seed=SEED)
    answer = {"weights": weights.tolist(), "losses": losses, "gradient": first.tolist(), "resumed_from": []}
    ring.check(tables, SCALE, [answer])
    with pytest.raises(WrongAnswerError, match=r"weights: 1e-06 from those of one process"):
        ring.check(tables, SCALE, [{**answer, "weights": [weights[0] + 1e-6, *weights[1:]]}])
    with pytest.raises(WrongAnswerError, match="losses: 2 numbers, expected 3"):
        ring.check(tables, SCALE, [{**answer, "losses": losses[:2]}])


def test_a_training_that_is_done_is_committed_and_not_run_again(tmp_path: Path, captured: Captured) -> None:
    """Where a kill came between the last checkpoint and its commit, the next try commits it and starts no process."""
    training = dataclasses.replace(TRAINING, directory=str(tmp_path), servers=0)
    save(tmp_path, Checkpoint(8, np.zeros(training.shape.size), np.zeros(8), np.zeros(training.shape.size)))
    with mppobs.job(pipeline="p") as job:
        gang = Gang(training, job, kill_step=0)
        gang.run()
    commits = Counter(
        (context.stage, record.shard_key) for context, record in of(CommitRecord, sealed(captured.directory))
    )  # type: ignore[union-attr]

    assert commits == {("step", shard): 1 for shard in range(16)}
    assert gang.resumed_from == []
    assert not list(tmp_path.glob(".checkpoint*"))


@pytest.mark.usefixtures("captured")
def test_a_gang_that_keeps_dying_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that end before they say anything are started three more times, and then the launcher says so."""
    training = dataclasses.replace(TRAINING, directory=str(tmp_path), workers=1, servers=0)
    started: list[Membership] = []

    def start(member: Membership) -> subprocess.Popen[bytes]:
        started.append(member)
        return subprocess.Popen(["false"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(module, "_start", start)
    with mppobs.job(pipeline="p") as job, pytest.raises(GangError, match="a process of the training died 4 times"):
        Gang(training, job, kill_step=0).run()

    assert len(started) == 4
    assert len({member.token for member in started}) == 4


def test_a_ledger_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was noted is known again, and a line that a kill cut off is passed over."""
    path = tmp_path / "ledger"
    ledger = Ledger.open(path)
    for line in ("plan", "begin step 3", "begin step 3", "begin serve 0", "commit 8", "begin st"):
        ledger.note(line)
    again = Ledger.open(path)

    assert (ledger.planned, again.planned) == (False, True)
    assert again.begun == {("step", 3): 2, ("serve", 0): 1}
    assert again.committed == 8


def test_a_member_knows_its_shards_and_its_tries() -> None:
    """Steps of all workers are numbered through, those of servers by themselves; tries travel as text."""
    worker = Membership(TRAINING, "worker", 1, "00", {"3": 2})

    assert Membership.from_json(worker.to_json()) == worker
    assert [worker.shard(step) for step in range(3)] == [1, 3, 5]
    assert Membership(TRAINING, "server", 0, "00").shard(5) == 5
    assert [worker.number(step) for step in (2, 3)] == [0, 2]
