"""`configure` and `flush`: what a process sets up and ends."""

from __future__ import annotations

import os

from mppobs.instrument.recorder import RECORDER
from mppobs.model import RunKind, Tier


def configure(
    *,
    directory: str | os.PathLike[str] | None = None,
    enabled: bool | None = None,
    worker: str | None = None,
    node: str | None = None,
    zone: str | None = None,
    node_type: str | None = None,
    spot: bool | None = None,
    dedicated: bool | None = None,
    lanes: int | None = None,
    cluster: str | None = None,
    tenant: str | None = None,
    owner: str | None = None,
    pipeline: str | None = None,
    job_id: str | None = None,
    tier: Tier | str | None = None,
    run_kind: RunKind | str | None = None,
    sample_seconds: float | None = None,
    budget_bytes: int | None = None,
) -> None:
    """
    Set how this process records, on top of the environment. Call it once, before the first attempt.

    `directory` is where the journal goes (local, shared with the agent). `node`, `zone`, `node_type` and `spot` say
    where the process runs and what it costs; `dedicated` and `lanes` that it exists only to run attempts, and how many
    at a time. `cluster`, `tenant`, `owner`, `pipeline`, `job_id`, `tier` and `run_kind` are what jobs have that do not
    say.
    A journal that is open is closed. Raises `ConfigError` for values without meaning.
    """
    RECORDER.configure(dict(locals()))


def flush() -> None:
    """
    Take a sample now and have the kernel write the journal to the disk.

    Nothing needs this for a process that dies: what was recorded is in the page cache. It is for a machine that does.
    """
    RECORDER.flush()
