"""Hostile bytes through the shipping routes while the engine folds: no failure, and honest counts stay as they are."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.clock import SystemClock
from mppobs.journal import format as fmt
from mppobs.model import AttemptOutcome, JobOutcome, ShardOutcome
from mppobs.sidecar.aggregates import PipelineKey, StageKey
from mppobs.sidecar.middleware import Refusals
from mppobs.sidecar.roles import Aggregator
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.store_jobs import JobQuery
from mppobs.sidecar.web import Parts, build_app
from tests.sidecar.handmade import Client, listening
from tests.sidecar.test_app import write_job
from tests.sidecar.test_fuzz_api import fuzz

HEADERS = {"Authorization": "Bearer w"}
PIPELINE = PipelineKey("default", "default", "nightly")
STAGE = StageKey(*PIPELINE, "map")


@contextmanager
def aggregator(directory: Path) -> Iterator[tuple[Aggregator, Parts]]:
    """Return an aggregator that has judged one honest job, and its application's parts."""
    write_job(directory / "journals", "honest", list(range(20)))
    made = SidecarSettings(
        directories=(directory / "journals",), state_directory=directory / "state", write_token="w",
        settle_seconds=0.05, poll_seconds=0.02,
    )  # fmt: skip
    refusals = Refusals()
    with Aggregator(made, refusals, SystemClock()) as found:
        reading = found.reading
        yield found, Parts(made, reading, reading, found.spool, refusals)


def settle(found: Aggregator) -> None:
    """Tick until the honest job is judged."""
    while not found.engine.jobs(JobQuery(job_id="honest"), running=False).jobs:
        found.engine.tick()


def honest(found: Aggregator) -> tuple[int, ...]:
    """Return what was counted of the honest job's pipeline."""
    pipeline, stage = found.engine.fold.pipelines[PIPELINE], found.engine.fold.stages[STAGE]
    return (
        pipeline.jobs[JobOutcome.SUCCESS], stage.shards[ShardOutcome.COMMITTED], stage.attempts[AttemptOutcome.SUCCESS],
        stage.attempts[AttemptOutcome.FAILURE], stage.retries,
    )  # fmt: skip


def segment_of(directory: Path) -> bytes:
    """Return the bytes of an honest segment, of another pipeline."""
    write_job(directory, "other", list(range(5)), pipeline="hostile")
    [path] = directory.glob("*.segment")
    data = path.read_bytes()
    return data[: -(-len(data.rstrip(b"\0")) // fmt.RECORD_BYTES) * fmt.RECORD_BYTES]


def header(journal: int, index: int, size: int) -> bytes:
    """Return a segment's header."""
    words = [fmt.SEGMENT_MAGIC, fmt.VERSION, journal >> 64, journal & (1 << 64) - 1, index + 0, size, 1, *[0] * 5]
    return fmt.RECORD.pack(*words)


hostile_words = st.integers(0, 2**64 - 1) | st.builds(
    fmt.head_word, st.sampled_from(list(fmt.Kind)), st.integers(0, 20), st.integers(0, 40), st.integers(0, 255),
    st.integers(0, 5),
)  # fmt: skip
hostile_records = st.lists(st.lists(hostile_words, min_size=12, max_size=12), max_size=20).map(
    lambda records: b"".join(fmt.RECORD.pack(*words) for words in records)
)


def test_hostile_segments_change_no_honest_count(tmp_path: Path) -> None:
    """Random bytes, random records below a good header, and honest segments with words changed."""
    genuine = segment_of(tmp_path / "elsewhere")
    with aggregator(tmp_path) as (found, parts), Client(build_app(parts), HEADERS) as client:
        settle(found)
        before = honest(found)

        @settings(max_examples=120, deadline=None)
        @given(
            journal=st.integers(1, 2**128 - 1),
            index=st.integers(0, 3),
            body=st.binary(max_size=500) | hostile_records,
            with_header=st.booleans(),
        )
        def ship(journal: int, index: int, body: bytes, with_header: bool) -> None:
            data = header(journal, index, fmt.FIRST_SEGMENT_BYTES) + body if with_header else body
            answer = client.post(f"/api/v1/journals/{journal:032x}/segments/{index}", content=data)
            assert answer.status_code in (200, 409, 413, 422, 507), answer.text
            found.engine.tick()
            assert found.engine.health.ok, found.engine.health.message

        ship()
        for seed in range(60):
            path, body = mutated(genuine, random.Random(seed))
            assert client.post(path, content=body).status_code == 200
            found.engine.tick()
            assert found.engine.health.ok, (seed, found.engine.health.message)
        assert honest(found) == before
        assert "hostile" in {key.pipeline for key in found.engine.fold.pipelines}, "nothing of it was folded"
        assert client.get("/metrics").status_code == client.get("/api/v1/slis").status_code == 200
        assert client.get("/api/v1/jobs?limit=500").status_code == 200
        assert "internal" not in parts.refusals.totals()


def mutated(genuine: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return the path and the body of a request that ships a segment of another journal with some words changed."""
    data = bytearray(genuine)
    journal = chance.getrandbits(128)
    data[: fmt.RECORD_BYTES] = header(journal, 0, fmt.FIRST_SEGMENT_BYTES)
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(fmt.RECORD_BYTES, len(data) - 8, 8)
        word = chance.choice([chance.getrandbits(64), 1, 2**63, 2**64 - 1, chance.getrandbits(16)])
        data[place : place + 8] = word.to_bytes(8, "little")
    return f"/api/v1/journals/{journal:032x}/segments/0", bytes(data)


def test_requests_made_from_the_document_leave_a_real_aggregator_well(tmp_path: Path) -> None:
    """While it folds what they ship: no 500, every status documented, and the honest job as it was."""
    with aggregator(tmp_path) as (found, parts):
        settle(found)
        before = honest(found)
        stop = threading.Event()
        engine = threading.Thread(target=found.run, args=(stop,))
        engine.start()
        try:
            with listening(build_app(parts)) as url:
                # A body of bytes cannot be described well enough for every valid one to be accepted.
                fuzz(
                    tmp_path, url, "--max-examples", "5", "--seed", "2", "--exclude-checks", "positive_data_acceptance"
                )
        finally:
            stop.set()
            engine.join()
        assert found.engine.health.ok
        assert honest(found) == before
        assert "internal" not in parts.refusals.totals()
