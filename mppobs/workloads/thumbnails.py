"""
Thumbnails: many short tasks fanned out, one gathering what they made. The pattern of functions called per upload.

Each customer's images are a stage of their own with a cap on how many of its shards run at once, so that one customer's
thousand uploads leave room for another's three. (With customers in the hundreds each upload would be a job with the
customer as its tenant, and quotas would be the scheduler's.) The first shard of a worker loads the image library:
a cold start, which the task times and reports.

**In production** the work itself is the smallest part: queueing, cold starts and the cost of a call decide. A burst
of one customer starves all others, and p95 is what cold starts make of it.

**Watch** scheduler latency (M10), p95 against the median of the shards (M3), the activity `cold-start`, concurrency
against the caps, and dollars per 1,000 images.
"""

from __future__ import annotations

import functools
import hashlib
import io
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

import mppobs
from mppobs.executor.plan import Plan, ShardPlan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import Setup, Work, require, require_package, split_paths
from mppobs.workloads.made import make_once

_IMAGES: Final = 4_000
"""At scale 1."""
_SHAPE: Final = (180, 240)
_SEED: Final = 31
_USD_PER_CORE_HOUR: Final = 0.0425
"""Half the on-demand price of a c5.large, which has two cores."""
_SCHEMA: Final = pa.schema([
    ("image", pa.string()), ("sha256", pa.string()), ("bytes", pa.int64()), ("seconds", pa.float64()),
    ("cold", pa.bool_()),
])  # fmt: skip


class Toolkit(NamedTuple):
    """What a process loads before its first image."""

    curve: list[int]
    """A lookup table that lifts the shadows."""
    loaded: float
    """When it was, by the clock that measures."""


def prepare(setup: Setup) -> None:
    """Make the images, the same for the same scale and number of customers."""
    require_package("PIL")
    _images(setup)


def plan(setup: Setup, shards: int) -> Plan:
    """Return a stage for each customer, `shards` shards over all of them, and one that gathers."""
    directory, customers = _images(setup), setup.number("customers")
    stages = tuple(_stage(setup, directory / f"customer-{number}", shards) for number in range(customers))
    names = tuple(stage.name for stage in stages)
    gather = Stage("gallery", path_of(gather_thumbnails), reads=names, arguments={"stages": names})
    return Plan(pipeline="thumbnails", owner="media", deadline=30.0, stages=(*stages, gather))


def make_thumbnails(task: TaskInput) -> pa.Table:
    """Make the thumbnails of some images of one customer."""
    attempt = mppobs.current()
    began = time.perf_counter()
    toolkit = _warm()
    paths, rows = task.arguments["paths"], []
    for number, path in enumerate(paths):
        data = thumbnail(Path(path).read_bytes(), task.arguments["pixels"], toolkit.curve)
        now = time.perf_counter()
        name, digest = _name(Path(path)), hashlib.sha256(data).hexdigest()
        rows.append({"image": name, "sha256": digest, "bytes": len(data), "seconds": now - began})
        rows[-1]["cold"] = number == 0 and toolkit.loaded > began
        began = now
        attempt.progress((number + 1) / len(paths))
    attempt.add(rows=len(rows))
    return pa.Table.from_pylist(rows, _SCHEMA)


def gather_thumbnails(task: TaskInput) -> pa.Table:
    """Return what was made, in the order of the images."""
    stages = task.arguments["stages"]
    return pa.concat_tables(task.read(stage) for stage in stages).sort_by("image")


def thumbnail(data: bytes, pixels: int, curve: list[int]) -> bytes:
    """Return an image made small, as JPEG: the same bytes for the same image."""
    from PIL import Image  # loading it is the cold start that this workload is about

    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("L").point(curve)
        small.thumbnail((pixels, pixels))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=80)
    return out.getvalue()


def check(setup: Setup, answer: Any) -> None:
    """Compare with thumbnails made one after the other in this process."""
    pixels, curve = setup.number("pixels"), _warm().curve
    paths = sorted(_images(setup).glob("*/*.jpg"))
    expected = {_name(path): hashlib.sha256(thumbnail(path.read_bytes(), pixels, curve)).hexdigest() for path in paths}
    found = dict(zip(answer["image"].to_pylist(), answer["sha256"].to_pylist(), strict=True))
    require(answer.num_rows == len(expected), f"{answer.num_rows} thumbnails of {len(expected)} images")
    wrong = sorted(name for name, digest in expected.items() if found.get(name) != digest)
    require(not wrong, f"{len(wrong)} thumbnails are not those of one process, first {wrong[:1]}")


def tell(setup: Setup, answer: Any) -> list[str]:
    """Return what cold starts did to the slowest, and what a thousand images cost."""
    seconds, cold = np.asarray(answer["seconds"]), np.asarray(answer["cold"])
    warm = seconds[~cold] if (~cold).any() else seconds
    cost = usd_per_thousand(float(seconds.sum()), len(seconds), _USD_PER_CORE_HOUR)
    return [
        f"{len(seconds)} images, {int(cold.sum())} cold starts; p95 {np.quantile(seconds, 0.95) * 1e3:.1f} ms, "
        f"{np.quantile(warm, 0.95) * 1e3:.1f} ms without them, slowest {seconds.max() * 1e3:.1f} ms",
        f"${cost:.5f} per 1,000 images at ${_USD_PER_CORE_HOUR} per core and hour",
    ]


def usd_per_thousand(busy_seconds: float, images: int, usd_per_hour: float) -> float:
    """
    Return what a thousand images cost, given how long a core was busy with how many.

    >>> usd_per_thousand(busy_seconds=36.0, images=2_000, usd_per_hour=0.05)
    0.00025
    """
    return busy_seconds / 3600.0 * usd_per_hour * 1000.0 / images


WORK: Final = Work(prepare, plan, check, tell)


@functools.cache
def _warm() -> Toolkit:
    """Return what images need, loaded once for each process: the cold start."""
    with mppobs.current().activity("cold-start"):
        from PIL import Image

        Image.init()  # every format's plugin, as a service that takes any upload must
        curve = [round(255 * (level / 255) ** 0.8) for level in range(256)]
    return Toolkit(curve, time.perf_counter())


def _stage(setup: Setup, directory: Path, shards: int) -> Stage:
    """Return the stage of one customer, with a share of the shards that goes with its images."""
    paths = sorted(str(path) for path in directory.glob("*.jpg"))
    wanted = max(1, min(len(paths), round(shards * len(paths) / setup.count(_IMAGES, least=24))))
    parts = tuple(ShardPlan(number, {"paths": paths[number::wanted]}) for number in range(wanted))
    return Stage(
        name=f"resize-{directory.name}",
        task=path_of(make_thumbnails),
        shards=parts,
        arguments={"pixels": setup.number("pixels")},
        cap=setup.number("limit"),
        splittable=True,
        split=path_of(split_paths),
    )


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _images(setup: Setup) -> Path:
    """Return the directory of the images, making it where it is not there."""
    images, customers = setup.count(_IMAGES, least=24), setup.number("customers")
    return make_once(
        setup.directory / f"images-{images}-c{customers}", lambda directory: _generate(directory, images, customers)
    )


def _generate(directory: Path, images: int, customers: int) -> None:
    """Write smooth noise as JPEG files; each customer has half as many as the one before, the last two the same."""
    from PIL import Image

    chance = np.random.default_rng(_SEED)
    left = images
    for customer in range(customers):
        count = left if customer == customers - 1 else max(1, left // 2)
        left -= count
        home = directory / f"customer-{customer}"
        home.mkdir()
        for number in range(count):
            coarse = chance.integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(coarse).resize(_SHAPE[::-1]).save(home / f"{number:05d}.jpg", quality=85)
