"""
What the policies are worth: each fault with the policy against it on and off, simulated and on local processes.

The simulated figures are the same on every machine. Those of local processes are counts where they are judged, and
seconds are told beside them. The takeover is a coordinator that is killed, with a standby and with none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mppobs
from mppobs.executor.rehearsal import LOCAL_EFFECTS, takeover
from mppobs.executor.sim.effects import EFFECTS
from mppobs.executor.sim.scenarios import scheduler_outage

MOST_ATTEMPTS = 1.3
"""For each planned shard, while 30 % of them fail."""
UNITS = {"p99": "s", "seconds": "s", "attempts_ratio": "ratio", "failed": "shards", "largest": "items"}


class Figure(NamedTuple):
    """One line of the result; the peer is the same run with the policy off."""

    figure: str
    value: float
    unit: str
    peer: float
    ratio: float | None
    target: float | None
    met: bool | None


def compared(name: str, shows: str, on: float, off: float) -> Figure:
    """Return a figure: less is better, and the policy must make it less; attempts have a bound of their own."""
    ratio = on / off if off else None
    if shows == "attempts_ratio":
        return Figure(name, on, UNITS[shows], off, ratio, MOST_ATTEMPTS, on <= MOST_ATTEMPTS < off)
    return Figure(name, on, UNITS[shows], off, ratio, None, on < off)


def simulated() -> Iterator[Figure]:
    """Yield the figures of the simulated comparisons."""
    for effect in EFFECTS:
        on, off = effect.run()
        name = f"{effect.mode} {effect.name}: {effect.policy}"
        yield compared(f"{name}, {effect.shows}", effect.shows, getattr(on, effect.shows), getattr(off, effect.shows))
        if effect.shows == "p99":
            yield compared(f"{name}, completion", "seconds", on.seconds, off.seconds)
    outage = {finding.figure: finding for finding in scheduler_outage(7).findings}
    seconds, usual = outage["completion"].value, outage["completion without the outage"].value
    met = all(finding.met for finding in outage.values())
    yield Figure("F4 coordinator dies: a standby finishes", seconds, "s", usual, seconds / usual, None, met)
    twice = outage["shards committed twice"]
    yield Figure("F4 coordinator dies: committed twice", twice.value, "shards", 0.0, None, 0.0, twice.met)


def local() -> Iterator[Figure]:
    """Yield the figures of the comparisons on local processes."""
    mppobs.configure(directory=tempfile.mkdtemp(prefix="mppobs-effects-"))
    for effect in LOCAL_EFFECTS:
        on, off = effect.run()
        name = f"local {effect.mode} {effect.name}: {effect.policy}"
        yield compared(f"{name}, {effect.shows}", effect.shows, getattr(on, effect.shows), getattr(off, effect.shows))
    on, off = takeover(standby=True), takeover(standby=False)
    met = on.done == on.planned and off.done == 0
    yield Figure("local F4 coordinator dies: a standby finishes", on.done, "shards", off.done, None, on.planned, met)


def main() -> int:
    """Print the figures; exit with 1 where a policy does not do what it is for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--simulated", action="store_true", help="leave out what runs on local processes")
    options = parser.parse_args()
    failed = 0
    for source in (simulated,) if options.simulated else (simulated, local):
        for each in source():
            failed += each.met is False
            if options.json:
                print(json.dumps(each._asdict()), flush=True)
            else:
                verdict = "met" if each.met else "MISSED"
                print(f"{each.figure:<74} on {each.value:>9,.4g}  off {each.peer:>9,.4g} {each.unit:<7} {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
