"""Log fields: what is logged says which attempt it belongs to."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

import mppobs
from mppobs.instrument.logs import FIELDS
from mppobs.testing import Captured


@pytest.fixture
def stream() -> Iterator[tuple[logging.Logger, io.StringIO, logging.Handler]]:
    """Give a logger, what it writes, and its handler."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logger = logging.Logger("user")  # noqa: LOG001 - of this test's own
    logger.addHandler(handler)
    yield logger, text, handler
    handler.close()


def test_a_line_of_json_carries_the_attempt(
    captured: Captured, stream: tuple[logging.Logger, io.StringIO, logging.Handler]
) -> None:
    """Job, stage, shard, attempt and the IDs by which spans and exemplars are found are in every line."""
    logger, text, handler = stream
    handler.setFormatter(mppobs.JsonFormatter())
    with (
        mppobs.job(pipeline="nightly", job_id="n-1") as run,
        mppobs.attempt(stage="map", shard="p", attempt=1) as attempt,
    ):
        logger.warning("read %d", 3, extra={"rows": 3})

    line = json.loads(text.getvalue())
    assert {name: line[name] for name in FIELDS} == {
        "pipeline": "nightly",
        "job_id": "n-1",
        "stage": "map",
        "shard": "p",
        "attempt": 1,
        "trace_id": f"{run.trace_id:032x}",
        "span_id": f"{attempt.span_id:016x}",
    }
    assert (line["message"], line["level"], line["logger"], line["rows"]) == ("read 3", "WARNING", "user", 3)
    assert line["time"].endswith("Z")


def test_in_a_job_alone_the_line_names_the_job(
    captured: Captured, stream: tuple[logging.Logger, io.StringIO, logging.Handler]
) -> None:
    """Outside an attempt the job is known; outside both there are no fields."""
    logger, text, handler = stream
    handler.setFormatter(mppobs.JsonFormatter())
    with mppobs.job(pipeline="nightly", job_id="n-1"):
        logger.error("x")
    logger.error("y")

    first, second = (json.loads(line) for line in text.getvalue().splitlines())
    assert (first["job_id"], "stage" in first) == ("n-1", False)
    assert not set(FIELDS) & set(second)


def test_exceptions_and_odd_values_fit_on_the_line(stream: tuple[logging.Logger, io.StringIO, logging.Handler]) -> None:
    """A traceback, a stack and a value that is not JSON are text in the same object."""
    logger, text, handler = stream
    handler.setFormatter(mppobs.JsonFormatter())
    try:
        raise KeyError("ü")
    except KeyError:
        logger.exception("bad", stack_info=True, extra={"odd": {1, 2}})

    (line,) = text.getvalue().splitlines()
    assert "KeyError: 'ü'" in json.loads(line)["exception"]
    assert "Stack" in json.loads(line)["stack"]
    assert json.loads(line)["odd"] == "{1, 2}"


def test_the_filter_gives_fields_to_any_formatter(
    captured: Captured, stream: tuple[logging.Logger, io.StringIO, logging.Handler]
) -> None:
    """A plain format string can name the fields, inside and outside attempts; what a record has already stays."""
    logger, text, handler = stream
    handler.addFilter(mppobs.LogFields())
    handler.setFormatter(logging.Formatter("%(stage)s/%(shard)s %(message)s"))
    with mppobs.attempt(stage="map", shard=7):
        logger.error("in")
        logger.error("own", extra={"shard": "mine"})
    logger.error("out")

    assert text.getvalue().splitlines() == ["map/7 in", "map/mine own", "/ out"]
