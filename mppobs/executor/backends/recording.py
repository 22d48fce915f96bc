"""How worker processes record: as their coordinator does, whatever the backend."""

from __future__ import annotations

from typing import Any

from mppobs.instrument.recorder import RECORDER


def recording() -> dict[str, Any]:
    """Return the arguments of `mppobs.configure` for worker processes: as here, but that they do nothing else."""
    settings = RECORDER.settings()
    return {
        "directory": settings.directory,
        "enabled": settings.enabled,
        "node": settings.worker_info().node,
        "zone": settings.zone,
        "node_type": settings.node_type,
        "spot": settings.spot,
        "dedicated": True,
        "lanes": 1,
        "cluster": settings.cluster,
        "sample_seconds": settings.sample_seconds,
        "budget_bytes": settings.budget_bytes,
    }


def worker_prefix() -> str:
    """Return what the names of this coordinator's workers begin with."""
    return f"{RECORDER.settings().worker_info().worker}-w"
