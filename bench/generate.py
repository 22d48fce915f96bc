"""
How long `mppobs generate` takes for 100 pipelines: a process from start to end, as a user or CI runs it.

The peer is the same file read by PyYAML and written back, in a process of its own: the least that any such tool does.
Wall time, the median of some runs, one of each at a time.

    python bench/generate.py [--pipelines 100] [--rounds 5] [--json]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from report import Figure, options, report

TARGET_SECONDS = 2.0
OBJECTIVES = """
    objectives:
      job-success: 99%
      on-time: 99%
      shard-success: 99.9%
      duration: {objective: 99%, at-most: 8m}
"""
PEER = """
import sys, yaml
tree = yaml.safe_load(open(sys.argv[1]))
open(sys.argv[2], "w").write(yaml.safe_dump(tree))
"""


def spec(pipelines: int) -> str:
    """Return a file of promises, four for each pipeline, of as many owners as ten pipelines each make."""
    parts = [
        f"  p{index:03}:\n    owner: team-{index // 10}\n    every: 10m\n    deadline: 8m{OBJECTIVES}"
        for index in range(pipelines)
    ]
    return "team: bench\npipelines:\n" + "".join(parts)


def seconds(command: Sequence[str]) -> float:
    """Return how long a program takes from start to end. Raises CalledProcessError where it fails."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(directory: Path, pipelines: int, rounds: int) -> tuple[float, float]:
    """Return the medians of ours and of the peer, taken in turns; every run writes everything anew."""
    path = directory / "slo.yaml"
    path.write_text(spec(pipelines))
    ours, peer = [], []
    for turn in range(rounds):
        out = directory / f"out-{turn}"
        ours.append(seconds([sys.executable, "-m", "mppobs.cli.main", "generate", str(path), "--out", str(out)]))
        peer.append(seconds([sys.executable, "-c", PEER, str(path), str(directory / "peer.yaml")]))
    return statistics.median(ours), statistics.median(peer)


def main() -> int:
    """Measure and print; return 1 where the target is missed."""
    parser = options(__doc__)
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ours, peer = measure(Path(name), given.pipelines, given.rounds)
    figure = Figure(f"mppobs generate, {given.pipelines} pipelines", ours, "s", peer, TARGET_SECONDS)
    return report([figure], as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
