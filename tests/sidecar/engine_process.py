"""An engine alone in a process, to be killed: `python engine_process.py STATE DIRECTORY...`. Says `up` when it runs."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.pace import EngineSettings

if __name__ == "__main__":
    state, *directories = map(Path, sys.argv[1:])
    often = EngineSettings(busy_seconds=0.0, idle_seconds=0.01, checkpoint_bytes=50_000, checkpoint_seconds=0.2)
    engine = open_engine(state, directories, often)
    print("up", flush=True)
    engine.run(threading.Event())
