"""A process of its own, whose fork server has not started: says whether a preloaded module is there in a worker."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from mppobs.executor.backends.local import LocalBackend, Pool
from mppobs.executor.backends.recording import recording
from tests.executor.rig import JobOnRig, Rig


def main(directory: Path, module: str) -> None:
    """Ask the first worker, before it has done anything, which modules it has."""
    backend = LocalBackend(1, recording(), "w", Pool(preload=(module,)))
    rig = Rig(backend, directory)
    rig.wait_for_workers(1)
    (ended,) = rig.ended(JobOnRig(rig, directory, "lingering:has_loaded", module=module).give("w-1", 0))
    print(pickle.loads(ended.report.value))
    backend.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
