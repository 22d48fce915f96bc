"""A coordinator or a standby of one job, as a process that tests kill. Says on its output what it is at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mppobs.executor import Executor, JobHandle, Limits
from tests.executor.plans import group_by

SHARDS = 24


def main(role: str, directory: str, answer: str, lease: str) -> None:
    """Coordinate the job, or stand by for it, and leave the answer in a file."""
    with Executor(2, directory, lease=float(lease)) as executor:
        handle: JobHandle | None
        if role == "coordinator":
            limits = Limits(attempts=100, losses=100, backoff=0.001, backoff_cap=0.01)
            handle = executor.submit(group_by(shards=SHARDS, pause=0.08, limits=limits, job_id="survivor"))
        else:
            print("standing by", flush=True)
            handle = executor.stand_by("survivor")
        if handle is None:
            return
        print("coordinating", flush=True)
        result = handle.result()
        table = result.answer
        said = {
            "outcome": result.outcome,
            "reason": result.reason,
            "rows": None if table is None else sorted(zip(*table.to_pydict().values(), strict=True)),
            "done": [stage.done for stage in result.stages],
            "takeovers": [takeover._asdict() for takeover in result.takeovers],
            "failures": [f"{each.stage}/{each.shard}: {each.message}" for each in result.failures],
        }
        with Path(answer).open("a") as file:
            file.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
