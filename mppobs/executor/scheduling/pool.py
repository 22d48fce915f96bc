"""The workers that are up: what they hold, where they are, and which of them has room."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mppobs.executor.events import WorkerUp
from mppobs.executor.policies import MAX_WINDOW

if TYPE_CHECKING:
    from mppobs.executor.scheduling.jobs import Running, Stage

_TRIES: Final = 8
"""Workers looked at for one that is somewhere else: more of a bad node's workers are seldom the least busy ones."""


class Node:
    """A host and its workers."""

    __slots__ = ("alone", "aside_until", "held", "idle", "name", "strikes", "workers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.workers: dict[str, Worker] = {}
        self.held = 0
        """Attempts that its workers hold."""
        self.idle = 0
        """Workers that hold none."""
        self.aside_until = 0
        """Until when it is given nothing for being slow; 0 while it is not."""
        self.strikes = 0
        """Stragglers that it had of late."""
        self.alone = False
        """Whether it is kept, or in use, for an attempt that needs all of its memory."""


class Worker:
    """A worker and the attempts that it holds, in the order in which it runs them."""

    __slots__ = ("draining", "group", "held", "listed", "memory", "name", "node", "open", "zone")

    def __init__(self, event: WorkerUp, node: Node, group: Group, zone: int) -> None:
        self.name = event.worker
        self.memory = event.memory_bytes
        self.node = node
        self.group = group
        self.zone = zone
        """The bit that stands for its zone. Workers of which no zone is known are in one together."""
        self.held: dict[Running, None] = {}
        self.draining = False
        self.open = False
        """Whether it may be given attempts."""
        self.listed = 0
        """Bit n is set while the group's list of workers that hold n attempts has an entry for this one."""


class Group:
    """Workers that are alike in what they may be asked for; finds the least busy one in constant time."""

    __slots__ = ("_by_load", "_filled", "_idle", "memory", "open_in", "spot", "up", "waiting")

    def __init__(self, spot: bool, memory: int) -> None:
        self.spot = spot
        self.memory = memory
        self.up = 0
        """Workers that are up and stay so."""
        self.waiting: dict[Stage, None] = {}
        """Stages that may use only some groups, and wait for room in this one."""
        self.open_in: defaultdict[int, int] = defaultdict(int)
        """Workers by zone that may be given attempts."""
        self._idle: defaultdict[int, dict[Worker, None]] = defaultdict(dict)
        """All workers by zone that hold nothing and may be given attempts, and some of which that was so."""
        self._filled = 0
        """Bit n is set while the list of workers that hold n attempts is not empty."""
        self._by_load: list[deque[Worker]] = [deque() for _ in range(MAX_WINDOW)]

    def enlist(self, worker: Worker) -> None:
        """Make a worker findable after what it holds has changed."""
        load = len(worker.held)
        if load == 0:
            self._idle[worker.zone][worker] = None
        # Entries are not removed when the load changes, only skipped; the bit keeps them to one per load.
        if load < MAX_WINDOW and not worker.listed >> load & 1:
            worker.listed |= 1 << load
            self._filled |= 1 << load
            self._by_load[load].append(worker)

    def least(self, window: int) -> int:
        """Return how many attempts the least busy worker holds, or `MAX_WINDOW` where that is not below `window`."""
        while filled := self._filled & ((1 << window) - 1):
            bit = filled & -filled
            load = bit.bit_length() - 1
            queue = self._by_load[load]
            worker = queue[0]
            if worker.open and len(worker.held) == load:
                return load
            queue.popleft()
            worker.listed ^= bit
            if not queue:
                self._filled ^= bit
        return MAX_WINDOW

    def take(self, load: int) -> Worker:
        """Return the worker that `least` has found. The caller lists it again."""
        queue = self._by_load[load]
        worker = queue.popleft()
        worker.listed ^= 1 << load
        if not queue:
            self._filled ^= 1 << load
        return worker

    def take_idle(self, avoid: int) -> Worker | None:
        """Return a worker outside some zones that holds nothing. The caller lists it again."""
        for zone, workers in self._idle.items():
            while workers and not zone & avoid:
                worker, _ = workers.popitem()
                if worker.open and not worker.held:
                    return worker
        return None

    def has_open(self, avoid: int) -> bool:
        """Return whether workers outside some zones may be given attempts, once they have room."""
        return any(count and not zone & avoid for zone, count in self.open_in.items())

    def forget(self, worker: Worker) -> None:
        """Take out a worker that is given nothing more."""
        self._idle[worker.zone].pop(worker, None)


class Pool:
    """All workers that are up, with their nodes and groups."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.nodes: dict[str, Node] = {}
        self.freed = False
        """Whether a worker has got room since that was last found to be used up."""
        self.frees = 0
        """How often a worker has got room, or is given nothing any more."""
        self.woken: list[Stage] = []
        """Stages that waited for certain workers, of which one may have room now."""
        self.hoping: dict[Stage, list[Group] | None] = {}
        """Stages that wait for workers beside their data, with the groups that they may use, or `None` for all."""
        self.idle_nodes: dict[str, None] = {}
        """Nodes with workers that hold nothing."""
        self.kept = 0
        """Nodes that are kept, or in use, for attempts that need all of their memory."""
        self.zones: dict[str, int] = {}
        """The bits that stand for zones."""
        self.all_groups: list[Group] = []
        self._groups: dict[tuple[bool, int], Group] = {}
        self._allowed: dict[tuple[bool, int], list[Group]] = {}

    def add(self, event: WorkerUp) -> None:
        """Take in a worker that holds nothing."""
        if event.worker in self.workers:
            raise ValueError(f"worker {event.worker!r} is up already")
        node = self.nodes.get(event.node)
        if node is None:
            node = self.nodes[event.node] = Node(event.node)
        key = (event.spot, event.memory_bytes)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(*key)
            # Those that may be evicted come first: who may run anywhere leaves the others to those who may not.
            self.all_groups = sorted(self._groups.values(), key=lambda each: (not each.spot, each.memory))
        zone = self.zones.setdefault(event.zone, 1 << len(self.zones))
        worker = self.workers[event.worker] = node.workers[event.worker] = Worker(event, node, group, zone)
        _open(worker, not node.aside_until and not node.alone)
        self.count_idle(node, 1)
        self._change(group, 1)
        self.enlist(worker)

    def enlist(self, worker: Worker) -> None:
        """Make a worker findable after what it holds has changed, and wake those who wait for one like it."""
        self.freed = True
        if not worker.open:
            return
        self.frees += 1
        group = worker.group
        group.enlist(worker)
        if group.waiting:
            self.woken += group.waiting
            group.waiting.clear()
        if self.hoping:
            self._wake_hoping(worker)

    def _wake_hoping(self, worker: Worker) -> None:
        """Wake the stages that wait for a worker like this on a node like this."""
        name, group = worker.node.name, worker.group
        for stage, groups in list(self.hoping.items()):
            if (groups is None or group in groups) and stage.local is not None and stage.local.has(name):
                del self.hoping[stage]
                stage.local.freed, stage.local.looked = worker, self.frees
                self.woken.append(stage)

    def take(self, window: int, groups: Sequence[Group] | None = None, spot_first: bool = False) -> Worker | None:
        """
        Return the worker that holds least, if that is less than `window`. The caller lists it again.

        Only those of some groups, where these are given; one that may be evicted before any other with `spot_first`.
        """
        best, least = None, window
        for group in self.all_groups if groups is None else groups:
            if spot_first and best is not None and best.spot and not group.spot:
                break
            load = group.least(window)
            if load < least:
                best, least = group, load
                if load == 0:
                    break
        return best.take(least) if best is not None else None

    def take_elsewhere(self, window: int, groups: Sequence[Group], avoid: Worker) -> Worker | None:
        """Return the least busy worker that is not on the same node, or not the same one where nodes are not known."""
        passed: list[Worker] = []
        found = None
        while found is None and len(passed) < _TRIES:
            worker = self.take(window, groups)
            if worker is None:
                break
            if worker is avoid or (worker.node is avoid.node and worker.node.name):
                passed.append(worker)
            else:
                found = worker
        for worker in passed:
            worker.group.enlist(worker)
        return found

    def take_idle(self, groups: Sequence[Group], avoid: int) -> Worker | None:
        """Return a worker of some groups and outside some zones that holds nothing. The caller lists it again."""
        return next((worker for group in groups if (worker := group.take_idle(avoid)) is not None), None)

    def allowed(self, on_demand: bool, memory: int) -> list[Group]:
        """
        Return the groups that will do: not to be evicted, and with so much memory.

        Where no worker has what is asked for, what comes nearest: nothing waits for a worker that is not there.
        """
        key = (on_demand, memory)
        found = self._allowed.get(key)
        if found is None:
            up = [group for group in self.all_groups if group.up]
            found = [group for group in up if not (on_demand and group.spot)] or up
            largest = 0 if any(group.memory == 0 for group in found) else max((g.memory for g in found), default=0)
            found = [group for group in found if group.memory == 0 or group.memory >= min(memory, largest or memory)]
            self._allowed[key] = found
        return found

    def drain(self, name: str) -> Worker | None:
        """Give a worker nothing more; `None` for one that is not known."""
        worker = self.workers.get(name)
        if worker is not None and not worker.draining:
            worker.draining = True
            _open(worker, False)
            worker.group.forget(worker)
            self.frees += 1
            self._change(worker.group, -1)
        return worker

    def remove(self, name: str) -> Worker | None:
        """Take out a worker that is gone; `None` for one that is not known."""
        worker = self.drain(name)
        if worker is not None:
            del self.workers[name]
            del worker.node.workers[name]
            self.count_idle(worker.node, -1)  # if it holds something, that is about to be released and counted
            self._forget_empty(worker.node)
        return worker

    def reopen(self, node: Node) -> None:
        """Make the workers of a node findable, or not, after what keeps them from being used has changed."""
        is_open = not node.aside_until and not node.alone
        for worker in node.workers.values():
            _open(worker, is_open and not worker.draining)
            if worker.open:
                self.enlist(worker)
        self.freed = True
        self.frees += 1
        self._forget_empty(node)

    def keep(self, node: Node, alone: bool) -> None:
        """Keep a node for an attempt that needs all of its memory, or let the others use it again."""
        node.alone = alone
        self.kept += 1 if alone else -1
        self.reopen(node)

    def named_nodes(self) -> Iterator[Node]:
        """Yield the nodes that are known by name."""
        return (node for node in self.nodes.values() if node.name)

    @property
    def busy(self) -> int:
        """Return how many workers hold attempts."""
        return sum(1 for worker in self.workers.values() if worker.held)

    @property
    def draining(self) -> int:
        """Return how many workers are to be taken away."""
        return sum(1 for worker in self.workers.values() if worker.draining)

    def count_idle(self, node: Node, by: int) -> None:
        """Count a worker of a node that holds nothing any more, or something."""
        node.idle += by
        if node.idle <= 0:
            self.idle_nodes.pop(node.name, None)
        elif node.idle == by:
            self.idle_nodes[node.name] = None

    def _forget_empty(self, node: Node) -> None:
        """Forget a node without workers, but not that it is set aside: others may come up there."""
        if not node.workers and not node.aside_until and not node.alone and self.nodes.get(node.name) is node:
            del self.nodes[node.name]

    def _change(self, group: Group, by: int) -> None:
        """Count a worker of a group that comes or goes; who waits for it may now do with others."""
        group.up += by
        if group.up == 0 or (by > 0 and group.up == 1):
            self._allowed.clear()
            self.freed = True
            for each in self.all_groups:
                self.woken += each.waiting
                each.waiting.clear()


def _open(worker: Worker, is_open: bool) -> None:
    """Note whether a worker may be given attempts."""
    if worker.open is not is_open:
        worker.open = is_open
        worker.group.open_in[worker.zone] += 1 if is_open else -1
