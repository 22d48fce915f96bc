"""
The simulated machines: nodes in zones, workers that run what they are given, and what happens to them.

Asked for the next event, it moves its clock there. It knows nothing of jobs or policies: it is told what an attempt
takes, and says what became of it in the scheduler's own words.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptProgress,
    AttemptStarted,
    Event,
    WorkerDraining,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.faults import ArmedFault, Fault, FaultKind, arm
from mppobs.executor.sim.draw import choose, lognormal, number_of, uniform
from mppobs.executor.sim.fate import Demand, Fate, Site, decide, usual_seconds
from mppobs.executor.sim.model import Cluster
from mppobs.executor.sim.places import Node, Running, SimWorker
from mppobs.model import AttemptOutcome, Reason

_STOP_NS: Final = 50_000_000
"""How long a worker takes to stop an attempt."""
_PROGRESS_AFTER: Final = 2.0
"""An attempt that takes longer than so many times its usual time tells once how far it is."""
_MACHINES: Final = (FaultKind.NODE_LOSS, FaultKind.ZONE_LOSS, FaultKind.EVICTION)
_HOUR: Final = 3600.0

_Happening = Callable[..., "Event | None"]


class World:
    """A cluster that lives in virtual time. The same seed, faults and calls give the same events."""

    def __init__(self, cluster: Cluster, seed: int, faults: Sequence[Fault] = (), start_ns: int = 0) -> None:
        """Set up a cluster whose time begins at `start_ns`, which the schedule of the faults counts from."""
        self.cluster = cluster
        self.now_ns = start_ns
        self.nodes: dict[str, Node] = {}
        self.workers: dict[str, SimWorker] = {}
        self.gone: list[Node] = []
        """Nodes that were there and are not any more: they are on the bill."""
        self.faults: list[Fault] = []
        """Those that are on now."""
        self.running: dict[AttemptId, Running] = {}
        self.last: Running | None = None
        """The attempt whose begin or end was told last."""
        self._seed = seed
        self._dispatch_ns = int(cluster.dispatch * 1e9)
        self._heap: list[tuple[int, int, _Happening, tuple[Any, ...]]] = []
        self._begins: deque[tuple[int, int, Running]] = deque()
        """Attempts that idle workers begin, in the order of their times, since each waits for as long."""
        self._serial = 0
        self._hired = self._replaced = self._booting = 0
        self._wanted = cluster.nodes
        self._reading = 0
        self._tokens = cluster.storage_requests_per_second
        self._tokens_ns = start_ns
        for armed in arm(faults, start_ns):
            self._schedule(armed)
        for _ in range(cluster.nodes):
            self._hire(0.0)

    # What it is told

    def submit(self, worker: str, attempt: AttemptId, demand: Demand, speculative: bool = False) -> None:
        """Give an attempt to a worker, which runs what it has in that order; nothing happens where it is gone."""
        target = self.workers.get(worker)
        if target is None:
            return
        running = Running(attempt, target, demand, speculative, self.now_ns)
        self.running[attempt] = running
        target.queue.append(running)
        if len(target.queue) == 1:
            self._serial += 1
            self._begins.append((self.now_ns + self._dispatch_ns, self._serial, running))

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end early, soon."""
        running = self.running.get(attempt)
        if running is not None and not running.over:
            running.stopped = outcome
            self._at(self.now_ns + _STOP_NS, self._end, running, outcome)

    def resize(self, workers: int) -> None:
        """Have so many workers, rounded up to whole nodes: new ones boot, the youngest idle ones are drained."""
        self._wanted = -(-workers // self.cluster.lanes)
        coming = self._wanted - self._staying - self._booting
        for _ in range(coming):
            self._hire(self.cluster.replacement)
        leaving = sorted(self.nodes.values(), key=lambda node: (node.busy, -node.number))
        for node in [node for node in leaving if not node.leaving][: max(-coming, 0)]:
            self._drain(node, self.cluster.notice, replace=False)

    def kill_worker(self, name: str, reason: Reason, away: float) -> None:
        """Have one worker die now, and another take its place on its node after `away` seconds."""
        worker = self.workers.pop(name, None)
        if worker is None:
            return
        worker.node.workers.remove(worker)
        for running in worker.queue:
            self._forget(running)
        self._later(0.0, self._tell, WorkerLost(name, reason))
        self._replaced += 1
        self._later(max(away, self.cluster.cold_start), self._ready, worker.node, f"{name}-{self._replaced}")

    def evict_worker(self, name: str, notice: float) -> None:
        """Tell that one worker is about to go, and have it die as preempted after so many seconds."""
        if name in self.workers:
            self._later(0.0, self._tell, WorkerDraining(name))
            self._later(notice, self.kill_worker, name, Reason.PREEMPTED, 0.0)

    # What it tells

    def next(self, until_ns: int) -> Event | None:
        """Return the next event up to a time, and move the clock there, or to that time where there is none."""
        heap, begins = self._heap, self._begins
        while True:
            if begins and (not heap or begins[0][:2] < heap[0][:2]):
                if begins[0][0] > until_ns:
                    break
                self.now_ns, _, running = begins.popleft()
                event = self._begin(running)
            elif heap and heap[0][0] <= until_ns:
                self.now_ns, _, happens, what = heapq.heappop(heap)
                event = happens(*what)
            else:
                break
            if event is not None:
                return event
        self.now_ns = max(self.now_ns, until_ns)
        return None

    @property
    def next_ns(self) -> int:
        """Return when something happens next; -1 where nothing ever will."""
        times = [queue[0][0] for queue in (self._heap, self._begins) if queue]
        return min(times, default=-1)

    @property
    def _staying(self) -> int:
        """Return how many nodes are there to stay."""
        return sum(1 for node in self.nodes.values() if not node.leaving)

    def bill(self, now_ns: int) -> float:
        """Return what the nodes have cost so far, in US dollars, from their boot to their end."""
        every = (*self.gone, *self.nodes.values())
        return sum(self.price(node.spot) * node.hours(now_ns) for node in every)

    def price(self, spot: bool) -> float:
        """Return US dollars for an hour of a node."""
        return self.cluster.spot_usd_per_hour if spot else self.cluster.usd_per_hour

    # Attempts

    def _begin(self, running: Running) -> Event | None:
        """An attempt begins; with that it is decided what becomes of it, unless its node or somebody ends it."""
        if running.over:
            return None
        demand, worker = running.demand, running.worker
        number = running.attempt.number + demand.offset
        if demand.plain and not self.faults:
            fate = Fate(usual_seconds(self._seed, demand, number, worker.node.speed))
        else:
            fate = decide(self._seed, demand, number, self._site(worker, demand), self.faults)
        running.fate, running.started_ns, self.last = fate, self.now_ns, running
        worker.node.memory_used += fate.peak_memory
        self._reading += demand.read_bytes > 0
        running.ends_ns = self.now_ns + int(fate.seconds * 1e9)
        self._serial += 1
        heapq.heappush(self._heap, (running.ends_ns, self._serial, self._end, (running, None)))
        if fate.seconds > _PROGRESS_AFTER * demand.seconds > 0:
            self._later(_PROGRESS_AFTER * demand.seconds, self._progress, running, fate.seconds)
        return AttemptStarted(running.attempt)

    def _site(self, worker: SimWorker, demand: Demand) -> Site:
        """Return what an attempt finds at a worker now."""
        cluster, node = self.cluster, worker.node
        rate = cluster.node_bytes_per_second / cluster.lanes
        if cluster.fabric_bytes_per_second and demand.read_bytes:
            rate = min(rate, cluster.fabric_bytes_per_second / (self._reading + 1))
        # While its neighbours are idle, an attempt may have what is theirs.
        memory = max(cluster.lane_memory, cluster.memory_bytes - node.memory_used)
        return Site(node.name, node.speed, memory, rate, self._served(demand.requests))

    def _served(self, requests: int) -> bool:
        """Return whether the store takes so many requests now: a bucket that holds a second's worth."""
        limit = self.cluster.storage_requests_per_second
        if not (limit and requests):
            return True
        self._tokens = min(limit, self._tokens + (self.now_ns - self._tokens_ns) / 1e9 * limit)
        self._tokens_ns = self.now_ns
        if self._tokens < requests:
            return False
        self._tokens -= requests
        return True

    def _progress(self, running: Running, seconds: float) -> Event | None:
        if running.over:
            return None
        return AttemptProgress(running.attempt, min((self.now_ns - running.started_ns) / 1e9 / seconds, 1.0))

    def _end(self, running: Running, stopped: AttemptOutcome | None) -> Event | None:
        """An attempt comes to its end, or is stopped before."""
        if running.over:
            return None
        attempt, queue = running.attempt, running.worker.queue
        self._forget(running)
        if queue[0] is running:
            queue.popleft()
        else:
            queue.remove(running)
        if queue and queue[0].started_ns < 0:
            self._later(0.0, self._begin, queue[0])
        fate, self.last = running.fate, running
        if stopped is not None:
            return AttemptEnded(attempt, stopped, duration_ns=running.age(self.now_ns))
        return AttemptEnded(
            attempt, fate.outcome, fate.reason, running.age(self.now_ns),
            throttled=fate.throttled > 0, retry_after_ns=int(fate.retry_after * 1e9),
            peak_memory_bytes=fate.peak_memory,
        )  # fmt: skip

    def _forget(self, running: Running) -> None:
        """An attempt is over, one way or another."""
        running.over = True
        del self.running[running.attempt]
        if running.started_ns >= 0:
            running.worker.node.memory_used -= running.fate.peak_memory
            self._reading -= running.demand.read_bytes > 0

    # Nodes

    def _hire(self, seconds: float, zone: str = "") -> None:
        """Have a new node boot, in a zone or where it is its turn, and its workers report after that."""
        cluster = self.cluster
        self._hired += 1
        number = self._hired
        # Every so manieth, so that any number of nodes has its share, in all zones.
        spot = int(number * cluster.spot_share) > int((number - 1) * cluster.spot_share)
        speed = lognormal(cluster.speed_sigma, self._seed, number, 3)
        self._booting += 1
        zone = zone or f"zone-{'abcdefghijklmnop'[number % cluster.zones % 16]}"
        node = Node(f"node-{number}", number, zone, spot, speed)
        self._later(seconds, self._boot, node)

    def _boot(self, node: Node) -> None:
        """A node is there, and its workers soon after, unless it is not wanted any more."""
        self._booting -= 1
        if self._staying >= self._wanted:
            return
        node.up_ns = self.now_ns
        self.nodes[node.name] = node
        for lane in range(self.cluster.lanes):
            self._later(self.cluster.cold_start, self._ready, node, f"{node.name}-w{lane}")
        if node.spot and self.cluster.evictions_per_hour:
            hours = uniform(self._seed, node.number, 4)
            self._later(hours * 2 / self.cluster.evictions_per_hour * _HOUR, self._evict, node)

    def _ready(self, node: Node, name: str) -> Event | None:
        if node.down_ns >= 0 or node.leaving:
            return None
        worker = SimWorker(name, node, deque())
        node.workers.append(worker)
        self.workers[name] = worker
        return WorkerUp(name, node.name, node.zone, node.spot, self.cluster.lane_memory)

    def _evict(self, node: Node) -> None:
        """A node is taken back, after a notice, unless it is gone by itself."""
        if node.down_ns < 0 and not node.leaving:
            self._drain(node, self.cluster.notice, replace=True)

    def _drain(self, node: Node, notice: float, *, replace: bool) -> None:
        node.leaving = True
        for worker in node.workers:
            self._later(0.0, self._tell, WorkerDraining(worker.name))
        self._later(notice, self._die, node, Reason.PREEMPTED if replace else Reason.SHUTDOWN, 0.0, replace)

    def _die(self, node: Node, reason: Reason, away: float, replace: bool) -> None:
        """A node is gone, and what ran on it; whoever listens hears of it when it is noticed."""
        if node.down_ns >= 0:
            return
        node.down_ns = self.now_ns
        del self.nodes[node.name]
        self.gone.append(node)
        announced = reason is not Reason.NODE_LOST
        for worker in node.workers:
            del self.workers[worker.name]
            for running in worker.queue:
                self._forget(running)
            self._later(0.0 if announced else self.cluster.detection, self._tell, WorkerLost(worker.name, reason))
        if replace and self._staying + self._booting < self._wanted:
            # In its zone: whoever keeps nodes in several has a group of them in each.
            self._hire(away or self.cluster.replacement, node.zone)

    # Faults and time

    def _schedule(self, armed: ArmedFault) -> None:
        """Have a fault begin and end."""
        fault = armed.fault
        self._at(armed.begin_ns, self._on if fault.kind not in _MACHINES else self._strike, fault)
        if fault.lasts and fault.kind not in _MACHINES:
            self._at(armed.end_ns, self._off, fault)

    def _on(self, fault: Fault) -> None:
        self.faults = [*self.faults, fault]

    def _off(self, fault: Fault) -> None:
        self.faults = [each for each in self.faults if each is not fault]

    def _strike(self, fault: Fault) -> None:
        """Machines die or are taken back."""
        names = [number_of(fault.kind), round(fault.at)]
        if fault.kind is FaultKind.EVICTION:
            # One by one over the fault's time, which is an hour where nothing is said.
            for node in self._victims(fault):
                wait = uniform(self._seed, node.number, *names) * (fault.lasts or _HOUR)
                self._later(wait, self._evict, node)
            return
        for node in list(self._victims(fault)):
            self._die(node, Reason.NODE_LOST, max(fault.lasts, self.cluster.replacement), replace=True)

    def _victims(self, fault: Fault) -> Iterator[Node]:
        """Yield the nodes that a fault hits: those that it names, or its share of a zone, of the spot ones, of all."""
        nodes = list(self.nodes.values())
        if fault.kind is FaultKind.ZONE_LOSS:
            zone = fault.target or "zone-a"
            nodes = [node for node in nodes if node.zone == zone]
        elif fault.target:
            yield from (node for node in nodes if fault.target in (node.name, node.zone))
            return
        elif fault.kind is FaultKind.EVICTION and any(node.spot for node in nodes):
            nodes = [node for node in nodes if node.spot]
        for index in choose(len(nodes), fault.severity, self._seed, number_of(fault.kind), round(fault.at)):
            yield nodes[index]

    def _tell(self, event: Event) -> Event:
        """Let an event be heard when its time has come."""
        return event

    def _later(self, seconds: float, happens: _Happening, *what: object) -> None:
        self._at(self.now_ns + int(seconds * 1e9), happens, *what)

    def _at(self, at_ns: int, happens: _Happening, *what: object) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at_ns, self._serial, happens, what))
