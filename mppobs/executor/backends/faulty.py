"""
Faults of machines and of the control plane, done to any backend: what stands between the loop and the workers.

Workers are killed or evicted for real, the coordinator's own process too. What the wrapped backend cannot do it refuses
as ever, before the run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mppobs.clock import Clock
from mppobs.executor.attempt import AttemptOrder, StageOrder
from mppobs.executor.backends.base import Backend, Capabilities, News, Place, Up
from mppobs.executor.events import AttemptId
from mppobs.executor.faults import ArmedFault, Fault, FaultKind, Layer, arm, of_layer
from mppobs.executor.sim.draw import choose, number_of, uniform
from mppobs.model import AttemptOutcome, Reason

NOTICE: Final = 2.0
"""Seconds between an eviction's notice and the eviction; clouds give 30 s to 2 min, a rehearsal has less."""
_EVICTIONS_WITHIN: Final = 10.0
"""Seconds over which evictions are spread where the fault does not say."""


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class FaultyBackend:
    """
    A backend that loses workers, or its coordinator, on schedule. Everything else is the backend's within.

    The schedule counts from the moment at which the first worker is up.
    """

    def __init__(
        self,
        backend: Backend,
        faults: Sequence[Fault],
        clock: Clock,
        *,
        seed: int = 0,
        die: Callable[[], None] = _kill_this_process,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Wrap a backend; `die` is how its coordinator ends, `sleep` how it waits while nothing gets through.

        Raises `UnsupportedError` where the backend cannot do what a fault needs.
        """
        self._backend = backend
        self._faults = (*of_layer(faults, Layer.MACHINE), *of_layer(faults, Layer.CONTROL))
        self._clock = clock
        self._seed = seed
        self._die = die
        self._sleep = sleep
        self._steps: list[tuple[int, Callable[[], None]]] = []
        self._stalls: list[ArmedFault] = []
        self._armed = False
        for fault in self._faults:
            if fault.about.layer is Layer.MACHINE:
                ability = "eviction" if fault.kind is FaultKind.EVICTION else "kill_one"
                backend.capabilities.require(ability, backend.name)

    @property
    def name(self) -> str:
        """Return what the backend within is called."""
        return self._backend.name

    @property
    def capabilities(self) -> Capabilities:
        """Return what the backend within can do."""
        return self._backend.capabilities

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return self._backend.size

    @property
    def places(self) -> Mapping[str, Place]:
        """Return the workers that are up, and where each is."""
        return self._backend.places

    def start(self) -> None:
        """Start the workers that are missing."""
        self._backend.start()

    def submit(self, worker: str, attempt: AttemptId, stage: StageOrder, order: AttemptOrder) -> None:
        """Give an attempt to a worker."""
        self._backend.submit(worker, attempt, stage, order)

    def stop(self, attempt: AttemptId, outcome: AttemptOutcome) -> None:
        """Have an attempt end as `outcome`."""
        self._backend.stop(attempt, outcome)

    def poll(self, seconds: float) -> list[News]:
        """Do what is due, then wait for news; there is none while the control plane hangs."""
        now = self._clock.monotonic_ns()
        while self._steps and self._steps[0][0] <= now:
            self._steps.pop(0)[1]()
        if self._steps:
            seconds = min(seconds, (self._steps[0][0] - now) / 1e9)
        if any(stall.active(now) for stall in self._stalls):
            self._sleep(max(seconds, 0.0))
            return []
        news = self._backend.poll(seconds)
        if not self._armed and any(isinstance(each, Up) for each in news):
            self._armed = True
            for armed in arm(self._faults, self._clock.monotonic_ns()):
                self._plan(armed)
        return news

    def resize(self, workers: int) -> None:
        """Have so many workers from now on."""
        self._backend.resize(workers)

    def kill(self, worker: str, reason: Reason = Reason.WORKER_LOST, away: float = 0.0) -> None:
        """Kill a worker."""
        self._backend.kill(worker, reason, away)

    def evict(self, worker: str, notice: float) -> None:
        """Tell that a worker is about to go, and kill it after so many seconds."""
        self._backend.evict(worker, notice)

    def forget(self, job: str) -> None:
        """Forget what is kept for a job that has ended."""
        self._backend.forget(job)

    def close(self) -> None:
        """End all workers."""
        self._backend.close()

    def _plan(self, armed: ArmedFault) -> None:
        """Put a fault on the schedule."""
        fault = armed.fault
        match fault.kind:
            case FaultKind.STALLED_CONTROL:
                self._stalls.append(armed)
            case FaultKind.COORDINATOR:
                self._steps.append((armed.begin_ns, self._die))
            case FaultKind.EVICTION:
                self._steps.append((armed.begin_ns, lambda: self._evict_some(fault)))
            case _:
                self._steps.append((armed.begin_ns, lambda: self._lose_some(fault)))
        self._steps.sort(key=lambda step: step[0])

    def _lose_some(self, fault: Fault) -> None:
        """Kill the workers of some nodes at once; others take their places no sooner than the fault is over."""
        for worker in self._victims(fault):
            self._backend.kill(worker, Reason.NODE_LOST, fault.lasts)

    def _evict_some(self, fault: Fault) -> None:
        """Have workers evicted, one by one over the fault's time."""
        now = self._clock.monotonic_ns()
        for worker in self._victims(fault):
            wait = uniform(self._seed, number_of(worker)) * (fault.lasts or _EVICTIONS_WITHIN)
            self._steps.append((now + int(wait * 1e9), lambda worker=worker: self._backend.evict(worker, NOTICE)))  # type: ignore[misc]
        self._steps.sort(key=lambda step: step[0])

    def _victims(self, fault: Fault) -> list[str]:
        """Return the workers that a fault hits: those of so large a share of the nodes, or of those it names."""
        places = dict(self._backend.places)
        if fault.target:
            return [name for name, place in places.items() if fault.target in (name, place.node, place.zone)]
        if fault.kind is FaultKind.ZONE_LOSS and places:
            zone = min(place.zone for place in places.values())
            places = {name: place for name, place in places.items() if place.zone == zone}
        if fault.kind is FaultKind.EVICTION and any(place.spot for place in places.values()):
            places = {name: place for name, place in places.items() if place.spot}
        nodes = sorted({place.node for place in places.values()})
        if len(nodes) == 1 and fault.kind is not FaultKind.ZONE_LOSS:
            # All on one machine: each worker stands for a node.
            names = sorted(places)
            return [names[index] for index in choose(len(names), fault.severity, self._seed, number_of(fault.kind))]
        hit = {nodes[index] for index in choose(len(nodes), fault.severity, self._seed, number_of(fault.kind))}
        return [name for name, place in places.items() if place.node in hit]
