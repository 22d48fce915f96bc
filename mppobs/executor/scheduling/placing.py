"""What runs where: shards that wait and workers with room are brought together."""

from __future__ import annotations

from collections.abc import Sequence

from mppobs.executor import policies
from mppobs.executor.events import AttemptId, Submit
from mppobs.executor.policies import SECOND
from mppobs.executor.scheduling.book import Book, Parked, is_held
from mppobs.executor.scheduling.jobs import UNDECIDED, Running, Special, Stage
from mppobs.executor.scheduling.locality import Local
from mppobs.executor.scheduling.pool import Group, Node, Worker

_PARKED_TRIES = 8
"""Parked shards that are looked at after an event; the others' turn comes with the next ones."""
_DATA_TRIES = 16
"""Nodes with input that are looked at for a worker with room; the others' turn comes with the next shards."""


class Placer:
    """Gives attempts to workers."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._wait_ns = int(book.policy.locality_wait * SECOND)

    def fill(self, now_ns: int) -> None:
        """Give attempts to workers while there are both."""
        book, pool, tenants = self._book, self._book.pool, self._book.tenants
        if pool.woken:
            woken, pool.woken = pool.woken, []
            for waiting in woken:
                book.enlist(waiting)
        if book.parked:
            self._place_parked()
        # Most events free no worker: then there is nothing to look for.
        while pool.freed:
            stage = tenants.next_stage()
            if stage is None:
                return
            if stage.backups:
                self._begin_copy(stage)
            elif not self._place_next(stage, now_ns):
                pool.freed = False

    def locate(self, stage: Stage, nodes: Sequence[str | None], now_ns: int) -> None:
        """Take in where the input of a stage's shards is."""
        if self._wait_ns > 0 and any(nodes):
            stage.local = Local(stage.order, nodes, now_ns)

    # Shards as they come

    def _place_next(self, stage: Stage, now_ns: int) -> bool:
        """Place a stage's next shard, or have the stage or the shard wait. Returns whether workers may have room."""
        groups = self._groups_of(stage)
        window = policies.window_by_duration(stage.timing.mean_ns)
        if stage.local is not None and not stage.again:
            return self._place_by_data(stage, stage.local, window, groups, now_ns)
        worker = self._book.pool.take(window, groups, stage.spec.priority < 0)
        if worker is None:
            return self._await_room(stage, groups)
        shard = stage.pop()
        special = stage.special.get(shard) if stage.special else None
        if shard < 0:
            worker.group.enlist(worker)
        elif special is None or (not special.is_bound and not self._passes_on(special, worker, groups)):
            self._submit(stage, shard, worker)
        else:
            worker.group.enlist(worker)
            if not self._place_special(stage, shard, special):
                self._park(stage, shard, special, now_ns)
        # Mostly one worker was free: then there is no need to ask whose turn it would be with another.
        return window > 1 or bool(self._book.pool.idle_nodes)

    def _groups_of(self, stage: Stage) -> list[Group] | None:
        """Return the groups whose workers a stage may use; `None` for all."""
        on_demand, needed = self._is_on_demand(stage), stage.spec.memory_bytes
        return self._book.pool.allowed(on_demand, needed) if on_demand or needed else None

    def _is_on_demand(self, stage: Stage) -> bool:
        """Return whether a stage does not run on workers that may be evicted, where there are others."""
        spot = self._book.policy.spot
        return spot is not None and stage.spec.priority >= spot.on_demand_from

    def _await_room(self, stage: Stage, groups: list[Group] | None) -> bool:
        """Have a stage wait that may use only some workers; return whether others may have room."""
        if not groups or len(groups) == len(self._book.pool.all_groups):
            return False
        for group in groups:
            group.waiting[stage] = None
        self._take_off(stage)
        return True

    def _take_off(self, stage: Stage) -> None:
        """Take the stage off the list whose turn it is."""
        job = stage.job
        job.ready.remove(stage.index)
        stage.listed = False
        # A list without its smallest is a heap no more where that was in its middle.
        job.ready.sort()

    # Shards beside their data

    def _place_by_data(self, stage: Stage, local: Local, window: int, groups: list[Group] | None, now_ns: int) -> bool:
        """Place a shard on the node that has its input; elsewhere only when that was waited for long enough."""
        pool = self._book.pool
        worker, local.freed = local.freed, None
        if worker is None or not _has_room(worker, window, groups) or not local.has(worker.node.name):
            worker = pool.take(window, groups)
            if worker is None:
                return self._await_room(stage, groups)
            worker.group.enlist(worker)
        if not local.has(worker.node.name) and policies.waits_for_data(now_ns - local.since_ns, self._wait_ns):
            beside = self._beside_data(local, window, groups)
            if beside is None and local.is_at(pool.nodes):
                self._await_data(stage, local, groups)
                return True
            worker = beside or worker
        shard = local.claim_at(worker.node.name)
        if shard >= 0:
            local.since_ns = now_ns
            stage.skip_claimed()
        else:
            shard = stage.pop()
        if shard >= 0 and stage.status[shard] == UNDECIDED:
            self._submit(stage, shard, worker)
        return True

    def _beside_data(self, local: Local, window: int, groups: list[Group] | None) -> Worker | None:
        """Return a worker with room on one of the nodes that hold the input of shards."""
        pool, nodes = self._book.pool, self._book.pool.nodes
        if local.looked == pool.frees:
            return None
        # On a busy cluster few nodes have room, on an idle one any node with data has: look where there is less to see.
        few = window == 1 and len(pool.idle_nodes) <= _DATA_TRIES
        for name in list(pool.idle_nodes) if few else local.some_nodes(_DATA_TRIES):
            node = nodes.get(name)
            if node is not None and (node.idle or window > 1) and local.has(name):
                for worker in node.workers.values():
                    if _has_room(worker, window, groups):
                        return worker
        local.looked = pool.frees
        return None

    def _await_data(self, stage: Stage, local: Local, groups: list[Group] | None) -> None:
        """Have a stage wait for workers beside its data, or for the time when it takes any."""
        hoping = self._book.pool.hoping
        self._take_off(stage)
        is_timed = stage in hoping
        hoping[stage] = groups
        if is_timed:
            return

        def take_any(now_ns: int) -> None:
            if stage in hoping:
                del hoping[stage]
                self._book.enlist(stage)
                self._book.pool.freed = True

        self._book.timers.at(local.since_ns + self._wait_ns, take_any)

    # Shards that need something of their worker

    def _begin_copy(self, stage: Stage) -> None:
        """Place a copy of an attempt that runs long, or have it wait."""
        primary = stage.backups.popleft()
        parked = Parked(stage, primary.attempt.shard, primary)
        if not self._is_wanted(parked):
            self._book.drop_copy(stage, parked.shard)
        elif not self._place(parked):
            self._book.parked.append(parked)

    def _place_parked(self) -> None:
        """Try some of the shards that wait for a worker that suits them."""
        book = self._book
        tries = _PARKED_TRIES
        for _ in range(len(book.parked)):
            parked = book.parked.popleft()
            if not self._is_wanted(parked):
                book.forget(parked)
            elif not self._place_if_it_may(parked):
                book.parked.append(parked)
                tries -= 1
                if tries == 0:
                    return

    def _place_if_it_may(self, parked: Parked) -> bool:
        """Place a parked shard, unless something else keeps it from starting; then no node is kept for it either."""
        if parked.looked == self._book.pool.frees:
            return False
        if self._book.tenants.may_start(parked.stage):
            return self._place(parked)
        if parked.primary is None and parked.shard in parked.stage.special:
            self._book.give_node_back(parked.stage.special[parked.shard])
        return False

    def _is_wanted(self, parked: Parked) -> bool:
        """Return whether a parked shard is still to be tried: a copy only while the attempt that it is of runs."""
        stage, primary = parked.stage, parked.primary
        if stage.closed or stage.status[parked.shard] != UNDECIDED:
            return False
        if primary is None:
            return not stage.copies(parked.shard)
        return is_held(primary) and primary.stop is None

    def _place(self, parked: Parked) -> bool:
        """Place a shard that needs something of its worker; return whether that could be done."""
        stage, shard = parked.stage, parked.shard
        pool = self._book.pool
        if parked.primary is None:
            special = stage.special.get(shard) or Special()
            if self._place_special(stage, shard, special):
                return True
            parked.looked = -1 if special.is_bound else pool.frees
            return False
        groups = self._groups_of(stage)
        worker = pool.take_elsewhere(1, pool.all_groups if groups is None else groups, parked.primary.worker)
        if worker is None:
            return False
        del stage.pending_backups[shard]
        self._submit(stage, shard, worker, speculative=True)
        return True

    def _place_special(self, stage: Stage, shard: int, special: Special) -> bool:
        """Place a shard that ran out of memory, or was evicted too often."""
        pool = self._book.pool
        groups = pool.allowed(special.on_demand or self._is_on_demand(stage), stage.spec.memory_bytes)
        if special.out_of_memory:
            larger = [group for group in groups if group.memory > special.memory]
            if not larger:
                return self._place_alone(stage, shard, special, groups)
            self._book.give_node_back(special)
            groups = larger
        if self._has_other_zone(special, groups):
            worker = pool.take_idle(groups, special.zones)
        else:
            worker = pool.take(1 if special.is_bound else policies.window_by_duration(stage.timing.mean_ns), groups)
        if worker is None:
            return False
        self._submit(stage, shard, worker)
        return True

    def _has_other_zone(self, special: Special, groups: list[Group]) -> bool:
        """Return whether a shard still waits for a zone that it was not lost in, and such workers are there."""
        return special.wait_ns > 0 and any(group.has_open(special.zones) for group in groups)

    def _passes_on(self, special: Special, worker: Worker, groups: list[Group] | None) -> bool:
        """Return whether a shard does not take a worker with room, since it was lost in that zone."""
        all_groups = self._book.pool.all_groups
        return bool(worker.zone & special.zones) and self._has_other_zone(special, groups or all_groups)

    def _park(self, stage: Stage, shard: int, special: Special, now_ns: int) -> None:
        """Have a shard wait for a worker that suits it; in any zone, when it has waited for long enough."""
        book, parked = self._book, Parked(stage, shard)
        book.parked.append(parked)

        def take_any_zone(_: int) -> None:
            if parked not in book.parked:
                return
            special.wait_ns = 0
            if not special.is_bound and self._is_wanted(parked):
                # In the line it is placed at once; of those that are parked only some are looked at after an event.
                book.parked.remove(parked)
                stage.again.appendleft(shard)
                book.enlist(stage)
                book.pool.freed = True

        if special.wait_ns > 0:
            book.timers.at(now_ns + special.wait_ns, take_any_zone)

    def _place_alone(self, stage: Stage, shard: int, special: Special, groups: list[Group]) -> bool:
        """Place a shard on a node that has nothing else to do, which is kept for it from now on."""
        node = special.node
        if node is not None and (node.aside_until or not _usable(node, groups)):
            self._book.give_node_back(special)
            node = None
        if node is None:
            node = special.node = self._node_to_keep(groups)
            if node is None:
                return False
            self._book.pool.keep(node, True)
        usable = _usable(node, groups)
        if node.held or not usable:
            return False
        self._submit(stage, shard, max(usable, key=lambda worker: worker.memory))
        return True

    def _node_to_keep(self, groups: list[Group]) -> Node | None:
        """Return the node with the largest workers, the least busy one among these; half of the nodes are not kept."""
        nodes = self._book.pool.nodes.values()
        if 2 * self._book.pool.kept >= len(nodes):
            return None
        free = [node for node in nodes if not node.alone and not node.aside_until and _usable(node, groups)]
        if not free:
            return None
        return max(free, key=lambda node: (max(worker.memory for worker in node.workers.values()), -node.held))

    # The deed

    def _submit(self, stage: Stage, shard: int, worker: Worker, speculative: bool = False) -> None:
        """Give an attempt at a shard to a worker."""
        job = stage.job
        number = stage.numbers[shard]
        stage.numbers[shard] = number + 1
        attempt = AttemptId(job.key, stage.index, shard, number)
        running = Running(attempt, stage, worker, speculative)
        stage.held[attempt] = running
        if not worker.held:
            self._book.pool.count_idle(worker.node, -1)
        worker.held[running] = None
        worker.node.held += 1
        worker.group.enlist(worker)
        self._book.running += 1
        job.running += 1
        if not job.begun:
            self._book.tenants.begin(job)
        self._book.tenants.count(job.tenant, 1)
        self._book.out.append(Submit(attempt, worker.name, speculative))


def _usable(node: Node, groups: list[Group]) -> list[Worker]:
    """Return the workers of a node that belong to some groups and stay up."""
    return [worker for worker in node.workers.values() if not worker.draining and worker.group in groups]


def _has_room(worker: Worker, window: int, groups: list[Group] | None) -> bool:
    """Return whether a worker may be given an attempt of a stage that uses some groups, or all."""
    return worker.open and len(worker.held) < window and (groups is None or worker.group in groups)
