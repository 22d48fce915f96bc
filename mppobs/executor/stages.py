"""What a running job keeps of each stage: its shards, split ones included, their sizes, and how far it has come."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mppobs.executor.attempt import WHOLE, Portion
from mppobs.executor.plan import Plan, Stage
from mppobs.executor.result import HeavyKey, StageProgress
from mppobs.executor.shuffle import Output
from mppobs.model import Shard

_HEAVIEST: Final = 5
"""Keys that are reported of a stage: the one that matters is nearly always the first."""


class Part(NamedTuple):
    """A shard that takes the place of another, with some of its siblings."""

    name: Shard
    partition: int
    """Of what it reads: that of the shard that was split."""
    portion: Portion
    arguments: Mapping[str, Any] | None
    """In place of the shard's own, where the stage's `split` made them."""
    size: int
    """Bytes that it reads, as far as is known."""


class StageRun:
    """One stage of a running job. Shards are named by their positions; those that replace others come after them."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.stage: Stage = plan.stages[index]
        self.index = index
        self.shards = plan.shard_count(self.stage.name)
        """Positions: planned shards and those that replaced some of them."""
        self.read_by_later = any(self.stage.name in later.reads for later in plan.stages)
        self.opened = False
        """Whether what it reads is known, and recorded."""
        self.first_starts = array("Q", bytes(8 * self.shards))
        """When the first attempt of each shard began; 0 while none has."""
        self.input_sizes = array("Q", bytes(8 * self.shards))
        self.output_sizes = array("Q", bytes(8 * self.shards))
        self.output_rows = array("Q", bytes(8 * self.shards))
        self.partition_sizes = array("Q", bytes(8 * self.stage.partitions))
        """Bytes that committed shards have put into each partition."""
        self.parts: dict[int, Part] = {}
        """By position, the shards that replaced others."""
        self.replaced: dict[int, range] = {}
        """By position, shards that were split, and the positions of those that replace them."""
        self.heaviest: list[HeavyKey] = []
        self.done = self.failed = self.running = 0
        self.attempts = self.retries = self.speculative = self.read = self.written = self.rows = 0
        for position, part in enumerate(self.stage.shards or ()):
            self.input_sizes[position] = part.input_bytes

    def name(self, shard: int) -> Shard:
        """Return the identifier of the shard at a position."""
        part = self.parts.get(shard)
        if part is not None:
            return part.name
        return self.stage.shards[shard].shard if self.stage.shards is not None else shard

    def arguments(self, shard: int) -> Mapping[str, Any] | None:
        """Return the arguments of the shard at a position, on top of the stage's."""
        part = self.parts.get(shard)
        if part is not None and part.arguments is not None:
            return part.arguments
        return self.stage.shards[shard].arguments if self.stage.shards is not None else None

    def portion(self, shard: int) -> Portion:
        """Return what the shard at a position reads of its sources."""
        part = self.parts.get(shard)
        return WHOLE if part is None else part.portion

    def positions(self) -> Sequence[int]:
        """Return the positions whose output counts, in the order of the plan; parts stand where their parent stood."""
        if not self.replaced:
            return range(self.shards)
        planned = self.shards - len(self.parts)
        return [found for shard in range(planned) for found in self.leaves(shard)]

    def leaves(self, shard: int) -> Iterator[int]:
        """Yield the positions that stand for the shard at one: its own, or those of its parts."""
        if shard in self.replaced:
            for part in self.replaced[shard]:
                yield from self.leaves(part)
        else:
            yield shard

    def split(self, shard: int, parts: Sequence[Part]) -> None:
        """Put some shards in the place of one."""
        self.replaced[shard] = range(self.shards, self.shards + len(parts))
        for part in parts:
            self.parts[self.shards] = part
            self.shards += 1
            self.input_sizes.append(part.size)
            # What the parent's attempts took is part of how long it took.
            self.first_starts.append(self.first_starts[shard])
            self.output_sizes.append(0)
            self.output_rows.append(0)

    def child_names(self, shard: int, count: int) -> list[Shard]:
        """Return names for shards that replace one: its own, and a number."""
        taken = {str(part.shard) for part in self.stage.shards or ()} | {str(part.name) for part in self.parts.values()}
        stem = f"{self.name(shard)}."
        while any(f"{stem}{number}" in taken for number in range(count)):
            stem += "."
        return [f"{stem}{number}" for number in range(count)]

    def committed(self, shard: int, output: Output | None, bytes_read: int) -> None:
        """Count a shard that is decided, and what it left."""
        self.done += 1
        self.read += bytes_read
        if output is None:
            return
        size = output.size
        self.output_sizes[shard], self.output_rows[shard] = size, output.rows
        for partition, part in enumerate(output.sizes):
            self.partition_sizes[partition] += part
        self.rows += output.rows
        self.written += size if self.read_by_later else 0
        if output.heaviest is not None:
            self.heaviest.append(output.heaviest)
            self.heaviest.sort(key=lambda key: -key.rows)
            del self.heaviest[_HEAVIEST:]

    def lost(self, shard: int) -> None:
        """Take back the count of a shard whose output is gone."""
        self.done -= 1
        self.rows -= self.output_rows[shard]
        self.written -= self.output_sizes[shard] if self.read_by_later else 0
        size = self.output_sizes[shard]
        self.output_sizes[shard] = self.output_rows[shard] = 0
        # Nobody knows any more which partitions its bytes were in. They say where work is, and are not counted.
        share = size // len(self.partition_sizes)
        for partition, held in enumerate(self.partition_sizes):
            self.partition_sizes[partition] = max(held - share, 0)

    def progress(self) -> StageProgress:
        """Return how far it has come."""
        return StageProgress(
            stage=self.stage.name,
            planned=self.shards - len(self.replaced),
            done=self.done,
            running=self.running,
            failed=self.failed,
            attempts=self.attempts,
            retries=self.retries,
            speculative=self.speculative,
            split=len(self.replaced),
            shuffle_read=self.read,
            shuffle_written=self.written,
            rows=self.rows,
            heaviest=tuple(self.heaviest),
        )


def cut(run: StageRun, shard: int, count: int, arguments: Sequence[Mapping[str, Any]] | None) -> list[Part]:
    """
    Return the shards that may replace one: with a share of its input each, or with arguments of their own.

    None at all where that would be fewer than two.

    >>> from mppobs.executor.plan import ShardPlan
    >>> stage = Stage("map", "a:b", (ShardPlan("x", input_bytes=10),))
    >>> [part.name for part in cut(StageRun(Plan("p", (stage,)), 0), 0, 2, [{"from": 0}, {"from": 5}])]
    ['x.0', 'x.1']
    """
    old = run.parts.get(shard)
    partition = shard if old is None else old.partition
    portion = run.portion(shard)
    size = run.input_sizes[shard] // max(count, 1)
    parts: list[Part] = []
    if count < 2:
        return parts
    for number, name in enumerate(run.child_names(shard, count)):
        own = Portion(portion.number + number * portion.of, portion.of * count) if arguments is None else WHOLE
        parts.append(Part(name, partition, own, None if arguments is None else arguments[number], size))
    return parts
