"""
What the policies are worth: each fault with the policy against it on and off, simulated and on local processes.

The peer is the same run with the policy off. The simulated figures are the same on every machine. Those of local
processes are counts where they are judged, and seconds are told beside them. The takeover is a coordinator that is
killed, with a standby and with none.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import Figure, options, report

import mppobs
from mppobs.executor.rehearsal import LOCAL_EFFECTS, takeover
from mppobs.executor.sim.effects import EFFECTS
from mppobs.executor.sim.scenarios import scheduler_outage

MOST_ATTEMPTS = 1.3
"""For each planned shard, while 30 % of them fail."""
UNITS = {"p99": "s", "seconds": "s", "attempts_ratio": "ratio", "failed": "shards", "largest": "items"}


def compared(name: str, shows: str, on: float, off: float) -> Figure:
    """Return a figure: less is better, and the policy must make it less; attempts have a bound of their own."""
    if shows == "attempts_ratio":
        return Figure(name, on, UNITS[shows], off, target=MOST_ATTEMPTS, besides=off > MOST_ATTEMPTS)
    return Figure(name, on, UNITS[shows], off, besides=on < off)


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
    yield Figure("F4 coordinator dies: a standby finishes", seconds, "s", usual, besides=met)
    twice = outage["shards committed twice"]
    yield Figure("F4 coordinator dies: committed twice", twice.value, "shards", 0, target=0, must="exactly")


def local() -> Iterator[Figure]:
    """Yield the figures of the comparisons on local processes."""
    with tempfile.TemporaryDirectory(prefix="mppobs-effects-") as directory:
        mppobs.configure(directory=directory)
        for effect in LOCAL_EFFECTS:
            on, off = (getattr(outcome, effect.shows) for outcome in effect.run())
            yield compared(f"local {effect.mode} {effect.name}: {effect.policy}, {effect.shows}", effect.shows, on, off)
        with_standby, without = takeover(standby=True), takeover(standby=False)
        name, none = "local F4 coordinator dies: a standby finishes", without.done == 0
        planned = with_standby.planned
        yield Figure(name, with_standby.done, "shards", without.done, target=planned, must="exactly", besides=none)
        mppobs.configure(enabled=False)


def main() -> int:
    """Print the figures; return 1 where a policy does not do what it is for."""
    parser = options(__doc__)
    parser.add_argument("--simulated", action="store_true", help="leave out what runs on local processes")
    given = parser.parse_args()
    return report(simulated() if given.simulated else chain(simulated(), local()), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
