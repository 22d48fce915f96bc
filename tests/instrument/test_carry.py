"""`inject` and `attach`: one job over several processes."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mppobs
from mppobs.instrument.carrier import carrier_of, run_of
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import Handoff
from mppobs.instrument.settings import from_environment
from mppobs.journal.format import shard_key
from mppobs.model import Context, RunKind, Tier
from mppobs.testing import Captured, capture

PRINTABLE = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
NAMES = st.text(PRINTABLE, min_size=1, max_size=20).filter(lambda name: name == " ".join(name.split()))


@given(
    context=st.builds(
        Context,
        pipeline=NAMES,
        job_id=NAMES,
        incarnation=st.integers(0, 2**62),
        tenant=NAMES,
        owner=st.just("") | NAMES,
        tier=st.sampled_from(Tier),
        cluster=NAMES,
        run_kind=st.sampled_from(RunKind),
        deadline_ns=st.integers(0, 2**62),
    ),
    stage=st.text(max_size=5),
    shard=st.none() | st.integers(0, 2**60) | st.text(),
    attempt=st.integers(0, 100),
    speculative=st.booleans(),
    assigned=st.none() | st.integers(1, 2**62),
)
def test_what_is_carried_arrives(
    context: Context, stage: str, shard: int | str | None, attempt: int, speculative: bool, assigned: int | None
) -> None:
    """Any job and any attempt survive the journey through texts, the kind of the shard included."""
    carrier = carrier_of(context, Handoff(stage, shard, attempt, speculative, assigned))

    run = run_of(json.loads(json.dumps(carrier)), from_environment({}), None)

    assert run.context == context
    if stage or shard is not None:
        assert run.handoff is not None
        found = (run.handoff.stage, run.handoff.shard, run.handoff.attempt, run.handoff.speculative)
        assert found == (stage, shard, attempt, speculative)
        assert run.handoff.take_assigned() == assigned
        assert run.handoff.take_assigned() is None


def test_an_attached_attempt_is_recorded_as_it_was_handed_over(captured: Captured) -> None:
    """Job, stage, shard, attempt and the scheduler's delay are those of whoever injected."""
    with mppobs.job(pipeline="nightly", job_id="n-1") as run:
        carrier = mppobs.inject(stage="map", shard="p-7", attempt=2, speculative=True)
    time.sleep(0.01)
    with mppobs.attach(carrier):
        with mppobs.attempt():
            pass
        with mppobs.attempt(shard=8):
            pass

    first, second = captured.attempts
    context = captured.context(first)
    assert (context.pipeline, context.job_id, context.stage) == ("nightly", "n-1", "map")
    assert context.incarnation == run.run.context.incarnation
    assert (first.shard_key, first.attempt, first.speculative) == (shard_key("p-7"), 2, True)
    assert first.delay_ns is not None
    assert 10**7 <= first.delay_ns < 10**10
    assert (second.shard_key, second.attempt, second.delay_ns) == (8, 0, None)


def test_a_task_takes_what_its_decorator_leaves_open(captured: Captured) -> None:
    """The decorator's own stage and shard win; what it does not say comes from what is attached."""

    @mppobs.task
    def plain() -> None:
        pass

    @mppobs.task(stage="own", shard="part")
    def own(part: int) -> None:
        pass

    carrier = {"mppobs-pipeline": "p", "mppobs-job-id": "j", "mppobs-stage": "map", "mppobs-shard": "4"}
    with mppobs.attach(carrier):
        plain()
        own(4)
        own(5)
    with mppobs.attach(carrier | {"mppobs-stage": "reduce"}):
        plain()

    found = [(captured.context(record).stage, record.shard_key) for record in captured.attempts]
    assert found == [("map", 4), ("own", 4), ("own", 5), ("reduce", 4)]


def test_the_environment_carries_a_job_to_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose environment holds what `environment` gave takes part without a call."""
    with capture() as captured, mppobs.job(pipeline="nightly", job_id="n-2"):
        variables = mppobs.environment(mppobs.inject(stage="map", shard=3, attempt=1))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with capture(from_environment(variables)) as captured, mppobs.attempt():
        pass

    (record,) = captured.attempts
    assert (captured.context(record).job_id, captured.context(record).stage) == ("n-2", "map")
    assert (record.shard_key, record.attempt) == (3, 1)
    assert record.delay_ns is not None


def test_detach_ends_what_attach_began(captured: Captured) -> None:
    """Without a `with` the attachment lasts until it is detached, once."""
    attached = mppobs.attach({"mppobs-pipeline": "p", "mppobs-job-id": "j"})
    assert mppobs.inject()["mppobs-job-id"] == "j"
    attached.detach()
    attached.detach()
    assert mppobs.inject()["mppobs-job-id"] != "j"


@pytest.mark.parametrize(
    "carrier",
    [
        {},
        {"mppobs-pipeline": "p"},
        {"mppobs-pipeline": "p", "mppobs-job-id": "j", "mppobs-incarnation": "soon"},
        {"mppobs-pipeline": "p", "mppobs-job-id": "j", "mppobs-tier": "gold"},
        {"mppobs-pipeline": "p", "mppobs-job-id": "j", "mppobs-shard": "[1]"},
        {"mppobs-pipeline": "p", "mppobs-job-id": "j", "mppobs-shard": "{"},
        {"MPPOBS_CONTEXT": "no json"},
        {"MPPOBS_CONTEXT": '["x"]'},
        {"MPPOBS_CONTEXT": '{"a": 1}'},
    ],
)
def test_what_cannot_be_understood_changes_nothing(captured: Captured, carrier: dict[str, str]) -> None:
    """A carrier from a stranger is passed over and counted; the work goes on under the job that it had."""
    before, job_id = RECORDER.notes, mppobs.inject()["mppobs-job-id"]
    with mppobs.attach(carrier):
        assert mppobs.inject()["mppobs-job-id"] == job_id
    assert RECORDER.notes == before + 1


def test_attaching_again_and_again_defines_the_context_once(captured: Captured) -> None:
    """A worker that attaches per attempt writes one context per stage and job, not one per attempt."""
    for part in range(200):
        with mppobs.attach({"mppobs-pipeline": "p", "mppobs-job-id": "j", "mppobs-shard": str(part)}), mppobs.attempt():
            pass

    assert len({record.context_id for record in captured.attempts}) == 1
    assert [record.shard_key for record in captured.attempts] == list(range(200))
