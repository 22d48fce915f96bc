"""
A worker for the crash tests: attempts one after the other, each noted in a file of its own before and after.

    python crash_worker.py NOTES FIRST COUNT SECONDS

The notes are lines `begin N`, `inside N` and `end N`, one write each, which a kill cannot take back. They are what
the worker itself knows, apart from anything that mppobs records.
"""

from __future__ import annotations

import os
import random
import sys
import time

import mppobs


def main(notes: str, first: int, count: int, seconds: float) -> None:
    """Run `count` attempts at shards from `first` on, each of about so many seconds."""
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    chance = random.Random(first)
    for shard in range(first, first + count):
        os.write(file, b"begin %d\n" % shard)
        with mppobs.attempt(stage="map", shard=shard) as attempt:
            os.write(file, b"inside %d\n" % shard)
            attempt.add(rows=1)
            time.sleep(chance.uniform(0, 2 * seconds))
        os.write(file, b"end %d\n" % shard)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
