"""Cached lookups: what locality is worth, on worker processes that are said to be on two nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mppobs.errors import ConfigError
from mppobs.executor import Executor
from mppobs.executor.backends.base import Place
from mppobs.executor.backends.local import LocalBackend, Pool
from mppobs.workloads.lookups import BlockCache, hit_rate
from mppobs.workloads.registry import workload
from tests.workloads.conftest import SCALE


def run(tmp_path: Path, locality: str) -> float:
    """Return the hit rate of a run on two nodes of one worker each."""
    found = workload("lookups").configured({"locality": locality, "cache-blocks": "56"})
    found.prepare(tmp_path, SCALE)
    pool = Pool((Place("node-0"), Place("node-1")))
    with Executor(backend=LocalBackend(2, {"enabled": False}, "w", pool)) as executor:
        answer = executor.run(found.plan(tmp_path, SCALE, 64)).check().answer
    found.check(tmp_path, SCALE, answer)
    return hit_rate(answer)


def test_locality_saves_most_of_what_is_fetched(tmp_path: Path) -> None:
    """Caches that hold a node's groups but not all miss at most half as often when shards go where their group is."""
    near, anywhere = run(tmp_path, "on"), run(tmp_path, "off")

    assert 1 - near < (1 - anywhere) / 2


def test_a_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    """A block is fetched when it is first asked for, and again once enough others were."""
    for number in range(4):
        np.save(tmp_path / f"{number:05d}.npy", np.full(2, number))
    cache = BlockCache(tmp_path, 2, 0.0)
    found = [int(cache.block(number)[0]) for number in (0, 1, 0, 2, 0, 1)]

    assert found == [0, 1, 0, 2, 0, 1]
    assert (cache.hits, cache.misses) == (2, 4)


def test_shards_of_a_group_share_their_node(tmp_path: Path) -> None:
    """Preferred nodes are those that are named, in turns by group; without locality there is none."""
    found = workload("lookups").configured({"nodes": "a,b,c"})
    found.prepare(tmp_path, SCALE)
    shards = found.plan(tmp_path, SCALE, 16).stages[0].shards or ()
    by_group = {part.arguments["group"]: part.node for part in shards}
    off = found.configured({"locality": "off"}).plan(tmp_path, SCALE, 16).stages[0].shards or ()

    assert by_group == {0: "a", 1: "b", 2: "c", 3: "a"}
    assert all(part.node == by_group[part.arguments["group"]] for part in shards)
    assert {part.node for part in off} == {""}
    with pytest.raises(ConfigError, match="name at least one"):
        found.configured({"nodes": ""}).plan(tmp_path, SCALE, 16)
