"""Thumbnails: caps for each customer, cold starts that are counted, and what a thousand cost."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

from PIL import Image

from mppobs.executor import Executor
from mppobs.model import AttemptRecord, DetailRecord
from mppobs.testing import capture
from mppobs.workloads import thumbnails
from mppobs.workloads.registry import workload
from tests.executor.test_records import of, sealed
from tests.workloads.conftest import SCALE
from tests.workloads.serial import run_serially


def test_customers_have_stages_with_caps_and_a_share_of_the_shards(tmp_path: Path) -> None:
    """The one who uploads most has most shards, none has more at a time than the limit, and all meet in one."""
    found = workload("thumbnails").configured({"customers": "3", "limit": "5"})
    found.prepare(tmp_path, SCALE)
    plan = found.plan(tmp_path, SCALE, 20)

    assert [(stage.name, stage.cap, plan.shard_count(stage.name)) for stage in plan.stages] == [
        ("resize-customer-0", 5, 10),
        ("resize-customer-1", 5, 5),
        ("resize-customer-2", 5, 5),
        ("gallery", 0, 1),
    ]


def test_only_the_first_image_of_a_process_is_cold(tmp_path: Path) -> None:
    """The first shard that runs reports one cold start, and what is told keeps it apart."""
    thumbnails._warm.cache_clear()
    found = workload("thumbnails")
    found.prepare(tmp_path, SCALE)
    plan = found.plan(tmp_path, SCALE, 10)
    first, second = run_serially(plan), run_serially(plan)

    assert (sum(first["cold"].to_pylist()), sum(second["cold"].to_pylist())) == (1, 0)
    assert found.tell(tmp_path, SCALE, first)[0].startswith("40 images, 1 cold starts; p95 ")
    assert found.tell(tmp_path, SCALE, first)[1].startswith("$0.000")


def test_thumbnails_are_small_images(tmp_path: Path) -> None:
    """No side is longer than asked for, and the shape is kept."""
    found = workload("thumbnails")
    found.prepare(tmp_path, SCALE)
    path = next(tmp_path.glob("images-*/customer-0/00000.jpg"))
    data = thumbnails.thumbnail(path.read_bytes(), 48, list(range(256)))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (48, 36)


def test_caps_hold_on_workers_and_cold_starts_are_recorded(tmp_path: Path) -> None:
    """
    With a limit of one, shards of a customer never overlap, on three workers that have nothing else to do.

    Each worker that made a thumbnail has one attempt with a cold start among its activities.
    """
    found = workload("thumbnails").configured({"limit": "1"})
    found.prepare(tmp_path, SCALE)
    with capture() as captured:
        with Executor(3) as executor:
            answer = executor.run(found.plan(tmp_path, SCALE, 24)).check().answer
        found.check(tmp_path, SCALE, answer)
        records = sealed(captured.directory)
    cold = [record for _, record in of(DetailRecord, records) if "cold-start" in dict(record.amounts)]  # type: ignore[union-attr]

    assert len(cold) == sum(answer["cold"].to_pylist()) <= 3
    for customer in range(4):
        times = sorted(
            (record.start_ns, record.start_ns + record.duration_ns)  # type: ignore[union-attr]
            for context, record in of(AttemptRecord, records)
            if context.stage == f"resize-customer-{customer}"
        )
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
