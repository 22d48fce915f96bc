"""Which shards of a stage have their input on which node."""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mppobs.executor.scheduling.pool import Worker


class Local:
    """The shards of a stage that have not been tried, by the node that holds their input."""

    __slots__ = ("_at", "_claimed", "_names", "_queues", "freed", "looked", "since_ns")

    def __init__(self, order: Sequence[int], nodes: Sequence[str | None], now_ns: int) -> None:
        self.since_ns = now_ns
        """When a shard was last placed beside its data."""
        self.freed: Worker | None = None
        """A worker beside the data that has got room while that was waited for."""
        self.looked = -1
        """How often workers had got room when there was last none beside the data."""
        self._claimed = bytearray(len(nodes))
        self._queues: dict[str, array[int]] = {}
        # Backwards, so that the first one can be popped off the end.
        for shard in reversed(order):
            node = nodes[shard]
            if node:
                self._queues.setdefault(node, array("L")).append(shard)
        self._names = list(self._queues)
        self._at = 0

    def claim(self, shard: int) -> bool:
        """Take a shard out of all queues; return whether it was still there."""
        if shard < len(self._claimed):
            if self._claimed[shard]:
                return False
            self._claimed[shard] = 1
        return True

    def has(self, node: str) -> bool:
        """Return whether shards are left whose input is on a node."""
        queue = self._queues.get(node)
        if queue is None:
            return False
        while queue and self._claimed[queue[-1]]:
            queue.pop()
        if not queue:
            del self._queues[node]
        return bool(queue)

    def is_at(self, nodes: Container[str]) -> bool:
        """Return whether shards may be left whose input is on one of these nodes."""
        return any(name in nodes for name in self._queues)

    def claim_at(self, node: str) -> int:
        """Take the first shard whose input is on a node out of all queues and return it; -1 where there is none."""
        if not self.has(node):
            return -1
        shard = self._queues[node].pop()
        self._claimed[shard] = 1
        return shard

    def is_claimed(self, shard: int) -> bool:
        """Return whether a shard has been taken out of the queues."""
        return shard < len(self._claimed) and bool(self._claimed[shard])

    def some_nodes(self, most: int) -> Iterator[str]:
        """Yield nodes that may hold the input of shards, so many at most, going round from call to call."""
        if len(self._names) > 2 * len(self._queues):
            self._names, self._at = list(self._queues), 0
        for _ in range(min(most, len(self._names))):
            self._at = (self._at + 1) % len(self._names)
            yield self._names[self._at]
