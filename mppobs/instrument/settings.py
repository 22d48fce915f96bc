"""What a worker is told from outside: the environment and `configure`, parsed in one place."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from mppobs.errors import ConfigError, nearest
from mppobs.instrument.names import clean, member
from mppobs.model import RunKind, Tier, WorkerInfo

_log = logging.getLogger("mppobs")

_FOREIGN: Final = ("MPPOBS_SIDECAR_",)
"""Prefixes of variables that belong to other parts."""


class Settings(NamedTuple):
    """How this process records. Frozen: `configure` makes another."""

    directory: Path
    """Where journals go; must be local and is shared with the agent."""
    enabled: bool = True
    worker: str = ""
    """A name that is unique in the cluster; empty for `host-pid`."""
    node: str = ""
    """The host; empty for its name."""
    zone: str = ""
    node_type: str = ""
    """The key into the price list."""
    spot: bool = False
    dedicated: bool = False
    """Whether this process exists only to run attempts, so that its idle time is somebody's bill."""
    lanes: int = 1
    """How many attempts it runs at a time."""
    cluster: str = "default"
    tenant: str = "default"
    owner: str = ""
    pipeline: str = ""
    job_id: str = ""
    tier: Tier = Tier.STANDARD
    run_kind: RunKind = RunKind.SCHEDULED
    context: str = ""
    """What `inject` gave to another process, in its form for the environment."""
    sample_seconds: float = 5.0
    """How often the process's CPU and memory are sampled; 0 for never."""
    budget_bytes: int = 256 * 1024 * 1024
    """How much of the disk the journal may hold at a time."""

    def worker_info(self, node: str = "") -> WorkerInfo:
        """Return what the journal says of this process; `node` is what the platform calls the host."""
        host = self.node or node or os.uname().nodename
        return WorkerInfo(
            worker=self.worker or f"{host}-{os.getpid()}",
            node=host,
            zone=self.zone,
            node_type=self.node_type,
            spot=self.spot,
            dedicated=self.dedicated,
            lanes=self.lanes,
            pid=os.getpid(),
        )


def _flag(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither true nor false") from None


def _directory(given: str | os.PathLike[str]) -> Path:
    if not os.fspath(given):
        raise ValueError("an empty directory is none")
    return Path(given)


def _positive(text: str | int) -> int:
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise ValueError(f"{text!r} is no whole number above 0")
    return number


def _seconds(text: str | float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise ValueError(f"{text!r} is no number of seconds")
    return number


_tier: Final = partial(member, Tier)
_run_kind: Final = partial(member, RunKind)
_NAMES: Final = ("cluster", "tenant", "owner", "pipeline", "job_id")
"""Settings that are names of things, as they come into records."""

_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(_NAMES, clean),
    "directory": _directory,
    "lanes": _positive,
    "budget_bytes": _positive,
    "sample_seconds": _seconds,
    "tier": _tier,
    "run_kind": _run_kind,
}
"""How the values that `configure` is given are read, where any value will not do."""

VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "MPPOBS_DIR": ("directory", Path),
    "MPPOBS_DISABLED": ("enabled", lambda text: not _flag(text)),
    "MPPOBS_WORKER": ("worker", str),
    "MPPOBS_NODE": ("node", str),
    "MPPOBS_ZONE": ("zone", str),
    "MPPOBS_NODE_TYPE": ("node_type", str),
    "MPPOBS_SPOT": ("spot", _flag),
    "MPPOBS_DEDICATED": ("dedicated", _flag),
    "MPPOBS_LANES": ("lanes", _positive),
    "MPPOBS_CLUSTER": ("cluster", clean),
    "MPPOBS_TENANT": ("tenant", clean),
    "MPPOBS_OWNER": ("owner", clean),
    "MPPOBS_PIPELINE": ("pipeline", clean),
    "MPPOBS_JOB_ID": ("job_id", clean),
    "MPPOBS_TIER": ("tier", _tier),
    "MPPOBS_RUN_KIND": ("run_kind", _run_kind),
    "MPPOBS_CONTEXT": ("context", str),
    "MPPOBS_SAMPLE_SECONDS": ("sample_seconds", _seconds),
    "MPPOBS_BUDGET_BYTES": ("budget_bytes", _positive),
}
"""Every environment variable of a worker, the setting it gives, and how it is read."""

IDENTITY_VARIABLES: Final = ("MPPOBS_SHARD", "MPPOBS_ATTEMPT")
"""Read by `mppobs.instrument.identity`."""


def default_directory() -> Path:
    """Return where journals go when nobody says: a directory of this user's own under the temporary one."""
    import tempfile  # here, since most workers are told where

    return Path(tempfile.gettempdir()) / f"mppobs-{os.getuid()}"


def require_own(directory: Path) -> None:
    """
    Make a directory that others could have made first, and raise `ConfigError` where it is not this user's own.

    The default one is below a directory that everybody writes to.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(f"{directory} belongs to somebody else: set MPPOBS_DIR or configure(directory=...)")


def from_environment(environ: Mapping[str, str]) -> Settings:
    """
    Return the settings that the environment gives.

    A variable that is empty is one that is not set. One that is unknown or makes no sense is passed over with a warning
    that names the nearest one: a typing error must not stop the work that is only observed.

    >>> from_environment({"MPPOBS_PIPELINE": "nightly", "MPPOBS_LANES": "4"}).lanes
    4
    """
    values: dict[str, Any] = {"directory": default_directory()}
    for name, text in environ.items():
        if not name.startswith("MPPOBS_") or name.startswith(_FOREIGN) or name in IDENTITY_VARIABLES:
            continue
        if name not in VARIABLES:
            _log.warning("%s is no variable of mppobs: %s", name, nearest(name, (*VARIABLES, *IDENTITY_VARIABLES)))
            continue
        if not text.strip():
            continue
        field, parse = VARIABLES[name]
        try:
            values[field] = parse(text)
        except ValueError as error:
            _log.warning("%s is passed over: %s", name, error)
    return Settings(**values)


def changed(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Return settings with those values replaced that are not `None`. Raises `ConfigError` for what has no meaning."""
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    try:
        for name, check in _CHECKS.items():
            if name in given:
                given[name] = check(given[name])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"configure: {error}") from error
    return settings._replace(**given)
