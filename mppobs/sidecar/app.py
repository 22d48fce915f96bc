"""The sidecar as a process: the role that its settings ask for, one thread that works, and the web application."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import uvicorn
from fastapi import FastAPI

from mppobs.clock import SystemClock
from mppobs.errors import ConfigError
from mppobs.sidecar.engine import Engine
from mppobs.sidecar.ingest import Intake
from mppobs.sidecar.middleware import Refusals
from mppobs.sidecar.preflight import check
from mppobs.sidecar.roles import Agent, Aggregator, EngineReading
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.web import Parts, build_app

_log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5
"""How long requests that are being answered may take once the sidecar was told to stop."""
_BACKLOG: Final = 128


class Role(Protocol):
    """What works in the background."""

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        ...


def create_app(engine: Engine, settings: SidecarSettings, intake: Intake | None = None) -> FastAPI:
    """
    Return the web application over an engine that somebody else runs; with `intake` agents can ship to it.

    Raises ConfigError where a token cannot be read.
    """
    refusals = Refusals()
    reading = EngineReading(engine, settings, refusals)
    return build_app(Parts(settings, reading, reading, intake, refusals))


def serve(settings: SidecarSettings) -> None:
    """
    Run a sidecar until SIGTERM or SIGINT, then finish what is under way and return.

    Raises ConfigError for settings that do not work out, and `StoreError` where the store cannot be trusted.
    """
    check(settings)
    refusals, clock = Refusals(), SystemClock()
    with _listener(settings) as listener:
        if settings.is_agent:
            with Agent(settings, refusals, clock) as agent:
                _serve(Parts(settings, agent, refusals=refusals), agent, listener)
        else:
            with Aggregator(settings, refusals, clock) as aggregator:
                reading = aggregator.reading
                _serve(Parts(settings, reading, reading, aggregator.spool, refusals), aggregator, listener)


def _serve(parts: Parts, role: Role, listener: socket.socket) -> None:
    """Answer requests while the role works in a thread of its own; when either ends, so does the other."""
    server = uvicorn.Server(_config(build_app(parts)))
    worker = _Worker(role, lambda: _tell_to_exit(server))
    _take_signals(lambda: _tell_to_exit(server))
    worker.start()
    try:
        listener.listen(_BACKLOG)
        _announce(parts.settings, listener)
        server.run(sockets=[listener])
    finally:
        worker.stop()
    worker.raise_failure()


def _config(app: FastAPI) -> uvicorn.Config:
    """Return how requests are served: no log of uvicorn's own, no websockets, and an end that comes in time."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class _Worker:
    """The thread in which a role works. What it raises is raised again by whoever waited for it."""

    def __init__(self, role: Role, on_end: Callable[[], None]) -> None:
        self._role = role
        self._on_end = on_end
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mppobs-sidecar", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Tell it to stop, and wait until it has finished what is under way."""
        self._stop.set()
        self._thread.join()

    def raise_failure(self) -> None:
        """Raise what ended the work, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._role.run(self._stop)
        except BaseException as error:  # raised again in the main thread
            self._failure = error
        finally:
            self._on_end()


def _tell_to_exit(server: uvicorn.Server) -> None:
    server.should_exit = True


def _take_signals(on_signal: Callable[[], None]) -> None:
    """
    Stop in good order on SIGTERM and SIGINT.

    Uvicorn takes them while it runs and raises them again when it has stopped, which must not end the process
    before the last round is committed; so they have a handler of ours underneath.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: on_signal())


def _listener(settings: SidecarSettings) -> socket.socket:
    """Return a socket bound to the address of the settings; nothing is answered before it listens."""
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {where}: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        hint = "Another sidecar may run there; --port 0 takes a free port"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}. {hint}") from error
    return bound


def _announce(settings: SidecarSettings, listener: socket.socket) -> None:
    """Say where it listens, to people and in the port file."""
    port: int = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    role = f"ships to {settings.forward}" if settings.is_agent else f"keeps its state in {settings.state_directory}"
    followed = ", ".join(map(str, settings.directories))
    sys.stdout.write(f"mppobs sidecar listens on http://{host}:{port}, follows {followed} and {role}\n")
    sys.stdout.flush()
    if settings.port_file is not None:
        _write_whole(settings.port_file, f"{port}\n")


def _write_whole(path: Path, text: str) -> None:
    """Write a small file that nobody sees half of. Raises ConfigError where that is not possible."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
