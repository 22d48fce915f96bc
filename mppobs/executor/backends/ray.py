"""
Ray as a backend: each worker is an actor with one lane, on one CPU, that is never restarted and retries nothing.

An actor and not tasks, because a worker has a name, is given its work in order and can be killed alone. It begins
attempts in one thread and is heard and told to stop in two others. Policies stay above: `max_restarts` and
`max_task_retries` are 0, so Ray neither starts an attempt again nor hides that one was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from mppobs.errors import ConfigError
from mppobs.executor.attempt import AttemptOrder
from mppobs.executor.backends.base import Capabilities, Place, WorkersBrokenError
from mppobs.executor.backends.engine import EngineBackend, Gone, Joined, Notice, Order, Refused, Said, Unfit
from mppobs.executor.backends.hosted import Host, HostInfo, HostSetup
from mppobs.executor.backends.recording import recording, worker_prefix
from mppobs.model import AttemptOutcome, Reason

_ABILITIES: Final = Capabilities(
    kill_one=True,
    interrupt=True,
    survives_stop=True,
    progress=True,
    resize=True,
    replaces=True,
    placement=True,
    eviction=True,
)
_CLOSE_SECONDS: Final = 5.0
_OBJECT_STORE_BYTES: Final = 100 * 1024 * 1024
"""Of a Ray that is started here: little passes through it, since tables travel in files."""


class RayWorker:
    """The actor. Its methods run in threads: `run` in the default one, the others in groups of their own."""

    def __init__(self, setup: HostSetup) -> None:
        self._host = Host(setup)

    def info(self) -> HostInfo:
        """Return who and where it is."""
        return self._host.info()

    def run(self, ticket: int, number: int, stage: bytes, order: AttemptOrder) -> None:
        """Make an attempt."""
        self._host.attempt(ticket, number, stage, order)

    def listen(self) -> list[tuple[Any, ...]]:
        """Return what there is to say, when there is something."""
        return self._host.hear()

    def halt(self, ticket: int, outcome: AttemptOutcome) -> None:
        """Have an attempt end."""
        self._host.stop(ticket, outcome)

    def close(self) -> None:
        """Close the journal."""
        self._host.close()


class RayEngine:
    """Workers on a Ray cluster: one that is running already, or a local one that is started and ended here."""

    name = "ray"
    capabilities = _ABILITIES

    def __init__(self, workers: int, address: str, recorded: Mapping[str, Any], prefix: str) -> None:
        self.notices: SimpleQueue[Notice] = SimpleQueue()
        self._target = workers
        self._address = address
        # On another node a worker has that node's name, which it finds out by itself.
        self._recorded = {key: value for key, value in recorded.items() if key != "node"}
        self._prefix = prefix
        self._actors: dict[str, Any] = {}
        self._leaving: set[str] = set()
        self._number = 0
        self._ray: Any = None
        self._ours = False

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return self._target

    def open(self) -> None:
        """Connect, or start a local cluster, and create the actors."""
        self._ray = _import_ray()
        if not self._ray.is_initialized():
            self._ours = True
            local = {"num_cpus": self._target, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
            try:
                self._ray.init(
                    self._address or "local", log_to_driver=False, logging_level="error",
                    **({} if self._address else local),
                )  # fmt: skip
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise WorkersBrokenError(f"no Ray at {self._address or 'this machine'}: {error}") from error
        self._fill()

    def give(self, worker: str, order: Order) -> None:
        """Hand an attempt to its actor."""
        actor = self._actors.get(worker)
        if actor is not None:
            call = actor.run.options(name=order.title).remote(order.ticket, order.number, order.stage, order.order)
            call.future().add_done_callback(partial(self._ran, order.ticket))

    def heard(self, worker: str) -> None:
        """Ask the actor for more."""
        actor = self._actors.get(worker)
        if actor is not None:
            call = actor.listen.options(concurrency_group="listen").remote()
            call.future().add_done_callback(partial(self._listened, worker))

    def ended(self, ticket: int) -> None:
        """Nothing is kept of an attempt."""

    def halt(self, worker: str, ticket: int, outcome: AttemptOutcome) -> None:
        """Have an attempt end."""
        actor = self._actors.get(worker)
        if actor is not None:
            actor.halt.options(concurrency_group="halt").remote(ticket, outcome)

    def kill(self, worker: str) -> None:
        """Kill the actor's process."""
        actor = self._actors.get(worker)
        if actor is not None:
            self._ray.kill(actor, no_restart=True)

    def dismiss(self, worker: str) -> None:
        """Kill an actor that holds nothing."""
        self.kill(worker)

    def gone(self, worker: str) -> None:
        """Forget an actor, and create another one."""
        self._actors.pop(worker, None)
        self._leaving.discard(worker)
        self._fill()

    def resize(self, workers: int, idle: list[str]) -> list[str]:
        """Create the actors that are missing; return those that are too many."""
        self._target = workers
        surplus = idle[: max(len(self._actors) - len(self._leaving) - workers, 0)]
        self._leaving.update(surplus)
        self._fill()
        return surplus

    def close(self) -> None:
        """Close the actors' journals and kill them; end the cluster where it was started here."""
        actors, self._actors = list(self._actors.values()), {}
        self._target = 0
        if self._ray is None or not self._ray.is_initialized():  # never there, or ended by others with the actors
            return
        calls = [actor.close.options(concurrency_group="halt").remote() for actor in actors]
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_CLOSE_SECONDS)
        for actor in actors:
            self._ray.kill(actor, no_restart=True)
        if self._ours:
            self._ray.shutdown()

    def _fill(self) -> None:
        """Create the actors that are missing."""
        while len(self._actors) - len(self._leaving) < self._target:
            self._number += 1
            name = f"{self._prefix}-{self._number}"
            actor_class = self._ray.remote(
                num_cpus=1, max_restarts=0, max_task_retries=0, concurrency_groups={"listen": 1, "halt": 1}
            )(RayWorker)
            actor = self._actors[name] = actor_class.remote(HostSetup({**self._recorded, "worker": name}, True))
            actor.info.remote().future().add_done_callback(partial(self._met, name))

    # What follows is called in threads of Ray.

    def _met(self, name: str, told: Future[HostInfo]) -> None:
        error = told.exception()
        if error is None:
            self.notices.put(Joined(name, Place(node=told.result().node)))
        else:
            self.notices.put(Unfit(name, str(error)))

    def _listened(self, name: str, told: Future[list[tuple[Any, ...]]]) -> None:
        error = told.exception()
        if error is None:
            self.notices.put(Said(name, told.result()))
        else:
            self.notices.put(Gone(name, self._reason(error)))

    def _ran(self, ticket: int, told: Future[None]) -> None:
        """Tell of an attempt that Ray could not run; one that was lost with its worker is told by `listen`."""
        error = told.exception()
        if error is not None and not isinstance(error, self._ray.exceptions.RayActorError):
            self.notices.put(Refused(ticket, str(error)))

    def _reason(self, error: BaseException) -> Reason:
        """Return why an actor died, as far as Ray says."""
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.OutOfMemoryError):
            return Reason.OOM_KILLED
        if isinstance(error, exceptions.NodeDiedError):
            return Reason.NODE_LOST
        return Reason.PREEMPTED if getattr(error, "preempted", False) else Reason.WORKER_LOST


def ray_backend(workers: int, address: str = "") -> EngineBackend:
    """
    Return a backend of so many Ray workers: of the cluster at `address` (`auto`, `ray://host:port`), or a local one.

    Where this process is connected to a Ray already, that one is used, and left running. Nothing is started yet.
    """
    return EngineBackend(RayEngine(workers, address, recording(), worker_prefix()))


def _import_ray() -> Any:
    """Return the package. Raises `ConfigError` that says how to install it."""
    try:
        import ray  # an extra: only who asks for it pays for it
    except ModuleNotFoundError as error:
        raise ConfigError(f"the ray backend needs {error.name}: pip install 'mppobs[ray]'") from error
    return ray
