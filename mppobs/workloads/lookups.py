"""
Lookups by workers with a cache beside them: blocks of a remote store, of which each shard needs a few over and over.

Shards belong to groups that share most of their blocks. With locality a shard prefers the node where its group has
been, so a block is fetched about once; without, each worker fetches nearly everything, and the caches throw out what
is needed next.

**In production** the hit rate is the job's speed and its bill, and nobody looks at it: an autoscaler that replaces
workers empties their caches, and a scheduler that waits for the preferred node too long loses more than a miss costs.

**Watch** the activities `remote` and `cached` of the attempts, the hit rate that the answer tells, tail latency after
workers were lost (M3), and scheduler latency, which is what waiting for a node shows as (M10).
"""

from __future__ import annotations

import functools
import time
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import mppobs
from mppobs.errors import ConfigError
from mppobs.executor.plan import Plan, ShardPlan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import Setup, Work, require
from mppobs.workloads.made import make_once

Whole = npt.NDArray[np.int64]

_BLOCKS: Final = 2_000
"""At scale 1."""
_LENGTH: Final = 2_048
"""Numbers of a block: 16 KiB."""
_LOOKUPS: Final = 200
"""Of a shard."""
_AT_HOME: Final = 0.99
"""The share of a shard's lookups that go to its group's blocks; the others go anywhere."""
_GROUP: Final = 12
"""Blocks of a group."""
_SHARDS_OF_GROUP: Final = 4
"""Shards that share a group, where there are enough of them."""
_LEAST_BLOCKS: Final = 96
_SEED: Final = 9


class BlockCache:
    """The blocks that a process used last. Lives as long as the process, and is filled from the remote store."""

    def __init__(self, store: Path, capacity: int, latency: float) -> None:
        """Hold so many blocks; the store takes `latency` seconds for each."""
        self.hits = self.misses = 0
        self._store, self._capacity, self._latency = store, capacity, latency
        self._blocks: OrderedDict[int, Whole] = OrderedDict()

    def block(self, number: int) -> Whole:
        """Return a block, from here or from the store."""
        found = self._blocks.get(number)
        if found is not None:
            self.hits += 1
            self._blocks.move_to_end(number)
            return found
        self.misses += 1
        with mppobs.current().activity("remote"):
            time.sleep(self._latency)
            loaded: Whole = np.load(self._store / f"{number:05d}.npy", allow_pickle=False)
        self._blocks[number] = loaded
        if len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return loaded


def prepare(setup: Setup) -> None:
    """Make the blocks, the same for the same scale."""
    _store(setup)


def plan(setup: Setup, shards: int) -> Plan:
    """Return the lookups as a plan. A shard's node is that of its group, where locality is on."""
    store, blocks = _store(setup), setup.count(_BLOCKS, least=_LEAST_BLOCKS)
    nodes = [name for name in str(setup.values["nodes"]).split(",") if name]
    if not nodes:
        raise ConfigError("nodes: name at least one")
    # The store's own address is part of the arguments, so that a cache of one store never answers for another.
    arguments = {
        "store": str(store),
        "blocks": blocks,
        "cache_blocks": setup.number("cache-blocks"),
        "latency": setup.real("latency-ms") / 1e3,
    }
    groups = [_group_of(shard, shards, blocks) for shard in range(shards)]
    parts = tuple(
        ShardPlan(
            shard,
            {"number": shard, "group": group},
            node=nodes[group % len(nodes)] if setup.flag("locality") else "",
        )
        for shard, group in enumerate(groups)
    )
    return Plan(
        pipeline="lookups",
        owner="serving",
        deadline=60.0,
        stages=(
            Stage("lookup", path_of(look_up), parts, arguments=arguments),
            Stage("summary", path_of(summarise), reads=("lookup",)),
        ),
    )


def look_up(task: TaskInput) -> pa.Table:
    """Look up what a shard asks for; return the sum of what was found, and how often the cache knew it."""
    arguments, attempt = task.arguments, mppobs.current()
    cache = _cache_of(arguments["store"], arguments["cache_blocks"], arguments["latency"])
    hits, misses = cache.hits, cache.misses
    total = 0
    blocks, places = _requests(arguments["number"], arguments["group"], arguments["blocks"])
    with attempt.activity("cached"):
        for block, place in zip(blocks.tolist(), places.tolist(), strict=True):
            total += int(cache.block(block)[place])
    attempt.add(rows=len(blocks))
    return pa.table({
        "shard": [arguments["number"]], "total": [total],
        "hits": [cache.hits - hits], "misses": [cache.misses - misses],
    })  # fmt: skip


def summarise(task: TaskInput) -> pa.Table:
    """Return a row for each shard, in order."""
    return task.read("lookup").sort_by("shard")


def check(setup: Setup, answer: Any) -> None:
    """Compare with lookups in one array of all blocks; every lookup must be a hit or a miss."""
    blocks = setup.count(_BLOCKS, least=_LEAST_BLOCKS)
    store = _store(setup)
    everything = np.stack([np.load(store / f"{number:05d}.npy") for number in range(blocks)])
    for row in answer.to_pylist():
        shard = row["shard"]
        wanted = int(everything[_requests(shard, _group_of(shard, answer.num_rows, blocks), blocks)].sum())
        require(row["total"] == wanted, f"shard {shard}: sum {row['total']}, expected {wanted}")
        require(row["hits"] + row["misses"] == _LOOKUPS, f"shard {shard}: {row['hits']} hits, {row['misses']} misses")
    require(answer["shard"].to_pylist() == list(range(answer.num_rows)), "shards are missing or there twice")


def tell(setup: Setup, answer: Any) -> list[str]:
    """Return the hit rate."""
    way = "with" if setup.flag("locality") else "without"
    return [f"hit rate {hit_rate(answer):.1%} {way} locality, {sum(answer['misses'].to_pylist())} blocks fetched"]


def hit_rate(answer: pa.Table) -> float:
    """Return the share of lookups that a cache answered, in [0, 1]."""
    hits, misses = (sum(answer[name].to_pylist()) for name in ("hits", "misses"))
    return float(hits / (hits + misses))


WORK: Final = Work(prepare, plan, check, tell)


@functools.lru_cache(maxsize=2)
def _cache_of(store: str, capacity: int, latency: float) -> BlockCache:
    """Return this process's cache of a store: what is warm stays so from one shard, and one job, to the next."""
    return BlockCache(Path(store), capacity, latency)


def _group_of(shard: int, shards: int, blocks: int) -> int:
    """Return a shard's group: shards come in no order, so that no scheduler meets the groups by chance."""
    return zlib.crc32(f"{shard}".encode()) % max(2, min(blocks // _GROUP, shards // _SHARDS_OF_GROUP))


def _requests(shard: int, group: int, blocks: int) -> tuple[Whole, Whole]:
    """Return the blocks that a shard asks for and the places in them, the same for the same shard."""
    chance = np.random.default_rng((_SEED, shard))
    home = group * _GROUP + chance.integers(0, _GROUP, _LOOKUPS)
    anywhere = chance.integers(0, blocks, _LOOKUPS)
    return np.where(chance.random(_LOOKUPS) < _AT_HOME, home, anywhere), chance.integers(0, _LENGTH, _LOOKUPS)


def _store(setup: Setup) -> Path:
    """Return the directory of the remote store, making it where it is not there."""
    blocks = setup.count(_BLOCKS, least=_LEAST_BLOCKS)
    return make_once(setup.directory / f"blocks-{blocks}", lambda directory: _generate(directory, blocks))


def _generate(directory: Path, blocks: int) -> None:
    chance = np.random.default_rng(_SEED)
    for number in range(blocks):
        np.save(directory / f"{number:05d}.npy", chance.integers(0, 1 << 30, _LENGTH))
