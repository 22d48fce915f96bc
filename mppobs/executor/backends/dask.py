"""
Dask as a backend: each attempt is a Dask task of its own that may run on one worker only, and is tried once.

A task that is bound to the address of its worker is never run anywhere else: not stolen, and not begun again by the
scheduler when its worker dies, since a replacement has another address. With `retries=0` that switches all of Dask's
own retries off, on any cluster, whatever its settings. What a worker has to say comes as events through the scheduler,
in their order, so it works wherever a client works.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from mppobs.errors import ConfigError
from mppobs.executor.attempt import AttemptOrder
from mppobs.executor.backends.base import Capabilities, Place, WorkersBrokenError
from mppobs.executor.backends.engine import EngineBackend, Gone, Joined, Notice, Order, Refused, Said, Unfit
from mppobs.executor.backends.hosted import HEAR_SECONDS, Host, HostInfo, HostSetup
from mppobs.executor.backends.recording import recording, worker_prefix
from mppobs.model import AttemptOutcome, Reason

_ABILITIES: Final = Capabilities(
    kill_one=True,
    interrupt=True,
    survives_stop=True,
    progress=True,
    replaces=True,
    placement=True,
    eviction=True,
)
_EVENT_BYTES: Final = 32 * 1024
"""The largest event: a thousand of them, which a scheduler keeps, are then 32 MiB."""
_CONNECT_SECONDS: Final = 30
_CLOSE_SECONDS: Final = 5.0


class _Member(NamedTuple):
    """A lane of a Dask worker."""

    address: str
    name: Any
    """The worker's name in its cluster."""
    has_nanny: bool


class _Hosted:
    """
    A host inside a Dask worker. What it has to say goes out as events, in the stream that the worker has anyway.

    The scheduler keeps a thousand of them for those who look later, so what is large is kept here to be fetched, and
    what comes after it too, to keep the order.
    """

    def __init__(self, topic: str, setup: HostSetup, dask_worker: Any) -> None:
        self._topic = topic
        self._worker = dask_worker
        self._loop = asyncio.get_running_loop()
        self._kept: list[tuple[Any, ...]] = []
        self.host = Host(setup, self._wake)
        self._telling = self._loop.create_task(self._tell_progress())

    def fetch(self) -> list[tuple[Any, ...]]:
        """Return what was kept."""
        kept, self._kept = self._kept, []
        return kept

    def close(self) -> None:
        """Close the host; Dask calls it too, when it closes the worker."""
        self._telling.cancel()
        self.host.close()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._publish)

    def _publish(self) -> None:
        """Send what there is to say. In the worker's loop."""
        said = self.host.take()
        if self._kept:
            self._kept += said
            return
        data = pickle.dumps(said) if said else b""
        if len(data) > _EVENT_BYTES:
            self._kept, data = said, b""
        elif not said:
            return
        self._worker.log_event(self._topic, {"said": data})

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(HEAR_SECONDS)
            self._publish()


async def open_host(topic: str, setup: HostSetup, dask_worker: Any) -> HostInfo:
    """Make a worker a host; return what it says of itself."""
    hosted = dask_worker.extensions[topic] = _Hosted(topic, setup, dask_worker)
    return hosted.host.info()


def fetch(topic: str, dask_worker: Any) -> list[tuple[Any, ...]]:
    """Return what a worker's host has kept because it is large."""
    hosted: _Hosted = dask_worker.extensions[topic]
    return hosted.fetch()


def halt(key: str, ticket: int, outcome: AttemptOutcome, dask_worker: Any) -> None:
    """Have a worker's host stop an attempt."""
    dask_worker.extensions[key].host.stop(ticket, outcome)


def close_host(key: str, dask_worker: Any) -> None:
    """Close a worker's host."""
    hosted = dask_worker.extensions.pop(key, None)
    if hosted is not None:
        hosted.close()


def kill_process(dask_worker: Any) -> None:
    """Kill a worker's process: from its nanny where it has one, which need not wait for it, or else from within."""
    pid = dask_worker.pid if hasattr(dask_worker, "pid") else os.getpid()
    if pid:  # a nanny has none while its worker is gone
        os.kill(pid, signal.SIGKILL)


def make_attempt(key: str, ticket: int, number: int, stage: bytes, order: AttemptOrder) -> None:
    """Make an attempt: the function of every Dask task."""
    from distributed import get_worker  # there is one where this runs

    get_worker().extensions[key].host.attempt(ticket, number, stage, order)


class DaskEngine:
    """Workers of a Dask cluster: one that is running already, or a local one that is started and ended here."""

    name = "dask"

    def __init__(self, workers: int, address: str, recorded: Mapping[str, Any], prefix: str) -> None:
        self.notices: SimpleQueue[Notice] = SimpleQueue()
        self.capabilities = replace(_ABILITIES, resize=not address)
        self._target = workers
        self._address = address
        # On another node a worker has that node's name, which it finds out by itself.
        self._recorded = {key: value for key, value in recorded.items() if key != "node"}
        self._prefix = prefix
        self._key = f"{prefix}-{uuid.uuid4().hex[:8]}"
        self._cluster: Any = None
        self._client: Any = None
        self._attended: dict[str, asyncio.Task[None]] = {}
        """By address. Only touched in the client's loop."""
        self._members: dict[str, _Member] = {}
        self._futures: dict[int, Any] = {}
        self._number = 0
        self.failed_calls = 0
        """Requests to workers that were gone by then."""

    @property
    def size(self) -> int:
        """Return how many workers there are to be: on a foreign cluster, how many it has."""
        return len(self._members) if self._address else self._target

    def open(self) -> None:
        """Connect, or start a local cluster, and attend to every worker that there is or will be."""
        distributed = _import_distributed()
        try:
            if not self._address:
                self._cluster = distributed.LocalCluster(
                    n_workers=self._target, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
                )
            self._client = distributed.Client(
                self._cluster or self._address, timeout=_CONNECT_SECONDS, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise WorkersBrokenError(f"no Dask at {self._address or 'this machine'}: {error}") from error
        self._client.subscribe_topic("all", self._on_event)
        self._client.subscribe_topic(self._key, self._on_said)
        self._client.sync(self._attend_all)

    def give(self, worker: str, order: Order) -> None:
        """Submit an attempt as a task that only this worker may run."""
        member = self._members.get(worker)
        if member is None:
            return
        future = self._futures[order.ticket] = self._client.submit(
            make_attempt, self._key, order.ticket, order.number, order.stage, order.order,
            key=f"{order.title}-{self._key}-{order.ticket}", workers=[member.address],
            allow_other_workers=False, retries=0, pure=False, fifo_timeout="0 s",
        )  # fmt: skip
        future.add_done_callback(partial(self._ran, order.ticket))

    def heard(self, worker: str) -> None:
        """Nothing: every worker is listened to all the time."""

    def ended(self, ticket: int) -> None:
        """Release the task, so that the scheduler forgets it."""
        future = self._futures.pop(ticket, None)
        if future is not None:
            future.release()

    def halt(self, worker: str, ticket: int, outcome: AttemptOutcome) -> None:
        """Have an attempt end."""
        self._tell(worker, halt, self._key, ticket, outcome)

    def kill(self, worker: str) -> None:
        """Kill the worker's process; its nanny starts another."""
        self._tell(worker, kill_process)

    def dismiss(self, worker: str) -> None:
        """Have the cluster retire a worker that holds nothing."""
        member = self._members.get(worker)
        if member is not None:
            self._client.loop.add_callback(self._cluster.scale_down, [member.name])

    def gone(self, worker: str) -> None:
        """Forget a worker. The cluster replaces it."""
        self._members.pop(worker, None)

    def resize(self, workers: int, idle: list[str]) -> list[str]:
        """Have the cluster start what is missing; return those that are too many."""
        surplus = idle[: max(self._target - workers, 0)]
        if workers > self._target:
            self._cluster.scale(workers)
        self._target = workers
        return surplus

    def close(self) -> None:
        """Close the hosts, then the client, and the cluster where it was started here."""
        if self._client is not None:
            self._client.unsubscribe_topic("all")
            self._client.unsubscribe_topic(self._key)
            self._client.sync(self._let_go)
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _tell(self, worker: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called in a worker, or in its nanny where it is to be killed; nobody waits for it."""
        member = self._members.get(worker)
        if member is not None:
            nanny = function is kill_process and member.has_nanny
            self._client.loop.add_callback(self._call, member.address, nanny, function, *arguments)

    def _ran(self, ticket: int, future: Any) -> None:
        """Tell of an attempt that Dask could not run. Called in a thread of the client."""
        if future.status == "error":
            self.notices.put(Refused(ticket, str(future.exception())))

    # What follows runs in the client's loop.

    async def _call(self, address: str, nanny: bool, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns in a worker; `None` where it cannot be reached."""
        try:
            return (await self._client._run(function, *arguments, workers=[address], nanny=nanny)).get(address)
        except Exception:  # whatever the way to it raises: its worker is going or gone, which is told by `_attend`
            self.failed_calls += 1
            return None

    async def _attend_all(self) -> None:
        for address in (await self._client.scheduler.identity())["workers"]:
            self._begin(address)

    def _on_event(self, event: tuple[float, Any]) -> None:
        """Follow the workers that come and go."""
        told = event[1]
        if told["action"] == "add-worker":
            self._begin(told["worker"])
        elif told["action"] == "remove-worker" and (attending := self._attended.pop(told["worker"], None)) is not None:
            attending.cancel()

    def _begin(self, address: str) -> None:
        if address not in self._attended:
            self._attended[address] = asyncio.get_running_loop().create_task(self._attend(address))

    async def _on_said(self, event: tuple[float, Any]) -> None:
        """Take in what a host said, or fetch what is too large for an event."""
        address, data = event[1]["worker"], event[1]["said"]
        if data:
            self.notices.put(Said(address, pickle.loads(data)))
            return
        said = await self._call(address, False, fetch, self._key)
        self.notices.put(Said(address, said or []))

    async def _attend(self, address: str) -> None:
        """Make a worker a host, and wait until it is gone."""
        names: list[str] = []
        try:
            names = await self._join(address)
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return  # it was removed, or nobody listens any more
        except Exception as error:  # of any type: what the worker raised, or what broke on the way
            self.notices.put(Unfit(address, f"{type(error).__name__}: {error}"))
        finally:
            for name in names:
                self.notices.put(Gone(name, Reason.WORKER_LOST))

    async def _join(self, address: str) -> list[str]:
        """Make a worker a host; return its names, one for each thread."""
        self._number += 1
        name = f"{self._prefix}-{self._number}"
        known = (await self._client.scheduler.identity())["workers"][address]
        lanes = known["nthreads"]
        recorded = {**self._recorded, "worker": name, "lanes": lanes, "dedicated": not self._address}
        setup = HostSetup(recorded, dedicated=not self._address)
        info = (await self._client._run(open_host, self._key, setup, workers=[address]))[address]
        if (info.pid, info.node) == (os.getpid(), os.uname().nodename):
            raise WorkersBrokenError("a worker of this Dask is in this very process: start it with processes=True")
        names = [name] if lanes == 1 else [f"{name}.{lane}" for lane in range(lanes)]
        for each in names:
            self._members[each] = _Member(address, known["name"], bool(known["nanny"]))
            self.notices.put(Joined(each, Place(node=info.node)))
        return names

    async def _let_go(self) -> None:
        """Stop listening and close the hosts."""
        attended, self._attended = self._attended, {}
        for attending in attended.values():
            attending.cancel()
        if attended and self._address:
            closing = self._client._run(close_host, self._key, workers=list(attended), on_error="ignore")
            await asyncio.wait_for(closing, _CLOSE_SECONDS)


def dask_backend(workers: int, address: str = "") -> EngineBackend:
    """
    Return a backend of the Dask cluster at `address` (`tcp://host:port`), or of a local one of so many workers.

    On a foreign cluster every thread of every worker is used, whatever `workers` says. Nothing is started yet.
    """
    return EngineBackend(DaskEngine(workers, address, recording(), worker_prefix()))


def _import_distributed() -> Any:
    """Return the package. Raises `ConfigError` that says how to install it."""
    try:
        import distributed  # an extra: only who asks for it pays for it
    except ModuleNotFoundError as error:
        raise ConfigError(f"the dask backend needs {error.name}: pip install 'mppobs[dask]'") from error
    return distributed
