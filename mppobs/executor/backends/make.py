"""Backends by name, for whoever is told on a command line which one to use. Nothing of an engine is imported before."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from mppobs.clock import Clock, SystemClock
from mppobs.errors import ConfigError
from mppobs.executor.backends.base import Backend, Place
from mppobs.executor.backends.faulty import FaultyBackend
from mppobs.executor.backends.local import LocalBackend, Pool
from mppobs.executor.backends.recording import recording, worker_prefix
from mppobs.executor.faults import Fault, Layer, of_layer


class BackendKind(StrEnum):
    """The backends that there are."""

    LOCAL = "local"
    DASK = "dask"
    RAY = "ray"
    SIM = "sim"


_ADDRESSES: Final = {
    BackendKind.DASK: (re.compile(r"((tcp|tls|wss?)://)?[^/\s]+:\d+|(ucx|inproc)://\S+"), "tcp://HOST:8786"),
    BackendKind.RAY: (re.compile(r"auto|local|(ray://)?[^/\s]+:\d+"), "auto or ray://HOST:10001"),
}
_MOST_HERE: Final = 512
"""Of one machine: two descriptors each, of the 1,024 that a process may usually have open."""
_MOST_THERE: Final = 10_000
"""Of a cluster that is up already, or simulated."""
_LEAST_MEMORY: Final = 16 << 20
"""An attempt with less cannot read a table."""


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """Which backend, and what it is to be like. What a kind has no use for must be left out."""

    kind: BackendKind = BackendKind.LOCAL
    workers: int = 2
    address: str = ""
    """Of an engine that is running already; empty to start one on this machine."""
    nodes: int = 0
    """Over how many nodes and two zones local workers are said to be spread; 0 for the one that they are on."""
    memory_bytes: int = 0
    """How much memory an attempt of a local worker may take; 0 for no limit."""
    spares: int = 0
    """Local processes that wait for a worker to die."""
    seed: int = 0
    """Of what is drawn: who is hit by faults, and everything that a simulated world does."""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"a backend needs at least one worker, not {self.workers}")
        most = _MOST_THERE if self.address or self.kind is BackendKind.SIM else _MOST_HERE
        if max(self.workers, self.nodes, self.spares) > most:
            raise ConfigError(f"the {self.kind} backend has {most:,} workers, nodes and spares at most")
        if 0 < self.memory_bytes < _LEAST_MEMORY:
            raise ConfigError(f"an attempt needs {_LEAST_MEMORY >> 20} MiB of memory at least, not {self.memory_bytes}")
        if self.address and self.kind not in (BackendKind.DASK, BackendKind.RAY):
            raise ConfigError(f"the {self.kind} backend has no address: it is for dask and ray")
        if self.address:
            form, usual = _ADDRESSES[self.kind]
            if not form.fullmatch(self.address):  # Dask itself would hang at its end
                raise ConfigError(f"--address {self.address!r}: the {self.kind} backend takes {usual}")
        if (self.nodes or self.memory_bytes or self.spares) and self.kind is not BackendKind.LOCAL:
            raise ConfigError(f"nodes, memory and spares are for the local backend, not for {self.kind}")
        control = of_layer(self.faults, Layer.CONTROL)
        if control and self.kind is BackendKind.SIM:
            raise ConfigError(f"fault {control[0].kind}: the sim backend has no coordinator: see mppobs simulate")


class Made(NamedTuple):
    """A backend that is not started yet, and the clock by which it is to be driven."""

    backend: Backend
    clock: Clock


def make_backend(spec: BackendSpec) -> Made:
    """
    Return the backend that is asked for.

    Faults of machines and of the control plane are applied to it; those of tasks are the executor's to apply, but in a
    simulated world. Raises `ConfigError` where that makes no sense, and `UnsupportedError` for what it cannot do.
    """
    if spec.kind is BackendKind.SIM:
        return _simulated(spec)
    clock = SystemClock()
    plain = _plain(spec)
    if of_layer(spec.faults, Layer.MACHINE) or of_layer(spec.faults, Layer.CONTROL):
        return Made(FaultyBackend(plain, spec.faults, clock, seed=spec.seed), clock)
    return Made(plain, clock)


def _plain(spec: BackendSpec) -> Backend:
    """Return a backend of real time, without faults."""
    if spec.kind is BackendKind.DASK:
        from mppobs.executor.backends.dask import dask_backend

        return dask_backend(spec.workers, spec.address)
    if spec.kind is BackendKind.RAY:
        from mppobs.executor.backends.ray import ray_backend

        return ray_backend(spec.workers, spec.address)
    return LocalBackend(spec.workers, recording(), worker_prefix(), Pool(_places(spec), spec.spares))


def _places(spec: BackendSpec) -> tuple[Place, ...]:
    """
    Return where local workers are said to be.

    >>> [place.zone for place in _places(BackendSpec(nodes=3))]
    ['zone-a', 'zone-b', 'zone-a']
    """
    if spec.nodes:
        zones = ("zone-a", "zone-b")
        return tuple(
            Place(f"node-{number}", zones[number % 2], memory_bytes=spec.memory_bytes) for number in range(spec.nodes)
        )
    return (Place(memory_bytes=spec.memory_bytes),) if spec.memory_bytes else ()


def _simulated(spec: BackendSpec) -> Made:
    from mppobs.executor.backends.sim import SimBackend

    backend = SimBackend(spec.workers, seed=spec.seed, faults=spec.faults)
    return Made(backend, backend.clock)
