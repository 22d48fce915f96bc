"""Which shards of a stage have their input on which node."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence


class Local:
    """The shards of a stage that have not been tried, by the node that holds their input."""

    __slots__ = ("_claimed", "_queues", "_sorted", "since_ns")

    def __init__(self, order: Sequence[int], nodes: Sequence[str | None], now_ns: int) -> None:
        self.since_ns = now_ns
        """When a shard was last placed beside its data."""
        self._claimed = bytearray(len(nodes))
        self._sorted = nodes
        self._queues: dict[str, array[int]] = {}
        # Backwards, so that the first one can be popped off the end.
        for shard in reversed(order):
            node = nodes[shard]
            if node:
                self._queues.setdefault(node, array("L")).append(shard)

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

    def first(self, node: str) -> int:
        """Return the first shard whose input is on a node, which `has` has found."""
        return self._queues[node][-1]

    def is_claimed(self, shard: int) -> bool:
        """Return whether a shard has been taken out of the queues."""
        return shard < len(self._claimed) and bool(self._claimed[shard])

    def node_of(self, shard: int) -> str | None:
        """Return the node that holds a shard's input, for a shard that has one and has not been tried."""
        return None if self.is_claimed(shard) else self._sorted[shard]
