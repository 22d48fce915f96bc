"""Identity from the environment: MPPOBS_* first, then the platform."""

from __future__ import annotations

import pytest

import mppobs
from mppobs.instrument.identity import Identity, detect, parse_shard
from mppobs.instrument.recorder import RECORDER
from mppobs.journal.format import shard_key
from mppobs.testing import Captured, capture


@pytest.mark.parametrize(
    ("environ", "identity"),
    [
        ({}, Identity()),
        ({"MPPOBS_SHARD": "9", "MPPOBS_ATTEMPT": "2", "MPPOBS_JOB_ID": "j"}, Identity("j", 9, 2, "", "mppobs")),
        ({"MPPOBS_SHARD": "part-9"}, Identity("", "part-9", 0, "", "mppobs")),
        ({"JOB_COMPLETION_INDEX": "0", "HOSTNAME": "scoring-0"}, Identity("scoring", 0, 0, "", "kubernetes")),
        ({"JOB_COMPLETION_INDEX": "4", "HOSTNAME": "elsewhere"}, Identity("", 4, 0, "", "kubernetes")),
        (
            {"JOB_COMPLETION_INDEX": "4", "HOSTNAME": "a-4", "MPPOBS_ATTEMPT": "3", "MPPOBS_NODE": "node-7"},
            Identity("a", 4, 3, "node-7", "kubernetes"),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "12",
                "SLURM_ARRAY_JOB_ID": "900",
                "SLURM_JOB_ID": "912",
                "SLURM_RESTART_COUNT": "1",
                "SLURMD_NODENAME": "c3",
            },
            Identity("900", 12, 1, "c3", "slurm"),
        ),
        ({"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_JOB_ID": "900"}, Identity("900", 12, 0, "", "slurm")),
        ({"SLURM_ARRAY_TASK_ID": "12", "MPPOBS_SHARD": "5"}, Identity("", 5, 0, "", "mppobs")),
        ({"SLURM_JOB_ID": "912"}, Identity()),
        ({"MPPOBS_SHARD": "1", "MPPOBS_ATTEMPT": "soon"}, Identity("", 1, 0, "", "mppobs")),
    ],
)
def test_each_platform_is_read_by_its_own_names(environ: dict[str, str], identity: Identity) -> None:
    """Job, shard, attempt (from 0) and node as the platform's variables say, and which of them said so."""
    assert detect(environ) == identity


def test_shards_that_are_not_written_as_integers_stay_text() -> None:
    """Only the canonical decimal form is an integer: others are names."""
    assert [parse_shard(text) for text in ("0", "12", "012", "-1", "1e3", "٣")] == [0, 12, "012", "-1", "1e3", "٣"]


def test_the_environment_names_the_attempt_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task without a shard of its own takes shard, attempt and job from an array job's environment."""
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "900")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")

    @mppobs.task
    def score() -> None:
        pass

    @mppobs.task(shard="part")
    def other(part: int) -> None:
        pass

    with capture() as captured:
        score()
        other(3)
        assert RECORDER.identity().detector == "slurm"

    first, second = captured.attempts
    assert (captured.context(first).job_id, first.shard_key, first.attempt) == ("900", 12, 2)
    assert captured.context(first).incarnation == 0
    assert (second.shard_key, second.attempt) == (3, 0)


def test_without_a_job_a_process_has_one_of_its_own(captured: Captured) -> None:
    """Where nobody names a job, all attempts of the process belong to one with a name of its own."""
    with mppobs.attempt(stage="s", shard="a"):
        pass
    with mppobs.attempt(stage="s", shard="b"):
        pass

    contexts = {captured.context(record) for record in captured.attempts}
    assert len(contexts) == 1
    (context,) = contexts
    assert context.pipeline == "default"
    assert context.incarnation > 0
    assert {record.shard_key for record in captured.attempts} == {shard_key("a"), shard_key("b")}
