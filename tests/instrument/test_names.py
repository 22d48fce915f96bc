"""Names and closed lists as they are let in."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mppobs
from mppobs.errors import ConfigError
from mppobs.instrument.names import clean
from mppobs.instrument.settings import from_environment
from mppobs.testing import Captured, capture


@given(st.text())
def test_a_clean_name_is_one_line_and_stays_so(text: str) -> None:
    """Whatever comes in, what comes out is encodable, is one line, and is cleaned no further."""
    name = clean(text)

    assert len(name.splitlines()) <= 1
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in name)
    name.encode()
    assert clean(name) == name


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_a_printable_name_is_left_alone(text: str) -> None:
    """Spaces and signs that can be printed are the user's business."""
    assert clean(text) == text


def test_names_lose_their_control_characters_wherever_they_come_from(captured: Captured) -> None:
    """Arguments of a job, a stage, a carrier and settings: no newline gets into a record."""
    job = mppobs.job(pipeline="night\nly\n", job_id="n\t1", tenant="a\x00", owner="b\r")
    with job, mppobs.attempt(stage="ma\np", shard=1):
        pass
    with mppobs.attach({"mppobs-pipeline": "p\n", "mppobs-job-id": "j\n"}), mppobs.attempt(stage="s", shard=1):
        pass
    mppobs.configure(tenant="t\n")

    first, second = (captured.context(record) for record in captured.attempts)
    assert (first.pipeline, first.job_id, first.stage) == ("night ly", "n 1", "ma p")
    assert (first.tenant, first.owner) == ("a", "b")
    assert (second.pipeline, second.job_id) == ("p", "j")
    assert mppobs.inject()["mppobs-tenant"] == "t"
    assert from_environment({"MPPOBS_PIPELINE": "x\n"}).pipeline == "x"


@pytest.mark.parametrize("name", ["", "\n", None])
def test_a_job_without_a_pipeline_is_said_once(name: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """It counts as the pipeline `default`, with one warning however many there are."""
    from mppobs.instrument.recorder import RECORDER

    RECORDER._warned.clear()
    with capture() as captured, caplog.at_level(logging.WARNING, "mppobs"):
        for _ in range(2):
            with mppobs.job(pipeline=name):
                pass

    assert captured.context(captured.jobs[0]).pipeline == "default"
    assert [record.getMessage() for record in caplog.records] == [
        "mppobs: a job without a pipeline counts as pipeline 'default'"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tier": "crit"}, "'crit' is none of critical, standard, besteffort: did you mean 'critical'"),
        ({"tier": "gold"}, "'gold' is none of critical, standard, besteffort$"),
        ({"run_kind": "backfil"}, "scheduled.*did you mean 'backfill'"),
        ({"deadline": "soon"}, "'soon' is no duration: write 30s"),
    ],
)
def test_a_word_outside_its_list_is_answered_with_the_list(arguments: dict[str, str], message: str) -> None:
    """The error names what there is, and what was meant where that can be told."""
    with pytest.raises(ConfigError, match=message):
        mppobs.job(**arguments)  # type: ignore[call-overload]
